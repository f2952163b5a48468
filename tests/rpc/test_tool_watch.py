"""WatchToolConfigs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import pytest

from memoryd.tools import configs as tool_configs
from memoryd.tools import store as storage
from memoryd.v1 import tool_config_pb2 as pb
from memoryd.v1.tool_config_pb2_grpc import ToolConfigServiceStub

TOOLS = ["rag", "memory", "escalation", "attachment", "crm", "billing", "inventory"]
SNAPSHOT, UPDATED = pb.TOOL_CONFIG_CHANGE_SNAPSHOT, pb.TOOL_CONFIG_CHANGE_UPDATED
TIMEOUT_SECONDS = 60


async def update(tools: ToolConfigServiceStub, tool: str, **fields: object) -> pb.ToolConfig:
    config = pb.ToolConfig(tool=tool, **fields)
    return await tools.UpdateToolConfig(pb.UpdateToolConfigRequest(tool_config=config))


async def get(tools: ToolConfigServiceStub, tool: str) -> pb.ToolConfig:
    return await tools.GetToolConfig(pb.GetToolConfigRequest(tool=tool))


class Watcher:
    """A watch with a task that reads it."""

    def __init__(self, tools: ToolConfigServiceStub, start_revision: int = 0) -> None:
        self.call = tools.WatchToolConfigs(
            pb.WatchToolConfigsRequest(start_revision=start_revision)
        )
        self.events: list[pb.WatchToolConfigsResponse] = []
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for event in self.call:
                self.events.append(event)
                async with self._news:
                    self._news.notify_all()
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            pass  # `ended` asks for it
        async with self._news:
            self._news.notify_all()

    async def until(self, count: int) -> list[pb.WatchToolConfigsResponse]:
        """Wait until this many events have come, and return them."""
        async with asyncio.timeout(TIMEOUT_SECONDS), self._news:
            await self._news.wait_for(lambda: len(self.events) >= count or self._reader.done())
        assert len(self.events) >= count, self.call
        return self.events

    async def ended(self) -> None:
        """Wait for its end, and raise its error."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await self._reader
        await self.call.read()

    @property
    def deltas(self) -> list[pb.WatchToolConfigsResponse]:
        return [event for event in self.events if event.change == UPDATED]

    async def close(self) -> None:
        self.call.cancel()
        await self._reader


@pytest.fixture
async def watch() -> AsyncIterator[Callable[..., Watcher]]:
    watchers: list[Watcher] = []

    def start(*arguments: object) -> Watcher:
        watchers.append(Watcher(*arguments))
        return watchers[-1]

    yield start
    for watcher in watchers:
        await watcher.close()


async def test_a_snapshot_of_all_and_then_every_change_once(tools, watch):
    await update(tools, "rag", rag={"chunk_size": 600})
    watcher = watch(tools)
    snapshot = list(await watcher.until(7))
    assert [event.tool_config.tool for event in snapshot] == TOOLS
    assert {event.change for event in snapshot} == {SNAPSHOT}
    assert [event.tool_config for event in snapshot] == [await get(tools, t) for t in TOOLS]
    # A watch cannot resume from within a snapshot.
    assert [event.revision for event in snapshot] == [0, 0, 0, 0, 0, 0, 1]
    answers = [
        await update(tools, "rag", enabled=False),
        await update(tools, "crm", crm={"timeout": 3}),
        await tools.ResetToolConfig(pb.ResetToolConfigRequest(tool="rag")),
        await tools.RollbackToolConfig(pb.RollbackToolConfigRequest(tool="rag", revision=2)),
    ]
    await watcher.until(11)
    assert [event.revision for event in watcher.deltas] == [2, 3, 4, 5]
    assert [event.tool_config for event in watcher.deltas] == answers


async def test_a_resumed_watch_has_no_snapshot_and_no_gap(serve, watch):
    here, there = await serve(), await serve()
    answers = [
        await update((here, there)[n % 2].tools, "rag", rag={"chunk_size": 600 + n})
        for n in range(storage.READ_LIMIT + 10)
    ]
    watcher = watch(there.tools, 3)
    await watcher.until(len(answers) - 3)
    last = await update(here.tools, "crm", crm={"timeout": 3})
    await watcher.until(len(answers) - 2)
    assert [event.revision for event in watcher.events] == [*range(4, last.revision + 1)]
    assert {event.change for event in watcher.events} == {UPDATED}
    assert [event.tool_config for event in watcher.events] == [*answers[3:], last]
    # From a revision that another server has just sent.
    newest = watch(there.tools, (await update(here.tools, "rag", enabled=False)).revision)
    after = await update(here.tools, "rag", enabled=True)
    assert [event.revision for event in await newest.until(1)] == [after.revision]


async def test_a_revision_that_never_existed_is_out_of_range(tools, watch, refused):
    await update(tools, "rag", rag={"chunk_size": 600})
    refusal = await refused(watch(tools, 2).ended())
    assert refusal.code == grpc.StatusCode.OUT_OF_RANGE
    assert refusal.reason == "REVISION_OUT_OF_RANGE"
    refusal = await refused(watch(tools, -1).ended())
    assert list(refusal.violations) == ["start_revision"]


async def test_a_revision_that_is_no_longer_kept_is_out_of_range(
    tools, watch, refused, monkeypatch
):
    monkeypatch.setattr(storage, "KEPT_REVISIONS", 3)
    await update(tools, "crm", crm={"timeout": 3})
    for n in range(6):
        await update(tools, "rag", rag={"chunk_size": 600 + n})
    # Of 1 to 7, those from 2 to 4 are gone.
    for revision in (1, 3):
        refusal = await refused(watch(tools, revision).ended())
        assert refusal.code == grpc.StatusCode.OUT_OF_RANGE
    kept = watch(tools, 4)
    assert [event.revision for event in await kept.until(3)] == [5, 6, 7]
    assert [event.revision for event in await watch(tools).until(7)][-1] == 7


async def test_many_watchers_of_two_servers_miss_nothing_amid_many_writers(serve, watch):
    servers = [await serve(), await serve()]
    watchers = [watch(servers[n % 2].tools) for n in range(100)]
    for watcher in watchers:
        await watcher.until(7)

    async def write(tool: str, setting: str, server: int) -> None:
        for n in range(10):
            await update(servers[server].tools, tool, **{tool: {setting: 100 + n}})

    await asyncio.gather(
        write("rag", "chunk_size", 0),
        write("rag", "cache_ttl", 1),
        write("crm", "timeout", 0),
        write("memory", "max_entries", 1),
    )
    for watcher in watchers:
        await watcher.until(7 + 40)
        assert [event.revision for event in watcher.deltas] == list(range(1, 41))
        assert [event.tool_config for event in watcher.deltas] == [
            event.tool_config for event in watchers[0].deltas
        ]


@pytest.mark.notified
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
async def test_a_lost_listener_comes_back_and_nothing_is_missed(serve, watch, sql, monkeypatch):
    # Without the poll, which would find what the listener missed.
    monkeypatch.setattr(tool_configs, "POLL_SECONDS", 3600.0)
    here, there = await serve(), await serve()
    watcher = watch(here.tools)
    await watcher.until(7)
    await update(there.tools, "rag", rag={"chunk_size": 600})
    await watcher.until(8)
    await sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE query LIKE 'LISTEN %' AND datname = current_database()"
    )
    for n in range(5):
        await update(there.tools, "rag", rag={"chunk_size": 700 + n})
    await watcher.until(13)
    assert [event.revision for event in watcher.deltas] == [1, 2, 3, 4, 5, 6]


async def test_a_watch_goes_on_while_the_database_is_away(tools, watch, sql):
    watcher = watch(tools)
    await watcher.until(7)
    await sql("ALTER TABLE tool_config_head RENAME TO away")
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not (await get(tools, "rag")).stale:  # noqa: ASYNC110  no event to await
            await asyncio.sleep(0.02)
    late = watch(tools)
    assert {event.tool_config.stale for event in await late.until(7)} == {True}
    await sql("ALTER TABLE away RENAME TO tool_config_head")
    await update(tools, "rag", rag={"chunk_size": 600})
    for one in (watcher, late):
        await one.until(8)
        assert [(e.revision, e.tool_config.stale) for e in one.deltas] == [(1, False)]


async def test_a_database_set_back_ends_watches_beyond_it(tools, watch, sql, refused):
    await update(tools, "rag", rag={"chunk_size": 600})
    await update(tools, "rag", rag={"chunk_size": 700})
    watcher = watch(tools, 1)
    await watcher.until(1)
    await sql("DELETE FROM tool_config_revisions WHERE revision = 2")
    await sql("UPDATE tool_configs SET revision = 1, overrides = '{\"rag.chunk_size\": 600}'")
    await sql("UPDATE tool_config_head SET revision = 1")
    refusal = await refused(watcher.ended())
    assert refusal.code == grpc.StatusCode.OUT_OF_RANGE
    assert (await get(tools, "rag")).rag.chunk_size == 600


async def test_a_stopping_server_ends_its_watches_with_unavailable(serve, watch, refused):
    running = await serve(MEMORYD_DRAIN_SECONDS="20")
    watchers = [watch(running.tools) for _ in range(20)]
    for watcher in watchers:
        await watcher.until(7)
    async with asyncio.timeout(10):
        await running.server.stop()
    for watcher in watchers:
        refusal = await refused(watcher.ended())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")


async def test_a_watcher_that_does_not_read_is_cut_off_and_resumes_without_loss(
    serve, watch, refused
):
    running = await serve(MEMORYD_STREAM_STALL_SECONDS="0.2")
    tools = running.tools
    keywords = {f"word {n} {'x' * 150}": 0.5 for n in range(900)}
    unread = tools.WatchToolConfigs(pb.WatchToolConfigsRequest())
    await unread.initial_metadata()
    reading = watch(tools)
    for n in range(30):
        await update(tools, "escalation", escalation={"keywords": {**keywords, "n": n / 100}})
    await reading.until(37)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while running.server.tool_watchers > 1:  # noqa: ASYNC110  no event to await
            await asyncio.sleep(0.02)
    received = []

    async def read() -> None:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            async for event in unread:
                received.append(event.revision)  # noqa: PERF401  keeps what was read before the error

    refusal = await refused(read())
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "WATCHER_TOO_SLOW",
    )
    assert received[6:] == list(range(len(received) - 6))
    rest = watch(tools, received[-1])
    await rest.until(30 - received[-1])
    assert [event.revision for event in rest.events] == list(range(received[-1] + 1, 31))
