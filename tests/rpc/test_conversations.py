"""ConversationService: appends, in order and as a whole, and what is read back of them."""

from __future__ import annotations

import asyncio
import uuid

import grpc
import pytest
from tests.locks import writes_blocked

from memoryd.conversations.writes import BYTES_A_WEIGHT
from memoryd.memories.group_commit import LARGE_WRITES
from memoryd.v1 import conversation_pb2 as pb
from memoryd.v1 import session_pb2

NOT_FOUND = grpc.StatusCode.NOT_FOUND
ABORTED = grpc.StatusCode.ABORTED
INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXISTS = grpc.StatusCode.ALREADY_EXISTS
NAME = {"session_id": "s", "conversation_id": "c"}
MIB = 1024 * 1024
MANY = 12
"""Large appends, of `LARGE` bytes each."""
LARGE = 100_000
WEIGHT = 2 + LARGE // BYTES_A_WEIGHT


def said(text="hello", message_id="", role=pb.ROLE_USER, **values):
    """A message of one text."""
    parts = [pb.Part(text=text)]
    return pb.Message(message_id=message_id, role=role, parts=parts, **values)


def append(*messages, **values):
    return pb.AppendMessagesRequest(messages=messages, **{**NAME, **values})


def listed(**values):
    return pb.ListMessagesRequest(**{**NAME, **values})


def get(**values):
    return pb.GetConversationRequest(**{**NAME, **values})


async def ids(conversations, **values):
    """The ids of what a listing answers, page by page."""
    found, token = [], ""
    while True:
        answer = await conversations.ListMessages(listed(**values, page_token=token))
        found += [message.message_id for message in answer.messages]
        token = answer.next_page_token
        if not token:
            return found


async def fill(conversations, *names, **values):
    """Append a message for each name."""
    messages = [said(name, name) for name in names]
    return (await conversations.AppendMessages(append(*messages, **values))).conversation


async def test_the_first_append_makes_the_conversation(running, conversations):
    answer = await conversations.AppendMessages(append(said("hi", "m1"), said("ho", "m2")))
    first, second = answer.messages
    made = answer.conversation
    assert (first.message_id, first.parent_message_id) == ("m1", "")
    assert (second.message_id, second.parent_message_id) == ("m2", "m1")
    assert first.revision == second.revision == made.revision
    assert (made.head_message_id, made.message_count, made.token_count) == ("m2", 2, 2)
    assert list(made.branch_heads) == ["m2"]
    assert made.never_expires
    assert await conversations.GetConversation(get()) == made
    assert list((await conversations.ListMessages(listed())).messages) == [first, second]
    session = await running.sessions.GetSession(session_pb2.GetSessionRequest(session_id="s"))
    assert session.conversation_count == 1
    assert session.revision == made.revision


async def test_ids_are_given_where_there_are_none(conversations):
    answer = await conversations.AppendMessages(append(said(), said()))
    given = [uuid.UUID(message.message_id) for message in answer.messages]
    assert [one.version for one in given] == [7, 7]
    assert given == sorted(given)


@pytest.mark.parametrize(
    "values",
    [
        {"parts": [pb.Part(text="<b>kept</b>  as\tit is \r\n")]},
        {"parts": [pb.Part(thinking="hm"), pb.Part(text="")]},
        {
            "parts": [
                pb.Part(
                    tool_call=pb.ToolCall(
                        call_id="1", name="f", arguments_json=' {"n": 9007199254740993, "d": 1.10}'
                    )
                )
            ],
            "role": pb.ROLE_ASSISTANT,
        },
        {
            "parts": [
                pb.Part(tool_result=pb.ToolResult(call_id="1", json='["\\u0000", "\\ud800"]'))
            ],
            "role": pb.ROLE_TOOL,
        },
        {"parts": [pb.Part(blob=pb.Blob(mime_type="image/png", data=bytes(range(256))))]},
        {"parts": [pb.Part(file=pb.File(mime_type="a/b", uri="s3://x", name="ü"))]},
        {"raw_json": '{"a":1, "a":2}', "raw_format": "openai.item"},
        {"parts": [pb.Part(text="x" * (MIB - 100))]},
        {"parts": [pb.Part(text="x")], "author": "Zoë", "turn_id": "t", "token_count": 7},
    ],
    ids=["text", "thinking", "call", "result", "blob", "file", "raw", "1 MiB", "fields"],
)
async def test_messages_come_back_to_the_byte(conversations, values):
    given = pb.Message(message_id="m", **values)
    (kept,) = (await conversations.AppendMessages(append(given))).messages
    (found,) = (await conversations.ListMessages(listed())).messages
    assert found == kept
    for name in ("parent_message_id", "token_count_estimated", "create_time", "revision"):
        kept.ClearField(name)
    if not given.HasField("token_count"):
        kept.ClearField("token_count")
    assert kept == given


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.Message(), "messages[0]"),
        (said("a\0b"), "messages[0].parts[0].text"),
        (said(author="a\0b"), "messages[0].author"),
        (said(message_id="a b"), "messages[0].message_id"),
        (pb.Message(raw_json="{"), "messages[0].raw_json"),
        (pb.Message(raw_json="NaN"), "messages[0].raw_json"),
        (
            pb.Message(parts=[pb.Part(tool_call=pb.ToolCall(arguments_json="x"))]),
            "messages[0].parts[0].tool_call.arguments_json",
        ),
        (
            pb.Message(parts=[pb.Part(tool_result=pb.ToolResult(json="x"))]),
            "messages[0].parts[0].tool_result.json",
        ),
        (pb.Message(parts=[pb.Part()]), "messages[0].parts[0].part"),
        (said("x" * MIB), "messages[0]"),
        (said(role=99), "messages[0].role"),
    ],
)
async def test_what_is_wrong_with_a_message_is_named(conversations, refused, message, field):
    error = await refused(conversations.AppendMessages(append(message)))
    assert (error.code, [*error.violations]) == (INVALID, [field])
    assert (await refused(conversations.GetConversation(get()))).code is NOT_FOUND


async def test_tokens_are_counted_or_estimated(conversations):
    answer = await conversations.AppendMessages(
        append(said("äb"), said("abcde"), said("x", token_count=40))
    )
    assert [m.token_count for m in answer.messages] == [1, 2, 40]
    assert [m.token_count_estimated for m in answer.messages] == [True, True, False]
    assert answer.conversation.token_count == 43


async def test_an_append_of_the_same_again_is_skipped(conversations):
    first = await conversations.AppendMessages(append(said("a", "1"), said("b", "2")))
    again = await conversations.AppendMessages(append(said("a", "1"), said("b", "2")))
    assert again == first
    more = await conversations.AppendMessages(append(said("b", "2"), said("c", "3")))
    assert more.messages[0] == first.messages[1]
    assert await ids(conversations) == ["1", "2", "3"]
    twice = await conversations.AppendMessages(append(said("d", "4"), said("d", "4")))
    assert twice.messages[0] == twice.messages[1]
    assert twice.conversation.message_count == 4


async def test_a_message_is_appended_as_it_was_read(conversations):
    counted = said("c", "3")
    counted.token_count = 40
    first = await conversations.AppendMessages(append(said("a", "1"), counted))
    again = await conversations.AppendMessages(append(*first.messages))
    assert again == first
    request = append(*first.messages)
    request.conversation_id = "copy"
    copied = (await conversations.AppendMessages(request)).messages
    assert [m.token_count for m in copied] == [1, 40]
    assert [m.token_count_estimated for m in copied] == [True, False]


async def test_an_id_with_another_body_is_refused(conversations, refused):
    await fill(conversations, "1", "2")
    error = await refused(
        conversations.AppendMessages(append(said("new", "3"), said("other", "1")))
    )
    assert (error.code, [*error.violations]) == (EXISTS, ["messages[1]"])
    assert error.resource.resource_name == "1"
    assert (
        await refused(conversations.AppendMessages(append(said("x", "9"), said("y", "9"))))
    ).code is EXISTS
    assert await ids(conversations) == ["1", "2"]


async def test_an_etag_has_to_be_current(conversations, refused):
    assert (
        await refused(conversations.AppendMessages(append(said(), expected_etag="r1")))
    ).code is ABORTED
    first = await fill(conversations, "1")
    second = await fill(conversations, "2", expected_etag=first.etag)
    stale = append(said("x", "3"), expected_etag=first.etag)
    assert (await refused(conversations.AppendMessages(stale))).code is ABORTED
    assert (await conversations.GetConversation(get())).etag == second.etag != first.etag


async def test_a_state_patch_is_merged_with_the_messages(conversations, refused):
    patch = {"a": 1, "deep": {"x": 1, "y": 2}}
    made = await conversations.AppendMessages(append(state_patch=patch))
    assert (made.conversation.message_count, dict(made.conversation.state)["a"]) == (0, 1)
    change = {"a": None, "deep": {"x": None, "z": [1]}, "b": {"c": None}}
    answer = await conversations.AppendMessages(append(said(), state_patch=change))
    expected = pb.Conversation()
    expected.state.update({"deep": {"y": 2, "z": [1]}, "b": {}})
    assert answer.conversation.state == expected.state
    same = await conversations.AppendMessages(append(state_patch={"b": {}}))
    assert same.conversation.etag == answer.conversation.etag
    assert (await refused(conversations.AppendMessages(append()))).code is INVALID
    large = {"x": "y" * 9_000}
    await conversations.AppendMessages(append(state_patch=large))
    assert (
        await refused(conversations.AppendMessages(append(state_patch={"z": "y" * 9_000})))
    ).code is INVALID


async def test_a_retry_gets_the_first_answer(conversations, refused):
    request = append(said("a"), said("b", "2"), request_id=str(uuid.uuid4()).upper())
    first = await conversations.AppendMessages(request)
    await fill(conversations, "3")
    request.expected_etag = ""
    assert await conversations.AppendMessages(request) == first
    request.request_id = request.request_id.lower()
    assert await conversations.AppendMessages(request) == first
    request.messages.append(said())
    assert (await refused(conversations.AppendMessages(request))).code is INVALID
    late = append(
        said("x", "4"), request_id=str(uuid.uuid4()), expected_etag=(await head(conversations)).etag
    )
    answer = await conversations.AppendMessages(late)
    assert await conversations.AppendMessages(late) == answer  # its etag is stale by now
    assert len(await ids(conversations)) == 4


@pytest.mark.parametrize("with_etag", [False, True], ids=["any state", "a state"])
async def test_a_retry_of_what_changed_nothing_gets_its_answer_on_another_server(serve, with_etag):
    here, there = [(await serve()).conversations for _ in range(2)]
    made = await here.AppendMessages(append(said("a", "1")))
    etag = made.conversation.etag if with_etag else ""
    again = append(said("a", "1"), request_id=str(uuid.uuid4()), expected_etag=etag)
    first = await there.AppendMessages(again)
    assert first.conversation == made.conversation
    await here.AppendMessages(append(said("b", "2")))
    assert await here.AppendMessages(again) == first


async def test_a_small_append_waits_for_few_large_ones(running, database_url, eventually):
    # A lock on PostgreSQL needs a session.
    before = (await running.conversations.AppendMessages(append(said()))).conversation.revision

    async def write(text):
        answer = await running.conversations.AppendMessages(append(said(text)), timeout=60)
        return answer.conversation.revision - before

    def waiting():
        return running.server.waiting_writes("default")

    async with writes_blocked(database_url):
        calls = [asyncio.create_task(write("x" * LARGE)) for _ in range(MANY)]

        async def large_wait():
            return waiting() >= (MANY - LARGE_WRITES) * WEIGHT

        await eventually(large_wait)
        calls.append(asyncio.create_task(write("hello")))

        async def small_waits():
            return waiting() % WEIGHT

        await eventually(small_waits)
    *large, small = await asyncio.gather(*calls)
    assert small <= 2 * LARGE_WRITES + 1
    assert sorted([*large, small]) == [*range(1, MANY + 2)]


async def head(conversations, **values):
    return await conversations.GetConversation(get(**values))


async def test_appends_at_once_each_go_in_whole(conversations):
    async def one(n):
        messages = [said(f"{n}.{i}", f"{n}.{i}") for i in range(3)]
        return await conversations.AppendMessages(append(*messages))

    answers = await asyncio.gather(*map(one, range(24)))
    assert len({answer.conversation.revision for answer in answers}) == 24
    found = await ids(conversations, page_size=7)
    assert len(found) == 72
    for start in range(0, 72, 3):
        n = found[start].split(".")[0]
        assert found[start : start + 3] == [f"{n}.{i}" for i in range(3)]
    for answer in answers:
        made, last = answer.conversation, answer.messages[-1]
        assert made.head_message_id == last.message_id
        assert found.index(last.message_id) == made.message_count - 1
