"""What is set for conversations: names, labels, state, expiry; and their lists."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tests.rpc.test_conversation_branches import delete, fork
from tests.rpc.test_conversations import (
    ABORTED,
    EXISTS,
    INVALID,
    NAME,
    NOT_FOUND,
    append,
    fill,
    get,
    head,
    ids,
    said,
)

from memoryd.v1 import conversation_pb2 as pb
from memoryd.v1 import memory_pb2, session_pb2


def create(**values):
    return pb.CreateConversationRequest(conversation=pb.Conversation(**{**NAME, **values}))


def update(*paths, **values):
    conversation = pb.Conversation(**{**NAME, **values})
    return pb.UpdateConversationRequest(conversation=conversation, update_mask={"paths": paths})


def at(moment):
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


async def listing(conversations, **values):
    """The ids of a list, page by page."""
    found, token = [], ""
    scope = {} if {"session_id", "session_id_prefix"} & values.keys() else {"session_id": "s"}
    while True:
        request = pb.ListConversationsRequest(**scope, **values, page_token=token)
        answer = await conversations.ListConversations(request)
        found += [one.conversation_id for one in answer.conversations]
        token = answer.next_page_token
        if not token:
            return found


async def test_a_conversation_is_made_with_what_is_set_for_it(conversations, refused):
    made = await conversations.CreateConversation(
        create(display_name="A täglicher talk", labels={"a": "b"}, state={"n": 1})
    )
    assert (made.display_name, dict(made.labels)) == ("A täglicher talk", {"a": "b"})
    assert (made.message_count, made.head_message_id, made.never_expires) == (0, "", True)
    assert await head(conversations) == made
    assert (await refused(conversations.CreateConversation(create()))).code is EXISTS
    given = await conversations.CreateConversation(create(conversation_id=""))
    assert len(given.conversation_id) == 36
    assert (await fill(conversations, "1")).display_name == made.display_name


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"labels": {"A": "b"}}, "conversation.labels"),
        ({"display_name": "x" * 256}, "conversation.display_name"),
        ({"display_name": "a\0"}, "conversation.display_name"),
        ({"state": {"x": "y" * 17_000}}, "conversation.state"),
        ({"ttl": Duration()}, "conversation.ttl"),
        ({"ttl": Duration(seconds=2**62)}, "conversation.ttl"),
        ({"expire_time": Timestamp(seconds=1)}, "conversation.expire_time"),
        ({"expire_time": Timestamp(seconds=2**62)}, "conversation.expire_time"),
        ({"conversation_id": "../x"}, "conversation.conversation_id"),
        ({"session_id": ""}, "conversation.session_id"),
    ],
)
async def test_what_is_wrong_with_a_conversation_is_named(conversations, refused, values, field):
    found = await refused(conversations.CreateConversation(create(**values)))
    assert (found.code, [*found.violations]) == (INVALID, [field])
    found = await refused(conversations.UpdateConversation(update("*", **values)))
    assert found.code is INVALID
    assert field in found.violations


async def test_an_update_changes_what_the_mask_names(conversations, refused):
    made = await conversations.CreateConversation(create(display_name="x", labels={"a": "b"}))
    changed = await conversations.UpdateConversation(
        update("labels", "state", display_name="ignored", state={"n": 1})
    )
    assert (changed.display_name, dict(changed.labels)) == ("x", {})
    assert dict(changed.state) == {"n": 1}
    assert changed.etag != made.etag
    assert await head(conversations) == changed
    populated = await conversations.UpdateConversation(update(display_name="y"))
    assert (populated.display_name, populated.state) == ("y", changed.state)
    stale = update("labels", etag=made.etag)
    assert (await refused(conversations.UpdateConversation(stale))).code is ABORTED
    absent = update("labels", conversation_id="none")
    assert (await refused(conversations.UpdateConversation(absent))).code is NOT_FOUND
    unknown = update("nothing")
    assert (await refused(conversations.UpdateConversation(unknown))).code is INVALID
    same = await conversations.UpdateConversation(update("summary"))
    assert same == populated


async def test_a_ttl_slides_with_appends_alone(running, conversations, refused, clock):
    made = await conversations.CreateConversation(create(ttl=Duration(seconds=60)))
    assert made.expire_time == at(clock.now + timedelta(seconds=60))
    clock.move(timedelta(seconds=50))
    after = await fill(conversations, "1")
    assert after.expire_time == at(clock.now + timedelta(seconds=60))
    clock.move(timedelta(seconds=50))
    await conversations.ListMessages(pb.ListMessagesRequest(**NAME))
    skipped = await fill(conversations, "1")
    assert skipped == after
    clock.move(timedelta(seconds=10))
    assert (await refused(conversations.GetConversation(get()))).code is NOT_FOUND
    assert await listing(conversations) == []
    named = session_pb2.GetSessionRequest(session_id="s")
    assert (await running.sessions.GetSession(named)).conversation_count == 0
    for call in (
        conversations.ListMessages(pb.ListMessagesRequest(**NAME)),
        conversations.PopMessages(pb.PopMessagesRequest(**NAME)),
        conversations.UpdateConversation(update("labels")),
        conversations.DeleteConversation(delete()),
    ):
        assert (await refused(call)).code is NOT_FOUND
    again = await fill(conversations, "2")
    assert (again.message_count, again.never_expires) == (1, True)
    assert again.revision > after.revision


async def test_what_has_expired_is_swept(running, conversations, clock, rows_of):
    await conversations.CreateConversation(create(expire_time=at(clock.now + timedelta(hours=1))))
    await fill(conversations, "1", "2")
    await conversations.ForkConversation(fork("1"))
    clock.move(timedelta(hours=1))
    assert await rows_of("messages") == 2
    swept = await running.server.sweeper.run_once()
    assert swept.expired_conversations == 1
    assert (await rows_of("conversations"), await rows_of("messages")) == (1, 1)
    assert await ids(conversations, conversation_id="f") == ["1"]
    named = session_pb2.GetSessionRequest(session_id="s")
    assert (await running.sessions.GetSession(named)).conversation_count == 1


async def test_answers_for_retries_are_dropped_after_two_days(
    running, conversations, clock, rows_of
):
    await conversations.AppendMessages(append(said(), request_id=str(uuid.uuid4())))
    clock.move(timedelta(hours=47))
    await running.server.sweeper.run_once()
    assert await rows_of("conversation_requests") == 1
    clock.move(timedelta(hours=2))
    await running.server.sweeper.run_once()
    assert await rows_of("conversation_requests") == 0


async def test_an_expiration_is_changed(conversations, clock):
    await conversations.CreateConversation(create(ttl=Duration(seconds=60)))
    fixed = at(clock.now + timedelta(hours=1))
    changed = await conversations.UpdateConversation(update("expire_time", expire_time=fixed))
    assert (changed.expire_time, changed.WhichOneof("expiration")) == (fixed, None)
    clock.move(timedelta(minutes=30))
    assert (await fill(conversations, "1")).expire_time == fixed
    never = await conversations.UpdateConversation(update(never_expires=True))
    assert not never.HasField("expire_time")
    sliding = await conversations.UpdateConversation(update(ttl=Duration(seconds=5)))
    assert sliding.expire_time == at(clock.now + timedelta(seconds=5))
    cleared = await conversations.UpdateConversation(update("ttl"))
    assert cleared.never_expires


@pytest.mark.parametrize("field", ["ttl", "expire_time", "never_expires"])
async def test_clearing_an_expiration_leaves_another(conversations, clock, field):
    later = at(clock.now + timedelta(hours=1))
    kinds = {"ttl": Duration(seconds=60), "expire_time": later, "never_expires": True}
    for kind, value in kinds.items():
        await conversations.CreateConversation(create(conversation_id=kind, **{kind: value}))
        before = await head(conversations, conversation_id=kind)
        cleared = await conversations.UpdateConversation(update(field, conversation_id=kind))
        if kind == field:
            assert cleared.never_expires
            assert not cleared.HasField("expire_time")
        else:
            assert cleared == before


async def test_lists_have_the_last_updated_first(conversations, clock):
    for n in range(5):
        labels = {"kind": "odd" if n % 2 else "even"}
        await conversations.CreateConversation(create(conversation_id=f"c{n}", labels=labels))
        clock.move(timedelta(seconds=1))
    await fill(conversations, "1", conversation_id="c1")
    clock.move(timedelta(seconds=1))
    await fill(conversations, "1", conversation_id="x", session_id="t")
    expected = ["c1", "c4", "c3", "c2", "c0"]
    assert await listing(conversations) == expected
    assert await listing(conversations, page_size=2) == expected
    assert await listing(conversations, labels={"kind": "odd"}) == ["c1", "c3"]
    assert await listing(conversations, labels={"kind": "odd"}, page_size=1) == ["c1", "c3"]
    assert await listing(conversations, session_id_prefix="") == ["x", *expected]
    assert await listing(conversations, session_id_prefix="", page_size=2) == ["x", *expected]
    assert await listing(conversations, session_id_prefix="s") == expected
    assert await listing(conversations, session_id_prefix="none") == []


async def test_lists_of_large_states_come_in_pages(conversations):
    state = {"x": [0.5] * 4_000}
    for n in range(100):
        await conversations.AppendMessages(append(conversation_id=f"c{n}", state_patch=state))
    request = pb.ListConversationsRequest(session_id="s", page_size=1000)
    first = await conversations.ListConversations(request)
    assert first.next_page_token
    assert len(await listing(conversations, page_size=1000)) == 100


async def test_revisions_and_erasure_are_those_of_the_session(running, conversations, refused):
    first = await fill(conversations, "1")
    stored = await running.memory.StoreMemory(
        memory_pb2.StoreMemoryRequest(session_id="s", content="likes tea")
    )
    second = await fill(conversations, "2")
    assert first.revision < stored.memory.revision < second.revision
    receipt = await running.memory.EraseSession(memory_pb2.EraseSessionRequest(session_id="s"))
    assert receipt.erased_rows["messages"] == 2
    assert receipt.erased_rows["conversations"] == 1
    assert (await refused(conversations.GetConversation(get()))).code is NOT_FOUND
    again = await conversations.AppendMessages(append(said("new", "1")))
    assert again.conversation.revision > second.revision
    assert again.conversation.message_count == 1
