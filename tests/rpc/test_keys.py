"""Memories with a key: what they merge with and replace, and how they are named by it."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from datetime import timedelta

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tests.rpc.test_change import delete, get, undelete, update

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

SESSION = "user-123"
KEY = "home_address"
CALLERS = 64


def store(content: str, key: str = KEY, **fields: object) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id=SESSION, content=content, key=key, **fields)


async def stored(
    memory: MemoryServiceStub, content: str, key: str = KEY, **fields: object
) -> pb.StoreMemoryResponse:
    return await memory.StoreMemory(store(content, key, **fields))


async def get_by_key(memory: MemoryServiceStub, key: str = KEY) -> pb.Memory:
    return await memory.GetMemory(pb.GetMemoryRequest(session_id=SESSION, key=key))


async def delete_by_key(memory: MemoryServiceStub, key: str = KEY, etag: str = "") -> pb.Memory:
    return await memory.DeleteMemory(pb.DeleteMemoryRequest(session_id=SESSION, key=key, etag=etag))


async def listed(memory: MemoryServiceStub, **fields: object) -> list[pb.Memory]:
    request = pb.ListMemoriesRequest(session_id=SESSION, page_size=1000, **fields)
    return list((await memory.ListMemories(request)).memories)


async def events(memory: MemoryServiceStub, count: int, start: int = 0) -> list[tuple[int, str]]:
    """The first changes after a revision, with the memories that they are about."""
    request = pb.WatchMemoriesRequest(session_id=SESSION, start_revision=start)
    call = memory.WatchMemories(request)
    found = [await call.read() for _ in range(count)]
    call.cancel()
    assert [event.revision for event in found] == list(range(start + 1, start + count + 1))
    return [(event.change, event.memory.memory_id) for event in found]


# Storing


async def test_what_differs_replaces_the_holder_of_the_key(memory):
    first = await stored(memory, "lives in Bern", importance=0.9, metadata={"a": 1})
    assert (first.outcome, first.replaced_memory_id) == (pb.STORE_OUTCOME_CREATED, "")
    second = await stored(memory, "lives in Rome")
    assert second.outcome == pb.STORE_OUTCOME_REPLACED
    assert second.replaced_memory_id == first.memory.memory_id
    assert not second.evicted_memory_ids
    assert (second.memory.content, second.memory.key) == ("lives in Rome", KEY)
    assert (second.memory.importance, dict(second.memory.metadata)) == (0.5, {})
    assert await listed(memory) == [await get_by_key(memory)] == [second.memory]
    old, new = await listed(memory, show_deleted=True)
    assert (old.memory_id, new.memory_id) == (first.memory.memory_id, second.memory.memory_id)
    assert old.HasField("delete_time")
    assert (old.content, old.key) == ("lives in Bern", KEY)
    assert await events(memory, 3) == [
        (pb.MEMORY_CHANGE_CREATED, old.memory_id),
        (pb.MEMORY_CHANGE_DELETED, old.memory_id),
        (pb.MEMORY_CHANGE_CREATED, new.memory_id),
    ]


@pytest.mark.parametrize(
    "same", ["lives in Bern", "  Lives  in BERN!"], ids=["the same words", "normalised"]
)
async def test_the_same_content_under_its_key_is_merged(memory, same):
    first = await stored(memory, "lives in Bern", importance=0.2, metadata={"a": 1})
    second = await stored(memory, same, importance=0.8, metadata={"b": 2})
    assert (second.outcome, second.replaced_memory_id) == (pb.STORE_OUTCOME_MERGED, "")
    assert second.memory.memory_id == first.memory.memory_id
    assert (second.memory.content, second.memory.importance) == ("lives in Bern", 0.8)
    assert dict(second.memory.metadata) == {"a": 1, "b": 2}
    assert second.memory.key == KEY


async def test_another_type_replaces(memory):
    first = await stored(memory, "lives in Bern", content_type=pb.CONTENT_TYPE_FACT)
    second = await stored(memory, "lives in Bern", content_type=pb.CONTENT_TYPE_USER_INFO)
    assert second.outcome == pb.STORE_OUTCOME_REPLACED
    assert second.replaced_memory_id == first.memory.memory_id


async def test_memories_with_and_without_keys_never_merge(memory):
    outcomes = [
        (await stored(memory, "lives in Bern", key)).outcome
        for key in ("", KEY, "office_address", "", KEY)
    ]
    assert outcomes == [pb.STORE_OUTCOME_CREATED] * 3 + [pb.STORE_OUTCOME_MERGED] * 2
    found = await listed(memory)
    assert [one.key for one in found] == ["", KEY, "office_address"]
    expected = hashlib.sha256(b"lives in bern").hexdigest()
    assert {one.content_hash for one in found} == {expected}


async def test_a_deleted_or_expired_holder_makes_room(memory, clock):
    first = await stored(memory, "lives in Bern", ttl=timedelta(hours=1))
    clock.move(timedelta(hours=2))
    with pytest.raises(grpc.aio.AioRpcError):
        await get_by_key(memory)
    second = await stored(memory, "lives in Bern")
    assert second.outcome == pb.STORE_OUTCOME_CREATED
    assert second.memory.memory_id != first.memory.memory_id
    await delete_by_key(memory)
    third = await stored(memory, "lives in Rome")
    assert third.outcome == pb.STORE_OUTCOME_CREATED
    assert await listed(memory) == [third.memory]


async def test_a_batch_replaces_within_itself(memory):
    batch = pb.BatchStoreMemoriesRequest(
        requests=[store("one"), store("two"), store("two"), store("three"), store("one", "other")]
    )
    first, second, merged, third, other = (await memory.BatchStoreMemories(batch)).responses
    assert [one.outcome for one in (first, second, merged, third, other)] == [
        pb.STORE_OUTCOME_CREATED,
        pb.STORE_OUTCOME_REPLACED,
        pb.STORE_OUTCOME_MERGED,
        pb.STORE_OUTCOME_REPLACED,
        pb.STORE_OUTCOME_CREATED,
    ]
    assert third.replaced_memory_id == second.memory.memory_id == merged.memory.memory_id
    assert [one.content for one in await listed(memory)] == ["three", "one"]


async def test_a_batch_that_is_refused_replaces_nothing(memory, refused):
    first = (await stored(memory, "lives in Bern", tags=[f"{n}" for n in range(32)])).memory
    batch = pb.BatchStoreMemoriesRequest(
        requests=[store("lives in Rome"), store("lives in Rome", tags=["a"] * 40), store("", "x")]
    )
    refusal = await refused(memory.BatchStoreMemories(batch))
    assert set(refusal.violations) == {"requests[2].content"}
    del batch.requests[2:]
    batch.requests.add(session_id=SESSION, content="lives in Rome", key=KEY, tags=["b"])
    batch.requests.add(
        session_id=SESSION, content="lives in Rome", key=KEY, tags=[f"{n}" for n in range(31)]
    )
    refusal = await refused(memory.BatchStoreMemories(batch))
    assert set(refusal.violations) == {"requests[3].tags"}
    assert await listed(memory, show_deleted=True) == [first]


async def test_a_stream_replaces(memory):
    call = memory.StreamStoreMemories(
        iter([pb.StreamStoreMemoriesRequest(requests=[store("one"), store("two"), store("", "x")])])
    )
    (answer,) = [answer async for answer in call]
    one, two, bad = answer.results
    assert two.response.outcome == pb.STORE_OUTCOME_REPLACED
    assert two.response.replaced_memory_id == one.response.memory.memory_id
    assert bad.status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


@pytest.mark.parametrize("purged", [False, True], ids=["kept", "purged"])
async def test_a_retry_of_what_replaced_gets_the_first_answer(memory, purged):
    old = await stored(memory, "lives in Bern")
    request = store("lives in Rome", request_id=str(uuid.uuid4()), tags=["b", "a"])
    first = await memory.StoreMemory(request)
    await stored(memory, "lives in Oslo")
    if purged:
        await memory.PurgeMemories(pb.PurgeMemoriesRequest(session_id=SESSION, force=True))
    again = await memory.StoreMemory(request)
    assert again == first
    assert (again.outcome, again.replaced_memory_id) == (
        pb.STORE_OUTCOME_REPLACED,
        old.memory.memory_id,
    )


@pytest.mark.parametrize("purged", [False, True], ids=["kept", "purged"])
async def test_a_retry_of_what_was_merged_gets_the_first_answer(memory, purged):
    await stored(memory, "lives in Bern", tags=["a"])
    request = store("lives in Bern", request_id=str(uuid.uuid4()), tags=["a"])
    first = await memory.StoreMemory(request)
    await stored(memory, "lives in Oslo")
    if purged:
        await memory.PurgeMemories(pb.PurgeMemoriesRequest(session_id=SESSION, force=True))
    again = await memory.StoreMemory(request)
    assert again == first
    assert again.outcome == pb.STORE_OUTCOME_MERGED


async def test_a_request_with_another_key_is_another_request(memory, refused):
    request_id = str(uuid.uuid4())
    await stored(memory, "lives in Bern", request_id=request_id)
    refusal = await refused(stored(memory, "lives in Bern", "other", request_id=request_id))
    assert refusal.reason == "REQUEST_ID_REUSED"


async def test_a_full_session_evicts_nothing_for_what_replaces(serve):
    memory = (await serve(MEMORY_MAX_ENTRIES="10")).memory
    for number in range(9):
        await stored(memory, f"fact {number}", "")
    await stored(memory, "lives in Bern")
    second = await stored(memory, "lives in Rome")
    assert (second.outcome, list(second.evicted_memory_ids)) == (pb.STORE_OUTCOME_REPLACED, [])
    assert len(await listed(memory)) == 10
    new = await stored(memory, "one more", "other")
    assert len(new.evicted_memory_ids) == 1
    assert len(await listed(memory)) == 10


@pytest.mark.parametrize("servers", [1, 2], ids=["one server", "two servers"])
async def test_a_race_to_one_key_leaves_one_memory_and_a_whole_history(serve, servers):
    stubs = [(await serve()).memory for _ in range(servers)]
    answers = await asyncio.gather(
        *(stored(stubs[n % servers], f"address {n}") for n in range(CALLERS))
    )
    (live,) = await listed(stubs[0])
    created = [a for a in answers if a.outcome == pb.STORE_OUTCOME_CREATED]
    replaced = {a.replaced_memory_id for a in answers if a.replaced_memory_id}
    assert len(created) == 1
    ids = {answer.memory.memory_id for answer in answers}
    assert replaced == ids - {live.memory_id}
    assert live == await get_by_key(stubs[-1])
    assert live.revision == 2 * CALLERS - 1
    assert len(await listed(stubs[-1], show_deleted=True)) == CALLERS
    revisions: list[int] = []
    for memory_id in ids:
        request = pb.ListMemoryRevisionsRequest(session_id=SESSION, memory_id=memory_id)
        answer = await stubs[0].ListMemoryRevisions(request)
        revisions += [one.revision for one in answer.revisions]
    assert sorted(revisions) == list(range(1, 2 * CALLERS))


# Naming by the key


async def test_a_memory_is_read_and_deleted_by_its_key(memory, refused):
    first = (await stored(memory, "lives in Bern")).memory
    assert await get_by_key(memory) == await get(memory, first.memory_id) == first
    stale = await refused(delete_by_key(memory, etag="r0"))
    assert stale.code is grpc.StatusCode.ABORTED
    deleted = await delete_by_key(memory, etag=first.etag)
    assert deleted.memory_id == first.memory_id
    assert deleted.HasField("delete_time")
    for call in (get_by_key(memory), delete_by_key(memory), get_by_key(memory, "never")):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.NOT_FOUND,
            "MEMORY_NOT_FOUND",
        )
    assert refusal.resource.resource_name == "never"


@pytest.mark.parametrize("kind", [pb.GetMemoryRequest, pb.DeleteMemoryRequest])
@pytest.mark.parametrize("given", ["neither", "both"])
async def test_exactly_one_name_is_given(memory, refused, kind, given):
    first = (await stored(memory, "lives in Bern")).memory
    names = {"memory_id": first.memory_id, "key": KEY} if given == "both" else {}
    method = memory.GetMemory if kind is pb.GetMemoryRequest else memory.DeleteMemory
    refusal = await refused(method(kind(session_id=SESSION, **names)))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"key" if given == "both" else "memory_id"}
    assert await get_by_key(memory) == first


@pytest.mark.parametrize("key", ["with space", "ü", "a\n", "a\0", "k" * 256, "a#b", "a%"], ids=repr)
async def test_what_is_no_key_is_refused(memory, refused, key):
    calls = (
        stored(memory, "lives in Bern", key),
        get_by_key(memory, key),
        delete_by_key(memory, key),
        listed(memory, filter=pb.MemoryFilter(key_prefix=key)),
    )
    for call, field in zip(calls, ("key", "key", "key", "filter.key_prefix"), strict=True):
        refusal = await refused(call)
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert set(refusal.violations) == {field}


@pytest.mark.parametrize("key", ["k" * 255, "Az09._:@/-", "/", "a..b"])
async def test_every_key_allowed_is_kept(memory, key):
    assert (await stored(memory, "lives in Bern", key)).memory.key == key
    assert (await get_by_key(memory, key)).key == key


# Changing


async def test_an_update_never_changes_the_key(memory, refused):
    first = (await stored(memory, "lives in Bern")).memory
    same = await update(memory, first.memory_id, key=KEY)
    assert same == first
    for mask in (None, ["key"], ["*"], ["content", "key"]):
        refusal = await refused(
            update(memory, first.memory_id, mask, key="other", content="lives in Rome")
        )
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert set(refusal.violations) == {"memory.key"}
    assert set((await refused(update(memory, first.memory_id, ["key"]))).violations) == {
        "memory.key"
    }
    changed = await update(memory, first.memory_id, ["content"], key="other", content="x")
    assert (changed.key, changed.content) == (KEY, "x")
    whole = await update(memory, first.memory_id, ["*"], content="y")
    assert (whole.key, whole.content) == (KEY, "y")
    plain = (await stored(memory, "no key", "")).memory
    assert await update(memory, plain.memory_id, ["key"]) == plain
    assert set((await refused(update(memory, plain.memory_id, key=KEY))).violations) == {
        "memory.key"
    }


async def test_the_content_of_a_memory_with_a_key_collides_with_none(memory):
    plain = (await stored(memory, "lives in Rome", "")).memory
    first = (await stored(memory, "lives in Bern")).memory
    other = (await stored(memory, "lives in Oslo", "other")).memory
    changed = await update(memory, first.memory_id, content="lives in Rome")
    assert changed.content_hash == plain.content_hash
    await update(memory, other.memory_id, content="lives in Rome")
    merged = await stored(memory, "lives in Rome")
    assert (merged.outcome, merged.memory.memory_id) == (
        pb.STORE_OUTCOME_MERGED,
        first.memory_id,
    )
    again = await stored(memory, "lives in Rome", "")
    assert again.memory.memory_id == plain.memory_id
    assert len(await listed(memory)) == 3


async def test_what_was_replaced_comes_back_only_to_a_free_key(memory, refused):
    first = (await stored(memory, "lives in Bern")).memory
    second = (await stored(memory, "lives in Rome")).memory
    refusal = await refused(undelete(memory, first.memory_id))
    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.resource.resource_name == second.memory_id
    assert KEY in refusal.message
    await delete(memory, second.memory_id)
    assert (await undelete(memory, first.memory_id)).key == KEY
    assert (await get_by_key(memory)).memory_id == first.memory_id


# Finding


async def test_keys_are_found_by_their_beginning_wherever_a_filter_is(memory):
    for key in ("", "a/b", "a/c", "a", "a0", "A/b", "b/a"):
        await stored(memory, f"the key {key or 'none'}", key)
    for prefix, expected in (
        ("a/", ["a/b", "a/c"]),
        ("a", ["a/b", "a/c", "a", "a0"]),
        ("A", ["A/b"]),
        ("c", []),
    ):
        wanted = pb.MemoryFilter(key_prefix=prefix)
        assert [one.key for one in await listed(memory, filter=wanted)] == expected
        retrieve = pb.RetrieveMemoriesRequest(session_id=SESSION, filter=wanted, peek=True)
        found = (await memory.RetrieveMemories(retrieve)).results
        assert sorted(one.memory.key for one in found) == sorted(expected)
        export = pb.ExportMemoriesRequest(session_id=SESSION, filter=wanted)
        assert [one.key async for one in memory.ExportMemories(export)] == expected
        count = pb.PurgeMemoriesRequest(session_id=SESSION, filter=wanted)
        assert (await memory.PurgeMemories(count)).purge_count == len(expected)


async def test_a_server_that_knows_no_keys_may_have_changed_the_content(memory, tables):
    """It has given the row the hash of its content, which then blocks nobody."""
    first = (await stored(memory, "lives in Bern")).memory
    plain = hashlib.sha256(b"lives in rome").hexdigest()
    await tables.execute(
        f"UPDATE memories SET content = 'lives in Rome', content_hash = '{plain}'"  # noqa: S608  ours
    )
    found = await get_by_key(memory)
    assert (found.memory_id, found.content_hash) == (first.memory_id, plain)
    other = await stored(memory, "lives in Rome", "")
    assert other.outcome == pb.STORE_OUTCOME_CREATED
    again = await stored(memory, "lives in Rome")
    assert (again.outcome, again.memory.memory_id) == (pb.STORE_OUTCOME_MERGED, first.memory_id)
    assert len(await listed(memory)) == 2


async def test_a_mask_may_name_the_key_with_what_changes(memory):
    first = (await stored(memory, "lives in Bern")).memory
    request = pb.UpdateMemoryRequest(
        memory=pb.Memory(
            session_id=SESSION, memory_id=first.memory_id, key=KEY, content="lives in Rome"
        ),
        update_mask=FieldMask(paths=["key", "content"]),
    )
    changed = await memory.UpdateMemory(request)
    assert (changed.content, changed.key) == ("lives in Rome", KEY)
