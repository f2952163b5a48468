"""Ids that the service gives: UUIDv7 (RFC 9562), which sort by time."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime.fromtimestamp(0, UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LAST_MILLISECOND = 2**48 - 1

DRAWN = 128
"""Ids that one draw of random bytes is enough for."""


class _Series:
    """Ids of one clock: within a millisecond a counter keeps them in order.

    RFC 9562, section 6.2, method 1: 42 bits of counter in `rand_a` and the head of `rand_b`. It
    starts at random with the topmost bit clear: no millisecond is long enough to use the rest up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._millisecond = -1
        self._head = ""
        """The digits that say the millisecond, and the version."""
        self._counter = 0
        self._random: list[int] = []
        """32 bits each, drawn many at a time: each draw is a call of the system."""

    def make(self, millisecond: int, *, never_back: bool) -> str:
        with self._lock:
            if never_back:
                millisecond = max(millisecond, self._millisecond)
            if millisecond == self._millisecond:
                self._counter += 1
            else:
                self._millisecond = millisecond
                self._head = f"{millisecond >> 16:08x}-{millisecond & 0xFFFF:04x}-7"
                self._counter = int.from_bytes(os.urandom(6)) >> 7
            head, counter = self._head, self._counter
            if not self._random:
                self._random = [*memoryview(os.urandom(4 * DRAWN)).cast("I")]
            rest = self._random.pop()
        value = (counter >> 30) << 64 | 0b10 << 62 | (counter & 2**30 - 1) << 32 | rest
        digits = f"{value:019x}"
        return f"{head}{digits[:3]}-{digits[3:7]}-{digits[7:]}"


# Apart, so that an id made for a time ahead of the clock does not drag the others along.
_now = _Series()
_given = _Series()


def uuid7(at: datetime | None = None) -> str:
    """Make an id of the present, or of the time `at`, in lower case.

    Those of one process rise, even where the clock is set back; those for given times rise where
    the times of successive calls do.
    """
    if at is None:
        return _now.make(time.time_ns() // 1_000_000, never_back=True)
    if at.tzinfo is None:
        raise ValueError(f"a time without a time zone does not say when it is: {at!r}")
    return _given.make(_millisecond_of(at), never_back=False)


@lru_cache(maxsize=1)
def _millisecond_of(at: datetime) -> int:
    """Of the id's 48 bits; what lies outside of them keeps the nearest time that they can tell."""
    return min(max((at - _EPOCH) // _MILLISECOND, 0), _LAST_MILLISECOND)
