"""An answer ends early rather than exceed what a client receives by default, and says so."""

from __future__ import annotations

import pytest

from memoryd.v1 import memory_pb2 as pb

CLIENT_BYTES = 4 * 1024 * 1024
"""What a gRPC client, such as the tests' channel, receives by default."""

FOX = "\N{FOX FACE}"


def largest(number: int, **fields) -> pb.StoreMemoryRequest:
    """The largest possible memory: four bytes per character, eleven per number in metadata."""
    request = pb.StoreMemoryRequest(
        session_id="user-123", content=f"{number} tea {FOX}".ljust(16_384, FOX), **fields
    )
    request.metadata.update({"n": [1] * 5_000})
    return request


@pytest.fixture
async def full(memory):
    """A session of 40 memories with over 4 MiB of contents and metadata."""
    for start in range(0, 40, 10):
        await memory.BatchStoreMemories(
            pb.BatchStoreMemoriesRequest(requests=map(largest, range(start, start + 10)))
        )
    return memory


async def counted(memory) -> list[int]:
    """The access count of each memory, in creation order."""
    counts, token = [], ""
    while True:
        page = await memory.ListMemories(
            pb.ListMemoriesRequest(session_id="user-123", page_size=1000, page_token=token)
        )
        counts += [one.access_count for one in page.memories]
        token = page.next_page_token
        if not token:
            return counts


@pytest.mark.parametrize("query", ["", "tea"])
async def test_results_end_early_and_only_those_returned_count_as_accessed(full, eventually, query):
    request = pb.RetrieveMemoriesRequest(session_id="user-123", query=query, limit=100)
    answer = await full.RetrieveMemories(request)
    assert answer.truncated
    assert CLIENT_BYTES - 400_000 < answer.ByteSize() <= CLIENT_BYTES
    scores = [result.score for result in answer.results]
    assert scores == sorted(scores, reverse=True)
    places = [int(result.memory.content.split()[0]) for result in answer.results]

    async def has_counted() -> bool:
        return any(await counted(full))

    await eventually(has_counted)
    # Once more: they may have been counted between two pages.
    counts = await counted(full)
    assert [place for place, count in enumerate(counts) if count] == sorted(places)
    few = await full.RetrieveMemories(
        pb.RetrieveMemoriesRequest(session_id="user-123", query=query, limit=10, peek=True)
    )
    assert len(few.results) == 10
    assert not few.truncated


async def test_near_duplicates_end_early(full):
    request = pb.FindSimilarMemoriesRequest(
        session_id="user-123", content="tea", max_distance=64, limit=100
    )
    answer = await full.FindSimilarMemories(request)
    assert answer.truncated
    assert CLIENT_BYTES - 400_000 < answer.ByteSize() <= CLIENT_BYTES
    request.limit = 10
    answer = await full.FindSimilarMemories(request)
    assert len(answer.results) == 10
    assert not answer.truncated


async def test_a_sample_of_the_largest_memories_is_received(full):
    answer = await full.PurgeMemories(pb.PurgeMemoriesRequest(session_id="user-123"))
    assert answer.purge_count == 40
    assert len(answer.sample) == 20
    assert all(memory.content for memory in answer.sample)


async def test_a_batch_that_grows_as_it_is_answered_says_where_it_ends(memory):
    """A small request may merge with a large memory."""
    stored = await memory.StoreMemory(largest(1))
    again = pb.StoreMemoryRequest(session_id="user-123", content=stored.memory.content)
    answer = await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=[again] * 50))
    assert answer.truncated
    assert answer.ByteSize() <= CLIENT_BYTES
    assert len(answer.responses) == 50
    assert {response.memory.memory_id for response in answer.responses} == {stored.memory.memory_id}
    assert all(response.outcome == pb.STORE_OUTCOME_MERGED for response in answer.responses)
    whole = [bool(response.memory.content) for response in answer.responses]
    assert whole == sorted(whole, reverse=True)
    assert answer.ByteSize() > CLIENT_BYTES - 400_000
    assert answer.responses[0].memory.metadata["n"]
    revisions = [response.memory.revision for response in answer.responses]
    assert revisions == sorted(revisions)


async def test_a_batch_as_large_as_a_message_may_be_is_answered(memory):
    item = "x" * 4_100
    requests = [
        pb.StoreMemoryRequest(session_id=f"user-{n % 20}", content=f"{n} {item}")
        for n in range(1_000)
    ]
    answer = await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    assert len(answer.responses) == 1_000
    assert answer.truncated
    last = answer.responses[-1].memory
    assert not last.content
    found = await memory.GetMemory(
        pb.GetMemoryRequest(session_id=last.session_id, memory_id=last.memory_id)
    )
    assert found.content == requests[-1].content
    assert found.etag == last.etag


async def test_an_ordinary_answer_is_not_truncated(memory):
    requests = [pb.StoreMemoryRequest(session_id="user-123", content=f"tea {n}") for n in range(20)]
    stored = await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    assert not stored.truncated
    assert [r.memory.content for r in stored.responses] == [r.content for r in requests]
    found = await memory.RetrieveMemories(
        pb.RetrieveMemoriesRequest(session_id="user-123", query="tea", limit=20)
    )
    assert not found.truncated
    assert len(found.results) == 20
