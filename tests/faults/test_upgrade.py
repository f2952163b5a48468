"""A later release's migration under running servers."""

from __future__ import annotations

from .checker import History
from .harness import VARIABLES, acknowledgements
from .load import Load


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
    assert set(history.codes) <= {"NOT_FOUND"}
    assert running.server.health.is_serving.is_set()
    later = await serve(**VARIABLES)  # another one of this release
    assert later.server.health.is_serving.is_set()
