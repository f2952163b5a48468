"""The conversation store beside Pydantic AI's own in memory, and what that one cannot do."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_ai import Agent, BinaryContent, DeferredToolRequests
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    InMemoryConversationStore,
)
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import (
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RunUsage

from memoryd.client import DocumentClient, InvalidArgument, SessionClient
from memoryd.integrations.pydantic_ai import MemorydConversationStore


@pytest.fixture
async def store(address, name):
    async with MemorydConversationStore(address, user=name) as store:
        yield store


@pytest.fixture
async def documents(address):
    async with DocumentClient(address) as documents:
        yield documents


def said(text):
    return ModelRequest(parts=[UserPromptPart(text)])


def talk(*texts, name="c"):
    return Conversation(messages=[said(text) for text in texts], conversation_id=name)


def texts(messages):
    return [message.parts[0].content for message in messages]


def entries(*names, parent=None):
    made = []
    for name in names:
        made.append(ConversationEntry(id=name, parent_id=parent, message=said(name)))
        parent = name
    return made


def record(head, name="c", **more):
    return ConversationRecord(conversation_id=name, head_id=head, **more)


async def kept(documents, name):
    """The ids of the entries that the service has."""
    session = f"pydantic_ai:{name}"
    found = documents.list(session, ["entries"], with_bodies=False)
    return [document.key async for document in found]


# Saving and loading


async def test_save_and_load(store):
    assert await store.load("c") is None
    conversation = talk("1", "2")
    stored = await store.save(conversation)
    assert texts(entry.message for entry in stored) == ["1", "2"]
    loaded = await store.load("c")
    assert loaded.messages == conversation.messages
    assert loaded.revision == conversation.revision
    loaded.messages.append(said("3"))
    added = await store.save(loaded)
    assert [entry.parent_id for entry in added] == [stored[1].id]
    assert await store.save(loaded) == []
    assert texts((await store.load("c")).messages) == ["1", "2", "3"]
    assert texts((await store.load("c", limit=2)).messages) == ["2", "3"]
    assert (await store.load("c", limit=0)).messages == []
    listed = await store.load_entries("c")
    assert [entry.id for entry in listed] == [entry.id for entry in [*stored, *added]]
    assert await store.read_entry(stored[0].id) == stored[0]
    with pytest.raises(UserError):
        await store.load("c", limit=-1)


MESSAGES = [
    said("naïve 😀 \u0000"),
    ModelRequest(
        parts=[UserPromptPart(["see", BinaryContent(b"\x00\xff\xfe", media_type="audio/wav")])]
    ),
    ModelResponse(
        parts=[
            ThinkingPart("hm", signature="s"),
            TextPart("text"),
            ToolCallPart("f", {"n": 9007199254740993, "deep": [{"x": None}]}, tool_call_id="1"),
        ],
        model_name="test",
    ),
    ModelRequest(parts=[ToolReturnPart("f", {"x": 1.5}, tool_call_id="1")]),
]


async def test_messages_come_back_as_they_were(store):
    conversation = Conversation(messages=list(MESSAGES), conversation_id="c")
    await store.save(conversation)
    assert (await store.load("c")).messages == MESSAGES


async def test_records_come_back_as_they_were(store):
    calls = DeferredToolRequests(
        approvals=[ToolCallPart("f", {"x": 1}, tool_call_id="1")], metadata={"1": {"why": "money"}}
    )
    written = record(
        None,
        usage=RunUsage(requests=2, input_tokens=2**60, details={"a": 1}),
        deferred_tool_requests=calls,
        scope="ä" * 300,
        forked_from="x",
        forked_at="y",
        branches=["b", "a"],
    )
    await store.write_record(written, expected_revision=None)
    assert await store.read_record("c") == written
    assert await store.read_records(scope="ä" * 300) == [written]


async def test_what_is_not_there(store):
    assert await store.read_record("absent") is None
    assert await store.read_records() == []
    assert await store.read_history(None) == []
    with pytest.raises(LookupError, match="absent"):
        await store.read_entry("absent")
    with pytest.raises(LookupError, match="absent"):
        await store.read_history("absent")
    await store.delete("absent")


async def test_a_long_history_takes_few_calls(store, documents, name):
    conversation = talk(*map(str, range(700)))
    await store.save(conversation)
    for number in range(700, 760):
        conversation.messages.append(said(str(number)))
        await store.save(conversation)
    assert texts((await store.load("c")).messages) == list(map(str, range(760)))
    for limit in (1, 32, 33, 34, 100):
        found = (await store.load("c", limit=limit)).messages
        assert texts(found) == list(map(str, range(760)))[-limit:]
    assert len(await kept(documents, name)) == 760


async def test_more_than_a_call_takes(store, documents, name):
    conversation = talk(*(f"{number}" for number in range(2_300)), "x" * 900_000, "y" * 900_000)
    await store.save(conversation)
    assert len((await store.load("c")).messages) == 2_302
    # What a conflict leaves is removed.
    with pytest.raises(ConversationConflict):
        await store.write_record(
            record("e1999", "d"),
            new_entries=[
                *entries("lost", parent="gone"),
                *entries(*(f"e{n}" for n in range(2_000))),
            ],
            expected_revision=None,
        )
    assert len(await kept(documents, name)) == 2_302
    await store.delete("c")
    assert await kept(documents, name) == []


async def test_too_large_a_message_is_refused_and_nothing_is_kept(store, documents, name):
    with pytest.raises(InvalidArgument):
        await store.save(talk("1", "x" * 1_100_000))
    assert await store.load("c") is None
    assert await kept(documents, name) == []


async def test_it_never_expires_and_a_user_is_one_session(store, documents, address, name):
    await store.save(talk("1", name="a"))
    await store.save(talk("2", name="b"))
    async with SessionClient(address) as sessions:
        found = [session.session_id async for session in sessions.list(f"pydantic_ai:{name}")]
    assert found == [f"pydantic_ai:{name}"]
    listed = [document async for document in documents.list(found[0])]
    assert len(listed) == 4
    assert {(document.ttl, document.expire_time) for document in listed} == {(None, None)}
    async with MemorydConversationStore(address, user=f"{name}-2") as other:
        assert await other.load("a") is None


@pytest.mark.parametrize("given", [{"user": ""}, {"user": "x" * 255}, {"user": "a", "prefix": ":"}])
def test_wrong_names_are_refused(given):
    with pytest.raises(ValueError, match=r"user|255|prefix"):
        MemorydConversationStore("127.0.0.1:1", **given)


# Conflicts


async def test_a_stale_conversation_is_a_conflict(store):
    await store.save(talk("1"))
    one, other = await store.load("c"), await store.load("c")
    one.messages.append(said("2"))
    other.messages.append(said("3"))
    await store.save(one)
    with pytest.raises(ConversationConflict) as raised:
        await store.save(other)
    assert raised.value.conversation_id == "c"
    with pytest.raises(ConversationConflict):
        await store.save(talk("new"))
    with pytest.raises(ConversationConflict):
        await store.branch("c", at=0, expected_revision=other.revision)
    with pytest.raises(ConversationConflict):
        await store.delete_record("c", expected_revision=other.revision)
    assert texts((await store.load("c")).messages) == ["1", "2"]
    await store.delete("c")
    with pytest.raises(ConversationConflict):
        await store.save(one)
    with pytest.raises(ConversationConflict):
        await store.delete_record("c", expected_revision=one.revision)


@pytest.mark.parametrize(
    ("head", "new"),
    [("absent", []), ("absent", entries("a")), ("a", entries("a", parent="absent"))],
)
async def test_an_entry_that_is_gone_is_a_conflict(store, documents, name, head, new):
    with pytest.raises(ConversationConflict):
        await store.write_record(record(head), new_entries=new, expected_revision=None)
    assert await store.read_record("c") is None
    assert await kept(documents, name) == []


async def test_one_of_many_writers_saves(store):
    await store.save(talk("1"))
    loaded = [await store.load("c") for _ in range(5)]
    for number, conversation in enumerate(loaded):
        conversation.messages.append(said(f"by {number}"))
    results = await asyncio.gather(*map(store.save, loaded), return_exceptions=True)
    failed = [result for result in results if isinstance(result, ConversationConflict)]
    assert (len(failed), len(results)) == (4, 5)
    assert len((await store.load("c")).messages) == 2


async def test_who_conflicts_leaves_no_entries(store, documents, name):
    await store.save(talk("1"))
    with pytest.raises(ConversationConflict):
        await store.write_record(record("b"), new_entries=entries("b"), expected_revision="other")
    assert len(await kept(documents, name)) == 1


async def test_forks_at_the_same_time(store):
    await store.save(talk("1", "2"))
    forks = await asyncio.gather(*(store.fork("c", at=1) for _ in range(8)))
    assert [texts(fork.messages) for fork in forks] == [["1"]] * 8
    assert len(await store.list_conversations()) == 9


async def test_a_fork_while_its_source_is_deleted_is_whole_or_a_conflict(store):
    for turn in range(5):
        await store.save(talk("1", "2", name=f"{turn}"))
        fork, _ = await asyncio.gather(
            store.fork(f"{turn}", new_conversation_id=f"{turn}f"),
            store.delete(f"{turn}"),
            return_exceptions=True,
        )
        assert await store.load(f"{turn}") is None
        if isinstance(fork, Conversation):
            assert texts((await store.load(f"{turn}f")).messages) == ["1", "2"]
        else:
            assert isinstance(fork, UserError)  # a conflict, or it was gone before
            assert await store.load(f"{turn}f") is None


async def test_a_fork_that_goes_on_while_its_source_is_deleted_keeps_all(store):
    for turn in range(5):
        await store.save(talk("1", "2", name=f"{turn}"))
        fork = await store.fork(f"{turn}", new_conversation_id=f"{turn}f")

        async def go_on(fork=fork):
            for text in ("3", "4", "5"):
                fork.messages.append(said(text))
                await store.save(fork)

        await asyncio.gather(go_on(), store.delete(f"{turn}"))
        assert texts((await store.load(f"{turn}f")).messages) == list("12345")


# Branches, forks, deletion


async def test_branches(store):
    conversation = talk("1", "2", "3")
    saved = await store.save(conversation)
    branched = await store.branch("c", at=1, expected_revision=conversation.revision)
    assert texts(branched.messages) == ["1"]
    branched.messages.append(said("2b"))
    (new,) = await store.save(branched)
    assert new.parent_id == saved[0].id
    assert (await store.read_record("c")).branches == [saved[2].id]
    back = await store.branch("c", from_entry=saved[2].id, expected_revision=branched.revision)
    assert texts(back.messages) == ["1", "2", "3"]
    assert (await store.read_record("c")).branches == [new.id]
    with pytest.raises(UserError):
        await store.branch("c", from_entry="absent", expected_revision=back.revision)


async def test_a_rewritten_history_branches(store):
    conversation = talk("1", "2", "3")
    saved = await store.save(conversation)
    messages = [conversation.messages[0], said("changed")]
    rewritten = Conversation(messages=messages, conversation_id="c", revision=conversation.revision)
    (new,) = await store.save(rewritten)
    assert new.parent_id == saved[0].id
    assert (await store.read_record("c")).branches == [saved[2].id]


async def test_deleting_keeps_what_forks_reach(store, documents, name):
    saved = await store.save(talk("1", "2", "3"))
    fork = await store.fork("c", at=2)
    found = await store.read_record(fork.conversation_id)
    assert (found.forked_from, found.forked_at) == ("c", saved[1].id)
    await store.delete("c")
    assert await store.load("c") is None
    assert texts((await store.load(fork.conversation_id)).messages) == ["1", "2"]
    assert sorted(await kept(documents, name)) == sorted(entry.id for entry in saved[:2])
    await store.delete(fork.conversation_id)
    assert await kept(documents, name) == []


async def test_deleting_keeps_branches_of_others(store, documents, name):
    conversation = talk("1", "2")
    await store.save(conversation)
    fork = await store.fork("c", new_conversation_id="d")
    await store.branch("d", at=1, expected_revision=fork.revision)
    await store.delete("c")
    assert len(await kept(documents, name)) == 2
    branches = (await store.read_record("d")).branches
    assert texts(entry.message for entry in await store.read_history(branches[0])) == ["1", "2"]


async def test_scopes(store):
    await store.save(talk("1", name="a"), scope="ada")
    await store.save(talk("2", name="b"), scope="bob")
    assert await store.load("a", scope="bob") is None
    await store.delete("a", scope="bob")
    assert texts((await store.load("a", scope="ada")).messages) == ["1"]
    listed = await store.list_conversations(scope="bob")
    assert [each.conversation_id for each in listed] == ["b"]


async def test_the_last_updated_comes_first(store):
    times = record(None).updated_at
    for number, age in enumerate((3, 1, 2)):
        updated_at = times - timedelta(hours=age)
        await store.write_record(
            record(None, f"{number}", updated_at=updated_at), expected_revision=None
        )
    listed = await store.list_conversations()
    assert [each.conversation_id for each in listed] == ["1", "2", "0"]
    listed = await store.list_conversations(limit=2)
    assert [each.conversation_id for each in listed] == ["1", "2"]
    assert await store.list_conversations(limit=0) == []


async def test_many_event_loops(store):
    def work(number):
        asyncio.run(store.save(talk("1", name=f"{number}")))

    await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(4)))
    assert len(await store.list_conversations()) == 4


async def test_an_agent_goes_on(store):
    agent = Agent(TestModel(custom_output_text="Hello"))
    conversation = await store.load("c") or Conversation(conversation_id="c")
    await store.save(await agent.run("Hi", conversation=conversation))
    conversation = await store.load("c")
    result = await agent.run("Again", conversation=conversation)
    await store.save(result)
    loaded = await store.load("c")
    assert loaded.messages == result.all_messages()
    assert len(loaded.messages) == 4
    assert loaded.usage.requests == 2


# As Pydantic AI's own store in memory answers

NAMES = st.sampled_from(["a", "b"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), NAMES, st.integers(0, 3)),
        st.tuples(st.just("rewrite"), NAMES, st.integers(0, 3)),
        st.tuples(st.just("branch"), NAMES, st.integers(0, 4)),
        st.tuples(st.just("return"), NAMES, st.integers(0, 5)),
        st.tuples(st.just("fork"), NAMES, st.integers(0, 4)),
        st.tuples(st.just("delete"), NAMES, st.just(0)),
    ),
    max_size=10,
)


class Script:
    """Steps on a store, with what each shows of it."""

    def __init__(self, store):
        self.store = store
        self.entries = []

    async def shown(self):
        listed = await self.store.list_conversations()
        return sorted([await self.state(each) for each in listed], key=str)

    async def state(self, each):
        history = await self.store.load_entries(each.conversation_id)
        branches = [
            texts(e.message for e in await self.store.read_history(b)) for b in each.branches
        ]
        return each.conversation_id, texts(entry.message for entry in history), branches

    async def step(self, number, kind, name, count):
        try:
            await getattr(self, f"_{kind}")(number, name, count)
        except UserError as error:
            return type(error)
        return await self.shown()

    async def _add(self, number, name, count):
        conversation = await self.store.load(name) or Conversation(conversation_id=name)
        conversation.messages += [said(f"{number}-{each}") for each in range(count)]
        self.entries += await self.store.save(conversation)

    async def _rewrite(self, number, name, count):
        loaded = await self.store.load(name)
        messages = [*(loaded.messages[:count] if loaded else []), said(f"{number}")]
        revision = loaded.revision if loaded else None
        self.entries += await self.store.save(
            Conversation(messages=messages, conversation_id=name, revision=revision)
        )

    async def _branch(self, _, name, count):
        loaded = await self.store.load(name)
        revision = loaded.revision if loaded else None
        await self.store.branch(name, at=count, expected_revision=revision)

    async def _return(self, _, name, count):
        loaded = await self.store.load(name)
        revision = loaded.revision if loaded else None
        entry_id = self.entries[count].id if count < len(self.entries) else "absent"
        await self.store.branch(name, from_entry=entry_id, expected_revision=revision)

    async def _fork(self, number, name, count):
        await self.store.fork(name, at=count, new_conversation_id=f"{name}{number % 2}")

    async def _delete(self, _, name, __):
        await self.store.delete(name)


@settings(
    max_examples=25,
    deadline=None,
    # Each script deletes the conversations that it has from the one before.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_a_script_has_the_same_results(address, name, steps):
    async def work():
        async with MemorydConversationStore(address, user=name) as store:
            for each in await store.list_conversations():
                await store.delete(each.conversation_id)
            ours, theirs = Script(store), Script(InMemoryConversationStore())
            for number, step in enumerate(steps):
                expected = await theirs.step(number, *step)
                assert await ours.step(number, *step) == expected, step

    asyncio.run(work())
