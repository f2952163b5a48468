"""MergeSessions takes conversations along, with branches, forks and summaries."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from tests.rpc.test_conversation_branches import delete, fork, pop, rewrite
from tests.rpc.test_conversation_settings import create, listing
from tests.rpc.test_conversation_watch import CREATED, EXPIRED, UPDATED, brief, events
from tests.rpc.test_conversation_windows import summarise
from tests.rpc.test_conversations import NOT_FOUND, append, fill, get, head, ids, said

from memoryd.memories import merge as merging
from memoryd.v1 import memory_pb2, session_pb2


def merge(source="v", target="s", **values):
    return session_pb2.MergeSessionsRequest(
        source_session_id=source, target_session_id=target, **values
    )


async def count(running, session_id):
    named = session_pb2.GetSessionRequest(session_id=session_id)
    return (await running.sessions.GetSession(named)).conversation_count


async def test_conversations_come_along_with_all_branches(running, conversations, refused, rows_of):
    visitor = {"session_id": "v"}
    await fill(conversations, "1", "2", "3", **visitor)
    await conversations.RewriteMessages(rewrite("1", said("x", "2b"), **visitor))
    await conversations.ForkConversation(fork("1", **visitor))
    await fill(conversations, "own", conversation_id="f", **visitor)
    before = await conversations.SetSummary(summarise("so far", "1", **visitor))
    await fill(conversations, "a", "b", conversation_id="there")
    answer = await running.sessions.MergeSessions(merge())
    assert (answer.moved_conversations, list(answer.conflicts)) == (2, [])
    assert await count(running, "s") == 3
    after = await head(conversations)
    assert after.revision > before.revision
    for message in (before, after):
        for field in ("session_id", "revision", "etag"):
            message.ClearField(field)
    assert after == before
    assert await ids(conversations) == ["1", "2b"]
    assert await ids(conversations, branch_head="3") == ["1", "2", "3"]
    assert await ids(conversations, conversation_id="f") == ["1", "own"]
    assert await ids(conversations, conversation_id="there") == ["a", "b"]
    assert (await refused(conversations.GetConversation(get(**visitor)))).code is NOT_FOUND
    # All of it goes on as before.
    await fill(conversations, "4")
    await fill(conversations, "more", conversation_id="f")
    await fill(conversations, "c", conversation_id="there")
    assert await ids(conversations) == ["1", "2b", "4"]
    assert await ids(conversations, conversation_id="f") == ["1", "own", "more"]
    assert await rows_of("messages") == 10
    await conversations.DeleteConversation(delete())
    assert await ids(conversations, conversation_id="f") == ["1", "own", "more"]
    assert await rows_of("messages") == 6
    stored = memory_pb2.StoreMemoryRequest(session_id="s", content="likes tea")
    last = (await running.memory.StoreMemory(stored)).memory.revision
    assert last > after.revision


async def test_those_whose_ids_meet_get_another(running, conversations):
    await fill(conversations, "here")
    await fill(conversations, "x", conversation_id="c.merged-1")
    await fill(conversations, "there", session_id="v")
    await conversations.ForkConversation(fork(session_id="v"))
    request = merge(request_id=str(uuid.uuid4()))
    answer = await running.sessions.MergeSessions(request)
    assert [one.conversation_id for one in answer.conflicts] == ["c"]
    assert answer.moved_conversations == 2
    assert await running.sessions.MergeSessions(request) == answer
    assert await ids(conversations) == ["here"]
    assert await ids(conversations, conversation_id="c.merged-2") == ["there"]
    found = await head(conversations, conversation_id="f")
    assert found.forked_from.conversation_id == "c.merged-2"
    assert sorted(await listing(conversations)) == ["c", "c.merged-1", "c.merged-2", "f"]


@pytest.mark.parametrize("owner", ["s", "v"])
async def test_what_has_expired_makes_room(running, conversations, clock, rows_of, owner):
    await conversations.CreateConversation(create(session_id=owner, ttl=Duration(seconds=60)))
    await fill(conversations, "old", session_id=owner)
    clock.move(timedelta(seconds=60))
    await fill(conversations, "new", session_id="v" if owner == "s" else "s")
    await running.memory.StoreMemory(memory_pb2.StoreMemoryRequest(session_id="v", content="x"))
    answer = await running.sessions.MergeSessions(merge())
    assert not answer.conflicts
    assert await ids(conversations) == ["new"]
    assert await count(running, "s") == 1
    assert await rows_of("messages") == 1


async def test_watchers_of_the_target_see_each_conversation_made_once(conversations, sessions):
    before = await fill(conversations, "there", conversation_id="there")
    for message_id in ("1", "2", "3"):
        await fill(conversations, message_id, session_id="v")
    await sessions.MergeSessions(merge())
    found = await events(conversations, 3, start=before.revision)
    assert [brief(event) for event in found] == [
        (CREATED, "c", ["1"]),
        (UPDATED, "c", ["2"]),
        (UPDATED, "c", ["3"]),
    ]


async def test_watchers_of_the_target_hear_of_what_has_expired_there(
    conversations, sessions, clock
):
    made = await conversations.CreateConversation(create(ttl=Duration(seconds=60)))
    await fill(conversations, "there", session_id="v", conversation_id="other")
    clock.move(timedelta(seconds=60))
    await sessions.MergeSessions(merge())
    expired, moved = await events(conversations, 2, start=made.revision)
    assert brief(expired) == (EXPIRED, "c", [])
    assert brief(moved) == (CREATED, "other", ["there"])


async def test_a_merge_is_an_update_wherever_conversations_are_listed(
    running, conversations, clock
):
    await fill(conversations, "1", session_id="v", conversation_id="moved")
    clock.move(timedelta(seconds=60))
    await fill(conversations, "1", conversation_id="there")
    clock.move(timedelta(seconds=60))
    await running.sessions.MergeSessions(merge())
    for scope in ({"session_id": "s"}, {"session_id_prefix": ""}):
        assert await listing(conversations, **scope) == ["moved", "there"]
    moved, there = [await head(conversations, conversation_id=i) for i in ("moved", "there")]
    assert moved.update_time.ToSeconds() == there.update_time.ToSeconds() + 60


async def test_a_merge_moves_no_more_than_it_may(running, conversations, refused, monkeypatch):
    monkeypatch.setattr(merging, "MAX_MERGED", 3)
    await fill(conversations, "1", "2", "3", "4", session_id="v")
    found = await refused(running.sessions.MergeSessions(merge()))
    assert found.reason == "SESSION_TOO_LARGE"
    await conversations.PopMessages(pop(session_id="v"))
    await running.sessions.MergeSessions(merge())
    assert await ids(conversations) == ["1", "2", "3"]


async def test_a_retry_of_before_the_merge_is_no_retry_in_the_target(running, conversations):
    request = append(said("a", "1"), session_id="v", request_id=str(uuid.uuid4()))
    await conversations.AppendMessages(request)
    await running.sessions.MergeSessions(merge())
    again = await conversations.AppendMessages(request)
    assert again.conversation.message_count == 1
    assert await ids(conversations) == await ids(conversations, session_id="v") == ["1"]
