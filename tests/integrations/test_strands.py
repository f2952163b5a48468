"""What Strands' own tests of its memory stores ask, in meaning, and more.

Of its stores in a file and over Bedrock's knowledge bases, and of the manager that uses them.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from strands import Agent
from strands.memory import (
    AggregateMemoryError,
    ExtractionConfig,
    ExtractionResult,
    InvocationTrigger,
    MemoryAddOptions,
    MemoryManager,
    MemorySearchOptions,
    SearchOptions,
)
from strands.models import Model

from memoryd.client import InvalidArgument, MemoryClient, SessionClient
from memoryd.integrations.strands import MemorydMemoryStore


@pytest.fixture
async def store(address, name):
    async with MemorydMemoryStore(
        "notes", address, store_scope=name, search_scopes=[name], min_relevance=0.4
    ) as store:
        yield store


async def memories(address, name):
    """All memories of a scope, in the order in which they were stored."""
    async with MemoryClient(address) as client:
        return [memory async for memory in client.list(f"strands:{name}")]


async def contents_in(address, name):
    return [memory.content for memory in await memories(address, name)]


def contents(entries):
    return [entry.content for entry in entries]


# The store


async def test_fields_of_a_store(address, name):
    extraction = ExtractionConfig(trigger=InvocationTrigger())
    async with (
        MemorydMemoryStore(
            "notes",
            address,
            store_scope=name,
            description="my notes",
            max_search_results=7,
            extraction=extraction,
        ) as full,
        MemorydMemoryStore("notes", address, search_scopes=[name]) as plain,
        MemorydMemoryStore("notes", address, store_scope=name, extraction=True) as short,
    ):
        assert (full.name, full.description, full.max_search_results) == ("notes", "my notes", 7)
        assert full.writable
        assert full.extraction is extraction
        assert (plain.description, plain.max_search_results, plain.extraction) == (None, None, None)
        assert not plain.writable
        assert short.extraction is True


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"name": "", "store_scope": "a"}, ValueError),
        ({"name": "   ", "store_scope": "a"}, ValueError),
        ({"name": "x" * 65, "store_scope": "a"}, ValueError),
        ({"name": "a\nb", "store_scope": "a"}, ValueError),
        ({"name": "a"}, ValueError),
        ({"name": "a", "store_scope": ""}, ValueError),
        ({"name": "a", "search_scopes": ["b", ""]}, ValueError),
        ({"name": "a", "search_scopes": "ada"}, TypeError),
        ({"name": "a", "search_scopes": map(str, range(18))}, ValueError),
        ({"name": "a", "store_scope": "ä" * 100}, ValueError),
        ({"name": "a", "store_scope": "a", "prefix": "a:b"}, ValueError),
        ({"name": "a", "store_scope": "a", "max_search_results": 0}, ValueError),
        ({"name": "a", "store_scope": "a", "max_search_results": -5}, ValueError),
    ],
)
def test_wrong_arguments_are_refused(given, error):
    with pytest.raises(error):
        MemorydMemoryStore(target="127.0.0.1:1", **given)


async def test_nothing_is_added_to_a_store_that_only_searches(address, name):
    async with MemorydMemoryStore("notes", address, search_scopes=[name]) as store:
        with pytest.raises(ValueError, match="not writable"):
            await store.add("a fact")
        with pytest.raises(ValueError, match="not writable"):
            await store.add_messages([user("a fact")])
    assert await memories(address, name) == []


@pytest.mark.parametrize("content", ["", "   ", "\n"])
async def test_empty_content_is_refused(store, content):
    with pytest.raises(ValueError, match="content"):
        await store.add(content)


async def test_what_is_no_memory_is_refused(store):
    with pytest.raises(InvalidArgument, match="store it as several memories"):
        await store.add("x" * 16_385)


async def test_what_is_added_is_found_with_its_metadata(store, address, name):
    metadata = {"source": "user", "n": 1, "f": 1.5, "b": False, "none": None, "deep": {"a": ["x"]}}
    memory_id = await store.add("user prefers dark mode", metadata)
    (memory,) = await memories(address, name)
    assert (memory.memory_id, memory.content) == (memory_id, "user prefers dark mode")
    (entry,) = await store.search("dark mode preferences")
    assert (entry.content, entry.store_name) == ("user prefers dark mode", None)
    relevance = entry.metadata.pop("_relevance_score")
    assert 0.4 <= relevance <= 1
    assert entry.metadata == metadata | {"_memory_id": memory_id}


async def test_the_same_content_is_one_memory(store, address, name):
    first = await store.add("user prefers dark mode", {"a": 1})
    assert await store.add("user prefers dark mode", {"b": 2}) == first
    added = await asyncio.gather(*(store.add("user prefers dark mode") for _ in range(5)))
    assert set(added) == {first}
    (memory,) = await memories(address, name)
    assert memory.metadata == {"a": 1, "b": 2}


@pytest.mark.parametrize("results", [0, -1])
async def test_a_search_for_less_than_one_result_is_refused(store, results):
    with pytest.raises(ValueError, match="max_search_results must be at least 1"):
        await store.search("q", SearchOptions(max_search_results=results))


@pytest.mark.parametrize("query", ["", "   ", "   ...  ", "?!"])
async def test_a_query_without_words_finds_nothing(address, name, query):
    async with MemorydMemoryStore(
        "notes", address, store_scope=name, search_scopes=[name]
    ) as store:
        await store.add("user prefers dark mode")
        assert await store.search(query) == []


async def test_the_best_comes_first(store):
    await store.add("the cat sat on the mat")
    await store.add("the cat chased the dog in the park")
    await store.add("a completely unrelated note")
    results = await store.search("cat dog park")
    assert contents(results) == ["the cat chased the dog in the park", "the cat sat on the mat"]
    scores = [entry.metadata["_relevance_score"] for entry in results]
    assert scores == sorted(scores, reverse=True)


async def test_words_of_any_script(store):
    await store.add("the café in 日本 is naïve")
    assert len(await store.search("café")) == 1
    assert len(await store.search("日本")) == 1
    await store.add("half a pair \ud800")
    assert contents(await store.search("half a pair \ud800")) == ["half a pair ?"]


async def test_how_many_are_found(address, name):
    where = {"store_scope": name, "search_scopes": [name]}
    async with (
        MemorydMemoryStore("notes", address, **where) as store,
        MemorydMemoryStore("notes", address, max_search_results=5, **where) as five,
    ):
        await asyncio.gather(*(store.add(f"match number {number}") for number in range(12)))
        assert len(await store.search("match")) == 10
        assert len(await five.search("match")) == 5
        assert len(await five.search("match", SearchOptions(max_search_results=2))) == 2
        assert len(await five.search("match", SearchOptions(max_search_results=12))) == 12
        assert len(await five.search("match", SearchOptions(max_search_results=1_000))) == 12


async def test_what_one_store_adds_another_of_its_name_finds(store, address, name):
    assert await store.search("anything") == []
    await store.add("user lives in Berlin")
    async with MemorydMemoryStore("notes", address, search_scopes=[name]) as second:
        assert contents(await second.search("where does the user live")) == ["user lives in Berlin"]


def test_one_store_in_many_loops(address, name):
    """As an agent without an event loop has a new one for each run."""
    store = MemorydMemoryStore("notes", address, store_scope=name, search_scopes=[name])

    async def some(tag):
        await asyncio.gather(store.add(f"{tag} one"), store.add(f"{tag} two"))

    for tag in ("first", "second"):
        asyncio.run(some(tag))
    assert len(asyncio.run(memories(address, name))) == 4
    asyncio.run(store.close())


async def test_nothing_expires_and_a_scope_is_one_session(store, address, name):
    await store.add("a fact")
    async with SessionClient(address) as sessions, MemoryClient(address) as client:
        session = await sessions.get(f"strands:{name}")
        assert (session.memories_never_expire, session.memory_limit) == (True, 100_000)
        (memory,) = await memories(address, name)
        assert (memory.expire_time, memory.tags) == (None, ("notes",))
        await client.erase(f"strands:{name}")
    assert await store.search("a fact") == []


async def test_what_is_set_for_a_session_that_is_there_stays(store, address, name):
    async with SessionClient(address) as sessions:
        await sessions.update(f"strands:{name}", memory_limit=10, allow_missing=True)
        for number in range(12):
            await store.add(f"fact number {number}")
        assert (await sessions.get(f"strands:{name}")).memory_limit == 10
    assert len(await memories(address, name)) == 10


# Scopes


async def test_to_store_is_not_to_search(address, name, caplog):
    async with MemorydMemoryStore("notes", address, store_scope=name) as storing:
        await storing.add("user prefers dark mode")
        for _ in range(2):
            assert await storing.search("dark mode") == []
    warnings = [record for record in caplog.records if "no search_scopes" in record.getMessage()]
    assert len(warnings) == 1


async def test_what_one_stores_another_finds_only_where_it_is_asked_to(address, name):
    ada, team, bob = f"{name}-ada", f"{name}-team", f"{name}-bob"
    async with (
        MemorydMemoryStore("n", address, store_scope=ada, search_scopes=[ada, team]) as of_ada,
        MemorydMemoryStore("n", address, store_scope=team, search_scopes=[bob]) as of_bob,
    ):
        await of_ada.add("Ada's favourite tea is Darjeeling")
        await of_bob.add("The team's favourite tea is Assam")
        assert len(await of_ada.search("favourite tea")) == 2
        assert await of_bob.search("favourite tea") == []
    assert len(await memories(address, ada)) == len(await memories(address, team)) == 1
    assert await memories(address, bob) == []


async def test_stores_of_other_names_are_apart(store, address, name):
    async with MemorydMemoryStore(
        "facts", address, store_scope=name, search_scopes=[name]
    ) as facts:
        await store.add("user prefers dark mode")
        assert await facts.search("dark mode") == []
        await facts.add("user prefers dark mode")
        assert len(await facts.search("dark mode")) == 1
        assert len(await store.search("dark mode")) == 1
    assert len(await memories(address, name)) == 1


# Messages


def user(text, **more):
    return {"role": "user", "content": [{"text": text}], **more}


def assistant(text):
    return {"role": "assistant", "content": [{"text": text}]}


async def test_texts_of_messages_are_stored(store, address, name):
    await store.add_messages(
        [
            {"role": "user", "content": [{"text": "I live in Rome"}, {"text": "and like it"}]},
            {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "n"}}]},
            assistant("..."),
            assistant("How nice"),
        ]
    )
    found = {memory.content: memory.metadata for memory in await memories(address, name)}
    assert found == {
        "I live in Rome\nand like it": {"speaker": "user"},
        "How nice": {"speaker": "assistant"},
    }


async def test_messages_stored_again_are_stored_once(store, address, name):
    said = [user("I live in Rome"), assistant("ok"), user("ok")]
    for _ in range(2):
        await store.add_messages(said)
    await asyncio.gather(*(store.add_messages(said) for _ in range(4)))
    assert sorted(await contents_in(address, name)) == ["I live in Rome", "ok"]


async def test_long_messages_are_stored_in_pieces(store, address, name):
    words = " ".join(f"word{number}" for number in range(6_000))
    await store.add_messages([user(words)])
    found = await contents_in(address, name)
    assert sorted(" ".join(found).split()) == sorted(words.split())


async def test_a_message_that_is_no_memory_is_left_out_with_a_warning(store, address, name, caplog):
    await store.add_messages([user("<script>alert(1)</script>"), assistant("That is a script")])
    assert await contents_in(address, name) == ["That is a script"]
    assert "a message is no memory" in caplog.text


CHANGES = {
    "add": lambda store: store.add("I live in Rome"),
    "add_messages": lambda store: store.add_messages([user("I live in Rome")]),
}


@pytest.mark.parametrize("kind", CHANGES)
async def test_what_is_stored_and_not_answered_is_stored_once(wire, address, name, kind):
    async with MemorydMemoryStore("notes", wire.address, store_scope=name, timeout=60) as wired:
        wire.hold_from(b"I live in Rome")
        task = asyncio.create_task(CHANGES[kind](wired))
        async with asyncio.timeout(60):
            while not await memories(address, name):
                pass
        assert not task.done()
        wire.cut()
        await task
    assert await contents_in(address, name) == ["I live in Rome"]


# With the manager


async def test_a_manager_names_the_store_of_what_it_finds(store, address, name):
    manager = MemoryManager(stores=[store], add_tool_config=True)
    await manager.add("user prefers dark mode", MemoryAddOptions(metadata={"a": 1}))
    (entry,) = await manager.search("dark mode", MemorySearchOptions(stores=["notes"]))
    assert (entry.store_name, entry.metadata["a"]) == ("notes", 1)
    assert len(await memories(address, name)) == 1


async def test_a_manager_has_no_tool_to_add_to_a_store_that_only_searches(address, name):
    async with MemorydMemoryStore("notes", address, search_scopes=[name]) as store:
        with pytest.raises(ValueError, match="no writable stores"):
            MemoryManager(stores=[store], add_tool_config=True)
        store.extraction = True
        with pytest.raises(ValueError, match="not writable"):
            MemoryManager(stores=[store])


async def test_an_error_of_the_service_is_one_of_the_manager(store):
    manager = MemoryManager(stores=[store], add_tool_config=True)
    with pytest.raises(AggregateMemoryError) as raised:
        await manager.add("x" * 16_385)
    assert [type(error) for error in raised.value.errors] == [InvalidArgument]


class Scripted(Model):
    """Answers what it is told to: texts, or tools with what they are called with."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def update_config(self, **_):
        raise AssertionError("no agent here changes the model")

    def get_config(self):
        return {}

    def structured_output(self, *_, **__):
        raise AssertionError("no agent here asks for structured output")

    async def stream(self, messages, *_, **__):
        self.asked.append(json.dumps(messages))
        answer = self.answers.pop(0)
        yield {"messageStart": {"role": "assistant"}}
        if isinstance(answer, str):
            yield {"contentBlockDelta": {"delta": {"text": answer}}}
        else:
            tool, given = answer
            yield {"contentBlockStart": {"start": {"toolUse": {"toolUseId": "t", "name": tool}}}}
            yield {"contentBlockDelta": {"delta": {"toolUse": {"input": json.dumps(given)}}}}
        yield {"contentBlockStop": {}}
        reason = "end_turn" if isinstance(answer, str) else "tool_use"
        yield {"messageStop": {"stopReason": reason}}


def agent_with(model, store, **more):
    manager = MemoryManager(stores=[store], **more)
    return Agent(model, memory_manager=manager, callback_handler=None)


async def test_an_agent_adds_and_searches_by_tools(store, address, name):
    model = Scripted(
        ("add_memory", {"entries": ["The user prefers dark mode", "The user lives in Rome"]}),
        "Noted.",
        ("search_memory", {"query": "dark mode"}),
        "Dark.",
    )
    agent = agent_with(model, store, add_tool_config=True, injection=False)
    await agent.invoke_async("I prefer dark mode, and live in Rome")
    assert sorted(await contents_in(address, name)) == [
        "The user lives in Rome",
        "The user prefers dark mode",
    ]
    assert "stored" in model.asked[1]
    await agent.invoke_async("Which mode?")
    assert "_relevance_score" in model.asked[3]
    assert "store_name" in model.asked[3]


def test_an_agent_knows_what_was_said_to_another(address, name):
    """Word for word, and without an event loop of the caller's."""
    where = {"store_scope": name, "search_scopes": [name]}
    for said in ("I prefer dark mode", "Which mode do I prefer?"):
        store = MemorydMemoryStore("notes", address, extraction=True, **where)
        model = Scripted("Noted.")
        agent_with(model, store)(said)
        asyncio.run(store.close())
    assert '<entry source=\\"notes\\">I prefer dark mode</entry>' in model.asked[0]
    found = asyncio.run(contents_in(address, name))
    assert sorted(found) == ["I prefer dark mode", "Noted.", "Which mode do I prefer?"]


class Extracting:
    """Finds the facts that it is told to."""

    def __init__(self, *facts):
        self.facts = facts

    async def extract(self, messages, context=None):  # noqa: ARG002  the manager gives both
        return [ExtractionResult(content=fact) for fact in self.facts]


async def test_facts_that_an_extractor_finds_are_added(address, name):
    extraction = ExtractionConfig(
        trigger=InvocationTrigger(), extractor=Extracting("The user prefers dark mode")
    )
    async with MemorydMemoryStore(
        "notes", address, store_scope=name, extraction=extraction
    ) as store:
        agent = agent_with(Scripted("Noted.", "Noted again."), store)
        for said in ("I prefer dark mode", "I do"):
            await agent.invoke_async(said)
        await agent.memory_manager.flush()
    assert await contents_in(address, name) == ["The user prefers dark mode"]


async def test_a_batch_that_fails_and_is_repeated_is_stored_once(wire, address, name, caplog):
    """Its answer is late, so that the manager saves it again with what follows."""
    async with MemorydMemoryStore(
        "notes", wire.address, store_scope=name, extraction=True, timeout=5
    ) as store:
        agent = agent_with(Scripted("How nice", "Indeed"), store)
        await agent.invoke_async("I live in Rome")
        wire.hold_from(b"I live in Rome")
        await agent.memory_manager.flush()
        assert "memory extraction failed" in caplog.text
        assert "I live in Rome" in await contents_in(address, name)
        wire.release()
        await agent.invoke_async("And like it")
        await agent.memory_manager.flush()
    assert sorted(await contents_in(address, name)) == [
        *("And like it", "How nice"),
        *("I live in Rome", "Indeed"),
    ]
