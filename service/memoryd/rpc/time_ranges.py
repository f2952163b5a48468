"""Durations and timestamps outside what their types can say, wherever in a request they are.

The wire carries any two numbers as either. The fields are found by their descriptors, so that one
that a message gets later is judged as well.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from memoryd.domain.errors import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

    Judge = Callable[[Any, str], Iterable[Violation]]

MAX_DURATION_SECONDS = 315_576_000_000
"""10,000 years, by google.protobuf.Duration; as many in the other direction."""

FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799
"""Of the years 1 and 9999, by google.protobuf.Timestamp, counted from 1970."""

NANOS_A_SECOND = 1_000_000_000

NO_DURATION = (
    f"must be a duration of at most {MAX_DURATION_SECONDS:,} seconds, with nanos up to 999,999,999"
    " and of the same sign as the seconds"
)
NO_TIMESTAMP = "must be a time from the year 1 to 9999, with nanos from 0 to 999,999,999"


def out_of_range(message: Message, prefix: str = "") -> list[Violation]:
    """Give a violation for each duration and timestamp that is none, with its path."""
    found: list[Violation] = []
    for name, is_repeated, judge in _fields_with_times(message.DESCRIPTOR):
        if is_repeated:
            for key, value in _items(getattr(message, name)):
                found += judge(value, f"{prefix}{name}[{key}]")
        elif message.HasField(name):
            found += judge(getattr(message, name), f"{prefix}{name}")
    return found


def _items(values: Any) -> Iterable[tuple[object, Any]]:
    """Of a list by their places, of a map by their keys, as paths have them."""
    if not hasattr(values, "keys"):
        return enumerate(values)
    return ((f'"{key}"' if isinstance(key, str) else key, values[key]) for key in values)


def _judge_duration(message: Any, path: str) -> Iterable[Violation]:
    seconds, nanos = message.seconds, message.nanos
    if (
        abs(seconds) <= MAX_DURATION_SECONDS
        and abs(nanos) < NANOS_A_SECOND
        and (not seconds or not nanos or (seconds < 0) == (nanos < 0))
    ):
        return ()
    return (Violation(path, NO_DURATION),)


def _judge_timestamp(message: Any, path: str) -> Iterable[Violation]:
    if FIRST_SECOND <= message.seconds <= LAST_SECOND and 0 <= message.nanos < NANOS_A_SECOND:
        return ()
    return (Violation(path, NO_TIMESTAMP),)


def _judge_within(message: Any, path: str) -> Iterable[Violation]:
    return out_of_range(message, f"{path}.")


_JUDGE_OF = {
    Duration.DESCRIPTOR.full_name: _judge_duration,
    Timestamp.DESCRIPTOR.full_name: _judge_timestamp,
}


@cache
def _fields_with_times(descriptor: Descriptor) -> tuple[tuple[str, bool, Judge], ...]:
    """Give name, whether it is repeated, and what judges a value, of each field with times."""
    return tuple(
        (field.name, field.is_repeated, judge)
        for field in descriptor.fields
        if (judge := _judge_of(field.message_type, ())) is not None
    )


def _judge_of(kind: Descriptor | None, within: tuple[Descriptor, ...]) -> Judge | None:
    if kind is None or kind in within:  # a scalar, or a message within itself
        return None
    if kind.full_name in _JUDGE_OF:
        return _JUDGE_OF[kind.full_name]
    if kind.GetOptions().map_entry:
        return _judge_of(kind.fields_by_name["value"].message_type, within)
    within = (*within, kind)
    has_times = any(_judge_of(field.message_type, within) for field in kind.fields)
    return _judge_within if has_times else None
