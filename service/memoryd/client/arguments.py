"""Arguments of the client as values of messages.

An argument that cannot be sent raises a ValueError or a TypeError that begins with its name. The
service says whether a value that can be sent is right.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from memoryd.v1.condition_pb2 import ConditionOp
from memoryd.v1.conversation_pb2 import Role
from memoryd.v1.memory_pb2 import ContentType

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from memoryd.v1.condition_pb2 import ConditionOp as ConditionOps
    from memoryd.v1.conversation_pb2 import Role as Roles
    from memoryd.v1.memory_pb2 import ContentType as ContentTypes

T = TypeVar("T")

MAX_JSON_DEPTH = 32
"""Containers inside each other: more than the service accepts, fewer than a message can hold."""

MAX_JSON_VALUES = 100_000
"""Values in one metadata: more than fit into the bytes that the service accepts."""

MAX_TIMEOUT_SECONDS = 10.0**9
"""About 30 years: the longest deadline that gRPC can count."""

_SHOWN_CHARACTERS = 60

_INT32 = 2**31
_INT64 = 2**63

_CONTENT_TYPES = {
    name.removeprefix("CONTENT_TYPE_").lower(): value
    for name, value in ContentType.items()
    if value
}

_CONDITION_OPS = {
    name.removeprefix("CONDITION_OP_").lower(): value
    for name, value in ConditionOp.items()
    if value
}

_ROLES = {name.removeprefix("ROLE_").lower(): value for name, value in Role.items() if value}

_HEADER = re.compile(r"[0-9a-z_.-]+")
_HEADER_VALUE = re.compile(r"[ -~]*")


def shown(value: object) -> str:
    """A value as a message shows it: a short one as Python writes it, another by its type."""
    kind = type(value).__name__
    if not isinstance(value, bool | int | float | str | bytes) or (
        isinstance(value, int) and value.bit_length() > 200  # noqa: PLR2004  more digits than are shown
    ):
        return f"a value of type {kind}"
    text = ascii(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"a long {kind}"


def text(name: str, value: object) -> str:
    """A string that UTF-8 can encode."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a str, not {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name}: has half a surrogate pair at character {error.start}, which UTF-8 cannot"
            " encode; decode the source of the text with errors='replace'"
        ) from None
    return value


def optional_text(name: str, value: object) -> str | None:
    return None if value is None else text(name, value)


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, not {shown(value)}")
    return value


def optional_flag(name: str, value: object) -> bool | None:
    return None if value is None else flag(name, value)


def int32(name: str, value: object) -> int:
    return _whole(name, value, _INT32)


def optional_int32(name: str, value: object) -> int | None:
    return None if value is None else int32(name, value)


def int64(name: str, value: object) -> int:
    return _whole(name, value, _INT64)


def _whole(name: str, value: Any, end: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected a whole number, not {shown(value)}") from None
    if not -end <= number < end:
        raise ValueError(f"{name}: expected a number from {-end} to {end - 1}")
    return number


def optional_double(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, str | bytes | bytearray) or not hasattr(type(value), "__float__"):
        if hasattr(type(value), "__index__"):
            return _double(name, operator.index(value))
        raise TypeError(f"{name}: expected a number, not {shown(value)}")
    return _double(name, value)


def _double(name: str, value: Any) -> float:
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError):
        raise ValueError(f"{name}: expected a number that fits a double") from None


def seconds(name: str, value: Any) -> float | None:
    """A timeout in seconds; None: no limit."""
    if isinstance(value, timedelta | bool):
        raise TypeError(f"{name}: expected seconds as a number, not {shown(value)}")
    number = optional_double(name, value)
    if number is None or number == math.inf:
        return None
    if math.isnan(number) or abs(number) > MAX_TIMEOUT_SECONDS:
        raise ValueError(f"{name}: expected seconds, at most {MAX_TIMEOUT_SECONDS:.0f}")
    return number


def instance(name: str, value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected a {kind.__name__}, not {shown(value)}")
    return value


def items(name: str, values: Iterable[T]) -> list[T]:
    """The items of a list or another iterable; a text is not taken as its letters."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise TypeError(f"{name}: expected a list, not {shown(values)}")
    return list(values)


def texts(name: str, values: Iterable[str]) -> list[str]:
    return [text(f"{name}[{index}]", each) for index, each in enumerate(items(name, values))]


def labels(name: str, given: Mapping[str, str] | None) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"{name}: expected a dict, not {shown(given)}")
    return {
        text(f"{name}: a key", key): text(f"{name}[{key!a}]", each) for key, each in given.items()
    }


def only_known(given: Mapping[str, Any], kind: type, what: str) -> None:
    """Refuse keyword arguments that a TypedDict does not have, as Python does by itself."""
    if unknown := given.keys() - kind.__annotations__.keys():
        known = ", ".join(kind.__annotations__)
        raise TypeError(f"{', '.join(sorted(unknown))}: no such {what}; use {known}")


def fields_of(name: str, given: Mapping[str, Any], known: Collection[str]) -> Mapping[str, Any]:
    """A mapping that has keys of `known` alone."""
    for key in given:
        if key not in known:
            raise ValueError(f"{name}: {shown(key)} is no field of it; use {', '.join(known)}")
    return given


def data(name: str, value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    raise TypeError(f"{name}: expected bytes, not {shown(value)}")


def content_type(name: str, given: str | None) -> ContentTypes.ValueType:
    if given is None:
        return ContentType.CONTENT_TYPE_UNSPECIFIED
    return ContentType.ValueType(_member(name, given, _CONTENT_TYPES))


def condition_op(name: str, given: str) -> ConditionOps.ValueType:
    known = given.lower() if isinstance(given, str) else given
    return ConditionOp.ValueType(_member(name, known, _CONDITION_OPS))


def role(name: str, given: str | None) -> Roles.ValueType:
    if given is None:
        return Role.ROLE_UNSPECIFIED
    return Role.ValueType(_member(name, given, _ROLES))


def _member(name: str, given: object, known: Mapping[str, int]) -> int:
    """The number of an enum's value, which callers give by its name."""
    if not isinstance(given, str):
        raise TypeError(f"{name}: expected one of {', '.join(known)}, not {shown(given)}")
    try:
        return known[given]
    except KeyError:
        raise ValueError(f"{name}: {shown(given)} is not one of {', '.join(known)}") from None


def at_most_one(**arguments: object) -> None:
    given = [name for name, value in arguments.items() if value is not None and value is not False]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} exclude each other; give one of them")


def one_text(**arguments: object) -> dict[str, Any]:
    """The one text that is given."""
    given = {name: text(name, value) for name, value in arguments.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"{' or '.join(arguments)}: give one of them")
    return given


def timestamp(name: str, moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        raise TypeError(f"{name}: expected an aware datetime, not {shown(moment)}")
    if moment.utcoffset() is None:
        raise ValueError(
            f"{name}: {moment!r} has no time zone; give an aware one: datetime.now(UTC)"
        )
    made = Timestamp()
    _fill(made.FromDatetime, moment, f"{name}: {moment!r} lies outside the years 1 to 9999 in UTC")
    return made


def duration(name: str, span: timedelta | None) -> Duration | None:
    if span is None:
        return None
    if not isinstance(span, timedelta):
        raise TypeError(
            f"{name}: expected a timedelta, not {shown(span)}; write timedelta(seconds=…)"
        )
    made = Duration()
    _fill(made.FromTimedelta, span, f"{name}: {span!r} is longer than a Duration can be")
    return made


def _fill(fill: Callable[[T], object], value: T, problem: str) -> None:
    try:
        fill(value)
    except (ValueError, OverflowError):
        raise ValueError(problem) from None


def struct(name: str, fields: Mapping[str, Any] | None) -> Struct | None:
    """Metadata: a mapping of JSON values."""
    if fields is None:
        return None
    if not isinstance(fields, Mapping):
        raise TypeError(f"{name}: expected a dict, not {shown(fields)}")
    return _Json(name).struct(name, fields, 1)


def value(name: str, given: Any) -> Value:
    """A JSON value."""
    return _Json(name).value(given)


class _Json:
    """Turns one JSON value into messages, and counts its values."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._left = MAX_JSON_VALUES

    def value(self, given: Any) -> Value:
        return self._value(self._name, given, 0)

    def struct(self, path: str, fields: Mapping[str, Any], depth: int) -> Struct:
        self._check_depth(depth)
        made = Struct()
        for key, each in fields.items():
            if not isinstance(key, str):
                raise TypeError(
                    f"{path}: the key {shown(key)} is not a string; give it as one, as JSON does"
                )
            inner = f"{path}.{text(f'{path}: a key', key)}"
            made.fields[key].CopyFrom(self._value(inner, each, depth))
        return made

    def _value(self, path: str, given: Any, depth: int) -> Value:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"{self._name}: has more than {MAX_JSON_VALUES:,} values; give fewer")
        match given:
            case None:
                return Value(null_value=NULL_VALUE)
            case bool():
                return Value(bool_value=given)
            case str():
                return Value(string_value=text(path, given))
            case int() | float():
                return Value(number_value=_json_number(path, given))
            case Mapping():
                return Value(struct_value=self.struct(path, given, depth + 1))
            case list() | tuple():
                self._check_depth(depth + 1)
                values = [
                    self._value(f"{path}[{index}]", each, depth + 1)
                    for index, each in enumerate(given)
                ]
                return Value(list_value=ListValue(values=values))
        raise TypeError(
            f"{path}: {type(given).__name__} is not a JSON type; give a str, int, float, bool,"
            " list, dict or None"
        )

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_JSON_DEPTH:
            raise ValueError(
                f"{self._name}: contains itself, or has more than {MAX_JSON_DEPTH} levels of"
                " containers; flatten it"
            )


def _json_number(path: str, number: float) -> float:
    """The number as a double; an int that a double would round is refused."""
    try:
        double = float(number)
    except OverflowError:
        double = math.inf
    if isinstance(number, int) and double != number:
        raise ValueError(
            f"{path}: {shown(number)} loses digits as a JSON number; give it as a string"
        )
    if not math.isfinite(double):
        raise ValueError(f"{path}: JSON cannot express {double}; leave it out")
    return double


def headers(
    name: str, given: Mapping[str, str | bytes] | None
) -> tuple[tuple[str, str | bytes], ...]:
    """The metadata of every call, in gRPC's form."""
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise TypeError(f"{name}: expected a dict, not {shown(given)}")
    return tuple(_header(name, key, value) for key, value in given.items())


def _header(name: str, key: object, value: object) -> tuple[str, str | bytes]:
    lower = text(f"{name}: a key", key).lower()
    if not _HEADER.fullmatch(lower) or lower.startswith("grpc-"):
        raise ValueError(
            f"{name}: {shown(key)} is not a header name; use letters, digits and _ . -, and do not"
            " begin with grpc-"
        )
    if lower.endswith("-bin"):
        if not isinstance(value, bytes):
            raise TypeError(f"{name}.{lower}: expected bytes, since its name ends with -bin")
        return lower, value
    if not isinstance(value, str):
        raise TypeError(f"{name}.{lower}: expected a str; for bytes, end the name with -bin")
    if not _HEADER_VALUE.fullmatch(value):  # it may be a credential, so it is not shown
        raise ValueError(f"{name}.{lower}: has other characters than visible ASCII; remove them")
    return lower, value


def channel_options(name: str, given: Mapping[str, str | int] | None) -> dict[str, str | int]:
    """The channel arguments, in gRPC's form."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"{name}: expected a dict, not {shown(given)}")
    return {
        text(f"{name}: a key", key): text(f"{name}.{key}", value)
        if isinstance(value, str)
        else int32(f"{name}.{key}", value)
        for key, value in given.items()
    }
