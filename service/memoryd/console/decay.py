"""How the importance of a memory fades, as what a drawing is made of.

The points are those of the service's own formula, `memoryd.domain.importance`, so that a page shows
what retrieval goes by.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from memoryd.domain.importance import SECONDS_A_DAY, effective_importance

if TYPE_CHECKING:
    from datetime import datetime

    from memoryd.client import Memory

HALF_LIVES = 6
"""How far ahead is looked at most: after so many, next to nothing is left."""
MOST_DAYS = 36_500.0

_STEPS = (
    1,
    2,
    3,
    6,
    12,
    24,
    48,
    72,
    120,
    168,
    240,
    336,
    720,
    1440,
    2160,
    4320,
    8760,
    17_520,
    87_600,
    175_200,
    438_000,
)
"""Between times on the axis, in hours."""
_POINTS = 96

_TOP, _RIGHT, _BOTTOM, _LEFT = 44, 12, 28, 34
"""Room around the curve, for what is written there."""


class Decay:
    """How one memory fades, if nobody retrieves it from now on."""

    def __init__(
        self, memory: Memory, *, now: datetime, half_life_days: float, threshold: float | None
    ) -> None:
        """`threshold`: below it retrieval without a query leaves a memory out; None: not known."""
        self.memory = memory
        self.now = now
        self.half_life_days = half_life_days
        self.threshold = threshold
        self.stored = memory.create_time or now
        self.given = memory.importance or 0.0
        self.age = max(0.0, (now - self.stored).total_seconds())
        """In seconds."""

    def at(self, seconds: float, *, accesses: int | None = None) -> float:
        """The effective importance so long after it was stored."""
        return effective_importance(
            self.given,
            self.stored,
            self.memory.access_count if accesses is None else accesses,
            now=self.stored + timedelta(seconds=seconds),
            half_life_days=self.half_life_days,
        )

    @property
    def left(self) -> float:
        """Of the importance that it was given."""
        return self.at(self.age, accesses=0)

    @property
    def value(self) -> float:
        return self.at(self.age)

    @property
    def boost(self) -> float:
        """What accesses add."""
        return self.value - self.left

    @property
    def age_days(self) -> float:
        return self.age / SECONDS_A_DAY

    @property
    def is_below(self) -> bool:
        """Whether it is below the threshold now."""
        return self.threshold is not None and self.value < self.threshold

    @cached_property
    def crossing(self) -> float | None:
        """How long after it was stored it falls below the threshold, in seconds.

        None: it does not in any time that is looked at, or it never was above.
        """
        low, high = 0.0, max(self.age, self._furthest)
        if (
            self.threshold is None
            or self.at(low) < self.threshold
            or self.at(high) >= self.threshold
        ):
            return None
        while high - low > 1.0:
            middle = (low + high) / 2
            low, high = (low, middle) if self.at(middle) < self.threshold else (middle, high)
        return high

    @property
    def crossing_time(self) -> datetime | None:
        return None if self.crossing is None else self.stored + timedelta(seconds=self.crossing)

    @cached_property
    def expiry(self) -> float | None:
        """How long after it was stored it expires, in seconds; None: never."""
        end = self.memory.expire_time
        return None if end is None else (end - self.stored).total_seconds()

    @property
    def _furthest(self) -> float:
        return min(HALF_LIVES * self.half_life_days, MOST_DAYS) * SECONDS_A_DAY

    @cached_property
    def end(self) -> float:
        """What the drawing goes to, in seconds after it was stored."""
        seen = [self.age * 1.15, *(one for one in (self.crossing, self.expiry) if one is not None)]
        if len(seen) == 1:
            seen.append(self._furthest / 2)
        return max(self.age, min(max(seen), self._furthest)) * 1.08 or 1.0

    def drawn(self, width: int, height: int) -> Drawing:
        """The same, for a drawing of that size."""
        return Drawing(self, width, height)


class Tick(NamedTuple):
    """A place on an axis."""

    at: float
    text: str


class Mark(NamedTuple):
    """A time with a name: a line from the name to the axis."""

    kind: str
    x: float
    row: float
    """Where its name is."""
    anchor: str
    text: str


@dataclass(frozen=True)
class Drawing:
    """A decay in the units of an SVG."""

    decay: Decay
    width: int
    height: int

    top = _TOP
    left = _LEFT

    @property
    def right(self) -> int:
        return self.width - _RIGHT

    @property
    def bottom(self) -> int:
        return self.height - _BOTTOM

    def x(self, seconds: float) -> float:
        share = min(max(seconds / self.decay.end, 0.0), 1.0)
        return round(self.left + share * (self.right - self.left), 1)

    def y(self, importance: float) -> float:
        return round(self.bottom - importance * (self.bottom - self.top), 1)

    def _line(self, start: float, end: float, accesses: int | None = None) -> str:
        step = (end - start) / _POINTS
        times = [start + step * number for number in range(_POINTS + 1)]
        return " ".join(f"{self.x(t)},{self.y(self.decay.at(t, accesses=accesses))}" for t in times)

    @property
    def past(self) -> str:
        """Points from when it was stored until now."""
        return self._line(0.0, self.decay.age)

    @property
    def future(self) -> str:
        return self._line(self.decay.age, self.decay.end)

    @property
    def given_area(self) -> str:
        """Below what is left of the importance that it was given."""
        line = self._line(0.0, self.decay.end, accesses=0)
        return f"{self.x(0)},{self.bottom} {line} {self.right},{self.bottom}"

    @property
    def boost_area(self) -> str:
        """Between that and the curve."""
        under = self._line(self.decay.end, 0.0, accesses=0)
        return f"{self._line(0.0, self.decay.end)} {under}"

    @property
    def times(self) -> list[Tick]:
        hours = self.decay.end / 3600
        most = max(2, (self.right - self.left) // 72)
        step = next((each for each in _STEPS if hours / each <= most), _STEPS[-1])
        unit, length = ("d", 24) if step >= 24 else ("h", 1)  # noqa: PLR2004  hours of a day
        return [
            Tick(self.x(at * 3600), f"{at // length:,} {unit}" if at else "stored")
            for at in range(0, int(hours) + 1, step)
        ]

    @property
    def levels(self) -> list[Tick]:
        return [Tick(self.y(value), f"{value:.1f}") for value in (0.0, 0.5, 1.0)]

    @property
    def marks(self) -> list[Mark]:
        """Now, when it falls below the threshold, and when it expires, where the drawing has it."""
        decay = self.decay
        marks = [self._mark("now", decay.age, 14, f"now {decay.value:.2f}")]
        if decay.expiry is not None and decay.expiry <= decay.end:
            marks.append(self._mark("expiry", decay.expiry, 32, "expires"))
        return marks

    def _mark(self, kind: str, at: float, row: float, text: str) -> Mark:
        x = self.x(at)
        edge = 60
        anchor = "start" if x < self.left + edge else "end" if x > self.right - edge else "middle"
        return Mark(kind, x, row, anchor, text)
