"""What one tenant's flood does to another's calls: alone and beside it, in one run.

python benchmarks/fairness.py [--seconds 20] [--rate 50] [--rounds 3]

64 callers of one tenant, in a process of their own, call at ten times its quota; another tenant
makes 20 calls a second, stores and reads in turn. The ratio of its 99th percentiles is what counts.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import grpc
import uvloop
from access import new_key
from connections import connected
from harness import KINDS, database, memoryd

from memoryd.v1 import access_pb2
from memoryd.v1 import memory_pb2 as pb

if TYPE_CHECKING:
    from connections import Connections
    from google.protobuf.message import Message

SERVICE = "memoryd.v1.MemoryService"
VARIABLES = {"MEMORY_MAX_ENTRIES": "1000", "MEMORYD_LOG_LEVEL": "error"}
CALLERS = 64
OVERLOAD = 10
QUIET_RATE = 20.0
WARM_UP_SECONDS = 2.0
PERCENT = 100


class Tenant:
    """Calls of one tenant, and how they went."""

    def __init__(self, connections: Connections, name: str) -> None:
        self._store = connections.calls(SERVICE, "StoreMemory")
        self._list = connections.calls(SERVICE, "RetrieveMemories")
        self._name = name
        self.times: list[float] = []
        self.refused = 0
        self._number = 0

    async def call(self) -> None:
        self._number += 1
        number, session = self._number, f"{self._name}-{self._number % 8}"
        request: Message
        if number % 2:
            request = pb.StoreMemoryRequest(session_id=session, content=f"fact {number}")
            call = self._store[number % len(self._store)]
        else:
            request = pb.RetrieveMemoriesRequest(session_id=session)
            call = self._list[number % len(self._list)]
        start = time.perf_counter()
        try:
            await call(request.SerializeToString())
        except grpc.aio.AioRpcError:
            self.refused += 1
        else:
            self.times.append((time.perf_counter() - start) * 1000)

    def p99(self) -> float:
        return statistics.quantiles(self.times, n=PERCENT)[-1]


async def at_rate(tenant: Tenant, rate: float, callers: int, seconds: float) -> None:
    """Call at a rate from so many callers, each of which waits for its answer."""
    end = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        pause = callers / rate
        due = time.perf_counter() + pause * number / callers
        while due < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await tenant.call()
            due = max(due + pause, time.perf_counter())

    await asyncio.gather(*map(caller, range(callers)))


async def compare(kind: str, options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        kept_in = stack.enter_context(database(kind))
        busy, quiet_key = [new_key(kept_in, tenant) for tenant in ("busy", "quiet")]
        admin = new_key(kept_in, "operations", "instance:admin")
        server = stack.enter_context(memoryd(kept_in, MEMORYD_AUTH="required", **VARIABLES))
        await limit(server.address, admin, "busy", options.rate)
        quiet = await stack.enter_async_context(connected(server.address, quiet_key))
        await at_rate(Tenant(quiet, "warm"), QUIET_RATE, 1, WARM_UP_SECONDS)
        for _ in range(options.rounds):
            alone, beside = Tenant(quiet, "q"), Tenant(quiet, "q")
            await at_rate(alone, QUIET_RATE, 1, options.seconds)
            flooding = asyncio.create_task(
                asyncio.to_thread(flooded, server.address, busy, options)
            )
            await asyncio.sleep(WARM_UP_SECONDS)
            await at_rate(beside, QUIET_RATE, 1, options.seconds)
            made, answered = await flooding
            print(
                f"{kind:12}{alone.p99():12.1f}{beside.p99():12.1f}"
                f"{beside.p99() / alone.p99():8.1f}{beside.refused:10}"
                f"{made:14,.0f}{answered:12,.0f}",
                flush=True,
            )


async def limit(address: str, admin: str, tenant: str, rate: int) -> None:
    """Give a tenant a quota."""
    request = access_pb2.UpdateTenantRequest(
        tenant=tenant, quotas=access_pb2.Quotas(calls_per_second=rate)
    )
    async with connected(address, admin) as connections:
        (update, *_) = connections.calls("memoryd.v1.AccessService", "UpdateTenant")
        await update(request.SerializeToString())


def flooded(address: str, key: str, options: argparse.Namespace) -> list[float]:
    """Run `flood` in a process of its own; give what it prints. Blocks."""
    done = subprocess.run(  # noqa: S603  our own
        [
            *(sys.executable, __file__, "--flood", address, key),
            *("--seconds", str(options.seconds + WARM_UP_SECONDS)),
            *("--rate", str(options.rate)),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return [float(number) for number in done.stdout.split()]


async def flood(address: str, key: str, options: argparse.Namespace) -> None:
    """Flood a server, and print how many calls a second were made and answered."""
    async with connected(address, key) as connections:
        tenant = Tenant(connections, "b")
        await at_rate(tenant, OVERLOAD * options.rate, CALLERS, options.seconds)
    answered = len(tenant.times)
    print((answered + tenant.refused) / options.seconds, answered / options.seconds)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each half of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=int, default=50, help="its quota, by weight")
    parser.add_argument("--flood", nargs=2, metavar=("ADDRESS", "KEY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flood:
        address, key = options.flood
        await flood(address, key, options)
        return
    print(
        f"{'':12}{'p99 alone':>12}{'beside':>12}{'ratio':>8}{'refused':>10}"
        f"{'flood calls/s':>14}{'answered/s':>12}"
    )
    for kind in KINDS:
        await compare(kind, options)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
