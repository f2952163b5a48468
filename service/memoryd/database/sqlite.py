"""SQLite, through the standard library's driver."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Column,
    Double,
    LargeBinary,
    Text,
    and_,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal_column,
    select,
    tuple_,
    type_coerce,
    update,
)

from memoryd.database import scrub, statements
from memoryd.database.dialect import NOTHING, Dialect, Keys
from memoryd.database.files import open_existing
from memoryd.database.obstacles import sqlite_obstacle
from memoryd.database.pools import ThreadedPool
from memoryd.domain.metadata import to_json

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import ColumnElement, Connection, Select, Table
    from sqlalchemy.engine import URL
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.sql.functions import Function

    from memoryd.database.dialect import Columns, Insertion, Notification, Row, Update
    from memoryd.database.options import DatabaseOptions
    from memoryd.database.pools import Pool


class SqliteDialect(Dialect):
    name = "sqlite"
    driver_errors = (sqlite3.Error,)

    def engine_options(self, options: DatabaseOptions) -> Row:
        return {"connect_args": {"timeout": options.lock_timeout_seconds}}

    def pool(self, url: URL, options: DatabaseOptions, **arguments: Any) -> Pool:
        url = url.set(drivername="sqlite")
        if options.must_exist:
            timeout = options.lock_timeout_seconds
            arguments["creator"] = lambda: open_existing(url, timeout=timeout)
        return ThreadedPool(url, **self.engine_options(options), **arguments)

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

    def unusable_indexes(self, connection: Connection, names: Collection[str]) -> list[str]:
        found = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'index'")
        return sorted({*names} - {*found.scalars()})

    def size(self, connection: Connection) -> int:
        pages: int = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        bytes_each: int = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
        return pages * bytes_each

    def damage(self, connection: Connection) -> str:
        # Of the first thing found: https://www.sqlite.org/pragma.html#pragma_integrity_check
        found = str(connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one())
        return "" if found == "ok" else found

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
        columns: Sequence[ColumnElement[Any]],
        *conditions: ColumnElement[bool],
        carried: Sequence[Column[Any]] = (),
    ) -> Select[Any]:
        keys = _json_each((*key, *carried))
        on = and_(*(c == keys.c[c.name] for c in key))
        also = (keys.c[c.name].label(c.name) for c in carried)
        joined = keys.source.join(key[0].table, on)
        return select(*columns, *also).select_from(joined).where(*conditions)

    def look_up_first(
        self,
        key: Sequence[Column[Any]],
        columns: Sequence[Column[Any]],
        *conditions: ColumnElement[bool],
        after: Sequence[Column[Any]],
    ) -> Select[Any]:
        # There is no LATERAL: rows are found by their numbers.
        keys, table = _json_each((*key, *after)), key[0].table
        number: ColumnElement[int] = literal_column(f"{table.name}.rowid")
        found = (
            select(number)
            .where(
                *(c == keys.c[c.name] for c in key),
                tuple_(*after) > tuple_(*(keys.c[c.name] for c in after)),
                *conditions,
            )
            .order_by(*after)
            .limit(bindparam("most"))
            .correlate(keys.source)
        )
        numbered = table.alias("numbered")
        joined = keys.source.join(numbered, literal_column("numbered.rowid").in_(found))
        return select(*(numbered.c[c.name] for c in columns)).select_from(joined)

    def bind(self, columns: Sequence[Column[Any]], rows: Sequence[tuple[Any, ...]]) -> Row:
        return {"keys": to_json([*map(tuple, rows)])}  # not as records

    def insert_many(
        self,
        connection: Connection,
        table: Table,
        columns: Columns,
        common: Row = NOTHING,
        *,
        ignore_existing: bool = False,
    ) -> int:
        statement = _insert_each(table, (*columns, *common), ignore_existing)
        return statements.execute_columns(connection, statement, columns, common)

    def update_many(
        self,
        connection: Connection,
        table: Table,
        key: Sequence[str],
        rows: Sequence[Row],
        *,
        notification: Notification | None = None,
        along: Sequence[Insertion | Update] = (),
    ) -> None:
        self.write(connection, along)
        names = tuple(rows[0])
        statements.execute_each(
            connection,
            _update_each(table, tuple(key), names),
            [{f"value_{name}": row[name] for name in names} for row in rows],
        )

    def delete_many(
        self, connection: Connection, table: Table, key: Sequence[str], rows: Sequence[Row]
    ) -> int:
        names = tuple(key)
        parameters = [{f"value_{name}": row[name] for name in names} for row in rows]
        return statements.execute_each(connection, _delete_each(table, names), parameters)

    def owe_scrubbing(self, connection: Connection) -> None:
        mark = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        connection.exec_driver_sql(f"PRAGMA user_version = {scrub.raised(mark)}")

    def owes_scrubbing(self, connection: Connection) -> bool:
        return scrub.is_owed(connection.exec_driver_sql("PRAGMA user_version").scalar_one())

    def now(self, connection: Connection) -> datetime:
        return datetime.now(UTC)  # this process is the database

    def age_days(self, since: ColumnElement[datetime], now: ColumnElement[datetime]) -> Any:
        return (_epoch_seconds(now) - _epoch_seconds(since)) / 86_400.0

    def octets(self, column: Column[Any]) -> ColumnElement[int]:
        return func.length(cast(column, LargeBinary))  # of a text it is in characters

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

    def obstacle(self, error: BaseException, url: URL) -> str | None:
        return None if "uri" in url.query else sqlite_obstacle(error, url.database or "")


def _epoch_seconds(moment: ColumnElement[datetime]) -> Any:
    # Text such as `2026-01-02 03:04:05.678901`; strftime's own fractions end at milliseconds, and
    # .9995 would be rounded up to the next second.
    as_text = type_coerce(moment, Text)
    seconds = func.strftime("%s", func.substr(as_text, 1, 19))
    return cast(seconds, Double) + cast(func.substr(as_text, 20), Double)


def _json_each(columns: Sequence[Column[Any]]) -> Keys:
    source = func.json_each(bindparam("keys", type_=Text)).table_valued("value", name="k")
    extracts = {
        c.name: type_coerce(func.json_extract(source.c.value, f"$[{place}]"), c.type)
        for place, c in enumerate(columns)
    }
    return Keys(source, extracts)


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
