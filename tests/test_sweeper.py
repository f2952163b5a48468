"""The sweeper on a running server: what it removes, what it leaves, and how it fails."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from memoryd.database.tenancy import EVERY_TENANT, NO_TENANT
from memoryd.domain.records import Session
from memoryd.memories import deletion as removal
from memoryd.memories.sweeper import BATCH
from memoryd.sessions import retention
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

TIMEOUT_SECONDS = 60
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


def store(
    content: str = "prefers e-mail", session_id: str = "user-123", **fields: object
) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id=session_id, content=content, **fields)


def named(kind: type, memory: pb.Memory) -> object:
    return kind(session_id=memory.session_id, memory_id=memory.memory_id)


async def stored(memory: MemoryServiceStub, *contents: str, **fields: object) -> list[pb.Memory]:
    return [(await memory.StoreMemory(store(c, **fields))).memory for c in contents]


async def store_many(memory: MemoryServiceStub, count: int, **fields: object) -> None:
    """Store memories in sessions of at most a hundred, so that none is evicted."""
    for start in range(0, count, 500):
        requests = [
            store(f"fact {n}", f"user-{n // 100}", request_id=str(uuid.uuid4()), **fields)
            for n in range(start, min(start + 500, count))
        ]
        await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=requests))


async def updated(memory: MemoryServiceStub, which: pb.Memory, **fields: object) -> pb.Memory:
    changed = pb.Memory(session_id=which.session_id, memory_id=which.memory_id, **fields)
    return await memory.UpdateMemory(pb.UpdateMemoryRequest(memory=changed))


async def deleted(memory: MemoryServiceStub, which: pb.Memory) -> pb.Memory:
    return await memory.DeleteMemory(named(pb.DeleteMemoryRequest, which))


async def live(memory: MemoryServiceStub, session_id: str = "user-123") -> list[pb.Memory]:
    answer = await memory.ListMemories(
        pb.ListMemoriesRequest(session_id=session_id, page_size=1000)
    )
    return list(answer.memories)


async def changes(memory: MemoryServiceStub, until: int) -> list[tuple[int, int, str]]:
    """The events of a watch from the start up to a revision."""
    received = []
    call = memory.WatchMemories(pb.WatchMemoriesRequest(session_id="user-123"))
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not received or received[-1][0] < until:
            event = await call.read()
            received.append((event.revision, event.change, event.memory.memory_id))
    call.cancel()
    return received


# What it removes


async def test_expired_memories_are_removed_and_reported(running, clock):
    memory = running.memory
    first, second, third = (
        *(await stored(memory, "first", ttl=timedelta(hours=1))),
        *(await stored(memory, "second", ttl=timedelta(hours=1, seconds=1))),
        *(await stored(memory, "third", never_expires=True)),
    )
    clock.move(timedelta(hours=1))
    await running.server.sweeper.run_once()
    clock.move(SECOND)
    await running.server.sweeper.run_once()
    await running.server.sweeper.run_once()
    assert await changes(memory, 5) == [
        (1, pb.MEMORY_CHANGE_CREATED, first.memory_id),
        (2, pb.MEMORY_CHANGE_CREATED, second.memory_id),
        (3, pb.MEMORY_CHANGE_CREATED, third.memory_id),
        (4, pb.MEMORY_CHANGE_EXPIRED, first.memory_id),
        (5, pb.MEMORY_CHANGE_EXPIRED, second.memory_id),
    ]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await memory.UndeleteMemory(named(pb.UndeleteMemoryRequest, first))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert [m.content for m in await live(memory)] == ["third"]


async def test_the_sweeper_runs_by_itself(serve, clock):
    memory = (await serve(MEMORYD_SWEEP_SECONDS="0.1")).memory
    (one,) = await stored(memory, "brief", ttl=timedelta(minutes=1))
    clock.move(timedelta(minutes=1))
    assert (await changes(memory, 2))[-1] == (2, pb.MEMORY_CHANGE_EXPIRED, one.memory_id)


async def test_unused_memories_are_soft_deleted(serve, clock):
    running = await serve(MEMORY_CLEANUP_DAYS="30")
    memory, sweeper = running.memory, running.server.sweeper
    unused, retrieved, changed, _ = await stored(
        memory, "unused", "retrieved", "changed", "merged", never_expires=True
    )
    clock.move(10 * DAY)
    await updated(memory, changed, importance=0.9)
    await stored(memory, "merged", never_expires=True)
    clock.move(10 * DAY)
    request = pb.RetrieveMemoriesRequest(session_id="user-123", query="retrieved", limit=1)
    answer = await memory.RetrieveMemories(request)
    assert [result.memory.memory_id for result in answer.results] == [retrieved.memory_id]
    await running.server.flush_accesses()
    clock.move(10 * DAY - SECOND)
    await sweeper.run_once()
    assert len(await live(memory)) == 4
    clock.move(SECOND)
    await sweeper.run_once()
    assert [m.content for m in await live(memory)] == ["retrieved", "changed", "merged"]
    assert (await changes(memory, 7))[-1] == (7, pb.MEMORY_CHANGE_DELETED, unused.memory_id)
    await memory.UndeleteMemory(named(pb.UndeleteMemoryRequest, unused))
    clock.move(10 * DAY)
    await sweeper.run_once()
    assert [m.content for m in await live(memory)] == ["unused", "retrieved"]
    clock.move(10 * DAY)
    await sweeper.run_once()
    assert [m.content for m in await live(memory)] == ["unused"]
    clock.move(10 * DAY)
    await sweeper.run_once()
    assert await live(memory) == []


async def test_deleted_memories_are_purged_after_their_retention(serve, clock, tables):
    running = await serve(MEMORYD_DELETED_RETENTION_HOURS="48")
    memory, sweeper = running.memory, running.server.sweeper
    gone, back, expiring, kept = (
        *(await stored(memory, "gone", "back", never_expires=True)),
        *(await stored(memory, "expiring", ttl=timedelta(hours=1))),
        *(await stored(memory, "kept", never_expires=True)),
    )
    await deleted(memory, gone)
    await deleted(memory, back)
    clock.move(timedelta(hours=1))
    await sweeper.run_once()
    clock.move(timedelta(hours=47) - SECOND)
    await sweeper.run_once()
    await memory.UndeleteMemory(named(pb.UndeleteMemoryRequest, back))
    clock.move(SECOND)
    await sweeper.run_once()
    assert {i for (i,) in await tables.rows("SELECT id FROM memories")} == {
        back.memory_id,
        expiring.memory_id,
        kept.memory_id,
    }
    clock.move(timedelta(hours=1))
    await sweeper.run_once()
    assert {i for (i,) in await tables.rows("SELECT id FROM memories")} == {
        back.memory_id,
        kept.memory_id,
    }
    received = await changes(memory, 10)
    assert received[-2:] == [
        (9, pb.MEMORY_CHANGE_PURGED, gone.memory_id),
        (10, pb.MEMORY_CHANGE_PURGED, expiring.memory_id),
    ]
    assert [m.content for m in await live(memory)] == ["back", "kept"]


async def test_a_retention_of_nothing_purges_with_the_next_sweep(serve, tables):
    running = await serve(MEMORYD_DELETED_RETENTION_HOURS="0")
    (one,) = await stored(running.memory, "one")
    await deleted(running.memory, one)
    await running.server.sweeper.run_once()
    assert await tables.rows("SELECT id FROM memories") == []


async def test_request_ids_are_kept_for_two_days(running, clock, tables):
    memory = running.memory
    request = store(never_expires=True, request_id=str(uuid.uuid4()))
    first = await memory.StoreMemory(request)
    for span in (timedelta(hours=24), timedelta(hours=24)):
        clock.move(span)
        await running.server.sweeper.run_once()
        assert await memory.StoreMemory(request) == first
    clock.move(SECOND)
    await running.server.sweeper.run_once()
    assert await tables.rows("SELECT request_id FROM store_receipts") == []
    again = await memory.StoreMemory(request)
    assert again.outcome == pb.STORE_OUTCOME_MERGED


async def test_history_is_kept_for_a_day(running, clock, tables):
    memory = running.memory
    one, other = await stored(memory, "one", "other", never_expires=True)
    await updated(memory, one, importance=0.1)
    purge = pb.PurgeMemoriesRequest(session_id="user-123", force=True)
    purge.filter.min_importance = 0.4
    assert (await memory.PurgeMemories(purge)).purge_count == 1
    clock.move(timedelta(hours=12))
    await updated(memory, one, importance=0.2)
    kept = "SELECT revision, change FROM memory_history ORDER BY revision"
    for span, left in (
        (timedelta(hours=12), [(1, "created"), (3, "updated"), (4, "purged")]),
        (SECOND, [(3, "updated")]),
        (timedelta(hours=12), []),
    ):
        clock.move(span)
        await running.server.sweeper.run_once()
        assert await tables.rows(kept) == left
    assert other.memory_id not in await tables.everything()
    assert [m.memory_id for m in await live(memory)] == [one.memory_id]


async def test_more_than_one_batch_is_swept_in_one_run(running, clock, tables):
    memory, sweeper = running.memory, running.server.sweeper
    count = 2 * BATCH + 100
    await store_many(memory, count, ttl=timedelta(hours=1))
    clock.move(timedelta(hours=1))
    await sweeper.run_once()
    assert await tables.rows(
        "SELECT change, count(*) FROM memories WHERE deleted_at IS NOT NULL GROUP BY change"
    ) == [("expired", count)]
    assert await tables.rows("SELECT count(*) FROM memory_history") == [(count,)]
    clock.move(timedelta(days=8))
    await sweeper.run_once()
    assert await tables.rows("SELECT count(*) FROM memories") == [(0,)]
    assert await tables.rows("SELECT count(*) FROM store_receipts") == [(0,)]
    assert await tables.rows("SELECT change, count(*) FROM memory_history GROUP BY change") == [
        ("purged", count)
    ]
    clock.move(timedelta(days=2))
    await sweeper.run_once()
    assert await tables.rows("SELECT count(*) FROM memory_history") == [(0,)]
    assert await tables.rows(
        "SELECT count(*) FROM sessions WHERE revision <> 300 OR horizon <> 300"
    ) == [(0,)]


async def test_more_than_one_batch_of_unused_ones_is_deleted_in_one_run(running, clock, tables):
    count = 2 * BATCH + 100
    await store_many(running.memory, count, never_expires=True)
    clock.move(30 * DAY)
    await running.server.sweeper.run_once()
    assert await tables.rows(
        "SELECT change, count(*) FROM memories WHERE deleted_at IS NOT NULL GROUP BY change"
    ) == [("deleted", count)]


# What it leaves


async def test_live_memories_are_never_touched(running, clock):
    memory = running.memory
    await stored(memory, *(f"forever {n}" for n in range(5)), never_expires=True)
    await stored(memory, *(f"for long {n}" for n in range(5)), ttl=20 * DAY)
    for one in (await live(memory))[::3]:
        await updated(memory, one, importance=0.9)
    before = await live(memory)
    for _ in range(19):
        clock.move(DAY)
        await running.server.sweeper.run_once()
        now = await live(memory)
        for one, other in zip(now, before, strict=True):
            one.effective_importance = other.effective_importance
        assert now == before


async def test_a_memory_restored_meanwhile_is_not_purged(running, clock):
    memory, database = running.memory, running.server.database
    restored, gone = await stored(memory, "restored", "gone")
    victims = [("default", "user-123", one.memory_id) for one in (restored, gone)]
    await deleted(memory, gone)
    purged = await database.write(
        lambda c: removal.purge(c, database.dialect, victims, clock.now, deleted_before=clock.now),
        tenants=EVERY_TENANT,
    )
    assert purged == victims[1:]
    assert await live(memory) == [restored]


async def test_an_expired_memory_is_left_to_expire(running, clock):
    """Else it would be reported as deleted, and a further batch would not find it again."""
    memory, database = running.memory, running.server.database
    await stored(memory, "expired", ttl=30 * DAY)
    (unused,) = await stored(memory, "unused", never_expires=True)
    now = clock.now + 30 * DAY
    found = await database.read(
        lambda c: removal.unused(c, clock.now, now, BATCH), tenants=EVERY_TENANT
    )
    assert found == [(*Session("default", "user-123"), unused.memory_id)]


async def test_the_databases_clock_is_used(running):
    database = running.server.database
    now = await database.read(database.dialect.now, tenants=NO_TENANT)
    assert abs(datetime.now(UTC) - now) < timedelta(minutes=5)


# Several sweepers, and broken ones


async def test_two_sweepers_take_each_memory_once(serve, clock, tables):
    servers = [await serve(), await serve()]
    count = BATCH + 100
    await store_many(servers[0].memory, count, ttl=timedelta(hours=1))
    clock.move(timedelta(hours=1))
    for span in (timedelta(), timedelta(days=8)):
        clock.move(span)
        await asyncio.gather(*(servers[n % 2].server.sweeper.run_once() for n in range(4)))
        # What each left to the others, who were past that step.
        await servers[0].server.sweeper.run_once()
    assert await tables.rows("SELECT count(*) FROM memories") == [(0,)]
    assert await tables.rows("SELECT DISTINCT revision FROM sessions") == [(300,)]
    assert await tables.rows("SELECT change, count(*) FROM memory_history GROUP BY change") == [
        ("purged", count)
    ]


async def test_concurrent_callers_and_sweepers_leave_a_consistent_state(serve, clock, tables):
    """Many concurrent purges, undeletions, erasures and sweeps of the same rows all succeed."""
    # All calls start at once, on one connection to each server.
    variables = {
        "MEMORYD_DELETED_RETENTION_HOURS": "1",
        "MEMORYD_MAX_STREAMS_PER_CONNECTION": "3000",
    }
    servers = [await serve(**variables) for _ in range(2)]
    memory = servers[0].memory
    await store_many(memory, 300, ttl=timedelta(hours=2))
    everything = [one for n in range(3) for one in await live(memory, f"user-{n}")]
    await asyncio.gather(*(deleted(memory, one) for one in everything))
    clock.move(timedelta(hours=1))
    restored = []

    async def restore(one: pb.Memory, n: int) -> None:
        undelete = servers[n % 2].memory.UndeleteMemory(named(pb.UndeleteMemoryRequest, one))
        if await undelete.code() == grpc.StatusCode.OK:
            restored.append(one.memory_id)
        else:
            assert await undelete.code() == grpc.StatusCode.NOT_FOUND

    purge = pb.PurgeMemoriesRequest(session_id="user-2", force=True)
    await asyncio.gather(
        *(restore(one, n) for n, one in enumerate(everything[:200])),
        *(servers[n % 2].server.sweeper.run_once() for n in range(6)),
        *(servers[n % 2].memory.PurgeMemories(purge) for n in range(6)),
        *(
            servers[n % 2].memory.EraseSession(pb.EraseSessionRequest(session_id="user-2"))
            for n in range(4)
        ),
    )
    await servers[0].server.sweeper.run_once()
    left = [i for (i,) in await tables.rows("SELECT id FROM memories WHERE deleted_at IS NULL")]
    assert sorted(left) == sorted(restored)
    assert await tables.rows("SELECT id FROM memories WHERE deleted_at IS NOT NULL") == []
    assert not any((await tables.naming("user-2")).values())


@pytest.mark.parametrize("step", ["expired", "unused", "purge", "drop_requests", "drop_history"])
async def test_a_crash_in_a_step_undoes_that_step_only(running, clock, tables, monkeypatch, step):
    memory, sweeper = running.memory, running.server.sweeper
    await store_many(memory, BATCH + 50, ttl=timedelta(hours=1))
    (kept,) = await stored(memory, "kept", never_expires=True)
    await updated(memory, kept, importance=0.9)
    clock.move(timedelta(days=9))
    await sweeper.run_once()
    clock.move(timedelta(days=9))
    module = retention if step.startswith("drop") else removal
    real, runs = getattr(module, step), []

    def breaking(*arguments: object, **named_arguments: object) -> object:
        runs.append(real(*arguments, **named_arguments))
        raise RuntimeError("broken")

    with monkeypatch.context() as broken:
        broken.setattr(module, step, breaking)
        before = await tables.everything()
        with pytest.raises(RuntimeError, match="broken"):
            await sweeper.run_once()
        after = await tables.everything()
    assert runs
    if step == "expired":
        assert after == before  # the first step, so nothing was done before it
    assert [m.memory_id for m in await live(memory)] == [kept.memory_id]
    await sweeper.run_once()
    clock.move(timedelta(days=2))
    await sweeper.run_once()
    assert await tables.rows("SELECT id FROM memories") == [(kept.memory_id,)]
    assert await tables.rows("SELECT count(*) FROM store_receipts") == [(0,)]
    assert await tables.rows("SELECT count(*) FROM memory_history") == [(0,)]


async def test_a_broken_sweep_is_logged_and_the_next_one_comes(serve, clock, monkeypatch, caplog):
    running = await serve(MEMORYD_SWEEP_SECONDS="0.1")
    memory = running.memory
    (one,) = await stored(memory, "brief", ttl=timedelta(minutes=1))
    real, broken = removal.expired, asyncio.Event()

    def breaking(*arguments: object) -> object:
        if not broken.is_set():
            broken.set()
            raise RuntimeError("broken")
        return real(*arguments)

    monkeypatch.setattr(removal, "expired", breaking)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await broken.wait()
    clock.move(timedelta(minutes=1))
    assert (await changes(memory, 2))[-1] == (2, pb.MEMORY_CHANGE_EXPIRED, one.memory_id)
    assert any(record.levelname == "ERROR" and record.exc_info for record in caplog.records)


async def test_the_next_sweep_continues_a_cancelled_one(running, clock, tables):
    memory, sweeper = running.memory, running.server.sweeper
    await store_many(memory, 3 * BATCH, ttl=timedelta(hours=1))
    clock.move(timedelta(hours=1))
    for patience in range(0, 40, 4):
        sweeping = asyncio.create_task(sweeper.run_once())
        for _ in range(patience):
            await asyncio.sleep(0)
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
    await sweeper.run_once()
    assert await tables.rows(
        "SELECT change, count(*) FROM memories WHERE deleted_at IS NOT NULL GROUP BY change"
    ) == [("expired", 3 * BATCH)]
    assert await tables.rows("SELECT DISTINCT revision FROM sessions") == [(200,)]
    assert await tables.rows("SELECT count(*) FROM memory_history") == [(3 * BATCH,)]
