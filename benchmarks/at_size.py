"""What many memories over many sessions take on disk, and what goes over all of them costs.

One session is stored by the service, with a `request_id` for each memory and a vector; PostgreSQL
copies its rows to the other sessions. So each table has what the service writes into it.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc.aio
from harness import database, memoryd
from results import verdict
from targets import GROWTH_BOUND
from texts import SEED, Texts
from work import store_request

from memoryd.database.tables import schema
from memoryd.database.types import CompactTime, UtcDateTime
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import session_pb2
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub
from memoryd.v1.session_pb2_grpc import SessionServiceStub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from harness import Database
    from sqlalchemy import Column

PER_SESSION = 100
COPIED_AT_ONCE = 200
"""Sessions."""
FIRST = "session-0"
DUE = 0.01
"""The share of memories that have expired when the sweeper comes."""
CALLS = 50
PAGE = 100
"""Sessions, as many as there are in the small tables."""
VARIABLES = {"MEMORY_MAX_ENTRIES": "1000", "MEMORYD_LOG_LEVEL": "error"}


async def store_first(address: str, connection: asyncpg.Connection) -> None:
    """Store the memories of one session, and wait for their vectors."""
    texts = Texts()
    async with grpc.aio.insecure_channel(address) as channel:
        memory = MemoryServiceStub(channel)
        for _ in range(PER_SESSION):
            request = store_request(texts, FIRST)
            request.never_expires = True
            await memory.StoreMemory(request)
        query = pb.RetrieveMemoriesRequest(session_id=FIRST, query=texts.query(), peek=True)
        while await connection.fetchval("SELECT count(*) FROM memory_vectors") < PER_SESSION:
            await memory.RetrieveMemories(query)
            await asyncio.sleep(0.1)


async def copy(connection: asyncpg.Connection, sessions: int) -> None:
    """Copy the rows of the first session to the others.

    Times lie within the day before: as far apart as they are in a service, and nothing is due.
    """
    step = 86_400 / sessions
    for first in range(1, sessions, COPIED_AT_ONCE):
        for table in schema.sorted_tables:
            if "session_id" in table.c:
                others = [c for c in table.c if c.name != "session_id"]
                values = ", ".join(
                    f"{c.name} - n * {earlier(c, step)}" if is_time(c) else c.name for c in others
                )
                await connection.execute(
                    f"INSERT INTO {table.name} (session_id, {', '.join(c.name for c in others)})"  # noqa: S608  names of our schema
                    f" SELECT 'session-' || n, {values}"
                    f" FROM {table.name} CROSS JOIN generate_series($1::int, $2::int) AS n"
                    " WHERE session_id = $3",
                    first,
                    min(first + COPIED_AT_ONCE, sessions) - 1,
                    FIRST,
                    timeout=None,
                )
    await connection.execute("VACUUM ANALYZE", timeout=None)


def is_time(column: Column[Any]) -> bool:
    return isinstance(column.type, UtcDateTime)


def earlier(column: Column[Any], seconds: float) -> str:
    """A span as a time's column has it, in SQL."""
    if isinstance(column.type, CompactTime):
        return f"{round(seconds * 1e6)}::bigint"
    return f"interval '{seconds} seconds'"


async def bytes_by_table(connection: asyncpg.Connection) -> dict[str, int]:
    """With indexes, of tables that have rows of sessions."""
    found = await connection.fetch(
        "SELECT relname, pg_total_relation_size(oid) AS size FROM pg_class"
        " WHERE relkind = 'r' AND relname = ANY($1) AND reltuples > 0 ORDER BY size DESC",
        [name for name, table in schema.tables.items() if "session_id" in table.c],
    )
    return {row["relname"]: row["size"] for row in found}


async def swept(kept_in: Database) -> float:
    """Seconds of `memoryd sweep --once`, its start included."""
    begun = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "memoryd", "sweep", "--once"),
        env={**os.environ, **VARIABLES, "MEMORYD_DATABASE_URL": kept_in.url},
        stdout=asyncio.subprocess.DEVNULL,
    )
    if await process.wait():
        raise SystemExit("the sweeper failed")
    return time.perf_counter() - begun


async def expire(connection: asyncpg.Connection, sessions: int) -> int:
    """Let the memories of some sessions expire; give their number."""
    due = [f"session-{number}" for number in range(1, sessions, round(1 / DUE))]
    await connection.execute(
        "UPDATE memories SET expires_at = now() - interval '1 second' WHERE session_id = ANY($1)",
        due,
        timeout=None,
    )
    return len(due) * PER_SESSION


async def median_ms(calls: Iterable[Callable[[], Awaitable[object]]]) -> float:
    waits = []
    for call in calls:
        begun = time.perf_counter()
        await call()
        waits.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(waits)


async def called(address: str, sessions: int) -> dict[str, float]:
    """Medians in milliseconds of one caller."""
    async with grpc.aio.insecure_channel(address) as channel:
        memory, listed = MemoryServiceStub(channel), SessionServiceStub(channel)
        page = session_pb2.ListSessionsRequest(page_size=PAGE)

        async def next_page() -> None:
            answer = await listed.ListSessions(page)
            page.page_token = answer.next_page_token

        async def export(session_id: str) -> None:
            async for _ in memory.ExportMemories(pb.ExportMemoriesRequest(session_id=session_id)):
                pass

        async def erase(session_id: str) -> None:
            await memory.EraseSession(pb.EraseSessionRequest(session_id=session_id))

        # None that has expired, nor the first.
        alive = [number for number in range(2, sessions) if number % round(1 / DUE) != 1]
        chosen = random.Random(SEED).sample(alive, min(CALLS, len(alive)))  # noqa: S311  repeatable
        names = [f"session-{number}" for number in chosen]
        await export(FIRST)  # the first call of all connects
        return {
            f"a page of {PAGE:,} sessions": await median_ms(
                [next_page] * max(1, min(CALLS, sessions // PAGE))
            ),
            "ExportMemories": await median_ms([lambda n=n: export(n) for n in names]),
            "EraseSession": await median_ms([lambda n=n: erase(n) for n in names]),
        }


async def at_size(memories: int) -> dict[str, Any]:
    """Measure on PostgreSQL with this many memories."""
    sessions = memories // PER_SESSION
    with database("postgresql") as kept_in:
        with memoryd(kept_in, **VARIABLES) as server:
            connection = await asyncpg.connect(kept_in.plain_url)
            await store_first(server.address, connection)
        begun = time.perf_counter()
        await copy(connection, sessions)
        print(f"{memories:,} memories copied in {time.perf_counter() - begun:.0f} s", flush=True)
        sizes = await bytes_by_table(connection)
        idle = await swept(kept_in)
        due = await expire(connection, sessions)
        busy = await swept(kept_in)
        await connection.close()
        with memoryd(kept_in, **VARIABLES) as server:
            medians = await called(server.address, sessions)
    return {
        "memories": memories,
        "sessions": sessions,
        "bytes": sizes,
        "nothing_due": idle,
        "due": due,
        "swept": busy,
        "medians": medians,
    }


async def run_at_size(least: int, most: int) -> list[dict[str, Any]]:
    """Measure few memories and many, and print what becomes of the costs."""
    small, large = [await at_size(memories) for memories in (least, most)]
    each = {table: size / large["memories"] for table, size in large["bytes"].items()}
    total = sum(each.values())
    print(
        f"{large['memories']:,} memories in {large['sessions']:,} sessions,"
        f" bytes on disk a memory: {total:,.0f}"
    )
    for table, size in each.items():
        print(f"  {table:20}{size:9,.1f}")
    for one in (small, large):
        print(
            f"{one['memories']:,}: swept in {one['nothing_due']:.1f} s with nothing due,"
            f" in {one['swept']:.1f} s with {one['due']:,} memories expired",
            flush=True,
        )
    for name, after in large["medians"].items():
        before = small["medians"][name]
        label = f"p50 of {name} {before:.2f} → {after:.2f} ms, ×"
        print(verdict(label, after / before, GROWTH_BOUND), flush=True)
    return [small, large]
