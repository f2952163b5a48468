"""Bytes on disk for a memory of 100 characters with a `request_id`, all tables and indexes counted.

python benchmarks/disk.py [--memories 20000]
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import asyncpg
import uvloop
from connections import connected
from harness import KINDS, Database, database, memoryd
from texts import CONTENT_BYTES, Texts
from work import BATCH, SERVICE, store_request

from memoryd.v1 import memory_pb2 as pb

SESSIONS = 100
ROOM = "1000"


async def fill(kept_in: Database, memories: int) -> None:
    """Store so many memories, and stop the server, which leaves nothing in SQLite's log."""
    texts = Texts()
    with memoryd(kept_in, MEMORY_MAX_ENTRIES=ROOM) as server:
        async with connected(server.address) as connections:
            (store, *_) = connections.calls(SERVICE, "BatchStoreMemories")
            for number in range(memories // BATCH):
                session = f"user-{number % SESSIONS}"
                items = [store_request(texts, session) for _ in range(BATCH)]
                request = pb.BatchStoreMemoriesRequest(requests=items)
                await store(request.SerializeToString())


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


def bytes_of(file: str) -> int:
    return Path(file).stat().st_size


async def measure(memories: int) -> None:
    for kind in KINDS:
        with database(kind) as kept_in:
            with memoryd(kept_in):
                pass
            empty = await size(kept_in)
            await fill(kept_in, memories)
            each = (await size(kept_in) - empty) / memories
            print(f"{kind:12}{each:8,.0f} bytes a memory of {CONTENT_BYTES} characters")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memories", type=int, default=20_000)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(parser.parse_args().memories))


if __name__ == "__main__":
    main()
