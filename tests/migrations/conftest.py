"""A database before its first migration, and helpers to fill it as earlier systems did."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from memoryd.database.migrate import alembic_config, migrate
from memoryd.database.types import UtcDateTime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Row = dict[str, Any]

TYPES = {
    "metadata": sa.JSON(none_as_null=True),
    "created_at": UtcDateTime,
    "updated_at": UtcDateTime,
    "last_accessed": UtcDateTime,
    "expires_at": UtcDateTime,
    "deleted_at": UtcDateTime,
}


class Database:
    """A database at the revision to which the test migrates it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")

    async def upgrade(self, target: str = "head") -> None:
        await migrate(self.url, target=target)

    async def downgrade(self, target: str) -> None:
        await asyncio.to_thread(command.downgrade, alembic_config(self.url), target)

    async def run(self, body: Callable[[sa.Connection], Any]) -> Any:
        """Call `body` in a transaction."""
        engine = create_async_engine(self.url, poolclass=NullPool)
        async with engine.begin() as connection:
            return await connection.run_sync(body)

    async def insert(self, rows: Sequence[Row]) -> None:
        """Insert memories; columns that a row lacks get the database's default."""

        def insert(connection: sa.Connection) -> None:
            for row in rows:
                columns = [sa.column(name, TYPES.get(name)) for name in row]
                connection.execute(sa.insert(sa.table("memories", *columns)), [row])

        await self.run(insert)

    async def insert_session(self, tenant: str, session_id: str, *, revision: int) -> None:
        row = {"tenant": tenant, "session_id": session_id, "revision": revision}
        sessions = sa.table("sessions", *map(sa.column, row))
        await self.run(lambda connection: connection.execute(sa.insert(sessions), [row]))

    async def execute(self, statement: str) -> None:
        await self.run(lambda connection: connection.execute(sa.text(statement)))

    async def rows(self, table: str = "memories") -> list[Row]:
        """Every row as Python values, ordered by content if there is one."""

        def read(connection: sa.Connection) -> list[Row]:
            names = [column["name"] for column in sa.inspect(connection).get_columns(table)]
            columns = [sa.column(name, TYPES.get(name)) for name in names]
            query = sa.select(*columns).select_from(sa.table(table))
            return [dict(row) for row in connection.execute(query).mappings()]

        found: list[Row] = await self.run(read)
        return sorted(found, key=lambda row: str(row.get("content")))

    async def schema(self) -> dict[str, Any]:
        """Everything that inspection shows of the tables."""

        def inspect(connection: sa.Connection) -> dict[str, Any]:
            inspector = sa.inspect(connection)
            return {
                table: {
                    "columns": {
                        column["name"]: (str(column["type"]), column["nullable"], column["default"])
                        for column in inspector.get_columns(table)
                    },
                    "key": inspector.get_pk_constraint(table)["constrained_columns"],
                    "unique": {
                        unique["name"]: unique["column_names"]
                        for unique in inspector.get_unique_constraints(table)
                    },
                    "checks": {check["name"] for check in inspector.get_check_constraints(table)},
                    "references": inspector.get_foreign_keys(table),
                    "indexes": {
                        index["name"]: (index["column_names"], bool(index["unique"]))
                        for index in inspector.get_indexes(table)
                    },
                }
                for table in inspector.get_table_names()
            }

        found: dict[str, Any] = await self.run(inspect)
        return found


@pytest.fixture
def database_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of either kind; for SQLite, a file that does not exist yet."""
    if database_kind == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/memories.db"
    return str(request.getfixturevalue("postgres_server").create_database())


@pytest.fixture
def database(database_url: str) -> Database:
    return Database(database_url)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of the migrations; `log.messages` has it as text."""
    caplog.set_level("INFO", "memoryd")
    return caplog
