"""The schema in the database: keys that separate sessions, and tables that erasure must reach."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from tests.roles import as_superuser

from memoryd.v1 import memory_pb2 as pb

SHARD_KEY = ["tenant", "session_id"]
ERASED = ("default", "erased")
OTHERS = (("default", "kept"), ("somebody-else", "erased"))


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(as_superuser(database_url))
    yield engine
    await engine.dispose()


async def session_tables(engine: AsyncEngine) -> list[sa.Table]:
    """Every table with a session_id, even if the code does not know it; parents first."""
    metadata = sa.MetaData()
    async with engine.connect() as connection:
        await connection.run_sync(metadata.reflect)
    tables = [table for table in metadata.sorted_tables if "session_id" in table.c]
    assert {"sessions", "memories", "memory_history", "store_requests"} <= {t.name for t in tables}
    return tables


def unique_keys(connection: sa.Connection, table: str) -> Iterator[tuple[str, list[str | None]]]:
    inspector = sa.inspect(connection)
    primary_key = inspector.get_pk_constraint(table)
    yield "primary key", list(primary_key["constrained_columns"])
    for constraint in inspector.get_unique_constraints(table):
        yield str(constraint["name"]), list(constraint["column_names"])
    for index in inspector.get_indexes(table):
        if index["unique"]:
            yield str(index["name"]), list(index["column_names"])


async def test_every_unique_key_begins_with_the_shard_key(engine: AsyncEngine) -> None:
    tables = await session_tables(engine)
    async with engine.connect() as connection:
        for table in tables:
            keys = await connection.run_sync(
                lambda c, name=table.name: list(unique_keys(c, name))  # type: ignore[misc]
            )
            for name, columns in keys:
                assert columns[:2] == SHARD_KEY, f"{table.name}: {name} {columns}"


async def test_every_reference_between_tables_of_sessions_begins_with_the_shard_key(
    engine: AsyncEngine,
) -> None:
    keys = [key for table in await session_tables(engine) for key in table.foreign_key_constraints]
    assert len(keys) >= 4
    for key in keys:
        assert key.column_keys[:2] == SHARD_KEY
        assert [element.column.name for element in key.elements][:2] == SHARD_KEY


def any_value(column: sa.Column[Any]) -> object:
    match column.type:
        case sa.DateTime():
            return datetime(2026, 3, 1, tzinfo=UTC)
        case sa.JSON():
            return {}
        case sa.Boolean():
            return True
        case sa.Integer() | sa.Float():
            return 1
        case sa.LargeBinary():
            return b"x"
        case _:
            return "x"


async def test_erasure_reaches_every_table_with_a_session(engine, memory) -> None:
    tables = await session_tables(engine)
    async with engine.begin() as connection:
        for tenant, session_id in (ERASED, *OTHERS):
            for table in tables:
                row = {column.name: any_value(column) for column in table.c}
                row |= {"tenant": tenant, "session_id": session_id}
                await connection.execute(sa.insert(table), row)
    request = pb.EraseSessionRequest(session_id=ERASED[1])
    answer = await memory.EraseSession(request)
    assert dict(answer.erased_rows) == {table.name: 1 for table in tables}
    async with engine.connect() as connection:
        for table in tables:
            keys = await connection.execute(sa.select(table.c.tenant, table.c.session_id))
            assert sorted(tuple(key) for key in keys) == sorted(OTHERS), table.name
