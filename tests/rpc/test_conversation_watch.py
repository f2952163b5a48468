"""WatchConversations: one event a call, resumable, each message once."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.rpc.test_conversation_branches import delete, fork, pop, rewrite, set_head
from tests.rpc.test_conversation_settings import create, update
from tests.rpc.test_conversation_windows import summarise
from tests.rpc.test_conversations import append, fill, said

from memoryd.v1 import conversation_pb2 as pb
from memoryd.v1 import memory_pb2

CREATED, UPDATED = pb.CONVERSATION_CHANGE_CREATED, pb.CONVERSATION_CHANGE_UPDATED
DELETED, EXPIRED = pb.CONVERSATION_CHANGE_DELETED, pb.CONVERSATION_CHANGE_EXPIRED
PURGED = pb.CONVERSATION_CHANGE_PURGED


def watch(conversations, start=0, **values):
    request = pb.WatchConversationsRequest(**{"session_id": "s", "start_revision": start, **values})
    return conversations.WatchConversations(request)


async def events(conversations, count, start=0, **values):
    call = watch(conversations, start, **values)
    async with asyncio.timeout(20):
        found = [await call.read() for _ in range(count)]
    call.cancel()
    return found


def brief(event):
    ids = [message.message_id for message in event.messages]
    return event.change, event.conversation.conversation_id, ids


async def test_every_call_is_an_event(conversations):
    call = watch(conversations)
    await call.initial_metadata()
    answers = [(await fill(conversations, "1", "2")).revision]
    answers.append((await fill(conversations, "3")).revision)
    rewritten = await conversations.RewriteMessages(rewrite("1", said("x", "2b")))
    answers.append(rewritten.conversation.revision)
    answers.append((await conversations.SetHead(set_head("3"))).revision)
    answers.append((await conversations.SetSummary(summarise("so far", "1"))).revision)
    await conversations.PopMessages(pop())
    answers.append((await conversations.ForkConversation(fork())).revision)
    answers.append((await conversations.UpdateConversation(update(display_name="x"))).revision)
    await conversations.DeleteConversation(delete(conversation_id="f"))
    found = []
    async with asyncio.timeout(20):
        while not found or found[-1].change != DELETED:
            found.append(await call.read())
    call.cancel()
    revisions = [event.revision for event in found]
    assert revisions == sorted(set(revisions))
    assert found[-1].conversation.revision == found[-1].revision
    assert brief(found[-1]) == (DELETED, "f", [])
    seen = [message.message_id for event in found for message in event.messages]
    assert set(seen) >= {"1", "2", "2b"}
    assert len(seen) == len(set(seen))


async def test_the_first_event_of_a_conversation_says_that_it_was_made(conversations):
    await conversations.CreateConversation(create())
    first = (await fill(conversations, "1")).revision
    await fill(conversations, "2")
    last = await conversations.UpdateConversation(update(display_name="x"))
    found = await events(conversations, 3)
    assert [brief(event) for event in found] == [
        (CREATED, "c", ["1"]),
        (UPDATED, "c", ["2"]),
        (UPDATED, "c", []),
    ]
    resumed = await events(conversations, 2, start=first)
    assert [brief(event) for event in resumed] == [(UPDATED, "c", ["2"]), (UPDATED, "c", [])]
    assert resumed[-1].revision == last.revision


async def test_catching_up_gives_every_message_once(conversations):
    first = await fill(conversations, "1", "2")
    await fill(conversations, "3")
    await conversations.PopMessages(pop())
    await fill(conversations, "4")
    await fill(conversations, "a", conversation_id="other")
    await conversations.ForkConversation(fork("1"))
    await fill(conversations, "own", conversation_id="f")
    await fill(conversations, "x", conversation_id="gone")
    await conversations.DeleteConversation(delete(conversation_id="gone"))
    found = await events(conversations, 5)
    assert [brief(event) for event in found] == [
        (CREATED, "c", ["1", "2"]),
        (UPDATED, "c", ["4"]),
        (CREATED, "other", ["a"]),
        (CREATED, "f", ["own"]),
        (DELETED, "gone", []),
    ]
    later = await events(conversations, 4, start=first.revision)
    assert later == found[1:]
    assert [brief(one) for one in await events(conversations, 1, conversation_id="other")] == [
        brief(found[2])
    ]
    # What a fork keeps of a source that is gone is still there.
    await conversations.DeleteConversation(delete())
    found = await events(conversations, 5)
    assert [brief(event) for event in found] == [
        (CREATED, "f", ["1"]),
        (CREATED, "other", ["a"]),
        (UPDATED, "f", ["own"]),
        (DELETED, "gone", []),
        (DELETED, "c", []),
    ]


async def test_many_changes_come_in_several_reads(conversations):
    for n in range(130):
        await fill(conversations, f"{n}", conversation_id=f"c{n % 60}")
    found = await events(conversations, 130)
    assert [m.message_id for event in found for m in event.messages] == [str(n) for n in range(130)]
    await conversations.AppendMessages(
        append(*(said("x", f"m{n}") for n in range(1_000)), conversation_id="long")
    )
    await fill(conversations, "last", conversation_id="long")
    many, last = await events(conversations, 2, start=found[-1].revision)
    assert [m.message_id for m in many.messages] == [f"m{n}" for n in range(1_000)]
    assert [m.message_id for m in last.messages] == ["last"]


async def test_what_expires_is_told_and_kept_for_a_day(running, conversations, clock, refused):
    await conversations.CreateConversation(create(ttl=Duration(seconds=60)))
    first = await fill(conversations, "1")
    clock.move(timedelta(seconds=60))
    await running.server.sweeper.run_once()
    (event,) = await events(conversations, 1, start=first.revision)
    assert brief(event) == (EXPIRED, "c", [])
    clock.move(timedelta(hours=25))
    await running.server.sweeper.run_once()
    found = await refused(watch(conversations, first.revision).read())
    assert found.code is grpc.StatusCode.OUT_OF_RANGE
    await fill(conversations, "2")
    assert [brief(one) for one in await events(conversations, 1)] == [(CREATED, "c", ["2"])]


@pytest.mark.parametrize("conversation_id", ["", "c", "none"])
async def test_an_erased_session_ends_its_watches(running, conversations, refused, conversation_id):
    last = await fill(conversations, "1")
    await fill(conversations, "1", conversation_id="none")
    call = watch(conversations, last.revision - 1, conversation_id=conversation_id)
    async with asyncio.timeout(20):
        await call.read()
        await running.memory.EraseSession(memory_pb2.EraseSessionRequest(session_id="s"))
        told = [await call.read()]
        while told[-1].change != PURGED:
            told.append(await call.read())
        found = await refused(call.read())
    assert (told[-1].conversation.session_id, told[-1].revision) == ("s", last.revision + 2)
    assert brief(told[-1]) == (PURGED, "", [])
    assert found.code is grpc.StatusCode.OUT_OF_RANGE
