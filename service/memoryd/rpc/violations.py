"""What is wrong with a request: every violation, collected.

The wire carries any two numbers as a duration or a timestamp. Those outside what their types can
say are found by the messages' descriptors, so that a field added later is checked as well.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from memoryd.domain.errors import InvalidRequest, Violation
from memoryd.rpc import rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message
    from protovalidate import Violation as RuleViolation

    Check = Callable[[Any, str], Iterable[Violation]]

MAX_DURATION_SECONDS = 315_576_000_000
"""10,000 years, by google.protobuf.Duration; as many in the other direction."""

FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799
"""Of the years 1 and 9999, by google.protobuf.Timestamp, counted from 1970."""

MAX_KEY_CHARACTERS = 100
"""Of a map's key in the path of a field."""

NANOS_A_SECOND = 1_000_000_000

NO_DURATION = (
    f"must be a duration of at most {MAX_DURATION_SECONDS:,} seconds, with nanos up to 999,999,999"
    " and of the same sign as the seconds"
)
NO_TIMESTAMP = "must be a time from the year 1 to 9999, with nanos from 0 to 999,999,999"

_validator = rules.validator()


class Violations:
    """Collects what is wrong with a request, so that the caller learns all of it at once."""

    def __init__(self) -> None:
        self._found: dict[str, Violation] = {}
        self._conditional: list[Violation] = []

    def add(self, field: str, description: str) -> None:
        """Add one, unless the same field has one already, such as from the protos' rules."""
        self._found.setdefault(field, Violation(field, description))

    def add_all(self, violations: Iterable[Violation]) -> None:
        for field, description in violations:
            self.add(field, description)

    def add_conditional(self, violation: Violation) -> None:
        """Add one that counts only where there are others."""
        self._conditional.append(violation)

    def add_rules(self, message: Message) -> None:
        """Add what breaks the protos' rules, and times that are outside their types' ranges."""
        self.add_all(out_of_range(message))
        for violation in _validator.collect_violations(message):
            self.add(_path(violation), violation.proto.message)

    def __bool__(self) -> bool:
        return bool(self._found)

    def check(self) -> None:
        """Raises InvalidRequest if there are any."""
        if self._found:
            others = (v for v in self._conditional if v.field not in self._found)
            raise InvalidRequest(*self._found.values(), *others)


def _clipped(key: str) -> str:
    """A key of a map, which may be as long as a request, as an answer has room for it."""
    return key if len(key) <= MAX_KEY_CHARACTERS else f"{key[:MAX_KEY_CHARACTERS]}…"


def _path(violation: RuleViolation) -> str:
    """Such as `requests[3].metadata`."""
    path = ""
    field = violation.proto.field
    for element in () if field is None else field.elements:
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            subscript = element.subscript.value
            path += f"[{subscript}]" if isinstance(subscript, int) else f'["{_clipped(subscript)}"]'
    return path


def out_of_range(message: Message, prefix: str = "") -> list[Violation]:
    """Give a violation for each duration and timestamp that is none, with its path."""
    found: list[Violation] = []
    for name, is_repeated, check in _fields_with_times(message.DESCRIPTOR):
        if is_repeated:
            for key, value in _items(getattr(message, name)):
                found += check(value, f"{prefix}{name}[{key}]")
        elif message.HasField(name):
            found += check(getattr(message, name), f"{prefix}{name}")
    return found


def _items(values: Any) -> Iterable[tuple[object, Any]]:
    """Of a list by their places, of a map by their keys, as paths have them."""
    if not hasattr(values, "keys"):
        return enumerate(values)
    return ((f'"{key}"' if isinstance(key, str) else key, values[key]) for key in values)


def _check_duration(message: Any, path: str) -> Iterable[Violation]:
    seconds, nanos = message.seconds, message.nanos
    if (
        abs(seconds) <= MAX_DURATION_SECONDS
        and abs(nanos) < NANOS_A_SECOND
        and (not seconds or not nanos or (seconds < 0) == (nanos < 0))
    ):
        return ()
    return (Violation(path, NO_DURATION),)


def _check_timestamp(message: Any, path: str) -> Iterable[Violation]:
    if FIRST_SECOND <= message.seconds <= LAST_SECOND and 0 <= message.nanos < NANOS_A_SECOND:
        return ()
    return (Violation(path, NO_TIMESTAMP),)


def _check_within(message: Any, path: str) -> Iterable[Violation]:
    return out_of_range(message, f"{path}.")


_CHECK_OF = {
    Duration.DESCRIPTOR.full_name: _check_duration,
    Timestamp.DESCRIPTOR.full_name: _check_timestamp,
}


@cache
def _fields_with_times(descriptor: Descriptor) -> tuple[tuple[str, bool, Check], ...]:
    """Give name, whether it is repeated, and what checks a value, of each field with times."""
    return tuple(
        (field.name, field.is_repeated, check)
        for field in descriptor.fields
        if (check := _check_of(field.message_type, ())) is not None
    )


def _check_of(kind: Descriptor | None, within: tuple[Descriptor, ...]) -> Check | None:
    if kind is None or kind in within:  # a scalar, or a message within itself
        return None
    if kind.full_name in _CHECK_OF:
        return _CHECK_OF[kind.full_name]
    if kind.GetOptions().map_entry:
        return _check_of(kind.fields_by_name["value"].message_type, within)
    within = (*within, kind)
    has_times = any(_check_of(field.message_type, within) for field in kind.fields)
    return _check_within if has_times else None
