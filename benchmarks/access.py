"""What access costs: servers that ask for keys and servers that do not take turns, in one run.

make bench-access
python benchmarks/access.py [--seconds 2] [--rounds 7] [--work get store] [--callers 64]

Processor time is the server process's, as the kernel counts it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
from contextlib import AsyncExitStack

import uvloop
from connections import connected
from harness import KINDS, Database, database, memoryd
from measuring import Target, fill, measure, prepare_requests
from work import WORK, Requests

VARIABLES = {"MEMORY_MAX_ENTRIES": "1000", "MEMORYD_LOG_LEVEL": "error"}
OFF, REQUIRED = "off", "required"


def new_key(kept_in: Database, tenant: str = "default", scope: str = "operator") -> str:
    """Make a key by the command line."""
    environ = {**os.environ, "MEMORYD_DATABASE_URL": kept_in.url, "MEMORYD_LOG_LEVEL": "error"}
    command = [sys.executable, "-m", "memoryd"]
    subprocess.run([*command, "migrate"], env=environ, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  our own
    options = ("--tenant", tenant, "--name", "bench", "--scope", scope)
    made = subprocess.run(  # noqa: S603  our own
        [*command, "keys", "create", *options],
        env=environ,
        check=True,
        capture_output=True,
        text=True,
    )
    return made.stdout.strip()


async def bring_up(stack: AsyncExitStack, kind: str, auth: str) -> tuple[Target, Requests]:
    kept_in = stack.enter_context(database(kind))
    key = new_key(kept_in) if auth == REQUIRED else ""
    server = stack.enter_context(memoryd(kept_in, MEMORYD_AUTH=auth, **VARIABLES))
    connections = await stack.enter_async_context(connected(server.address, key))
    target = Target(f"{kind} {auth}", server, connections, kept_in)
    return target, Requests(await fill(target, vectors=False))


async def compare(kind: str, options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        pairs = [await bring_up(stack, kind, auth) for auth in (OFF, REQUIRED)]
        for name in options.work:
            costs: dict[str, list[float]] = {OFF: [], REQUIRED: []}
            for number in range(options.rounds):
                for (target, requests), auth in list(zip(pairs, costs, strict=True))[
                    :: 1 if number % 2 else -1
                ]:
                    sent = prepare_requests(WORK[name], requests, options.seconds)
                    sample = await measure(
                        target,
                        WORK[name],
                        sent,
                        callers=options.callers,
                        seconds=options.seconds,
                    )
                    costs[auth].append(sample.cpu)
            ratios = [on / off for off, on in zip(costs[OFF], costs[REQUIRED], strict=True)]
            off, on = (statistics.median(costs[auth]) for auth in (OFF, REQUIRED))
            print(
                f"{WORK[name].label:32}{kind:12}{off:9,.0f}{on:12,.0f}"
                f"{statistics.median(ratios):10.3f} ({min(ratios):.2f}–{max(ratios):.2f})",
                flush=True,
            )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work", nargs="+", default=["get", "store"], choices=list(WORK))
    parser.add_argument("--callers", type=int, default=64)
    options = parser.parse_args()
    print(f"{'CPU µs a call':32}{'':12}{'off':>9}{'required':>12}{'required ÷ off':>26}")
    for kind in KINDS:
        await compare(kind, options)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
