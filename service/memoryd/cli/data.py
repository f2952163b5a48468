"""The commands that work on a database and end: migrate, sweep, reindex, backup, export, import."""

from __future__ import annotations

import asyncio
import signal
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from memoryd.cli.running import configuration, logging, run
from memoryd.database.engine import Database
from memoryd.database.options import DatabaseOptions
from memoryd.progress import progress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
    from pathlib import Path

    from memoryd.settings.service import Settings
    from memoryd.tools.settings import ToolConfig

TRANSACTION_TIMEOUT_SECONDS = 7 * 86_400.0
"""How long a transaction of a command and each of its statements may take; no caller waits."""


@asynccontextmanager
async def database_of(settings: Settings) -> AsyncIterator[Database]:
    """The database, which must exist with a schema that fits, for work that may take its time."""
    options = DatabaseOptions(
        timeout_seconds=TRANSACTION_TIMEOUT_SECONDS,
        statement_timeout_seconds=TRANSACTION_TIMEOUT_SECONDS,
        lock_timeout_seconds=settings.database_lock_timeout_seconds,
        pgbouncer=settings.database_pgbouncer,
        must_exist=True,
    )
    database = Database(settings.database_url.get_secret_value(), options)
    try:
        await database.try_out()
        await database.check()
        yield database
    finally:
        await database.close()


def migrate(database_url: str | None) -> None:
    settings, _ = configuration(database_url=database_url)
    from memoryd.database.migrate import HEAD

    migrate_database(settings, set_row_security=True)
    print(f"schema at {HEAD}")


def migrate_database(settings: Settings, *, set_row_security: bool = False) -> None:
    """Migrate, with a log; an error ends the process.

    With `set_row_security`, turn that on or off where there was nothing to migrate.
    """
    with logging(settings):
        run(_migrate(settings, set_row_security=set_row_security))


async def migrate_embedded(settings: Settings) -> None:
    """Make an SQLite file and its schema where they are not there yet, as a server does."""
    if settings.is_embedded:
        await _migrate(settings)


async def _migrate(settings: Settings, *, set_row_security: bool = False) -> None:
    options = DatabaseOptions(row_security=settings.has_row_security)
    database = Database(settings.database_url.get_secret_value(), options)
    try:
        was_behind = await database.migrate()
        if set_row_security and not database.is_embedded:
            await _set_row_security(database, was_behind=was_behind, wanted=options.row_security)
    finally:
        await database.close()
    if database.dialect.shards is not None:
        await _spread(settings)


async def _set_row_security(database: Database, *, was_behind: bool, wanted: bool) -> None:
    """Turn row-level security on or off, unless servers of an earlier release may be running."""
    if not was_behind:
        await database.set_row_security()
        return
    state = await database.row_security()
    if wanted and not (state.is_on or state.obstacle):
        print(
            "row-level security is not on: once no server of an earlier release is running, run"
            " `memoryd migrate` once more"
        )


def _run(
    database_url: str | None,
    work: Callable[[Settings, Mapping[str, ToolConfig]], Coroutine[Any, Any, None]],
) -> None:
    """Run `work` on the database that the flag or the settings name, with a log."""
    settings, tools = configuration(database_url=database_url)
    with logging(settings):
        run(work(settings, tools))


def distribute(database_url: str | None, shards: int | None) -> None:
    _run(database_url, lambda settings, _: _distribute(settings, shards))


async def _distribute(settings: Settings, shards: int | None) -> None:
    _require_postgresql(settings)
    if not await _spread(settings, shards):
        print("everything was spread over Citus's workers before")
    if settings.has_row_security:
        variable = settings.variable("rls")
        print(f"row-level security does not hold there: set {variable}=off to serve in production")


async def _spread(settings: Settings, shards: int | None = None) -> bool:
    """Spread the tables that are not yet; give whether there were any."""
    async with database_of(settings) as database:
        new = await database.distribute(shards)
    if new:
        print(f"spread over Citus's workers: {', '.join(new)}")
    return bool(new)


def undistribute(database_url: str | None) -> None:
    _run(database_url, lambda settings, _: _undistribute(settings))


async def _undistribute(settings: Settings) -> None:
    _require_postgresql(settings)
    async with database_of(settings) as database:
        was_spread = await database.undistribute()
    print("brought back to one PostgreSQL" if was_spread else "nothing is spread")
    if was_spread and settings.has_row_security:
        print("row-level security is off: run `memoryd migrate` once more, which turns it on")


def _require_postgresql(settings: Settings) -> None:
    if settings.is_embedded:
        raise ValueError("only PostgreSQL with the extension Citus spreads rows over machines")


def sweep(database_url: str | None, *, once: bool) -> None:
    _run(database_url, lambda settings, tools: _sweep(settings, tools, once=once))


async def _sweep(settings: Settings, base: Mapping[str, ToolConfig], *, once: bool) -> None:
    from memoryd.server import sweeper_of, tool_configs_of

    async with database_of(settings) as database:
        tools = tool_configs_of(database, settings, base)
        sweeper = sweeper_of(database, settings, tools)
        if once:
            print(await sweeper.run_once())
            return
        sweeping = asyncio.create_task(sweeper.run(settings.sweep_seconds))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, sweeping.cancel)
        await asyncio.gather(sweeping, return_exceptions=True)


def reindex(database_url: str | None) -> None:
    _run(database_url, lambda settings, _: _reindex(settings))


async def _reindex(settings: Settings) -> None:
    from memoryd.retrieval.embedding_worker import EmbeddingWorker
    from memoryd.server import embedder_of

    async with database_of(settings) as database:
        embedder = embedder_of(settings)
        if embedder is None:
            raise ValueError(
                f"{settings.variable('embedder')} is none, so there are no vectors to make; set it"
                " to an embedder"
            )
        async with aclosing(EmbeddingWorker(database, embedder)) as maker:
            with progress("embedding", await maker.lacking()) as advance:
                count = await maker.reindex(advance)
    print(f"made {count:,} vectors with {maker.embedder.name}")


def backup(file: Path, database_url: str | None) -> None:
    _run(database_url, lambda settings, _: _backup(settings, file))


async def _backup(settings: Settings, file: Path) -> None:
    from memoryd.database.backup import back_up

    size = await back_up(settings.database_url.get_secret_value(), file)
    print(f"backed up {size:,} bytes to {file}")


def export(file: Path, database_url: str | None, *, with_deleted: bool) -> None:
    _run(database_url, lambda settings, _: _export(settings, file, with_deleted=with_deleted))


async def _export(settings: Settings, file: Path, *, with_deleted: bool) -> None:
    from memoryd.cli.recording import Recording
    from memoryd.database.new_file import new_file
    from memoryd.database.transfer import export_to

    async with (
        database_of(settings) as database,
        Recording(database, settings).of("memoryd export") as recorded,
    ):
        with new_file(file) as out:
            count = await export_to(database, out, with_deleted=with_deleted)
        recorded.counts["exported_rows"] = count
    print(f"exported {count:,} rows to {file}")


def import_(file: Path, database_url: str | None) -> None:
    _run(database_url, lambda settings, _: _import(settings, file))


async def _import(settings: Settings, file: Path) -> None:
    from memoryd.database.transfer import import_from

    with file.open("rb") as lines:
        total = sum(1 for _ in lines)
    async with database_of(settings) as database:
        with file.open("rb") as lines:
            new, known = await import_from(database, lines, total=total)
    print(f"imported {new:,} rows; {known:,} were there already")
