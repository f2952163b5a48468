"""Whose rows a piece of work is about: said before it, held by the database, and checked after it.

Statements find their rows by the tenant as they do by the session. This is the second wall behind
that: on PostgreSQL a statement sees and writes rows of no tenant that its work has not named
(see `row_security`), and on either database an answer with such a row is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.engine.interfaces import DBAPICursor

SEPARATOR = ","
"""Between tenants in one text; no tenant's name has it."""

EVERY_TENANT = ("*",)
"""Named by work that goes across tenants: sweeping, moving a whole database, reading all keys."""

NO_TENANT = ()
"""Named by work on tables that belong to no tenant."""

MAX_TENANTS = 64
"""How many share a transaction or a statement that is made for several callers."""

SHARD_TENANTS = "shard_tenants"
"""The parameter of a routed statement that has the tenants of its sessions."""

SHARD_SESSIONS = "shard_sessions"
"""The parameter of a routed statement that has its sessions, all of one shard."""

_KEY = "tenants"
"""Where a connection's `info` keeps what is at work on it."""


def one_or_all(tenant: str | None) -> Collection[str]:
    """Name a tenant, or all: None."""
    return EVERY_TENANT if tenant is None else (tenant,)


class ForeignRow(Exception):
    """A row of a tenant that was not asked for: a fault of this program or of its database."""

    def __init__(self, tenant: str) -> None:
        super().__init__(f"a statement gave a row of the tenant {tenant!r}, which it was not about")


class TenantContext:
    """The tenants of one piece of work; by itself, of a database without row-level security."""

    __slots__ = ("_allowed", "text")

    def __init__(self, tenants: Collection[str]) -> None:
        self.text = SEPARATOR.join(sorted({tenant for tenant in tenants if tenant}))
        # A row that an outer join did not find has no tenant.
        self._allowed = None if self.text == EVERY_TENANT[0] else {*tenants, None}

    def select(self, sql: str, values: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        """Give a query and its values as they are to be sent."""
        return sql, values

    def prepare(self, cursor: DBAPICursor) -> None:
        """Do what a statement needs that is no query."""

    def portions(
        self, connection: Connection, parameters: Mapping[str, Any]
    ) -> Iterable[Mapping[str, Any]]:
        """Give the parameters of a routed statement as they are to be sent, one after the other."""
        del connection
        return (parameters,)

    def check(self, tenants: Iterable[Any]) -> None:
        """Raise ForeignRow where one of an answer's rows is not of these tenants."""
        if self._allowed is not None:
            for tenant in set(tenants) - self._allowed:
                raise ForeignRow(tenant)


_NOTHING_NAMED = TenantContext(EVERY_TENANT)
"""Of work on the schema, and of commands outside a database's pools."""


def put_context(info: dict[Any, Any], context: TenantContext) -> None:
    """Let a connection's statements from here on be about these tenants; `info` is its own."""
    info[_KEY] = context


def drop_context(info: dict[Any, Any]) -> None:
    info.pop(_KEY, None)


def context_of(connection: Connection) -> TenantContext:
    found: TenantContext = connection.info.get(_KEY, _NOTHING_NAMED)
    return found
