"""How sure recall is of a result, and which results are left out of an answer."""

from __future__ import annotations

import pytest

from memoryd.v1 import memory_pb2 as pb

SESSION = "user-123"
FACTS = (
    "likes green tea",
    "plays the piano on Sundays",
    "lives in Rome with a cat",
    "works night shifts at the hospital",
    "is allergic to peanuts",
)
EMBEDDERS = ("none", "static")


async def remember(memory, *contents: str, session_id: str = SESSION, **fields) -> list[str]:
    requests = [
        pb.StoreMemoryRequest(session_id=session_id, content=content, **fields)
        for content in contents
    ]
    answer = await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    return [response.memory.memory_id for response in answer.responses]


async def ask(memory, query: str = "", *, session_id: str = SESSION, **fields):
    request = {"peek": True} | fields
    return await memory.RetrieveMemories(
        pb.RetrieveMemoriesRequest(session_id=session_id, query=query, **request)
    )


def ids(answer) -> list[str]:
    return [result.memory.memory_id for result in answer.results]


def contents(answer) -> list[str]:
    return [result.memory.content for result in answer.results]


@pytest.fixture(params=EMBEDDERS)
async def recall(request, serve):
    """A server with this embedder that has the facts."""
    memory = (await serve(MEMORYD_EMBEDDER=request.param)).memory
    await remember(memory, *FACTS)
    if request.param != "none":
        while not any(r.breakdown.semantic for r in (await ask(memory, "piano")).results):
            pass
    return memory


async def test_an_agent_can_say_that_it_knows_nothing_of_a_query(recall):
    known = await ask(recall, "who plays the piano?", min_relevance=0.5)
    assert contents(known) == ["plays the piano on Sundays"]
    unknown = await ask(recall, "deployment pipeline of the accounting software", min_relevance=0.5)
    assert not unknown.results
    assert unknown.revision == len(FACTS)
    assert not unknown.truncated


async def test_every_result_of_a_query_has_a_relevance_and_none_without(recall):
    answer = await ask(recall, "piano")
    assert len(answer.results) == len(FACTS)
    assert all(result.HasField("relevance") for result in answer.results)
    assert all(0.0 <= result.relevance <= 1.0 for result in answer.results)
    assert answer.results[0].relevance == max(result.relevance for result in answer.results)
    assert not any(result.HasField("relevance") for result in (await ask(recall)).results)


async def test_min_relevance_leaves_the_rest_in_their_order(recall):
    every = (await ask(recall, "tea, or piano in Rome?")).results
    for bound in (0.0, *(result.relevance for result in every), 1.0):
        some = (await ask(recall, "tea, or piano in Rome?", min_relevance=bound)).results
        assert [*some] == [result for result in every if result.relevance >= bound]


async def test_min_relevance_is_applied_before_the_limit(memory):
    await remember(memory, *(f"the weather, note {n}" for n in range(20)), importance=1.0)
    await remember(memory, "plays the piano", importance=0.0)
    answer = await ask(memory, "piano", min_relevance=0.5, limit=1, importance_weight=1.0)
    assert contents(answer) == ["plays the piano"]


async def test_relevance_compares_between_sessions_alone_and_together(memory):
    await remember(memory, "plays the piano")
    await remember(memory, *(f"the weather, note {n}" for n in range(90)), session_id="other")
    query = "who plays the piano?"
    alone = await ask(memory, query, limit=1)
    elsewhere = await ask(memory, query, limit=1, session_id="other")
    both = await ask(memory, query, limit=100, session_id="other", session_ids=[SESSION])
    assert alone.results[0].relevance > 0.8
    assert elsewhere.results[0].relevance < 0.2
    assert contents(both)[0] == "plays the piano"
    assert both.results[0].relevance > 0.8
    assert all(result.relevance < 0.5 for result in both.results[1:])
    found = await ask(memory, query, min_relevance=0.5, session_id="other", session_ids=[SESSION])
    assert contents(found) == ["plays the piano"]


@pytest.mark.parametrize("query", ["", " \t\n"])
async def test_a_least_relevance_needs_a_query(memory, refused, query):
    for bound in (0.0, 0.5, 2.0):
        refusal = await refused(ask(memory, query, min_relevance=bound))
        assert refusal.code.name == "INVALID_ARGUMENT"
        assert "min_relevance" in refusal.violations


@pytest.mark.parametrize("bound", [-0.1, 1.1, float("nan"), float("inf")])
async def test_a_least_relevance_is_between_0_and_1(memory, refused, bound):
    refusal = await refused(ask(memory, "tea", min_relevance=bound))
    assert refusal.code.name == "INVALID_ARGUMENT"
    assert [*refusal.violations] == ["min_relevance"]


@pytest.mark.parametrize("query", ["", "tea"])
async def test_results_end_before_max_chars(memory, query):
    texts = [f"tea {n} ".ljust(100, "\N{FOX FACE}") for n in range(5)]
    await remember(memory, *texts)
    every = ids(await ask(memory, query))
    for most, count in ((1, 1), (100, 1), (199, 1), (200, 2), (499, 4), (500, 5), (2**31 - 1, 5)):
        answer = await ask(memory, query, max_chars=most)
        assert ids(answer) == every[:count]
        assert answer.truncated == (count < len(every))
    assert ids(await ask(memory, query, max_chars=0)) == every
    few = await ask(memory, query, max_chars=300, limit=3)
    assert ids(few) == every[:3]
    assert not few.truncated


async def test_only_what_max_chars_lets_through_counts_as_accessed(memory, eventually):
    every = await remember(memory, *FACTS)
    for query in ("", "piano"):
        answer = await ask(memory, query, max_chars=40, peek=False)
        assert answer.truncated
        best = ids(answer)

        async def counted(best=best) -> bool:
            return min([await count(one) for one in best]) > 0

        async def count(memory_id: str) -> int:
            request = pb.GetMemoryRequest(session_id=SESSION, memory_id=memory_id)
            return (await memory.GetMemory(request)).access_count

        await eventually(counted)
    seen = {*ids(await ask(memory, max_chars=40)), *ids(await ask(memory, "piano", max_chars=40))}
    for memory_id in set(every) - seen:
        assert await count(memory_id) == 0


async def test_a_negative_max_chars_is_refused(memory, refused):
    refusal = await refused(ask(memory, "tea", max_chars=-1))
    assert refusal.code.name == "INVALID_ARGUMENT"
    assert [*refusal.violations] == ["max_chars"]


@pytest.mark.parametrize("query", ["", "piano"])
async def test_memories_can_be_left_out(memory, query):
    stored = await remember(memory, *FACTS)
    other = await remember(memory, "plays the piano", session_id="other")
    every = await ask(memory, query, session_ids=["other"])
    unknown = "0" * 8 + "-0000-0000-0000-" + "0" * 12
    left_out = [stored[1], other[0], unknown, stored[1]]
    answer = await ask(memory, query, session_ids=["other"], exclude_memory_ids=left_out)
    kept = [result for result in every.results if result.memory.memory_id not in left_out]
    assert [*answer.results] == kept
    assert not answer.truncated
    page = await ask(memory, query, exclude_memory_ids=ids(every)[:2], limit=2)
    assert len(page.results) == 2
    assert not (await ask(memory, query, exclude_memory_ids=stored)).results


async def test_what_is_left_out_is_named_by_ids(memory, refused):
    good = (await remember(memory, *FACTS))[0]
    for bad in ("", "tea", good.upper(), good[:-1]):
        refusal = await refused(ask(memory, exclude_memory_ids=[good, bad]))
        assert refusal.code.name == "INVALID_ARGUMENT"
        assert [*refusal.violations] == ["exclude_memory_ids[1]"]
    assert (await ask(memory, exclude_memory_ids=[good] * 1_000)).results
    refusal = await refused(ask(memory, exclude_memory_ids=[good] * 1_001))
    assert [*refusal.violations] == ["exclude_memory_ids"]
    assert "1,000" in refusal.violations["exclude_memory_ids"]
