"""Earlier versions of what a merge moves."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from tests.storage.test_plans import Statement, catching

from memoryd.memories import merge as merging
from memoryd.v1 import document_pb2 as dpb
from memoryd.v1 import memory_pb2 as pb

from .test_documents import put
from .test_merge import USER, VISITOR, merge, name, store

CREATED, UPDATED, DELETED, RESTORED, EXPIRED = (
    pb.MEMORY_CHANGE_CREATED,
    pb.MEMORY_CHANGE_UPDATED,
    pb.MEMORY_CHANGE_DELETED,
    pb.MEMORY_CHANGE_RESTORED,
    pb.MEMORY_CHANGE_EXPIRED,
)


async def update(memory, session_id: str, memory_id: str, content: str) -> None:
    changed = pb.Memory(session_id=session_id, memory_id=memory_id, content=content)
    await memory.UpdateMemory(
        pb.UpdateMemoryRequest(memory=changed, update_mask=FieldMask(paths=["content"]))
    )


async def stored(memory, session_id: str, *contents: str, **fields: object) -> str:
    """Store a memory, and have it say one thing after the other."""
    answer = await memory.StoreMemory(store(contents[0], session_id, **fields))
    for content in contents[1:]:
        await update(memory, session_id, answer.memory.memory_id, content)
    return answer.memory.memory_id


async def delete(memory, session_id: str, memory_id: str) -> None:
    request = pb.DeleteMemoryRequest(session_id=session_id, memory_id=memory_id)
    await memory.DeleteMemory(request)


async def undelete(memory, session_id: str, memory_id: str) -> None:
    request = pb.UndeleteMemoryRequest(session_id=session_id, memory_id=memory_id)
    await memory.UndeleteMemory(request)


async def versions(memory, session_id: str, memory_id: str, size: int = 0) -> list:
    request = pb.ListMemoryRevisionsRequest(
        session_id=session_id, memory_id=memory_id, page_size=size
    )
    found = []
    while True:
        answer = await memory.ListMemoryRevisions(request)
        found += answer.revisions
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found


def said(found) -> list[tuple[str, int]]:
    return [(one.memory.content, one.change) for one in found]


async def followed(memory, sessions, start: int, session_id: str = USER) -> list:
    """All events of a session after a revision."""
    marker = await memory.StoreMemory(store("the last", session_id))
    request = pb.WatchMemoriesRequest(session_id=session_id, start_revision=start)
    watch, events = memory.WatchMemories(request), []
    while True:
        event = await watch.read()
        if event.memory.memory_id == marker.memory.memory_id:
            watch.cancel()
            last = (await sessions.GetSession(name(session_id))).revision
            assert event.revision == last
            return events
        events.append(event)


async def test_a_moved_memory_has_its_versions(memory, sessions):
    await stored(memory, USER, "own fact", "own fact 2", "own fact 3")
    moved = await stored(memory, VISITOR, "first", "second", "third", tags=["t"])
    before = await versions(memory, VISITOR, moved)
    await sessions.MergeSessions(merge())
    for size in (0, 1, 2):
        found = await versions(memory, USER, moved, size)
        assert said(found) == [("third", UPDATED), ("second", UPDATED), ("first", CREATED)]
        assert [one.revision for one in found] == [6, 5, 4]
        assert [one.memory.revision for one in found] == [6, 5, 4]
        assert [one.record_time for one in found] == [one.record_time for one in before]
        assert {one.memory.session_id for one in found} == {USER}
    assert (await sessions.GetSession(name(USER))).revision == 7
    request = pb.RollbackMemoryRequest(session_id=USER, memory_id=moved, revision=4)
    back = await memory.RollbackMemory(request)
    assert (back.content, [*back.tags], back.revision) == ("first", ["t"], 8)
    assert len(await versions(memory, USER, moved)) == 4


async def test_a_watcher_sees_each_memory_from_its_beginning(memory, sessions):
    await stored(memory, USER, "own", key="k")
    first = await stored(memory, VISITOR, "a")
    second = await stored(memory, VISITOR, "b", "b 2", key="k")
    await update(memory, VISITOR, first, "a 2")
    gone = await stored(memory, VISITOR, "c", "c 2")
    await delete(memory, VISITOR, gone)
    again = await stored(memory, VISITOR, "d")
    await delete(memory, VISITOR, again)
    await undelete(memory, VISITOR, again)
    await stored(memory, VISITOR, "never changed")
    live = memory.WatchMemories(pb.WatchMemoriesRequest(session_id=USER, start_revision=1))
    await sessions.MergeSessions(merge())
    events = await followed(memory, sessions, 1)
    assert [(e.memory.content, e.change) for e in events] == [
        *(("a", CREATED), ("a 2", UPDATED)),
        *(("own", DELETED), ("b", CREATED), ("b 2", UPDATED)),
        *(("c", CREATED), ("c 2", UPDATED), ("c 2", DELETED)),
        *(("d", CREATED), ("d", DELETED), ("d", RESTORED)),
        ("never changed", CREATED),
    ]
    assert [e.revision for e in events] == [*range(2, 14)]
    # The same to one that was there before.
    assert [await live.read() for _ in events] == events
    live.cancel()
    for memory_id in (first, second, again):
        found = await versions(memory, USER, memory_id)
        of_it = [e for e in events if e.memory.memory_id == memory_id]
        assert [(one.revision, one.change) for one in found[::-1]] == [
            (e.revision, e.change) for e in of_it
        ]
    # What is listed stays in the order in which it was stored.
    listed = await memory.ListMemories(pb.ListMemoriesRequest(session_id=USER))
    said_now = [m.content for m in listed.memories]
    assert said_now == ["a 2", "b 2", "d", "never changed", "the last"]


async def test_one_that_merges_into_another_leaves_its_versions_behind(memory, sessions, tables):
    held = await stored(memory, USER, "likes tea", importance=0.2)
    await stored(memory, VISITOR, "likes coffee", "Likes tea", importance=0.9)
    moved = await stored(memory, VISITOR, "is small", "is tall")
    answer = await sessions.MergeSessions(merge())
    assert (answer.moved_memories, answer.merged_memories) == (1, 1)
    found = await versions(memory, USER, held)
    assert said(found) == [("likes tea", UPDATED), ("likes tea", CREATED)]
    assert said(await versions(memory, USER, moved)) == [
        ("is tall", UPDATED),
        ("is small", CREATED),
    ]
    assert "likes coffee" not in await tables.everything()


async def test_versions_follow_a_memory_whose_id_is_taken(memory, sessions, tables):
    for session_id, contents in ((USER, ("own", "own 2")), (VISITOR, ("other", "other 2"))):
        await stored(memory, session_id, *contents)
    taken = "0197d3e2-7a44-7e2a-b2f0-3c1d5e6f7a8b"
    for table in ("memories", "memory_history"):
        await tables.execute(f"UPDATE {table} SET id = '{taken}'")  # noqa: S608  constants
    await sessions.MergeSessions(merge())
    listed = (await memory.ListMemories(pb.ListMemoriesRequest(session_id=USER))).memories
    own, other = listed
    assert own.memory_id == taken != other.memory_id
    assert said(await versions(memory, USER, taken)) == [("own 2", UPDATED), ("own", CREATED)]
    found = await versions(memory, USER, other.memory_id)
    assert said(found) == [("other 2", UPDATED), ("other", CREATED)]


async def test_versions_are_kept_for_as_long_as_without_the_merge(
    running, memory, sessions, refused, clock
):
    moved = await stored(memory, VISITOR, "first", "second", never_expires=True)
    clock.move(timedelta(hours=23))
    await update(memory, VISITOR, moved, "third")
    clock.move(timedelta(hours=2))
    await running.server.sweeper.run_once()
    # The first one that is kept is what the memory begins with in the target.
    await sessions.MergeSessions(merge())
    found = await versions(memory, USER, moved)
    assert said(found) == [("third", UPDATED), ("second", CREATED)]
    clock.move(timedelta(hours=22, minutes=30))
    await running.server.sweeper.run_once()
    assert said(await versions(memory, USER, moved)) == [("third", UPDATED)]
    rollback = pb.RollbackMemoryRequest(
        session_id=USER, memory_id=moved, revision=found[1].revision
    )
    assert (await refused(memory.RollbackMemory(rollback))).code is grpc.StatusCode.OUT_OF_RANGE
    # No purge is among what was dropped.
    events = await followed(memory, sessions, 0)
    assert [(e.memory.content, e.change) for e in events] == [("third", UPDATED)]


async def test_one_that_has_expired_ends_after_its_versions(memory, sessions, clock):
    moved = await stored(memory, VISITOR, "first", "second", ttl=Duration(seconds=5))
    clock.move(timedelta(minutes=1))
    await memory.StoreMemory(store("own", USER))
    await sessions.MergeSessions(merge())
    events = await followed(memory, sessions, 1)
    assert [(e.memory.memory_id, e.change) for e in events] == [
        (moved, CREATED),
        (moved, EXPIRED),
    ]


async def test_a_purge_takes_versions_that_came_with_a_merge(memory, sessions, tables):
    await stored(memory, VISITOR, "a secret", "no secret")
    await sessions.MergeSessions(merge())
    assert "a secret" in await tables.everything()
    await memory.PurgeMemories(pb.PurgeMemoriesRequest(session_id=USER, force=True))
    assert "secret" not in await tables.everything()


async def test_versions_move_on_with_a_second_merge(memory, sessions):
    moved = await stored(memory, VISITOR, "first", "second")
    await sessions.MergeSessions(merge())
    await update(memory, USER, moved, "third")
    await sessions.MergeSessions(merge(USER, "user-2"))
    found = await versions(memory, "user-2", moved)
    assert said(found) == [("third", UPDATED), ("second", UPDATED), ("first", CREATED)]
    assert [one.revision for one in found] == [3, 2, 1]


async def test_a_document_that_had_another_name_is_made_once(sessions, documents):
    for text in ("first", "second"):
        await documents.PutDocument(put("old", session_id=VISITOR, text=text))
    move = {"session_id": VISITOR, "from": {"key": "old"}, "to": {"key": "new"}}
    await documents.MoveDocuments(dpb.MoveDocumentsRequest(**move))
    await sessions.MergeSessions(merge())
    request = dpb.ListDocumentRevisionsRequest(session_id=USER, key="new")
    found = (await documents.ListDocumentRevisions(request)).revisions
    created, updated = dpb.DOCUMENT_CHANGE_CREATED, dpb.DOCUMENT_CHANGE_UPDATED
    assert [(one.document.text, one.change) for one in found] == [
        ("second", updated),
        ("first", created),
    ]


async def test_a_moved_document_has_its_versions(memory, sessions, documents, clock):
    for session_id, key, texts in (
        (USER, "both", ("the user's",)),
        (VISITOR, "both", ("the visitor's", "the visitor's 2")),
        (VISITOR, "b", ("first", "second", "third")),
        (VISITOR, "a", ("only",)),
        (VISITOR, "gone", ("deleted", "deleted 2")),
    ):
        for text in texts:
            await documents.PutDocument(put(key, session_id=session_id, text=text))
    await documents.PutDocument(
        put("late", session_id=VISITOR, text="early", ttl=Duration(seconds=5))
    )
    await documents.PutDocument(
        put("late", session_id=VISITOR, text="late", ttl=Duration(seconds=5))
    )
    request = dpb.DeleteDocumentRequest(session_id=VISITOR, key="gone")
    await documents.DeleteDocument(request)
    moved = await stored(memory, VISITOR, "a fact", "a better fact")
    clock.move(timedelta(seconds=6))
    answer = await sessions.MergeSessions(merge())
    assert (answer.moved_documents, [one.key for one in answer.conflicts]) == (2, ["both"])
    # Those of the memory come first.
    assert [one.revision for one in await versions(memory, USER, moved)] == [3, 2]
    created, updated = dpb.DOCUMENT_CHANGE_CREATED, dpb.DOCUMENT_CHANGE_UPDATED
    expected = [
        *((4, "a", "only", created), (5, "b", "first", created)),
        *((6, "b", "second", updated), (7, "b", "third", updated)),
    ]
    watch = documents.WatchDocuments(dpb.WatchDocumentsRequest(session_id=USER, start_revision=1))
    events = [await watch.read() for _ in expected]
    watch.cancel()
    assert [(e.revision, e.document.key, e.document.text, e.change) for e in events] == expected
    for key, texts in (
        ("a", ["only"]),
        ("b", ["third", "second", "first"]),
        ("both", ["the user's"]),
    ):
        request = dpb.ListDocumentRevisionsRequest(session_id=USER, key=key)
        found = (await documents.ListDocumentRevisions(request)).revisions
        assert [one.document.text for one in found] == texts
        assert {one.document.session_id for one in found} == {USER}
        assert all(one.revision == one.document.revision for one in found)
    assert (await sessions.GetSession(name(USER))).revision == 8
    put_later = await documents.PutDocument(put("b", session_id=USER, text="fourth"))
    assert put_later.revision == 9
    request = dpb.ListDocumentRevisionsRequest(session_id=USER, key="b", page_size=2)
    answer = await documents.ListDocumentRevisions(request)
    assert [one.document.text for one in answer.revisions] == ["fourth", "third"]


@pytest.mark.parametrize("limit", [("MAX_MERGED", 3, 4), ("MAX_MERGED_BYTES", 3_000, 8)])
@pytest.mark.parametrize("kind", ["memories", "documents"])
async def test_versions_count_towards_the_limits(running, refused, monkeypatch, limit, kind):
    name, value, changes = limit
    monkeypatch.setattr(merging, name, value)
    size = 1 if name == "MAX_MERGED" else 400
    memory_id = await stored(running.memory, VISITOR, "0" * size)
    for n in range(1, changes + 1):
        if kind == "memories":
            await update(running.memory, VISITOR, memory_id, f"{n}" * size)
        else:
            request = put("k", session_id=VISITOR, data=bytes([n]) * size)
            await running.documents.PutDocument(request)
    refusal = await refused(running.sessions.MergeSessions(merge()))
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "SESSION_TOO_LARGE",
    )
    monkeypatch.setattr(merging, name, 10 * value)
    assert (await running.sessions.MergeSessions(merge())).moved_memories == 1


@pytest.mark.parametrize("has_versions", [False, True])
async def test_a_source_without_versions_has_them_counted_and_no_more(
    memory, sessions, documents, has_versions
):
    await stored(memory, VISITOR, "a fact", *(["a better fact"] * has_versions))
    for _ in range(1 + has_versions):
        await documents.PutDocument(put("k", session_id=VISITOR))
    sent: list[Statement] = []
    with catching(sent, "MergeSessions"):
        await sessions.MergeSessions(merge())
    # Beside what its erasure deletes, and what others do meanwhile.
    of_versions = [
        one.sql
        for one in sent
        if VISITOR in repr(one.parameters)
        and "FROM memory_history" in one.sql.replace("document_history", "memory_history")
        and not one.sql.startswith("DELETE")
    ]
    # They are counted, and looked for in the copy of the documents. Where there are some, those of
    # memories are read, and those of documents copied.
    assert len(of_versions) == (4 if has_versions else 2)
