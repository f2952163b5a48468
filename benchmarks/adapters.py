"""What the adapters' main calls cost beside the frameworks' own stores, side by side in one run.

make bench-adapters
python benchmarks/adapters.py PYTHON [--seconds 1] [--rounds 5] [--kinds sqlite postgresql]

PYTHON is that of the environment of `adapters-requirements.txt`. Own stores run in their caller's
process, over the same PostgreSQL or a file of SQLite; memoryd's adapters call a server in a process
of its own. One caller makes one call after the other; a round measures both, one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
from collections import defaultdict
from pathlib import Path

from harness import KINDS, database, memoryd
from peers import QUIET
from results import machine

WORK = Path(__file__).with_name("adapter_work.py")
ROW = "| {:24} | {:26} | {:10} | {:>10} | {:>10} | {:>6} |"


def measured(python: str, kind: str, seconds: float, rounds: int) -> list[dict[str, object]]:
    """What a process of the frameworks' says of each call, in each round."""
    with database(kind) as own, database(kind) as ours, memoryd(ours) as server:
        done = subprocess.run(  # noqa: S603  our own
            [python, WORK, server.address, own.plain_url, kind, str(seconds), str(rounds)],
            env={**os.environ, **QUIET},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each call in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    given = parser.parse_args()
    print(machine())
    print(ROW.format("adapter", "call", "database", "own µs", "memoryd µs", "ratio"))
    print(ROW.format(*["---"] * 3, *["---:"] * 3))
    for kind in given.kinds:
        costs: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        for line in measured(given.python, kind, given.seconds, given.rounds):
            costs[str(line["adapter"]), str(line["call"])].append(
                (float(str(line["own"])), float(str(line["ours"])))
            )
        for (adapter, call), found in costs.items():
            own, ours = (statistics.median(each) for each in zip(*found, strict=True))
            ratio = statistics.median(one / other for other, one in found)
            print(ROW.format(adapter, call, kind, f"{own:.0f}", f"{ours:.0f}", f"{ratio:.2f}"))


if __name__ == "__main__":
    main()
