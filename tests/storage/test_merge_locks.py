"""The order in which a merge of sessions locks them, on PostgreSQL."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from tests.locks import postgres
from tests.rpc.test_merge import contents, merge, store

from memoryd.v1 import memory_pb2 as pb

_WAITS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@pytest.fixture
def database_kind() -> str:
    return "postgresql"


async def until_waiting(connection) -> None:
    """Wait until another connection waits for a lock."""
    async with asyncio.timeout(30):
        while not await connection.fetchval(_WAITS):  # noqa: ASYNC110  no event to await
            await asyncio.sleep(0.01)


async def test_a_merge_waits_for_who_makes_its_target_before_it_locks_more(
    memory, sessions, database_url
):
    """As a batch does that stores to both: it has made the first, and wants the second."""
    await memory.StoreMemory(store("a fact", "b"))
    columns = "tenant, session_id, revision, memory_count, counted_revision"
    async with postgres(database_url) as other, other.transaction():
        await other.execute(
            f"INSERT INTO sessions ({columns}) VALUES ('default', 'a', 0, 0, 0)"  # noqa: S608
        )
        request = merge("b", "a", request_id=str(uuid.uuid4()))
        merging = sessions.MergeSessions(request)
        await until_waiting(other)
        await other.execute("SELECT FROM sessions WHERE session_id = 'b' FOR UPDATE")
    assert (await merging).moved_memories == 1
    assert await contents(memory, "a") == ["a fact"]


async def test_a_batch_waits_for_who_makes_one_of_its_sessions_before_it_locks_others(
    memory, database_url
):
    """As a merge does into the first: it has made that, and wants the second."""
    await memory.StoreMemory(store("a fact", "b"))
    columns = "tenant, session_id, revision, memory_count, counted_revision"
    async with postgres(database_url) as other, other.transaction():
        await other.execute(
            f"INSERT INTO sessions ({columns}) VALUES ('default', 'a', 0, 0, 0)"  # noqa: S608
        )
        requests = [store("one", "a"), store("another", "b")]
        storing = memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
        await until_waiting(other)
        await other.execute("SELECT FROM sessions WHERE session_id = 'b' FOR UPDATE")
    assert len((await storing).responses) == 2
    assert await contents(memory, "a") == ["one"]
    assert await contents(memory, "b") == ["a fact", "another"]
