"""LangGraph's own conformance suite of checkpointers, and what its checkpointers lose."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.base import WRITES_IDX_MAP, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.base import CipherProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from memoryd.client import DocumentClient, SessionClient, sync
from memoryd.integrations.langgraph_checkpoint import MemorydSaver


@pytest.fixture
def saver(address, name):
    with MemorydSaver(address, prefix=name) as saver:
        yield saver


@pytest.mark.parametrize("capability", Capability)
async def test_the_conformance_suite_passes_whole(capability, address, name):
    @checkpointer_test(name=name)
    async def made():
        async with MemorydSaver(address, prefix=name) as saver:
            yield saver

    report = await validate(made, capabilities={capability.value})
    result = report.results[capability.value]
    assert result.detected
    assert result.failures == []
    assert result.passed
    assert result.tests_passed > 0


def config(thread_id: str = "t", checkpoint_id: str | None = None, checkpoint_ns: str = "") -> Any:
    found = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
    return {"configurable": found | ({"checkpoint_id": checkpoint_id} if checkpoint_id else {})}


def checkpoint(values: dict[str, Any] | None = None, version: Any = "1") -> Any:
    values = values or {}
    return empty_checkpoint() | {
        "id": str(uuid6(clock_seq=-1)),
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, version),
    }


def put(saver, values=None, *, thread_id="t", parent=None, version="1", ns="", **metadata):
    one = checkpoint(values, version)
    return saver.put(
        config(thread_id, parent, ns), one, {"step": 0, **metadata}, one["channel_versions"]
    )


def ids(found):
    return [one.config["configurable"]["checkpoint_id"] for one in found]


class State(TypedDict):
    said: Annotated[list[str], operator.add]
    large: bytes


def graph_of(saver):
    """A graph that asks before it goes on, and whose state is large."""

    def first(_: State) -> Any:
        return {"said": ["first"], "large": b"x" * 2_500_000}

    def ask(_: State) -> Any:
        return {"said": [interrupt("go on?")]}

    builder = StateGraph(State)
    builder.add_node("first", first)
    builder.add_node("ask", ask)
    builder.add_edge(START, "first")
    builder.add_edge("first", "ask")
    builder.add_edge("ask", END)
    return builder.compile(checkpointer=saver)


def shape(history):
    """What two checkpointers should have alike."""
    return [
        (one.values.get("said"), len(one.values.get("large", b"")), one.next, one.metadata["step"])
        for one in history
    ]


def test_a_graph_is_interrupted_resumed_and_read_back_as_by_langgraphs_own(saver):
    histories = []
    for each in (InMemorySaver(), saver):
        graph = graph_of(each)
        stopped = graph.invoke({"said": ["hello"]}, config())
        assert [one.value for one in stopped["__interrupt__"]] == ["go on?"]
        done = graph.invoke(Command(resume="yes"), config())
        assert done["said"] == ["hello", "first", "yes"]
        history = list(graph.get_state_history(config()))
        histories.append(shape(history))
        # Another branch from the middle shares what is before it.
        forked = graph.invoke(None, history[2].config)
        assert forked["said"][:2] == ["hello", "first"]
        assert len(list(graph.get_state_history(config()))) > len(history)
        assert graph.get_state(config()).values["large"] == b"x" * 2_500_000
    assert histories[0] == histories[1]


async def test_the_same_without_threads(address, name):
    async with MemorydSaver(address, prefix=name) as saver:
        graph = graph_of(saver)
        await graph.ainvoke({"said": ["hello"]}, config())
        done = await graph.ainvoke(Command(resume="yes"), config())
        assert done["said"] == ["hello", "first", "yes"]
        found = [one async for one in graph.aget_state_history(config(), limit=2)]
        assert [one.metadata["step"] for one in found] == [2, 1]
        with pytest.raises(asyncio.InvalidStateError, match="begins with a"):
            saver.get_tuple(config())


def test_what_a_thread_keeps_never_expires_and_is_of_its_session(saver, address, name):
    put(saver, {"a": [1]}, thread_id="ada/1")
    with sync.DocumentClient(address) as documents:
        found = list(documents.list(f"{name}:ada@2F1"))
    assert {document.namespace[0] for document in found} == {"blobs", "checkpoints"}
    assert all(document.expire_time is None for document in found)


@pytest.mark.parametrize("size", [0, 999_000, 1_000_000, 1_100_000, 3_500_000, 9_000_000])
def test_values_of_any_size_come_back(saver, size):
    value = {"data": b"x" * size}
    stored = put(saver, {"channel": value})
    saver.put_writes(stored, [("channel", value)], "task")
    found = saver.get_tuple(stored)
    assert found.checkpoint["channel_values"] == {"channel": value}
    assert found.pending_writes == [("task", "channel", value)]
    saver.delete_thread("t")
    assert saver.get_tuple(stored) is None


def test_a_large_value_that_takes_anothers_place_is_whole(saver):
    first, second = b"a" * 2_500_000, b"b" * 1_200_000
    stored = put(saver)
    for value in (first, second, first):
        saver.put_writes(stored, [("__interrupt__", value)], "task")
        assert saver.get_tuple(stored).pending_writes == [("task", "__interrupt__", value)]


def test_writes_stay_but_for_those_that_say_how_a_task_stands(saver):
    stored = put(saver)
    saver.put_writes(stored, [("a", 1), ("b", 2)], "task")
    saver.put_writes(stored, [("a", 3), ("b", 4), ("c", 5)], "task")
    special = next(iter(WRITES_IDX_MAP))
    saver.put_writes(stored, [(special, "old")], "task")
    saver.put_writes(stored, [(special, "new")], "task")
    writes = saver.get_tuple(stored).pending_writes
    assert sorted(writes, key=str) == sorted(
        [("task", "a", 1), ("task", "b", 2), ("task", "c", 5), ("task", special, "new")], key=str
    )


def test_writes_come_in_the_order_of_their_tasks(saver):
    stored = put(saver)
    saver.put_writes(stored, [("a", 1)], "task-1", "~b")
    saver.put_writes(stored, [(f"c{n}", n) for n in range(12)], "task-2", "~a")
    found = [(task, channel) for task, channel, _ in saver.get_tuple(stored).pending_writes]
    assert found == [*(("task-2", f"c{n}") for n in range(12)), ("task-1", "a")]


async def test_racing_writes_of_one_task_leave_one_of_each(address, name):
    async with MemorydSaver(address, prefix=name) as saver:
        one = checkpoint()
        stored = await saver.aput(config(), one, {"step": 0}, {})
        await asyncio.gather(
            *(saver.aput_writes(stored, [("a", n), ("b", n)], f"task-{n % 2}") for n in range(16))
        )
        found = await saver.aget_tuple(stored)
        assert [write[:2] for write in found.pending_writes] == [
            ("task-0", "a"),
            ("task-0", "b"),
            ("task-1", "a"),
            ("task-1", "b"),
        ]
        # Each task's writes are those of one caller.
        values = [write[2] for write in found.pending_writes]
        assert values[0] == values[1]
        assert values[2] == values[3]


def test_lists_are_by_namespace_thread_metadata_and_time(saver):
    stored = [put(saver, step=n, source="loop" if n % 2 else "input") for n in range(45)]
    inner = put(saver, ns="child:1|deeper:2")
    elsewhere = put(saver, thread_id="other:thread/é")
    newest_first = [one["configurable"]["checkpoint_id"] for one in reversed(stored)]
    assert ids(saver.list(config())) == newest_first
    assert ids(saver.list(config(), limit=25)) == newest_first[:25]
    assert ids(saver.list(config(), limit=0)) == []
    assert ids(saver.list(config(), before=stored[3])) == newest_first[-3:]
    assert ids(saver.list(config(), filter={"source": "input"}, limit=3)) == newest_first[:6:2]
    assert ids(saver.list(config(), filter={"absent": "x"})) == []
    assert ids(saver.list(stored[7])) == [stored[7]["configurable"]["checkpoint_id"]]
    of_thread = {"configurable": {"thread_id": "t"}}
    assert ids(saver.list(of_thread)) == [*ids([saver.get_tuple(inner)]), *newest_first]
    (of_inner, *_) = saver.list(of_thread)
    assert of_inner.config["configurable"]["checkpoint_ns"] == "child:1|deeper:2"
    everything = list(saver.list(None, limit=2))
    assert [one.config for one in everything] == [elsewhere, inner]


def test_a_list_that_is_given_up_ends(saver):
    for n in range(3):
        put(saver, step=n)
    found = saver.list(config())
    assert next(found).metadata["step"] == 2
    found.close()
    assert ids(saver.list(config()))


def test_deleting_a_run_leaves_what_others_share(saver, address, name):
    shared = {"shared": ["x"]}
    first = put(saver, shared | {"own": ["1"]}, run_id="run-1")
    saver.put_writes(first, [("a", b"y" * 1_500_000)], "task")
    one = checkpoint(shared | {"own": ["2"]})
    one["channel_versions"] = {"shared": "1", "own": "2"}
    parent = first["configurable"]["checkpoint_id"]
    second = saver.put(config("t", parent), one, {"run_id": "run-2"}, {"own": "2"})
    saver.delete_for_runs(["run-1", "absent"])
    assert saver.get_tuple(first) is None
    assert saver.get_tuple(second).checkpoint["channel_values"] == shared | {"own": ["2"]}
    with sync.DocumentClient(address) as documents:
        left = [(one.namespace[0], one.key) for one in documents.list(f"{name}:t")]
    assert sorted(left)[:2] == [("blobs", "1:shared"), ("blobs", "2:own")]
    assert [kind for kind, _ in left] == ["blobs", "blobs", "checkpoints"]


def test_pruning_keeps_the_newest_and_what_it_is_made_of(saver, address, name):
    oldest = put(saver, {"a": ["old"], "d": ["snapshot"]}, version="1")
    middle = saver.put(
        config("t", oldest["configurable"]["checkpoint_id"]),
        checkpoint({"a": ["mid"]}, "2"),
        {"counters_since_delta_snapshot": {"d": [1, 1]}},
        {"a": "2"},
    )
    saver.put_writes(middle, [("d", "delta")], "task")
    newest = saver.put(
        config("t", middle["configurable"]["checkpoint_id"]),
        checkpoint({"a": ["new"]}, "3"),
        {"counters_since_delta_snapshot": {"d": [2, 2]}},
        {"a": "3"},
    )
    saver.prune(["t"])  # the newest has no value of the channel d, which is made of the others
    assert ids(saver.list(config())) == ids(map(saver.get_tuple, (newest, middle, oldest)))
    assert saver.get_tuple(oldest).checkpoint["channel_values"]["d"] == ["snapshot"]
    assert saver.get_tuple(middle).pending_writes == [("task", "d", "delta")]
    last = put(saver, {"a": ["last"], "d": ["all"]}, version="4")
    saver.prune(["t"])
    assert ids(saver.list(config())) == ids([saver.get_tuple(last)])
    with sync.DocumentClient(address) as documents:
        assert len(list(documents.list(f"{name}:t"))) == 3
    with pytest.raises(TypeError, match="thread_ids"):
        saver.prune("t")
    with pytest.raises(ValueError, match="strategy"):
        saver.prune(["t"], strategy="all")


def test_copies_are_apart(saver):
    stored = put(saver, {"a": b"z" * 1_200_000})
    saver.put_writes(stored, [("a", 1)], "task")
    saver.copy_thread("t", "copy")
    saver.copy_thread("t", "t")
    saver.delete_thread("t")
    found = saver.get_tuple(config("copy"))
    assert found.checkpoint["channel_values"] == {"a": b"z" * 1_200_000}
    assert found.pending_writes == [("task", "a", 1)]
    assert list(saver.list(config())) == []


class Turned(CipherProtocol):
    """No cipher, but bytes that are not the ones they were."""

    def encrypt(self, plaintext):
        return "turned", bytes(255 - byte for byte in plaintext)

    def decrypt(self, ciphername, ciphertext):
        assert ciphername == "turned"
        return bytes(255 - byte for byte in ciphertext)


def test_what_a_serializer_encrypts_is_not_readable_in_the_store(address, name):
    with MemorydSaver(address, prefix=name, serde=EncryptedSerializer(Turned())) as saver:
        stored = put(saver, {"a": ["canary-value"]}, note="canary-metadata")
        saver.put_writes(stored, [("a", "canary-write")], "task")
        found = saver.get_tuple(stored)
        assert found.checkpoint["channel_values"] == {"a": ["canary-value"]}
        assert found.metadata["note"] == "canary-metadata"
    with sync.DocumentClient(address) as documents:
        assert not any(b"canary" in one.data for one in documents.list(f"{name}:t"))


def test_versions_of_branches_differ(saver):
    first = saver.get_next_version(None, None)
    one, other = saver.get_next_version(first, None), saver.get_next_version(first, None)
    assert first < min(one, other)
    assert one != other
    assert saver.get_next_version(9, None) > one


async def test_a_person_is_erased_with_their_threads(address, name):
    async with MemorydSaver(address, prefix=name) as saver, SessionClient(address) as sessions:
        one = checkpoint({"a": ["x"]})
        await saver.aput(config("ada"), one, {"step": 0}, one["channel_versions"])
        assert [s.session_id async for s in sessions.list(f"{name}:")] == [f"{name}:ada"]
        async with DocumentClient(address) as documents:
            assert await documents.delete_all(f"{name}:ada", force=True) == 2
        assert await saver.aget_tuple(config("ada")) is None


@pytest.mark.parametrize("prefix", ["", "a:b", "é"])
def test_a_prefix_that_is_none_is_refused(address, prefix):
    with pytest.raises(ValueError, match="prefix"):
        MemorydSaver(address, prefix=prefix)
