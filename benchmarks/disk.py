"""Bytes on disk for a memory of 100 characters and for a document of 1 KB.

python benchmarks/disk.py [--count 20000] [--by-table]

All tables and indexes count. A memory has a `request_id`, each 100 documents have one together;
documents are measured without and with a search text of 100 characters. `--by-table` shows tables
and indexes too; on SQLite that needs a library with `dbstat`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import uuid
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import uvloop
from connections import connected
from document_work import DOCUMENT_SERVICE, batch_of, put_request
from harness import KINDS, Database, database, memoryd
from texts import CONTENT_BYTES, DOCUMENT_BYTES, Texts
from work import BATCH, SERVICE, store_request

from memoryd.v1 import memory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

SESSIONS = 100
ROOM = "1000"
QUIET = {"MEMORYD_LOG_LEVEL": "error"}


def memories(texts: Texts, session: str) -> Message:
    """Store a batch of memories."""
    items = [store_request(texts, session) for _ in range(BATCH)]
    return pb.BatchStoreMemoriesRequest(requests=items)


def documents(texts: Texts, session: str, *, are_searchable: bool) -> Message:
    """Write a batch of documents."""
    puts = [
        put_request(
            session,
            str(uuid.uuid4()),
            texts.content(),
            json.dumps(texts.document()),
            is_searchable=are_searchable,
        )
        for _ in range(BATCH)
    ]
    return batch_of(puts)


KEPT: dict[str, tuple[str, str, Callable[[Texts, str], Message]]] = {
    f"a memory of {CONTENT_BYTES} characters": (SERVICE, "BatchStoreMemories", memories),
    f"a document of {DOCUMENT_BYTES:,} bytes": (
        *(DOCUMENT_SERVICE, "BatchWriteDocuments"),
        partial(documents, are_searchable=False),
    ),
    "the same, searchable": (
        *(DOCUMENT_SERVICE, "BatchWriteDocuments"),
        partial(documents, are_searchable=True),
    ),
}
"""What is measured: the service and the method that write a batch, and what makes its request."""


async def fill(kept_in: Database, what: str, count: int) -> None:
    """Write so many, and stop the server, which leaves nothing in SQLite's log."""
    texts = Texts()
    service, method, request = KEPT[what]
    with memoryd(kept_in, MEMORY_MAX_ENTRIES=ROOM, **QUIET) as server:
        async with connected(server.address) as connections:
            (write, *_) = connections.calls(service, method)
            for number in range(count // BATCH):
                session = f"user-{number % SESSIONS}"
                await write(request(texts, session).SerializeToString())


async def size(kept_in: Database) -> int:
    """The bytes that the database takes; on PostgreSQL those of our tables."""
    if kept_in.process is None:
        return bytes_of(kept_in.plain_url)
    connection = await asyncpg.connect(kept_in.plain_url)
    await connection.execute("VACUUM FULL")
    found = await connection.fetchval(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    await connection.close()
    return int(found)


async def parts(kept_in: Database) -> list[tuple[str, int]]:
    """The bytes of each table and index, the largest first."""
    if kept_in.process is None:
        with closing(sqlite3.connect(kept_in.plain_url)) as connection:
            return connection.execute(
                "SELECT name, sum(pgsize) FROM dbstat GROUP BY name ORDER BY 2 DESC"
            ).fetchall()
    connection = await asyncpg.connect(kept_in.plain_url)
    found = await connection.fetch(
        "SELECT relname, CASE relkind WHEN 'r' THEN pg_table_size(oid) ELSE pg_relation_size(oid)"
        " END FROM pg_class WHERE relkind IN ('r', 'i')"
        " AND relnamespace = 'public'::regnamespace ORDER BY 2 DESC"
    )
    await connection.close()
    return [(name, size) for name, size in found]


def bytes_of(file: str) -> int:
    return Path(file).stat().st_size


async def measure(count: int, *, by_table: bool) -> None:
    for what in KEPT:
        for kind in KINDS:
            with database(kind) as kept_in:
                with memoryd(kept_in, **QUIET):
                    pass
                empty = await size(kept_in)
                await fill(kept_in, what, count)
                each = (await size(kept_in) - empty) / count
                print(f"{kind:12}{each:8,.0f} bytes, {what}", flush=True)
                for name, found in await parts(kept_in) if by_table else ():
                    if found >= count:
                        print(f"{'':12}{found / count:8,.0f}   {name}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=20_000, help="of memories, of documents")
    parser.add_argument("--by-table", action="store_true", help="show tables and indexes")
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(given.count, by_table=given.by_table))


if __name__ == "__main__":
    main()
