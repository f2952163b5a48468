"""The service's targets, and the measured values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from work import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable

    from results import Results

MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Goal:
    """A measured value with its bound."""

    row: str
    kind: str
    callers: int
    what: str
    bound: float
    value: Callable[[Results], float]
    at_least: bool = False

    def met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


def goals() -> list[Goal]:
    """The targets that one run of the service alone can check."""
    found = []
    for kind, a_memory in (("sqlite", 65.0), ("postgresql", 60.0)):
        found += [
            _cpu("store", kind, 64, 1.3),
            _rate("store", kind, 64, 0.6),
            _cpu("store_stream", kind, 64, 0.4),
            Goal(
                "store", kind, 1, "p50 above echo's and a commit, ms", 1.0,
                partial(_over_floor, kind=kind),
            ),
            Goal(
                "batch", kind, 16, "server CPU a memory, µs", a_memory,
                partial(_cpu_each, kind=kind),
            ),
            _cpu("get", kind, 64, 0.85),
            _cpu("top_small", kind, 64, 1.3),
            _cpu("top_large", kind, 64, 1.3),
            _cpu("query", kind, 64, 2.8),
            Goal(
                "query", kind, 1, "p50, ms", 3.0,
                partial(_p50, kind=kind),
            ),
            _cpu("query_changed", kind, 4, 4.0),
        ]  # fmt: skip
    return found


def _over_floor(results: Results, *, kind: str) -> float:
    return results.over_floor("store", kind)


def _cpu_each(results: Results, *, kind: str) -> float:
    return results.median("batch", kind, 16, "cpu") / BATCH


def _p50(results: Results, *, kind: str) -> float:
    return results.median("query", kind, 1, "p50")


def _cpu(row: str, kind: str, callers: int, bound: float) -> Goal:
    return Goal(
        row, kind, callers, "server CPU, × echo", bound,
        lambda results: results.ratio(row, kind, callers, "cpu"),
    )  # fmt: skip


def _rate(row: str, kind: str, callers: int, bound: float) -> Goal:
    return Goal(
        row, kind, callers, "calls/s, × echo", bound,
        lambda results: results.ratio(row, kind, callers, "rate"), at_least=True,
    )  # fmt: skip


START_GOALS = (
    ("ready line, s", "ready_seconds", 1.5, 1.0),
    ("idle RSS, MB", "idle_rss", 110.0, MEBIBYTE),
)
"""Name, attribute of `Start`, bound, and unit."""
STORED_RSS_BOUND = 160.0
"""MB, after a million memories stored through a server."""
GROWTH_BOUND = 1.25
"""Growth of the median latency from 10,000 memories to 10,000,000."""
