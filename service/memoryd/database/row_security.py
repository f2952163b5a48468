"""PostgreSQL's row-level security: each row by its tenant, for the tenants that a statement names.

A policy on every table with tenants compares a row's with `SETTING`. That is set within the
statement itself where there is no transaction, and by a transaction's first statement for all of
it, so nothing of it stays on a connection. See
https://www.postgresql.org/docs/current/ddl-rowsecurity.html.
"""

from __future__ import annotations

from contextlib import closing
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from memoryd.database.tables import schema
from memoryd.database.tenancy import TenantContext, context_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.engine.interfaces import DBAPICursor

SETTING = "memoryd.tenants"
"""Of PostgreSQL, local to a statement or transaction: the tenants at work."""

TABLES = tuple(sorted(table.name for table in schema.tables.values() if "tenant" in table.c))
"""Those with a policy."""

_STATE = text(
    """
    SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity FROM pg_class c
    JOIN unnest(CAST(:tables AS TEXT[])) AS t(name) ON c.oid = to_regclass(quote_ident(t.name))
    """
)

_BYPASSES = text(
    "SELECT rolname FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolbypassrls)"
)

MAX_TEXTS = 1_000
"""Different queries that are kept as they are sent; a filter makes a few of its own."""

_SET = f"SELECT set_config('{SETTING}', $1::VARCHAR, true)"


class SecuredContext(TenantContext):
    """The tenants of a piece of work, for row-level security."""

    __slots__ = ("_in_transaction", "_is_set")

    def __init__(self, tenants: Collection[str], *, in_transaction: bool) -> None:
        super().__init__(tenants)
        self._in_transaction = in_transaction
        self._is_set = False

    def select(self, sql: str, values: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        """Have a query name the tenants itself; within a transaction only the first one need."""
        if self._is_set:
            return sql, values
        self._is_set = self._in_transaction
        return naming(sql, len(values) + 1), (*values, self.text)

    def prepare(self, cursor: DBAPICursor) -> None:
        """Name the tenants where a transaction begins with something that is no query."""
        if not self._is_set:
            self._is_set = self._in_transaction
            cursor.execute(_SET, (self.text,))


@lru_cache(maxsize=MAX_TEXTS)
def naming(sql: str, place: int) -> str:
    """A query that first names its tenants, which are its parameter of this number.

    All of it depends on the row that does so, and waits for it: OFFSET keeps the planner from
    putting the two together.
    """
    return (
        f"SELECT r.* FROM (SELECT set_config('{SETTING}', ${place}::VARCHAR, true) AS s OFFSET 0) g"  # noqa: S608  our own
        f" CROSS JOIN LATERAL (SELECT q.* FROM ({sql}) q WHERE g.s IS NOT NULL OFFSET 0) r"
    )


def name_tenants(
    connection: Connection,
    _cursor: DBAPICursor,
    statement: str,
    parameters: Any,
    execution: Any,
    _executemany: bool,  # noqa: FBT001  SQLAlchemy's own signature
) -> tuple[str, Any]:
    """For SQLAlchemy's event `before_cursor_execute`: what `statements` does past SQLAlchemy."""
    compiled = execution.compiled if execution is not None else None
    if compiled is None:
        return statement, parameters
    context = context_of(connection)
    if compiled.statement.is_select:
        return context.select(statement, parameters)
    if compiled.statement.is_dml:
        with closing(connection.connection.cursor()) as cursor:
            context.prepare(cursor)
    return statement, parameters


def unprotected(connection: Connection) -> list[str]:
    """The tables with tenants on which row-level security is not on, or not for their owner."""
    found = connection.execute(_STATE, {"tables": list(TABLES)}).all()
    return sorted(name for name, is_on in found if not is_on)


def bypassing_role(connection: Connection) -> str | None:
    """The role of a connection, where row-level security does not hold for it."""
    name: str | None = connection.execute(_BYPASSES).scalar_one_or_none()
    return name


def protect(connection: Connection) -> None:
    """Turn row-level security on, for the tables' owner as well. Needs the owner."""
    for name in unprotected(connection):
        connection.exec_driver_sql(
            f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
        )


def unprotect(connection: Connection) -> None:
    """Turn row-level security off. Needs the owner."""
    for name in sorted({*TABLES} - {*unprotected(connection)}):
        connection.exec_driver_sql(
            f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY"
        )
