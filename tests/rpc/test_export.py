"""ExportMemories."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub


def store(
    content: str = "prefers e-mail", session_id: str = "user-123", **fields: object
) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id=session_id, content=content, **fields)


def named(kind: type, memory: pb.Memory) -> object:
    return kind(session_id=memory.session_id, memory_id=memory.memory_id)


def batch(requests: list[pb.StoreMemoryRequest]) -> pb.BatchStoreMemoriesRequest:
    return pb.BatchStoreMemoriesRequest(requests=requests)


async def export(
    memory: MemoryServiceStub,
    session_id: str = "user-123",
    *,
    show_deleted: bool = False,
    **filters: object,
) -> list[pb.Memory]:
    request = pb.ExportMemoriesRequest(
        session_id=session_id, show_deleted=show_deleted, filter=pb.MemoryFilter(**filters)
    )
    return [one async for one in memory.ExportMemories(request)]


async def test_exports_everything_in_creation_order(memory, clock):
    stored = []
    for n in range(7):
        stored.append((await memory.StoreMemory(store(f"fact {n}", metadata={"n": n}))).memory)
        await memory.StoreMemory(store(f"fact {n}", "user-124"))
        clock.move(timedelta(seconds=-1))  # the order is that of commits, regardless of the clock
    exported = await export(memory)
    assert [m.content for m in exported] == [f"fact {n}" for n in range(7)]
    for one in exported:
        assert one == await memory.GetMemory(named(pb.GetMemoryRequest, one))


async def test_an_absent_session_exports_nothing(memory):
    assert await export(memory) == []


async def test_a_changed_memory_keeps_its_place(memory):
    first = (await memory.StoreMemory(store("first"))).memory
    await memory.StoreMemory(store("second"))
    await memory.StoreMemory(store("first", importance=0.9))
    changed = pb.Memory(session_id="user-123", memory_id=first.memory_id, content="changed")
    await memory.UpdateMemory(pb.UpdateMemoryRequest(memory=changed))
    assert [m.content for m in await export(memory)] == ["changed", "second"]


async def test_deleted_memories_are_exported_on_request_and_expired_ones_never(running, clock):
    memory = running.memory
    deleted = (await memory.StoreMemory(store("deleted"))).memory
    await memory.DeleteMemory(named(pb.DeleteMemoryRequest, deleted))
    await memory.StoreMemory(store("swept", ttl=timedelta(minutes=1)))
    clock.move(timedelta(minutes=1))
    await running.server.sweeper.run_once()
    await memory.StoreMemory(store("expired", ttl=timedelta(minutes=1)))
    await memory.StoreMemory(store("live"))
    clock.move(timedelta(minutes=1))
    assert [m.content for m in await export(memory)] == ["live"]
    exported = await export(memory, show_deleted=True)
    assert [m.content for m in exported] == ["deleted", "live"]
    assert [m.HasField("delete_time") for m in exported] == [True, False]


@pytest.mark.parametrize(
    ("filters", "exported"),
    [
        ({"content_types": [pb.CONTENT_TYPE_FACT, pb.CONTENT_TYPE_PREFERENCE]}, [1, 2]),
        ({"metadata": {"topic": "tea"}}, [0, 2]),
        ({"min_importance": 0.5}, [1, 2]),
        ({"min_importance": 0.5, "metadata": {"topic": "tea"}}, [2]),
        ({"metadata": {"topic": "milk"}}, []),
    ],
)
async def test_only_what_the_filter_matches_is_exported(memory, filters, exported):
    await memory.StoreMemory(store("0", metadata={"topic": "tea"}, importance=0.1))
    await memory.StoreMemory(store("1", content_type=pb.CONTENT_TYPE_FACT, importance=0.9))
    await memory.StoreMemory(
        store("2", content_type=pb.CONTENT_TYPE_PREFERENCE, metadata={"topic": "tea", "n": 1})
    )
    assert [m.content for m in await export(memory, **filters)] == [str(n) for n in exported]


async def test_times_bound_what_is_exported(memory, clock):
    begin = clock.now
    for n in range(3):
        await memory.StoreMemory(store(f"fact {n}"))
        clock.move(timedelta(minutes=1))
    between = {
        "created_after": begin + timedelta(minutes=1),
        "created_before": begin + timedelta(minutes=2),
    }
    assert [m.content for m in await export(memory, **between)] == ["fact 1"]


async def test_thousands_are_exported_over_many_pages(serve):
    memory = (await serve(MEMORY_MAX_ENTRIES="1000")).memory
    for start in range(0, 2000, 500):
        requests = [store(f"fact {n}", metadata={"n": n}) for n in range(start, start + 500)]
        await memory.BatchStoreMemories(batch(requests))
    exported = await export(memory, show_deleted=True)
    assert [m.content for m in exported] == [f"fact {n}" for n in range(2000)]
    assert [m.HasField("delete_time") for m in exported] == [True] * 1000 + [False] * 1000
    assert [m.content for m in await export(memory)] == [f"fact {n}" for n in range(1000, 2000)]


async def test_large_memories_come_complete(serve):
    memory = (await serve(MEMORY_MAX_ENTRIES="1000")).memory
    contents = [f"{n:04} " + "ж" * 16_000 for n in range(120)]
    for start in range(0, 120, 40):
        await memory.BatchStoreMemories(batch([store(c) for c in contents[start : start + 40]]))
    assert [m.content for m in await export(memory)] == contents


async def test_concurrent_writes_cause_no_repeats_and_no_gaps(serve):
    memory = (await serve(MEMORY_MAX_ENTRIES="1000")).memory
    stored = await memory.BatchStoreMemories(batch([store(f"fact {n}") for n in range(600)]))
    kept = [response.memory.memory_id for response in stored.responses]
    stop = asyncio.Event()

    async def write(writer: int) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            await memory.StoreMemory(store(f"meanwhile {writer}/{n % 20}"))
            changed = pb.Memory(
                session_id="user-123",
                memory_id=kept[(n * 37 + writer) % len(kept)],
                importance=(n % 10) / 10,
            )
            await memory.UpdateMemory(pb.UpdateMemoryRequest(memory=changed))

    writers = [asyncio.create_task(write(n)) for n in range(4)]
    exports = await asyncio.gather(*(export(memory) for _ in range(4)))
    stop.set()
    await asyncio.gather(*writers)
    for exported in exports:
        ids = [one.memory_id for one in exported]
        assert len(set(ids)) == len(ids)
        assert ids[: len(kept)] == kept


async def test_an_export_that_is_not_read_is_cut_off(serve):
    running = await serve(MEMORYD_STREAM_STALL_SECONDS="0.3", MEMORY_MAX_ENTRIES="1000")
    memory = running.memory
    for start in range(0, 900, 50):
        requests = [store(f"{n:04} " + "x" * 16_000) for n in range(start, start + 50)]
        await memory.BatchStoreMemories(batch(requests))
    call = memory.ExportMemories(pb.ExportMemoriesRequest(session_id="user-123"))
    await call.initial_metadata()
    await asyncio.sleep(1)  # the caller stops reading for longer than the limit
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        [one async for one in call]
    assert ended.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_export_is_bound_to_its_deadline(serve):
    memory = (await serve()).memory
    await memory.StoreMemory(store())
    call = memory.ExportMemories(pb.ExportMemoriesRequest(session_id="user-123"), timeout=0)
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        [one async for one in call]
    assert ended.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_violations_of_a_request_are_listed(memory, refused):
    refusal = await refused(
        export(memory, "no/such name", min_importance=2.0, metadata={"a": [[[[[[[[1]]]]]]]]})
    )
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"session_id", "filter.min_importance", "filter.metadata"}
