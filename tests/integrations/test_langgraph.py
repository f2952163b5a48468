"""What LangGraph's own tests of its stores ask, in meaning, and what its stores lose."""

from __future__ import annotations

import asyncio
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.graph import END, START, StateGraph
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore

from memoryd.client import DocumentClient, SessionClient, sync
from memoryd.integrations.json_filters import conditions_of, fits
from memoryd.integrations.langgraph import MemorydStore
from memoryd.integrations.names import session_id


@pytest.fixture
def store(address, name):
    with MemorydStore(address, prefix=name) as store:
        yield store


def keys(items):
    return [item.key for item in items]


# One operation


def test_put_get_update_delete(store):
    namespace = ("test", "documents")
    store.put(namespace, "doc1", {"title": "Test", "content": "Hello"})
    first = store.get(namespace, "doc1")
    assert (first.namespace, first.key) == (namespace, "doc1")
    assert first.value == {"title": "Test", "content": "Hello"}
    assert first.created_at.tzinfo is not None
    store.put(namespace, "doc1", {"title": "Updated"})
    second = store.get(namespace, "doc1")
    assert second.value == {"title": "Updated"}
    assert second.created_at == first.created_at
    assert second.updated_at > first.updated_at
    assert store.get(("test", "other"), "doc1") is None
    store.delete(namespace, "doc1")
    store.delete(namespace, "doc1")
    assert store.get(namespace, "doc1") is None


VALUES = [
    {"n": 9007199254740993, "f": 1.10, "big": 2**70, "tiny": 5e-324},
    {"text": "naïve 😀 \u0000 \ud800", "empty": "", "none": None, "yes": True},
    {"deep": {"list": [1, [2, {"a": []}], {}], "": 0}},
    {},
]


@pytest.mark.parametrize("value", VALUES)
def test_values_come_back_as_they_were(store, value):
    store.put(("a", "b"), "k", value)
    found = store.get(("a", "b"), "k").value
    assert found == value
    assert repr(found) == repr(value)


@pytest.mark.parametrize(
    ("value", "error"), [({"x": math.nan}, ValueError), ({"x": {1, 2}}, TypeError)]
)
def test_what_is_no_json_is_refused_and_nothing_is_lost(store, value, error):
    store.put(("a",), "k", {"x": 1})
    with pytest.raises(error):
        store.batch([PutOp(("a",), "k", {"x": 2}), PutOp(("a",), "other", value)])
    assert store.get(("a",), "k").value == {"x": 1}


@pytest.mark.parametrize("namespace", [(), ("a.b",), ("",), ("langgraph", "x")])
def test_namespaces_are_checked_as_langgraph_does(store, namespace):
    with pytest.raises(InvalidNamespaceError):
        store.put(namespace, "k", {})


# Batches


def test_answers_come_in_the_order_of_the_operations(store):
    store.put(("test", "foo"), "key1", {"data": "value1"})
    store.put(("test", "bar"), "key2", {"data": "value2"})
    found = store.batch(
        [
            GetOp(("test", "foo"), "key1"),
            PutOp(("test", "bar"), "key2", {"data": "changed"}),
            SearchOp(("test",), {"data": "value1"}),
            ListNamespacesOp(),
            GetOp(("test",), "key3"),
            GetOp(("test", "bar"), "key2"),
        ]
    )
    assert found[0].value == {"data": "value1"}
    assert found[1] is None
    assert keys(found[2]) == ["key1"]
    assert found[3] == [("test", "bar"), ("test", "foo")]
    assert found[4] is None
    # The state before the batch's own writes.
    assert found[5].value == {"data": "value2"}
    assert store.get(("test", "bar"), "key2").value == {"data": "changed"}


def test_the_last_put_of_a_key_wins(store):
    store.batch(
        [
            PutOp(("a",), "k", {"n": 1}),
            PutOp(("a",), "gone", {"n": 1}),
            PutOp(("a",), "k", {"n": 2}),
            PutOp(("a",), "gone", None),
            PutOp(("a", "b"), "k", {"n": 3}),
        ]
    )
    assert store.get(("a",), "k").value == {"n": 2}
    assert store.get(("a",), "gone") is None
    assert store.get(("a", "b"), "k").value == {"n": 3}


def test_large_batches(store):
    puts = [PutOp(("a", str(n % 3)), f"k{n}", {"n": n}) for n in range(2_500)]
    puts += [PutOp(("a", "0"), f"large{n}", {"text": "x" * 700_000}, index=False) for n in range(8)]
    store.batch(puts)
    found = store.batch([GetOp(op.namespace, op.key) for op in puts])
    assert [item.value for item in found] == [dict(op.value) for op in puts]


def test_an_operation_that_is_none_is_refused(store):
    with pytest.raises(ValueError, match=r"ops\[1\]"):
        store.batch([GetOp(("a",), "k"), "get"])


def test_a_bad_operation_fails_only_its_own_caller(address, name):
    async def work():
        async with MemorydStore(address, prefix=name) as store:
            good = [store.aput(("a", str(n)), "k", {"n": n}) for n in range(20)]
            bad = store.aput(("a", "bad"), "k", {"n": math.nan})
            answers = await asyncio.gather(*good, bad, return_exceptions=True)
            assert [type(answer) for answer in answers] == [type(None)] * 20 + [ValueError]
            assert len(await store.asearch(("a",), limit=50)) == 20

    asyncio.run(work())


# Search

ITEMS = [
    (("test", "docs"), "doc1", {"title": "First", "author": "Alice", "tags": ["important"]}),
    (("test", "docs"), "doc2", {"title": "Second", "author": "Bob", "tags": ["draft"]}),
    (("test", "images"), "img1", {"title": "Image", "author": "Alice", "tags": ["final"]}),
    (("tests",), "other", {"title": "Other", "author": "Alice"}),
]


def test_search_by_namespace_filter_and_page(store):
    for item in ITEMS:
        store.put(*item)
    assert sorted(keys(store.search(("test",)))) == ["doc1", "doc2", "img1"]
    assert sorted(keys(store.search(("test", "docs")))) == ["doc1", "doc2"]
    assert sorted(keys(store.search(()))) == ["doc1", "doc2", "img1", "other"]
    assert sorted(keys(store.search(("test",), filter={"author": "Alice"}))) == ["doc1", "img1"]
    assert len(store.search(("test",), limit=2)) == 2
    assert len(store.search(("test",), offset=2)) == 1
    pages = [keys(store.search((), limit=1, offset=n))[0] for n in range(4)]
    assert sorted(pages) == ["doc1", "doc2", "img1", "other"]
    assert store.search(["test", "docs"], limit=0) == []


def test_the_last_updated_comes_first(store):
    for number in range(3):
        store.put(("a",), f"k{number}", {"n": number})
    store.put(("a",), "k0", {"n": 9})
    assert keys(store.search(("a",))) == ["k0", "k2", "k1"]


def test_more_than_a_page(store):
    store.batch([PutOp(("a",), f"k{n:03}", {"n": n, "odd": bool(n % 2)}) for n in range(250)])
    assert len(store.search(("a",), limit=1000)) == 250
    assert len(store.search(("a",), filter={"odd": True}, limit=1000)) == 125
    # A filter that the service does not judge.
    absent = {"odd": True, "missing": None}
    found = [keys(store.search(("a",), filter=absent, limit=50, offset=n)) for n in (0, 50, 100)]
    assert [len(page) for page in found] == [50, 50, 25]
    assert len({key for page in found for key in page}) == 125


FILTERED = {
    "a": {"n": 2, "s": "apple", "b": True, "o": {"x": 1, "y": {"z": [1, 2]}}, "l": [1, {"a": 1}]},
    "b": {"n": 9, "s": "banana", "b": False, "o": {"x": 2}, "l": []},
    "c": {"n": 10.5, "s": "10", "b": None, "o": {}},
    "d": {"n": "10", "s": None, "o": None},
    "e": {"n": 9007199254740993},
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"n": 2}, "a"),
        ({"n": 2.0}, "a"),
        ({"n": {"$eq": 9}}, "b"),
        ({"n": {"$gte": 9}}, "bce"),
        ({"n": {"$gt": 9, "$lt": 11}}, "c"),
        ({"n": {"$lt": "2"}}, "d"),
        ({"n": {"$ne": 2}}, "bcde"),
        ({"n": 9007199254740993}, "e"),
        ({"n": 9007199254740992}, ""),
        ({"s": {"$gt": "apple"}}, "b"),
        ({"b": True}, "a"),
        ({"b": 1}, ""),
        ({"b": None}, "cde"),
        ({"missing": None}, "abcde"),
        ({"s": {"$ne": None}}, "abc"),
        ({"o": {"x": 1}}, "a"),
        ({"o": {"x": {"$gt": 1}}}, "b"),
        ({"o": {"y": {"z": [1, 2]}}}, "a"),
        ({"o": {}}, "abc"),
        ({"l": [1, {"a": 1}]}, "a"),
        ({"l": []}, "b"),
        ({"n": 2, "s": "banana"}, ""),
        ({}, "abcde"),
    ],
)
def test_filters(store, given, expected):
    store.batch([PutOp(("f",), key, value) for key, value in FILTERED.items()])
    assert sorted(keys(store.search(("f",), filter=given))) == sorted(expected)


@pytest.mark.parametrize("given", [{"n": {"$in": [1]}}, {"o": {"x": {"$not": 1}}}])
def test_an_operator_that_does_not_exist_is_refused(store, given):
    with pytest.raises(ValueError, match="is no operator"):
        store.search(("f",), filter=given)


def test_search_by_query(store):
    store.put(
        ("q",), "mail", {"text": "Prefers e-mail over the phone", "note": "the quarterly report"}
    )
    store.put(("q",), "tea", {"text": "Likes green tea"}, index=["text"])
    store.put(("q",), "hidden", {"text": "Prefers e-mail"}, index=False)
    found = store.search(("q",), query="e-mail or phone?")
    assert found[0].key == "mail"
    assert found[0].score > 0
    # What is not indexed follows, without a score.
    assert (found[-1].key, found[-1].score) == ("hidden", None)
    assert "tea" in keys(store.search(("q",), query="green tea"))


def test_paths_of_the_index(address, name):
    with MemorydStore(address, prefix=name, fields=["title", "parts[*].text"]) as store:
        value = {"title": "Invoice", "parts": [{"text": "apples"}, {"text": "pears"}], "x": "plums"}
        store.put(("q",), "k", value)
        for query, has in (("invoice", True), ("pears", True), ("plums", False)):
            assert bool(keys(store.search(("q",), query=query))) == has, query
        store.put(("q",), "k", value, index=["x"])
        assert keys(store.search(("q",), query="plums")) == ["k"]
        assert keys(store.search(("q",), query="pears")) == []


# Namespaces

NAMESPACES = [
    ("test", "documents", "public"),
    ("test", "documents", "private"),
    ("test", "images", "public"),
    ("test", "images", "private"),
    ("prod", "documents", "public"),
    ("prod", "documents", "private"),
]


def test_list_namespaces(store):
    for namespace in NAMESPACES:
        store.put(namespace, "k", {})
    assert store.list_namespaces() == sorted(NAMESPACES)
    assert len(store.list_namespaces(prefix=("test",))) == 4
    assert {namespace[-1] for namespace in store.list_namespaces(suffix=("public",))} == {"public"}
    assert store.list_namespaces(max_depth=2) == sorted({n[:2] for n in NAMESPACES})
    assert store.list_namespaces(prefix=("*", "images")) == sorted(
        n for n in NAMESPACES if n[1] == "images"
    )
    assert store.list_namespaces(prefix=("test",), suffix=("*", "private"), max_depth=1) == [
        ("test",)
    ]
    pages = [store.list_namespaces(limit=4, offset=n) for n in (0, 4, 8)]
    assert [len(page) for page in pages] == [4, 2, 0]
    assert [n for page in pages for n in page] == sorted(NAMESPACES)
    both = (MatchCondition("suffix", ("public",)), MatchCondition("suffix", ("images", "*")))
    assert store.batch([ListNamespacesOp(both)]) == [[("test", "images", "public")]]
    # A namespace is one while it has an item.
    store.delete(NAMESPACES[0], "k")
    assert NAMESPACES[0] not in store.list_namespaces()


# What expires


def test_items_expire_only_where_they_are_asked_to(address, name):
    with MemorydStore(address, prefix=name, ttl={"default_ttl": 60}) as store:
        store.put(("a", "b"), "hour", {})
        store.put(("a", "b"), "day", {}, ttl=24 * 60)
        store.put(("a", "b"), "always", {}, ttl=None)
    with MemorydStore(address, prefix=name) as store, sync.DocumentClient(address) as documents:
        store.put(("a", "b"), "plain", {})
        ttls = {
            document.key: document.ttl and document.ttl.total_seconds()
            for document in documents.list(f"{name}:a:b")
        }
        assert ttls == {"hour": 3600, "day": 86400, "always": None, "plain": None}

        def end(key):
            return documents.get(f"{name}:a:b", key, namespace=["a", "b"]).expire_time

        before = end("hour")
        store.get(("a", "b"), "hour", refresh_ttl=False)
        assert end("hour") == before
        store.get(("a", "b"), "hour")
        refreshed = end("hour")
        assert refreshed > before
        store.search(("a", "b"), refresh_ttl=False)
        assert end("hour") == refreshed
        store.search(("a", "b"))
        assert end("hour") > refreshed


# Sessions


def test_a_user_is_one_session(store, address, name):
    store.put(("users", "ada"), "a", {})
    store.put(("users", "ada", "notes", "deep"), "b", {})
    store.put(("users", "adam"), "c", {})
    with sync.SessionClient(address) as sessions, sync.MemoryClient(address) as memory:
        found = [session.session_id for session in sessions.list(f"{name}:")]
        assert found == [f"{name}:users:ada", f"{name}:users:adam"]
        memory.erase(f"{name}:users:ada")
    assert keys(store.search(())) == ["c"]


def test_names_of_any_letters(store):
    odd = ("users", "ä b/c:d@e", "\u65e5\u672c")
    store.put(odd, "k:/ü", {"n": 1})
    assert store.get(odd, "k:/ü").value == {"n": 1}
    assert store.list_namespaces() == [odd]
    assert keys(store.search(odd[:2])) == ["k:/ü"]


def test_session_ids():
    assert session_id("lg", ("users", "ä b")) == "lg:users:@C3@A4@20b"
    with pytest.raises(ValueError, match="more than 255"):
        session_id("lg", ("x" * 300,))


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=3)
)
def test_different_names_are_different_sessions(labels):
    changes = ([*labels, "x"], [":".join(labels)], ["@".join(labels)], labels[:-1])
    made = session_of(labels)
    for changed in changes:
        if changed != labels and changed and made is not None:
            assert session_of(changed) != made


def session_of(labels):
    """The session of a namespace; None where it would be too long."""
    try:
        return session_id("lg", labels)
    except ValueError:
        return None


@pytest.mark.parametrize(
    "given", [{"prefix": "a:b"}, {"prefix": ""}, {"partition_depth": 0}, {"partition_depth": 20}]
)
def test_wrong_settings_are_named(given):
    with pytest.raises(ValueError, match=f"^{next(iter(given))}: "):
        MemorydStore("127.0.0.1:1", **given)


# Threads, loops, graphs


def test_a_running_loop_is_not_blocked(address, name):
    async def work():
        async with MemorydStore(address, prefix=name) as store:
            await store.aput(("a",), "k", {"n": 1})
            assert (await store.aget(("a",), "k")).value == {"n": 1}
            assert keys(await store.asearch(("a",))) == ["k"]
            assert await store.alist_namespaces() == [("a",)]
            with pytest.raises(asyncio.InvalidStateError, match="await"):
                store.get(("a",), "k")
            await store.adelete(("a",), "k")
            assert await store.aget(("a",), "k") is None

    asyncio.run(work())
    asyncio.run(work())


def test_a_cancelled_caller_cancels_its_call(store):
    async def work():
        task = asyncio.create_task(store.asearch(("a",), limit=10))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await store.aput(("a",), "k", {})

    asyncio.run(work())


def test_many_threads(store):
    barrier = threading.Barrier(16)

    def write(number):
        barrier.wait()
        for turn in range(5):
            store.put(("users", str(number % 4)), f"k{number}-{turn}", {"n": number})
            store.put(("users", "shared"), "one", {"n": number})

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(write, range(16)))
    assert len(store.search(("users",), limit=100)) == 81


def test_a_graph_remembers(store):
    class State(TypedDict):
        said: str
        known: list[str]

    def remember(state: State, *, store: BaseStore) -> dict[str, Any]:
        store.put(("users", "ada"), state["said"], {"text": state["said"]})
        return {"known": sorted(item.value["text"] for item in store.search(("users", "ada")))}

    builder = StateGraph(State)
    builder.add_node("remember", remember)
    builder.add_edge(START, "remember")
    builder.add_edge("remember", END)
    graph = builder.compile(store=store)
    graph.invoke({"said": "likes tea", "known": []})
    assert graph.invoke({"said": "has a dog", "known": []})["known"] == ["has a dog", "likes tea"]


# As LangGraph's own store in memory answers

WORDS = st.sampled_from(["a", "b", "c"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(WORDS, JSON, max_size=3), st.dictionaries(WORDS, JSON, max_size=2))
def test_containment_is_that_of_the_store_in_memory(value, wanted):
    """But for booleans, which Python takes as numbers and JSON does not."""
    theirs = InMemoryStore()
    theirs.put(("a",), "k", value)
    if "true" not in repr((value, wanted)).lower() and "false" not in repr((value, wanted)).lower():
        expected = bool(theirs.search(("a",), filter=wanted))
        assert all(fits(value.get(key), each) for key, each in wanted.items()) == expected


@given(st.dictionaries(WORDS, JSON, max_size=2))
def test_what_is_sent_or_judged_is_all_of_a_filter(wanted):
    sent, judge = conditions_of(wanted)
    assert judge is not None or bool(sent) == bool(wanted)


def test_the_client_has_the_same_documents(store, address, name):
    store.put(("users", "ada"), "k", {"n": 1.10})

    async def read():
        async with DocumentClient(address) as documents, SessionClient(address) as sessions:
            document = await documents.get(f"{name}:users:ada", "k", namespace=["users", "ada"])
            session = await sessions.get(f"{name}:users:ada")
            return document.json, session.document_count

    assert asyncio.run(read()) == ('{"n": 1.1}', 1)
