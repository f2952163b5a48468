"""WatchDocuments, and what the sweeper does to documents."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.roles import as_superuser
from tests.rpc.test_documents import MIB, batch, delete, get, put, revisions, seconds
from tests.rpc.test_watch import listeners

from memoryd.sessions import feed
from memoryd.v1 import document_pb2 as pb
from memoryd.v1 import memory_pb2

CREATED = pb.DOCUMENT_CHANGE_CREATED
UPDATED = pb.DOCUMENT_CHANGE_UPDATED
DELETED = pb.DOCUMENT_CHANGE_DELETED
EXPIRED = pb.DOCUMENT_CHANGE_EXPIRED
PURGED = pb.DOCUMENT_CHANGE_PURGED


async def events(documents, last, start=0, prefix=(), session_id="s"):
    """The events of a watch up to that of a revision."""
    request = pb.WatchDocumentsRequest(
        session_id=session_id, start_revision=start, namespace_prefix=prefix
    )
    found = []
    watching = documents.WatchDocuments(request)
    async with asyncio.timeout(60):
        async for event in watching:
            found.append(event)
            if event.revision >= last:
                break
    watching.cancel()
    return found


def changes(found):
    return [(one.revision, one.change, one.document.key) for one in found]


async def test_every_change_is_told_once_in_order(documents):
    watching = asyncio.create_task(events(documents, 5))
    made = await documents.PutDocument(put("a", labels={"x": "y"}))
    changed = await documents.PutDocument(put("a", text="2"))
    await documents.BatchWriteDocuments(batch(put("b"), delete("a"), put("a")))
    found = await watching
    told = {one.revision: one for one in found}
    assert sorted(told) == [one.revision for one in found]
    assert told[4].change == DELETED
    assert told[4].document == pb.Document(session_id="s", key="a", revision=4)
    for event in found:
        assert event.document.revision == event.revision
    if made.revision in told:
        assert told[1].document == made
        assert told[1].change == CREATED
    if changed.revision in told:
        assert told[2].document == changed
        assert told[2].change == UPDATED
    assert changes(found)[-3:] == [(3, CREATED, "b"), (4, DELETED, "a"), (5, CREATED, "a")]


SUPERSEDE = (
    """
    INSERT INTO document_history (tenant, session_id, revision, namespace, key, change, recorded_at,
        created_at, updated_at, kind, size, sha256, labels, body)
    SELECT tenant, session_id, revision, namespace, key, change, updated_at,
        created_at, updated_at, kind, size, sha256, labels, body
    FROM documents
    """,
    "UPDATE documents SET revision = 2, change = 'updated'",
    "UPDATE sessions SET revision = 2",
)

WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND wait_event_type = 'Lock' AND query LIKE '%sessions LEFT OUTER JOIN%document_history%'
"""
"""How many read what was superseded."""


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
async def test_what_is_superseded_while_changes_are_read_is_told_once(
    documents, tables, database_url
):
    await documents.PutDocument(put("a"))
    engine = create_async_engine(as_superuser(database_url))
    async with engine.begin() as connection, asyncio.timeout(60):
        await connection.execute(text("LOCK TABLE document_history"))
        watching = asyncio.create_task(events(documents, 3))
        while await tables.rows(WAITING) != [(1,)]:  # noqa: ASYNC110  no event to await
            await asyncio.sleep(0.01)
        for statement in SUPERSEDE:
            await connection.execute(text(statement))
    await engine.dispose()
    await documents.PutDocument(put("a", text="3"))
    assert changes(await watching) == [(1, CREATED, "a"), (2, UPDATED, "a"), (3, UPDATED, "a")]


@pytest.mark.notified
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
async def test_both_kinds_of_changes_through_another_server_are_notified(
    serve, tables, monkeypatch
):
    """Without a poll, so that only notifications bring changes."""
    monkeypatch.setattr(feed, "LISTENING_POLL_SECONDS", 3600.0)
    monkeypatch.setattr(feed, "POLL_SECONDS", 3600.0)
    here, there = await serve(), await serve()
    await listeners(tables, 2)  # one per server
    await there.documents.PutDocument(put("first"))
    of_memories = here.memory.WatchMemories(
        memory_pb2.WatchMemoriesRequest(session_id="s", start_revision=1)
    )
    of_documents = here.documents.WatchDocuments(
        pb.WatchDocumentsRequest(session_id="s", start_revision=1)
    )
    async with asyncio.timeout(60):
        for n in range(2, 8, 2):
            memory_event = asyncio.create_task(of_memories.read())
            document_event = asyncio.create_task(of_documents.read())
            await asyncio.gather(*(w.initial_metadata() for w in (of_memories, of_documents)))
            await there.memory.StoreMemory(
                memory_pb2.StoreMemoryRequest(session_id="s", content=f"fact {n}")
            )
            assert (await memory_event).revision == n
            await there.documents.PutDocument(put("first", text=f"{n}"))
            assert (await document_event).revision == n + 1
    of_memories.cancel()
    of_documents.cancel()


async def test_a_resumed_watch_goes_on_after_its_revision(documents, memory):
    await documents.PutDocument(put("a", text="1"))
    store = memory_pb2.StoreMemoryRequest(session_id="s", content="a fact")
    await memory.StoreMemory(store)
    await documents.PutDocument(put("a", text="2"))
    await documents.PutDocument(put("b"))
    assert changes(await events(documents, 4)) == [
        (1, CREATED, "a"),
        (3, UPDATED, "a"),
        (4, CREATED, "b"),
    ]
    assert changes(await events(documents, 4, start=3)) == [(4, CREATED, "b")]
    request = memory_pb2.WatchMemoriesRequest(session_id="s", start_revision=0)
    watching = memory.WatchMemories(request)
    assert (await watching.read()).revision == 2
    store.content = "another"
    await memory.StoreMemory(store)
    assert (await watching.read()).revision == 5
    watching.cancel()


async def test_a_watch_of_a_prefix_sees_only_that(documents):
    await documents.PutDocument(put("a", ["x"]))
    await documents.PutDocument(put("b", ["y"]))
    await documents.PutDocument(put("c", ["x", "y"]))
    await documents.DeleteDocument(delete("a", ["x"]))
    found = await events(documents, 4, prefix=["x"])
    assert changes(found) == [(3, CREATED, "c"), (4, DELETED, "a")]


async def test_large_and_many_changes_are_caught_up_with(documents):
    for number in range(6):
        await documents.PutDocument(put(f"large{number}", data=b"x" * MIB))
    await documents.BatchWriteDocuments(batch(*(put(f"k{n}") for n in range(200))))
    await documents.BatchWriteDocuments(batch(*(put(f"k{n}", text="2") for n in range(200))))
    found = await events(documents, 406)
    assert [one.revision for one in found] == list(range(1, 407))
    assert len(found[5].document.data) == MIB


@pytest.mark.parametrize("prefix", [(), ("a",)])
async def test_an_erased_session_ends_its_watches(documents, memory, refused, prefix):
    made = await documents.PutDocument(put(namespace=["a", "b"]))
    watching = documents.WatchDocuments(
        pb.WatchDocumentsRequest(session_id="s", namespace_prefix=prefix)
    )
    async with asyncio.timeout(60):
        assert (await watching.read()).document == made
        await memory.EraseSession(memory_pb2.EraseSessionRequest(session_id="s"))
        told = await watching.read()
        assert told == pb.WatchDocumentsResponse(
            change=PURGED, document=pb.Document(session_id="s", revision=2), revision=2
        )
        assert (await refused(watching.read())).code is grpc.StatusCode.OUT_OF_RANGE


async def test_what_is_out_of_range_says_so(documents, memory, refused):
    await documents.PutDocument(put())
    request = pb.WatchDocumentsRequest(session_id="s", start_revision=7)
    assert (await refused(documents.WatchDocuments(request).read())).code is (
        grpc.StatusCode.OUT_OF_RANGE
    )
    await memory.EraseSession(memory_pb2.EraseSessionRequest(session_id="s"))
    again = await documents.PutDocument(put())
    assert again.revision > 1
    request.start_revision = 1
    assert (await refused(documents.WatchDocuments(request).read())).code is (
        grpc.StatusCode.OUT_OF_RANGE
    )


async def test_the_sweeper_removes_and_tells_what_expired(running, documents, clock, tables):
    await documents.PutDocument(put("a", text="canary 1", ttl=seconds(60)))
    await documents.PutDocument(put("a", text="canary 2", ttl=seconds(60)))
    await documents.PutDocument(put("b"))
    clock.move(timedelta(seconds=60))
    swept = await running.server.sweeper.run_once()
    assert swept.expired_documents == 1
    assert changes(await events(documents, 4)) == [(3, CREATED, "b"), (4, EXPIRED, "a")]
    assert "canary" not in await tables.everything()
    assert await documents.GetDocument(get("b"))


async def test_versions_and_deletions_are_kept_for_a_day(
    running, documents, memory, clock, refused
):
    store = memory_pb2.StoreMemoryRequest(session_id="s", content="a fact", never_expires=True)
    await memory.StoreMemory(store)
    await documents.PutDocument(put("a", text="1"))
    await documents.PutDocument(put("a", text="2"))
    await documents.PutDocument(put("b"))
    await documents.DeleteDocument(delete("b"))
    clock.move(timedelta(hours=23))
    await running.server.sweeper.run_once()
    assert len(await revisions(documents, "a")) == 2
    assert changes(await events(documents, 5, start=2)) == [(3, UPDATED, "a"), (5, DELETED, "b")]
    clock.move(timedelta(hours=2))
    await running.server.sweeper.run_once()
    assert [one.revision for one in await revisions(documents, "a")] == [3]
    request = pb.WatchDocumentsRequest(session_id="s", start_revision=2)
    assert (await refused(documents.WatchDocuments(request).read())).code is (
        grpc.StatusCode.OUT_OF_RANGE
    )
    # A watch of memories has missed nothing.
    watching = memory.WatchMemories(
        memory_pb2.WatchMemoriesRequest(session_id="s", start_revision=1)
    )
    store.content = "another"
    await memory.StoreMemory(store)
    assert (await watching.read()).revision == 6
    watching.cancel()


async def test_request_ids_are_forgotten_after_two_days(running, documents, clock):
    request = put(text="1", request_id="0197d3e2-7a44-7e2a-b2f0-3c1d5e6f7a8b")
    first = await documents.PutDocument(request)
    clock.move(timedelta(hours=25))
    await running.server.sweeper.run_once()
    assert await documents.PutDocument(request) == first
    clock.move(timedelta(hours=24))
    await running.server.sweeper.run_once()
    assert (await documents.PutDocument(request)).revision == 2


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
async def test_a_watch_hears_of_another_servers_writes(serve, documents):
    other = await serve()
    await documents.PutDocument(put("a"))
    watching = asyncio.create_task(events(other.documents, 2, start=1))
    await documents.PutDocument(put("b"))
    assert changes(await watching) == [(2, CREATED, "b")]
