"""Servers that are killed under load, and what is there afterwards."""

from __future__ import annotations

import asyncio
import random

from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

from .checker import History, judge, read_stored
from .harness import ServerProcess, Watcher, Writer, acknowledgements, open_channel
from .scale import SCALE

SESSIONS = [f"user-{number}" for number in range(4)]


async def test_a_server_that_is_killed_loses_and_doubles_nothing(
    command_line, database_url, database_kind, fault_report
):
    history = History()
    server = ServerProcess(command_line, database_url)
    await server.start()
    channels = [open_channel(server.address) for _ in range(SCALE.writers + 1)]
    stubs = [MemoryServiceStub(channel) for channel in channels]
    watchers = [Watcher(stubs[-1], history, session_id) for session_id in SESSIONS]
    stop = asyncio.Event()
    writers = [
        asyncio.create_task(Writer(f"caller {number}", stub, history, SESSIONS).run(stop))
        for number, stub in enumerate(stubs[:-1])
    ]
    moments = random.Random(database_kind)  # noqa: S311  no secret
    for _ in range(SCALE.kills):
        await acknowledgements(history, moments.randrange(10, 200))
        await asyncio.sleep(moments.uniform(0, 0.01))  # not only as an answer arrives
        await server.kill()
        await server.start()
    await acknowledgements(history, 50)
    stop.set()
    await asyncio.gather(*writers)
    stored = await read_stored(database_url)
    for watcher in watchers:
        await watcher.until(stored.revisions[watcher.watch.session_id])
    await asyncio.gather(*(channel.close() for channel in channels))
    await server.stop()
    faults = judge(history, stored)
    fault_report(f"kills, {database_kind}", SCALE.kills, history, faults)
    assert not faults
    assert set(history.codes) <= {"UNAVAILABLE", "NOT_FOUND", "CANCELLED", "DEADLINE_EXCEEDED"}
    assert sum(watcher.resumed for watcher in watchers) >= SCALE.kills
