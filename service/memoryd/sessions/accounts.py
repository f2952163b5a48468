"""The rows of `tenant_usage`: what tenants have stored, changed with what they store.

A tenant has a row as long as it has a quota of what is stored. Who writes for it locks the row, so
that its writers take turns, on all servers. All writers lock sessions first, then these rows.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import BigInteger, bindparam, cast, func, literal, select, true, update

from memoryd.database import statements
from memoryd.database.tables import (
    conversations,
    documents,
    memories,
    messages,
    sessions,
    tenant_usage,
)
from memoryd.domain.quotas import NOTHING, Account, Usage
from memoryd.sessions.lock import by_key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import BindParameter, ColumnElement, Connection, FromClause, Label, Select

    from memoryd.database.dialect import Dialect
    from memoryd.domain.records import Session

COUNTED_AT_ONCE = 10_000
"""Rows of each table that a writer counts itself when a tenant gets its row. Those of a tenant
with more are counted by the sweeper; until then none of its quotas of what is stored applies."""

SETTLED_AFTER = timedelta(seconds=10)
"""Between the first count and the next: by then every server knows the quota, and counts."""

_KEY = (tenant_usage.c.tenant,)
_COLUMNS = tuple(tenant_usage.c[name] for name in ("tenant", "recounts", *Usage._fields))
_TENANT: BindParameter[str] = bindparam("tenant")


class Row(NamedTuple):
    """What is known of a tenant."""

    recounts: int
    """0: `used` is only what was added since the row was made."""
    used: Usage


@cache
def size_of_memory(dialect: Dialect) -> ColumnElement[int]:
    """Give the size of a row of `memories`, as `Usage.bytes` counts it."""
    return dialect.octets(memories.c.content) + dialect.octets(memories.c.metadata)


def open_accounts(
    connection: Connection,
    dialect: Dialect,
    limits: Mapping[str, Usage],
    new: Collection[Session],
    now: datetime,
) -> dict[str, Account]:
    """Lock the accounts of tenants with these quotas until the transaction ends.

    `new`: sessions that this transaction has made. It has changed nothing else.
    """
    rows = _lock(connection, dialect, limits)
    # Not once: what another process has just made, it may drop before it is locked here.
    while missing := sorted(limits.keys() - rows.keys()):
        made = _lock_new(connection, dialect, missing, now)
        for tenant, row in made.items():
            own = sum(session.tenant == tenant for session in new)
            rows[tenant] = row if row.recounts else _counted(connection, dialect, tenant, own, now)
    return {
        tenant: Account(tenant, row.used, limits[tenant] if row.recounts else NOTHING)
        for tenant, row in rows.items()
    }


def open_known(
    connection: Connection, dialect: Dialect, tenants: Iterable[str]
) -> dict[str, Account]:
    """Lock the accounts of those tenants that have one, for what needs no quota."""
    rows = _lock(connection, dialect, tenants)
    return {tenant: Account(tenant, row.used, NOTHING) for tenant, row in rows.items()}


def save_accounts(connection: Connection, dialect: Dialect, accounts: Iterable[Account]) -> None:
    """Write what has changed in locked accounts."""
    rows = [{"tenant": a.tenant, **a.used._asdict()} for a in accounts if a.is_changed]
    if rows:
        dialect.update_many(connection, tenant_usage, ("tenant",), rows)


def change_known(connection: Connection, dialect: Dialect, changes: Mapping[str, Usage]) -> None:
    """Change the accounts of those tenants that have one."""
    accounts = open_known(connection, dialect, changes)
    for tenant, account in accounts.items():
        account.add(changes[tenant])
    save_accounts(connection, dialect, accounts.values())


def read_usage(connection: Connection, dialect: Dialect, session: Session) -> Usage:
    """Count what one session that exists is of its tenant's usage."""
    found = connection.execute(_of_one_session(dialect), session._asdict()).one()
    return Usage(*found)


def make_account(connection: Connection, dialect: Dialect, tenant: str, due: datetime) -> None:
    """Give a tenant an account that is not counted yet, unless it has one."""
    _lock_new(connection, dialect, [tenant], due)


def correct_account(
    connection: Connection,
    dialect: Dialect,
    tenant: str,
    *,
    seen: Row,
    truth: Usage,
    due: datetime,
) -> None:
    """Take in what was counted at a moment when the account was as `seen`.

    What was written since is in the account alone, and stays.
    """
    row = _lock(connection, dialect, [tenant]).get(tenant)
    if row is None or row.recounts != seen.recounts:
        return  # another recount was first
    used = row.used.plus(truth.minus(seen.used))
    _write_counted(connection, tenant, Row(row.recounts + 1, used), due)


@cache
def counting(dialect: Dialect) -> Select[Any]:
    """Select what a tenant has stored, and its account, as they are at one moment.

    Columns are those of Usage twice, and `recounts`, null where there is no account.
    """
    names = (*Usage._fields, "recounts")
    values, counted = _usage([_totals(_counted_rows(dialect, name)) for name in _KINDS])
    # Read for itself: it may be on another machine than what is counted.
    account = (
        select(*(tenant_usage.c[name] for name in names))
        .where(tenant_usage.c.tenant == _TENANT)
        .subquery()
    )
    return select(*values, *(account.c[name] for name in names)).select_from(
        counted.outerjoin(account, true())
    )


_KINDS = ("memories", "sessions", "documents", "conversations", "messages")
"""What is counted, by the names of Usage."""


def _counted_rows(dialect: Dialect, kind: str, *, of_session: bool = False) -> Select[Any]:
    """The rows of a tenant, or of a session, that count, each with the bytes that it takes."""
    tables = {
        "memories": (memories, size_of_memory(dialect)),
        "sessions": (sessions, literal(0)),
        "documents": (documents, documents.c.size),
        "conversations": (conversations, literal(0)),
        "messages": (messages, messages.c.size),
    }
    table, size = tables[kind]
    found = select(size.label("size")).where(table.c.tenant == _TENANT)
    if of_session:
        found = found.where(table.c.session_id == bindparam("session_id"))
    return found.where(memories.c.deleted_at.is_(None)) if table is memories else found


def _totals(counted: Select[Any]) -> Select[Any]:
    found = counted.subquery()
    count: Label[Any] = func.count().label("number")
    size = cast(func.coalesce(func.sum(found.c.size), 0), BigInteger)
    return select(count, size.label("bytes")).select_from(found)


def _usage(totals: Sequence[Select[Any]]) -> tuple[tuple[Any, ...], FromClause]:
    """The columns of a Usage, in its order, and what they are of; by the totals of _KINDS."""
    of_kind = dict(zip(_KINDS, (one.subquery() for one in totals), strict=True))
    columns = {name: found.c.number for name, found in of_kind.items()}
    columns["bytes"] = sum((found.c.bytes for found in of_kind.values()), start=literal(0))
    first, *others = of_kind.values()
    source: FromClause = first
    for other in others:
        source = source.join(other, true())
    return tuple(columns[name].label(name) for name in Usage._fields), source


@cache
def _of_one_session(dialect: Dialect) -> Select[Any]:
    """As `counting`, of one session."""
    values, source = _usage(
        [_totals(_counted_rows(dialect, name, of_session=True)) for name in _KINDS]
    )
    return select(*values).select_from(source)


@cache
def _counting_few(dialect: Dialect) -> Select[Any]:
    """As `counting`, of no more rows of each table than `most`."""
    most: BindParameter[int] = bindparam("most")
    values, source = _usage([_totals(_counted_rows(dialect, name).limit(most)) for name in _KINDS])
    return select(*values).select_from(source)


def _counted(
    connection: Connection, dialect: Dialect, tenant: str, own_sessions: int, now: datetime
) -> Row:
    """Count what a tenant has, if it is not too much."""
    parameters = {"tenant": tenant, "most": COUNTED_AT_ONCE + 1}
    found = Usage(*connection.execute(_counting_few(dialect), parameters).one())
    if max(getattr(found, name) for name in _KINDS) > COUNTED_AT_ONCE:
        return Row(0, NOTHING)
    row = Row(1, found._replace(sessions=found.sessions - own_sessions))
    _write_counted(connection, tenant, row, now + SETTLED_AFTER)
    return row


def _write_counted(connection: Connection, tenant: str, row: Row, due: datetime) -> None:
    connection.execute(
        update(tenant_usage)
        .where(tenant_usage.c.tenant == tenant)
        .values(recounts=row.recounts, recount_at=due, **row.used._asdict())
    )


def _lock_new(
    connection: Connection, dialect: Dialect, tenants: Sequence[str], due: datetime
) -> dict[str, Row]:
    empty = {**NOTHING._asdict(), "recounts": 0, "recount_at": due}
    dialect.insert_many(connection, tenant_usage, {"tenant": tenants}, empty, ignore_existing=True)
    return _lock(connection, dialect, tenants)


def _lock(connection: Connection, dialect: Dialect, tenants: Iterable[str]) -> dict[str, Row]:
    in_order = [(tenant,) for tenant in sorted(set(tenants))]
    if not in_order:
        return {}
    statement = by_key(dialect, _KEY, _COLUMNS, True)  # noqa: FBT003  a cache key
    found = statements.fetch(connection, statement, dialect.bind(_KEY, in_order))
    return {tenant: Row(recounts, Usage(*used)) for tenant, recounts, *used in found}
