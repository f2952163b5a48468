"""SearchDocuments: by relevance of search texts, or the last updated first."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import grpc
import pytest
from google.protobuf.struct_pb2 import Value
from tests.rpc.test_document_moves import move, name
from tests.rpc.test_documents import MIB, batch, delete, get, put, seconds

from memoryd.documents import newest, picking
from memoryd.retrieval import document_search
from memoryd.v1 import condition_pb2, memory_pb2
from memoryd.v1 import document_pb2 as pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def searching(query="", session_id="s", **others):
    if "session_id_prefix" not in others:
        others["session_id"] = session_id
    return pb.SearchDocumentsRequest(query=query, **others)


async def keys(documents, query="", **others):
    answer = await documents.SearchDocuments(searching(query, **others))
    assert not answer.truncated
    return [one.document.key for one in answer.results]


@pytest.fixture
async def library(documents):
    """Documents with and without search texts, the latter the newer ones."""
    texts = {
        "whales": ["Blue whales are the largest animals", "They sing"],
        "tea": ["Green tea is grown in the hills"],
        "both": ["A whale drinks no tea"],
        "ships": ["Whaling ships left in spring"],
    }
    for key, search_texts_ in texts.items():
        namespace = ["sea", "north"] if key in {"whales", "ships"} else ["land"]
        await documents.PutDocument(
            put(key, namespace, json=f'{{"n": {len(key)}}}', search_texts=search_texts_)
        )
    for key in ("first", "second"):
        await documents.PutDocument(put(key, ["land"], labels={"plain": "yes"}))


@pytest.mark.usefixtures("library")
async def test_the_best_search_text_decides(documents):
    answer = await documents.SearchDocuments(searching("the song of blue whales"))
    found = [one.document.key for one in answer.results]
    assert found[0] == "whales"
    assert set(found[1:3]) == {"both", "ships"}
    scores = [one.score for one in answer.results[:3]]
    assert scores == sorted(scores, reverse=True)
    # What holds nothing of the query is left out; what is not searchable follows, the newest first.
    assert found[3:] == ["second", "first"]
    assert [one.HasField("score") for one in answer.results] == [True] * 3 + [False] * 2
    whales = await documents.GetDocument(get("whales", ["sea", "north"]))
    assert answer.results[0].document == whales
    assert await keys(documents, "tea", limit=1) in (["tea"], ["both"])
    assert (await keys(documents, "tea", skip=1, limit=3))[1:] == ["second", "first"]
    assert await keys(documents, "tea", skip=4) == []
    assert await keys(documents, "nothing has these words") == ["second", "first"]
    assert await keys(documents, "tea", session_id="none") == []


@pytest.mark.usefixtures("library")
async def test_without_a_query_the_last_updated_comes_first(documents, clock):
    assert await keys(documents) == ["second", "first", "ships", "both", "tea", "whales"]
    clock.move(timedelta(seconds=1))
    await documents.PutDocument(put("tea", ["land"]))
    assert await keys(documents, " \n", limit=2) == ["tea", "second"]
    assert await keys(documents, skip=4, limit=2) == ["both", "whales"]
    assert await keys(documents, skip=6) == []
    assert await keys(documents, namespace_prefix=["land"]) == ["tea", "second", "first", "both"]
    assert await keys(documents, namespace_prefix=["land"], skip=1, limit=1) == ["second"]
    assert await keys(documents, namespace_prefix=["lan"]) == []
    assert await keys(documents, session_id="none") == []


@pytest.mark.usefixtures("library")
async def test_namespaces_and_filters_narrow_a_search(documents):
    assert await keys(documents, "whale", namespace_prefix=["sea"]) == ["whales", "ships"]
    assert await keys(documents, "whale", namespace_prefix=["sea", "north"], skip=1) == ["ships"]
    assert await keys(documents, "whale", namespace_prefix=["land"]) == ["both", "second", "first"]
    plain = pb.DocumentFilter(labels={"plain": "yes"})
    assert await keys(documents, "whale", filter=plain) == ["second", "first"]
    four = condition_pb2.Condition(
        path=["n"], op=condition_pb2.CONDITION_OP_GT, value=Value(number_value=4)
    )
    assert await keys(documents, "whale", filter=pb.DocumentFilter(conditions=[four])) == [
        *("whales", "ships"),
    ]
    assert await keys(documents, filter=pb.DocumentFilter(conditions=[four]), limit=1) == ["ships"]
    assert await keys(documents, filter=plain, skip=1) == ["first"]
    without = condition_pb2.Condition(
        path=["n"], op=condition_pb2.CONDITION_OP_EXISTS, value=Value(bool_value=False)
    )
    await documents.PutDocument(put("text", text="no json"))
    assert await keys(documents, filter=pb.DocumentFilter(conditions=[without])) == [
        *("text", "second", "first"),
    ]


@pytest.mark.usefixtures("library")
async def test_a_search_sees_what_was_committed_before_it(documents, memory):
    assert sorted((await keys(documents, "whale"))[:3]) == ["both", "ships", "whales"]
    await documents.PutDocument(put("whales", ["sea", "north"], search_texts=["now about tea"]))
    assert "whales" not in await keys(documents, "whale")
    assert "whales" in await keys(documents, "tea")
    await documents.PutDocument(put("whales", ["sea", "north"]))  # no longer searchable
    assert await keys(documents, "tea whales", limit=1) != ["whales"]
    assert (await keys(documents, "now about"))[0] == "whales"
    await documents.DeleteDocument(delete("both", ["land"]))
    assert "both" not in await keys(documents, "whale")
    await documents.MoveDocuments(move(name(["sea"]), name(["lake"])))
    answer = await documents.SearchDocuments(searching("whaling ships"))
    assert (answer.results[0].document.key, [*answer.results[0].document.namespace]) == (
        *("ships", ["lake", "north"]),
    )
    assert await keys(documents, "ships", namespace_prefix=["lake"], limit=1) == ["ships"]
    await memory.EraseSession(memory_pb2.EraseSessionRequest(session_id="s"))
    assert await keys(documents, "whale") == []
    await documents.PutDocument(put("new", search_texts=["another whale"]))
    assert await keys(documents, "whale") == ["new"]


async def test_memories_and_documents_are_found_apart(documents, memory):
    await documents.PutDocument(put(search_texts=["blue whales"]))
    store = memory_pb2.StoreMemoryRequest(session_id="s", content="blue whales")
    await memory.StoreMemory(store)
    request = memory_pb2.RetrieveMemoriesRequest(session_id="s", query="whales")
    assert len((await memory.RetrieveMemories(request)).results) == 1
    assert await keys(documents, "whales") == ["k"]


@pytest.mark.parametrize("query", ["", "whales"])
async def test_expired_documents_are_not_found(documents, clock, query):
    for key, ttl in (("soon", 10), ("later", 100)):
        await documents.PutDocument(put(key, ttl=seconds(ttl), search_texts=["blue whales"]))
    assert sorted(await keys(documents, query)) == ["later", "soon"]
    clock.move(timedelta(seconds=10))
    answer = await documents.SearchDocuments(searching(query, refresh_ttl=True))
    (found,) = answer.results
    assert found.document.expire_time.ToSeconds() == int(clock().timestamp()) + 100
    assert await documents.GetDocument(get("later")) == found.document
    clock.move(timedelta(seconds=99))
    assert await keys(documents, query) == ["later"]


async def test_many_sessions_are_searched_as_one(documents, tables, clock):
    for session_id in ("u-1", "u-2", "v"):
        clock.move(timedelta(seconds=1))
        request = put(f"of {session_id}", session_id=session_id, search_texts=["blue whales"])
        await documents.PutDocument(request)
    clock.move(timedelta(seconds=1))
    best = put("best", session_id="u-2", search_texts=["whales, blue whales"])
    await documents.PutDocument(best)
    clock.move(timedelta(seconds=1))
    await documents.PutDocument(put("plain", ["a"], session_id="u-1"))
    await tables.copy_to_tenant("other")
    found = await keys(documents, "whales", session_id_prefix="u-")
    assert sorted(found[:3]) == ["best", "of u-1", "of u-2"]
    assert found[3:] == ["plain"]
    assert await keys(documents, session_id_prefix="") == [
        *("plain", "best", "of v", "of u-2", "of u-1"),
    ]
    assert await keys(documents, session_id_prefix="", namespace_prefix=["a"]) == ["plain"]
    assert await keys(documents, "whales", session_id_prefix="none") == []


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"limit": -1}, "limit"),
        ({"skip": -1}, "skip"),
        ({"skip": 1001}, "skip"),
        ({"query": "x" * 16_385}, "query"),
        ({"namespace_prefix": [""]}, "namespace_prefix[0]"),
        ({"session_id_prefix": "a b"}, "session_id_prefix"),
        ({"session_id": ""}, "session_id"),
        ({"filter": pb.DocumentFilter(labels={"Ä": "x"})}, "filter.labels"),
    ],
)
async def test_what_cannot_be_searched_is_named(documents, refused, arguments, field):
    refusal = await refused(documents.SearchDocuments(searching(**arguments)))
    assert refusal.code is INVALID
    assert [*refusal.violations] == [field]


async def test_an_answer_ends_before_it_is_too_large(documents):
    for n in range(5):
        await documents.PutDocument(put(f"k{n}", data=b"x" * MIB, search_texts=["blue whales"]))
    for query in ("", "whales"):
        answer = await documents.SearchDocuments(searching(query))
        assert answer.truncated
        assert len(answer.results) == 3
        assert all(one.document.data for one in answer.results)
    assert len((await documents.SearchDocuments(searching(skip=2, limit=3))).results) == 3


async def test_a_search_is_bounded(documents, refused, monkeypatch):
    writes = [put(f"k{n}", ["a"], labels={"n": str(n)}) for n in range(8)]
    await documents.BatchWriteDocuments(batch(*writes))
    first = pb.DocumentFilter(labels={"n": "0"})
    assert await keys(documents, filter=first) == ["k0"]
    with monkeypatch.context() as patched:
        patched.setattr(picking, "MOST_LOOKED_AT", 5)
        answer = await documents.SearchDocuments(searching(filter=first))
        assert (len(answer.results), answer.truncated) == (0, True)
        assert await keys(documents, filter=pb.DocumentFilter(labels={"n": "7"}), limit=1) == ["k7"]
    exists = condition_pb2.Condition(
        path=["n"], op=condition_pb2.CONDITION_OP_EXISTS, value=Value(bool_value=True)
    )
    with monkeypatch.context() as patched:
        patched.setattr(picking, "MOST_BYTES_LOOKED_INTO", 5)
        conditions = pb.DocumentFilter(conditions=[exists])
        answer = await documents.SearchDocuments(searching(filter=conditions))
        assert (len(answer.results), answer.truncated) == (0, True)
    await documents.PutDocument(put("large", search_texts=["blue whales", "x" * 100]))
    with monkeypatch.context() as patched:
        patched.setattr(document_search, "MOST_CHARACTERS", 99)
        refusal = await refused(documents.SearchDocuments(searching("whales")))
        assert (refusal.code, refusal.reason) == (EXHAUSTED, "SEARCH_TEXTS_TOO_LARGE")
        assert [*refusal.violations] == ["query"]
    assert (await keys(documents, "whales"))[0] == "large"


async def test_only_so_many_are_put_in_order(documents, monkeypatch):
    writes = [put(f"k{n}", ["a"]) for n in range(4)]
    await documents.BatchWriteDocuments(batch(*writes))
    monkeypatch.setattr(newest, "MOST_SORTED", 3)
    answer = await documents.SearchDocuments(searching(namespace_prefix=["a"]))
    assert answer.truncated
    assert not (await documents.SearchDocuments(searching())).truncated


@pytest.mark.parametrize("inline", [True, False])
async def test_an_index_that_follows_is_as_one_that_is_made_anew(
    running, serve, monkeypatch, inline
):
    """Whatever is written, in whatever steps it is read."""
    documents = running.documents
    if not inline:
        for limit in ("INLINE_CHARACTERS", "INLINE_WORK"):
            monkeypatch.setattr(document_search, limit, 0)
        monkeypatch.setattr(document_search, "PART_CHARACTERS", 50)
    rng = random.Random(7)  # noqa: S311  repeatable
    words = ["whale", "tea", "hill", "ship", "song", "blue", "green", "spring"]
    for _ in range(12):
        writes = []
        for _ in range(20):
            key, namespace = f"k{rng.randrange(40)}", [rng.choice("ab")]
            if rng.random() < 0.2:
                writes.append(delete(key, namespace, allow_missing=True))
            else:
                texts = [" ".join(rng.choices(words, k=4)) for _ in range(rng.randrange(3))]
                writes.append(put(key, namespace, search_texts=texts))
        await documents.BatchWriteDocuments(batch(*writes))
        await documents.SearchDocuments(searching("whale song"))
    request = searching("blue whale in spring", limit=100)
    expected = await documents.SearchDocuments(request)
    assert sum(one.HasField("score") for one in expected.results) > 10
    await running.server.stop()
    documents = (
        await serve(MEMORYD_SESSION_CACHE_BYTES="0")
    ).documents  # each time from the database
    found = await asyncio.gather(*(documents.SearchDocuments(request) for _ in range(4)))
    assert all(one == expected for one in found)


async def test_what_is_kept_is_bounded(serve):
    running = await serve(MEMORYD_SESSION_CACHE_BYTES="40000")
    for n in range(12):
        texts = [f"blue whales {n} {m}" for m in range(20)]
        await running.documents.PutDocument(put(session_id=f"s{n}", search_texts=texts))
        assert await keys(running.documents, "whales", session_id=f"s{n}") == ["k"]
        assert 0 < running.server.kept_bytes <= 40_000
    assert await keys(running.documents, "whales", session_id="s0") == ["k"]
    found = await running.documents.SearchDocuments(searching("whales", session_id_prefix="s"))
    assert len(found.results) == 10


async def test_nothing_of_an_erased_session_is_kept(running, memory, monkeypatch, eventually):
    monkeypatch.setattr(document_search, "ERASED_SECONDS", 0.01)
    await running.documents.PutDocument(put(search_texts=["blue whales"]))
    await keys(running.documents, "whales")
    assert running.server.kept_bytes
    await memory.EraseSession(memory_pb2.EraseSessionRequest(session_id="s"))

    async def is_gone():
        return not running.server.kept_bytes

    await eventually(is_gone)
