"""PostgreSQL with the extension Citus, which spreads the rows of sessions over machines.

Citus runs a statement as one task where it names the sessions of one shard and their tenants as
constants. Statements that lock, change, look up or count rows by keys do so by `routing`, and are
sent once for each shard (see `shards`). Others go to all shards at once.

Tables that have no sessions in them are the coordinator's own. Row-level security is not used: its
setting does not reach the workers. See https://docs.citusdata.com/en/stable/.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy import ARRAY, String, and_, any_, bindparam, select, true
from sqlalchemy.dialects.postgresql import insert

from memoryd.database import statements
from memoryd.database.dialect import NOTHING, RowSecurity, Update, columns_of
from memoryd.database.postgresql import (
    PostgresDialect,
    in_common,
    inserted,
    typed,
    unnest,
    updating,
    values_of,
)
from memoryd.database.shards import ShardContext, Shards
from memoryd.database.tables import sessions
from memoryd.database.tenancy import SHARD_SESSIONS, SHARD_TENANTS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sqlalchemy import ColumnElement, Connection, FromClause, Table

    from memoryd.database.dialect import Columns, Insertion, Notification, Row
    from memoryd.database.options import DatabaseOptions
    from memoryd.database.tenancy import TenantContext

_SHARD_KEY = ("tenant", "session_id")

_NEWS = "notifications"
"""Where a connection's `info` keeps what is to be told when its transaction is committed."""

_NOT_ROUTED = "0A000"
"""What Citus answers to a statement about several shards that has to be about one: the shards have
been split since."""

_SETTINGS = {
    # Else the driver's look at the types of arrays goes through all shards of all tables.
    "citus.override_table_visibility": "off",
    # So that the limit on waiting for locks holds on the workers too.
    "citus.propagate_set_commands": "local",
}


class CitusDialect(PostgresDialect):
    def __init__(self) -> None:
        super().__init__()
        self.shards: Shards = Shards()

    def server_settings(self, options: DatabaseOptions) -> dict[str, str]:
        return {**super().server_settings(options), **_SETTINGS}

    def tenant_context(self, tenants: Collection[str], *, in_transaction: bool) -> TenantContext:
        del in_transaction
        return ShardContext(tenants, self.shards)

    def set_row_security(self, connection: Connection, *, on: bool) -> None:
        """Do nothing: row-level security was turned off when the tables were distributed."""

    def row_security(self, connection: Connection) -> RowSecurity:
        del connection
        return RowSecurity(
            has_it=True, obstacle="Citus's workers do not hear which tenants a statement is about"
        )

    def routing(self, table: Table) -> tuple[ColumnElement[bool], ...]:
        return _routing(table)

    def beside(
        self,
        table: Table,
        name: str,
        columns: Collection[str],
        condition: Callable[[FromClause], ColumnElement[bool]],
    ) -> tuple[FromClause, ColumnElement[bool]]:
        """Have them read first, on their own: Citus joins no rows of two shards otherwise."""
        rows = select(*(table.c[column] for column in columns)).where(condition(table))
        return rows.cte(name).prefix_with("MATERIALIZED"), true()

    def begin_write(self, connection: Connection, options: DatabaseOptions) -> None:
        super().begin_write(connection, options)
        connection.info.pop(_NEWS, None)
        connection.exec_driver_sql(
            f"SET LOCAL lock_timeout = {options.lock_timeout_seconds * 1000:.0f}"
        )

    def end_write(self, connection: Connection) -> None:
        for notification in connection.info.pop(_NEWS, ()):
            super().notify(connection, notification)

    def insert_many(
        self,
        connection: Connection,
        table: Table,
        columns: Columns,
        common: Row = NOTHING,
        *,
        ignore_existing: bool = False,
    ) -> int:
        if table is sessions or "session_id" not in table.c:
            return super().insert_many(
                connection, table, columns, common, ignore_existing=ignore_existing
            )
        size = len(next(iter(columns.values())))
        shared = {name: [common[name]] * size for name in _SHARD_KEY if name in common}
        columns = {**columns, **shared}
        common = {name: value for name, value in common.items() if name not in shared}
        statement = _insert_beside(table, tuple(columns), tuple(common), ignore_existing)
        count = statements.execute(connection, statement, inserted(table, columns, common))
        if count < size:
            self._require_sessions(connection, table, columns)
        return count

    def _require_sessions(self, connection: Connection, table: Table, columns: Columns) -> None:
        """Raise where rows were left out for want of their session, as a foreign key does."""
        key = tuple(sessions.c[name] for name in _SHARD_KEY)
        wanted = set(zip(*(columns[name] for name in _SHARD_KEY), strict=True))
        statement, bound = self.look_up(key, key), self.bind(key, sorted(wanted))
        if len(statements.fetch_built(connection, statement, bound)) < len(wanted):
            raise asyncpg.ForeignKeyViolationError(f"rows of {table.name} without their session")

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
        statement = _update(table, tuple(key), tuple(rows[0]))
        statements.execute(connection, statement, values_of(table, columns_of(rows)))
        self.write(connection, along)
        if notification is not None:
            self.notify(connection, notification)

    def notify(self, connection: Connection, notification: Notification) -> None:
        """Tell with the transaction's last statement: beside a session's, a worker would tell."""
        connection.info.setdefault(_NEWS, []).append(notification)

    def analyse(self, connection: Connection, tables: Sequence[Table]) -> None:
        """Do nothing: it would go through every shard of every worker."""

    def is_misrouted(self, error: BaseException) -> bool:
        driver_error = getattr(error, "orig", None) or error
        return getattr(driver_error, "sqlstate", None) == _NOT_ROUTED and not self.is_stale(error)

    def is_unavailable(self, error: Exception) -> bool:
        """Count a statement that was refused twice: shards are being split or moved."""
        return self.is_misrouted(error) or super().is_unavailable(error)


@cache
def _routing(table: Table) -> tuple[ColumnElement[bool], ...]:
    if "session_id" not in table.c:
        return ()
    names = zip(_SHARD_KEY, (SHARD_TENANTS, SHARD_SESSIONS), strict=True)
    return tuple(
        table.c[column] == any_(bindparam(name, type_=ARRAY(String()))) for column, name in names
    )


@cache
def _update(table: Table, key: tuple[str, ...], names: tuple[str, ...]) -> Any:
    return updating(table, key, names, routing=_routing(table))


@cache
def _insert_beside(
    table: Table,
    names: tuple[str, ...],
    common: tuple[str, ...],
    ignore_existing: bool,  # noqa: FBT001  a cache key
) -> Any:
    """Insert rows by way of their sessions' own, so that they go to the shard that has these."""
    values = unnest([table.c[name] for name in names], "value")
    rows = (
        select(
            *(
                sessions.c.session_id if name == "session_id" else typed(values, table.c[name])
                for name in names
            ),
            *in_common(table, common),
        )
        .select_from(
            sessions.join(
                values.source, and_(*(sessions.c[name] == values.c[name] for name in _SHARD_KEY))
            )
        )
        .where(*_routing(sessions))
    )
    statement = insert(table).from_select((*names, *common), rows)
    return statement.on_conflict_do_nothing() if ignore_existing else statement
