"""Run the migrations: one tree for SQLite and PostgreSQL.

On PostgreSQL each migration is a transaction; on SQLite a whole run is one. Either way a failure
leaves the previous revision intact, and the second of two concurrent runs finds nothing to do.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic import context
from alembic.util import CommandError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from memoryd.database.migrate import SHORT_NAMES
from memoryd.database.tables import ONLY_ON, schema
from memoryd.database.urls import driver_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from alembic.runtime.migration import MigrationContext, MigrationInfo
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncEngine

logger = logging.getLogger("memoryd.migrate")

ADVISORY_LOCK = int.from_bytes(b"memoryd", "big")
# Do not wait longer for a table in use: all other statements would queue behind the migration. A
# backfill may take longer.
POSTGRES_LIMITS = {
    "lock_timeout": "10s",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # Of Citus, which else refuses changes of tables that refer to each other; elsewhere it is
    # nothing.
    "citus.multi_shard_modify_mode": "sequential",
}
SQLITE_BUSY_SECONDS = 300
SQLITE_PRAGMAS = (
    "foreign_keys = OFF",  # rebuilding a table drops it, which would cascade
    "secure_delete = ON",  # the dropped table leaves no contents in the file
)


def run(connection: sa.Connection) -> None:
    on_sqlite = connection.dialect.name == "sqlite"
    context.configure(
        connection=connection,
        target_metadata=schema,
        render_as_batch=True,
        transactional_ddl=True,
        transaction_per_migration=not on_sqlite,
        compare_server_default=server_default_differs,
        on_version_apply=log_step,
        include_object=is_on(connection.dialect.name),
    )
    with context.begin_transaction():
        context.run_migrations()
        if on_sqlite:
            refuse_broken_references(connection)


def is_on(database: str) -> Callable[..., bool]:
    """Leave out of comparisons what only the other kind of database has."""
    return lambda item, *_: item.info.get(ONLY_ON, database) == database


def log_step(*, step: MigrationInfo, **_: Any) -> None:
    if step.is_upgrade:
        logger.info("upgraded to %s", step.up_revision_id)
    else:
        logger.info("downgraded from %s", step.up_revision_id)


def refuse_broken_references(connection: sa.Connection) -> None:
    if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all():
        raise CommandError(
            f"{len(broken)} rows refer to rows that are not there, first in table {broken[0][0]}"
        )


def rename_revisions(connection: sa.Connection) -> None:
    """Replace an earlier system's short revision name by the full one."""
    if sa.inspect(connection).has_table("alembic_version"):
        revisions = sa.table("alembic_version", sa.column("version_num", sa.String))
        version = revisions.c.version_num
        connection.execute(
            sa.update(revisions)
            .where(version.in_(SHORT_NAMES))
            .values(version_num=sa.case(SHORT_NAMES, value=version))
        )


def server_default_differs(
    _context: MigrationContext,
    _in_database: sa.Column[Any],
    in_model: sa.Column[Any],
    default_in_database: str | None,
    _default: object,
    default_in_model: str | None,
) -> bool | None:
    """Compare JSON as text, since PostgreSQL cannot compare it; None leaves it to Alembic."""
    if not isinstance(in_model.type, sa.JSON) or default_in_database is None:
        return None
    return default_in_database.removesuffix("::json") != default_in_model


async def run_on_url(url: str) -> None:
    target = driver_url(url)
    on_sqlite = target.get_backend_name() == "sqlite"
    engine = sqlite_engine(target) if on_sqlite else postgres_engine(target)
    alone = nullcontext() if on_sqlite else only_migrator(engine)
    try:
        async with alone, engine.connect() as connection:
            await connection.run_sync(rename_revisions)
            await connection.commit()
            await connection.run_sync(run)
    finally:
        await engine.dispose()


def sqlite_engine(url: sa.URL) -> AsyncEngine:
    engine = create_async_engine(
        url,
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"timeout": SQLITE_BUSY_SECONDS},
    )

    def on_connect(connection: DBAPIConnection, _record: object) -> None:
        # The driver's own BEGIN comes only after DDL, so each DDL statement would commit alone.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in SQLITE_PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    sa.event.listen(engine.sync_engine, "connect", on_connect)
    sa.event.listen(engine.sync_engine, "begin", on_begin)
    return engine


def postgres_engine(url: sa.URL) -> AsyncEngine:
    engine = create_async_engine(
        url,
        poolclass=NullPool,
        hide_parameters=True,
        # Cached plans would outlive their tables, and PgBouncer keeps none.
        connect_args={
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": str,  # the empty name never clashes
        },
    )
    limits = sa.select(*(set_local(name, value) for name, value in POSTGRES_LIMITS.items()))

    def on_begin(connection: sa.Connection) -> None:
        connection.execute(limits)

    sa.event.listen(engine.sync_engine, "begin", on_begin)
    return engine


def set_local(name: str, value: str) -> sa.ColumnElement[str]:
    return sa.func.set_config(name, value, True)  # noqa: FBT003 - SQL's own signature


@asynccontextmanager
async def only_migrator(engine: AsyncEngine) -> AsyncIterator[None]:
    """Lock this database against other migrations, and wait for a running one.

    The lock is held by a transaction on its own connection, since the migrations commit theirs.
    """
    async with engine.begin() as keeper:
        if not await keeper.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(ADVISORY_LOCK))):
            logger.info("another migration is under way; waiting for its end")
            await keeper.execute(sa.select(set_local("lock_timeout", "0")))
            await keeper.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        yield


def run_on_connection(connection: sa.Connection) -> None:
    """Migrate in the connection's current transaction, or in a new one."""
    with nullcontext() if connection.in_transaction() else connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        elif connection.exec_driver_sql("PRAGMA foreign_keys").scalar():
            raise CommandError("rebuilding tables needs PRAGMA foreign_keys = OFF")
        rename_revisions(connection)
        run(connection)


def main() -> None:
    config = context.config
    if context.is_offline_mode():
        raise CommandError("the migrations compute values from rows: no SQL script can")
    if config.cmd_opts is not None:  # Alembic's own command line sets up no logging
        logging.basicConfig(level=logging.INFO, format="%(message)s")
    if (connection := config.attributes.get("connection")) is not None:
        run_on_connection(connection)
        return
    url = config.attributes.get("database_url") or os.environ.get("MEMORYD_DATABASE_URL")
    if not url:
        raise CommandError("set MEMORYD_DATABASE_URL to the database to migrate")
    asyncio.run(run_on_url(url))


main()
