"""What Agent Framework's own tests of its providers ask, in meaning, and more.

Of its history providers in memory, in files and over Redis, and of its context providers over Redis
and Mem0.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading

import pytest
from agent_framework import (
    Agent,
    AgentResponse,
    AgentSession,
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    ContextProvider,
    FunctionInvocationLayer,
    HistoryProvider,
    InMemoryHistoryProvider,
    Message,
    ResponseStream,
    SessionContext,
    tool,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memoryd.client import (
    ConversationClient,
    DeadlineExceeded,
    InvalidArgument,
    MemoryClient,
    SessionClient,
    Unavailable,
)
from memoryd.integrations.agent_framework import MemorydContextProvider, MemorydHistoryProvider


@pytest.fixture
async def history(address, name):
    async with MemorydHistoryProvider(address, user=name) as provider:
        yield provider


def user(text, **more):
    return Message("user", [text], **more)


def assistant(text, **more):
    return Message("assistant", [text], **more)


def texts(messages):
    return [message.text for message in messages]


async def before(provider, *messages, session_id="s1", agent=None, **more):
    """Run what precedes a model's answer, and give the context."""
    context = SessionContext(session_id=session_id, input_messages=list(messages), **more)
    session = AgentSession(session_id=session_id)
    await provider.before_run(agent=agent, session=session, context=context, state={})
    return context


async def after(provider, context, *answers):
    """Run what follows a model's answer."""
    context._response = AgentResponse(messages=list(answers))  # noqa: SLF001  as the framework does
    session = AgentSession(session_id=context.session_id)
    await provider.after_run(agent=None, session=session, context=context, state={})


async def turn(provider, said, answer, **more):
    await after(provider, await before(provider, user(said), **more), assistant(answer))


# Histories


async def test_it_is_a_history_provider_with_the_flags_of_all(history, address, name):
    assert isinstance(history, HistoryProvider)
    assert history.source_id == MemorydHistoryProvider.DEFAULT_SOURCE_ID == "memoryd_history"
    assert history.load_messages
    assert history.store_inputs
    assert history.store_outputs
    assert not history.store_context_messages
    assert history.store_context_from is None
    async with MemorydHistoryProvider(
        address,
        user=name,
        source_id="audit",
        load_messages=False,
        store_inputs=False,
        store_context_messages=True,
        store_context_from={"rag"},
        store_outputs=False,
    ) as audit:
        assert audit.source_id == "audit"
        assert not any([audit.load_messages, audit.store_inputs, audit.store_outputs])
        assert audit.store_context_messages
        assert audit.store_context_from == {"rag"}


async def test_an_absent_history_is_empty_and_nothing_saved_makes_nothing(history, address, name):
    assert await history.get_messages("s1") == []
    await history.save_messages("s1", [])
    await history.clear("s1")
    assert (await before(history)).get_messages() == []
    async with SessionClient(address) as sessions:
        assert [each async for each in sessions.list(f"agent_framework:{name}")] == []


async def test_what_is_saved_is_loaded(history):
    first = await before(history, user("hello"))
    assert first.context_messages["memoryd_history"] == []
    await after(history, first, assistant("hi there"))
    second = await before(history, user("again"))
    loaded = second.context_messages["memoryd_history"]
    assert texts(loaded) == ["hello", "hi there"]
    assert [message.role for message in loaded] == ["user", "assistant"]
    assert loaded[0].additional_properties["_attribution"] == {
        "source_id": "memoryd_history",
        "source_type": "MemorydHistoryProvider",
    }


MESSAGES = [
    user("naïve 😀 \u0000 \ud800 <b>bold</b>", author_name="Ada", message_id="m 1/ä"),
    Message(
        "assistant", [Content.from_function_call("c1", "f", arguments='{"n": 9007199254740993}')]
    ),
    Message("tool", [Content.from_function_result("c1", result="42")]),
    Message("system", ["Be brief."]),
    Message("developer", ["Be kind."]),
    Message("some other role", ["?"]),
    Message(
        "user",
        ["a", Content.from_uri("data:image/png;base64,AAAA", media_type="image/png")],
        additional_properties={"n": 2**70, "deep": [{"x": [None, 1.5]}]},
    ),
    Message("assistant", []),
]


async def test_messages_come_back_as_they_were(history):
    await history.save_messages("s1", MESSAGES)
    found = await history.get_messages("s1")
    assert [message.to_dict() for message in found] == [message.to_dict() for message in MESSAGES]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
async def test_numbers_that_json_lacks_come_back(history, value):
    await history.save_messages("s1", [user("a", additional_properties={"value": value})])
    (found,) = await history.get_messages("s1")
    assert str(found.additional_properties["value"]) == str(value)


async def test_long_histories(history):
    messages = [user(f"{number}") for number in range(2_500)]
    await history.save_messages("s1", messages)
    assert texts(await history.get_messages("s1")) == texts(messages)
    await history.save_messages("s1", [*messages, assistant("done")])
    assert len(await history.get_messages("s1")) == 2_501


async def test_large_messages(history):
    messages = [user(letter * 700_000) for letter in "abcdefgh"]
    await history.save_messages("s1", messages)
    assert texts(await history.get_messages("s1")) == texts(messages)
    with pytest.raises(InvalidArgument):
        await history.save_messages("s1", [user("x" * 1_100_000)])
    assert len(await history.get_messages("s1")) == 8


async def test_excluded_messages_are_left_out_where_asked(history, address, name):
    await history.save_messages(
        "s1", [user("keep"), assistant("skip", additional_properties={"_excluded": True})]
    )
    assert texts(await history.get_messages("s1")) == ["keep", "skip"]
    async with MemorydHistoryProvider(address, user=name, skip_excluded=True) as skipping:
        assert texts(await skipping.get_messages("s1")) == ["keep"]


FLAGS = {
    "inputs alone": ({"store_outputs": False}, ["hello"]),
    "outputs alone": ({"store_inputs": False}, ["hi"]),
    "none": ({"store_inputs": False, "store_outputs": False}, []),
    "context": ({"store_context_messages": True}, ["of rag", "of other", "hello", "hi"]),
    "context of one": (
        {"store_context_messages": True, "store_context_from": {"rag"}},
        ["of rag", "hello", "hi"],
    ),
}


@pytest.mark.parametrize("kind", FLAGS)
async def test_flags_say_what_is_saved(address, name, kind):
    flags, expected = FLAGS[kind]
    async with MemorydHistoryProvider(address, user=name, **flags) as provider:
        context = await before(provider, user("hello"))
        context.extend_messages("rag", [Message("system", ["of rag"])])
        context.extend_messages("other", [Message("system", ["of other"])])
        await after(provider, context, assistant("hi"))
        assert texts(await provider.get_messages("s1")) == expected


# Nothing is saved twice


async def test_a_replay_is_saved_once(history):
    said = [user("hello"), assistant("hi there")]
    for _ in range(2):
        await history.save_messages("s1", said)
        assert texts(await history.get_messages("s1")) == ["hello", "hi there"]
    await history.save_messages("s1", [*said, user("how are you?")])
    assert texts(await history.get_messages("s1")) == ["hello", "hi there", "how are you?"]
    await history.save_messages("s1", [*said[1:], user("how are you?"), assistant("fine")])
    assert texts(await history.get_messages("s1")) == [*texts(said), "how are you?", "fine"]


async def test_what_is_said_again_is_saved_again(history):
    await history.save_messages("s1", [user("yes"), user("yes")])
    await history.save_messages("s1", [user("yes")])
    await history.save_messages("s1", [user("ping"), assistant("ping")])
    assert texts(await history.get_messages("s1")) == ["yes", "yes", "yes", "ping", "ping"]


async def test_runs_do_not_save_the_history_again(history):
    for number in range(3):
        await turn(history, f"turn {number}", f"reply {number}")
    found = texts(await history.get_messages("s1"))
    assert found == ["turn 0", "reply 0", "turn 1", "reply 1", "turn 2", "reply 2"]


async def test_a_run_with_the_message_of_one_before_saves_it_once(history):
    """The framework's own providers save it again, since it is not where their replay begins."""
    await history.save_messages("s1", [user("hello", message_id="u1"), assistant("hi")])
    await history.save_messages("s1", [user("hello", message_id="u1"), assistant("hi again")])
    assert texts(await history.get_messages("s1")) == ["hello", "hi", "hi again"]


async def test_an_id_with_the_same_contents_is_one_message_wherever_it_is(history):
    for number in range(30):
        await history.save_messages("s1", [user(f"{number}", message_id=f"m{number}")])
    again = user("3", message_id="m3", additional_properties={"_attribution": {"source_id": "a"}})
    await history.save_messages("s1", [user("new"), again, user("x", message_id="x"), again])
    assert texts(await history.get_messages("s1")) == [*map(str, range(30)), "new", "x"]


async def test_an_id_with_other_contents_loses_nothing(history):
    await history.save_messages("s1", [user("a", message_id="m"), assistant("b")])
    await history.save_messages("s1", [user("other", message_id="m"), assistant("c")])
    assert texts(await history.get_messages("s1")) == ["a", "b", "other", "c"]


async def test_what_an_audit_has_of_the_history_of_others_is_saved_once(history, address, name):
    async with MemorydHistoryProvider(
        address, user=name, source_id="audit", load_messages=False, store_context_messages=True
    ) as audit:
        for number in range(3):
            context = await before(history, user(f"turn {number}"))
            for provider in (history, audit):
                await after(provider, context, assistant(f"reply {number}"))
        assert texts(await audit.get_messages("s1")) == texts(await history.get_messages("s1"))


@pytest.mark.parametrize(
    "where",
    [
        {"service_session_id": "conv_1"},
        {"service_session_id": {"conversation": "conv_1"}},
        {"options": {"conversation_id": "conv_1"}},
    ],
)
async def test_a_history_that_the_service_has_is_not_loaded_but_saved(history, where):
    await turn(history, "hello", "hi")
    context = await before(history, user("again"), **where)
    assert context.get_messages() == []
    await after(history, context, assistant("yes"))
    assert texts(await history.get_messages("s1")) == ["hello", "hi", "again", "yes"]
    assert len((await before(history, user("here"))).get_messages()) == 4


async def test_providers_that_save_the_same_at_once_save_it_once(address, name):
    async with contextlib.AsyncExitStack() as stack:
        providers = [
            await stack.enter_async_context(MemorydHistoryProvider(address, user=name))
            for _ in range(5)
        ]
        said = [user("hello"), assistant("hi there")]
        for _ in range(3):
            said += [user(f"{len(said)}"), assistant(f"{len(said)} too")]
            await asyncio.gather(*(each.save_messages("s1", said) for each in providers))
            assert texts(await providers[0].get_messages("s1")) == texts(said)


async def test_saves_at_the_same_time_are_each_as_a_whole(history, address, name):
    async with MemorydHistoryProvider(address, user=name) as other:
        saves = [
            provider.save_messages("s1", [user(f"{number}"), assistant(f"{number}")])
            for number, provider in enumerate([history, other] * 8)
        ]
        await asyncio.gather(*saves)
    found = texts(await history.get_messages("s1"))
    assert sorted(found) == sorted([*map(str, range(16))] * 2)
    assert found[::2] == found[1::2]


async def test_one_provider_in_many_loops(history):
    barrier = threading.Barrier(4)

    def work(number):
        barrier.wait()
        asyncio.run(history.save_messages("s1", [user(f"{number}")]))

    await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(4)))
    assert sorted(texts(await history.get_messages("s1"))) == list("0123")


async def answer_held(history, wire, wired, messages):
    """Begin to save messages, and hold the answer once they are committed."""
    await history.save_messages("s1", [user("first")])
    wire.hold_from(messages[0].text.encode())
    task = asyncio.create_task(wired.save_messages("s1", messages))
    async with asyncio.timeout(60):
        while len(await history.get_messages("s1")) == 1:
            pass
    assert not task.done()
    return task


SAVED = [[user("certainly")], [user("certainly"), assistant("ok")]]


@pytest.mark.parametrize("messages", SAVED)
async def test_a_save_whose_answer_is_lost_is_done_once(history, wire, name, messages):
    async with MemorydHistoryProvider(wire.address, user=name, timeout=60) as wired:
        task = await answer_held(history, wire, wired, messages)
        wire.cut()
        await task
    assert texts(await history.get_messages("s1")) == ["first", *texts(messages)]


@pytest.mark.parametrize("messages", SAVED)
async def test_what_is_saved_again_after_an_error_is_saved_once(history, wire, name, messages):
    async with MemorydHistoryProvider(wire.address, user=name, timeout=5) as hasty:
        task = await answer_held(history, wire, hasty, messages)
        with pytest.raises(DeadlineExceeded):
            await task
        wire.release()
        await again(history, hasty, messages)


async def test_other_messages_after_an_error_are_saved_too(history, wire, name):
    async with MemorydHistoryProvider(wire.address, user=name, timeout=5) as hasty:
        task = await answer_held(history, wire, hasty, SAVED[0])
        with pytest.raises(DeadlineExceeded):
            await task
        wire.release()
        await hasty.save_messages("s1", [user("other")])
        assert texts(await history.get_messages("s1")) == ["first", "certainly", "other"]


async def test_who_is_cancelled_learns_it_once_the_save_is_done(history, wire, name):
    async with MemorydHistoryProvider(wire.address, user=name, timeout=60) as wired:
        task = await answer_held(history, wire, wired, SAVED[0])
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        wire.release()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert texts(await wired.get_messages("s1")) == ["first", "certainly"]


async def again(history, provider, messages):
    """Save once more, with messages of their own that say the same; and then what follows."""
    await provider.save_messages("s1", [Message.from_dict(each.to_dict()) for each in messages])
    assert texts(await history.get_messages("s1")) == ["first", *texts(messages)]
    await provider.save_messages("s1", [user("next")])
    await provider.save_messages("s1", [user("next")])
    assert texts(await history.get_messages("s1")) == ["first", *texts(messages), "next", "next"]


async def test_a_save_in_doubt_that_was_not_done_is_done_after_what_others_saved(
    history, wire, name
):
    """Its request does not reach the service, and another provider is faster."""
    async with MemorydHistoryProvider(wire.address, user=name, timeout=5) as hasty:
        await history.save_messages("s1", [user("first")])
        wire.refuse_from(b"certainly")
        with pytest.raises((DeadlineExceeded, Unavailable)):
            await hasty.save_messages("s1", [user("certainly")])
        await history.save_messages("s1", [user("others")])
        wire.accept()
        await hasty.save_messages("s1", [user("certainly")])
    assert texts(await history.get_messages("s1")) == ["first", "others", "certainly"]


# As the framework's own provider saves

PIECES = [user("yes"), assistant("ok"), user("why?"), Message("tool", ["ok"]), assistant("yes")]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(saves=st.lists(st.lists(st.sampled_from(PIECES), max_size=5), max_size=6))
def test_a_script_is_saved_as_in_memory(address, name, saves):
    async def work():
        theirs, state = InMemoryHistoryProvider(), {}
        async with MemorydHistoryProvider(address, user=name) as ours:
            await ours.clear("s")
            for messages in saves:
                await theirs.save_messages("s", messages, state=state)
                await ours.save_messages("s", messages)
                expected = await theirs.get_messages("s", state=state)
                found = await ours.get_messages("s")
                assert [each.to_dict() for each in found] == [each.to_dict() for each in expected]

    asyncio.run(work())


# Which history


async def test_histories_are_apart(history, address, name):
    await turn(history, "mine", "yes")
    async with (
        MemorydHistoryProvider(address, user=name, source_id="audit") as audit,
        MemorydHistoryProvider(address, user=f"{name}-2") as others,
        MemorydHistoryProvider(address, user=name, prefix="other") as elsewhere,
    ):
        for provider in (audit, others, elsewhere):
            assert await provider.get_messages("s1") == []
        assert await history.get_messages("S1") == []
        await turn(audit, "audited", "yes")
        await audit.clear("s1")
        assert await audit.get_messages("s1") == []
    assert texts(await history.get_messages("s1")) == ["mine", "yes"]


ODD = [("a:b", "c"), ("a", "b:c"), ("ä b/c", ".."), ("ä", "b/c@"), ("\x1f", "日本"), ("@", " ")]


async def test_names_of_any_letters_are_apart(address, name):
    for source, session in ODD:
        async with MemorydHistoryProvider(address, user=f"{name}/ä", source_id=source) as provider:
            assert await provider.get_messages(session) == []
            await provider.save_messages(session, [user(f"{source} {session}")])
            assert texts(await provider.get_messages(session)) == [f"{source} {session}"]


@pytest.mark.parametrize("session_id", [None, ""])
async def test_a_history_has_a_session(history, session_id):
    """As over Redis: those without one would share theirs."""
    with pytest.raises(ValueError, match="session_id"):
        await history.get_messages(session_id)
    with pytest.raises(ValueError, match="session_id"):
        await history.save_messages(session_id, [user("a")])
    with pytest.raises(ValueError, match="session_id"):
        await history.clear(session_id)
    with pytest.raises(ValueError, match="more than 255"):
        await history.get_messages("x" * 256)


@pytest.mark.parametrize(
    "given",
    [
        {"user": ""},
        {"user": "a", "source_id": ""},
        {"user": "ä" * 100},
        {"user": "a", "prefix": ":"},
    ],
)
def test_wrong_names_of_histories_are_refused(given):
    with pytest.raises(ValueError, match=r"at least one|more than 255|prefix"):
        MemorydHistoryProvider("127.0.0.1:1", **given)


async def test_a_user_is_one_session_that_nothing_leaves_unless_it_is_erased(
    history, address, name
):
    place = f"agent_framework:{name}"
    async with (
        MemorydContextProvider(address, store_scope=name, search_scopes=[name]) as memories,
        ConversationClient(address) as conversations,
        MemoryClient(address) as client,
        SessionClient(address) as sessions,
    ):
        await turn(history, "I live in Rome", "How nice")
        await turn(memories, "I live in Rome", "How nice")
        session = await sessions.get(place)
        assert (session.memories_never_expire, session.memory_limit) == (True, 100_000)
        found = await conversations.get(place, "agent_framework:memoryd_history:s1")
        assert (found.ttl, found.expire_time) == (None, None)
        kept = (await conversations.window(place, found.conversation_id)).messages
        assert [message.role for message in kept] == ["user", "assistant"]
        assert [memory.expire_time async for memory in client.list(place)] == [None, None]
        await client.erase(place)
        assert await history.get_messages("s1") == []
        assert (await before(memories, user("Where do I live?"))).get_messages() == []


async def test_messages_of_others_are_not_of_the_history(history, address, name):
    await turn(history, "hello", "hi")
    place = f"agent_framework:{name}", "agent_framework:memoryd_history:s1"
    async with ConversationClient(address) as conversations:
        await conversations.append(*place, user="of another")
    await history.save_messages("s1", [assistant("hi"), user("again")])
    assert texts(await history.get_messages("s1")) == ["hello", "hi", "again"]


# Memories


@pytest.fixture
async def memories(address, name):
    async with MemorydContextProvider(
        address, store_scope=name, search_scopes=[name], min_relevance=0.4
    ) as provider:
        yield provider


async def contents(address, name):
    """All memories of a scope, in the order in which they were stored."""
    async with MemoryClient(address) as client:
        return [memory async for memory in client.list(f"agent_framework:{name}")]


def given_to_the_model(context, source="memoryd"):
    return texts(context.context_messages.get(source, []))


async def test_memories_are_added_to_the_context(memories):
    assert isinstance(memories, ContextProvider)
    assert memories.source_id == MemorydContextProvider.DEFAULT_SOURCE_ID == "memoryd"
    await turn(memories, "My favourite tea is Darjeeling", "A fine tea", session_id="monday")
    context = await before(memories, user("Which tea is my favourite?"), session_id="tuesday")
    (text,) = given_to_the_model(context)
    prompt, first, *_ = text.removeprefix("## Memories\n").splitlines()
    assert f"## Memories\n{prompt}" == memories.context_prompt
    assert first == "My favourite tea is Darjeeling"
    (message,) = context.context_messages["memoryd"]
    assert message.role == "user"
    assert message.additional_properties["_attribution"] == {
        "source_id": "memoryd",
        "origin_session_ids": ["monday"],
    }
    context = await before(memories, user("Which tea is my favourite?"), session_id="monday")
    (message,) = context.context_messages["memoryd"]
    assert message.additional_properties["_attribution"] == {"source_id": "memoryd"}


async def test_a_prompt_and_a_limit_of_ones_own(address, name):
    async with MemorydContextProvider(
        address, store_scope=name, search_scopes=[name], context_prompt="Known:", limit=2
    ) as provider:
        for number in range(4):
            await turn(provider, f"Tea number {number} is good", "")
        (text,) = given_to_the_model(await before(provider, user("Is tea number 3 good?")))
        assert text.splitlines()[:2] == ["Known:", "Tea number 3 is good"]
        assert len(text.splitlines()) == 3


@pytest.mark.parametrize("said", ["", "   ", "\n\t"])
async def test_without_input_nothing_is_sought_and_nothing_stored(memories, address, name, said):
    await turn(memories, "My favourite tea is Darjeeling", "")
    context = await before(memories, user(said))
    await after(memories, context)
    assert context.context_messages == {}
    assert len(await contents(address, name)) == 1


async def test_what_is_not_known_adds_no_message(memories):
    assert (await before(memories, user("Which tea?"))).context_messages == {}
    await turn(memories, "My favourite tea is Darjeeling", "")
    assert (await before(memories, user("Who won the race?"))).context_messages == {}


async def test_all_of_the_input_is_the_query(memories):
    await turn(memories, "My favourite tea is Darjeeling", "")
    await turn(memories, "Ada moved to Lisbon", "")
    context = await before(
        memories, user("Which tea is my favourite?"), user("Where did Ada move?")
    )
    assert set(given_to_the_model(context)[0].splitlines()[2:]) == {
        "My favourite tea is Darjeeling",
        "Ada moved to Lisbon",
    }


async def test_a_long_input_is_no_error(memories):
    await turn(memories, "My favourite tea is Darjeeling", "")
    asked = user("word " * 10_000 + "Which tea is my favourite? \ud800")
    assert given_to_the_model(await before(memories, asked, user("favourite tea")))


async def test_texts_of_user_assistant_and_system_are_stored(memories, address, name):
    context = await before(
        memories,
        user("The question", author_name="Ada"),
        Message("tool", ["The output of a tool"]),
        Message("system", ["The rule"]),
        user(" "),
        Message("user", [Content.from_function_result("c", result="r")]),
    )
    await after(memories, context, assistant("The answer"))
    found = {memory.content: memory for memory in await contents(address, name)}
    assert {text: memory.metadata for text, memory in found.items()} == {
        "The question": {"speaker": "Ada", "episode": "s1"},
        "The rule": {"speaker": "system", "episode": "s1"},
        "The answer": {"speaker": "assistant", "episode": "s1"},
    }
    assert {memory.tags for memory in found.values()} == {("memoryd",)}


async def test_a_run_stored_again_is_stored_once(memories, address, name):
    context = await before(memories, user("I live in Rome"))
    for _ in range(2):
        await after(memories, context, assistant("How nice"))
    await asyncio.gather(*(turn(memories, "I live in Rome", "How nice") for _ in range(4)))
    found = [memory.content for memory in await contents(address, name)]
    assert sorted(found) == ["How nice", "I live in Rome"]


async def test_memories_whose_answer_is_lost_are_stored_once(wire, address, name):
    async with MemorydContextProvider(wire.address, store_scope=name, timeout=60) as wired:
        wire.hold_from(b"I live in Rome")
        task = asyncio.create_task(turn(wired, "I live in Rome", "How nice"))
        async with asyncio.timeout(60):
            while not await contents(address, name):
                pass
        wire.cut()
        await task
    found = [memory.content for memory in await contents(address, name)]
    assert sorted(found) == ["How nice", "I live in Rome"]


async def test_long_messages_are_stored_in_pieces(memories, address, name):
    words = " ".join(f"word{number}" for number in range(6_000))
    await turn(memories, words, "x" * 20_000 + "\ud800")
    found = [memory.content for memory in await contents(address, name)]
    assert sorted(" ".join(found).split()) == sorted(
        [*words.split(), "x" * 16_384, "x" * 3_616 + "?"]
    )


async def test_a_message_that_is_no_memory_is_left_out_with_a_warning(
    memories, address, name, caplog
):
    await turn(memories, "<script>alert(1)</script>", "That is a script")
    assert [memory.content for memory in await contents(address, name)] == ["That is a script"]
    assert "a message is no memory" in caplog.text


# Scopes


async def test_to_store_is_not_to_search(address, name, caplog):
    async with MemorydContextProvider(address, store_scope=name) as storing:
        await turn(storing, "My favourite tea is Darjeeling", "")
        for _ in range(2):
            assert (await before(storing, user("Which tea?"))).context_messages == {}
        assert len(await contents(address, name)) == 1
    warnings = [record for record in caplog.records if "no search_scopes" in record.getMessage()]
    assert len(warnings) == 1


async def test_to_search_is_not_to_store(memories, address, name):
    await turn(memories, "My favourite tea is Darjeeling", "")
    async with MemorydContextProvider(address, search_scopes=[name]) as searching:
        context = await before(searching, user("Which tea is my favourite?"))
        assert "Darjeeling" in given_to_the_model(context)[0]
        await after(searching, context, assistant("Darjeeling, I think"))
    assert len(await contents(address, name)) == 1


async def test_what_one_stores_another_finds_only_where_it_is_asked_to(address, name):
    ada, team, bob = f"{name}-ada", f"{name}-team", f"{name}-bob"
    async with (
        MemorydContextProvider(
            address, store_scope=ada, search_scopes=[ada, team], min_relevance=0.4
        ) as of_ada,
        MemorydContextProvider(
            address, store_scope=team, search_scopes=[bob], min_relevance=0.4
        ) as of_bob,
    ):
        await turn(of_ada, "Ada's favourite tea is Darjeeling", "")
        await turn(of_bob, "The team's favourite tea is Assam", "")
        asked = user("What is the favourite tea?")
        (text,) = given_to_the_model(await before(of_ada, asked))
        assert {"Darjeeling", "Assam"} <= set(text.split())
        assert (await before(of_bob, asked)).context_messages == {}
    assert len(await contents(address, ada)) == len(await contents(address, team)) == 1
    assert await contents(address, bob) == []


async def test_a_source_finds_its_own(memories, address, name):
    async with MemorydContextProvider(
        address, source_id="notes", store_scope=name, search_scopes=[name]
    ) as notes:
        await turn(memories, "My favourite tea is Darjeeling", "")
        asked = user("Which tea is my favourite?")
        assert (await before(notes, asked)).context_messages == {}
        # The same memory, of both.
        await turn(notes, "My favourite tea is Darjeeling", "")
        for provider, source in ((memories, "memoryd"), (notes, "notes")):
            assert len(given_to_the_model(await before(provider, asked), source)) == 1
    (memory,) = await contents(address, name)
    assert memory.tags == ("memoryd", "notes")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({}, ValueError),
        ({"store_scope": ""}, ValueError),
        ({"search_scopes": [""]}, ValueError),
        ({"search_scopes": "ada"}, TypeError),
        ({"search_scopes": map(str, range(18))}, ValueError),
        ({"store_scope": "a", "source_id": ""}, ValueError),
        ({"store_scope": "a", "source_id": "x" * 65}, ValueError),
        ({"store_scope": "a", "source_id": "a\nb"}, ValueError),
        ({"store_scope": "ä" * 100}, ValueError),
        ({"store_scope": "a", "prefix": ""}, ValueError),
        ({"store_scope": "a", "limit": 0}, ValueError),
    ],
)
def test_wrong_scopes_are_refused(given, error):
    with pytest.raises(error):
        MemorydContextProvider("127.0.0.1:1", **given)


# Agents


class Scripted(FunctionInvocationLayer, ChatMiddlewareLayer, BaseChatClient):
    """Answers what it is told to, and remembers what it was asked."""

    def __init__(self, *answers, conversation_id=None):
        super().__init__()
        self.answers = list(answers)
        self.asked = []
        self.conversation_id = conversation_id

    def _inner_get_response(self, *, messages, stream, **_):
        self.asked.append(texts(messages))
        answer = self.answers.pop(0)
        contents = [Content.from_text(answer) if isinstance(answer, str) else answer]
        if stream:

            async def updates():
                yield ChatResponseUpdate(role="assistant", contents=contents)

            return self._build_response_stream(updates())

        async def response():
            return ChatResponse(
                messages=[Message("assistant", contents)], conversation_id=self.conversation_id
            )

        return response()


async def run(agent, said, session, *, stream):
    if not stream:
        return (await agent.run(said, session=session)).text
    result = agent.run(said, session=session, stream=True)
    assert isinstance(result, ResponseStream)
    return (await result.get_final_response()).text


@pytest.mark.parametrize("stream", [False, True])
async def test_an_agent_remembers(address, name, stream):
    client = Scripted("In Rome.", "In Italy.")
    for said, answer in (("Where is the Pantheon?", "In Rome."), ("And Rome?", "In Italy.")):
        # With providers that know only what is kept.
        async with MemorydHistoryProvider(address, user=name) as history:
            agent = Agent(client, context_providers=[history])
            assert await run(agent, said, AgentSession(session_id="s1"), stream=stream) == answer
            expected = len(client.asked) * 2
            assert len(await history.get_messages("s1")) == expected
    assert client.asked[1] == ["Where is the Pantheon?", "In Rome.", "And Rome?"]


@pytest.mark.parametrize("per_call", [False, True])
async def test_calls_of_tools_are_kept_once(history, per_call):
    @tool(approval_mode="never_require")
    def weather(city: str) -> str:
        """How the weather is."""
        return f"Sun in {city}"

    call = Content.from_function_call("c1", "weather", arguments='{"city": "Rome"}')
    client = Scripted(call, "It is sunny.", "You are welcome.")
    agent = Agent(
        client,
        tools=[weather],
        context_providers=[history],
        require_per_service_call_history_persistence=per_call,
    )
    session = AgentSession(session_id="s1")
    await agent.run("How is Rome?", session=session)
    await agent.run("Thanks", session=session)
    found = await history.get_messages("s1")
    kinds = [content.type for message in found for content in message.contents]
    assert kinds == ["text", "function_call", "function_result", "text", "text", "text"]
    assert client.asked[-1] == ["How is Rome?", "", "", "It is sunny.", "Thanks"]


async def test_an_agent_whose_service_has_the_history_gets_it_once(history):
    client = Scripted("In Rome.", "In Italy.", conversation_id="conv_1")
    agent = Agent(client, context_providers=[history])
    session = AgentSession(session_id="s1")
    await agent.run("Where is the Pantheon?", session=session)
    assert session.service_session_id == "conv_1"
    await agent.run("And Rome?", session=session)
    assert client.asked == [["Where is the Pantheon?"], ["And Rome?"]]
    assert texts(await history.get_messages("s1")) == [
        *("Where is the Pantheon?", "In Rome."),
        *("And Rome?", "In Italy."),
    ]


async def test_a_conversation_by_default_is_the_service_s_too(history):
    await turn(history, "hello", "hi")
    client = Scripted("yes")
    agent = Agent(client, context_providers=[history], default_options={"conversation_id": "c"})
    await agent.run("again", session=AgentSession(session_id="s1"))
    assert client.asked == [["again"]]


async def test_an_agent_knows_what_was_said_in_another_session(memories, history):
    client = Scripted("A fine tea.", "Darjeeling.")
    agent = Agent(client, context_providers=[history, memories])
    await agent.run("My favourite tea is Darjeeling", session=agent.create_session(session_id="1"))
    await agent.run("Which tea is my favourite?", session=agent.create_session(session_id="2"))
    remembered, asked = client.asked[-1]
    assert "My favourite tea is Darjeeling" in remembered
    assert asked == "Which tea is my favourite?"
    # What is remembered is of the provider of memories, and so of no history.
    assert texts(await history.get_messages("2")) == ["Which tea is my favourite?", "Darjeeling."]
