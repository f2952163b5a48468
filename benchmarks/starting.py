"""The start of a server: its time, its imports, and its memory when idle."""

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
"""The number of packages to list."""

_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")


@dataclass(frozen=True, slots=True)
class Start:
    """The start of a server on an empty SQLite file."""

    ready_seconds: float
    """From the process's start to its ready line."""
    idle_rss: int
    """Bytes, one second after the ready line."""
    import_seconds: float
    """Imports of `memoryd.server`, as measured by the interpreter, which itself costs time."""
    imports: dict[str, float]
    """Seconds of the slowest packages, without those that they import."""


def start() -> Start:
    """Start a server a few times, and take the medians."""
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
        times.total() / 1e6,
        {name: spent / 1e6 for name, spent in times.most_common(NAMED)},
    )


def import_times() -> Counter[str]:
    """Microseconds that each package's modules take to import, by `-X importtime`."""
    output = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import memoryd.server, memoryd.__main__"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    times: Counter[str] = Counter()
    for microseconds, module in _IMPORT.findall(output):
        times[module.partition(".")[0]] += int(microseconds)
    return times
