"""Show where a server's time goes under load, by an external sampling profiler.

make profile
python benchmarks/where.py [--kind postgresql] [--work store get] [--callers 64] [--seconds 5]

Prints shares of the samples in which a thread of the server held the interpreter's lock: by the
innermost file of memoryd in the stack, and by function. `running.py` and `Runner.run` are the event
loop with gRPC, which has C frames; work of libraries without the lock (SQLite's reads and writes,
gRPC's sends) is not visible. The folded stacks are in build/, for flame graph viewers.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from asyncio.subprocess import DEVNULL
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop
from connections import connected
from harness import KINDS, database, memoryd
from loop import drive
from measuring import Target, fill, plain
from work import WORK, Requests

RATE = 200
"""Samples per second."""
SHOWN = 15
PROFILED = (
    *("store", "batch", "get", "top_small", "query"),
    *("doc_put", "doc_batch", "doc_get", "doc_search", "sessions"),
    *("append", "window"),
)
OURS = "memoryd/"
ELSEWHERE = "outside of memoryd"

_FILE = re.compile(r"\((.*?)(?::\d+)?\)$")


async def profile(target: Target, requests: Requests, given: argparse.Namespace, work: str) -> Path:
    """Profile the server under load; return the file of folded stacks."""
    file = Path(f"build/profile-{target.name}-{work}.folded")
    file.parent.mkdir(exist_ok=True)
    once = plain(target.calls(WORK[work]), requests.of(work))
    await drive(once, callers=given.callers, seconds=0.5)
    profiler = await asyncio.create_subprocess_exec(
        "py-spy", "record", "--pid", str(target.server.process.pid), "--function", "--gil",
        "--rate", str(RATE), "--duration", str(given.seconds), "--format", "raw",
        "--output", str(file),
        stdout=DEVNULL, stderr=DEVNULL,
    )  # fmt: skip
    looking = asyncio.create_task(profiler.wait())
    while not looking.done():
        await drive(once, callers=given.callers, seconds=0.25)
    if await looking:
        raise SystemExit("py-spy could not profile the server: it may need root")
    return file


def show(file: Path) -> None:
    """Summarise folded stacks: one line per stack, frames separated by semicolons, then a count."""
    alone: Counter[str] = Counter()
    rooms: Counter[str] = Counter()
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        alone[frames[-1]] += int(count)
        rooms[room(frames)] += int(count)
    total = alone.total()
    for heading, counted in (("by room", rooms), ("by function", alone)):
        print(f"  {heading}")
        for name, samples in counted.most_common(SHOWN):
            print(f"  {samples / total:7.1%}  {name}")


def room(frames: list[str]) -> str:
    """The innermost file of memoryd in a stack, or a label for other stacks."""
    for frame in reversed(frames):
        found = _FILE.search(frame)
        if found and OURS in found[1]:
            return found[1][found[1].index(OURS) :]
    return ELSEWHERE


async def run(given: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        kept_in = stack.enter_context(database(given.kind))
        server = stack.enter_context(
            memoryd(kept_in, MEMORY_MAX_ENTRIES="1000", MEMORYD_LOG_LEVEL="error")
        )
        connections = await stack.enter_async_context(connected(server.address))
        target = Target(given.kind, server, connections, kept_in)
        requests = Requests(await fill(target))
        for work in given.work:
            file = await profile(target, requests, given, work)
            print(f"{WORK[work].label}, {given.kind}, {given.callers} callers; stacks: {file}")
            show(file)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kind", choices=KINDS, default="postgresql")
    parser.add_argument("--work", nargs="+", choices=PROFILED, default=list(PROFILED))
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=5)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(given))


if __name__ == "__main__":
    main()
