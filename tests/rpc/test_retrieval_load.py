"""Retrievals that are too large are refused, and large ones do not block other calls."""

from __future__ import annotations

import asyncio
import threading

import grpc
import numpy as np
import pytest

from memoryd.memories import cache
from memoryd.retrieval import loading
from memoryd.retrieval.top import Top
from memoryd.v1 import memory_pb2 as pb

LONG = "tea and coffee and milk " * 40


async def remember(memory, session_id: str, *contents: str) -> None:
    await memory.BatchStoreMemories(
        pb.BatchStoreMemoriesRequest(
            requests=[pb.StoreMemoryRequest(session_id=session_id, content=c) for c in contents]
        )
    )


async def ask(memory, query: str, session_id: str, **fields):
    return await memory.RetrieveMemories(
        pb.RetrieveMemoriesRequest(session_id=session_id, query=query, peek=True, **fields)
    )


@pytest.fixture
def little_room(monkeypatch):
    """Limit what several sessions may load to the size of two of three."""
    monkeypatch.setattr(loading, "MOST_LOADED", 2_500)


@pytest.mark.usefixtures("little_room")
@pytest.mark.parametrize("query", ["tea", ""])
async def test_sessions_too_large_to_be_read_at_once_are_refused(memory, refused, query):
    for name in ("a", "b", "c"):
        await remember(memory, name, f"{name} {LONG}")
    refusal = await refused(ask(memory, query, "a", session_ids=["b", "c"]))
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal.reason == "SESSIONS_TOO_LARGE"
    assert list(refusal.violations) == ["session_ids"]
    assert "fewer sessions" in refusal.violations["session_ids"]
    # Fewer at once are answered, and stay in memory.
    assert len((await ask(memory, query, "a", session_ids=["b"])).results) == 2
    assert len((await ask(memory, query, "a", session_ids=["b", "c"])).results) == 3
    assert len((await ask(memory, query, "b", session_ids=["a", "c", "d"])).results) == 3


@pytest.mark.usefixtures("little_room")
async def test_sessions_to_reindex_count_too(memory, refused):
    for name in ("a", "b", "c"):
        await remember(memory, name, *(f"{name} {LONG} {n}" for n in range(40)))
        await ask(memory, "", name)
    refusal = await refused(ask(memory, "tea", "a", session_ids=["b", "c"]))
    assert refusal.reason == "SESSIONS_TOO_LARGE"
    assert len((await ask(memory, "", "a", session_ids=["b", "c"], limit=100)).results) == 100


@pytest.mark.usefixtures("little_room")
async def test_one_session_is_answered_however_large(memory):
    await remember(memory, "a", *(f"{n} {LONG}" for n in range(40)))
    for query in ("tea", ""):
        answer = await ask(memory, query, "a", session_ids=["missing", "a"], limit=100)
        assert len(answer.results) == 40


async def test_the_longest_contents_of_a_script_without_spaces_are_indexed_in_part(memory):
    text = "".join(chr(0x4E00 + n) for n in range(16_384))
    await remember(memory, "a", text, "\u8336")
    assert (await ask(memory, text[:8], "a")).results[0].memory.content == text


async def test_a_large_call_leaves_others_sessions_in_memory(serve, monkeypatch):
    memory = (await serve(MEMORYD_SESSION_CACHE_BYTES="200000")).memory
    await remember(memory, "small", "likes tea")
    for number in range(12):
        await remember(memory, f"large-{number}", *(f"{n} {LONG}" for n in range(10)))
    await ask(memory, "tea", "small")
    read = []
    reading = cache._read_live  # noqa: SLF001  every read of a whole session

    def noted(connection, parameters):
        read.append(parameters["session_id"])
        return reading(connection, parameters)

    monkeypatch.setattr(cache, "_read_live", noted)
    for _ in range(3):
        await ask(memory, "tea", "large-0", session_ids=[f"large-{n}" for n in range(1, 12)])
    assert {"large-0", "large-11"} <= {*read}
    await ask(memory, "tea", "small")
    assert "small" not in read


class Noting:
    """An embedder of words that records the threads in which it embeds queries."""

    name = "noting"
    dimensions = 2
    threads: list[threading.Thread] = []  # noqa: RUF012  of all instances

    def embed(self, texts):
        return np.ones((len(texts), 2), np.float32) / np.sqrt(2)

    def embed_weighted(self, words, _weights):
        self.threads.append(threading.current_thread())
        return self.embed(words[:1])[0]


MANY_DATES = " ".join(f"31 February {year} or 30 February {year}" for year in range(1990, 1999))


@pytest.mark.parametrize("query", ["tea " * 4_000, "\u8336" * 16_000, MANY_DATES, "tea"])
async def test_a_large_query_is_ranked_off_the_event_loop(serve, query):
    memory = (await serve(MEMORYD_EMBEDDER=f"{__name__}:Noting")).memory
    await remember(memory, "a", "likes tea", "has two cats")
    await ask(memory, "cats", "a")
    Noting.threads.clear()
    assert len((await ask(memory, f"tea {query}", "a")).results) == 2
    is_small = query == "tea"
    assert [one is threading.main_thread() for one in Noting.threads] == [is_small]


async def test_changes_during_large_queries_are_found_afterwards(memory):
    await remember(memory, "a", "likes tea")
    query = "tea coffee " * 1_400
    found = set()

    async def store(number: int) -> None:
        await remember(memory, "a", f"coffee number {number}")

    async def retrieve() -> None:
        answer = await ask(memory, query, "a", limit=100)
        found.update(result.memory.content for result in answer.results)

    await asyncio.gather(*(work for n in range(30) for work in (store(n), retrieve())))
    await retrieve()
    assert found == {"likes tea", *(f"coffee number {n}" for n in range(30))}


@pytest.mark.parametrize(
    "query",
    ["what was on 9999-12-31?", "since 0001-01-01", "9" * 16_000, "a" * 16_384, "( " * 8_000],
)
async def test_strange_queries_are_answered(memory, query):
    await remember(memory, "a", "likes tea", "has two cats")
    assert len((await ask(memory, query, "a")).results) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"limit": 3},
        {"limit": 100, "filter": pb.MemoryFilter(min_importance=0.0)},
        {"filter": pb.MemoryFilter(metadata={"even": True}, min_importance=0.4)},
        {"filter": pb.MemoryFilter(min_importance=1.0)},
    ],
)
async def test_a_session_too_large_for_the_cache_has_the_same_answers(serve, monkeypatch, fields):
    memory = (await serve(MEMORYD_SESSION_CACHE_BYTES="2000")).memory
    requests = [
        pb.StoreMemoryRequest(
            session_id="large",
            content=f"memory {n}",
            importance=n % 9 / 8,
            metadata={"even": n % 2 == 0},
        )
        for n in range(30)
    ]
    await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    await memory.RetrieveMemories(pb.RetrieveMemoriesRequest(session_id="large", limit=2))
    wanted = pb.RetrieveMemoriesRequest(session_id="large", peek=True, **fields)
    kept = await memory.RetrieveMemories(wanted)
    monkeypatch.setattr(cache, "SURELY_KEPT", 5)
    monkeypatch.setattr(cache, "PART", 4)
    taken = []
    take = Top.take

    def noted(self, revision, part):
        taken.append(len(part))
        take(self, revision, part)

    monkeypatch.setattr(Top, "take", noted)
    assert await memory.RetrieveMemories(wanted) == kept
    assert sum(taken) == 30
    assert max(taken) == 4
