"""Branches of conversations: pops, rewrites, heads, forks, and what deletions leave."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest
from sqlalchemy import make_url
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


def pop(count=0, **values):
    return pb.PopMessagesRequest(count=count, **{**NAME, **values})


def rewrite(after, *messages, **values):
    return pb.RewriteMessagesRequest(
        after_message_id=after, messages=messages, **{**NAME, **values}
    )


def fork(at="", new="f", **values):
    return pb.ForkConversationRequest(
        at_message_id=at, new_conversation_id=new, **{**NAME, **values}
    )


def set_head(message_id, **values):
    return pb.SetHeadRequest(message_id=message_id, **{**NAME, **values})


def delete(**values):
    return pb.DeleteConversationRequest(**{**NAME, **values})


async def test_pops_take_the_newest_and_answer_the_oldest_first(conversations):
    before = await fill(conversations, "1", "2", "3", "4")
    assert [m.message_id for m in (await conversations.PopMessages(pop())).messages] == ["4"]
    assert [m.message_id for m in (await conversations.PopMessages(pop(2))).messages] == ["2", "3"]
    after = await head(conversations)
    assert (after.head_message_id, after.message_count, after.token_count) == ("1", 1, 1)
    assert after.etag != before.etag
    # Gone for good: the ids are free.
    await fill(conversations, "4", "2")
    assert await ids(conversations) == ["1", "4", "2"]
    assert len((await conversations.PopMessages(pop(10))).messages) == 3
    empty = await head(conversations)
    assert (empty.head_message_id, list(empty.branch_heads), empty.message_count) == ("", [], 0)
    assert not (await conversations.PopMessages(pop())).messages
    assert await head(conversations) == empty
    await fill(conversations, "5")
    assert await ids(conversations) == ["5"]


async def test_each_message_is_popped_by_one(conversations):
    await fill(conversations, *map(str, range(60)))
    answers = await asyncio.gather(*(conversations.PopMessages(pop(2)) for _ in range(30)))
    popped = [m.message_id for answer in answers for m in answer.messages]
    assert sorted(popped, key=int) == [str(n) for n in range(60)]


async def test_a_retried_pop_gets_the_same(conversations, refused):
    await fill(conversations, "1", "2", "3")
    request = pop(2, request_id=str(uuid.uuid4()))
    first = await conversations.PopMessages(request)
    assert await conversations.PopMessages(request) == first
    assert await ids(conversations) == ["1"]
    request.count = 1
    assert (await refused(conversations.PopMessages(request))).code is INVALID
    # Requests of different methods are different, also where they look the same.
    alike = str(uuid.uuid4())
    await conversations.PopMessages(pop(request_id=alike))
    found = await refused(conversations.RewriteMessages(rewrite("", request_id=alike)))
    assert found.reason == "REQUEST_ID_REUSED"
    await fill(conversations, "1")
    assert (await refused(conversations.PopMessages(pop(expected_etag="r1")))).code is ABORTED
    absent = pop(conversation_id="other")
    assert (await refused(conversations.PopMessages(absent))).code is NOT_FOUND


async def test_a_rewrite_keeps_what_stood_there_as_a_branch(conversations, refused):
    await fill(conversations, "1", "2", "3")
    answer = await conversations.RewriteMessages(rewrite("1", said("x", "2b"), said("y", "3b")))
    made = answer.conversation
    assert answer.messages[0].parent_message_id == "1"
    assert (made.head_message_id, made.message_count) == ("3b", 3)
    assert list(made.branch_heads) == ["3b", "3"]
    assert await ids(conversations) == ["1", "2b", "3b"]
    assert await ids(conversations, branch_head="3") == ["1", "2", "3"]
    # An id off the head's branch is taken.
    assert (await refused(conversations.AppendMessages(append(said("2", "2"))))).code is EXISTS
    unknown = conversations.RewriteMessages(rewrite("nothing", said()))
    assert (await refused(unknown)).code is NOT_FOUND
    first = await conversations.RewriteMessages(rewrite("", said("z", "0")))
    assert first.messages[0].parent_message_id == ""
    assert await ids(conversations) == ["0"]
    assert list(first.conversation.branch_heads) == ["0", "3", "3b"]


async def test_the_head_goes_back_and_to_other_branches(conversations, refused):
    await fill(conversations, "1", "2", "3")
    back = await conversations.SetHead(set_head("1"))
    assert (back.head_message_id, back.message_count) == ("1", 1)
    assert list(back.branch_heads) == ["3"]
    assert await ids(conversations) == ["1"]
    await fill(conversations, "2b")
    assert await ids(conversations) == ["1", "2b"]
    there = await conversations.SetHead(set_head("3"))
    assert list(there.branch_heads) == ["3", "2b"]
    await fill(conversations, "4")
    assert await ids(conversations) == ["1", "2", "3", "4"]
    assert list((await head(conversations)).branch_heads) == ["4", "2b"]
    same = await conversations.SetHead(set_head("4"))
    assert same == await head(conversations)
    assert (await refused(conversations.SetHead(set_head("nothing")))).code is NOT_FOUND
    stale = set_head("1", expected_etag=back.etag)
    assert (await refused(conversations.SetHead(stale))).code is ABORTED


async def test_a_pop_leaves_what_another_branch_has(conversations):
    await fill(conversations, "1", "2", "3")
    await conversations.RewriteMessages(rewrite("2", said("x", "3b")))
    popped = (await conversations.PopMessages(pop(2))).messages
    assert [m.message_id for m in popped] == ["2", "3b"]
    assert await ids(conversations) == ["1"]
    assert await ids(conversations, branch_head="3") == ["1", "2", "3"]
    now = await head(conversations)
    assert list(now.branch_heads) == ["3"]
    await fill(conversations, "3b")
    assert await ids(conversations) == ["1", "3b"]


async def test_a_fork_shares_what_came_before(conversations, refused):
    source = await conversations.AppendMessages(
        append(said("1", "1"), said("2", "2"), said("3", "3"), state_patch={"a": 1})
    )
    made = await conversations.ForkConversation(fork("2"))
    assert (made.forked_from.conversation_id, made.forked_from.message_id) == ("c", "2")
    assert (made.head_message_id, made.message_count, made.token_count) == ("2", 2, 2)
    assert made.state == source.conversation.state
    assert await head(conversations) == source.conversation
    # Each goes on by itself, with the same ids if need be.
    await fill(conversations, "3", "4", conversation_id="f")
    await fill(conversations, "4")
    assert await ids(conversations, conversation_id="f") == ["1", "2", "3", "4"]
    assert await ids(conversations) == ["1", "2", "3", "4"]
    here = await conversations.ListMessages(pb.ListMessagesRequest(**NAME))
    there = pb.ListMessagesRequest(session_id="s", conversation_id="f")
    found = await conversations.ListMessages(there)
    assert here.messages[:2] == found.messages[:2]
    assert here.messages[2] != found.messages[2]
    assert (await refused(conversations.ForkConversation(fork()))).code is EXISTS
    assert (await refused(conversations.ForkConversation(fork("x", "g")))).code is NOT_FOUND
    absent = fork(new="g", conversation_id="none")
    assert (await refused(conversations.ForkConversation(absent))).code is NOT_FOUND
    given = await conversations.ForkConversation(fork(new=""))
    assert uuid.UUID(given.conversation_id).version == 7
    assert given.head_message_id == "4"


async def test_deleting_the_source_keeps_what_a_fork_needs(conversations, refused, rows_of):
    await fill(conversations, "1", "2", "3", "4")
    await conversations.ForkConversation(fork("2"))
    await conversations.DeleteConversation(delete())
    assert (await refused(conversations.GetConversation(get()))).code is NOT_FOUND
    assert await ids(conversations, conversation_id="f") == ["1", "2"]
    assert await rows_of("messages") == 2
    await fill(conversations, "1", "5")  # another conversation by the same name
    await fill(conversations, "6", conversation_id="f")
    assert await ids(conversations) == ["1", "5"]
    assert await ids(conversations, conversation_id="f") == ["1", "2", "6"]
    await conversations.DeleteConversation(delete(conversation_id="f"))
    assert await rows_of("messages") == 2
    await conversations.DeleteConversation(delete())
    for table in ("messages", "conversations", "conversation_branches"):
        assert await rows_of(table) == 0


async def test_a_pop_leaves_what_a_fork_needs(conversations, rows_of):
    await fill(conversations, "1", "2", "3", "4")
    await conversations.ForkConversation(fork("3"))
    await conversations.PopMessages(pop(3))
    assert await rows_of("messages") == 3
    await fill(conversations, "2")
    assert await ids(conversations) == ["1", "2"]
    assert await ids(conversations, conversation_id="f") == ["1", "2", "3"]
    await conversations.DeleteConversation(delete(conversation_id="f"))
    assert await rows_of("messages") == 2
    assert await ids(conversations) == ["1", "2"]


async def test_deleting_is_for_good(conversations, refused):
    made = await fill(conversations, "1", request_id=str(uuid.uuid4()))
    stale = delete(etag="r0")
    assert (await refused(conversations.DeleteConversation(stale))).code is ABORTED
    await conversations.DeleteConversation(delete(etag=made.etag))
    assert (await refused(conversations.DeleteConversation(delete()))).code is NOT_FOUND
    await conversations.DeleteConversation(delete(allow_missing=True))
    again = await fill(conversations, "1")
    assert again.create_time.ToDatetime() >= made.create_time.ToDatetime()
    assert again.message_count == 1


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
async def test_nothing_of_a_deleted_conversation_stays_in_the_files(conversations, database_url):
    canary = "a canary that nobody said before"
    await conversations.AppendMessages(append(said(canary), request_id=str(uuid.uuid4())))
    await conversations.PopMessages(pop(request_id=str(uuid.uuid4())))
    await fill(conversations, "1")
    file = Path(make_url(database_url).database)
    files = [file, file.with_name(f"{file.name}-wal")]
    assert any(canary.encode() in one.read_bytes() for one in files if one.exists())
    await conversations.DeleteConversation(delete())
    assert not any(canary.encode() in one.read_bytes() for one in files if one.exists())


async def test_a_deleted_conversation_forgets_its_request_ids(conversations):
    request = append(said("a", "1"), request_id=str(uuid.uuid4()))
    first = await conversations.AppendMessages(request)
    await conversations.DeleteConversation(delete())
    second = await conversations.AppendMessages(request)
    assert second.conversation.revision > first.conversation.revision
    assert await ids(conversations) == ["1"]
