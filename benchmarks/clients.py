"""What the Python client adds to bare stubs, with and without an event loop, in one run.

python benchmarks/clients.py [--seconds 1] [--rounds 7]

One caller after the other, and 32 threads that store. Processor time is this process's, which makes
the calls; the server is another process.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import grpc.aio
from harness import serving

from memoryd.client import MemoryClient, sync
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

THREADS = 32
SESSION, PAGE = "bench", 500
LARGE = (("grpc.max_receive_message_length", -1),)


class Cost(NamedTuple):
    """Microseconds a call."""

    wall: float
    cpu: float


def by_stub(stub: Any) -> dict[str, Callable[[str], Any]]:
    return {
        "get": lambda i: stub.GetMemory(pb.GetMemoryRequest(session_id=SESSION, memory_id=i)),
        "retrieve 10": lambda _: stub.RetrieveMemories(
            pb.RetrieveMemoriesRequest(session_id=SESSION, limit=10, peek=True)
        ),
        f"list {PAGE}": lambda _: stub.ListMemories(
            pb.ListMemoriesRequest(session_id=SESSION, page_size=PAGE)
        ),
    }


def by_client(client: Any) -> dict[str, Callable[[str], Any]]:
    return {
        "get": lambda i: client.get(SESSION, i),
        "retrieve 10": lambda _: client.retrieve(SESSION, limit=10, peek=True),
        f"list {PAGE}": lambda _: client.list_page(SESSION, page_size=PAGE),
    }


def cost_of(begin: tuple[float, float], calls: int) -> Cost:
    wall, cpu = time.perf_counter() - begin[0], time.process_time() - begin[1]
    return Cost(wall / calls * 1e6, cpu / calls * 1e6)


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


async def awaited(call: Callable[[str], Any], memory_id: str, seconds: float) -> Cost:
    begin, calls = now(), 0
    while time.perf_counter() - begin[0] < seconds:
        await call(memory_id)
        calls += 1
    return cost_of(begin, calls)


def called(call: Callable[[str], Any], memory_id: str, seconds: float) -> Cost:
    begin, calls = now(), 0
    while time.perf_counter() - begin[0] < seconds:
        call(memory_id)
        calls += 1
    return cost_of(begin, calls)


def by_threads(store: Callable[[int], Any], seconds: float) -> Cost:
    """Stores of many threads, each waiting for its own."""
    begin = now()

    def one(number: int) -> int:
        calls = 0
        while time.perf_counter() - begin[0] < seconds:
            store(number)
            calls += 1
        return calls

    with ThreadPoolExecutor(THREADS) as threads:
        calls = sum(threads.map(one, range(THREADS)))
    return cost_of(begin, calls)


async def compare(address: str, options: argparse.Namespace) -> None:
    filled = MemoryClient(address)
    for number in range(PAGE):
        stored = await filled.store(SESSION, f"fact number {number}", metadata={"order": number})
    memory_id = stored.memory.memory_id
    async with grpc.aio.insecure_channel(address, LARGE) as channel:
        bare, waiting = by_stub(MemoryServiceStub(channel)), by_client(filled)
        blocking_channel = grpc.insecure_channel(address, LARGE)
        stub: Any = MemoryServiceStub(blocking_channel)
        plain = await asyncio.to_thread(sync.MemoryClient, address)
        ways: Mapping[str, Mapping[str, Any]] = {
            "stub, asyncio": bare,
            "client, asyncio": waiting,
            "stub, threads": by_stub(stub),
            "client, threads": by_client(plain),
        }
        for name in bare:
            costs: dict[str, list[Cost]] = {way: [] for way in ways}
            for number in range(options.rounds):
                for way in list(ways)[:: 1 if number % 2 else -1]:
                    call = ways[way][name]
                    if way.endswith("asyncio"):
                        cost = await awaited(call, memory_id, options.seconds)
                    else:
                        cost = await asyncio.to_thread(called, call, memory_id, options.seconds)
                    costs[way].append(cost)
            show(name, costs)
        stores: Mapping[str, Callable[[int], Any]] = {
            "stub, threads": lambda n: stub.StoreMemory(
                pb.StoreMemoryRequest(session_id=f"t{n}", content=f"{time.perf_counter_ns()}")
            ),
            "client, threads": lambda n: plain.store(f"t{n}", f"{time.perf_counter_ns()}"),
        }
        costs = {way: [] for way in stores}
        for number in range(options.rounds):
            for way in list(stores)[:: 1 if number % 2 else -1]:
                costs[way].append(await asyncio.to_thread(by_threads, stores[way], options.seconds))
        show(f"store × {THREADS}", costs)
        await asyncio.to_thread(plain.close)
        blocking_channel.close()
    await filled.close()


def show(name: str, costs: Mapping[str, list[Cost]]) -> None:
    for way, taken in costs.items():
        first = costs[f"stub, {way.partition(', ')[2]}"]
        walls = [mine.wall / its.wall for mine, its in zip(taken, first, strict=True)]
        cpus = [mine.cpu / its.cpu for mine, its in zip(taken, first, strict=True)]
        print(
            f"{name:14}{way:18}{statistics.median(c.wall for c in taken):10,.0f}"
            f"{statistics.median(walls):7.2f}{statistics.median(c.cpu for c in taken):10,.0f}"
            f"{statistics.median(cpus):7.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"{'':32}{'µs a call':>10}{'÷':>7}{'CPU µs':>10}{'÷':>7}")
    with serving("sqlite", MEMORY_MAX_ENTRIES="1000", MEMORYD_LOG_LEVEL="error") as server:
        asyncio.run(compare(server.address, options))


if __name__ == "__main__":
    main()
