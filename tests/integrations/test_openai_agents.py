"""What the OpenAI Agents SDK's own tests of its sessions ask, in meaning, and more."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest
from agents import Agent, RunConfig, Runner, SQLiteSession, function_tool, set_tracing_disabled
from agents.memory import Session, SessionSettings
from agents.testing import ScriptedModel, assistant_message, function_call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memoryd.client import ConversationClient, DeadlineExceeded, InvalidArgument, SessionClient
from memoryd.integrations.openai_agents import MemorydSession

set_tracing_disabled(True)


@pytest.fixture
async def session(address, name):
    async with MemorydSession("support-1", address, user=name) as session:
        yield session


def said(*texts):
    return [{"role": "user", "content": text} for text in texts]


def contents(items):
    return [item["content"] for item in items]


# Items


async def test_it_is_a_session_of_the_sdk(session):
    assert isinstance(session, Session)
    assert session.session_id == "support-1"


async def test_add_get_pop_clear(session):
    assert await session.get_items() == []
    assert await session.pop_item() is None
    await session.clear_session()
    items = [*said("Hello"), {"role": "assistant", "content": "Hi there!"}, *said("How are you?")]
    await session.add_items(items)
    assert await session.get_items() == items
    assert await session.pop_item() == items[2]
    assert await session.get_items() == items[:2]
    assert await session.pop_item() == items[1]
    assert await session.pop_item() == items[0]
    assert await session.pop_item() is None
    await session.add_items(items)
    await session.clear_session()
    assert await session.get_items() == []
    await session.add_items(items[:1])
    assert await session.get_items() == items[:1]


async def test_to_add_nothing_makes_nothing(session, address, name):
    await session.add_items([])
    assert await session.get_items() == []
    async with SessionClient(address) as sessions:
        found = [each.session_id async for each in sessions.list(f"openai:{name}")]
    assert found == []


@pytest.mark.parametrize(
    ("limit", "expected"), [(2, "56"), (4, "3456"), (10, "123456"), (0, ""), (None, "123456")]
)
async def test_limits(session, limit, expected):
    await session.add_items(said(*"123456"))
    assert "".join(contents(await session.get_items(limit))) == expected
    assert "".join(contents(await session.get_items(limit=limit))) == expected


@pytest.mark.parametrize("given", [SessionSettings(limit=2), {"limit": 2}])
async def test_the_limit_of_the_settings(address, name, given):
    async with MemorydSession("s", address, user=name, session_settings=given) as session:
        assert session.session_settings == SessionSettings(limit=2)
        await session.add_items(said(*"123"))
        assert contents(await session.get_items()) == ["2", "3"]
        assert contents(await session.get_items(1)) == ["3"]
        session.session_settings = None
        assert contents(await session.get_items()) == ["1", "2", "3"]


async def test_settings_by_default(session):
    assert session.session_settings == SessionSettings()


ITEMS = [
    {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "…"}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"n": 9007199254740993}'},
    {"type": "function_call_output", "call_id": "c", "output": "naïve 😀 \u0000 \ud800"},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "O'B"}]},
    {"n": 9007199254740993, "f": 1.10, "big": 2**70, "tiny": 5e-324, "none": None, "deep": [{}]},
    {},
]


async def test_items_come_back_as_they_were(session):
    await session.add_items(ITEMS)
    found = await session.get_items()
    assert found == ITEMS
    assert repr(found) == repr(ITEMS)
    assert await session.pop_item() == {}


@pytest.mark.parametrize(
    ("item", "error"), [({"x": math.nan}, ValueError), ({"x": {1}}, TypeError)]
)
async def test_what_is_no_json_is_refused_and_nothing_is_added(session, item, error):
    with pytest.raises(error):
        await session.add_items([*said("a"), item])
    assert await session.get_items() == []


@pytest.mark.parametrize("items", [said(*["x"] * 1_001), said("a", "x" * 1_100_000)])
async def test_too_much_is_refused_as_a_whole(session, items):
    with pytest.raises(InvalidArgument):
        await session.add_items(items)
    assert await session.get_items() == []


async def test_long_histories(session):
    for number in range(3):
        await session.add_items(said(*(f"{number}-{each}" for each in range(900))))
    found = contents(await session.get_items())
    assert (len(found), found[0], found[-1]) == (2_700, "0-0", "2-899")
    assert contents(await session.get_items(1_500)) == found[-1_500:]


# Sessions


async def test_sessions_are_apart(address, name):
    async with (
        MemorydSession("Foo", address, user=name) as one,
        MemorydSession("foo", address, user=name) as other,
        MemorydSession("Foo", address, user=f"{name}-2") as another,
    ):
        await one.add_items(said("1"))
        await other.add_items(said("2", "3"))
        assert await other.pop_item() == said("3")[0]
        assert (contents(await one.get_items()), contents(await other.get_items())) == (
            ["1"],
            ["2"],
        )
        assert await another.get_items() == []
        await one.clear_session()
        assert contents(await other.get_items()) == ["2"]


async def test_names_of_any_letters(address, name):
    for odd in ("ä b/c", "tenant ", "tenant", "a:b@c", "_", "..", "\u65e5\u672c"):
        async with MemorydSession(odd, address, user=f"{name}/{odd}") as session:
            assert await session.get_items() == []
            await session.add_items(said(odd))
            assert contents(await session.get_items()) == [odd]


@pytest.mark.parametrize(
    "given",
    [
        {"session_id": "", "user": "a"},
        {"session_id": "a", "user": ""},
        {"session_id": "x" * 256, "user": "a"},
        {"session_id": "a", "user": "ä" * 100},
        {"session_id": "a", "user": "a", "prefix": "a:b"},
    ],
)
def test_wrong_names_are_refused(given):
    with pytest.raises(ValueError, match=r"at least one|more than 255|prefix"):
        MemorydSession(target="127.0.0.1:1", **given)


async def test_it_never_expires_and_a_user_is_one_session(session, address, name):
    await session.add_items([*said("a"), {"type": "reasoning", "id": "r", "summary": []}])
    async with ConversationClient(address) as conversations, SessionClient(address) as sessions:
        found = await conversations.get(f"openai:{name}", "openai:support-1")
        assert (found.ttl, found.expire_time) == (None, None)
        messages = (await conversations.window(f"openai:{name}", "openai:support-1")).messages
        assert [message.role for message in messages] == ["user", "unspecified"]
        assert {message.raw_format for message in messages} == {"openai.item"}
        listed = [each.session_id async for each in sessions.list(f"openai:{name}")]
        assert listed == [f"openai:{name}"]


async def test_messages_of_others_are_no_items(session, address, name):
    """As the SDK's sessions treat rows that they cannot read."""
    async with ConversationClient(address) as conversations:
        place = f"openai:{name}", "openai:support-1"
        await session.add_items(said("1", "2", "3"))
        await conversations.append(*place, user="not an item")
        assert contents(await session.get_items()) == ["1", "2", "3"]
        assert contents(await session.get_items(2)) == ["2", "3"]
        assert contents(await session.get_items(5)) == ["1", "2", "3"]
        assert await session.pop_item() == said("3")[0]
        await session.clear_session()
        await conversations.append(*place, user="not an item")
        assert await session.get_items(1) == []
        assert await session.pop_item() is None


# Callers at the same time, and wires that break


async def test_items_added_at_the_same_time(session):
    texts = [f"{number}" for number in range(25)]
    await asyncio.gather(*(session.add_items(said(text, text)) for text in texts))
    found = contents(await session.get_items())
    assert sorted(found) == sorted(texts * 2)
    # Those of one call stand together.
    assert found[::2] == found[1::2]


async def test_the_same_items_added_at_the_same_time_are_different(session):
    await asyncio.gather(*(session.add_items(said("yes")) for _ in range(5)))
    assert contents(await session.get_items()) == ["yes"] * 5


async def test_each_item_is_popped_once(session, address, name):
    await session.add_items(said(*"12345"))
    async with MemorydSession("support-1", address, user=name) as other:
        popped = await asyncio.gather(*(each.pop_item() for each in (session, other) * 4))
    assert sorted(contents(filter(None, popped))) == list("12345")


async def test_one_session_in_many_loops(session):
    barrier = threading.Barrier(4)

    def work(number):
        barrier.wait()
        asyncio.run(session.add_items(said(f"{number}")))

    await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(4)))
    assert sorted(contents(await session.get_items())) == list("0123")


async def until(session, count):
    """Wait until the service has so many items."""
    async with asyncio.timeout(60):
        while len(await session.get_items()) != count:
            pass


CHANGES = {
    "add": (lambda session: session.add_items(said("3")), 3),
    "pop": (lambda session: session.pop_item(), 1),
    "clear": (lambda session: session.clear_session(), 0),
}


@pytest.fixture
async def wired(wire, name):
    """The same session, over a wire."""
    async with MemorydSession("support-1", wire.address, user=name, timeout=60) as session:
        yield session


async def answer_held(session, wire, wired, change, count):
    """Begin a change, and hold its answer while it is committed."""
    await session.add_items(said("1", "2"))
    await wired.get_items()
    wire.hold()
    task = asyncio.create_task(change(wired))
    await until(session, count)
    return task


@pytest.mark.parametrize("kind", CHANGES)
async def test_who_is_cancelled_learns_it_once_the_change_is_done(session, wire, wired, kind):
    change, count = CHANGES[kind]
    task = await answer_held(session, wire, wired, change, count)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    wire.release()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await wired.get_items()) == count


@pytest.mark.parametrize("kind", ["add", "pop"])
async def test_a_change_whose_answer_is_lost_is_done_once(session, wire, wired, kind):
    change, count = CHANGES[kind]
    task = await answer_held(session, wire, wired, change, count)
    wire.cut()
    assert await task == (said("2")[0] if kind == "pop" else None)
    assert len(await session.get_items()) == count


async def test_items_added_again_after_an_error_are_added_once(session, wire, name):
    async with MemorydSession("support-1", wire.address, user=name, timeout=5) as hasty:
        task = await answer_held(session, wire, hasty, CHANGES["add"][0], 3)
        with pytest.raises(DeadlineExceeded):
            await task
        wire.release()
        await hasty.add_items(said("3"))
        assert contents(await session.get_items()) == ["1", "2", "3"]
        # Said again, and no retry.
        await hasty.add_items(said("3"))
        assert contents(await session.get_items()) == ["1", "2", "3", "3"]


# Runs


async def run(method, agent, text, session, **more):
    if method == "run":
        return await Runner.run(agent, text, session=session, **more)
    if method == "run_sync":
        return await asyncio.to_thread(run_sync, agent, text, session, more)
    result = Runner.run_streamed(agent, text, session=session, **more)
    async for _ in result.stream_events():
        pass
    return result


def run_sync(agent, text, session, more):
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return Runner.run_sync(agent, text, session=session, **more)
    finally:
        loop.close()


METHODS = ["run", "run_sync", "run_streamed"]


def agent_that_says(*steps, **more):
    return Agent(name="test", model=ScriptedModel(steps), **more)


@pytest.mark.parametrize("method", METHODS)
async def test_an_agent_remembers(session, address, name, method):
    agent = agent_that_says([assistant_message("San Francisco")], [assistant_message("California")])
    result = await run(method, agent, "What city is the Golden Gate Bridge in?", session)
    assert result.final_output == "San Francisco"
    # From a session that knows only what is stored.
    async with MemorydSession("support-1", address, user=name) as again:
        assert (
            await run(method, agent, "What state is it in?", again)
        ).final_output == "California"
    given = agent.model.calls[-1].input
    assert "Golden Gate Bridge" in str(given[0])
    assert "San Francisco" in str(given[1])
    assert given[2]["content"] == "What state is it in?"
    assert len(await session.get_items()) == 4


async def test_another_session_knows_nothing(session, address, name):
    agent = agent_that_says([assistant_message("I like cats")], [assistant_message("?")])
    await run("run", agent, "I like cats", session)
    async with MemorydSession("support-2", address, user=name) as other:
        await run("run", agent, "What do I like?", other)
    assert len(agent.model.calls[-1].input) == 1


async def test_calls_of_tools_are_kept(session):
    @function_tool
    def weather(city: str) -> str:
        return f"Sun in {city}"

    agent = agent_that_says(
        [function_call("weather", {"city": "Rome"}, call_id="c1")],
        [assistant_message("It is sunny.")],
        [assistant_message("You are welcome.")],
        tools=[weather],
    )
    await run("run", agent, "How is Rome?", session)
    await run("run", agent, "Thanks", session)
    kinds = [item.get("type", item.get("role")) for item in agent.model.calls[-1].input]
    assert kinds == ["user", "function_call", "function_call_output", "message", "user"]
    assert "Sun in Rome" in str(await session.get_items())


async def test_a_callback_prepares_the_input(session):
    await session.add_items([*said("Hello there."), {"role": "assistant", "content": "Hi."}])
    agent = agent_that_says([assistant_message("A model.")])

    def users_only(history, new):
        return [item for item in history if item["role"] == "user"] + new

    config = RunConfig(session_input_callback=users_only)
    await run("run", agent, said("Who are you?"), session, run_config=config)
    assert contents(agent.model.calls[-1].input) == ["Hello there.", "Who are you?"]
    assert len(await session.get_items()) == 4


async def test_the_limit_of_a_run(session):
    await session.add_items(said(*"1234"))
    agent = agent_that_says([assistant_message("ok")])
    config = RunConfig(session_settings=SessionSettings(limit=2))
    await run("run", agent, "5", session, run_config=config)
    assert contents(agent.model.calls[-1].input) == ["3", "4", "5"]


# As the SDK's own session answers

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add_items"), st.lists(st.sampled_from(ITEMS), max_size=3)),
        st.tuples(st.just("get_items"), st.none() | st.integers(0, 5)),
        st.tuples(st.just("pop_item")),
        st.tuples(st.just("clear_session")),
    ),
    max_size=12,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_a_script_has_the_same_results(address, name, steps):
    async def work():
        theirs = SQLiteSession("s")
        async with MemorydSession("s", address, user=name) as ours:
            await ours.clear_session()
            for method, *arguments in steps:
                expected = await getattr(theirs, method)(*arguments)
                assert await getattr(ours, method)(*arguments) == expected, method
            assert await ours.get_items() == await theirs.get_items()
        theirs.close()

    asyncio.run(work())
