"""The engine: transactions that no cancelled caller can harm, errors in the domain's words."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, cast

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from memoryd.database import spreading
from memoryd.database.again import BeginAgain
from memoryd.database.dialect import UTF8, Distribution
from memoryd.database.embedded import claimed, connect_name, create
from memoryd.database.migrate import HEAD, SchemaState, migrate, schema_state
from memoryd.database.options import DatabaseOptions
from memoryd.database.postgresql import PostgresDialect
from memoryd.database.scrubbing import Scrubbing
from memoryd.database.sqlite import SqliteDialect
from memoryd.database.tenancy import NO_TENANT, drop_context, put_context
from memoryd.database.urls import UrlError, connect_seconds, driver_url
from memoryd.domain.errors import DatabaseUnavailable, DeadlineExceeded, SchemaMismatch
from memoryd.domain.metadata import from_json, to_json
from memoryd.telemetry import spans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping
    from contextlib import AbstractContextManager
    from typing import Any

    from sqlalchemy import Connection
    from sqlalchemy.engine import URL

    from memoryd.database.dialect import Dialect, RowSecurity
    from memoryd.database.pools import Pool

T = TypeVar("T")

_GIVING_UP_SECONDS = 0.1
"""How much longer than its limit a caller waits for the driver to give up."""

_SCHEMA_ATTEMPTS = 3
"""How often a body is run where the schema changes under it; the caller's time bounds them all."""


class Database:
    """A database of either kind, as pools: one reads, one writes, one writes apart from it.

    A body is a plain function of a `Connection`: it runs to its end, or not at all, whatever
    becomes of the caller, so a cancelled call leaves no connection in the middle of something. It
    is bounded by the timeout instead. One that reads or writes may run again, on another
    connection, where the first was prepared for an earlier schema: it changes nothing but the
    database.

    Raises, from every method: DatabaseUnavailable, DeadlineExceeded, SchemaMismatch.
    """

    def __init__(self, url: str, options: DatabaseOptions | None = None) -> None:
        try:
            parsed = driver_url(url)
        except UrlError as error:
            raise ValueError(f"the database's URL: {error}") from None
        self._options = replace(options or DatabaseOptions(), connect_seconds=connect_seconds(url))
        self._url = url
        self._driver_url = parsed
        host = parsed.host or parsed.query.get("host") or parsed.database or ""
        self._place = host if isinstance(host, str) else ", ".join(host)
        self._known_state = SchemaState.CURRENT
        self._encoding = UTF8
        self._distribution = Distribution.NONE
        self.dialect = _dialect_of(parsed)
        self.is_embedded = self.dialect.name == "sqlite"
        self._traced_read = self._traced_as("read")
        self.traced_transaction = self._traced_as("transaction")
        """The name and attributes of a transaction that is a part of a traced call."""
        self._known_distribution = Distribution.NONE
        self._is_unknown = not self.is_embedded
        """Whether it has not been seen yet how it spreads its rows."""
        self._make_pools()
        self.can_listen = not (self.is_embedded or self._options.pgbouncer)
        if self.can_listen:  # on a connection that is never given back to a pool
            self._listener = create_async_engine(
                parsed, poolclass=NullPool, **self.dialect.engine_options(self._options)
            )
        self._listening: set[asyncio.Event] = set()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._scrubbing = (
            Scrubbing(connect_name(parsed), patience_seconds=self._options.timeout_seconds)
            if self.is_embedded
            else None
        )

    def _make_pools(self) -> None:
        url = self._driver_url
        common: dict[str, Any] = {
            "on_connect": lambda connection: self.dialect.on_connect(connection, self._options),
            "pool_timeout": self._options.timeout_seconds,
            "max_overflow": 0,
            "json_serializer": to_json,
            "json_deserializer": from_json,
            "hide_parameters": True,  # contents never come into an error's text
        }
        self._writer = self.dialect.pool(url, self._options, pool_size=1, **common)
        # Where rows are spread, so that no shard waits for another.
        self._committer = (
            self._writer
            if self.dialect.shards is None
            else self.dialect.pool(url, self._options, pool_size=self._options.writers, **common)
        )
        # SQLite has one writer at a time anyway.
        self._writer_apart = (
            self._writer
            if self.is_embedded
            else self.dialect.pool(url, self._options, pool_size=1, **common)
        )
        # Each statement of a reader sees the last commit, and needs no round trip to end.
        self._reader = self.dialect.pool(
            url,
            self._options,
            pool_size=self._options.pool_size,
            isolation_level="AUTOCOMMIT",
            skip_autocommit_rollback=True,
            **common,
        )

    @property
    def most_writers(self) -> int:
        """How many transactions may write at a time where rows are spread over shards."""
        return self._options.writers

    async def _follow(self, distribution: Distribution) -> None:
        """Speak to a database as it spreads its rows, which is seen only once it has answered."""
        if distribution is self._known_distribution or distribution is Distribution.WORKER:
            return
        self._known_distribution = distribution
        before, under_way = self._pools, [*self._under_way]
        if distribution is Distribution.COORDINATOR:
            from memoryd.database.citus import CitusDialect  # noqa: PLC0415  SQLite does without

            self.dialect = CitusDialect()
        else:
            self.dialect = _dialect_of(self._driver_url)
        self._make_pools()
        await asyncio.gather(*under_way, return_exceptions=True)
        await asyncio.gather(*(pool.close() for pool in before))

    async def read(
        self,
        body: Callable[[Connection], T],
        *,
        tenants: Collection[str],
        timeout: float | None = None,
    ) -> T:
        """Run `body` in autocommit, about rows of some tenants: one statement sees one state."""
        await self._ready(timeout)
        scoped = self._scoped(body, tenants, in_transaction=False)
        with self.traced_read():
            return await self._run(self._on_schema(self._reader, scoped), timeout)

    async def write(
        self,
        body: Callable[[Connection], T],
        *,
        tenants: Collection[str],
        timeout: float | None = None,
    ) -> T:
        """Run `body`, about rows of some tenants, in a transaction of its own.

        It is committed when this returns. A body that raises BeginAgain runs once more.
        """
        await self._ready(timeout)
        with spans.part(*self.traced_transaction, is_database=True):
            return await self._run(self._write(self._writer, body, tenants), timeout)

    async def commit(self, body: Callable[[Connection], T], *, tenants: Collection[str]) -> T:
        """Run `body` as `write` does; where rows are spread, `most_writers` run at a time."""
        await self._ready()
        with spans.part(*self.traced_transaction, is_database=True):
            return await self._run(self._write(self._committer, body, tenants), None)

    async def write_apart(
        self,
        body: Callable[[Connection], T],
        *,
        tenants: Collection[str],
        timeout: float | None = None,
    ) -> T:
        """Run `body` as `write` does; what it waits for holds up nothing that `write` runs.

        On an embedded database it does, since there every writer waits for all.
        """
        await self._ready(timeout)
        with spans.part(*self.traced_transaction, is_database=True):
            return await self._run(self._write(self._writer_apart, body, tenants), timeout)

    async def snapshot(self, body: Callable[[Connection], T], *, tenants: Collection[str]) -> T:
        """Run `body` in a transaction whose statements all see one state.

        Unlike a read or a write, it is given up where the caller is cancelled.
        """
        await self._ready()
        limit = self._options.timeout_seconds
        return await self._bounded(self._snapshot(body, tenants), limit, DatabaseUnavailable)

    async def schema_state(self, *, timeout: float | None = None) -> SchemaState:
        """Whether the schema is the one that this release needs; asks the database."""
        return await self._run(self._on_schema(self._reader, self._schema_state), timeout)

    async def try_out(self) -> None:
        """Return if it can be used at all; a command's first step, which tells its user most."""
        with self._translating():
            await asyncio.to_thread(self.dialect.try_out, self._driver_url, self._options)

    async def check(self, *, timeout: float | None = None) -> None:
        """Return if the database answers and its schema fits.

        While it does not fit, nothing is read or written: on tables that merely look alike this
        release could do harm. Another check takes that back. While the database is away another
        server may take its place, so no connection from before is used again.
        """
        try:
            self._known_state = await self.schema_state(timeout=timeout)
        except DatabaseUnavailable:
            self._renew_connections()
            raise
        self._require_schema()
        await self._follow(self._distribution)
        self._is_unknown = False

    def _renew_connections(self) -> None:
        """Have nothing read from a server that was silent, and replaced, when it goes on.

        Nor listened to: of a machine that is gone nothing says that it is.
        """
        for pool in self._pools:
            pool.renew()
        for lost in self._listening:
            lost.set()

    async def migrate(self) -> bool:
        """Bring the schema to this release's; answer whether it was behind.

        Where it makes the tables, with the row-level security that is asked for.
        """
        with self._translating():
            if self.is_embedded:
                await asyncio.to_thread(create, self._driver_url)
            await self.try_out()
            if await self.schema_state() is not SchemaState.BEHIND:
                await self.check()
                return False
            is_new = not await self._run(
                self._on_schema(self._reader, self.dialect.has_tables), None
            )
            try:
                await migrate(self._url)
            except DBAPIError as error:
                if error.orig is None or not self.dialect.is_schema_mismatch(error.orig):
                    raise
                cause = self._cause(error.orig)
                raise SchemaMismatch(
                    f"the tables are not those of the revision they claim: {cause}"
                ) from error
            if not self.is_embedded:
                await self.check()
                if is_new:
                    await self.set_row_security()
            return True

    async def distribute(self, shards: int | None = None) -> list[str]:
        """Spread the rows of sessions over the workers of Citus; give the tables that were not.

        `shards`: into how many, where no table is spread yet; then no server may be running.

        Raises CannotSpread.
        """
        new = await self.write(lambda c: spreading.distribute(c, shards), tenants=NO_TENANT)
        await self.check()
        return new

    async def undistribute(self) -> bool:
        """Bring the rows of sessions back to one database; give whether they were spread.

        No server may be running. Raises CannotSpread.
        """
        was_spread = await self.write(spreading.undistribute, tenants=NO_TENANT)
        await self.check()
        return was_spread

    async def set_row_security(self) -> None:
        """Turn row-level security on or off, as it is asked for, where the database has it.

        Servers of a release that knows nothing of it find no rows while it is on.
        """
        on = self._options.row_security
        await self.write(lambda c: self.dialect.set_row_security(c, on=on), tenants=NO_TENANT)

    async def row_security(self) -> RowSecurity:
        """Whether the database itself keeps statements to their tenants."""
        await self._ready()  # from then on it is known which dialect is the right one
        return await self.read(self.dialect.row_security, tenants=NO_TENANT)

    def _traced_as(self, operation: str) -> tuple[str, spans.Attributes]:
        """As OpenTelemetry's conventions for databases have it; an SQLite file goes unnamed."""
        about = {"db.system.name": self.dialect.name, "db.operation.name": operation}
        name = self._driver_url.database
        if self.is_embedded or not name:
            return operation, about
        return f"{operation} {name}", {**about, "db.namespace": name}

    def traced_read(self) -> AbstractContextManager[object]:
        """Note a read as a part of the call under way, where that is traced."""
        return spans.part(*self._traced_read, is_database=True)

    def _schema_state(self, connection: Connection) -> SchemaState:
        self._encoding = self.dialect.encoding(connection)
        if self._encoding != UTF8:
            return SchemaState.NOT_UTF8
        self._distribution = self.dialect.distribution(connection)
        if self._distribution is Distribution.WORKER:
            return SchemaState.ON_WORKER
        return _schema_state(connection)

    async def _ready(self, timeout: float | None = None) -> None:
        """Raise SchemaMismatch where nothing may be read or written.

        One that has not answered yet is asked first how it spreads its rows: statements differ.
        """
        if self._is_unknown:
            await self.check(timeout=timeout)
        self._require_schema()

    def _require_schema(self) -> None:
        if self._known_state is not SchemaState.CURRENT:
            raise schema_mismatch(self._known_state, self._encoding)

    @property
    def connections_in_use(self) -> int:
        """How many are checked out of the pools."""
        return sum(pool.in_use for pool in self._pools)

    @property
    def connections_idle(self) -> int:
        """How many are open and not checked out."""
        return sum(pool.idle for pool in self._pools)

    @property
    def _pools(self) -> set[Pool]:
        return {self._reader, self._writer, self._committer, self._writer_apart}

    async def scrub(self) -> None:
        """Leave nothing of what was erased in an embedded database's files.

        Returns at once where nothing is owed. A caller that no longer waits changes nothing for the
        others, and what is not done when this raises is done later by the sweeper.
        """
        if self._scrubbing is not None and await self.read(
            self.dialect.owes_scrubbing, tenants=NO_TENANT
        ):
            with self._translating():
                await self._scrubbing.run()

    @asynccontextmanager
    async def claimed(self) -> AsyncIterator[None]:
        """Have an embedded database for this server alone until the end of the block.

        Raises OSError where another server has it.
        """
        async with claimed(self._driver_url) if self.is_embedded else nullcontext():
            yield

    @asynccontextmanager
    async def listening(
        self, heard: Mapping[str, Callable[[str], None]]
    ) -> AsyncIterator[asyncio.Event]:
        """Hear of notifications until the end of the block; the event tells of their end.

        `heard` is called with the payload, by the channel.
        """
        lost = asyncio.Event()
        with self._translating():
            async with asyncio.timeout(self._options.timeout_seconds):
                connection = await self._listener.connect()
        driver = None
        try:
            with self._translating():
                driver = (await connection.get_raw_connection()).driver_connection
                await self.dialect.stay(driver)
                for channel, callback in heard.items():
                    await self.dialect.listen(driver, channel, callback, lost.set)
            self._listening.add(lost)
            yield lost
        finally:
            self._listening.discard(lost)
            # Not the polite way alone: it would wait for ever for a network that loses all.
            if driver is not None:
                await self.dialect.hang_up(driver)
            await connection.invalidate()
            await connection.close()

    async def close(self) -> None:
        """Let what is under way end, and close all connections."""
        if self._scrubbing is not None:
            await self._scrubbing.stop()
        while self._under_way:
            await asyncio.gather(*self._under_way, return_exceptions=True)
        await asyncio.gather(*(pool.close() for pool in self._pools))

    async def _snapshot(self, body: Callable[[Connection], T], tenants: Collection[str]) -> T:
        scoped = self._scoped(body, tenants, in_transaction=True)

        def transaction(connection: Connection) -> T:
            self.dialect.begin_snapshot(connection)
            return scoped(connection)

        return await self._writer.run(transaction)

    def _scoped(
        self, body: Callable[[Connection], T], tenants: Collection[str], *, in_transaction: bool
    ) -> Callable[[Connection], T]:
        """Keep a body to some tenants."""

        def scoped(connection: Connection) -> T:
            info = connection.info  # not to be asked for once the connection is lost
            put_context(info, self.dialect.tenant_context(tenants, in_transaction=in_transaction))
            try:
                return body(connection)
            finally:
                drop_context(info)

        return scoped

    async def _write(
        self, pool: Pool, body: Callable[[Connection], T], tenants: Collection[str]
    ) -> T:
        scoped = self._scoped(body, tenants, in_transaction=True)

        def transaction(connection: Connection) -> T:
            with connection.begin():  # not by itself, as statements past SQLAlchemy begin nothing
                self.dialect.begin_write(connection, self._options)
                result = scoped(connection)
                self.dialect.end_write(connection)
            # Nothing is acknowledged on the word of the libraries between alone.
            if self.dialect.is_in_transaction(connection):
                connection.invalidate()
                raise DatabaseUnavailable("a commit has not ended its transaction")
            return result

        while True:
            with suppress(BeginAgain):
                return await self._on_schema(pool, transaction)

    async def _on_schema(self, pool: Pool, body: Callable[[Connection], T]) -> T:
        """Run a body on a connection that knows the schema as it is, and where rows are."""
        shards = self.dialect.shards
        try:
            return await self._on_columns(pool, body)
        except Exception as error:
            if shards is None or not self.dialect.is_misrouted(error):
                raise
        shards.forget()
        return await self._on_columns(pool, body)

    async def _on_columns(self, pool: Pool, body: Callable[[Connection], T]) -> T:
        for _ in range(_SCHEMA_ATTEMPTS - 1):
            try:
                return await pool.run(body)
            except Exception as error:
                if not self.dialect.is_stale(error):
                    raise
        return await pool.run(body)

    async def _run(self, work: Coroutine[Any, Any, T], timeout: float | None) -> T:
        limit = self._options.timeout_seconds
        expired: type[DatabaseUnavailable | DeadlineExceeded] = DatabaseUnavailable
        if timeout is not None and timeout < limit:
            limit, expired = max(timeout, 0.0), DeadlineExceeded
        task = asyncio.create_task(self._bounded(work, limit, expired))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        # A driver may take its time to give a silent connection up; its caller is answered now.
        done, _ = await asyncio.wait((task,), timeout=limit + _GIVING_UP_SECONDS)
        if not done:
            raise expired
        return task.result()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # the caller may be gone, and it must be fetched

    async def _bounded(
        self,
        work: Coroutine[Any, Any, T],
        limit: float,
        expired: type[DatabaseUnavailable | DeadlineExceeded],
    ) -> T:
        with self._translating(expired):
            async with asyncio.timeout(limit):
                return await work

    @contextmanager
    def _translating(
        self, expired: type[DatabaseUnavailable | DeadlineExceeded] = DatabaseUnavailable
    ) -> Iterator[None]:
        """Turn what the driver raises into the domain's words."""
        try:
            yield
        except PoolTimeoutError as error:
            raise DatabaseUnavailable("every connection is in use") from error
        except TimeoutError as error:
            raise expired from error
        except OSError as error:
            raise self._unavailable(error) from error
        except Exception as error:
            driver_error = error.orig if isinstance(error, DBAPIError) else error
            if not isinstance(driver_error, self.dialect.driver_errors):
                raise
            if self.dialect.is_schema_mismatch(driver_error):
                raise schema_mismatch(SchemaState.BEHIND) from error
            if (
                self.dialect.is_unavailable(driver_error)
                or (isinstance(error, DBAPIError) and error.connection_invalidated)
                or self._obstacle(driver_error)
            ):
                raise self._unavailable(driver_error) from error
            raise

    def _unavailable(self, error: Exception) -> DatabaseUnavailable:
        return DatabaseUnavailable(self._cause(error), remedy=self._obstacle(error) or "")

    def _obstacle(self, error: Exception) -> str | None:
        return self.dialect.obstacle(error.__cause__ or error, self._driver_url)

    def _cause(self, error: Exception) -> str:
        """Where and what, for the operator; the driver's later lines would show values of rows."""
        error = cast("Exception", error.__cause__ or error)  # the driver's own, where adapted
        words = (isinstance(error, OSError) and error.strerror) or str(error)
        return f"{self._place}: {words.partition(chr(10))[0]}"


def schema_mismatch(state: SchemaState, encoding: str = UTF8) -> SchemaMismatch:
    """The error that tells an operator what to do about the schema."""
    if state is SchemaState.NOT_UTF8:
        return SchemaMismatch(
            f"the database's encoding is {encoding}, which cannot hold every character; make one"
            " with CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0, and use it instead"
        )
    if state is SchemaState.ON_WORKER:
        return SchemaMismatch(
            "the database is a worker of Citus, which has not all tables: name the coordinator in"
            " the database's URL instead"
        )
    if state is SchemaState.AHEAD:
        return SchemaMismatch(
            f"the database's schema is ahead of {HEAD}, which this release needs: run a newer one"
        )
    return SchemaMismatch(f"the database's schema is behind {HEAD}: run `memoryd migrate`")


def _schema_state(connection: Connection) -> SchemaState:
    try:
        versions = (
            connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
        )
    except DBAPIError as error:
        if error.orig and _dialect_of(connection.engine.url).is_schema_mismatch(error.orig):
            return schema_state(())
        raise
    return schema_state(versions)


def _dialect_of(url: URL) -> Dialect:
    """The dialect that a database URL asks for."""
    return PostgresDialect() if url.get_backend_name() == "postgresql" else SqliteDialect()
