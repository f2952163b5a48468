"""StoreMemory and BatchStoreMemories."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from datetime import UTC, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from memoryd.rpc.fingerprint import fingerprint_of
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub


def store(
    content: str = "prefers e-mail", session_id: str = "user-123", **fields: object
) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id=session_id, content=content, **fields)


async def live(memory: MemoryServiceStub, session_id: str = "user-123") -> list[pb.Memory]:
    answer = await memory.ListMemories(
        pb.ListMemoriesRequest(session_id=session_id, page_size=1000)
    )
    return list(answer.memories)


async def test_answers_the_memory_as_stored(memory, clock):
    answer = await memory.StoreMemory(store("Prefers  <b>e-mail</b>.", importance=0.9))
    stored = answer.memory
    assert answer.outcome == pb.STORE_OUTCOME_CREATED
    assert stored.content == "Prefers e-mail."
    assert stored.content_type == pb.CONTENT_TYPE_CONTEXT
    assert stored.importance == stored.effective_importance == 0.9
    assert stored.content_hash == hashlib.sha256(b"prefers e-mail").hexdigest()
    assert len(stored.semantic_hash) == 16
    assert stored.access_count == 0
    assert stored.create_time.ToDatetime(clock.now.tzinfo) == clock.now
    assert stored.expire_time.ToDatetime(clock.now.tzinfo) == clock.now + timedelta(hours=24)
    assert stored.revision == 1
    assert not stored.HasField("last_access_time")
    assert uuid.UUID(stored.memory_id).version == 7
    got = await memory.GetMemory(
        pb.GetMemoryRequest(session_id="user-123", memory_id=stored.memory_id)
    )
    assert got == stored


async def test_content_that_came_behind_the_servers_back_is_merged_all_the_same(memory, tables):
    """As after a failover to a standby that had not received everything."""
    first = (await memory.StoreMemory(store("prefers e-mail"))).memory
    content_hash = hashlib.sha256(b"prefers calls").hexdigest()
    await tables.execute(
        f"UPDATE memories SET content = 'prefers calls', content_hash = '{content_hash}'"  # noqa: S608  ours
    )
    answers = await asyncio.gather(
        memory.StoreMemory(store("prefers calls")), memory.StoreMemory(store("likes tea"))
    )
    assert [answer.outcome for answer in answers] == [
        pb.STORE_OUTCOME_MERGED,
        pb.STORE_OUTCOME_CREATED,
    ]
    assert answers[0].memory.memory_id == first.memory_id
    assert len(await live(memory)) == 2


async def test_a_request_that_came_behind_the_servers_back_is_answered_as_the_first_time(
    memory, tables
):
    first = await memory.StoreMemory(store("prefers e-mail", request_id=str(uuid.uuid4())))
    elsewhere = str(uuid.UUID(int=0))
    await tables.execute(f"UPDATE store_receipts SET request_id = '{'A' * 22}'")  # noqa: S608  ours
    again, new = await asyncio.gather(
        memory.StoreMemory(store("prefers e-mail", request_id=elsewhere)),
        memory.StoreMemory(store("likes tea", request_id=str(uuid.uuid4()))),
    )
    assert again == first
    assert new.outcome == pb.STORE_OUTCOME_CREATED
    assert len(await live(memory)) == 2


async def test_sixty_four_concurrent_stores_of_one_content_leave_one_memory(memory):
    answers = await asyncio.gather(
        *(memory.StoreMemory(store("Order 4711 is late" + "!" * (n % 3))) for n in range(64))
    )
    assert len({answer.memory.memory_id for answer in answers}) == 1
    assert [answer.outcome for answer in answers].count(pb.STORE_OUTCOME_CREATED) == 1
    assert len(await live(memory)) == 1


async def test_two_servers_on_one_database_agree_on_one_memory(serve):
    servers = [await serve(), await serve()]
    answers = await asyncio.gather(
        *(servers[n % 2].memory.StoreMemory(store(f"fact {n // 8}")) for n in range(64))
    )
    assert len({answer.memory.memory_id for answer in answers}) == 8
    listed = await live(servers[0].memory)
    assert sorted(m.revision for m in listed) == sorted({m.revision for m in listed})
    assert max(m.revision for m in listed) == 64


async def test_merging_keeps_the_best_of_both(memory, clock):
    first = store(
        "Prefers e-mail", importance=0.4, metadata={"a": 1, "b": "old"}, never_expires=True
    )
    stored = (await memory.StoreMemory(first)).memory
    clock.move(timedelta(minutes=1))
    second = store("PREFERS   e-mail!", importance=0.7, metadata={"b": "new", "c": None})
    answer = await memory.StoreMemory(second)
    merged = answer.memory
    assert answer.outcome == pb.STORE_OUTCOME_MERGED
    assert merged.memory_id == stored.memory_id
    assert merged.content == "Prefers e-mail"
    assert merged.importance == 0.7
    assert MessageToDict(merged.metadata) == {"a": 1, "b": "new", "c": None}
    assert not merged.HasField("expire_time")
    assert merged.create_time == stored.create_time
    assert merged.update_time.ToDatetime(clock.now.tzinfo) == clock.now
    assert merged.revision == 2
    assert merged.etag != stored.etag


async def test_metadata_that_grows_too_large_by_merging_is_refused_and_nothing_changes(memory):
    await memory.StoreMemory(store(metadata={"a": "x" * 10_000}))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await memory.StoreMemory(store(metadata={"b": "x" * 10_000}))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    (unchanged,) = await live(memory)
    assert set(unchanged.metadata) == {"a"}


async def test_a_deleted_memory_neither_blocks_nor_resurfaces(memory):
    first = (await memory.StoreMemory(store())).memory
    await memory.DeleteMemory(
        pb.DeleteMemoryRequest(session_id="user-123", memory_id=first.memory_id)
    )
    again = await memory.StoreMemory(store())
    assert again.outcome == pb.STORE_OUTCOME_CREATED
    assert again.memory.memory_id != first.memory_id


async def test_an_expired_memory_neither_blocks_nor_resurfaces(memory, clock):
    first = (await memory.StoreMemory(store(ttl=timedelta(hours=1)))).memory
    clock.move(timedelta(hours=1))
    again = await memory.StoreMemory(store())
    assert again.outcome == pb.STORE_OUTCOME_CREATED
    assert again.memory.memory_id != first.memory_id
    assert [m.memory_id for m in await live(memory)] == [again.memory.memory_id]


async def test_sessions_and_types_stay_separate(memory):
    await memory.StoreMemory(store())
    await memory.StoreMemory(store(content_type=pb.CONTENT_TYPE_FACT))
    await memory.StoreMemory(store(session_id="user-124"))
    assert len(await live(memory)) == 2
    assert len(await live(memory, "user-124")) == 1


async def test_a_retried_request_gets_the_first_answer_again(memory, clock):
    request_id = str(uuid.uuid4())
    first = await memory.StoreMemory(store(request_id=request_id))
    clock.move(timedelta(minutes=5))
    await memory.DeleteMemory(
        pb.DeleteMemoryRequest(session_id="user-123", memory_id=first.memory.memory_id)
    )
    again = await memory.StoreMemory(store(request_id=request_id))
    again.memory.effective_importance = first.memory.effective_importance
    assert again == first
    assert await live(memory) == []


WHOLE = {
    "content_type": pb.CONTENT_TYPE_FACT,
    "importance": 0.25,
    "metadata": {"speaker": "Ada", "tags": [1, None, {"deep": True}]},
}


@pytest.mark.parametrize(
    "fields",
    [
        {"ttl": timedelta(hours=2)},
        {"never_expires": True},
        {"importance": 0.0, "metadata": {}},
        {"content": " Prefers\t<b>e-mail</b> &amp; calls! "},
    ],
    ids=["ttl", "never expires", "nothing", "markup"],
)
@pytest.mark.parametrize("merges", [False, True], ids=["created", "merged"])
async def test_a_retry_gets_all_of_the_first_answer_whatever_came_between(memory, fields, merges):
    fields = WHOLE | fields
    if merges:
        await memory.StoreMemory(store(**(fields | {"importance": 0.75, "metadata": {"b": 2}})))
    request = store(**fields, request_id=str(uuid.uuid4()))
    first = await memory.StoreMemory(request)
    assert await memory.StoreMemory(request) == first
    changed = pb.Memory(
        session_id="user-123", memory_id=first.memory.memory_id, content="x", importance=1.0
    )
    await memory.UpdateMemory(pb.UpdateMemoryRequest(memory=changed))
    assert await memory.StoreMemory(request) == first
    await memory.PurgeMemories(pb.PurgeMemoriesRequest(session_id="user-123", force=True))
    purged = await memory.StoreMemory(request)
    if merges:  # the text that was there before goes with the memory
        purged.memory.metadata.CopyFrom(first.memory.metadata)
    assert purged == first


async def keep_answer(tables, request: pb.StoreMemoryRequest, stored: pb.Memory, answer: Any):
    """Replace what is kept of a first answer by what an earlier release keeps."""
    await tables.execute("DELETE FROM store_receipts")
    columns = {
        "tenant": "default",
        "session_id": "user-123",
        "request_id": request.request_id,
        "memory_id": stored.memory_id,
        "fingerprint": fingerprint_of(request),
        "answer": json.dumps(answer),
        "created_at": stored.create_time.ToDatetime().isoformat(" ", "microseconds"),
    }
    values = ", ".join(f"'{value}'" for value in columns.values())
    await tables.execute(f"INSERT INTO store_requests ({', '.join(columns)}) VALUES ({values})")  # noqa: S608  ours


async def test_a_retry_gets_an_answer_that_an_earlier_release_has_kept(memory, tables):
    request = store(**WHOLE, request_id=str(uuid.uuid4()))
    first = await memory.StoreMemory(request)
    stored = first.memory
    moment = stored.create_time.ToDatetime(UTC).isoformat()
    kept = {
        "outcome": "created",
        "evicted": [],
        "memory": {
            "content": stored.content,
            "content_type": "fact",
            "importance": stored.importance,
            "metadata": MessageToDict(stored.metadata),
            "content_hash": stored.content_hash,
            "semantic_hash": stored.semantic_hash,
            "created_at": moment,
            "updated_at": moment,
            "expires_at": stored.expire_time.ToDatetime(UTC).isoformat(),
            "revision": 1,
            "created_revision": 1,
            "change": "created",
            "access_count": 0,
            "last_accessed": None,
            "deleted_at": None,
        },
    }
    await keep_answer(tables, request, stored, kept)
    assert await memory.StoreMemory(request) == first


async def test_a_retry_after_an_earlier_release_has_purged_the_memory_is_a_new_store(
    memory, tables, refused
):
    request = store(request_id=str(uuid.uuid4()))
    first = await memory.StoreMemory(request)
    await tables.execute("DELETE FROM memories")
    await tables.execute("UPDATE sessions SET revision = revision + 1")
    second = await memory.StoreMemory(request)
    assert second.outcome == pb.STORE_OUTCOME_CREATED
    assert second.memory.memory_id != first.memory.memory_id
    assert await memory.StoreMemory(request) == second
    other = store("something else", request_id=request.request_id)
    assert (await refused(memory.StoreMemory(other))).reason == "REQUEST_ID_REUSED"


async def test_what_a_store_removed_is_in_its_answer_again(serve):
    memory = (await serve(MEMORY_MAX_ENTRIES="10")).memory
    for n in range(10):
        await memory.StoreMemory(store(f"fact {n}", key=f"key/{n}"))
    evicting = store("one more", request_id=str(uuid.uuid4()))
    replacing = store("another fact", key="key/9", request_id=str(uuid.uuid4()))
    merging = store("another fact", key="key/9", importance=0.9, request_id=str(uuid.uuid4()))
    requests = (evicting, replacing, merging)
    first = [await memory.StoreMemory(request) for request in requests]
    assert first[0].evicted_memory_ids
    assert first[1].replaced_memory_id
    assert first[2].outcome == pb.STORE_OUTCOME_MERGED
    for n in range(10):
        await memory.StoreMemory(store(f"later {n}", importance=1.0))
    assert [await memory.StoreMemory(request) for request in requests] == first


async def test_a_request_id_is_the_same_in_upper_and_lower_case(memory, refused):
    request_id = str(uuid.uuid4())
    first = await memory.StoreMemory(store(request_id=request_id))
    assert await memory.StoreMemory(store(request_id=request_id.upper())) == first
    other = store("something else", request_id=request_id.upper())
    assert (await refused(memory.StoreMemory(other))).reason == "REQUEST_ID_REUSED"
    batch = pb.BatchStoreMemoriesRequest(
        requests=[
            store("another", request_id=str(uuid.UUID(int=0xA << 124)).upper()),
            store("yet another", request_id=str(uuid.UUID(int=0xA << 124))),
        ]
    )
    refusal = await refused(memory.BatchStoreMemories(batch))
    assert list(refusal.violations) == ["requests[1].request_id"]
    assert await live(memory) == [first.memory]


async def test_a_request_id_with_other_arguments_is_refused(memory):
    request_id = str(uuid.uuid4())
    await memory.StoreMemory(store(request_id=request_id))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await memory.StoreMemory(store("something else", request_id=request_id))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert len(await live(memory)) == 1


async def test_concurrent_retries_store_once(memory):
    request = store(request_id=str(uuid.uuid4()))
    answers = await asyncio.gather(*(memory.StoreMemory(request) for _ in range(16)))
    assert len({answer.SerializeToString(deterministic=True) for answer in answers}) == 1
    (stored,) = await live(memory)
    assert stored.revision == 1


async def test_over_capacity_the_least_important_go(serve):
    memory = (await serve(MEMORY_MAX_ENTRIES="10")).memory
    stored = [
        (await memory.StoreMemory(store(f"fact {n}", importance=n / 10))).memory for n in range(10)
    ]
    answer = await memory.StoreMemory(store("one more", importance=0.0))
    assert list(answer.evicted_memory_ids) == [stored[0].memory_id]
    kept = [m.memory_id for m in await live(memory)]
    assert kept == [m.memory_id for m in stored[1:]] + [answer.memory.memory_id]


async def test_concurrent_stores_never_exceed_capacity(serve):
    memory = (await serve(MEMORY_MAX_ENTRIES="10")).memory
    answers = await asyncio.gather(*(memory.StoreMemory(store(f"fact {n}")) for n in range(64)))
    evicted = [i for answer in answers for i in answer.evicted_memory_ids]
    assert len(evicted) == len(set(evicted)) == 54
    assert len(await live(memory)) == 10


async def test_a_batch_answers_in_order_and_acts_in_sequence(memory):
    requests = [
        store("first"),
        store("second", session_id="user-9"),
        store("FIRST.", importance=0.9),
        store("third"),
    ]
    answer = await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    assert [r.memory.content for r in answer.responses] == ["first", "second", "first", "third"]
    assert [r.outcome for r in answer.responses] == [1, 1, 2, 1]
    assert [r.memory.revision for r in answer.responses] == [1, 1, 2, 3]
    assert [m.importance for m in await live(memory)] == [0.9, 0.5]


async def test_a_batch_larger_than_the_session_holds_keeps_the_last(serve):
    memory = (await serve(MEMORY_MAX_ENTRIES="10")).memory
    requests = [store(f"fact {n}") for n in range(1000)]
    answer = await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    evicted = [i for response in answer.responses for i in response.evicted_memory_ids]
    assert evicted == [response.memory.memory_id for response in answer.responses[:990]]
    assert [m.content for m in await live(memory)] == [f"fact {n}" for n in range(990, 1000)]


async def test_a_batch_is_all_or_none(memory):
    request_id = str(uuid.uuid4())
    await memory.StoreMemory(store("first use", request_id=request_id))
    requests = [store("good"), store("bad", request_id=request_id)]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "requests[1].request_id" in refused.value.details()
    assert [m.content for m in await live(memory)] == ["first use"]


async def test_an_empty_batch_is_answered(memory):
    assert (
        await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest())
        == pb.BatchStoreMemoriesResponse()
    )
