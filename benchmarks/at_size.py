"""What many memories over many sessions take on disk, and what goes over all of them costs.

One session is stored by the service, with a `request_id` for each memory and a vector; PostgreSQL
copies its rows to the other sessions. So each table has what the service writes into it. What goes
over all of them is measured twice: as it is, and as it is sent to Citus, where the same PostgreSQL
says that it is Citus with shards of its own.

python benchmarks/at_size.py [--memories 10000000]    this alone; `service.py --long` has it too
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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

sys.path.append(str(Path(__file__).parents[1]))  # the stub is shared with the tests
from tests import citus_stub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from harness import Database
    from sqlalchemy import Column

LEAST = 10_000
"""Memories in the small tables."""
PER_SESSION = 100
COPIED_AT_ONCE = 200
"""Sessions."""
FIRST = "session-0"
CYCLE = 100
"""Sessions are chosen by their number's remainder; of one remainder all memories have expired when
the sweeper comes."""
CALLS = 50
PAGE = 100
"""Sessions, as many as there are in the small tables."""
COPYING = ("max_wal_size = '8GB'", "checkpoint_timeout = '30min'")
"""Settings of PostgreSQL while rows are copied: fewer checkpoints."""
VARIABLES = {"MEMORY_MAX_ENTRIES": "1000", "MEMORYD_LOG_LEVEL": "error"}


class Part(NamedTuple):
    """Sessions that one way is measured on, by the remainders of their numbers."""

    due: int
    others: range


PARTS = {"plain": Part(1, range(2, 50)), "as Citus": Part(51, range(52, CYCLE))}


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
    for setting in COPYING:
        await connection.execute(f"ALTER SYSTEM SET {setting}")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.execute("SET synchronous_commit = off")
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
    await connection.execute("RESET synchronous_commit")
    await connection.execute("ALTER SYSTEM RESET ALL")
    await connection.execute("SELECT pg_reload_conf()")


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


async def commanded(kept_in: Database, *arguments: str) -> float:
    """Seconds that a command of memoryd takes, its start included."""
    begun = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "memoryd", *arguments),
        env={**os.environ, **VARIABLES, "MEMORYD_DATABASE_URL": kept_in.url},
        stdout=asyncio.subprocess.DEVNULL,
    )
    if await process.wait():
        raise SystemExit(f"memoryd {' '.join(arguments)} failed")
    return time.perf_counter() - begun


async def become_citus(connection: asyncpg.Connection, kept_in: Database) -> None:
    """Have PostgreSQL say that it is Citus, and spread the tables as there."""
    for statement in citus_stub.STATEMENTS:
        await connection.execute(statement)
    await commanded(kept_in, "migrate", "--distribute")


async def expire(connection: asyncpg.Connection, sessions: int, part: Part) -> int:
    """Let the memories of some sessions expire; give their number."""
    due = [f"session-{number}" for number in range(part.due, sessions, CYCLE)]
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


async def called(address: str, sessions: int, part: Part) -> dict[str, float]:
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

        alive = [number for number in range(sessions) if number % CYCLE in part.others]
        chosen = random.Random(SEED).sample(alive, min(CALLS, len(alive)))  # noqa: S311  repeatable
        names = [f"session-{number}" for number in chosen]
        await export(FIRST)  # the first call of all connects
        return {
            f"a page of {PAGE:,} sessions": await median_ms(
                [next_page] * max(1, min(CALLS, sessions // PAGE))
            ),
            "ExportMemories": await median_ms([partial(export, n) for n in names]),
            "EraseSession": await median_ms([partial(erase, n) for n in names]),
        }


async def measured(kept_in: Database, sessions: int, part: Part) -> dict[str, Any]:
    """Sweep, with memories that have expired and without, and call."""
    idle = await commanded(kept_in, "sweep", "--once")
    connection = await asyncpg.connect(kept_in.plain_url)
    due = await expire(connection, sessions, part)
    await connection.close()
    busy = await commanded(kept_in, "sweep", "--once")
    with memoryd(kept_in, **VARIABLES) as server:
        medians = await called(server.address, sessions, part)
    return {"nothing_due": idle, "due": due, "swept": busy, "medians": medians}


async def at_size(memories: int) -> dict[str, Any]:
    """Measure on PostgreSQL with this many memories."""
    sessions = memories // PER_SESSION
    with database("postgresql") as kept_in:
        connection = await asyncpg.connect(kept_in.plain_url)
        with memoryd(kept_in, **VARIABLES) as server:
            await store_first(server.address, connection)
        begun = time.perf_counter()
        await copy(connection, sessions)
        print(f"{memories:,} memories copied in {time.perf_counter() - begun:.0f} s", flush=True)
        sizes = await bytes_by_table(connection)
        ways = {"plain": await measured(kept_in, sessions, PARTS["plain"])}
        await become_citus(connection, kept_in)
        await connection.close()
        ways["as Citus"] = await measured(kept_in, sessions, PARTS["as Citus"])
    return {"memories": memories, "sessions": sessions, "bytes": sizes, "ways": ways}


async def run_at_size(most: int) -> list[dict[str, Any]]:
    """Measure few memories and many, and print what becomes of the costs."""
    small, large = [await at_size(memories) for memories in (LEAST, most)]
    each = {table: size / large["memories"] for table, size in large["bytes"].items()}
    total = sum(each.values())
    print(
        f"{large['memories']:,} memories in {large['sessions']:,} sessions,"
        f" bytes on disk a memory: {total:,.0f}"
    )
    for table, size in each.items():
        print(f"  {table:20}{size:9,.1f}")
    for way in PARTS:
        for one in (small, large):
            seen = one["ways"][way]
            print(
                f"{way}, {one['memories']:,}: swept in {seen['nothing_due']:.1f} s with nothing"
                f" due, in {seen['swept']:.1f} s with {seen['due']:,} memories expired",
                flush=True,
            )
        for name, after in large["ways"][way]["medians"].items():
            before = small["ways"][way]["medians"][name]
            label = f"{way}: p50 of {name} {before:.2f} → {after:.2f} ms, ×"
            print(verdict(label, after / before, GROWTH_BOUND), flush=True)
    return [small, large]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--memories", type=int, default=10_000_000)
    asyncio.run(run_at_size(parser.parse_args().memories))


if __name__ == "__main__":
    main()
