"""Every difference between SQLite and PostgreSQL; never a business query."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sqlalchemy import (
    ARRAY,
    JSON,
    Column,
    Double,
    Text,
    and_,
    bindparam,
    cast,
    column,
    delete,
    extract,
    func,
    insert,
    literal_column,
    select,
    true,
    type_coerce,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert

from memoryd.database import scrub
from memoryd.database import statements as direct
from memoryd.database.failover import FirstThatWill
from memoryd.database.files import open_existing
from memoryd.database.obstacles import postgresql_obstacle, sqlite_obstacle
from memoryd.database.pools import LoopPool, ThreadPool
from memoryd.domain.metadata import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, FromClause, Select, Table
    from sqlalchemy.engine import URL
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.sql.functions import Function

    from memoryd.database.engine import DatabaseOptions
    from memoryd.database.pools import Pool

Row = dict[str, Any]

UTF8 = "UTF8"
"""The encoding that holds every character, by PostgreSQL's name."""


class Keys:
    """A table of parameters to join with; the statement is the same however many there are."""

    def __init__(self, source: FromClause, columns: Mapping[str, ColumnElement[Any]]) -> None:
        self.source = source
        self.c = columns


class Notification(NamedTuple):
    """What other processes are told when a transaction commits."""

    channel: str
    payloads: Sequence[str]


class Dialect(Protocol):
    """What the storage room asks of a database."""

    @property
    def name(self) -> str: ...

    @property
    def driver_errors(self) -> tuple[type[Exception], ...]:
        """What the driver raises where SQLAlchemy does not wrap it."""
        ...

    def __hash__(self) -> int: ...

    def engine_options(self, options: DatabaseOptions) -> Row: ...

    def pool(self, url: URL, options: DatabaseOptions, **arguments: Any) -> Pool: ...

    def on_connect(self, connection: DBAPIConnection, options: DatabaseOptions) -> None: ...

    def try_out(self, url: URL, options: DatabaseOptions) -> None:
        """Raise what the driver raises if there is no using the database; blocks."""
        ...

    def begin_write(self, connection: Connection, options: DatabaseOptions) -> None:
        """First thing in a writing transaction."""
        ...

    def is_in_transaction(self, connection: Connection) -> bool:
        """Whether the database has one open, as the driver knows without asking."""
        ...

    def begin_snapshot(self, connection: Connection) -> None:
        """First thing in a transaction whose statements all see one state."""
        ...

    def keys(self, *columns: Column[Any]) -> Keys: ...

    def bind(self, columns: Sequence[Column[Any]], rows: Sequence[tuple[Any, ...]]) -> Row:
        """Parameters that fill `keys(*columns)` with `rows`."""
        ...

    def look_up(
        self,
        key: Sequence[Column[Any]],
        columns: Sequence[Column[Any]],
        *conditions: ColumnElement[bool],
        carried: Sequence[Column[Any]] = (),
    ) -> Select[Any]:
        """Select the rows whose key is among `keys(*key, *carried)`, always by an index on the key.

        Answers `columns`, and what was carried beside the key.
        """
        ...

    def insert_many(
        self,
        connection: Connection,
        table: Table,
        rows: Sequence[Row],
        *,
        ignore_existing: bool = False,
    ) -> int:
        """Insert rows with the same columns; where told to, skip those whose key exists.

        Answers how many were inserted.
        """
        ...

    def update_many(
        self,
        connection: Connection,
        table: Table,
        key: Sequence[str],
        rows: Sequence[Row],
        *,
        notification: Notification | None = None,
    ) -> None:
        """Set what each row holds beside its key, where the key is equal.

        A notification goes along as `notify` has it, without a round trip of its own.
        """
        ...

    def delete_many(
        self, connection: Connection, table: Table, key: Sequence[str], rows: Sequence[Row]
    ) -> int:
        """Delete the rows whose key is equal; answer how many there were."""
        ...

    def notify(self, connection: Connection, notification: Notification) -> None:
        """Tell other processes when this transaction commits, if the database can."""
        ...

    async def listen(
        self, connection: Any, channel: str, heard: Callable[[str], None], lost: Callable[[], None]
    ) -> None:
        """On the driver's own connection: hear of notifications until the connection is lost."""
        ...

    async def hang_up(self, connection: Any) -> None:
        """End a connection that listened, within a second whether the database answers or not."""
        ...

    def try_lock(self, connection: Connection, key: int) -> bool:
        """Take a lock between processes for the length of this transaction, if it is free."""
        ...

    def owe_scrubbing(self, connection: Connection) -> None:
        """With this transaction: have an embedded file's bytes of what was deleted be zeroed."""
        ...

    def owes_scrubbing(self, connection: Connection) -> bool:
        """Whether bytes of what was deleted may still be in an embedded database's files."""
        ...

    def analyse(self, connection: Connection, tables: Sequence[Table]) -> None:
        """Have the planner know how the rows of tables are spread, if it goes by that."""
        ...

    def now(self, connection: Connection) -> datetime:
        """Ask the database for the time."""
        ...

    def age_days(self, since: ColumnElement[datetime], now: ColumnElement[datetime]) -> Any: ...

    def least(self, *values: Any) -> Function[Any]: ...

    def greatest(self, *values: Any) -> Function[Any]: ...

    def is_unavailable(self, error: Exception) -> bool:
        """Whether, by the driver's error, the database's state is at fault, not the statement."""
        ...

    def is_schema_mismatch(self, error: Exception) -> bool:
        """Whether the driver's error is about a table or column that is not there."""
        ...

    def is_stale(self, error: BaseException) -> bool:
        """Whether a connection has statements or types of an earlier schema, and nothing else.

        What it was doing has changed nothing: it is done on another connection.
        """
        ...

    def obstacle(self, error: BaseException, url: URL) -> str | None:
        """What to change before the database can be used; None where trying again may help."""
        ...

    def encoding(self, connection: Connection) -> str:
        """How the database keeps texts, as it names that itself."""
        ...


class PostgresDialect:
    name = "postgresql"

    # Classes and codes of https://www.postgresql.org/docs/current/errcodes-appendix.html
    _UNAVAILABLE_CLASSES = (
        "08",  # connection exception
        "25",  # invalid transaction state, such as a read-only standby
        "40",  # transaction rollback: deadlock, serialization
        "53",  # insufficient resources: connections, disk, memory
        "55",  # object not in prerequisite state: lock not available
        "57",  # operator intervention: shutdown, starting up, statement timeout
        "58",  # system error
        "XX",  # internal error
    )
    _SCHEMA_CODES = ("42P01", "42703")  # undefined table, undefined column
    _READ_ONLY = "25006"  # of a standby

    def __init__(self) -> None:
        import asyncpg  # noqa: PLC0415  SQLite does without
        from sqlalchemy.dialects.postgresql.asyncpg import (  # noqa: PLC0415
            AsyncAdapt_asyncpg_dbapi,
        )

        self.driver_errors = (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,  # such as that no host is the one that writes
            AsyncAdapt_asyncpg_dbapi.Error,  # what the driver's face for SQLAlchemy makes of them
        )
        self._stale_errors = (
            asyncpg.InvalidCachedStatementError,
            asyncpg.OutdatedSchemaCacheError,
            AsyncAdapt_asyncpg_dbapi.InvalidCachedStatementError,
        )
        self._connect = FirstThatWill(asyncpg.connect, (OSError, *self.driver_errors))

    def engine_options(self, options: DatabaseOptions) -> Row:
        arguments: Row = {
            "async_creator_fn": self._connect,
            "timeout": min(options.timeout_seconds, options.connect_seconds or math.inf),
            # Without it the driver waits for ever to hear that a query is cancelled.
            "command_timeout": options.timeout_seconds,
        }
        if options.pgbouncer:
            # In transaction pooling the next transaction may run on another server connection,
            # so nothing prepared may be kept and no name may be used twice.
            arguments["statement_cache_size"] = 0
            arguments["prepared_statement_cache_size"] = 0
            arguments["prepared_statement_name_func"] = lambda: ""
        else:
            arguments["server_settings"] = self._server_settings(options)
        return {"connect_args": arguments}

    def pool(self, url: URL, options: DatabaseOptions, **arguments: Any) -> Pool:
        return LoopPool(
            url,
            # Another server may be the one that writes by now.
            is_lost=lambda error: (
                getattr(getattr(error, "orig", error), "sqlstate", None) == self._READ_ONLY
            ),
            is_stale=self.is_stale,
            **self.engine_options(options),
            **arguments,
        )

    def on_connect(self, connection: DBAPIConnection, options: DatabaseOptions) -> None:
        """All is set by `engine_options`."""

    def try_out(self, url: URL, options: DatabaseOptions) -> None:
        """Connecting tells as well."""

    def begin_write(self, connection: Connection, options: DatabaseOptions) -> None:
        if options.pgbouncer:  # startup parameters do not pass through it
            settings = self._server_settings(options).items()
            local = (func.set_config(setting, value, True) for setting, value in settings)  # noqa: FBT003  SQL's own signature
            connection.execute(select(*local))

    def is_in_transaction(self, connection: Connection) -> bool:
        driver: Any = connection.connection.driver_connection
        return bool(driver.is_in_transaction())

    def begin_snapshot(self, connection: Connection) -> None:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    @staticmethod
    def _server_settings(options: DatabaseOptions) -> dict[str, str]:
        return {
            # Every statement looks rows up by a key that an index has. Over a table that has no
            # statistics yet, or whose plan was kept from when it was small, the planner would
            # rather read all of it; without these there is only the plan by the index.
            "enable_seqscan": "off",
            "enable_bitmapscan": "off",
            "enable_hashjoin": "off",
            "enable_mergejoin": "off",
            "jit": "off",
            "statement_timeout": f"{options.statement_timeout_seconds * 1000:.0f}",
            "lock_timeout": f"{options.lock_timeout_seconds * 1000:.0f}",
            "idle_in_transaction_session_timeout": f"{options.timeout_seconds * 2000:.0f}",
        }

    def keys(self, *columns: Column[Any]) -> Keys:
        return _unnest(columns)

    def look_up(
        self,
        key: Sequence[Column[Any]],
        columns: Sequence[Column[Any]],
        *conditions: ColumnElement[bool],
        carried: Sequence[Column[Any]] = (),
    ) -> Select[Any]:
        # Without statistics the planner takes `deleted_at IS NULL` to be rare, and a plain join
        # would begin with an index of all live rows. LATERAL with OFFSET goes from key to row.
        keys = _unnest((*key, *carried))
        found = (
            select(*columns)
            .where(*(c == keys.c[c.name] for c in key), *conditions)
            .offset(literal_column("0"))
            .lateral("found")
        )
        beside = (keys.c[c.name].label(c.name) for c in carried)
        return select(*found.c, *beside).select_from(keys.source.join(found, true()))

    def bind(self, columns: Sequence[Column[Any]], rows: Sequence[tuple[Any, ...]]) -> Row:
        return {
            f"key_{c.name}": list(values)
            for c, values in zip(columns, zip(*rows, strict=True), strict=True)
        }

    def insert_many(
        self,
        connection: Connection,
        table: Table,
        rows: Sequence[Row],
        *,
        ignore_existing: bool = False,
    ) -> int:
        names = tuple(rows[0])
        statement = _insert_unnest(table, names, ignore_existing)
        return direct.execute(connection, statement, _arrays(table, names, rows))

    def update_many(
        self,
        connection: Connection,
        table: Table,
        key: Sequence[str],
        rows: Sequence[Row],
        *,
        notification: Notification | None = None,
    ) -> None:
        names = tuple(rows[0])
        statement = _update_unnest(table, tuple(key), names, notification is not None)
        told = notification._asdict() if notification else {}
        direct.execute(connection, statement, {**_arrays(table, names, rows), **told})

    def delete_many(
        self, connection: Connection, table: Table, key: Sequence[str], rows: Sequence[Row]
    ) -> int:
        names = tuple(key)
        return direct.execute(connection, _delete_unnest(table, names), _arrays(table, names, rows))

    def notify(self, connection: Connection, notification: Notification) -> None:
        direct.execute(connection, _NOTIFY, notification._asdict())

    async def listen(
        self, connection: Any, channel: str, heard: Callable[[str], None], lost: Callable[[], None]
    ) -> None:
        connection.add_termination_listener(lambda _: lost())
        await connection.add_listener(channel, lambda *arguments: heard(arguments[-1]))

    async def hang_up(self, connection: Any) -> None:
        with suppress(TimeoutError, OSError, *self.driver_errors):
            await connection.close(timeout=1)

    def try_lock(self, connection: Connection, key: int) -> bool:
        return bool(connection.execute(select(func.pg_try_advisory_xact_lock(key))).scalar())

    def owe_scrubbing(self, connection: Connection) -> None:
        """The server's own vacuum decides when."""

    def owes_scrubbing(self, connection: Connection) -> bool:
        return False

    def analyse(self, connection: Connection, tables: Sequence[Table]) -> None:
        names = ", ".join(table.name for table in tables)
        connection.exec_driver_sql(f"ANALYZE {names}")

    def now(self, connection: Connection) -> datetime:
        now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return now

    def age_days(self, since: ColumnElement[datetime], now: ColumnElement[datetime]) -> Any:
        return cast(extract("epoch", now - since), Double) / 86_400.0

    def least(self, *values: Any) -> Function[Any]:
        return func.least(*values)

    def greatest(self, *values: Any) -> Function[Any]:
        return func.greatest(*values)

    def is_unavailable(self, error: Exception) -> bool:
        code = getattr(error, "sqlstate", None)
        return code is None or code.startswith(self._UNAVAILABLE_CLASSES)

    def is_schema_mismatch(self, error: Exception) -> bool:
        return getattr(error, "sqlstate", None) in self._SCHEMA_CODES

    def is_stale(self, error: BaseException) -> bool:
        error = getattr(error, "orig", None) or error
        return any(isinstance(e, self._stale_errors) for e in (error, error.__cause__))

    def obstacle(self, error: BaseException, url: URL) -> str | None:
        return postgresql_obstacle(error)

    def encoding(self, connection: Connection) -> str:
        driver: Any = connection.connection.driver_connection
        return str(driver.get_settings().server_encoding)


class SqliteDialect:
    name = "sqlite"
    driver_errors = (sqlite3.Error,)

    def engine_options(self, options: DatabaseOptions) -> Row:
        return {"connect_args": {"timeout": options.lock_timeout_seconds}}

    def pool(self, url: URL, options: DatabaseOptions, **arguments: Any) -> Pool:
        url = url.set(drivername="sqlite")
        if options.must_exist:
            timeout = options.lock_timeout_seconds
            arguments["creator"] = lambda: open_existing(url, timeout=timeout)
        return ThreadPool(url, **self.engine_options(options), **arguments)

    def on_connect(self, connection: DBAPIConnection, options: DatabaseOptions) -> None:
        # The driver's own BEGIN comes late and is never IMMEDIATE; ours are explicit.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",  # committed means on the disk
            "foreign_keys = ON",
            "secure_delete = ON",  # what is deleted is overwritten
            f"busy_timeout = {options.lock_timeout_seconds * 1000:.0f}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def try_out(self, url: URL, options: DatabaseOptions) -> None:
        if options.must_exist:
            open_existing(url).close()
            return
        # Without the asynchronous driver, whose thread complains where it cannot open the file and
        # the event loop ends at once.
        connect: Any = sqlite3.connect
        arguments, named = url.get_dialect()().create_connect_args(url)
        with closing(connect(*arguments, **named)) as connection:
            connection.execute("PRAGMA schema_version")

    def begin_write(self, connection: Connection, options: DatabaseOptions) -> None:
        # Takes the writer's place at once, instead of failing when a read turns into a write.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def is_in_transaction(self, connection: Connection) -> bool:
        driver: Any = connection.connection.driver_connection
        return bool(driver.in_transaction)

    def begin_snapshot(self, connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    def keys(self, *columns: Column[Any]) -> Keys:
        return _json_each(columns)

    def look_up(
        self,
        key: Sequence[Column[Any]],
        columns: Sequence[Column[Any]],
        *conditions: ColumnElement[bool],
        carried: Sequence[Column[Any]] = (),
    ) -> Select[Any]:
        keys = _json_each((*key, *carried))
        on = and_(*(c == keys.c[c.name] for c in key))
        beside = (keys.c[c.name].label(c.name) for c in carried)
        joined = keys.source.join(key[0].table, on)
        return select(*columns, *beside).select_from(joined).where(*conditions)

    def bind(self, columns: Sequence[Column[Any]], rows: Sequence[tuple[Any, ...]]) -> Row:
        return {"keys": to_json(rows)}

    def insert_many(
        self,
        connection: Connection,
        table: Table,
        rows: Sequence[Row],
        *,
        ignore_existing: bool = False,
    ) -> int:
        statement = _insert_each(table, tuple(rows[0]), ignore_existing)
        return direct.execute_each(connection, statement, rows)

    def update_many(
        self,
        connection: Connection,
        table: Table,
        key: Sequence[str],
        rows: Sequence[Row],
        *,
        notification: Notification | None = None,
    ) -> None:
        names = tuple(rows[0])
        direct.execute_each(
            connection,
            _update_each(table, tuple(key), names),
            [{f"value_{name}": row[name] for name in names} for row in rows],
        )

    def delete_many(
        self, connection: Connection, table: Table, key: Sequence[str], rows: Sequence[Row]
    ) -> int:
        names = tuple(key)
        parameters = [{f"value_{name}": row[name] for name in names} for row in rows]
        return direct.execute_each(connection, _delete_each(table, names), parameters)

    def notify(self, connection: Connection, notification: Notification) -> None:
        """Other processes poll."""

    async def listen(
        self, connection: Any, channel: str, heard: Callable[[str], None], lost: Callable[[], None]
    ) -> None:
        """Nothing is ever heard."""

    async def hang_up(self, connection: Any) -> None:
        """Nothing listens."""

    def try_lock(self, connection: Connection, key: int) -> bool:
        return True  # a writing transaction has the whole file to itself

    def owe_scrubbing(self, connection: Connection) -> None:
        mark = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        connection.exec_driver_sql(f"PRAGMA user_version = {scrub.raised(mark)}")

    def owes_scrubbing(self, connection: Connection) -> bool:
        return scrub.is_owed(connection.exec_driver_sql("PRAGMA user_version").scalar_one())

    def analyse(self, connection: Connection, tables: Sequence[Table]) -> None:
        """A unique index is preferred without."""

    def now(self, connection: Connection) -> datetime:
        return datetime.now(UTC)  # this process is the database

    def age_days(self, since: ColumnElement[datetime], now: ColumnElement[datetime]) -> Any:
        return (_epoch_seconds(now) - _epoch_seconds(since)) / 86_400.0

    def least(self, *values: Any) -> Function[Any]:
        return func.min(*values)

    def greatest(self, *values: Any) -> Function[Any]:
        return func.max(*values)

    def is_unavailable(self, error: Exception) -> bool:
        # Locked, full, read-only, gone: all are operational errors, and so are mistakes in SQL. A
        # broken file, or one that is no database, is the bare base class.
        return type(error).__name__ in (
            "DatabaseError",
            "OperationalError",
        ) and not self.is_schema_mismatch(error)

    def is_schema_mismatch(self, error: Exception) -> bool:
        return str(error).startswith(("no such table", "no such column", "table "))

    def is_stale(self, error: BaseException) -> bool:
        return False  # SQLite itself prepares again what another process's change has made stale

    def obstacle(self, error: BaseException, url: URL) -> str | None:
        return None if "uri" in url.query else sqlite_obstacle(error, url.database or "")

    def encoding(self, connection: Connection) -> str:
        return UTF8  # in any of its encodings a file holds every character


def dialect_of(url: URL) -> Dialect:
    """The dialect that a database URL asks for."""
    return PostgresDialect() if url.get_backend_name() == "postgresql" else SqliteDialect()


def _epoch_seconds(moment: ColumnElement[datetime]) -> Any:
    # Text such as `2026-01-02 03:04:05.678901`; strftime's own fractions end at milliseconds, and
    # .9995 would be rounded up to the next second.
    as_text = type_coerce(moment, Text)
    seconds = func.strftime("%s", func.substr(as_text, 1, 19))
    return cast(seconds, Double) + cast(func.substr(as_text, 20), Double)


def _array_type(c: Column[Any]) -> ARRAY[Any]:
    return ARRAY(Text if isinstance(c.type, JSON) else c.type)


def _unnest(columns: Sequence[Column[Any]], prefix: str = "key") -> Keys:
    source = (
        func.unnest(*(bindparam(f"{prefix}_{c.name}", type_=_array_type(c)) for c in columns))
        .table_valued(*(column(c.name, _array_type(c).item_type) for c in columns), name="k")
        .render_derived()
    )
    return Keys(source, {c.name: source.c[c.name] for c in columns})


def _json_each(columns: Sequence[Column[Any]]) -> Keys:
    source = func.json_each(bindparam("keys", type_=Text)).table_valued("value", name="k")
    extracts = {
        c.name: type_coerce(func.json_extract(source.c.value, f"$[{place}]"), c.type)
        for place, c in enumerate(columns)
    }
    return Keys(source, extracts)


_payload = func.unnest(bindparam("payloads", type_=ARRAY(Text))).column_valued("payload")
_NOTIFY = select(func.pg_notify(bindparam("channel", type_=Text), _payload))


@cache
def _insert_unnest(table: Table, names: tuple[str, ...], ignore_existing: bool) -> Any:  # noqa: FBT001  a cache key
    values = _unnest([table.c[name] for name in names], "value")
    statement = postgresql_insert(table).from_select(
        names, select(*(_typed(values, table.c[name]) for name in names))
    )
    return statement.on_conflict_do_nothing() if ignore_existing else statement


@cache
def _update_unnest(
    table: Table,
    key: tuple[str, ...],
    names: tuple[str, ...],
    notifying: bool,  # noqa: FBT001  a cache key
) -> Any:
    values = _unnest([table.c[name] for name in names], "value")
    statement = (
        update(table)
        .where(*(table.c[name] == values.c[name] for name in key))
        .values({name: _typed(values, table.c[name]) for name in names if name not in key})
    )
    return _NOTIFY.add_cte(statement.cte("updated")) if notifying else statement


@cache
def _delete_unnest(table: Table, key: tuple[str, ...]) -> Any:
    values = _unnest([table.c[name] for name in key], "value")
    return delete(table).where(*(table.c[name] == values.c[name] for name in key))


@cache
def _insert_each(table: Table, names: tuple[str, ...], ignore_existing: bool) -> Any:  # noqa: FBT001  a cache key
    statement = insert(table).values({name: bindparam(name) for name in names})
    return statement.prefix_with("OR IGNORE") if ignore_existing else statement


@cache
def _delete_each(table: Table, key: tuple[str, ...]) -> Any:
    def value(name: str) -> Any:
        return bindparam(f"value_{name}", type_=table.c[name].type)

    return delete(table).where(*(table.c[name] == value(name) for name in key))


@cache
def _update_each(table: Table, key: tuple[str, ...], names: tuple[str, ...]) -> Any:
    def value(name: str) -> Any:
        return bindparam(f"value_{name}", type_=table.c[name].type)

    return (
        update(table)
        .where(*(table.c[name] == value(name) for name in key))
        .values({name: value(name) for name in names if name not in key})
    )


@cache
def _is_json(table: Table, name: str) -> bool:
    return isinstance(table.c[name].type, JSON)


def _typed(values: Keys, c: Column[Any]) -> Any:
    return cast(values.c[c.name], c.type) if isinstance(c.type, JSON) else values.c[c.name]


def _arrays(table: Table, names: Sequence[str], rows: Sequence[Row]) -> Row:
    return {
        f"value_{name}": [None if row[name] is None else to_json(row[name]) for row in rows]
        if _is_json(table, name)
        else [row[name] for row in rows]
        for name in names
    }
