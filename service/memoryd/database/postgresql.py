"""PostgreSQL, through asyncpg."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Column,
    Double,
    Text,
    bindparam,
    cast,
    column,
    delete,
    extract,
    func,
    literal_column,
    select,
    text,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from memoryd.database import row_security, spreading, statements
from memoryd.database.dialect import (
    NOTHING,
    Dialect,
    Distribution,
    Keys,
    RowSecurity,
    Update,
    columns_of,
)
from memoryd.database.failover import HostFailover
from memoryd.database.obstacles import postgresql_obstacle
from memoryd.database.pools import AsyncPool
from memoryd.domain.metadata import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Select, Table
    from sqlalchemy.engine import URL
    from sqlalchemy.sql.functions import Function

    from memoryd.database.dialect import Columns, Insertion, Notification, Row
    from memoryd.database.options import DatabaseOptions
    from memoryd.database.pools import Pool
    from memoryd.database.tenancy import TenantContext

PLANNER_SETTINGS = dict.fromkeys(
    ("enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin", "jit"), "off"
)
"""Every statement looks rows up by a key that an index has. Over a table that has no statistics
yet, or whose plan was kept from when it was small, the planner would rather read all of it; without
these there is only the plan by the index."""


_MISSING_RIGHTS = text(
    """
    SELECT p.name || ' on ' || t.name FROM unnest(CAST(:tables AS TEXT[])) AS t(name)
    CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(name)
    WHERE NOT has_table_privilege(to_regclass(quote_ident(t.name)), p.name) ORDER BY 1
    """
)

_UNUSABLE = text(
    """
    SELECT w.name FROM unnest(CAST(:names AS TEXT[])) AS w(name)
    LEFT JOIN pg_index i ON i.indexrelid = to_regclass(quote_ident(w.name))
    WHERE (i.indisvalid AND i.indisready) IS NOT TRUE ORDER BY 1
    """
)

_SIZE = text("SELECT pg_database_size(current_database())")


class PostgresDialect(Dialect):
    name = "postgresql"
    locks_rows = True

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
        self._connect = HostFailover(asyncpg.connect, (OSError, *self.driver_errors))

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
            arguments["server_settings"] = self.server_settings(options)
        return {"connect_args": arguments}

    def pool(self, url: URL, options: DatabaseOptions, **arguments: Any) -> Pool:
        return AsyncPool(
            url,
            # Another server may be the one that writes by now.
            is_lost=lambda error: (
                getattr(getattr(error, "orig", error), "sqlstate", None) == self._READ_ONLY
            ),
            is_stale=self.is_stale,
            before_execution=row_security.name_tenants,
            **self.engine_options(options),
            **arguments,
        )

    def tenant_context(self, tenants: Collection[str], *, in_transaction: bool) -> TenantContext:
        return row_security.SecuredContext(tenants, in_transaction=in_transaction)

    def set_row_security(self, connection: Connection, *, on: bool) -> None:
        if on:
            row_security.protect(connection)
        else:
            row_security.unprotect(connection)

    def row_security(self, connection: Connection) -> RowSecurity:
        return RowSecurity(
            has_it=True,
            bypassing_role=row_security.bypassing_role(connection) or "",
            is_on=not row_security.unprotected(connection),
        )

    def distribution(self, connection: Connection) -> Distribution:
        return spreading.distribution(connection)

    def missing_rights(self, connection: Connection, tables: Collection[str]) -> list[str]:
        found = connection.execute(_MISSING_RIGHTS, {"tables": sorted(tables)})
        return list(found.scalars())

    def unusable_indexes(self, connection: Connection, names: Collection[str]) -> list[str]:
        return list(connection.execute(_UNUSABLE, {"names": sorted(names)}).scalars())

    def size(self, connection: Connection) -> int:
        size: int = connection.execute(_SIZE).scalar_one()
        return size

    def begin_write(self, connection: Connection, options: DatabaseOptions) -> None:
        if options.pgbouncer:  # startup parameters do not pass through it
            settings = self.server_settings(options).items()
            local = (func.set_config(setting, value, True) for setting, value in settings)  # noqa: FBT003  SQL's own signature
            connection.execute(select(*local))

    def is_in_transaction(self, connection: Connection) -> bool:
        driver: Any = connection.connection.driver_connection
        return bool(driver.is_in_transaction())

    def begin_snapshot(self, connection: Connection) -> None:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    def server_settings(self, options: DatabaseOptions) -> dict[str, str]:
        """Settings of a connection."""
        return {
            **PLANNER_SETTINGS,
            "statement_timeout": f"{options.statement_timeout_seconds * 1000:.0f}",
            "lock_timeout": f"{options.lock_timeout_seconds * 1000:.0f}",
            "idle_in_transaction_session_timeout": f"{options.timeout_seconds * 2000:.0f}",
        }

    def keys(self, *columns: Column[Any]) -> Keys:
        return unnest(columns)

    def look_up(
        self,
        key: Sequence[Column[Any]],
        columns: Sequence[ColumnElement[Any]],
        *conditions: ColumnElement[bool],
        carried: Sequence[Column[Any]] = (),
    ) -> Select[Any]:
        # Without statistics the planner takes `deleted_at IS NULL` to be rare, and a plain join
        # would begin with an index of all live rows. LATERAL with OFFSET goes from key to row.
        keys = unnest((*key, *carried))
        found = (
            select(*columns)
            .where(*(c == keys.c[c.name] for c in key), *self.routing(key[0].table), *conditions)
            .offset(literal_column("0"))
            .lateral("found")
        )
        also = (keys.c[c.name].label(c.name) for c in carried)
        return select(*found.c, *also).select_from(keys.source.join(found, true()))

    def look_up_first(
        self,
        key: Sequence[Column[Any]],
        columns: Sequence[Column[Any]],
        *conditions: ColumnElement[bool],
        after: Sequence[Column[Any]],
    ) -> Select[Any]:
        keys = unnest((*key, *after))
        found = (
            select(*columns)
            .where(
                *(c == keys.c[c.name] for c in key),
                tuple_(*after) > tuple_(*(keys.c[c.name] for c in after)),
                *self.routing(key[0].table),
                *conditions,
            )
            .order_by(*after)
            .limit(bindparam("most", type_=BigInteger))
            .lateral("found")
        )
        return select(*found.c).select_from(keys.source.join(found, true()))

    def bind(self, columns: Sequence[Column[Any]], rows: Sequence[tuple[Any, ...]]) -> Row:
        return {
            f"key_{c.name}": list(values)
            for c, values in zip(columns, zip(*rows, strict=True), strict=True)
        }

    def insert_many(
        self,
        connection: Connection,
        table: Table,
        columns: Columns,
        common: Row = NOTHING,
        *,
        ignore_existing: bool = False,
    ) -> int:
        statement = _insert_unnest(table, tuple(columns), tuple(common), ignore_existing)
        return statements.execute(connection, statement, inserted(table, columns, common))

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
        names = tuple(rows[0])
        shapes: list[_Shape] = []
        parameters = values_of(table, columns_of(rows))
        for place, one in enumerate(along):
            prefix = _ALONG.format(place)
            if isinstance(one, Update):
                shapes.append((one.table, tuple(one.rows[0]), tuple(one.key), True))
                parameters |= values_of(one.table, columns_of(one.rows), prefix)
            else:
                shapes.append((one.table, tuple(one.columns), tuple(one.common), False))
                parameters |= inserted(*one, prefix=prefix)
        statement = _update_unnest(
            table, tuple(key), names, notification is not None, tuple(shapes)
        )
        if notification is not None:
            parameters |= notification._asdict()
        statements.execute(connection, statement, parameters)

    def delete_many(
        self, connection: Connection, table: Table, key: Sequence[str], rows: Sequence[Row]
    ) -> int:
        names = tuple(key)
        keys = {name: [row[name] for row in rows] for name in names}
        return statements.execute(
            connection, _delete_unnest(table, names, self.routing(table)), values_of(table, keys)
        )

    def notify(self, connection: Connection, notification: Notification) -> None:
        statements.execute(connection, _NOTIFY, notification._asdict())

    async def stay(self, connection: Any) -> None:
        await connection.execute(f"SELECT pg_advisory_lock_shared({spreading.SERVERS})")

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

    def analyse(self, connection: Connection, tables: Sequence[Table]) -> None:
        names = ", ".join(table.name for table in tables)
        connection.exec_driver_sql(f"ANALYZE {names}")

    def now(self, connection: Connection) -> datetime:
        now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return now

    def age_days(self, since: ColumnElement[datetime], now: ColumnElement[datetime]) -> Any:
        return cast(extract("epoch", now - since), Double) / 86_400.0

    def by_code_point(self, column: Column[Any]) -> ColumnElement[str]:
        return column.collate("C")

    def octets(self, column: Column[Any]) -> ColumnElement[int]:
        return func.octet_length(cast(column, Text))

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


def _array_type(c: Column[Any]) -> ARRAY[Any]:
    return ARRAY(Text if isinstance(c.type, JSON) else c.type)


def unnest(columns: Sequence[Column[Any]], prefix: str = "key") -> Keys:
    """A table of parameters, an array a column."""
    source = (
        func.unnest(*(bindparam(f"{prefix}_{c.name}", type_=_array_type(c)) for c in columns))
        .table_valued(*(column(c.name, _array_type(c).item_type) for c in columns), name="k")
        .render_derived()
    )
    return Keys(source, {c.name: source.c[c.name] for c in columns})


_payload = func.unnest(bindparam("payloads", type_=ARRAY(Text))).column_valued("payload")
_NOTIFY = select(func.pg_notify(bindparam("channel", type_=Text), _payload))


_ALONG = "along_{}"
"""Of what goes along, the name of each by its place."""

_Shape = tuple["Table", tuple[str, ...], tuple[str, ...], bool]
"""Of what goes along: its table, the columns, those in common; of an update the key, and True."""


@cache
def _insert_unnest(
    table: Table,
    names: tuple[str, ...],
    common: tuple[str, ...],
    ignore_existing: bool,  # noqa: FBT001  a cache key
    prefix: str = "value",
) -> Any:
    values = unnest([table.c[name] for name in names], prefix)
    statement = insert(table).from_select(
        (*names, *common),
        select(
            *(typed(values, table.c[name]) for name in names),
            *in_common(table, common, prefix),
        ),
    )
    return statement.on_conflict_do_nothing() if ignore_existing else statement


@cache
def _update_unnest(
    table: Table,
    key: tuple[str, ...],
    names: tuple[str, ...],
    notifying: bool,  # noqa: FBT001  a cache key
    along: tuple[_Shape, ...],
) -> Any:
    statement = updating(table, key, names, "value")
    if notifying:
        statement = _NOTIFY.add_cte(statement.cte("updated"))
    for place, (other, columns, special, is_update) in enumerate(along):
        prefix = _ALONG.format(place)
        goes_along = (
            updating(other, special, columns, prefix)
            if is_update
            else _insert_unnest(other, columns, special, False, prefix)  # noqa: FBT003  a cache key
        )
        statement = statement.add_cte(goes_along.cte(prefix))
    return statement


def in_common(table: Table, names: Sequence[str], prefix: str = "value") -> list[Any]:
    """What every row that is inserted has, by the names that `inserted` gives it."""
    given = (bindparam(f"common_{prefix}_{name}", type_=table.c[name].type) for name in names)
    return [cast(value, value.type) for value in given]


def updating(
    table: Table,
    key: tuple[str, ...],
    names: tuple[str, ...],
    prefix: str = "value",
    routing: Sequence[ColumnElement[bool]] = (),
) -> Any:
    """Update rows by their keys; the values are parameters, an array a column."""
    values = unnest([table.c[name] for name in names], prefix)
    return (
        update(table)
        .where(*(table.c[name] == values.c[name] for name in key), *routing)
        .values({name: typed(values, table.c[name]) for name in names if name not in key})
    )


@cache
def _delete_unnest(
    table: Table, key: tuple[str, ...], routing: tuple[ColumnElement[bool], ...]
) -> Any:
    values = unnest([table.c[name] for name in key], "value")
    return delete(table).where(*(table.c[name] == values.c[name] for name in key), *routing)


@cache
def _is_json(table: Table, name: str) -> bool:
    return isinstance(table.c[name].type, JSON)


def typed(values: Keys, c: Column[Any]) -> Any:
    """A column of `unnest` as the table has it."""
    return cast(values.c[c.name], c.type) if isinstance(c.type, JSON) else values.c[c.name]


def inserted(table: Table, columns: Columns, common: Row, *, prefix: str = "value") -> Row:
    """Parameters of rows to insert, with what they have in common."""
    return values_of(table, columns, prefix) | {
        f"common_{prefix}_{name}": value for name, value in common.items()
    }


def values_of(table: Table, columns: Columns, prefix: str = "value") -> Row:
    """Parameters of rows, an array a column."""
    return {
        f"{prefix}_{name}": [None if value is None else to_json(value) for value in values]
        if _is_json(table, name)
        else values
        for name, values in columns.items()
    }
