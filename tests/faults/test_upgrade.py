"""Servers of two releases on one schema: a later one migrates it, an earlier one serves on."""

from __future__ import annotations

import pytest

from .checker import find_faults
from .earlier import EarlierRelease
from .harness import SESSIONS, VARIABLES, acknowledgements
from .history import History
from .load import Load

EARLIER_WRITES = 20


async def test_servers_keep_working_during_a_compatible_migration(
    serve, tables, database_url, later_schema, fault_report
):
    running = await serve(**VARIABLES)
    history = History()
    async with Load(history, [running.channel] * 4) as load:
        for statement in later_schema:
            await acknowledgements(history, 20)
            await tables.execute(statement)
        await acknowledgements(history, 50)
        await running.server.database.check()
        await acknowledgements(history, 20)
    faults = await load.faults(database_url)
    fault_report("migration", len(later_schema), history, faults)
    assert not faults
    assert not history.refusals_besides({"NOT_FOUND"})
    assert running.server.health.is_serving.is_set()
    later = await serve(**VARIABLES)  # another one of this release
    assert later.server.health.is_serving.is_set()


@pytest.mark.parametrize("database_kind", ["postgresql"])
async def test_an_earlier_release_writes_to_sessions_with_documents(
    serve, database_url, fault_report
):
    running = await serve(**VARIABLES)
    history = History()
    async with (
        EarlierRelease(database_url, history) as earlier,
        Load(history, [running.channel] * 2) as load,
    ):
        for number in range(EARLIER_WRITES):
            await acknowledgements(history, 2)
            await earlier.store(SESSIONS[number % len(SESSIONS)], f"earlier {number}")
    await running.server.sweeper.run_once()  # which counts what the other has not
    stored = await load.stored(database_url)
    faults = find_faults(history, stored)
    fault_report("writes of an earlier release", EARLIER_WRITES, history, faults)
    assert not faults
    assert stored.counts.keys() == stored.revisions.keys()
    assert not history.refusals_besides({"NOT_FOUND"})
