"""MergeSessions: a visitor signs in."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import grpc
from google.protobuf.duration_pb2 import Duration

from memoryd.memories.merge import MAX_MERGED
from memoryd.v1 import document_pb2 as dpb
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import session_pb2 as spb

VISITOR, USER = "visitor-1", "user-1"


def store(content: str, session_id: str, **fields: object):
    return pb.StoreMemoryRequest(session_id=session_id, content=content, **fields)


def merge(source: str = VISITOR, target: str = USER, **fields: object):
    return spb.MergeSessionsRequest(source_session_id=source, target_session_id=target, **fields)


async def listed(memory, session_id: str, *, show_deleted: bool = False) -> list[pb.Memory]:
    request = pb.ListMemoriesRequest(
        session_id=session_id, page_size=1000, show_deleted=show_deleted
    )
    return list((await memory.ListMemories(request)).memories)


async def contents(memory, session_id: str) -> list[str]:
    return [m.content for m in await listed(memory, session_id)]


def name(session_id: str) -> spb.GetSessionRequest:
    return spb.GetSessionRequest(session_id=session_id)


def lasting(memory: pb.Memory) -> pb.Memory:
    """Without what a merge changes."""
    kept = pb.Memory()
    kept.CopyFrom(memory)
    for field in ("session_id", "revision", "etag", "effective_importance"):
        kept.ClearField(field)
    return kept


async def test_everything_of_the_source_becomes_the_targets(memory, sessions, clock, running):
    of_visitor = [
        (await memory.StoreMemory(store(f"fact {n}", VISITOR, metadata={"n": n}))).memory
        for n in range(3)
    ]
    await memory.StoreMemory(store("own fact", USER))
    await memory.RetrieveMemories(pb.RetrieveMemoriesRequest(session_id=VISITOR))
    await running.server.flush_accesses()
    before = await listed(memory, VISITOR)
    assert {m.access_count for m in before} == {1}
    clock.move(timedelta(minutes=1))
    answer = await sessions.MergeSessions(merge())
    assert (answer.moved_memories, answer.merged_memories) == (3, 0)
    found = await listed(memory, USER)
    assert [m.content for m in found] == ["own fact", "fact 0", "fact 1", "fact 2"]
    assert [lasting(m) for m in found[1:]] == [lasting(m) for m in before]
    assert [m.memory_id for m in found[1:]] == [m.memory_id for m in of_visitor]
    target = await sessions.GetSession(name(USER))
    assert (target.memory_count, target.revision) == (4, 5)


async def test_the_source_is_as_if_erased(memory, sessions, refused, tables):
    await memory.StoreMemory(store("a fact", VISITOR))
    watch = memory.WatchMemories(pb.WatchMemoriesRequest(session_id=VISITOR))
    await watch.read()
    await sessions.MergeSessions(merge())
    told = await watch.read()
    assert (told.change, told.revision) == (pb.MEMORY_CHANGE_PURGED, 2)
    assert told.memory == pb.Memory(session_id=VISITOR, revision=2)
    assert (await refused(watch.read())).code is grpc.StatusCode.OUT_OF_RANGE
    assert (await refused(sessions.GetSession(name(VISITOR)))).reason == "SESSION_NOT_FOUND"
    assert await contents(memory, VISITOR) == []
    assert set((await tables.naming(VISITOR)).values()) == {0}
    # Made again, it begins beyond what was.
    await memory.StoreMemory(store("another", VISITOR))
    assert (await sessions.GetSession(name(VISITOR))).revision > 1


async def test_memories_that_meet_are_merged_as_a_store_would(memory, sessions):
    held = await memory.StoreMemory(
        store("Likes tea", USER, importance=0.4, metadata={"a": 1, "b": 1}, never_expires=True)
    )
    await memory.StoreMemory(store("likes tea.", VISITOR, importance=0.9, metadata={"b": 2}))
    await memory.StoreMemory(store("likes tea", VISITOR, content_type=pb.CONTENT_TYPE_FACT))
    answer = await sessions.MergeSessions(merge())
    assert (answer.moved_memories, answer.merged_memories) == (1, 1)
    merged, moved = await listed(memory, USER)
    assert (merged.memory_id, merged.content) == (held.memory.memory_id, "Likes tea")
    assert (merged.importance, dict(merged.metadata)) == (0.9, {"a": 1, "b": 2})
    assert not merged.HasField("expire_time")
    assert moved.content_type == pb.CONTENT_TYPE_FACT


async def test_keys_that_meet_take_the_sources_content(memory, sessions):
    for key, content in (("same", "Likes tea"), ("other", "lives in Rome"), ("own", "is tall")):
        await memory.StoreMemory(store(content, USER, key=key, tags=["user"]))
    for key, content in (("same", "likes tea."), ("other", "lives in Oslo"), ("new", "has a dog")):
        await memory.StoreMemory(store(content, VISITOR, key=key, tags=["visitor"]))
    # One without a key meets none that has one.
    await memory.StoreMemory(store("likes tea", VISITOR))
    watch = memory.WatchMemories(pb.WatchMemoriesRequest(session_id=USER, start_revision=3))
    answer = await sessions.MergeSessions(merge())
    assert (answer.moved_memories, answer.merged_memories) == (3, 1)
    found = {m.key: (m.content, [*m.tags]) for m in await listed(memory, USER) if m.key}
    assert found == {
        "same": ("Likes tea", ["user", "visitor"]),
        "other": ("lives in Oslo", ["visitor"]),
        "own": ("is tall", ["user"]),
        "new": ("has a dog", ["visitor"]),
    }
    assert (await sessions.GetSession(name(USER))).memory_count == 5
    changes = [(await watch.read()).change for _ in range(5)]
    watch.cancel()
    created, deleted = pb.MEMORY_CHANGE_CREATED, pb.MEMORY_CHANGE_DELETED
    assert changes == [pb.MEMORY_CHANGE_UPDATED, deleted, created, created, created]
    by_tag = pb.ListMemoriesRequest(session_id=USER, filter={"tags_any": ["visitor"]})
    assert len((await memory.ListMemories(by_tag)).memories) == 3


async def test_documents_move_and_those_of_the_target_stay(memory, sessions, documents, clock):
    def document(session_id: str, key: str, text: str, **fields: object) -> dpb.PutDocumentRequest:
        given = dpb.Document(
            session_id=session_id, namespace=["n"], key=key, text=text, labels={"a": "b"}, **fields
        )
        return dpb.PutDocumentRequest(document=given)

    await memory.StoreMemory(store("a fact", VISITOR))
    brief = {"ttl": Duration(seconds=5)}
    for request in (
        document(USER, "both", "the user's"),
        document(USER, "gone", "expired", **brief),
        document(VISITOR, "both", "the visitor's"),
        document(VISITOR, "expired", "too", **brief),
        document(VISITOR, "gone", "takes its place"),
        document(VISITOR, "lasting", "until later", ttl=Duration(seconds=90)),
    ):
        await documents.PutDocument(request)
    clock.move(timedelta(minutes=1))
    watch = documents.WatchDocuments(dpb.WatchDocumentsRequest(session_id=USER, start_revision=2))
    request_id = str(uuid.uuid4())
    answer = await sessions.MergeSessions(merge(request_id=request_id))
    assert (answer.moved_memories, answer.moved_documents) == (1, 2)
    assert [*answer.conflicts] == [spb.MergeConflict(namespace=["n"], key="both")]
    assert await sessions.MergeSessions(merge(request_id=request_id)) == answer
    listing = dpb.ListDocumentsRequest(session_id=USER)
    found = (await documents.ListDocuments(listing)).documents
    assert [(d.key, d.text) for d in found] == [
        ("both", "the user's"),
        ("gone", "takes its place"),
        ("lasting", "until later"),
    ]
    assert all(d.labels == {"a": "b"} for d in found)
    assert found[2].expire_time.ToSeconds() - found[2].create_time.ToSeconds() == 90
    expired, *moved = [await watch.read() for _ in range(3)]
    watch.cancel()
    assert (expired.change, expired.document.key) == (dpb.DOCUMENT_CHANGE_EXPIRED, "gone")
    assert expired.revision < moved[0].revision
    assert [event.revision for event in moved] == [d.revision for d in found[1:]]
    target = await sessions.GetSession(name(USER))
    assert (target.memory_count, target.document_count) == (1, 3)
    listing.session_id = VISITOR
    assert not (await documents.ListDocuments(listing)).documents


async def test_watchers_of_the_target_see_it(memory, sessions):
    await memory.StoreMemory(store("held", USER))
    await memory.StoreMemory(store("held", VISITOR))
    await memory.StoreMemory(store("moved", VISITOR))
    watch = memory.WatchMemories(pb.WatchMemoriesRequest(session_id=USER, start_revision=1))
    await sessions.MergeSessions(merge())
    seen = [await watch.read() for _ in range(2)]
    watch.cancel()
    assert [(e.change, e.memory.content) for e in seen] == [
        (pb.MEMORY_CHANGE_UPDATED, "held"),
        (pb.MEMORY_CHANGE_CREATED, "moved"),
    ]


async def test_deleted_and_expired_memories_come_along_uncounted(memory, sessions, clock):
    deleted = (await memory.StoreMemory(store("deleted", VISITOR))).memory
    await memory.DeleteMemory(
        pb.DeleteMemoryRequest(session_id=VISITOR, memory_id=deleted.memory_id)
    )
    await memory.StoreMemory(store("expired", VISITOR, ttl=Duration(seconds=5)))
    await memory.StoreMemory(store("live", VISITOR))
    clock.move(timedelta(minutes=1))
    answer = await sessions.MergeSessions(merge())
    assert (answer.moved_memories, answer.merged_memories) == (1, 0)
    assert await contents(memory, USER) == ["live"]
    assert (await sessions.GetSession(name(USER))).memory_count == 1
    restored = await memory.UndeleteMemory(
        pb.UndeleteMemoryRequest(session_id=USER, memory_id=deleted.memory_id)
    )
    assert restored.content == "deleted"


async def test_what_is_set_for_the_target_stays(sessions):
    for session_id, fields in (
        (VISITOR, {"display_name": "Visitor", "memory_limit": 10, "labels": {"from": "web"}}),
        (USER, {"display_name": "Ada", "memories_never_expire": True}),
    ):
        session = spb.Session(session_id=session_id, **fields)
        request = spb.UpdateSessionRequest(session=session, allow_missing=True)
        await sessions.UpdateSession(request)
    ttl = spb.Session(session_id=VISITOR, memory_ttl=Duration(seconds=5))
    await sessions.UpdateSession(spb.UpdateSessionRequest(session=ttl))
    before = await sessions.GetSession(name(USER))
    await sessions.MergeSessions(merge())
    session = await sessions.GetSession(name(USER))
    assert (session.display_name, session.memory_limit) == ("Ada", 10)
    assert dict(session.labels) == {"from": "web"}
    assert session.WhichOneof("memory_expiration") == "memories_never_expire"
    assert session.etag != before.etag


async def test_the_targets_limit_acts_at_its_next_store(memory, sessions):
    session = spb.Session(session_id=USER, memory_limit=10)
    request = spb.UpdateSessionRequest(session=session, allow_missing=True)
    await sessions.UpdateSession(request)
    for n in range(8):
        await memory.StoreMemory(store(f"own {n}", USER))
        await memory.StoreMemory(store(f"other {n}", VISITOR))
    await sessions.MergeSessions(merge())
    assert len(await contents(memory, USER)) == 16
    answer = await memory.StoreMemory(store("last", USER))
    assert len(answer.evicted_memory_ids) == 7
    assert len(await contents(memory, USER)) == 10


async def test_the_target_need_not_exist_and_the_source_must(memory, sessions, refused):
    absent = await refused(sessions.MergeSessions(merge()))
    assert (absent.code, absent.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
    assert absent.resource.resource_name == VISITOR
    assert (await refused(sessions.GetSession(name(USER)))).reason == "SESSION_NOT_FOUND"
    await memory.StoreMemory(store("a fact", VISITOR))
    same = await refused(sessions.MergeSessions(merge(USER, USER)))
    assert set(same.violations) == {"target_session_id"}
    assert (await sessions.MergeSessions(merge())).moved_memories == 1
    assert await contents(memory, USER) == ["a fact"]


async def test_an_empty_source_is_merged_too(sessions):
    session = spb.Session(session_id=VISITOR, display_name="Ada")
    await sessions.UpdateSession(spb.UpdateSessionRequest(session=session, allow_missing=True))
    request = merge(request_id=str(uuid.uuid4()))
    answer = await sessions.MergeSessions(request)
    assert answer == spb.MergeSessionsResponse()
    assert await sessions.MergeSessions(request) == answer
    assert (await sessions.GetSession(name(USER))).display_name == "Ada"


async def test_a_retry_gets_the_first_answer_and_changes_nothing(memory, sessions, refused):
    for content in ("a", "b"):
        await memory.StoreMemory(store(content, VISITOR))
    await memory.StoreMemory(store("b", USER))
    request = merge(request_id=str(uuid.uuid4()))
    first = await sessions.MergeSessions(request)
    assert (first.moved_memories, first.merged_memories) == (1, 1)
    await memory.StoreMemory(store("c", VISITOR))
    assert await sessions.MergeSessions(request) == first
    assert await contents(memory, VISITOR) == ["c"]
    other = merge("visitor-2", request_id=request.request_id)
    reused = await refused(sessions.MergeSessions(other))
    assert reused.reason == "REQUEST_ID_REUSED"
    stored = store("d", USER, request_id=request.request_id)
    assert (await refused(memory.StoreMemory(stored))).reason == "REQUEST_ID_REUSED"


async def test_what_cannot_be_merged_changes_nothing(memory, sessions, refused):
    await memory.StoreMemory(store("moved", VISITOR))
    await memory.StoreMemory(store("held", VISITOR, metadata={"a": "x" * 9_000}))
    await memory.StoreMemory(store("held", USER, metadata={"b": "x" * 9_000}))
    refusal = await refused(sessions.MergeSessions(merge()))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert await contents(memory, VISITOR) == ["moved", "held"]
    assert await contents(memory, USER) == ["held"]


async def test_a_source_that_is_too_large_is_refused(memory, sessions, refused, tables):
    await memory.StoreMemory(store("a fact", VISITOR))
    moment = "created_at, updated_at"
    await tables.execute(
        "INSERT INTO memories (tenant, session_id, id, content, created_at, updated_at,"  # noqa: S608  constants
        " content_hash, semantic_hash, revision, created_revision)"
        f" WITH RECURSIVE n(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n <= {MAX_MERGED})"
        f" SELECT tenant, session_id, 'id-' || n, content, {moment}, 'hash ' || n, semantic_hash,"
        " n, n FROM n, memories WHERE revision = 1"
    )
    refusal = await refused(sessions.MergeSessions(merge()))
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "SESSION_TOO_LARGE",
    )
    assert f"{MAX_MERGED:,}" in refusal.message
    assert await contents(memory, VISITOR)


async def test_merges_that_cross_do_not_deadlock(memory, sessions, serve):
    other = await serve()
    for n in range(4):
        await memory.StoreMemory(store(f"a {n}", "a"))
        await memory.StoreMemory(store(f"b {n}", "b"))

    async def merged(stub, source: str, target: str) -> None:
        call = stub.MergeSessions(merge(source, target), timeout=30)
        assert await call.code() in {grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND}

    crossing = (
        merged(stub, *names)
        for stub in (sessions, other.sessions)
        for names in (("a", "b"), ("b", "a"))
        for _ in range(3)
    )
    await asyncio.gather(*crossing)
    found = [*await contents(memory, "a"), *await contents(memory, "b")]
    assert sorted(found) == sorted(f"{x} {n}" for x in "ab" for n in range(4))


async def test_under_load_on_both_sides_nothing_is_lost(memory, sessions):
    stored: list[str] = []

    async def fill(session_id: str) -> None:
        for n in range(20):
            content = f"{session_id} {n}"
            await memory.StoreMemory(store(content, session_id, never_expires=True))
            stored.append(content)

    async def merge_often() -> None:
        for _ in range(5):
            call = sessions.MergeSessions(merge())
            assert await call.code() in {grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND}

    await asyncio.gather(fill(VISITOR), fill(USER), merge_often())
    found = [*await contents(memory, USER), *await contents(memory, VISITOR)]
    assert sorted(found) == sorted(stored)


async def test_the_tenants_account_is_right_after_a_merge(serve, tables):
    running = await serve(MEMORYD_QUOTA_MEMORIES="100", MEMORYD_QUOTA_SESSIONS="2")
    memory, sessions = running.memory, running.sessions
    for session_id in (USER, VISITOR):
        for content in ("both", f"of {session_id}", "deleted"):
            stored = (await memory.StoreMemory(store(content, session_id))).memory
        request = pb.DeleteMemoryRequest(session_id=session_id, memory_id=stored.memory_id)
        await memory.DeleteMemory(request)
    await sessions.MergeSessions(merge())
    used = "SELECT memories, sessions, bytes FROM tenant_usage"
    octets = "CAST({} AS BLOB)" if tables.is_sqlite else "CAST({} AS TEXT)"
    sizes = [f"octet_length({octets.format(name)})" for name in ("content", "metadata")]
    if tables.is_sqlite:
        sizes = [size.replace("octet_length", "length") for size in sizes]
    truth = (
        f"SELECT count(*), (SELECT count(*) FROM sessions), sum({' + '.join(sizes)})"  # noqa: S608
        " FROM memories WHERE deleted_at IS NULL"
    )
    assert [*map(tuple, await tables.rows(used))] == [*map(tuple, await tables.rows(truth))]
    # Into a session that is new, from the one there is.
    await sessions.MergeSessions(merge(USER, "user-2"))
    assert [*map(tuple, await tables.rows(used))] == [*map(tuple, await tables.rows(truth))]
