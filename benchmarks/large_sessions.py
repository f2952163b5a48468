"""How the cost of calls grows with the session: of 1,000, 10,000 and 100,000 memories, in one run.

python benchmarks/large_sessions.py [--kinds sqlite postgresql] [--sizes 1000 100000] [--rounds 5]

One caller makes calls as the client sends them, on sessions of every size in turn. Printed are
medians in milliseconds, and how many times that of the smallest session each is.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sqlite3
import statistics
import time
from collections import defaultdict
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import uvloop
from connections import connected
from harness import KINDS, database, memoryd
from long import insert_rows
from texts import SEED, Texts
from work import BATCH, SERVICE, question, store_request

from memoryd.database.migrate import migrate
from memoryd.domain.content import hashes_of
from memoryd.v1 import memory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from connections import Connections
    from harness import Database

SIZES = (1_000, 10_000, 100_000)
CALLS = 15
"""Of each kind in a round, for each size."""
FLUSH_SECONDS = 1.0
"""After these, accesses are counted."""
RANKED_SECONDS, RANKED_AFTER, RANKED_MILLISECONDS = 60.0, 10, 60.0
"""So long at most it takes until so many stores in turn are so quick: then a session is ranked."""
ROOM = 10
"""How many times its size a session may have that is not full."""
BOUND = 1.5
CACHE_BYTES = 1 << 30
"""Room for all of the sessions in memory."""
COLUMNS = (
    "tenant", "session_id", "id", "content_type", "content", "metadata", "importance",
    "access_count", "created_at", "updated_at", "content_hash", "semantic_hash", "expires_at",
    "revision", "created_revision",
)  # fmt: skip
SESSION_COLUMNS = ("tenant", "session_id", "revision", "memory_limit")


def session_id(use: str, size: int) -> str:
    return f"{use}-{size}"


def memory_id(place: int) -> str:
    return f"01900000-0000-7000-8000-{place:012x}"


def memory_rows(name: str, size: int, *, as_text: bool) -> Iterator[tuple[Any, ...]]:
    """Rows of COLUMNS, over sixty days; a third was accessed. `as_text`: times for SQLite."""
    texts, chance = Texts(), random.Random(SEED)  # noqa: S311  repeatable, not secret
    now = datetime.now(UTC)

    def moment(value: datetime) -> Any:
        return value.replace(tzinfo=None).isoformat(" ", "microseconds") if as_text else value

    changed, later = moment(now), moment(now + timedelta(days=30))
    for place in range(size):
        content = texts.content()
        made = moment(now - timedelta(days=60 * (1 - place / size)))
        hashes = hashes_of(content)
        yield (
            "default", name, memory_id(place), "fact", content, '{"source":"chat","turn":17}',
            chance.random(), max(0, chance.randrange(18) - 12), made, changed,
            hashes.content_hash, hashes.semantic_hash, later, place + 1, place + 1,
        )  # fmt: skip


async def load(kept_in: Database, sizes: list[int]) -> None:
    await migrate(kept_in.url)
    limits = {"full": 1, "open": ROOM}
    sessions = [
        ("default", session_id(use, size), size, size * room)
        for size in sizes
        for use, room in limits.items()
    ]
    named = [(name, size) for _, name, size, _ in sessions]
    if kept_in.process is None:
        with closing(sqlite3.connect(kept_in.plain_url)) as file, file:
            insert_rows(file, "sessions", SESSION_COLUMNS, iter(sessions))
            for name, size in named:
                insert_rows(file, "memories", COLUMNS, memory_rows(name, size, as_text=True))
        return
    connection = await asyncpg.connect(kept_in.plain_url)
    await connection.copy_records_to_table("sessions", records=sessions, columns=SESSION_COLUMNS)
    for name, size in named:
        rows = memory_rows(name, size, as_text=False)
        await connection.copy_records_to_table("memories", records=rows, columns=COLUMNS)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


class Calls:
    """Calls of one server by one caller."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._texts = Texts(int(time.time()))
        self._chance = random.Random()  # noqa: S311  not secret
        self._pages: dict[str, str] = {}

    async def send(self, method: str, request: Any, answer: Any = None) -> Any:
        data = await self._connections.calls(SERVICE, method)[0](request.SerializeToString())
        return None if answer is None else answer.FromString(data)

    async def timed(self, method: str, request: Any) -> float:
        (call, *_), data = self._connections.calls(SERVICE, method), request.SerializeToString()
        start = time.perf_counter()
        await call(data)
        return (time.perf_counter() - start) * 1e3

    async def store(self, name: str) -> float:
        return await self.timed("StoreMemory", store_request(self._texts, name))

    async def batch(self, name: str) -> float:
        items = [store_request(self._texts, name) for _ in range(BATCH)]
        return await self.timed("BatchStoreMemories", pb.BatchStoreMemoriesRequest(requests=items))

    async def get(self, name: str) -> float:
        return await self.timed(
            "GetMemory", pb.GetMemoryRequest(session_id=name, memory_id=self._any(name))
        )

    async def list(self, name: str) -> float:
        return await self.timed("ListMemories", pb.ListMemoriesRequest(session_id=name))

    async def list_middle(self, name: str) -> float:
        request = pb.ListMemoriesRequest(session_id=name, page_size=1000)
        if name not in self._pages:
            for _ in range(int(name.rpartition("-")[2]) // 2000):
                page = await self.send("ListMemories", request, pb.ListMemoriesResponse)
                request.page_token = page.next_page_token
            self._pages[name] = request.page_token
        request = pb.ListMemoriesRequest(session_id=name, page_token=self._pages[name])
        return await self.timed("ListMemories", request)

    async def list_filtered(self, name: str) -> float:
        request = pb.ListMemoriesRequest(session_id=name)
        request.filter.content_types.append(pb.CONTENT_TYPE_FACT)
        request.filter.min_importance = 0.3
        return await self.timed("ListMemories", request)

    async def retrieve(self, name: str) -> float:
        request = pb.RetrieveMemoriesRequest(session_id=name, peek=True)
        return await self.timed("RetrieveMemories", request)

    async def retrieve_filtered(self, name: str) -> float:
        request = pb.RetrieveMemoriesRequest(session_id=name, peek=True)
        request.filter.content_types.append(pb.CONTENT_TYPE_FACT)
        return await self.timed("RetrieveMemories", request)

    async def retrieve_stored(self, name: str) -> float:
        await self.store(name)
        return await self.retrieve(name)

    async def retrieve_accessed(self, name: str) -> float:
        counting = pb.RetrieveMemoriesRequest(session_id=name)
        await self.send("RetrieveMemories", counting)
        await asyncio.sleep(FLUSH_SECONDS)
        return await self.retrieve(name)

    async def update(self, name: str) -> float:
        memory = pb.Memory(session_id=name, memory_id=self._any(name))
        memory.importance = self._chance.random()
        return await self.timed("UpdateMemory", pb.UpdateMemoryRequest(memory=memory))

    async def delete(self, name: str) -> float:
        stored = await self.send(
            "StoreMemory", store_request(self._texts, name), pb.StoreMemoryResponse
        )
        request = pb.DeleteMemoryRequest(session_id=name, memory_id=stored.memory.memory_id)
        return await self.timed("DeleteMemory", request)

    async def query(self, name: str) -> float:
        return await self.timed("RetrieveMemories", question(name, self._texts.query()))

    def _any(self, name: str) -> str:
        return memory_id(self._chance.randrange(int(name.rpartition("-")[2])))


WORK: dict[str, tuple[str, Callable[[Calls, str], Awaitable[float]]]] = {
    "StoreMemory, room left": ("open", Calls.store),
    "StoreMemory, evicting one": ("full", Calls.store),
    "BatchStoreMemories of 100, evicting 100": ("full", Calls.batch),
    "GetMemory": ("open", Calls.get),
    "ListMemories, first page": ("open", Calls.list),
    "ListMemories, middle page": ("open", Calls.list_middle),
    "ListMemories, filtered": ("open", Calls.list_filtered),
    "Retrieve, no query": ("open", Calls.retrieve),
    "Retrieve, no query, after a store": ("open", Calls.retrieve_stored),
    "Retrieve, no query, filtered": ("open", Calls.retrieve_filtered),
    "UpdateMemory": ("open", Calls.update),
    "DeleteMemory": ("open", Calls.delete),
}
SLOW_WORK = {"Retrieve, no query, after accesses were counted": ("open", Calls.retrieve_accessed)}
"""Each call waits; fewer of them are made."""


Times = dict[str, dict[int, list[float]]]
"""Of each kind of work by size, in milliseconds."""


async def measure(kind: str, given: argparse.Namespace) -> Times:
    found: Times = defaultdict(lambda: defaultdict(list))
    with database(kind) as kept_in:
        await load(kept_in, given.sizes)
        options = {
            "MEMORYD_LOG_LEVEL": "error",
            "MEMORYD_SESSION_CACHE_BYTES": str(CACHE_BYTES),
            "MEMORYD_DATABASE_TIMEOUT_SECONDS": "30",
        }
        async with AsyncExitStack() as stack:
            server = stack.enter_context(memoryd(kept_in, **options))
            calls = Calls(await stack.enter_async_context(connected(server.address)))
            await measure_first(calls, given.sizes, found)
            for _ in range(given.rounds):
                await measure_round(calls, given.sizes, found)
            if kind == "postgresql":  # an SQLite file has one server
                second = stack.enter_context(memoryd(kept_in, **options))
                others = Calls(await stack.enter_async_context(connected(second.address)))
                await measure_beside(calls, others, given.sizes, found)
    return found


async def measure_first(calls: Calls, sizes: list[int], found: Times) -> None:
    """The first calls, and all others until the servers have what they keep."""
    for size in sizes:
        found["Retrieve, no query, cold"][size].append(
            await calls.retrieve(session_id("open", size))
        )
    for use, once in WORK.values():
        for size in sizes:
            await once(calls, session_id(use, size))
    for size in sizes:  # while memories are ranked, each store reads the whole session
        name, quick, end = session_id("full", size), 0, time.monotonic() + RANKED_SECONDS
        while quick < RANKED_AFTER and time.monotonic() < end:
            quick = quick + 1 if await calls.store(name) < RANKED_MILLISECONDS else 0
            await asyncio.sleep(0.1)


async def measure_round(calls: Calls, sizes: list[int], found: Times) -> None:
    for work, (use, once) in WORK.items():
        for _ in range(CALLS):  # in turn, so that noise affects all sizes alike
            for size in sizes:
                found[work][size].append(await once(calls, session_id(use, size)))
    for work, (use, once) in SLOW_WORK.items():
        for size in sizes:
            found[work][size].append(await once(calls, session_id(use, size)))


async def measure_beside(calls: Calls, others: Calls, sizes: list[int], found: Times) -> None:
    """Calls of a server after stores on another one."""
    for size in sizes:
        name = session_id("open", size)
        await others.retrieve(name)
        for _ in range(CALLS):
            await calls.store(name)
            found["Retrieve, no query, after a store on another server"][size].append(
                await others.retrieve(name)
            )


def show(kind: str, found: Times, sizes: list[int]) -> None:
    heads = "".join(f" {size:>9,}" for size in sizes)
    print(f"{kind:<52}{heads}  × at {sizes[-1]:,}")
    for work, by_size in found.items():
        medians = [statistics.median(by_size[size]) for size in sizes]
        times = "".join(f" {median:9.2f}" for median in medians)
        ratio = medians[-1] / medians[0]
        print(f"{work:<52}{times}  {ratio:.2f}{'' if ratio <= BOUND else f' > {BOUND}'}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for kind in given.kinds:
            show(kind, runner.run(measure(kind, given)), given.sizes)


if __name__ == "__main__":
    main()
