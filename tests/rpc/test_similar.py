"""FindSimilarMemories."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta

import grpc
import pytest

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

BASE = "the customer in berlin asked twice about the late delivery of order 4711 and wants a refund"


def store(
    content: str = "prefers e-mail", session_id: str = "user-123", **fields: object
) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id=session_id, content=content, **fields)


def named(kind: type, memory: pb.Memory) -> object:
    return kind(session_id=memory.session_id, memory_id=memory.memory_id)


async def stored(memory: MemoryServiceStub, *contents: str, **fields: object) -> list[pb.Memory]:
    return [(await memory.StoreMemory(store(c, **fields))).memory for c in contents]


async def similar(memory: MemoryServiceStub, **fields: object) -> list[tuple[str, int]]:
    request = pb.FindSimilarMemoriesRequest(**{"session_id": "user-123", **fields})
    answer = await memory.FindSimilarMemories(request)
    assert all(result.HasField("distance") for result in answer.results)
    return [(result.memory.memory_id, result.distance) for result in answer.results]


def simhash(content: str) -> int:
    """The SimHash as the contract defines it, bit by bit."""
    normalised = re.sub(r"\s+", " ", content.lower()).strip().rstrip(".,!?;:")
    sums = [0] * 64
    for token in normalised.split():
        digest = hashlib.sha256(token.encode()).digest()
        for bit in range(64):
            sums[bit] += 1 if digest[bit // 8] >> (bit % 8) & 1 else -1
    return sum(1 << bit for bit in range(64) if sums[bit] > 0)


def distance(one: str, other: str) -> int:
    return (simhash(one) ^ simhash(other)).bit_count()


VARIANTS = [
    BASE,
    BASE.replace("twice", "again"),
    BASE.replace("berlin", "hamburg").replace("refund", "voucher"),
    "likes green tea in the morning",
    "speaks Portuguese",
]


MANY = [BASE.replace("twice", f"{n} times") for n in range(30)]


async def test_the_nearest_come_first(memory):
    memories = await stored(memory, *reversed(VARIANTS))
    expected = sorted(
        ((distance(BASE, m.content), n, m.memory_id) for n, m in enumerate(memories)),
    )
    assert expected[0][0] == 0
    assert len({apart for apart, _, _ in expected}) > 3
    found = await similar(memory, content=BASE, max_distance=64)
    assert found == [(memory_id, apart) for apart, _, memory_id in expected]


async def test_equally_near_ones_come_in_creation_order(memory):
    contents = ["Likes tea", "likes tea!", "LIKES TEA", "likes  tea?"]
    memories = [
        (await memory.StoreMemory(store(content, content_type=kind))).memory
        for content, kind in zip(contents, (4, 2, 3, 1), strict=True)
    ]
    await memory.StoreMemory(store("likes tea", content_type=4, importance=1))  # merged
    found = await similar(memory, content="likes tea")
    assert found == [(m.memory_id, 0) for m in memories]


async def test_unset_the_distance_is_at_most_ten(memory):
    memories = await stored(memory, *VARIANTS, *MANY)
    near = {m.memory_id: distance(BASE, m.content) for m in memories}
    assert {10, 11} <= set(near.values())
    expected = {i: apart for i, apart in near.items() if apart <= 10}
    assert dict(await similar(memory, content=BASE, limit=100)) == expected


@pytest.mark.parametrize("max_distance", [0, 1, 9, 10, 11, 30, 64])
async def test_the_given_distance_is_inclusive(memory, max_distance):
    memories = await stored(memory, *VARIANTS, *MANY)
    near = {m.memory_id: distance(BASE, m.content) for m in memories}
    expected = {i: apart for i, apart in near.items() if apart <= max_distance}
    found = await similar(memory, content=BASE, max_distance=max_distance, limit=100)
    assert dict(found) == expected


async def test_a_distance_of_zero_is_set(memory):
    (one,) = await stored(memory, BASE)
    answer = await memory.FindSimilarMemories(
        pb.FindSimilarMemoriesRequest(session_id="user-123", content=BASE, max_distance=0)
    )
    (result,) = answer.results
    assert result.HasField("distance")
    assert result == pb.SimilarMemory(memory=one, distance=0, similarity=result.similarity)
    assert result.similarity == pytest.approx(1, abs=1e-3)


async def test_a_memory_is_not_among_those_similar_to_it(memory):
    memories = await stored(memory, *VARIANTS)
    found = await similar(memory, memory_id=memories[0].memory_id, max_distance=64)
    assert {i for i, _ in found} == {m.memory_id for m in memories[1:]}
    by_content = await similar(memory, content=BASE, max_distance=64)
    assert found == by_content[1:]


async def test_an_absent_memory_is_not_found(running, clock, refused):
    memory = running.memory
    deleted, expiring, elsewhere = (
        *(await stored(memory, "deleted")),
        *(await stored(memory, "expiring", ttl=timedelta(minutes=1))),
        *(await stored(memory, "elsewhere", session_id="user-124")),
    )
    await memory.DeleteMemory(named(pb.DeleteMemoryRequest, deleted))
    clock.move(timedelta(minutes=1))
    absent = "019ca945-0a00-7000-8000-000000000000"
    for memory_id in (
        deleted.memory_id,
        expiring.memory_id,
        elsewhere.memory_id,
        absent,
    ):
        refusal = await refused(similar(memory, memory_id=memory_id))
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.NOT_FOUND,
            "MEMORY_NOT_FOUND",
        )
        assert refusal.resource.resource_name == memory_id


async def test_deleted_and_expired_memories_are_similar_to_nothing(memory, clock):
    (deleted,) = await stored(memory, "Likes tea")
    await memory.DeleteMemory(named(pb.DeleteMemoryRequest, deleted))
    await stored(memory, "likes  tea", content_type=2, ttl=timedelta(minutes=1))
    await stored(memory, "likes tea", session_id="user-124")
    (live,) = await stored(memory, "LIKES TEA")
    clock.move(timedelta(minutes=1))
    assert await similar(memory, content="likes tea") == [(live.memory_id, 0)]


@pytest.mark.parametrize(("limit", "answered"), [(0, 10), (1, 1), (7, 7), (100, 100), (9999, 100)])
async def test_the_limit_bounds_the_answer(serve, limit, answered):
    memory = (await serve(MEMORY_MAX_ENTRIES="1000")).memory
    requests = [store(f"{BASE} {n}") for n in range(120)]
    await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    everything = await similar(memory, content=BASE, max_distance=64, limit=100)
    found = await similar(memory, content=BASE, max_distance=64, limit=limit)
    assert found == everything[:answered]
    assert len(found) == answered


async def test_a_session_without_memories_has_no_similar_ones(memory):
    assert await similar(memory, content=BASE, max_distance=64) == []


async def test_the_text_is_sanitised_as_for_storing(memory):
    (one,) = await stored(memory, "Likes <b>green</b> tea.")
    assert one.content == "Likes green tea."
    found = await similar(memory, content="  likes <script>x()</script>GREEN tea", max_distance=0)
    assert found == [(one.memory_id, 0)]


async def test_looking_changes_nothing_and_blocks_no_write(memory):
    (one,) = await stored(memory, BASE)
    for _ in range(3):
        await similar(memory, content=BASE)
        await similar(memory, memory_id=one.memory_id, max_distance=64)
    assert await memory.GetMemory(named(pb.GetMemoryRequest, one)) == one
    near = await memory.StoreMemory(store(f"{BASE} soon"))
    assert near.outcome == pb.STORE_OUTCOME_CREATED
    assert near.memory.revision == 2


@pytest.mark.parametrize(
    ("fields", "violated"),
    [
        ({}, {"target"}),
        ({"content": "<script>x()</script>"}, {"content"}),
        ({"content": ""}, {"content"}),
        ({"content": "x" * 16_385}, {"content"}),
        ({"memory_id": "4711"}, {"memory_id"}),
        ({"content": "x", "max_distance": 65}, {"max_distance"}),
        ({"content": "x", "max_distance": -1}, {"max_distance"}),
        ({"content": "x", "limit": -1}, {"limit"}),
        ({"content": "x", "min_similarity": 1.5}, {"min_similarity"}),
        (
            {"session_id": "a/b", "content": " ", "max_distance": 99, "limit": -5},
            {"session_id", "content", "max_distance", "limit"},
        ),
    ],
)
async def test_every_violation_is_listed(memory, refused, fields, violated):
    refusal = await refused(similar(memory, **fields))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == violated
