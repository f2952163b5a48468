"""Sessions that are merged under load, by servers that are killed meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import random

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import session_pb2 as spb

from .harness import ServerProcess, is_whole
from .merges import Caller, Fill, both, filling, merge, places, until_moved
from .scale import SCALE

MARKED = 30
"""Memories, and documents, that a merge must move together."""

CALLERS = 3
SOURCES, TARGET = [f"visitor-{n}" for n in range(6)], "user"
LEFT, RIGHT = "left", "right"


async def assert_all_is_in(session_id: str, caller: Caller, fill: Fill, tables, marked) -> None:
    """What was stored is there once, the counts are right, and a watcher is shown the same."""
    found = await places(tables)
    assert found.keys() == fill.stored | both(marked)
    assert all(where == [session_id] for where in found.values())
    session = await caller.sessions.GetSession(spb.GetSessionRequest(session_id=session_id))
    contents = {name.removeprefix("memory ") for name in found if name.startswith("memory ")}
    counts = (session.memory_count, session.document_count)
    assert counts == (len(contents), len(found) - len(contents))
    last = await caller.memory.StoreMemory(
        pb.StoreMemoryRequest(session_id=session_id, content="the last")
    )
    seen: dict[str, str] = {}
    revisions = []
    watch = caller.memory.WatchMemories(pb.WatchMemoriesRequest(session_id=session_id))
    async for event in watch:
        revisions.append(event.revision)
        if event.revision == last.memory.revision:
            watch.cancel()
            break
        seen[event.memory.memory_id] = event.memory.content
    assert revisions == sorted(set(revisions))
    assert sorted(seen.values()) == sorted(contents)


async def test_a_merge_whose_server_is_killed_is_made_wholly_or_not_at_all(
    command_line, database_url, database_kind, tables
):
    """Several are under way, of which one is in its middle."""
    server = ServerProcess(command_line, database_url)
    moments = random.Random(f"merges, {database_kind}")  # noqa: S311  no secret
    caller = Caller(await server.start())
    marked: list[str] = []
    await caller.lift_limit(TARGET)
    async with filling([server.address] * CALLERS, (*SOURCES, TARGET)) as fill:
        for kill in range(SCALE.merges):
            names = {one: [f"{one} marks {kill}-{n}" for n in range(MARKED)] for one in SOURCES}
            marked += itertools.chain(*names.values())
            await asyncio.gather(*(caller.mark(*item) for item in names.items()))
            requests = [merge(one, TARGET) for one in SOURCES]
            merging = [
                asyncio.create_task(caller.attempt(caller.sessions.MergeSessions, request))
                for request in requests
            ]
            one_of_each = [of_source[0] for of_source in names.values()]
            done = moments.randrange(1, len(SOURCES) - 1)
            await until_moved(tables, TARGET, one_of_each, done)
            await asyncio.sleep(moments.uniform(0, 0.02))  # not only when one has been made
            await server.kill()
            answers = await asyncio.gather(*merging)
            assert is_whole(database_url)
            found = await places(tables)
            for source, answer in zip(SOURCES, answers, strict=True):
                where = {tuple(found[name]) for name in both(names[source])}
                assert where in ({(source,)}, {(TARGET,)})
                assert answer is None or where == {(TARGET,)}
            await server.start()
            for request, answer in zip(requests, answers, strict=True):
                again = await caller.answer(caller.sessions.MergeSessions, request)
                assert answer in (None, again)
                assert min(again.moved_memories, again.moved_documents) >= MARKED
                assert await caller.answer(caller.sessions.MergeSessions, request) == again
            found = await places(tables)
            assert all(found[name] == [TARGET] for name in both(marked))
            for table in ("memory_history", "document_history"):
                versions = f"SELECT count(*) FROM {table} WHERE session_id = '{TARGET}'"  # noqa: S608
                assert (await tables.rows(versions))[0][0] >= len(marked)
    found = await places(tables)
    assert all(len(found[name]) == 1 for name in fill.certain)
    assert all(found[name] for name in fill.stored)
    for source in SOURCES:
        await caller.merge_if_there(source, TARGET)
    await assert_all_is_in(TARGET, caller, fill, tables, marked)
    await caller.close()
    await server.stop()


async def test_merges_that_cross_while_servers_are_killed_end_and_lose_nothing(
    command_line, database_url, database_kind, tables
):
    """On PostgreSQL through two servers, of which one is killed."""
    count = 1 if database_kind == "sqlite" else 2
    servers = [ServerProcess(command_line, database_url) for _ in range(count)]
    addresses = [await server.start() for server in servers]
    moments = random.Random(f"crossing, {database_kind}")  # noqa: S311  no secret
    callers = [Caller(addresses[n % count]) for n in range(4)]
    marked = [f"mark {n}" for n in range(MARKED)]
    for session_id, names in ((LEFT, marked[::2]), (RIGHT, marked[1::2])):
        await callers[0].lift_limit(session_id)
        await callers[0].mark(session_id, names)
    stop = asyncio.Event()
    merges = 0

    async def merge_often(caller: Caller, source: str, target: str) -> None:
        nonlocal merges
        while not stop.is_set():
            merges += await caller.merge_if_there(source, target)

    directions = ((LEFT, RIGHT), (RIGHT, LEFT), (RIGHT, LEFT), (LEFT, RIGHT))
    async with (
        filling(addresses * (4 // count), (LEFT, RIGHT)) as fill,
        asyncio.TaskGroup() as group,
    ):
        for caller, names in zip(callers, directions, strict=True):
            group.create_task(merge_often(caller, *names))
        for _ in range(SCALE.merges):
            await asyncio.sleep(moments.uniform(0.2, 0.6))
            await servers[0].kill()
            assert "deadlock" not in servers[0].process.log
            found = await places(tables)
            assert all(len(found[name]) == 1 for name in both(marked))
            await servers[0].start()
        before = merges
        while merges < before + 2:  # noqa: ASYNC110  no event to await
            await asyncio.sleep(0.01)
        stop.set()
    found = await places(tables)
    assert all(len(found[name]) == 1 for name in fill.certain)
    await callers[0].merge_if_there(LEFT, RIGHT)
    await assert_all_is_in(RIGHT, callers[0], fill, tables, marked)
    if database_kind == "postgresql":
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert await tables.rows(deadlocks) == [(0,)]
    for one in (*callers, *servers):
        await (one.close() if isinstance(one, Caller) else one.stop())
    assert all("deadlock" not in server.process.log for server in servers)
