"""How a server starts: how long, with which imports, and what it takes when it is idle."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass

from harness import database, memoryd

STARTS = 3
IDLE_SECONDS = 1.0
NAMED = 12
"""Packages whose imports are named."""

_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")


@dataclass(frozen=True, slots=True)
class Start:
    """Of a server on an empty SQLite file."""

    ready_seconds: float
    """From the process's start to its ready line."""
    idle_rss: int
    """Bytes, a second after it."""
    import_seconds: float
    """Of `memoryd.server`, by the interpreter's own account, which costs time itself."""
    imports: dict[str, float]
    """Seconds of the packages that take longest, without those that they import."""


def start() -> Start:
    """Start it a few times: medians."""
    seconds, rss = [], []
    for _ in range(STARTS):
        with database("sqlite") as empty:
            began = time.perf_counter()
            with memoryd(empty) as server:
                seconds.append(time.perf_counter() - began)
                time.sleep(IDLE_SECONDS)
                rss.append(server.process.rss_bytes())
    times = import_times()
    return Start(
        statistics.median(seconds),
        int(statistics.median(rss)),
        sum(times.values()),
        dict(times.most_common(NAMED)),
    )


def import_times() -> Counter[str]:
    """Seconds that each package's modules take to be imported, by `-X importtime`."""
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import memoryd.server, memoryd.__main__"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    times: Counter[str] = Counter()
    for microseconds, module in _IMPORT.findall(told):
        times[module.partition(".")[0]] += int(microseconds) / 1e6
    return times
