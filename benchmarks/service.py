"""The service over gRPC, compared with a bare echo of the same requests and answers.

make bench
python benchmarks/service.py [--seconds 2] [--rounds 7] [--work store get] [--callers 1 64]
python benchmarks/service.py --floor --no-start --work store get
python benchmarks/service.py --long [--memories 10000000] [--stored 1000000] [--kinds postgresql]

The echo, memoryd on SQLite and memoryd on PostgreSQL (default settings, fsync on) take turns, round
after round, so that other load affects them alike: the ratios are what counts. Processor time is
the server process's, as the kernel counts it; PostgreSQL's is shown separately.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop
from connections import connected
from harness import KINDS, database, echo, memoryd
from long import run_long
from measuring import (
    Target,
    commit_milliseconds,
    fill,
    measure,
    measure_changed,
    prepare_requests,
)
from plots import plot_load
from results import CORE_ECHO, ECHO, HEADER, Results, machine, verdict
from starting import start
from targets import START_GOALS
from work import WORK, Requests

RESULTS = Path("build/bench.json")
VARIABLES = {"MEMORY_MAX_ENTRIES": "1000", "MEMORYD_LOG_LEVEL": "error"}


async def bring_up(
    stack: AsyncExitStack, *, floor: bool
) -> tuple[list[Target], dict[str, Requests]]:
    """Start the servers and store the memories to read; each database has its own ids.

    With `floor`, also an echo over gRPC's core.
    """
    targets, requests = [], {}
    for kind in KINDS:
        kept_in = stack.enter_context(database(kind))
        server = stack.enter_context(memoryd(kept_in, **VARIABLES))
        connections = await stack.enter_async_context(connected(server.address))
        target = Target(kind, server, connections, kept_in)
        requests[kind] = Requests(await fill(target))
        targets.append(target)
    answers = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    first = targets[0]
    for work in WORK.values():
        (call, *_) = first.calls(work)
        (answers / work.name).write_bytes(await call(next(requests[first.name].of(work.name))))
    echoes = {ECHO: "aio", **({CORE_ECHO: "core"} if floor else {})}
    for place, (name, kind) in enumerate(echoes.items()):
        server = stack.enter_context(echo(answers, kind))
        connections = await stack.enter_async_context(connected(server.address))
        requests[name] = requests[first.name]
        targets.insert(place, Target(name, server, connections, None))
    return targets, requests


async def one_round(
    results: Results,
    targets: list[Target],
    requests: dict[str, Requests],
    *,
    row: str,
    callers: int,
    seconds: float,
) -> None:
    sent: list[bytes] = []
    for target in targets:
        if row == "query_changed":
            sample = await measure_changed(
                target,
                requests[target.name],
                callers=callers,
                seconds=3 * seconds,  # each is two calls, and the slowest
                store_cpu=store_cpu(results, target),
            )
        else:
            if not sent or row == "get":  # each database has its own ids
                sent = prepare_requests(WORK[row], requests[target.name], seconds)
            sample = await measure(target, WORK[row], sent, callers=callers, seconds=seconds)
        results.add(row, target.name, callers, sample)
        if row == "store" and callers == 1 and target.database is not None:
            results.commits[target.name].append(await commit_milliseconds(target.database))


def store_cpu(results: Results, target: Target) -> tuple[float, float]:
    """The processor time of a single store in microseconds: the server's, the database's."""
    cpu, database_cpu = (
        results.median("store", target.name, 1, what) for what in ("cpu", "database_cpu")
    )
    return cpu, database_cpu


async def run(given: argparse.Namespace) -> Results:
    """Measure, and print each row when it is ready."""
    results = Results()
    rows = [row for row in WORK if row in given.work]
    if "query_changed" in rows and "store" not in rows:
        raise SystemExit("query_changed needs store: the cost of a store is subtracted")
    print(f"{machine()}; {given.rounds} rounds of {given.seconds} s; medians (least–greatest)")
    print(HEADER)
    async with AsyncExitStack() as stack:
        targets, requests = await bring_up(stack, floor=given.floor)
        for row in rows:
            loads = [n for n in WORK[row].callers if given.callers is None or n in given.callers]
            for callers in loads:
                for _ in range(given.rounds):
                    await one_round(
                        results, targets, requests, row=row, callers=callers, seconds=given.seconds
                    )
                for target in targets:
                    print(results.line(row, target.name, callers), flush=True)
    return results


def show_commits(results: Results) -> None:
    for kind, rounds in results.commits.items():
        print(f"one commit of {kind} alone: {', '.join(f'{ms:.2f}' for ms in rounds)} ms")


def show_start() -> dict[str, object]:
    """Start a single server, print what it took, and return it for the file."""
    found = start()
    for what, name, bound, unit in START_GOALS:
        print(verdict(f"empty SQLite file: {what}", getattr(found, name) / unit, bound))
    named = ", ".join(f"{package} {seconds:.2f}" for package, seconds in found.imports.items())
    print(f"of that, imports by -X importtime {found.import_seconds:.2f} s: {named}")
    return {
        "ready_seconds": found.ready_seconds,
        "idle_rss": found.idle_rss,
        "imports": found.imports,
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=0.7, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--callers", nargs="+", type=int)
    parser.add_argument("--floor", action="store_true", help="measure an echo over gRPC's core too")
    parser.add_argument("--no-start", action="store_true", help="do not measure the start")
    parser.add_argument("--plots", type=Path, help="a folder for the plots")
    parser.add_argument("--long", action="store_true", help="measure growth with the tables")
    parser.add_argument("--memories", type=int, default=10_000_000, help="of the large tables")
    parser.add_argument("--stored", type=int, default=1_000_000, help="through one server")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="with --long")
    return parser.parse_args()


def save(part: str, content: object) -> None:
    """Put one mode's results into the file, next to the other's."""
    RESULTS.parent.mkdir(exist_ok=True)
    whole = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**whole, part: content}, indent=1))


def main() -> None:
    given = arguments()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if given.long:
            save("long", runner.run(run_long(given)))
            return
        results = runner.run(run(given))
    show_commits(results)
    content = results.as_json()
    if not given.no_start:
        content["start"] = show_start()
    save("service", content)
    if given.plots:
        plot_load(results, given.plots)


if __name__ == "__main__":
    main()
