"""The client for conversations, against a running server."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from memoryd.client import (
    AlreadyExists,
    Blob,
    ConversationChange,
    ConversationClient,
    ConversationHandle,
    EtagMismatch,
    File,
    InvalidArgument,
    MemoryClient,
    Message,
    NewMessage,
    NotFound,
    Part,
    Role,
    ToolCall,
    ToolResult,
)
from memoryd.client.context import line_of


@pytest.fixture
async def client(running):
    async with ConversationClient(running.address) as client:
        yield client


@pytest.fixture
def conversation(client):
    return client.conversation("user-123", "support-1")


def texts(messages):
    return ["".join(part.text for part in message.parts) for message in messages]


async def test_a_conversation_goes_on(conversation):
    answer = await conversation.append(user="Where is my order?", assistant="On its way.")
    assert [message.role for message in answer.messages] == [Role.USER, Role.ASSISTANT]
    again = await conversation.append(assistant="Anything else?", user="No.", system="Bye.")
    assert (await conversation.get()) == again.conversation
    window = await conversation.window()
    assert texts(window.messages) == [
        *("Where is my order?", "On its way.", "Anything else?", "No.", "Bye."),
    ]
    assert window.summary is None
    assert texts((await conversation.window(last=2)).messages) == ["No.", "Bye."]
    assert texts((await conversation.window(max_tokens=3)).messages) == ["No.", "Bye."]
    assert [message async for message in conversation.messages(page_size=2)] == window.messages
    second = window.messages[1]
    later = await conversation.window(after_message_id=second.message_id)
    assert later.messages == window.messages[2:]
    everything = await conversation.window(since=second.create_time)
    assert everything.messages == window.messages
    assert texts(await conversation.pop()) == ["Bye."]
    assert texts(await conversation.pop(2)) == ["Anything else?", "No."]


async def test_messages_of_every_kind_come_back(conversation):
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    given = [
        NewMessage(
            "user",
            "Look:",
            parts=["more", Blob(mime_type="image/png", data=b"\x89"), {"thinking": "hm"}],
            author="Ann",
            turn_id="t1",
            metadata={"n": 1},
            token_count=7,
            occur_time=moment,
            message_id="m1",
        ),
        {
            "role": "assistant",
            "parts": [
                ToolCall(call_id="1", name="find", arguments_json='{"n": 1.10}'),
                {"tool_call": {"call_id": "2", "name": "find"}},
                {"file": File(uri="s3://a", name="a")},
            ],
        },
        {"role": "tool", "parts": [{"tool_result": {"call_id": "1", "is_error": True}}]},
        NewMessage("tool", parts=[ToolResult(call_id="2", json="[]"), Part(text="")]),
        {"raw_json": '{"type": "message"}', "raw_format": "openai.item"},
        {"parts": [{"blob": {"mime_type": "a/b", "data": b"\0"}}, {"tool_call": {}}]},
        Message(role=Role.DEVELOPER, parts=[Part(text="be kind")]),
    ]
    kept = (await conversation.append(given)).messages
    first = kept[0]
    assert (first.message_id, first.author, first.turn_id) == ("m1", "Ann", "t1")
    assert (first.token_count, first.metadata["n"]) == (7, 1)
    assert first.occur_time == moment
    assert list(first.parts) == [
        Part(text="Look:"),
        Part(text="more"),
        Part(blob=Blob(mime_type="image/png", data=b"\x89")),
        Part(thinking="hm"),
    ]
    assert list(kept[1].parts) == [
        Part(tool_call=ToolCall(call_id="1", name="find", arguments_json='{"n": 1.10}')),
        Part(tool_call=ToolCall(call_id="2", name="find")),
        Part(file=File(uri="s3://a", name="a")),
    ]
    assert list(kept[2].parts) == [Part(tool_result=ToolResult(call_id="1", is_error=True))]
    assert list(kept[3].parts) == [
        Part(tool_result=ToolResult(call_id="2", json="[]")),
        Part(text=""),
    ]
    assert (kept[4].raw_json, kept[4].raw_format) == ('{"type": "message"}', "openai.item")
    assert kept[4].role == Role.UNSPECIFIED
    assert list(kept[5].parts) == [
        Part(blob=Blob(mime_type="a/b", data=b"\0")),
        Part(tool_call=ToolCall()),
    ]
    assert kept[6].role == Role.DEVELOPER
    # What is read can be appended again: the branch has it.
    again = await conversation.append(kept)
    assert again.messages == kept
    assert again.conversation.message_count == 7


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("hello", r"messages\[0\]"),
        ({"content": "hello"}, r"messages\[0\]: 'content' is no field"),
        (NewMessage("robot", "hello"), r"messages\[0\]\.role"),
        (NewMessage("user", 7), r"messages\[0\]\.text"),
        (NewMessage("user", parts="hello"), r"messages\[0\]\.parts"),
        (NewMessage("user", parts=[7]), r"messages\[0\]\.parts\[0\]"),
        (NewMessage("user", parts=[Message()]), r"messages\[0\]\.parts\[0\]"),
        ({"parts": [{}]}, r"messages\[0\]\.parts\[0\]: give exactly one"),
        ({"parts": [{"text": "a", "thinking": "b"}]}, r"messages\[0\]\.parts\[0\]"),
        ({"parts": ["a", {"image": "b"}]}, r"messages\[0\]\.parts\[1\]: 'image'"),
        ({"parts": [{"text": None}]}, r"messages\[0\]\.parts\[0\]\.text"),
        ({"parts": [{"blob": {"data": "b"}}]}, r"messages\[0\]\.parts\[0\]\.blob\.data"),
        ({"parts": [{"tool_call": {7: 1}}]}, r"messages\[0\]\.parts\[0\]\.tool_call: 7"),
        ({"parts": [{"tool_call": "x"}]}, r"messages\[0\]\.parts\[0\]\.tool_call"),
        ({"parts": [{"tool_result": {"is_error": 1}}]}, r"tool_result\.is_error"),
        (NewMessage("user", "a", metadata=[]), r"messages\[0\]\.metadata"),
        (NewMessage("user", "a", token_count=b"1"), r"messages\[0\]\.token_count"),
        (NewMessage("user", "a", occur_time="now"), r"messages\[0\]\.occur_time"),
    ],
)
async def test_a_message_that_cannot_be_sent_is_named(conversation, message, named):
    with pytest.raises((TypeError, ValueError), match=named):
        await conversation.append([message])
    with pytest.raises((TypeError, ValueError), match=named):
        await conversation.rewrite("", [message])
    with pytest.raises(NotFound):
        await conversation.get()


async def test_a_handle_has_names(client):
    with pytest.raises(TypeError, match="session_id"):
        client.conversation(7, "c")
    with pytest.raises(TypeError, match="conversation_id"):
        client.conversation("s", None)


async def test_texts_by_role_have_an_order_of_their_own(conversation):
    with pytest.raises(TypeError, match="robot: no such role"):
        await conversation.append(robot="hello")
    with pytest.raises(ValueError, match="messages and user"):
        await conversation.append([NewMessage("user", "a")], user="b")
    with pytest.raises(TypeError, match="newest: no such option"):
        await conversation.window(newest=2)
    with pytest.raises(ValueError, match="last and max_tokens"):
        await conversation.window(last=2, max_tokens=3)
    with pytest.raises(InvalidArgument, match="messages"):
        await conversation.append()


async def test_a_call_sent_again_changes_nothing(conversation):
    request_id = str(uuid.uuid4())
    first = await conversation.append(user="a", assistant="b", request_id=request_id)
    assert await conversation.append(user="a", assistant="b", request_id=request_id) == first
    pop_id = str(uuid.uuid4())
    popped = await conversation.pop(request_id=pop_id)
    assert await conversation.pop(request_id=pop_id) == popped
    assert texts(popped) == ["b"]
    message = NewMessage("user", "c", message_id="m1")
    await conversation.append([message])
    assert (await conversation.append([message])).conversation.message_count == 2
    with pytest.raises(AlreadyExists) as caught:
        await conversation.append([NewMessage("user", "d", message_id="m1")])
    assert caught.value.resource
    again = await conversation.rewrite("m1", user="e", request_id=str(uuid.uuid4()))
    assert again.conversation.message_count == 3


async def test_many_append_and_pop_at_once(conversation):
    await asyncio.gather(*(conversation.append(user=f"{n}", assistant=f"{n}") for n in range(20)))
    said = texts((await conversation.window()).messages)
    assert said[::2] == said[1::2]  # each append as a whole
    popped = await asyncio.gather(*(conversation.pop(2) for _ in range(20)))
    assert sorted(text for one in popped for text in texts(one)) == sorted(said)


async def test_branches_and_forks(client, conversation):
    answer = await conversation.append(user="a", assistant="b")
    first, second = answer.messages
    changed = await conversation.rewrite(first.message_id, assistant="c")
    assert texts((await conversation.window()).messages) == ["a", "c"]
    old = await conversation.window(branch_head=second.message_id)
    assert texts(old.messages) == ["a", "b"]
    with pytest.raises(EtagMismatch):
        await conversation.set_head(second.message_id, etag=answer.conversation.etag)
    back = await conversation.set_head(second.message_id, etag=changed.conversation.etag)
    assert back.head_message_id == second.message_id
    made = await conversation.fork("support-2", at_message_id=first.message_id)
    assert made.forked_from.conversation_id == "support-1"
    fork = client.conversation("user-123", "support-2")
    await fork.append(user="d")
    assert texts((await fork.window()).messages) == ["a", "d"]
    with pytest.raises(AlreadyExists):
        await conversation.fork("support-2")
    listed = [one.conversation_id async for one in client.list("user-123", page_size=1)]
    assert listed == ["support-2", "support-1"]
    assert len([one async for one in client.list(session_id_prefix="user")]) == 2
    await conversation.delete()
    await conversation.delete(allow_missing=True)
    with pytest.raises(NotFound):
        await conversation.window()
    assert texts((await fork.window()).messages) == ["a", "d"]


async def test_all_branches_are_exported(client, conversation):
    first, _ = (await conversation.append(user="a", assistant="b")).messages
    await conversation.rewrite(first.message_id, assistant="c")
    await client.conversation("user-123", "support-2").append(user="d")
    exported = [text async for part in conversation.export() for text in texts(part.messages)]
    assert sorted(exported) == ["a", "b", "c"]
    everything = [text async for part in client.export("user-123") for text in texts(part.messages)]
    assert sorted(everything) == ["a", "b", "c", "d"]


async def test_changes_are_watched_from_a_revision(client, conversation):
    first = await conversation.append(user="a", assistant="b")
    await client.conversation("user-123", "support-2").append(user="c")
    watching = client.watch("user-123")
    event = await anext(watching)
    assert event.change == ConversationChange.CREATED
    assert (event.messages, event.revision) == (first.messages, first.conversation.revision)
    assert texts((await anext(watching)).messages) == ["c"]
    await watching.aclose()
    resumed = conversation.watch(event.revision)
    await conversation.append(user="d")
    assert texts((await anext(resumed)).messages) == ["d"]
    await conversation.delete()
    assert (await anext(resumed)).change == ConversationChange.DELETED
    await resumed.aclose()


async def test_a_summary_stands_for_what_it_covers(conversation):
    first, second, _ = (await conversation.append(user="a", assistant="b", tool="c")).messages
    await conversation.set_summary("They said a and b.", second.message_id, token_count=3)
    window = await conversation.window(with_summary=True)
    assert texts(window.messages) == ["c"]
    assert window.summary
    assert (window.summary.text, window.summary.token_count) == ("They said a and b.", 3)
    with pytest.raises(InvalidArgument, match="through_message_id"):
        await conversation.set_summary("They?", "nobody")
    await conversation.set_summary("", "")
    assert (await conversation.window(with_summary=True)).summary is None
    assert first.message_id


async def test_a_window_begins_with_a_whole_turn(conversation):
    await conversation.append(
        [
            NewMessage("assistant", parts=[ToolCall(call_id="1", name="find")]),
            NewMessage("tool", parts=[ToolResult(call_id="1", text="found")]),
            NewMessage("assistant", "There."),
        ]
    )
    assert len((await conversation.window(last=2)).messages) == 2
    whole = await conversation.window(last=2, complete_turns=True)
    assert texts(whole.messages) == ["There."]


async def test_a_window_is_read_to_its_end(conversation):
    large = "x" * 900_000
    for _ in range(3):
        await conversation.append([NewMessage("user", large), NewMessage("user", large)])
    window = await conversation.window(last=6)
    assert texts(window.messages) == [large] * 6


async def test_what_is_set_of_a_conversation(client, conversation, clock):
    made = await client.create(
        "user-123", "support-1", display_name="Order", labels={"a": "b"}, ttl=timedelta(days=1)
    )
    assert (made.display_name, dict(made.labels)) == ("Order", {"a": "b"})
    changed = await conversation.update(
        labels={}, state={"step": 1}, never_expires=True, etag=made.etag
    )
    assert changed.never_expires
    assert not changed.labels
    assert changed.display_name == "Order"
    patched = await conversation.append(state_patch={"step": None, "next": "b"})
    assert dict(patched.conversation.state) == {"next": "b"}
    ending = await conversation.update(expire_time=clock() + timedelta(minutes=1))
    assert ending.expire_time is not None
    with pytest.raises(EtagMismatch):
        await conversation.update(display_name="", etag=made.etag)
    assert not (await conversation.update(display_name="")).display_name
    with pytest.raises(ValueError, match="ttl and never_expires"):
        await conversation.update(ttl=timedelta(1), never_expires=True)
    with pytest.raises(TypeError, match="name: no such field"):
        await conversation.update(name="x")
    assert (await client.create("user-123")).conversation_id
    clock.move(timedelta(minutes=2))
    with pytest.raises(NotFound):
        await conversation.get()


async def test_messages_become_memories(running, conversation):
    answer = await conversation.append(user="I like tea.", assistant="Noted.", system="Be kind.")
    by_id = await conversation.promote([answer.messages[1].message_id], importance=1)
    assert [one.content for one in by_id.memories] == ["Noted."]
    promoted = await conversation.promote(since_last=True, roles=["user"], content_type="fact")
    assert [one.content for one in promoted.memories] == ["I like tea."]
    assert not (await conversation.promote(since_last=True)).memories
    context = await conversation.context("tea")
    assert not context.memories  # its messages are there
    await conversation.pop(3)
    async with MemoryClient(running.address) as memory:
        assert len([one async for one in memory.list("user-123")]) == 2
    assert len((await conversation.context("tea")).memories) == 2
    with pytest.raises(ValueError, match="ttl and never_expires"):
        await conversation.promote(since_last=True, ttl=timedelta(1), never_expires=True)
    with pytest.raises(TypeError, match="newest: no such option"):
        await conversation.promote(newest=True)


# The context of a prompt


async def test_a_context_has_summary_messages_and_memories(running, conversation):
    async with MemoryClient(running.address) as memory:
        await memory.store("user-123", "prefers e-mail over the phone")
    old = await conversation.append(user="Hello.", assistant="Welcome.")
    await conversation.set_summary("They met.", old.messages[-1].message_id)
    await conversation.append(user="How will you reach me?")
    context = await conversation.context("reach by phone or e-mail?")
    assert context.summary == "They met."
    assert texts(context.messages) == ["How will you reach me?"]
    assert [one.memory.content for one in context.memories] == ["prefers e-mail over the phone"]
    assert context.text == (
        "Summary of the conversation before:\nThey met.\n\n"
        "What is known:\n- prefers e-mail over the phone\n\n"
        "The conversation:\nuser: How will you reach me?"
    )


async def test_a_context_of_no_conversation_has_memories_alone(running, conversation):
    empty = await conversation.context("tea")
    assert (empty.summary, empty.messages, empty.memories, empty.text) == ("", [], [], "")
    async with MemoryClient(running.address) as memory:
        await memory.store("user-123", "likes tea")
    assert (await conversation.context("tea")).text == "What is known:\n- likes tea"


async def test_a_context_has_no_memory_of_a_message_that_it_has(running, conversation):
    await conversation.append([NewMessage("user", "I like tea", message_id="m1")])
    async with MemoryClient(running.address) as memory:
        for episode in ("support-1", "support-2"):
            await memory.store(
                "user-123",
                f"likes tea, says {episode}",
                metadata={"episode": episode, "message_id": "m1"},
            )
    context = await conversation.context("tea")
    assert [one.memory.content for one in context.memories] == ["likes tea, says support-2"]


@pytest.mark.parametrize("max_chars", [1, 40, 100, 150, 300, 1000, 3000])
async def test_a_context_keeps_its_limit(running, conversation, max_chars):
    async with MemoryClient(running.address) as memory:
        for n in range(5):
            await memory.store("user-123", f"likes tea number {n}: " + f"word{n} " * 20)
    first = await conversation.append(user="Hello.")
    await conversation.set_summary("They met. " * 100, first.messages[0].message_id)
    # Tokens that callers count may be few for their characters.
    await conversation.append(
        [NewMessage("user", f"{n} " + "ü" * 30, token_count=1) for n in range(40)]
    )
    context = await conversation.context("tea", max_chars=max_chars)
    assert texts(context.messages)[-1].startswith("39 ")
    newest = "The conversation:\n" + line_of(context.messages[-1])
    assert len(context.text) <= max(max_chars, len(newest))
    if max_chars >= 1000:
        assert context.summary
        assert context.memories
        assert len(context.messages) > 1


async def test_a_context_that_is_cut_begins_with_a_whole_turn(conversation):
    await conversation.append(
        [
            NewMessage("user", "Where is it?", turn_id="t1"),
            NewMessage("assistant", parts=[ToolCall(call_id="1", name="find")], turn_id="t2"),
            NewMessage(
                "tool",
                parts=[ToolResult(call_id="1", json="[" + "1, " * 99 + "1]")],
                turn_id="t2",
                token_count=1,
            ),
            NewMessage("assistant", "Here.", turn_id="t2"),
            NewMessage("user", "Thanks.", turn_id="t3"),
        ]
    )
    context = await conversation.context("", max_chars=200)
    assert texts(context.messages) == ["Thanks."]
    whole = await conversation.context("", max_chars=3000)
    assert whole.text.splitlines()[1:4] == [
        "user: Where is it?",
        "assistant: [calls find()]",
        "tool: [result: [" + "1, " * 99 + "1]]",
    ]


@pytest.mark.parametrize("max_chars", [0, -1, 2**40, "many", None])
async def test_a_context_needs_room(conversation, max_chars):
    with pytest.raises((TypeError, ValueError), match="max_chars"):
        await conversation.context("tea", max_chars=max_chars)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (Message(parts=[Part(text="a"), Part(thinking="b"), Part(text="c")]), "unknown: a\nc"),
        (Message(author="Ann", role=Role.USER, parts=[Part(text="a")]), "Ann: a"),
        (
            Message(parts=[Part(tool_result=ToolResult(text="a", is_error=True))]),
            "unknown: [error: a]",
        ),
        (Message(parts=[Part(blob=Blob(mime_type="a/b"))]), "unknown: [a/b]"),
        (Message(parts=[Part(file=File(uri="s3://a"))]), "unknown: [s3://a]"),
        (Message(raw_json="{}"), "unknown: {}"),
    ],
)
def test_a_message_as_a_line(message, line):
    assert line_of(message) == line


def test_the_handle_has_the_methods_of_the_client():
    def public(kind):
        return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"}

    assert public(ConversationClient) - public(ConversationHandle) == {
        *("close", "conversation", "create", "list"),
    }
    assert public(ConversationHandle) < public(ConversationClient)
