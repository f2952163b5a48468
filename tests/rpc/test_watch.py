"""WatchMemories."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from memoryd.database import notifications as listener
from memoryd.domain.errors import RevisionOutOfRange
from memoryd.sessions import feed
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

CREATED = pb.MEMORY_CHANGE_CREATED
UPDATED = pb.MEMORY_CHANGE_UPDATED
DELETED = pb.MEMORY_CHANGE_DELETED
RESTORED = pb.MEMORY_CHANGE_RESTORED
EXPIRED = pb.MEMORY_CHANGE_EXPIRED
PURGED = pb.MEMORY_CHANGE_PURGED

TIMEOUT_SECONDS = 60
FEW_CONNECTIONS = feed.MAX_READS + 4
"""The feed's, and one each for writing, polling for changes, polling the tools, and health."""


def store(
    content: str = "prefers e-mail", session_id: str = "user-123", **fields: object
) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id=session_id, content=content, **fields)


def named(kind: type, memory: pb.Memory) -> object:
    return kind(session_id=memory.session_id, memory_id=memory.memory_id)


async def updated(memory: MemoryServiceStub, which: pb.Memory, **fields: object) -> pb.Memory:
    changed = pb.Memory(session_id=which.session_id, memory_id=which.memory_id, **fields)
    return await memory.UpdateMemory(pb.UpdateMemoryRequest(memory=changed))


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not condition():  # noqa: ASYNC110  no event to await
            await asyncio.sleep(0.01)


class Watcher:
    """A watch with a task that reads it."""

    def __init__(
        self, memory: MemoryServiceStub, start_revision: int = 0, session_id: str = "user-123"
    ) -> None:
        request = pb.WatchMemoriesRequest(session_id=session_id, start_revision=start_revision)
        self.call = memory.WatchMemories(request)
        self.events: list[pb.WatchMemoriesResponse] = []
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for event in self.call:
                self.events.append(event)
                async with self._news:
                    self._news.notify_all()
        finally:
            async with self._news:
                self._news.notify_all()

    @property
    def changes(self) -> list[tuple[int, int, str]]:
        return [(event.revision, event.change, event.memory.memory_id) for event in self.events]

    @property
    def revisions(self) -> list[int]:
        return [event.revision for event in self.events]

    async def until(self, revision: int) -> list[pb.WatchMemoriesResponse]:
        """Wait for the event of a revision."""

        def is_there() -> bool:
            return bool(self.events) and self.events[-1].revision >= revision

        async with asyncio.timeout(TIMEOUT_SECONDS), self._news:
            await self._news.wait_for(lambda: is_there() or self._reader.done())
        assert is_there(), f"ended after {self.revisions}"
        return self.events

    async def end(self) -> None:
        """Wait for the end of the stream; raise its error."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await self._reader

    async def stop(self) -> None:
        self.call.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)


@pytest.fixture
async def watch() -> AsyncIterator[Callable[..., Watcher]]:
    started: list[Watcher] = []

    def start(*arguments: object, **named_arguments: object) -> Watcher:
        started.append(Watcher(*arguments, **named_arguments))
        return started[-1]

    yield start
    await asyncio.gather(*(watcher.stop() for watcher in started))


async def test_sends_past_changes_then_each_change_as_it_commits(memory, watch):
    stored = [(await memory.StoreMemory(store(f"fact {n}"))).memory for n in range(3)]
    watcher = watch(memory)
    await watcher.until(3)
    stored += [(await memory.StoreMemory(store(f"fact {n}"))).memory for n in range(3, 6)]
    assert await watcher.until(6) == [
        pb.WatchMemoriesResponse(change=CREATED, memory=m, revision=m.revision) for m in stored
    ]


async def test_sends_every_kind_of_change_once_and_in_order(serve, clock, watch):
    running = await serve(MEMORY_MAX_ENTRIES="10")
    memory = running.memory
    watcher = watch(memory)
    first = (await memory.StoreMemory(store("Likes tea", importance=0.9))).memory
    merged = (await memory.StoreMemory(store("likes tea", importance=1))).memory
    changed = await updated(memory, first, content="Likes coffee")
    deleted = await memory.DeleteMemory(named(pb.DeleteMemoryRequest, first))
    restored = await memory.UndeleteMemory(named(pb.UndeleteMemoryRequest, first))
    brief = (await memory.StoreMemory(store("brief", ttl=timedelta(minutes=1)))).memory
    await watcher.until(6)
    clock.move(timedelta(minutes=1))
    await running.server.sweeper.run_once()
    await watcher.until(7)
    crowd = [(await memory.StoreMemory(store(f"fact {n}"))).memory for n in range(9)]
    last = await memory.StoreMemory(store("one too many", importance=0.8))
    assert list(last.evicted_memory_ids) == [crowd[0].memory_id]
    await watcher.until(18)
    purge = pb.PurgeMemoriesRequest(session_id="user-123", force=True)
    purge.filter.min_importance = 0.9
    assert (await memory.PurgeMemories(purge)).purge_count == 1
    events = await watcher.until(19)
    assert watcher.changes == [
        (1, CREATED, first.memory_id),
        (2, UPDATED, first.memory_id),
        (3, UPDATED, first.memory_id),
        (4, DELETED, first.memory_id),
        (5, RESTORED, first.memory_id),
        (6, CREATED, brief.memory_id),
        (7, EXPIRED, brief.memory_id),
        *((m.revision, CREATED, m.memory_id) for m in crowd),
        (17, CREATED, last.memory.memory_id),
        (18, DELETED, crowd[0].memory_id),
        (19, PURGED, first.memory_id),
    ]
    assert [event.memory for event in events[:6]] == [
        first,
        merged,
        changed,
        deleted,
        restored,
        brief,
    ]
    assert events[6].memory.content == "brief"
    assert events[6].memory.HasField("delete_time")
    assert events[17].memory.HasField("delete_time")
    assert events[18].memory == pb.Memory(
        session_id="user-123", memory_id=first.memory_id, revision=19
    )


async def test_a_watcher_from_the_start_receives_the_same_as_an_earlier_one(memory, watch):
    there = watch(memory)
    stored = (await memory.StoreMemory(store())).memory
    for importance in (0.1, 0.2, 0.3):
        await updated(memory, stored, importance=importance)
    await memory.DeleteMemory(named(pb.DeleteMemoryRequest, stored))
    await memory.StoreMemory(store("something else"))
    assert await watch(memory).until(6) == await there.until(6)


async def test_the_start_revision_is_exclusive(memory, watch):
    for n in range(5):
        await memory.StoreMemory(store(f"fact {n}"))
    watcher = watch(memory, 3)
    at_the_end = watch(memory, 5)
    await watcher.until(5)
    await memory.StoreMemory(store("fact 5"))
    await watcher.until(6)
    await at_the_end.until(6)
    assert watcher.revisions == [4, 5, 6]
    assert at_the_end.revisions == [6]


async def test_a_revision_that_never_existed_is_out_of_range(memory, watch, refused):
    await memory.StoreMemory(store())
    refusal = await refused(watch(memory, 2).end())
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.OUT_OF_RANGE,
        "REVISION_OUT_OF_RANGE",
    )
    refusal = await refused(watch(memory, 1, session_id="no-such-session").end())
    assert refusal.code == grpc.StatusCode.OUT_OF_RANGE


async def test_a_negative_revision_is_refused(memory, watch, refused):
    refusal = await refused(watch(memory, -1).end())
    assert list(refusal.violations) == ["start_revision"]


async def test_a_session_may_be_watched_before_it_exists(memory, watch):
    watcher = watch(memory)
    await watcher.call.initial_metadata()
    stored = (await memory.StoreMemory(store())).memory
    (event,) = await watcher.until(1)
    assert event.memory == stored


async def test_changes_of_another_session_are_not_sent(memory, watch):
    watcher = watch(memory)
    await memory.StoreMemory(store(session_id="user-124"))
    await memory.StoreMemory(store())
    (event,) = await watcher.until(1)
    assert event.memory.session_id == "user-123"


async def test_more_changes_than_one_read_returns_are_sent_without_a_gap(memory, watch):
    batch = [store(f"fact {n}") for n in range(100)]
    stored = await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=batch))
    for _ in range(3):
        await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=batch))
    for response in stored.responses[20:40]:
        await memory.DeleteMemory(named(pb.DeleteMemoryRequest, response.memory))
    watcher = watch(memory)
    events = await watcher.until(420)
    assert watcher.revisions == list(range(1, 421))
    ids = [response.memory.memory_id for response in stored.responses]
    assert [event.memory.memory_id for event in events] == [*ids * 4, *ids[20:40]]
    assert [event.change for event in events] == [CREATED] * 100 + [UPDATED] * 300 + [DELETED] * 20


async def test_counting_an_access_is_not_a_change(memory, watch):
    watcher = watch(memory)
    stored = (await memory.StoreMemory(store())).memory
    await memory.RetrieveMemories(pb.RetrieveMemoriesRequest(session_id="user-123"))
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not (await memory.GetMemory(named(pb.GetMemoryRequest, stored))).access_count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await memory.StoreMemory(store("something else"))
    assert [event.change for event in await watcher.until(2)] == [CREATED, CREATED]


# Several servers


async def test_changes_through_another_server_are_sent_in_order_and_complete(serve, watch):
    here, there = await serve(), await serve()
    watcher = watch(here.memory)
    await watcher.call.initial_metadata()
    stored = (await there.memory.StoreMemory(store())).memory
    importances = [n / 40 for n in range(40)]
    for importance in importances:
        await updated(there.memory, stored, importance=importance)
    await there.memory.DeleteMemory(named(pb.DeleteMemoryRequest, stored))
    events = await watcher.until(42)
    assert watcher.revisions == list(range(1, 43))
    assert [event.memory.importance for event in events[1:41]] == importances
    assert events[-1].change == DELETED


async def test_all_watchers_of_a_session_receive_another_servers_change(serve, watch):
    """Including earlier watchers, when a later one has already read the change."""
    here, there = await serve(), await serve()
    await there.memory.StoreMemory(store("fact 0"))
    watchers = [watch(here.memory)]
    await watchers[0].until(1)
    for n in range(1, 6):
        await there.memory.StoreMemory(store(f"fact {n}"))
        watchers.append(watch(here.memory))
        await watchers[-1].until(n + 1)
    for watcher in watchers:
        await watcher.until(6)
        assert watcher.revisions == list(range(1, 7))


async def test_sweeps_by_another_server_are_sent(serve, clock, watch):
    here, there = await serve(), await serve()
    watcher = watch(here.memory)
    stored = (await here.memory.StoreMemory(store(ttl=timedelta(hours=1)))).memory
    clock.move(timedelta(hours=1))
    await there.server.sweeper.run_once()
    await watcher.until(2)
    assert watcher.changes == [(1, CREATED, stored.memory_id), (2, EXPIRED, stored.memory_id)]


@pytest.fixture
def no_poll(monkeypatch):
    """Disable polling, so that only notifications bring changes."""
    monkeypatch.setattr(feed, "LISTENING_POLL_SECONDS", 3600.0)
    monkeypatch.setattr(feed, "POLL_SECONDS", 3600.0)


async def change_in_every_way(running, clock, watcher: Watcher) -> None:
    """Make every kind of change, and wait for the event of each."""
    memory = running.memory
    one = (await memory.StoreMemory(store("one"))).memory
    await watcher.until(1)
    await updated(memory, one, importance=0.7)
    await watcher.until(2)
    await memory.DeleteMemory(named(pb.DeleteMemoryRequest, one))
    await watcher.until(3)
    await memory.UndeleteMemory(named(pb.UndeleteMemoryRequest, one))
    await watcher.until(4)
    await memory.PurgeMemories(pb.PurgeMemoriesRequest(session_id="user-123", force=True))
    await watcher.until(5)
    await memory.StoreMemory(store("brief", ttl=timedelta(minutes=1)))
    await watcher.until(6)
    clock.move(timedelta(minutes=1))
    await running.server.sweeper.run_once()
    await watcher.until(7)
    clock.move(timedelta(days=8))
    await running.server.sweeper.run_once()
    await watcher.until(8)
    await memory.EraseSession(pb.EraseSessionRequest(session_id="user-123"))
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await watcher.end()
    assert ended.value.code() == grpc.StatusCode.OUT_OF_RANGE
    assert watcher.revisions == list(range(1, 10))
    assert watcher.changes[-1] == (9, PURGED, "")


@pytest.mark.usefixtures("no_poll")
async def test_each_change_is_sent_at_once(running, clock, watch):
    watcher = watch(running.memory)
    await watcher.call.initial_metadata()
    await change_in_every_way(running, clock, watcher)


@pytest.mark.usefixtures("no_poll")
@pytest.mark.notified
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
async def test_each_change_through_another_server_is_notified_at_once(serve, clock, watch, tables):
    here, there = await serve(), await serve()
    watcher = watch(here.memory)
    await listeners(tables, 2)  # one per server
    await change_in_every_way(there, clock, watcher)


async def test_each_change_through_another_server_is_found(serve, clock, watch):
    here, there = await serve(), await serve()
    watcher = watch(here.memory)
    await change_in_every_way(there, clock, watcher)


@pytest.mark.usefixtures("no_poll")
@pytest.mark.notified
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
async def test_a_lost_listener_comes_back_and_nothing_is_missed(serve, watch, tables, monkeypatch):
    monkeypatch.setattr(listener, "FIRST_PAUSE_SECONDS", 1.0)
    here, there = await serve(), await serve()
    watcher = watch(here.memory)
    await listeners(tables, 2)  # one per server
    for n in range(3):
        await there.memory.StoreMemory(store(f"fact {n}"))
        await watcher.until(n + 1)
    await tables.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE query LIKE 'LISTEN %' AND datname = current_database()"
    )
    await listeners(tables, 0)
    for n in range(3, 10):  # no listener is notified of these
        await there.memory.StoreMemory(store(f"fact {n}"))
    await watcher.until(10)
    await listeners(tables, 2)
    await there.memory.StoreMemory(store("fact 10"))
    await watcher.until(11)
    assert watcher.revisions == list(range(1, 12))


async def listeners(tables, wanted: int) -> None:
    """Wait until this many connections listen."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while True:
            ((count,),) = await tables.rows(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE query LIKE 'LISTEN %' AND datname = current_database()"
            )
            if count == wanted:
                return
            await asyncio.sleep(0.02)


# Many watchers


async def test_two_hundred_watchers_of_one_session_receive_everything(running, watch, tables):
    memory = running.memory
    watchers = [watch(memory) for _ in range(200)]
    in_use = [running.server.database.connections_in_use]
    for n in range(20):
        await memory.StoreMemory(store(f"fact {n}"))
        in_use.append(running.server.database.connections_in_use)
    for watcher in watchers:
        await watcher.until(20)
        assert watcher.revisions == list(range(1, 21))
    assert max(in_use) <= FEW_CONNECTIONS
    await one_listener_a_server(tables, running)


async def test_two_hundred_watchers_of_different_sessions_receive_everything(serve, watch, tables):
    here, there = await serve(), await serve()
    sessions = [f"user-{n}" for n in range(200)]
    watchers = {s: watch(here.memory, session_id=s) for s in sessions}
    in_use = []
    for n in range(5):
        batch = [store(f"fact {n}", session_id=s) for s in sessions]
        server = (here, there)[n % 2]
        await server.memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=batch))
        in_use.append(here.server.database.connections_in_use)
    for session_id, watcher in watchers.items():
        events = await watcher.until(5)
        assert watcher.revisions == list(range(1, 6))
        assert {event.memory.session_id for event in events} == {session_id}
    assert max(in_use) <= FEW_CONNECTIONS
    await one_listener_a_server(tables, here, there)


async def one_listener_a_server(tables, *servers):
    if servers[0].server.database.can_listen:
        await listeners(tables, len(servers))


async def test_watchers_that_start_during_many_writes_miss_nothing(serve, watch):
    servers = [await serve(MEMORY_MAX_ENTRIES="1000") for _ in range(2)]
    chance = random.Random(20_260_301)  # noqa: S311  repeatable

    async def write(writer: int) -> None:
        dice = random.Random(writer)  # noqa: S311  repeatable
        memory = servers[writer % 2].memory
        own = (await memory.StoreMemory(store(f"of writer {writer}", importance=0.9))).memory
        for n in range(12):
            match dice.randrange(4):
                case 0:
                    await memory.StoreMemory(store(f"shared {n}"))
                case 1:
                    await memory.StoreMemory(store(f"fact {writer}/{n}"))
                case 2:
                    await updated(memory, own, importance=dice.random())
                case 3:
                    await memory.DeleteMemory(named(pb.DeleteMemoryRequest, own))
                    await memory.UndeleteMemory(named(pb.UndeleteMemoryRequest, own))

    async def watch_later(server: int) -> tuple[int, Watcher]:
        memory = servers[server].memory
        await asyncio.sleep(chance.random())
        answer = await memory.RetrieveMemories(
            pb.RetrieveMemoriesRequest(session_id="user-123", peek=True)
        )
        start = chance.choice([0, answer.revision])
        return start, watch(memory, start)

    watching = [asyncio.create_task(watch_later(n % 2)) for n in range(4)]
    await asyncio.gather(*(write(n) for n in range(32)))
    answer = await servers[0].memory.RetrieveMemories(
        pb.RetrieveMemoriesRequest(session_id="user-123", peek=True)
    )
    assert answer.revision >= 32 * 13
    for start, watcher in await asyncio.gather(*watching):
        if start < answer.revision:
            await watcher.until(answer.revision)
        assert watcher.revisions == list(range(start + 1, answer.revision + 1))


# Erasing and purging


async def test_erasing_ends_a_watch_and_refuses_to_resume_it(serve, watch, refused):
    here, there = await serve(), await serve()
    for n in range(3):
        await here.memory.StoreMemory(store(f"fact {n}"))
    watchers = [watch(here.memory), watch(there.memory, 1)]
    for watcher in watchers:
        await watcher.until(3)
    await here.memory.EraseSession(pb.EraseSessionRequest(session_id="user-123"))
    ended = grpc.StatusCode.OUT_OF_RANGE, "REVISION_OUT_OF_RANGE"
    for watcher in watchers:
        refusal = await refused(watcher.end())
        assert (refusal.code, refusal.reason) == ended
        assert watcher.changes[-1] == (4, PURGED, "")
        assert watcher.events[-1].memory == pb.Memory(session_id="user-123", revision=4)
    for watcher in (watch(here.memory, 3), watch(there.memory, 1), watch(here.memory, 4)):
        refusal = await refused(watcher.end())
        assert (refusal.code, refusal.reason) == ended
        assert not watcher.events


async def test_a_recreated_session_is_not_mistaken_for_the_erased_one(serve, watch, refused):
    here, there = await serve(), await serve()
    for n in range(3):
        await here.memory.StoreMemory(store(f"fact {n}"))
    watcher = watch(there.memory)
    await watcher.until(3)
    await here.memory.EraseSession(pb.EraseSessionRequest(session_id="user-123"))
    again = [(await here.memory.StoreMemory(store(f"anew {n}"))).memory for n in range(5)]
    for ended in (watcher, *(watch(here.memory, start) for start in (1, 2, 3))):
        refusal = await refused(ended.end())
        assert refusal.code == grpc.StatusCode.OUT_OF_RANGE
    seen = [event.memory.content for event in watcher.events if event.change != PURGED]
    assert seen == ["fact 0", "fact 1", "fact 2"]
    events = await watch(there.memory).until(again[-1].revision)
    assert [event.memory for event in events] == again
    await watch(there.memory, again[0].revision).until(again[-1].revision)


async def test_a_session_made_after_another_was_erased_is_watched_as_usual(memory, watch):
    await memory.BatchStoreMemories(
        pb.BatchStoreMemoriesRequest(requests=[store(f"fact {n}") for n in range(20)])
    )
    await memory.EraseSession(pb.EraseSessionRequest(session_id="user-123"))
    watcher = watch(memory, session_id="user-124")
    stored = [
        (await memory.StoreMemory(store(f"fact {n}", session_id="user-124"))).memory
        for n in range(3)
    ]
    events = await watcher.until(stored[-1].revision)
    assert [event.memory for event in events] == stored


async def test_a_resume_across_a_purge_reports_it_while_history_is_kept(
    running, clock, watch, refused
):
    memory = running.memory
    first, kept = [
        (await memory.StoreMemory(store(content, never_expires=True))).memory
        for content in ("to be purged", "to be kept")
    ]
    await updated(memory, first, importance=0.1)
    purge = pb.PurgeMemoriesRequest(session_id="user-123", force=True)
    purge.filter.min_importance = 0
    purge.filter.content_types.append(pb.CONTENT_TYPE_FACT)
    assert (await memory.PurgeMemories(purge)).purge_count == 0
    await updated(memory, first, content_type=pb.CONTENT_TYPE_FACT)
    assert (await memory.PurgeMemories(purge)).purge_count == 1
    for start in range(5):
        watcher = watch(memory, start)
        await watcher.until(5)
        assert watcher.changes[-1] == (5, PURGED, first.memory_id)
    clock.move(timedelta(hours=24))
    await running.server.sweeper.run_once()
    await watch(memory, 4).until(5)
    clock.move(timedelta(seconds=1))
    await running.server.sweeper.run_once()
    for start in range(1, 5):
        refusal = await refused(watch(memory, start).end())
        assert refusal.code == grpc.StatusCode.OUT_OF_RANGE
    at_the_end = watch(memory, 5)
    again = await updated(memory, kept, importance=0.7)
    (event,) = await at_the_end.until(6)
    assert event.memory == again
    from_the_beginning = watch(memory)
    await from_the_beginning.until(6)
    assert from_the_beginning.changes == [
        (2, CREATED, kept.memory_id),
        (6, UPDATED, kept.memory_id),
    ]


async def test_the_latest_version_replaces_those_no_longer_kept(running, clock, watch):
    memory = running.memory
    first, second = [
        (await memory.StoreMemory(store(content, never_expires=True))).memory
        for content in ("first", "second")
    ]
    for importance in (0.1, 0.2, 0.3):
        await updated(memory, first, importance=importance)
    clock.move(timedelta(hours=25))
    await running.server.sweeper.run_once()
    latest = await updated(memory, second, importance=0.4)
    watcher = watch(memory, 1)
    events = await watcher.until(6)
    assert watcher.changes == [
        (2, CREATED, second.memory_id),
        (5, UPDATED, first.memory_id),
        (6, UPDATED, second.memory_id),
    ]
    assert events[1].memory.importance == 0.3
    assert events[2].memory == latest


# The end of a stream


async def test_a_stopping_server_ends_its_streams_with_unavailable(serve, watch, refused):
    running = await serve(MEMORYD_DRAIN_SECONDS="20")
    await running.memory.StoreMemory(store())
    watchers = [watch(running.memory), watch(running.memory, session_id="nobody")]
    await watchers[0].until(1)
    await watchers[1].call.initial_metadata()
    async with asyncio.timeout(20):
        await running.server.stop()
    for watcher in watchers:
        refusal = await refused(watcher.end())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")


async def test_a_cancelled_watcher_leaves_nothing(running, watch, caplog):
    watchers = [watch(running.memory, session_id=f"user-{n % 3}") for n in range(30)]
    for watcher in watchers:
        await watcher.call.initial_metadata()
    await eventually(lambda: running.server.watchers == 30)
    writing = asyncio.gather(
        *(running.memory.StoreMemory(store(f"fact {n}", f"user-{n % 3}")) for n in range(60))
    )
    await asyncio.gather(*(watcher.stop() for watcher in watchers))
    await writing
    await eventually(lambda: not running.server.watchers)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_read_that_fails_after_all_watchers_left_raises_nowhere(
    running, watch, monkeypatch, caplog
):
    started, gone = asyncio.Event(), asyncio.Event()

    async def read(*_: object) -> None:
        started.set()
        await gone.wait()
        raise RevisionOutOfRange

    monkeypatch.setattr(feed.ChangeFeed, "_read", read)
    watcher = watch(running.memory)
    await started.wait()
    await watcher.stop()
    await eventually(lambda: not running.server.watchers)
    gone.set()
    for _ in range(5):
        await asyncio.sleep(0)  # so that the read ends
    gc.collect()  # asyncio reports unretrieved errors on collection
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# Streams that are not read

LARGE = 16_000


async def flood(memory: MemoryServiceStub, count: int, offset: int = 0) -> None:
    """Store far more than gRPC buffers for a caller that does not read."""
    for start in range(offset, offset + count, 50):
        batch = [
            store(f"{n:06} " + "x" * LARGE) for n in range(start, min(start + 50, offset + count))
        ]
        await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=batch))


async def read_all(call: grpc.aio.UnaryStreamCall, revisions: list[int]) -> None:
    """Read until the stream raises, and keep what came before."""
    async for event in call:
        revisions.append(event.revision)  # noqa: PERF401  as above


def last_revision(error: grpc.aio.AioRpcError) -> int:
    status = status_pb2.Status.FromString(
        dict(error.trailing_metadata())["grpc-status-details-bin"]
    )
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.reason == "ERROR_REASON_WATCHER_TOO_SLOW"
    return int(info.metadata["last_revision"])


async def test_a_watcher_that_does_not_read_is_cut_off_and_resumes_without_loss(serve, watch):
    running = await serve(MEMORYD_STREAM_STALL_SECONDS="0.5", MEMORY_MAX_ENTRIES="1000")
    memory = running.memory
    await flood(memory, 900)
    unread = memory.WatchMemories(pb.WatchMemoriesRequest(session_id="user-123"))
    await unread.initial_metadata()
    reading = watch(memory)
    await reading.until(900)
    await eventually(lambda: running.server.watchers == 1)
    await memory.StoreMemory(store("after the end"))
    received: list[int] = []
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await read_all(unread, received)
    assert ended.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    last = last_revision(ended.value)
    # The server read no more from the database than the connection buffers.
    assert 0 < last * LARGE < 8_000_000
    assert received == list(range(1, last + 1))
    resumed = watch(memory, last)
    await resumed.until(901)
    assert resumed.revisions == list(range(last + 1, 902))
    await reading.until(901)
    assert reading.revisions == list(range(1, 902))


async def test_unread_streams_delay_no_other_caller(serve, watch, caplog):
    running = await serve(MEMORYD_STREAM_STALL_SECONDS="60", MEMORY_MAX_ENTRIES="1000")
    memory = running.memory
    await flood(memory, 400)
    async with grpc.aio.insecure_channel(running.address) as channel:
        unread = [
            MemoryServiceStub(channel).WatchMemories(pb.WatchMemoriesRequest(session_id="user-123"))
            for _ in range(20)
        ]
        for call in unread:
            await call.initial_metadata()
        watcher = watch(memory)
        await watcher.until(400)
        assert running.server.database.connections_in_use <= FEW_CONNECTIONS
        await memory.StoreMemory(store("and one more"))
        await watcher.until(401)
        for call in unread[:10]:
            call.cancel()
    await eventually(lambda: running.server.watchers == 1)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("stall_seconds", ["0.2", "60"], ids=["cut off", "not yet cut off"])
async def test_an_unread_stream_does_not_stop_a_server_from_stopping(serve, stall_seconds, caplog):
    running = await serve(
        MEMORYD_STREAM_STALL_SECONDS=stall_seconds,
        MEMORYD_DRAIN_SECONDS="1",
        MEMORY_MAX_ENTRIES="1000",
    )
    await flood(running.memory, 900)
    unread = running.memory.WatchMemories(pb.WatchMemoriesRequest(session_id="user-123"))
    await unread.initial_metadata()
    await eventually(lambda: running.server.watchers == (stall_seconds == "60"))
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await running.server.stop()
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await read_all(unread, [])
    assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
