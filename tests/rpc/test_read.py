"""GetMemory, ListMemories and RetrieveMemories."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

SESSION = "user-123"
ABSENT = "0197d3e2-7a44-7e2a-b2f0-3c1d5e6f7a8b"
TRIES = 100


@pytest.fixture
async def memory(serve) -> MemoryServiceStub:
    """A server that never deletes unused memories, so that time can move by months."""
    return (await serve(MEMORY_CLEANUP_DAYS="365")).memory


async def remember(memory: MemoryServiceStub, content: str, **fields: object) -> pb.Memory:
    fields = {"session_id": SESSION, "never_expires": True, **fields}
    answer = await memory.StoreMemory(pb.StoreMemoryRequest(content=content, **fields))
    return answer.memory


async def forget(memory: MemoryServiceStub, memory_id: str) -> None:
    await memory.DeleteMemory(pb.DeleteMemoryRequest(session_id=SESSION, memory_id=memory_id))


async def get(memory: MemoryServiceStub, memory_id: str, session_id: str = SESSION) -> pb.Memory:
    return await memory.GetMemory(pb.GetMemoryRequest(session_id=session_id, memory_id=memory_id))


async def page(memory: MemoryServiceStub, **fields: object) -> pb.ListMemoriesResponse:
    return await memory.ListMemories(pb.ListMemoriesRequest(**{"session_id": SESSION, **fields}))


async def retrieve(memory: MemoryServiceStub, **fields: object) -> pb.RetrieveMemoriesResponse:
    request = pb.RetrieveMemoriesRequest(**{"session_id": SESSION, **fields})
    return await memory.RetrieveMemories(request)


def contents(answer: pb.ListMemoriesResponse | pb.RetrieveMemoriesResponse) -> list[str]:
    if isinstance(answer, pb.ListMemoriesResponse):
        return [m.content for m in answer.memories]
    return [result.memory.content for result in answer.results]


async def accessed(memory: MemoryServiceStub, memory_id: str, count: int) -> pb.Memory:
    """The memory, once its accesses are written."""
    for _ in range(TRIES):
        found = await get(memory, memory_id)
        if found.access_count >= count:
            break
        await asyncio.sleep(0.05)
    assert found.access_count == count
    return found


# GetMemory


async def test_absent_deleted_expired_and_foreign_memories_are_equally_not_found(
    memory, clock, refused
):
    deleted = await remember(memory, "deleted")
    await forget(memory, deleted.memory_id)
    expired = await remember(memory, "expired", ttl=timedelta(hours=1))
    elsewhere = await remember(memory, "elsewhere", session_id="user-124")
    clock.move(timedelta(hours=1))
    refusals = []
    for session_id, memory_id in (
        (SESSION, ABSENT),
        (SESSION, deleted.memory_id),
        (SESSION, expired.memory_id),
        (SESSION, elsewhere.memory_id),
        ("never-heard-of", elsewhere.memory_id),
    ):
        refusal = await refused(get(memory, memory_id, session_id))
        assert refusal.code == grpc.StatusCode.NOT_FOUND
        assert refusal.reason == "MEMORY_NOT_FOUND"
        assert refusal.resource.resource_type == "memoryd.v1.Memory"
        assert refusal.resource.resource_name == memory_id
        refusals.append(str(refusal).replace(memory_id, "…"))
    assert len(set(refusals)) == 1


async def test_a_memory_is_live_until_the_instant_it_expires(memory, clock, refused):
    stored = await remember(memory, "soon gone", ttl=timedelta(hours=1))
    clock.move(timedelta(hours=1, microseconds=-1))
    assert (await get(memory, stored.memory_id)).content == "soon gone"
    assert contents(await page(memory)) == contents(await retrieve(memory)) == ["soon gone"]
    clock.move(timedelta(microseconds=1))
    assert (await refused(get(memory, stored.memory_id))).code == grpc.StatusCode.NOT_FOUND
    assert contents(await page(memory)) == contents(await retrieve(memory)) == []


async def test_effective_importance_is_that_of_the_time_of_the_answer(memory, clock):
    stored = await remember(memory, "fading", importance=0.8)
    assert stored.effective_importance == 0.8
    clock.move(timedelta(days=45, hours=12))
    found = await get(memory, stored.memory_id)
    assert found.importance == 0.8
    assert found.effective_importance == pytest.approx(0.8 * 2 ** (-45.5 / 30))


# ListMemories


async def test_creation_order_survives_later_changes(memory, clock):
    stored = []
    for name in ("first", "second", "third", "fourth"):
        stored.append(await remember(memory, name))
        clock.move(timedelta(seconds=1))
    changed = pb.Memory(session_id=SESSION, memory_id=stored[1].memory_id, importance=1)
    await memory.UpdateMemory(pb.UpdateMemoryRequest(memory=changed))
    await remember(memory, "First!", importance=0.9)
    await forget(memory, stored[2].memory_id)
    await memory.UndeleteMemory(
        pb.UndeleteMemoryRequest(session_id=SESSION, memory_id=stored[2].memory_id)
    )
    assert contents(await page(memory)) == ["first", "second", "third", "fourth"]


async def test_creation_order_is_commit_order_even_if_the_clock_goes_back(memory, clock):
    for name in ("first", "second", "third"):
        await remember(memory, name)
        clock.move(timedelta(hours=-1))
    assert contents(await page(memory)) == ["first", "second", "third"]


async def test_the_page_size_may_change_between_pages(memory):
    for n in range(25):
        await remember(memory, f"fact {n}")
    token, seen = "", []
    for size, count in ((10, 10), (1, 1), (3, 3), (1000, 11)):
        answer = await page(memory, page_size=size, page_token=token)
        assert len(answer.memories) == count
        seen += contents(answer)
        token = answer.next_page_token
    assert seen == [f"fact {n}" for n in range(25)]
    assert token == ""


async def test_the_last_page_may_be_just_full(memory):
    for n in range(4):
        await remember(memory, f"fact {n}")
    first = await page(memory, page_size=2)
    second = await page(memory, page_size=2, page_token=first.next_page_token)
    assert (len(second.memories), second.next_page_token) == (2, "")


async def test_a_page_token_is_bound_to_the_other_arguments(memory, refused):
    for n in range(4):
        await remember(memory, f"fact {n}", content_type=pb.CONTENT_TYPE_FACT)
    facts = pb.MemoryFilter(content_types=[pb.CONTENT_TYPE_FACT])
    token = (await page(memory, page_size=2, filter=facts)).next_page_token
    assert token
    for other in (
        {},
        {"filter": facts, "session_id": "user-124"},
        {"filter": facts, "show_deleted": True},
        {"filter": pb.MemoryFilter(content_types=[pb.CONTENT_TYPE_CONTEXT])},
        {"filter": pb.MemoryFilter(content_types=facts.content_types, min_importance=0)},
    ):
        refusal = await refused(page(memory, page_token=token, **other))
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
        assert list(refusal.violations) == ["page_token"]
    rest = await page(memory, page_token=token, filter=facts)
    assert contents(rest) == ["fact 2", "fact 3"]


async def test_a_page_token_that_was_made_up_is_refused(memory, refused):
    for n in range(4):
        await remember(memory, f"fact {n}")
    token = (await page(memory, page_size=2)).next_page_token
    turned = "B" if token[3] == "A" else "A"
    for made_up in (
        *("0", "2", "AAAA", "null", "../../etc/passwd", "' OR 1=1 --", "ünsinn", "=", " ", "\0"),
        token[:-1],
        token + "A",
        token[:3] + turned + token[4:],
        token.swapcase(),
        "A" * 1024,
    ):
        refusal = await refused(page(memory, page_token=made_up))
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT, made_up
        assert list(refusal.violations) == ["page_token"], made_up
    assert contents(await page(memory, page_token=token)) == ["fact 2", "fact 3"]


async def test_a_page_token_outlives_a_restart(serve):
    before = await serve()
    for n in range(4):
        await remember(before.memory, f"fact {n}")
    token = (await page(before.memory, page_size=3)).next_page_token
    await before.server.stop()
    after = await serve()
    assert contents(await page(after.memory, page_token=token)) == ["fact 3"]


async def test_concurrent_writes_make_no_page_repeat_or_skip(memory):
    for n in range(20):
        await remember(memory, f"fact {n}")

    async def write() -> None:
        for n in range(20, 60):
            await remember(memory, f"fact {n}")
            await remember(memory, f"FACT {n - 20}", importance=0.9)  # merges

    async def walk() -> list[str]:
        seen, token = [], ""
        while True:
            answer = await page(memory, page_size=3, page_token=token)
            seen += [m.memory_id for m in answer.memories]
            token = answer.next_page_token
            if not token:
                return seen

    writing = asyncio.gather(*(write() for _ in range(2)))
    walks = []
    while not writing.done():
        walks.append(await walk())
    await writing
    everything = [m.memory_id for m in (await page(memory, page_size=1000)).memories]
    assert len(everything) == 60
    assert await walk() == everything
    assert len({len(seen) for seen in walks}) > 1  # otherwise nothing was concurrent
    for seen in walks:
        assert seen == everything[: len(seen)]
        assert len(seen) >= 20


async def test_deleted_memories_are_listed_on_demand_and_expired_ones_never(memory, clock):
    deleted = await remember(memory, "deleted")
    await remember(memory, "kept")
    fleeting = await remember(memory, "deleted and expired", ttl=timedelta(minutes=1))
    await remember(memory, "expired", ttl=timedelta(minutes=1))
    await forget(memory, deleted.memory_id)
    await forget(memory, fleeting.memory_id)
    clock.move(timedelta(minutes=1))
    assert contents(await page(memory)) == ["kept"]
    shown = await page(memory, show_deleted=True)
    assert contents(shown) == ["deleted", "kept"]
    assert [m.HasField("delete_time") for m in shown.memories] == [True, False]


async def test_page_sizes_have_a_default_and_a_limit(serve, refused):
    memory = (await serve(MEMORY_MAX_ENTRIES="10")).memory
    batch = [pb.StoreMemoryRequest(session_id=SESSION, content=f"fact {n}") for n in range(1002)]
    for requests in (batch[:1000], batch[1000:]):
        await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    for size, count in ((0, 50), (1, 1), (999, 999), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)):
        answer = await page(memory, page_size=size, show_deleted=True)
        assert len(answer.memories) == count, size
        assert answer.next_page_token, size
    for size in (-1, -(2**31)):
        refusal = await refused(page(memory, page_size=size))
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
        assert list(refusal.violations) == ["page_size"]


@pytest.mark.parametrize(
    "large",
    [
        {"content": "🐘" * 16_380},
        {"content": "small", "metadata": {"numbers": [1] * 8_180}},
        {"content": "small", "metadata": {"text": "🐘" * 4_080}},
    ],
    ids=["contents", "numbers", "texts"],
)
async def test_a_client_with_the_usual_limit_receives_any_page(memory, large):
    for n in range(60):
        await remember(memory, **large | {"content": f"{n} {large['content']}"})
    seen, token = [], ""
    while True:
        answer = await page(memory, page_size=1000, page_token=token)
        seen += [name.split()[0] for name in contents(answer)]
        token = answer.next_page_token
        if not token:
            break
        assert answer.ByteSize() > 1024 * 1024  # a shortened page still has enough to be useful
    assert seen == [str(n) for n in range(60)]


async def test_an_absent_session_lists_nothing(memory):
    answer = await page(memory, session_id="never-heard-of")
    assert answer == pb.ListMemoriesResponse()


# Filters, which mean the same for listing and retrieval


async def found(memory: MemoryServiceStub, **conditions: object) -> list[str]:
    """The memories that both find, in creation order."""
    listed = contents(await page(memory, filter=pb.MemoryFilter(**conditions)))
    wanted = pb.MemoryFilter(**{"min_importance": 0, **conditions})
    retrieved = contents(await retrieve(memory, filter=wanted, limit=100, peek=True))
    assert sorted(retrieved) == sorted(listed)
    return listed


async def test_filter_by_any_of_some_types(memory):
    for name in ("USER_INFO", "PREFERENCE", "FACT", "CONTEXT"):
        await remember(memory, name, content_type=f"CONTENT_TYPE_{name}")
    assert await found(memory, content_types=[pb.CONTENT_TYPE_FACT]) == ["FACT"]
    some = [pb.CONTENT_TYPE_CONTEXT, pb.CONTENT_TYPE_USER_INFO, pb.CONTENT_TYPE_CONTEXT]
    assert await found(memory, content_types=some) == ["USER_INFO", "CONTEXT"]
    assert len(await found(memory)) == 4


async def test_created_after_is_inclusive_and_created_before_exclusive(memory, clock):
    times = []
    for name in ("first", "second", "third"):
        times.append(clock.now)
        await remember(memory, name)
        clock.move(timedelta(microseconds=1))
    assert await found(memory, created_after=times[1]) == ["second", "third"]
    assert await found(memory, created_before=times[1]) == ["first"]
    assert await found(memory, created_after=times[1], created_before=times[2]) == ["second"]
    assert await found(memory, created_after=times[1], created_before=times[1]) == []
    ever = {
        "created_after": datetime(1, 1, 1, tzinfo=UTC),
        "created_before": {"seconds": 253_402_300_799, "nanos": 999_999_999},
    }
    assert await found(memory, **ever) == ["first", "second", "third"]


async def test_times_between_microseconds_are_distinguished(memory, clock):
    await remember(memory, "on the microsecond")
    seconds = int(clock.now.timestamp())
    assert await found(memory, created_after={"seconds": seconds, "nanos": 1}) == []
    assert await found(memory, created_before={"seconds": seconds, "nanos": 1}) == [
        "on the microsecond"
    ]


async def test_min_importance_is_effective_and_inclusive(memory, clock):
    await remember(memory, "old", importance=1.0)
    clock.move(timedelta(days=30))
    await remember(memory, "new", importance=0.5)
    await remember(memory, "newer", importance=0.75)
    assert await found(memory, min_importance=0.5) == ["old", "new", "newer"]
    clock.move(timedelta(days=30))
    assert await found(memory, min_importance=0.25) == ["old", "new", "newer"]
    assert await found(memory, min_importance=0.2500001) == ["newer"]
    assert await found(memory, min_importance=0) == ["old", "new", "newer"]


async def test_min_importance_counts_accesses(memory):
    stored = await remember(memory, "in use", importance=0.25)
    everything = pb.MemoryFilter(min_importance=0)
    assert await found(memory, min_importance=0.26) == []
    await retrieve(memory, filter=everything)
    await accessed(memory, stored.memory_id, 1)
    assert await found(memory, min_importance=0.26) == ["in use"]
    for _ in range(14):
        await retrieve(memory, filter=everything)
    used = await accessed(memory, stored.memory_id, 15)
    assert used.effective_importance == pytest.approx(0.45)
    assert await found(memory, min_importance=0.449) == ["in use"]
    assert await found(memory, min_importance=0.451) == []


METADATA = {
    "one": 1,
    "half": 0.5,
    "zero": 0,
    "yes": True,
    "no": False,
    "digit": "1",
    "none": None,
    "blank": "",
    "list": [1, "a", None],
    "bag": {},
    "row": [],
    "nested": {"a": {"b": 1, "c": [True, {"d": None, "e": 2}]}, "z": 0},
}


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"one": 1.0},
        {"half": 0.5},
        {"zero": -0.0},
        {"none": None},
        {"yes": True, "digit": "1"},
        {"list": [1, "a", None]},
        {"bag": {}},
        {"row": []},
        {"nested": {"z": 0, "a": {"c": [True, {"e": 2, "d": None}], "b": 1}}},
        METADATA,
    ],
    ids=str,
)
async def test_metadata_that_is_equal_is_found(memory, wanted):
    await remember(memory, "found", metadata=METADATA)
    await remember(memory, "has none of it", metadata={"other": 1})
    expected = ["found"] if wanted else ["found", "has none of it"]
    assert await found(memory, metadata=wanted) == expected


async def test_metadata_that_differs_in_value_or_json_type_is_not_found(memory):
    await remember(memory, "stored", metadata=METADATA)
    for wanted in (
        *({"one": True}, {"one": "1"}, {"one": 2}, {"one": None}, {"one": [1]}),
        *({"zero": False}, {"zero": None}, {"zero": ""}),
        *({"yes": 1}, {"yes": "true"}, {"yes": False}, {"no": 0}, {"no": None}),
        *({"digit": 1}, {"blank": None}, {"none": False}, {"none": ""}, {"none": {}}),
        *({"missing": None}, {"missing": ""}, {"ONE": 1}),
        *({"list": [1, "a"]}, {"list": ["a", 1, None]}, {"list": [1, "a", False]}),
        *({"list": [True, "a", None]}, {"list": {"0": 1}}),
        *({"bag": []}, {"row": {}}, {"bag": None}),
        {"nested": {"a": {"b": 1, "c": [True, {"d": None, "e": 2}]}}},
        {"nested": {"a": {"b": True, "c": [True, {"d": None, "e": 2}]}, "z": 0}},
        {"nested": {"a": {"b": 1, "c": [1, {"d": None, "e": 2}]}, "z": 0}},
        {"nested": {"a": {"b": 1, "c": [True, {"e": 2}]}, "z": 0}},
        {"nested.z": 0},
        {"one": 1, "digit": "2"},
    ):
        assert await found(memory, metadata=wanted) == [], wanted


async def test_a_filter_on_metadata_fills_its_pages(memory):
    for n in range(40):
        await remember(memory, f"fact {n}", metadata={"even": n % 2 == 0})
    even = pb.MemoryFilter(metadata={"even": True})
    first = await page(memory, filter=even, page_size=15)
    assert contents(first) == [f"fact {n}" for n in range(0, 30, 2)]
    second = await page(memory, filter=even, page_size=15, page_token=first.next_page_token)
    assert contents(second) == [f"fact {n}" for n in range(30, 40, 2)]
    assert second.next_page_token == ""


async def test_all_conditions_of_a_filter_hold_together(memory, clock):
    for importance in (0.2, 0.8):
        for kind in (pb.CONTENT_TYPE_FACT, pb.CONTENT_TYPE_PREFERENCE):
            for place in ("Ulm", "Graz"):
                await remember(
                    memory,
                    f"{importance} {kind} {place}",
                    importance=importance,
                    content_type=kind,
                    metadata={"place": place},
                )
    assert await found(
        memory,
        content_types=[pb.CONTENT_TYPE_FACT],
        min_importance=0.5,
        metadata={"place": "Ulm"},
        created_after=clock.now,
    ) == [f"0.8 {pb.CONTENT_TYPE_FACT} Ulm"]


# RetrieveMemories


async def test_without_a_query_the_order_is_effective_importance(memory, clock):
    old = await remember(memory, "old", importance=0.9)
    clock.move(timedelta(days=30))
    await remember(memory, "new", importance=0.5)
    assert contents(await retrieve(memory, peek=True)) == ["new", "old"]
    only_old = pb.MemoryFilter(created_before=clock.now)
    for _ in range(3):
        assert contents(await retrieve(memory, filter=only_old)) == ["old"]
    await accessed(memory, old.memory_id, 3)
    answer = await retrieve(memory, peek=True)
    assert contents(answer) == ["old", "new"]
    assert [result.score for result in answer.results] == pytest.approx([0.51, 0.5])
    for result in answer.results:
        assert result.memory.effective_importance == pytest.approx(result.score)


async def test_the_threshold_is_the_configured_one(serve):
    memory = (await serve(MEMORY_IMPORTANCE_THRESHOLD="0.6")).memory
    await remember(memory, "below", importance=0.59)
    await remember(memory, "above", importance=0.6)
    assert contents(await retrieve(memory)) == ["above"]


async def test_the_threshold_applies_with_neither_query_nor_min_importance(memory, clock):
    for importance in (0.0, 0.29, 0.3, 0.31):
        await remember(memory, f"tea at {importance}", importance=importance)
    above = ["tea at 0.31", "tea at 0.3"]
    everything = [*above, "tea at 0.29", "tea at 0.0"]
    assert contents(await retrieve(memory, peek=True)) == above
    facts = pb.MemoryFilter(content_types=[pb.CONTENT_TYPE_CONTEXT])
    assert contents(await retrieve(memory, filter=facts, peek=True)) == above
    least = pb.MemoryFilter(min_importance=0)
    assert contents(await retrieve(memory, filter=least, peek=True)) == everything
    assert sorted(contents(await retrieve(memory, query="tea", peek=True))) == sorted(everything)
    some = pb.MemoryFilter(min_importance=0.29)
    answer = await retrieve(memory, query="tea", filter=some, peek=True)
    assert sorted(contents(answer)) == sorted([*above, "tea at 0.29"])
    clock.move(timedelta(days=60))
    assert contents(await retrieve(memory, peek=True)) == []


async def test_with_a_query_the_relevant_come_first(memory):
    await remember(memory, "The contract ends in March", importance=1.0)
    await remember(memory, "Prefers to be called by phone", importance=0.1)
    await remember(memory, "Speaks German and Czech", importance=1.0)
    answer = await retrieve(memory, query="Should we phone?", peek=True)
    assert contents(answer)[0] == "Prefers to be called by phone"
    answer = await retrieve(memory, query="GERMAN", peek=True)
    assert contents(answer)[0] == "Speaks German and Czech"


async def test_relevance_is_tempered_by_importance(memory):
    await remember(memory, "green tea", importance=0.2)
    await remember(memory, "black tea", importance=0.8)
    await remember(memory, "white tea", importance=0.5)
    answer = await retrieve(memory, query="tea", peek=True)
    assert contents(answer) == ["black tea", "white tea", "green tea"]


@pytest.mark.parametrize("query", ["", "tea with milk"])
async def test_the_breakdown_adds_up_to_the_score(memory, query):
    for n in range(5):
        await remember(memory, "tea " * n + f"number {n}", importance=0.5 + n / 20)
    results = (await retrieve(memory, query=query, peek=True)).results
    assert len(results) == 5
    assert [r.score for r in results] == sorted((r.score for r in results), reverse=True)
    for result in results:
        shares = [value for _, value in result.breakdown.ListFields()]
        assert result.score == pytest.approx(sum(shares))
        assert result.breakdown.importance > 0
    assert any(result.breakdown.lexical > 0 for result in results) == bool(query)


@pytest.mark.parametrize("blank", [" ", "\t\r\n", "\u3000\u00a0\u2003"])
async def test_a_query_of_white_space_counts_as_no_query(memory, blank):
    await remember(memory, "tea", importance=0.5)
    await remember(memory, "of no importance", importance=0.1)
    answer = await retrieve(memory, query=blank, peek=True)
    assert contents(answer) == ["tea"]
    assert answer == await retrieve(memory, peek=True)


async def test_limits_have_a_default_and_a_bound(serve, refused):
    memory = (await serve(MEMORY_MAX_ENTRIES="200")).memory
    batch = [pb.StoreMemoryRequest(session_id=SESSION, content=f"fact {n}") for n in range(120)]
    await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=batch))
    for query in ("", "fact"):
        for limit, count in ((0, 10), (1, 1), (99, 99), (100, 100), (101, 100), (500, 100)):
            answer = await retrieve(memory, query=query, limit=limit, peek=True)
            assert len(answer.results) == count, limit
    refusal = await refused(retrieve(memory, limit=-1))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == ["limit"]


async def test_ties_come_in_creation_order(memory):
    for n in range(12):
        await remember(memory, f"fact {n}")
    answer = await retrieve(memory, limit=5, peek=True)
    assert contents(answer) == [f"fact {n}" for n in range(5)]


async def test_an_access_is_counted_once_and_dated(memory, clock):
    stored = await remember(memory, "in use")
    clock.move(timedelta(minutes=5))
    at = clock.now
    (result,) = (await retrieve(memory)).results
    assert result.memory == await get(memory, stored.memory_id)  # not counted yet
    clock.move(timedelta(minutes=5))
    first = await accessed(memory, stored.memory_id, 1)
    assert first.last_access_time.ToDatetime(UTC) == at
    assert first.update_time == stored.update_time
    # Once a later access is visible, any earlier one has been counted too.
    other = await remember(memory, "in use too", importance=1)
    await retrieve(memory, limit=1)
    await accessed(memory, other.memory_id, 1)
    assert (await get(memory, stored.memory_id)).access_count == 1


async def test_only_what_was_returned_counts_as_accessed(memory):
    left_out = await remember(memory, "left out", importance=0.4)
    returned = await remember(memory, "returned", importance=0.6)
    await retrieve(memory, limit=1)
    await accessed(memory, returned.memory_id, 1)
    assert (await get(memory, left_out.memory_id)).access_count == 0


async def test_accesses_that_were_counted_before_a_change_are_shown_after_it(memory):
    changed = await remember(memory, "one")
    gone = await remember(memory, "two")
    await retrieve(memory, query="one two")
    for one in (changed, gone):
        await accessed(memory, one.memory_id, 1)
    edit = pb.Memory(session_id=SESSION, memory_id=changed.memory_id, importance=0.9)
    await memory.UpdateMemory(pb.UpdateMemoryRequest(memory=edit))
    await forget(memory, gone.memory_id)
    answer = await retrieve(memory, query="one two", peek=True)
    assert [result.memory.access_count for result in answer.results] == [1]


async def test_concurrent_retrievals_all_count(memory):
    stored = await remember(memory, "in use")
    await asyncio.gather(*(retrieve(memory) for _ in range(20)))
    await accessed(memory, stored.memory_id, 20)


async def test_a_peek_leaves_no_trace(memory):
    stored = await remember(memory, "looked at")
    for query in ("", "looked"):
        await retrieve(memory, query=query, peek=True)
    await page(memory)
    await retrieve(memory)
    await accessed(memory, stored.memory_id, 1)


async def test_accesses_outlive_a_stop(serve):
    before = await serve()
    stored = await remember(before.memory, "in use")
    await retrieve(before.memory)
    await before.server.stop()
    after = await serve()
    assert (await get(after.memory, stored.memory_id)).access_count == 1


async def test_the_revision_is_the_one_that_the_answer_reflects(memory):
    stored = await remember(memory, "first")
    assert (await retrieve(memory)).revision == stored.revision
    await remember(memory, "second")
    await forget(memory, stored.memory_id)
    shown = (await page(memory, show_deleted=True)).memories
    answer = await retrieve(memory, limit=1)
    assert answer.revision == max(m.revision for m in shown) == 3


async def test_a_session_without_live_memories_keeps_its_revision(memory):
    stored = await remember(memory, "only one")
    await forget(memory, stored.memory_id)
    assert await retrieve(memory) == pb.RetrieveMemoriesResponse(revision=2)


async def test_an_absent_session_has_nothing_to_retrieve(memory):
    for query in ("", "anything"):
        answer = await retrieve(memory, session_id=str(uuid.uuid4()), query=query)
        assert answer == pb.RetrieveMemoriesResponse()


async def test_deleted_memories_are_not_retrieved(memory):
    stored = await remember(memory, "tea, deleted")
    await remember(memory, "tea, kept")
    await forget(memory, stored.memory_id)
    assert contents(await retrieve(memory)) == ["tea, kept"]
    assert contents(await retrieve(memory, query="tea deleted")) == ["tea, kept"]


async def test_sessions_do_not_see_each_other(memory):
    await remember(memory, "mine")
    await remember(memory, "theirs", session_id="user-124")
    assert contents(await retrieve(memory, query="theirs")) == ["mine"]
    assert contents(await page(memory)) == ["mine"]
