"""Statements are built once, and what was compiled of them goes with the database it is for."""

from __future__ import annotations

import gc

import pytest
from tests.patience import PATIENT_DATABASE

from memoryd.database.engine import Database
from memoryd.database.statements import Prepared
from memoryd.memories import lookups

OPENED = 8
KEY = ("default", "session", "memory")


async def look_up(database_url: str) -> lookups.Lookups:
    """Open a database, have it answer, and close it."""
    database = Database(database_url, PATIENT_DATABASE)
    await database.check()
    found = lookups.lookups_of(database.dialect)
    await database.read(
        lambda c: lookups.fetch(c, database.dialect, found.by_id, [KEY]), tenants=("default",)
    )
    await database.close()
    return found


def compiled() -> int:
    gc.collect()
    return sum(isinstance(one, Prepared) for one in gc.get_objects())


@pytest.mark.whole
async def test_a_process_that_opens_many_databases_keeps_nothing_of_them(database_url: str):
    first = await look_up(database_url)
    before = compiled()
    for _ in range(OPENED):
        assert await look_up(database_url) is first
    # The last ones may be on their way out.
    assert compiled() - before < OPENED // 2
