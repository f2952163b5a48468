"""One tenant's load does not become another's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.access.guarded import outcome
from tests.locks import writes_blocked

from memoryd.database.fair_queue import QUANTUM
from memoryd.v1 import memory_pb2

MANY = 200
BATCH = 10


def store(content: str) -> memory_pb2.StoreMemoryRequest:
    return memory_pb2.StoreMemoryRequest(session_id="chat", content=content)


@contextlib.asynccontextmanager
async def one_transaction_under_way(caller, database_url) -> AsyncIterator[None]:
    """Hold up a first write of the caller until the end of the block; those after it wait."""
    await caller.memory("StoreMemory", store("what a lock on PostgreSQL needs"))
    async with writes_blocked(database_url):
        first = caller.memory("StoreMemory", store("the first"), timeout=60)
        for _ in range(5):  # long enough for it to be taken from the queue
            await caller.memory("ListMemories", memory_pb2.ListMemoriesRequest(session_id="x"))
        yield
    await first


async def test_a_tenants_write_waits_a_turn_of_anothers_many(guard, database_url, eventually):
    guarded = await guard(MEMORYD_WRITE_BATCH_LIMIT=str(BATCH), MEMORY_MAX_ENTRIES="1000")
    busy, quiet = await guarded.caller("busy"), await guarded.caller("quiet")
    done: list[str] = []

    async def write(caller, name: str, content: str) -> None:
        await caller.memory("StoreMemory", store(content), timeout=60)
        done.append(name)

    async def all_wait() -> bool:
        waiting = guarded.server.waiting_writes
        return (waiting("busy"), waiting("quiet")) == (MANY, 1)

    async with one_transaction_under_way(busy, database_url):
        calls = [asyncio.create_task(write(busy, "busy", f"fact {n}")) for n in range(MANY)]
        calls.append(asyncio.create_task(write(quiet, "quiet", "a fact")))
        await eventually(all_wait)
    await asyncio.gather(*calls)
    # A turn of the other, and the transaction that it shares.
    assert done.index("quiet") <= QUANTUM + BATCH
    assert done.count("busy") == MANY


async def test_a_full_queue_lets_a_tenant_in_that_has_nothing_waiting(
    guard, database_url, eventually
):
    guarded = await guard(
        MEMORYD_WRITE_QUEUE_LIMIT="20",
        MEMORYD_WRITE_BATCH_LIMIT=str(BATCH),
        MEMORY_MAX_ENTRIES="1000",
    )
    busy, quiet = await guarded.caller("busy"), await guarded.caller("quiet")

    def write(caller, content: str) -> asyncio.Task:
        call = caller.memory("StoreMemory", store(content), timeout=60)
        return asyncio.create_task(outcome(call))

    async with one_transaction_under_way(busy, database_url):
        calls = [write(busy, f"fact {n}") for n in range(60)]

        async def is_full() -> bool:
            return sum(call.done() for call in calls) == 40

        await eventually(is_full)
        theirs = write(quiet, "a fact")

        async def it_waits() -> bool:
            return guarded.server.waiting_writes("quiet") == 1

        await eventually(it_waits)
    assert await theirs is None
    found = await asyncio.gather(*calls)
    refused = [refusal.reason for refusal in found if refusal is not None]
    assert refused == ["ERROR_REASON_OVERLOADED"] * 40
