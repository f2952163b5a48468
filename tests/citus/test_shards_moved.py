"""Shards that are split or moved underneath a server, and notifications that reach the others."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from tests.citus.calls import (
    CALLS,
    WRITES,
    call,
    is_refused,
    prepare,
    put,
    spoken,
    state_of,
    stored,
)

from memoryd.v1 import conversation_pb2 as conversation_pb
from memoryd.v1 import document_pb2 as document_pb
from memoryd.v1 import memory_pb2 as pb

SPLIT = """
SELECT isolate_tenant_to_new_shard(
    'sessions', CAST(:session AS TEXT), 'CASCADE', shard_transfer_mode => 'block_writes')
"""
MOVE = """
SELECT citus_move_shard_placement(
    p.shardid, n.nodename, n.nodeport, other.nodename, other.nodeport,
    shard_transfer_mode => 'block_writes')
FROM pg_dist_placement p
JOIN pg_dist_node n ON n.groupid = p.groupid
JOIN pg_dist_node other ON other.groupid <> n.groupid
    AND other.isactive AND other.shouldhaveshards AND other.noderole = 'primary'
WHERE p.shardid = get_shard_id_for_distribution_column('sessions', CAST(:session AS TEXT))
LIMIT 1
"""

# A shard that was split stays so.
CHANGES = [
    *((MOVE, method) for method in CALLS),
    *((SPLIT, method) for method in ("StoreMemory", "AppendMessages", "RetrieveMemories")),
]


@pytest.mark.parametrize(("change", "method"), CHANGES)
async def test_a_call_finds_where_its_session_is_now(serve, tables, method, change):
    running, session_id = await serve(), str(uuid.uuid4())
    for prepared in (session_id, "whole"):
        await prepare(running, prepared)
    await call(running, method, "whole")
    await tables.rows(change, session=session_id)
    assert not await is_refused(running, method, session_id)
    if method in WRITES:
        assert await state_of(running, session_id) == await state_of(running, "whole")


WATCHES = {
    "memory": (
        lambda running: running.memory.WatchMemories(pb.WatchMemoriesRequest(session_id="s")),
        lambda running: running.memory.StoreMemory(stored("s", "another")),
    ),
    "documents": (
        lambda running: running.documents.WatchDocuments(
            document_pb.WatchDocumentsRequest(session_id="s")
        ),
        lambda running: running.documents.PutDocument(put("s", "second", "more")),
    ),
    "conversations": (
        lambda running: running.conversations.WatchConversations(
            conversation_pb.WatchConversationsRequest(session_id="s")
        ),
        lambda running: running.conversations.AppendMessages(spoken("s", "again")),
    ),
}


@pytest.mark.parametrize("kind", WATCHES)
async def test_another_server_hears_of_a_change(serve, kind):
    writing, watching = await serve(), await serve()
    await prepare(writing, "s")
    watch, write = WATCHES[kind]
    stream = watch(watching)
    reading = asyncio.create_task(stream.read())
    await stream.initial_metadata()
    await write(writing)
    async with asyncio.timeout(30):
        assert await reading
    stream.cancel()
