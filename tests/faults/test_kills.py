"""Servers killed under load, and what is stored afterwards."""

from __future__ import annotations

import asyncio
import random

from .checker import History
from .harness import ServerProcess, acknowledgements, is_whole
from .load import Load, connected
from .scale import SCALE

OUTCOMES = {"UNAVAILABLE", "CANCELLED", "NOT_FOUND"}
"""The codes that a caller may see while its server is killed and restarted."""


async def test_a_killed_server_loses_and_duplicates_nothing(
    command_line, database_url, database_kind, fault_report
):
    history = History()
    server = ServerProcess(command_line, database_url)
    moments = random.Random(database_kind)  # noqa: S311  no secret
    await server.start()
    async with connected(server.address, SCALE.writers) as stubs:
        async with Load(history, stubs) as load:
            for _ in range(SCALE.kills):
                await acknowledgements(history, moments.randrange(10, 200))
                await asyncio.sleep(moments.uniform(0, 0.01))  # not only when an answer arrives
                await server.kill()
                await server.start()  # the restarted server recovers SQLite's log
                assert is_whole(database_url)
            await acknowledgements(history, 50)
        faults = await load.faults(database_url)
    await server.stop()
    fault_report(f"kills, {database_kind}", SCALE.kills, history, faults)
    assert not faults
    assert set(history.codes) <= OUTCOMES
    assert min(watcher.resumed for watcher in load.watchers) >= SCALE.kills
