"""How the service's messages become the dataclasses of `memoryd.client.answers`, and back.

Timestamps are aware datetimes in UTC, durations timedeltas, both to the microsecond; a Struct is a
dict of JSON values, in which whole numbers up to 2**53 are ints; enums are their names.
"""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest

from memoryd.client import arguments as args
from memoryd.client.errors import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.descriptor import FieldDescriptor

_Proto = TypeVar("_Proto")
_Member = TypeVar("_Member", bound=StrEnum)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MAX_WHOLE = 2**53
"""From here on a double does not hold every int."""

_kinds: dict[str, type[Answer[Any]]] = {}
"""The dataclass of a message, by the message's full name."""
_enums: dict[str, type[StrEnum]] = {}
"""The StrEnum of an enum, by the enum's full name."""


class Answer(Generic[_Proto]):
    """What a message of the service says, as a frozen dataclass."""

    __slots__ = ("_proto",)
    _message: ClassVar[Any]
    _proto: _Proto

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # A dataclass with slots is made twice; the second one is the class that callers see.
        if hasattr(cls, "_message"):
            _kinds[cls._message.DESCRIPTOR.full_name] = cls

    @classmethod
    def from_proto(cls, message: _Proto) -> Self:
        """Make it of the service's message."""
        made = cls.__new__(cls)
        # A frozen dataclass's own way to set its fields takes several times as long.
        for set_field, read in _plan_of(cls).readers:
            set_field(made, read(message))
        _set_proto(made, message)
        return made

    @property
    def proto(self) -> _Proto:
        """The message of `memoryd.v1` that it was made from; else one that says the same."""
        try:
            return self._proto
        except AttributeError:
            message: _Proto = self._message()
            for name, write in _plan_of(type(self)).writers.items():
                write(message, getattr(self, name))
            return message


_set_proto: Any = vars(Answer)["_proto"].__set__


def names_of(enum: Any) -> Callable[[type[_Member]], type[_Member]]:
    """Decorate the StrEnum that has the names of an enum of `memoryd.v1`."""

    def register(names: type[_Member]) -> type[_Member]:
        _enums[enum.DESCRIPTOR.full_name] = names
        return names

    return register


_Read = Any
"""Gives the value of a field of a message."""
_Write = Any
"""Sets a field of a message to a value."""


class _Plan(NamedTuple):
    """How a dataclass is made of its message, and the message of it."""

    readers: tuple[tuple[Any, _Read], ...]
    """What sets each field of the dataclass, and what it is set to."""
    writers: dict[str, _Write]


def _plan_of(kind: Any) -> _Plan:
    plan = _plans.get(kind)
    if plan is None:
        plan = _plans[kind] = _plan(kind)
    return plan


_plans: dict[Any, _Plan] = {}


def _plan(kind: Any) -> _Plan:
    descriptors = kind._message.DESCRIPTOR.fields_by_name  # noqa: SLF001  our own
    found = {field.name: _access(descriptors[field.name], field.default) for field in fields(kind)}
    return _Plan(
        tuple((vars(kind)[name].__set__, read) for name, (read, _) in found.items()),
        {name: write for name, (_, write) in found.items()},
    )


def _access(field: FieldDescriptor, default: object) -> tuple[_Read, _Write]:
    """`default`: that of the dataclass; descriptors say what is repeated in a way of their age."""
    name = field.name
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _map(name, *_conversion(field.message_type.fields_by_name["value"]))
    to_python, to_proto = _conversion(field)
    if default == ():
        return _repeated(name, to_python, to_proto)
    return _single(field, to_python, to_proto, may_be_none=default is None)


def _map(name: str, to_python: Any, to_proto: Any) -> tuple[_Read, _Write]:
    def read(message: Any) -> Any:
        found = getattr(message, name)
        if to_python is None:
            return dict(found)
        return {key: to_python(value) for key, value in found.items()}

    def write(message: Any, values: Mapping[Any, Any]) -> None:
        made = getattr(message, name)
        for key, value in values.items():
            made[key] = value if to_proto is None else to_proto(value)

    return read, write


def _repeated(name: str, to_python: Any, to_proto: Any) -> tuple[_Read, _Write]:
    def read(message: Any) -> Any:
        found = getattr(message, name)
        if not found:
            return ()
        return tuple(found if to_python is None else map(to_python, found))

    def write(message: Any, values: Any) -> None:
        getattr(message, name).extend(values if to_proto is None else map(to_proto, values))

    return read, write


def _single(
    field: FieldDescriptor, to_python: Any, to_proto: Any, *, may_be_none: bool
) -> tuple[_Read, _Write]:
    name, is_message = field.name, field.message_type is not None

    get = attrgetter(name)
    read: _Read = get if to_python is None else lambda message: to_python(get(message))

    def read_if_present(message: Any) -> Any:
        return read(message) if message.HasField(name) else None

    def write(message: Any, value: Any) -> None:
        if value is None or (not value and not may_be_none):
            return
        made = value if to_proto is None else to_proto(value)
        if is_message:
            getattr(message, name).CopyFrom(made)
        else:
            setattr(message, name, made)

    return read_if_present if may_be_none else read, write


def _conversion(field: FieldDescriptor) -> tuple[Any, Any]:
    """From a value of a message and to it; None: it is the same there."""
    if field.enum_type is not None:
        return _enum_conversion(_enums[field.enum_type.full_name], field.enum_type)
    if field.message_type is None:
        return None, None
    name = field.message_type.full_name
    if known := _WELL_KNOWN.get(name):
        return known
    kind = _kinds[name]
    return kind.from_proto, lambda value: value.proto


def _enum_conversion(names: type[StrEnum], enum: Any) -> tuple[Any, Any]:
    *_, unspecified = (value.name for value in enum.values if value.number == 0)
    prefix = unspecified.removesuffix("UNSPECIFIED")
    by_number = {
        value.number: names(value.name.removeprefix(prefix).lower()) for value in enum.values
    }
    by_name = {str(name): number for number, name in by_number.items()}
    # Of a later release of the service: `proto` has the number.
    other = by_number[0]
    return lambda number: by_number.get(number, other), lambda name: by_name[str(name)]


def moment(timestamp: Timestamp) -> datetime:
    return EPOCH + timedelta(0, timestamp.seconds, timestamp.nanos // 1000)


def _span(duration: Duration) -> timedelta:
    return timedelta(seconds=duration.seconds, microseconds=int(duration.nanos / 1000))


def json_object(struct: Struct) -> dict[str, Any]:
    return {key: _json_value(value) for key, value in struct.fields.items()}


def _json_value(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) <= MAX_WHOLE else number
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return json_object(value.struct_value)
        case "list_value":
            return [_json_value(each) for each in value.list_value.values]
    return None


def _violation(message: Any) -> Violation:
    return Violation(message.field, message.description)


def _violation_message(value: Violation) -> Any:
    return BadRequest.FieldViolation(field=value.field, description=value.description)


_WELL_KNOWN: dict[str, tuple[Any, Any]] = {
    BadRequest.FieldViolation.DESCRIPTOR.full_name: (_violation, _violation_message),
    Timestamp.DESCRIPTOR.full_name: (moment, lambda value: args.timestamp("time", value)),
    Duration.DESCRIPTOR.full_name: (_span, lambda value: args.duration("span", value)),
    Struct.DESCRIPTOR.full_name: (json_object, lambda value: args.struct("object", value)),
}
