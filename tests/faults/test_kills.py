"""Servers killed under load, and what is stored afterwards."""

from __future__ import annotations

import asyncio
import random

from tests.usage import stored_and_counted

from .appends import NEVER
from .harness import ServerProcess, acknowledgements, answers, is_whole
from .history import History
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
    async with connected(server.address, SCALE.writers) as channels:
        async with Load(history, channels) as load:
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
    assert not history.refusals_besides(OUTCOMES)
    assert min(watcher.resumed for watcher in load.watchers) >= SCALE.kills
    assert min(history.answered[kind] for kind in ("documents", "conversations")) > SCALE.kills


async def test_appends_to_one_conversation_are_kept_each_as_a_whole_when_a_server_is_killed(
    command_line, database_url, database_kind, fault_report
):
    history = History()
    server = ServerProcess(command_line, database_url)
    moments = random.Random(f"appends, {database_kind}")  # noqa: S311  no secret
    await server.start()
    async with connected(server.address, SCALE.appenders) as channels:
        async with Load(
            history, channels[:1], other_channels=channels, appenders=SCALE.appenders
        ) as load:
            for _ in range(SCALE.kills):
                await answers(history, "conversations", moments.randrange(50, 500))
                await asyncio.sleep(moments.uniform(0, 0.01))  # not only when an answer arrives
                await server.kill()
                await server.start()
                assert is_whole(database_url)
            await answers(history, "conversations", 100)
        faults = await load.faults(database_url)
    await server.stop()
    fault_report(f"kills, appends, {database_kind}", SCALE.kills, history, faults)
    assert not faults
    assert not history.refusals_besides(OUTCOMES)
    appends = [append for caller in history.appends for append in caller.appends]
    assert any(append.answered == NEVER for append in appends)  # given up, and looked for


async def test_what_is_counted_of_a_tenant_is_what_is_stored_after_each_kill(
    command_line, database_url, database_kind, tables
):
    """Its quotas are beyond what a run stores."""
    history = History()
    unreached = {
        f"MEMORYD_QUOTA_{name}": "1000000000"
        for name in (
            *("MEMORIES", "SESSIONS", "BYTES"),
            *("DOCUMENTS", "CONVERSATIONS", "MESSAGES"),
        )
    }
    server = ServerProcess(command_line, database_url, **unreached)
    moments = random.Random(f"quotas, {database_kind}")  # noqa: S311  no secret
    await server.start()
    async with connected(server.address, SCALE.writers) as channels, Load(history, channels):
        for _ in range(SCALE.kills):
            await acknowledgements(history, moments.randrange(10, 200))
            await asyncio.sleep(moments.uniform(0, 0.01))  # not only when an answer arrives
            await server.kill()
            stored, counted = await stored_and_counted(tables, database_kind, "default")
            assert counted == stored
            await server.start()
        await acknowledgements(history, 50)
    await server.stop()
