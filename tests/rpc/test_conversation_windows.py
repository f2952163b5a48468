"""Windows of messages: the newest that fit, whole turns, summaries, pages."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.rpc.test_conversation_branches import fork, pop, rewrite, set_head
from tests.rpc.test_conversations import (
    ABORTED,
    INVALID,
    NAME,
    NOT_FOUND,
    append,
    fill,
    head,
    ids,
    listed,
    said,
)

from memoryd.v1 import conversation_pb2 as pb


def summarise(text="", through="", **values):
    names = ("token_count",)
    of_summary = {name: values.pop(name) for name in names if name in values}
    summary = pb.Summary(text=text, through_message_id=through, **of_summary)
    return pb.SetSummaryRequest(summary=summary, **{**NAME, **values})


def called(message_id, *calls, **values):
    parts = [pb.Part(tool_call=pb.ToolCall(call_id=call, name="f")) for call in calls]
    return pb.Message(message_id=message_id, role=pb.ROLE_ASSISTANT, parts=parts, **values)


def result(message_id, call, **values):
    parts = [pb.Part(tool_result=pb.ToolResult(call_id=call, text="r"))]
    return pb.Message(message_id=message_id, role=pb.ROLE_TOOL, parts=parts, **values)


@pytest.fixture(params=["one branch", "many branches"])
async def ten(request, conversations):
    """The messages 0 to 9, of a token each."""
    names = [str(n) for n in range(10)]
    if request.param == "one branch":
        await fill(conversations, *names)
        return conversations
    await fill(conversations, "0", "1", "x", "y")
    await conversations.RewriteMessages(rewrite("1", said("2", "2"), said("z", "z")))
    await conversations.RewriteMessages(rewrite("2", *(said(n, n) for n in names[3:6])))
    await conversations.SetHead(set_head("3"))
    await fill(conversations, "4b", "5b", "6b")
    await conversations.SetHead(set_head("5"))
    await fill(conversations, *names[6:])
    return conversations


async def test_the_last_ones(ten):
    assert await ids(ten, last=3) == ["7", "8", "9"]
    assert await ids(ten, last=8) == [str(n) for n in range(2, 10)]
    assert await ids(ten, last=100) == [str(n) for n in range(10)]
    assert await ids(ten, last=5, page_size=2) == ["5", "6", "7", "8", "9"]
    assert await ids(ten) == [str(n) for n in range(10)]
    assert await ids(ten, page_size=3) == [str(n) for n in range(10)]


async def test_those_after_a_message(ten, refused):
    assert await ids(ten, after_message_id="6") == ["7", "8", "9"]
    assert await ids(ten, after_message_id="1") == [str(n) for n in range(2, 10)]
    assert await ids(ten, after_message_id="9") == []
    absent = ten.ListMessages(listed(after_message_id="nothing"))
    assert (await refused(absent)).code is NOT_FOUND
    absent = ten.ListMessages(listed(branch_head="nothing"))
    assert (await refused(absent)).code is NOT_FOUND
    absent = ten.ListMessages(listed(conversation_id="nothing"))
    assert (await refused(absent)).code is NOT_FOUND


async def test_the_newest_that_fit(ten):
    assert await ids(ten, max_tokens=1) == ["9"]
    assert await ids(ten, max_tokens=3) == ["7", "8", "9"]
    assert await ids(ten, max_tokens=8) == [str(n) for n in range(2, 10)]
    assert await ids(ten, max_tokens=10) == await ids(ten, max_tokens=11)
    assert await ids(ten, max_tokens=3, branch_head="4") == ["2", "3", "4"]


async def test_the_newest_that_fit_are_at_least_one(conversations):
    sizes = [5, 0, 7, 0, 0, 3, 9]
    messages = [said("x", str(n), token_count=size) for n, size in enumerate(sizes)]
    await conversations.AppendMessages(append(*messages))
    expected = {1: 6, 8: 6, 9: 6, 11: 6, 12: 3, 18: 3, 19: 1, 23: 1, 24: 0, 99: 0}
    for most, first in expected.items():
        found = await ids(conversations, max_tokens=most)
        assert found == [str(n) for n in range(first, 7)], most
    assert await ids(conversations, max_tokens=3, branch_head="4") == ["3", "4"]


async def test_those_since_a_time(conversations, clock):
    times = []
    for n in range(5):
        answer = await conversations.AppendMessages(append(said(str(n), str(n))))
        times.append(answer.messages[0].create_time)
        clock.move(timedelta(seconds=10))
    assert await ids(conversations, since=times[2]) == ["2", "3", "4"]
    just_after = Timestamp(seconds=times[2].seconds, nanos=times[2].nanos + 1000)
    assert await ids(conversations, since=just_after) == ["3", "4"]
    assert await ids(conversations, since=Timestamp(seconds=1)) == ["0", "1", "2", "3", "4"]
    assert await ids(conversations, since=Timestamp(seconds=times[4].seconds + 1)) == []
    # A clock that is set back puts nothing out of order.
    clock.move(timedelta(days=-1))
    answer = await conversations.AppendMessages(append(said("5", "5")))
    assert answer.messages[0].create_time == times[4]
    assert await ids(conversations, since=times[4]) == ["4", "5"]


async def test_a_window_of_whole_turns(conversations):
    await conversations.AppendMessages(
        append(
            said("u", "0"),
            called("1", "a", "b"),
            result("2", "a"),
            result("3", "b"),
            said("a", "4"),
            said("u", "5", turn_id="t"),
            called("6", "c", turn_id="t"),
            result("7", "c", turn_id="t"),
        )
    )

    async def begins(last):
        return (await ids(conversations, last=last, complete_turns=True))[0]

    assert [await begins(n) for n in range(1, 9)] == ["5", "5", "5", "4", "4", "4", "1", "0"]
    assert await ids(conversations, last=1) == ["7"]
    # Where a message has call and result, nothing is cut.
    both = called("8", "d")
    both.parts.add().tool_result.call_id = "d"
    await conversations.AppendMessages(append(both))
    assert await ids(conversations, last=1, complete_turns=True) == ["8"]
    assert await ids(conversations, after_message_id="2", complete_turns=True) == [
        *("4", "5", "6", "7", "8")
    ]


async def test_a_summary_takes_the_place_of_what_it_covers(ten, refused):
    before = await head(ten)
    made = await ten.SetSummary(summarise("so far", "6"))
    assert made.etag != before.etag
    assert (made.summary.text, made.summary.through_message_id) == ("so far", "6")
    assert (made.summary.token_count, made.update_time) == (2, made.summary.update_time)
    assert await head(ten) == made
    answer = await ten.ListMessages(listed(with_summary=True))
    assert answer.summary == made.summary
    assert [m.message_id for m in answer.messages] == ["7", "8", "9"]
    assert await ids(ten, with_summary=True, last=2) == ["8", "9"]
    assert await ids(ten, with_summary=True, last=9) == ["7", "8", "9"]
    assert not (await ten.ListMessages(listed())).HasField("summary")
    assert (await refused(ten.SetSummary(summarise("x", "nothing")))).code is INVALID
    assert (await refused(ten.SetSummary(summarise("x")))).code is INVALID
    stale = summarise("x", "6", expected_etag=before.etag)
    assert (await refused(ten.SetSummary(stale))).code is ABORTED
    # Where it ends on another branch, all messages come.
    await ten.RewriteMessages(rewrite("5", said("n", "n")))
    answer = await ten.ListMessages(listed(with_summary=True))
    assert not answer.HasField("summary")
    assert [m.message_id for m in answer.messages] == ["0", "1", "2", "3", "4", "5", "n"]
    assert (await refused(ten.SetSummary(summarise("x", "6")))).code is INVALID
    none = await ten.SetSummary(summarise())
    assert not none.HasField("summary")
    counted = await ten.SetSummary(summarise("x", "n", token_count=40))
    assert counted.summary.token_count == 40


async def test_a_summary_does_not_cover_what_takes_the_id_of_a_removed_message(ten):
    made = await ten.SetSummary(summarise("so far", "8"))
    await ten.PopMessages(pop(count=2))
    await ten.AppendMessages(append(said("another", "8")))
    answer = await ten.ListMessages(listed(with_summary=True))
    assert not answer.HasField("summary")
    assert [m.message_id for m in answer.messages] == [*map(str, range(9))]
    left = (await head(ten)).summary
    assert (left.text, left.through_message_id) == (made.summary.text, "")


async def test_a_summary_holds_where_a_removed_message_is_on_another_branch(ten):
    await ten.SetSummary(summarise("so far", "8"))
    await ten.AppendMessages(append(said("x", "10")))
    await ten.SetHead(set_head("9"))
    await ten.PopMessages(pop(count=2))
    assert (await head(ten)).summary.through_message_id == "8"
    await ten.SetHead(set_head("10"))
    answer = await ten.ListMessages(listed(with_summary=True))
    assert answer.HasField("summary")
    assert [m.message_id for m in answer.messages] == ["9", "10"]


async def test_an_appends_answer_leaves_out_the_text_of_a_summary(conversations):
    await fill(conversations, "1")
    made = await conversations.SetSummary(summarise("so far", "1"))
    answer = (await fill(conversations, "2")).summary
    assert answer.text == ""
    assert answer.through_message_id == "1"
    assert (await head(conversations)).summary == made.summary
    assert not (await conversations.ForkConversation(fork())).HasField("summary")


async def test_pages_end_where_the_branch_ended_when_the_first_was_read(conversations):
    await fill(conversations, *map(str, range(6)))
    first = await conversations.ListMessages(listed(page_size=4))
    await fill(conversations, "6", "7")
    second = await conversations.ListMessages(listed(page_size=4, page_token=first.next_page_token))
    found = [m.message_id for m in (*first.messages, *second.messages)]
    assert found == [str(n) for n in range(6)]
    assert not second.next_page_token


async def test_a_window_is_of_one_moment_while_messages_are_removed(conversations):
    await fill(conversations, *(f"first-{n}" for n in range(30)))

    async def churn():
        for n in range(12):
            await conversations.PopMessages(pop(20))
            names = [f"{n}-{place}" for place in range(20)]
            await fill(conversations, *names)

    async def watch():
        while not churning.done():
            found = (await conversations.ListMessages(listed(last=8))).messages
            assert len(found) == 8
            for before, after in itertools.pairwise(found):
                assert after.parent_message_id == before.message_id

    churning = asyncio.create_task(churn())
    await asyncio.gather(churning, *(watch() for _ in range(6)))


async def test_pages_end_early_where_they_are_large(conversations):
    bodies = [said("x" * 900_000, str(n)) for n in range(8)]
    for start in range(0, 8, 4):
        await conversations.AppendMessages(append(*bodies[start : start + 4]))
    first = await conversations.ListMessages(listed(last=8))
    assert 1 < len(first.messages) < 8
    assert first.ByteSize() < 4_000_000
    assert await ids(conversations, last=8) == [str(n) for n in range(8)]
    popped = (await conversations.PopMessages(pop(8))).messages
    assert [m.message_id for m in popped] == ["5", "6", "7"]
    assert popped[0].parts[0].text == "x" * 900_000


async def test_tokens_of_pages_hold_for_their_arguments(conversations, refused):
    await fill(conversations, *map(str, range(6)))
    token = (await conversations.ListMessages(listed(page_size=2))).next_page_token
    other = listed(page_size=2, page_token=token, complete_turns=True)
    found = await refused(conversations.ListMessages(other))
    assert (found.code, [*found.violations]) == (INVALID, ["page_token"])
