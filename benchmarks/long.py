"""Growth: of cost with the tables, and of a server's memory with what was stored through it."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import statistics
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import work
from at_size import LEAST, run_at_size
from connections import connected
from harness import database, memoryd
from loop import drive
from measuring import Target, plain
from plots import plot_growth
from results import verdict
from targets import GROWTH_BOUND, MEBIBYTE, STORED_RSS_BOUND
from texts import SEED, Texts
from work import SERVICE

from memoryd.database.migrate import migrate
from memoryd.domain.content import hashes_of
from memoryd.v1 import memory_pb2 as pb

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from harness import Database

PER_SESSION = 100
LOADED_AT_ONCE = 20_000
SECONDS = 3.0
ROUNDS = 3
STORERS = 4
KEPT_PER_SESSION = 200
SESSION_COLUMNS = ("tenant", "session_id", "revision")
COLUMNS = (
    "tenant", "session_id", "id", "content_type", "content", "metadata", "importance", "created_at",
    "updated_at", "content_hash", "semantic_hash", "expires_at", "revision", "created_revision",
)  # fmt: skip


def memory_id(session: int, place: int) -> str:
    """An id like the service's, in order of time."""
    return f"01{session:06x}-{place:04x}-7000-8000-{session * PER_SESSION + place:012x}"


def session_rows(sessions: range) -> Iterator[tuple[Any, ...]]:
    for session in sessions:
        yield ("default", f"session-{session}", PER_SESSION)


def memory_rows(sessions: range, *, as_text: bool) -> Iterator[tuple[Any, ...]]:
    """Rows of COLUMNS; every session has the same contents. `as_text`: times for SQLite."""
    texts = Texts()
    contents = [texts.content() for _ in range(PER_SESSION)]
    hashes = [(found.content_hash, found.semantic_hash) for found in map(hashes_of, contents)]
    now = datetime.now(UTC)
    later = now + timedelta(days=30)
    times = [
        moment.replace(tzinfo=None).isoformat(" ", "microseconds") if as_text else moment
        for moment in (now, later)
    ]
    for session in sessions:
        for place in range(PER_SESSION):
            yield (
                "default", f"session-{session}", memory_id(session, place), "fact",
                contents[place], '{"source":"chat","turn":17}', 0.4 + 0.006 * place,
                times[0], times[0], *hashes[place], times[1], place + 1, place + 1,
            )  # fmt: skip


async def load(kept_in: Database, memories: int) -> None:
    """Fill the tables: COPY on PostgreSQL, executemany on SQLite."""
    await migrate(kept_in.url)
    every = range(memories // PER_SESSION)
    step = LOADED_AT_ONCE // PER_SESSION
    parts = [every[start : start + step] for start in range(0, len(every), step)]
    if kept_in.process is None:
        await asyncio.to_thread(load_file, kept_in.plain_url, parts)
        return
    connection = await asyncpg.connect(kept_in.plain_url)
    # COPY takes as text what the driver would otherwise need converted.
    for part in parts:
        await connection.copy_records_to_table(
            "sessions", records=session_rows(part), columns=SESSION_COLUMNS
        )
        await connection.copy_records_to_table(
            "memories", records=memory_rows(part, as_text=False), columns=COLUMNS
        )
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


def load_file(path: str, parts: Iterable[range]) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA synchronous = OFF")
        for part in parts:
            with file:
                insert_rows(file, "sessions", SESSION_COLUMNS, session_rows(part))
                insert_rows(file, "memories", COLUMNS, memory_rows(part, as_text=True))


def insert_rows(
    file: sqlite3.Connection,
    table: str,
    columns: tuple[str, ...],
    rows: Iterable[tuple[Any, ...]],
) -> None:
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    file.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608  constant names


def requests(kind: str, sessions: list[int]) -> Iterator[bytes]:
    """Requests of one kind, over the sessions in turn."""
    texts = Texts(SEED + 2)
    chance = random.Random(SEED)  # noqa: S311  repeatable, not secret
    while True:
        for session in sessions:
            name = f"session-{session}"
            match kind:
                case "store":
                    request: Any = work.store_request(texts, name)
                case "get":
                    place = chance.randrange(PER_SESSION)
                    request = pb.GetMemoryRequest(
                        session_id=name, memory_id=memory_id(session, place)
                    )
                case _:
                    # A peek leaves no trace, so no later write counts.
                    request = pb.RetrieveMemoriesRequest(session_id=name, peek=True)
            yield request.SerializeToString()


METHODS = {
    "get": "GetMemory",
    "first retrieve": "RetrieveMemories",
    "retrieve": "RetrieveMemories",
    "store": "StoreMemory",
}
"""In this order; stores come last, since they make the sessions grow."""


async def latencies(kind: str, memories: int) -> list[dict[str, Any]]:
    """Latencies of one caller in milliseconds, on tables with this many memories.

    Small and large tables use the same number of sessions, spread over the whole, so that the
    server caches the same share of them.
    """
    total = memories // PER_SESSION
    chosen = random.Random(SEED).sample(range(total), LEAST // PER_SESSION)  # noqa: S311  repeatable
    found = []
    with database(kind) as kept_in:
        start = time.perf_counter()
        await load(kept_in, memories)
        print(f"{kind}: {memories:,} memories loaded in {time.perf_counter() - start:.0f} s")
        with memoryd(kept_in, MEMORY_MAX_ENTRIES="1000", MEMORYD_LOG_LEVEL="error") as server:
            async with connected(server.address) as connections:
                for name, method in METHODS.items():
                    once = plain(connections.calls(SERVICE, method), requests(name, chosen))
                    if name == "first retrieve":
                        seen = await drive(once, callers=1, seconds=60, most=len(chosen))
                    else:
                        await drive(once, callers=1, seconds=1.0)
                        seen = await drive(once, callers=1, seconds=SECONDS)
                    found.append(
                        {"server": kind, "memories": memories, "work": name, "p50": seen.p50}
                    )
    return found


async def stored_rss(kind: str, count: int) -> dict[str, Any]:
    """A server's RSS in bytes, before and after this many memories were stored through it."""
    with (
        database(kind) as kept_in,
        memoryd(kept_in, MEMORY_MAX_ENTRIES="1000", MEMORYD_LOG_LEVEL="error") as server,
    ):
        idle = server.process.rss_bytes()
        async with connected(server.address) as connections:
            target = Target(kind, server, connections, kept_in)
            texts = Texts()

            def batches() -> Iterator[bytes]:
                for number in range(count // work.BATCH):
                    session_id = f"session-{number // (KEPT_PER_SESSION // work.BATCH)}"
                    items = [work.store_request(texts, session_id) for _ in range(work.BATCH)]
                    yield pb.BatchStoreMemoriesRequest(requests=items).SerializeToString()

            calls = target.calls(work.WORK["batch"])
            seen = await drive(
                plain(calls, batches()), callers=STORERS, seconds=86_400, most=count // work.BATCH
            )
        return {
            "server": kind,
            "stored": count,
            "idle_rss": idle,
            "rss": server.process.rss_bytes(),
            "peak_rss": server.process.rss_bytes("VmHWM"),
            "memories_a_second": count / seen.seconds,
        }


def median_of(growth: list[dict[str, Any]], kind: str, memories: int, name: str) -> float:
    """The median latency of the median round."""
    wanted = (kind, memories, name)
    medians: list[float] = [
        point["p50"]
        for point in growth
        if (point["server"], point["memories"], point["work"]) == wanted
    ]
    return statistics.median(medians)


async def run_long(given: argparse.Namespace) -> dict[str, Any]:
    """Measure growth, and print it with its targets."""
    growth: list[dict[str, Any]] = []
    stored = []
    for kind in given.kinds:
        rows = []
        # Small and large tables in turn, so that noise affects both alike.
        for _ in range(ROUNDS if given.memories <= 100 * LEAST else 1):
            for memories in (LEAST, given.memories):
                rows += await latencies(kind, memories)
        growth += rows
        for name in METHODS:
            small, large = (median_of(rows, kind, size, name) for size in (LEAST, given.memories))
            label = f"{kind}: p50 of {name} {small:.2f} → {large:.2f} ms, ×"
            print(verdict(label, large / small, GROWTH_BOUND), flush=True)
        row = await stored_rss(kind, given.stored)
        stored.append(row)
        label = (
            f"{kind}: RSS after {row['stored']:,} stored through it"
            f" ({row['memories_a_second']:,.0f}/s; idle {row['idle_rss'] / MEBIBYTE:.0f} MB), MB"
        )
        print(verdict(label, row["rss"] / MEBIBYTE, STORED_RSS_BOUND), flush=True)
    if given.plots:
        sizes = (LEAST, given.memories)
        lines = {
            f"{kind} {name}": [median_of(growth, kind, size, name) for size in sizes]
            for kind in given.kinds
            for name in METHODS
        }
        plot_growth(sizes, lines, given.plots / "table-size.png")
    whole = await run_at_size(given.memories) if "postgresql" in given.kinds else []
    return {"growth": growth, "stored": stored, "at_size": whole}
