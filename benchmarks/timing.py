"""Whether the time of an answer tells that another tenant has a memory.

python benchmarks/timing.py [--calls 10000]

A caller asks for memories by their ids: for those that another tenant has, in a session of the same
name, and for ids that nobody has, in turn. Both are not found. Mann and Whitney's test says how
probable a difference between the two as large as the one seen is, where there is none: above 0.01
the times tell nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import random
import statistics
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import grpc
import uvloop
from access import new_key
from connections import connected
from harness import KINDS, database, memoryd

from memoryd.v1 import memory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import TypeAlias

    Call: TypeAlias = Callable[[bytes], Awaitable[bytes]]

SERVICE = "memoryd.v1.MemoryService"
VARIABLES = {"MEMORY_MAX_ENTRIES": "1000", "MEMORYD_LOG_LEVEL": "error"}
SESSION = "chat"
STORED = 1000
WARM_UP = 1000


def mann_whitney(one: Sequence[float], other: Sequence[float]) -> float:
    """The two-sided p of the U test, by the normal approximation with ties.

    H. B. Mann and D. R. Whitney, Annals of Mathematical Statistics 18 (1947), 50–60; the variance
    with ties as in E. L. Lehmann, Nonparametrics (1975), section 1.4.
    """
    n, m = len(one), len(other)
    counts = Counter(one) + Counter(other)
    ranks, before = {}, 0
    for value in sorted(counts):
        ranks[value] = before + (counts[value] + 1) / 2
        before += counts[value]
    u = sum(ranks[value] for value in one) - n * (n + 1) / 2
    ties = sum(count**3 - count for count in counts.values())
    total = n + m
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    z = max(0.0, abs(u - n * m / 2) - 0.5) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2))


async def store(call: Call, tenant: str) -> list[str]:
    """Fill a session; give the ids of its memories."""
    requests = [
        pb.StoreMemoryRequest(session_id=SESSION, content=f"{tenant} knows {n}", never_expires=True)
        for n in range(STORED)
    ]
    batch = pb.BatchStoreMemoriesRequest(requests=requests)
    answer = pb.BatchStoreMemoriesResponse.FromString(await call(batch.SerializeToString()))
    return [response.memory.memory_id for response in answer.responses]


def nobodys_like(memory_id: str, dice: random.Random) -> str:
    """An id of the same millisecond, which therefore stands at the same place of an index."""
    return f"{memory_id[:-12]}{dice.getrandbits(48):012x}"


async def time_of(call: Call, memory_id: str) -> float:
    """How long a look-up takes that finds nothing, in milliseconds."""
    request = pb.GetMemoryRequest(session_id=SESSION, memory_id=memory_id).SerializeToString()
    start = time.perf_counter()
    try:
        await call(request)
    except grpc.aio.AioRpcError as error:
        taken = time.perf_counter() - start
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return taken * 1000
    raise SystemExit("a memory of another tenant was found")


async def compare(kind: str, calls: int) -> None:
    async with AsyncExitStack() as stack:
        kept_in = stack.enter_context(database(kind))
        keys = {tenant: new_key(kept_in, tenant) for tenant in ("acme", "other")}
        server = stack.enter_context(memoryd(kept_in, MEMORYD_AUTH="required", **VARIABLES))
        ids = {}
        for tenant, key in keys.items():
            connections = await stack.enter_async_context(connected(server.address, key))
            ids[tenant] = await store(connections.calls(SERVICE, "BatchStoreMemories")[0], tenant)
        mine = await stack.enter_async_context(connected(server.address, keys["acme"]))
        (get, *_) = mine.calls(SERVICE, "GetMemory")
        dice = random.Random(kind)  # noqa: S311  no secret
        times: dict[bool, list[float]] = {True: [], False: []}
        gc.disable()  # its turns would fall to one kind or the other
        for number in range(WARM_UP + calls):
            for is_anothers in dice.sample((True, False), 2):
                memory_id = dice.choice(ids["other"])
                if not is_anothers:
                    memory_id = nobodys_like(memory_id, dice)
                taken = await time_of(get, memory_id)
                if number >= WARM_UP:
                    times[is_anothers].append(taken)
        gc.enable()
        anothers, nobodys = times[True], times[False]
        print(
            f"{kind:12}{statistics.median(anothers):12.3f}{statistics.median(nobodys):12.3f}"
            f"{mann_whitney(anothers, nobodys):10.3f}",
            flush=True,
        )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000, help="of each kind")
    options = parser.parse_args()
    print(f"{'':12}{'anothers ms':>12}{'nobodys ms':>12}{'p':>10}")
    for kind in KINDS:
        await compare(kind, options.calls)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
