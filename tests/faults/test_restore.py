"""PostgreSQL's own backups, made under load as docs/backup.md describes, and their recovery."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .checker import find_faults
from .harness import VARIABLES, acknowledgements
from .history import History, up_to
from .load import Load
from .nodes import Node
from .restored import assert_continues
from .stored import read_stored

pytestmark = pytest.mark.parametrize("database_kind", ["postgresql"])

CALLERS = 4


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user may enter."""
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


async def test_a_dump_under_load_is_one_state_and_a_server_continues_from_it(
    serve, pair, folder, fault_report
):
    database, dump = pair.create_database(), folder / "memoryd.dump"
    url = pair.primary.url(database)
    running = await serve(**VARIABLES, MEMORYD_DATABASE_URL=url)
    history = History()
    async with Load(history, [running.channel] * CALLERS) as load:
        await acknowledgements(history, 200)
        started = history.now()
        await asyncio.to_thread(pair.primary.dump, database, dump)
        await acknowledgements(history, 50)
    await load.stored(url)

    copy = f"{database}_restored"
    await asyncio.to_thread(pair.primary.restore, dump, copy)
    restored = await read_stored(pair.primary.url(copy))
    faults = find_faults(up_to(history, started), restored)
    fault_report("dump under load, postgresql", 1, history, faults)
    assert not faults
    there = await serve(**VARIABLES, MEMORYD_DATABASE_URL=pair.primary.url(copy))
    await assert_continues(restored, there.channel)


async def test_a_recovery_restores_what_was_acknowledged_at_its_time(
    serve, postgres_server, folder, fault_report
):
    source = Node(folder / "source", postgres_server.system_user)
    copy = Node(folder / "copy", postgres_server.system_user)
    try:
        await asyncio.to_thread(source.make)
        await asyncio.to_thread(source.archive, folder / "archive")
        await asyncio.to_thread(source.create_database, "memoryd")
        url = source.url("memoryd")
        running = await serve(**VARIABLES, MEMORYD_DATABASE_URL=url)
        history = History()
        async with Load(history, [running.channel] * CALLERS) as load:
            await acknowledgements(history, 100)
            await asyncio.to_thread(source.back_up, copy.folder)
            await acknowledgements(history, 100)
            known = history.now()
            until = source.sql("SELECT clock_timestamp()")
            await acknowledgements(history, 100)
        last = await load.stored(url)
        await running.server.stop()
        source.sql("SELECT pg_switch_wal()")
        await asyncio.to_thread(source.stop)  # archives the rest of the log first

        await asyncio.to_thread(copy.recover, folder / "archive", until)
        recovered = await read_stored(copy.url("memoryd"))
        faults = find_faults(up_to(history, known), recovered)
        fault_report("recovery to a point in time", 1, history, faults)
        assert not faults
        assert sum(recovered.revisions.values()) < sum(last.revisions.values())
        there = await serve(**VARIABLES, MEMORYD_DATABASE_URL=copy.url("memoryd"))
        await assert_continues(recovered, there.channel)
        await there.server.stop()
    finally:
        source.close()
        copy.close()
