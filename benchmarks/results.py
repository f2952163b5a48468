"""Results: rounds, their medians and spreads, as a table and as JSON."""

from __future__ import annotations

import os
import platform
import statistics
from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets import MEBIBYTE, goals
from work import WORK

if TYPE_CHECKING:
    from loop import Sample

ECHO = "echo"
CORE_ECHO = "core echo"

HEADER = (
    f"{'work':32}{'server':12}{'callers':>8}{'calls/s':>9}{'p50 ms':>9}{'p95':>9}{'p99':>9}"
    f"{'CPU µs':>9}{'DB µs':>8}{'CPU × echo':>26}{'calls/s × echo':>20}{'peak MB':>9}  target"
)


class Results:
    """Samples of each work, server and number of callers, one per round."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, str, int], list[Sample]] = defaultdict(list)
        self.commits: dict[str, list[float]] = defaultdict(list)
        """Milliseconds of a commit on each database, one per round."""

    def add(self, row: str, kind: str, callers: int, sample: Sample) -> None:
        self._samples[row, kind, callers].append(sample)

    def median(self, row: str, kind: str, callers: int, what: str) -> float:
        """The median of `rate` (calls/s), `p50`, `p95`, `p99` (ms), `cpu`, `database_cpu` (µs)."""
        return statistics.median(_values(self._samples[row, kind, callers], what))

    def ratios(self, row: str, kind: str, callers: int, what: str) -> list[float]:
        """Ratios of `cpu` or `rate` to the echo's, round by round."""
        ours = _values(self._samples[row, kind, callers], what)
        echoes = _values(self._samples[row, ECHO, callers], what)
        return [own / echo for own, echo in zip(ours, echoes, strict=True)]

    def ratio(self, row: str, kind: str, callers: int, what: str) -> float:
        return statistics.median(self.ratios(row, kind, callers, what))

    def over_floor(self, row: str, kind: str) -> float:
        """One caller's median in milliseconds minus the echo's and a commit, median round."""
        ours = _values(self._samples[row, kind, 1], "p50")
        echoes = _values(self._samples[row, ECHO, 1], "p50")
        rounds = zip(ours, echoes, self.commits[kind], strict=True)
        return statistics.median(own - echo - commit for own, echo, commit in rounds)

    def line(self, row: str, kind: str, callers: int) -> str:
        """One row of the table: medians, and ratios with the lowest and the highest round."""
        figures = {
            what: self.median(row, kind, callers, what)
            for what in ("rate", "p50", "p95", "p99", "cpu", "database_cpu")
        }
        ratios = ["", ""]
        if kind != ECHO:
            for place, what in enumerate(("cpu", "rate")):
                rounds = self.ratios(row, kind, callers, what)
                ratios[place] = (
                    f"{statistics.median(rounds):.2f} ({min(rounds):.2f}–{max(rounds):.2f})"
                )
        peak = max(sample.rss for sample in self._samples[row, kind, callers]) / MEBIBYTE
        return (
            f"{WORK[row].label:32}{kind:12}{callers:8}{figures['rate']:9,.0f}{figures['p50']:9.2f}"
            f"{figures['p95']:9.2f}{figures['p99']:9.2f}{figures['cpu']:9,.0f}"
            f"{figures['database_cpu']:8,.0f}{ratios[0]:>26}{ratios[1]:>20}{peak:9,.0f}"
            f"  {self.verdicts(row, kind, callers)}"
        )

    def verdicts(self, row: str, kind: str, callers: int) -> str:
        """The targets of this row, and whether they are met."""
        said = []
        for goal in goals():
            if (goal.row, goal.kind, goal.callers) == (row, kind, callers):
                value = goal.value(self)
                said.append(verdict(goal.what, value, goal.bound, at_least=goal.at_least))
        return "; ".join(said)

    def as_json(self) -> dict[str, Any]:
        """Every round, and the machine."""
        return {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "commit_ms": dict(self.commits),
            "samples": [
                {"work": row, "server": kind, "callers": callers, **_flat(sample)}
                for (row, kind, callers), samples in self._samples.items()
                for sample in samples
            ],
        }


def verdict(what: str, value: float, bound: float, *, at_least: bool = False) -> str:
    met = value >= bound if at_least else value <= bound
    sign = "≥" if at_least else "≤"
    return f"{what} {value:.2f} {sign} {bound:g}: {'met' if met else 'MISSED'}"


def machine() -> str:
    """Cores, processor and Python."""
    named = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{os.cpu_count()} × {named[0] if named else '?'}, Python {platform.python_version()}"


def _values(samples: list[Sample], what: str) -> list[float]:
    return [_flat(sample)[what] for sample in samples]


def _flat(sample: Sample) -> dict[str, float]:
    load = asdict(sample.load)
    return {
        **load,
        "rate": sample.load.calls / sample.load.seconds,
        "cpu": sample.cpu,
        "database_cpu": sample.database_cpu,
        "rss": sample.rss,
    }
