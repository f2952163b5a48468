"""Permanent removal: purging memories, erasing a session, dropping what is old enough."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, delete, not_, or_, select

from memoryd.database import statements
from memoryd.database.dialect import NOTHING, columns_of
from memoryd.database.tables import (
    memories,
    memory_history,
    schema,
    sessions,
    store_receipts,
    store_requests,
)
from memoryd.domain.quotas import Usage
from memoryd.domain.records import Change, Session
from memoryd.memories import answers
from memoryd.memories.rows import PRIMARY_KEY
from memoryd.sessions.accounts import (
    change_known,
    open_known,
    read_usage,
    save_accounts,
    size_of_memory,
)
from memoryd.sessions.floors import raise_floor
from memoryd.sessions.lock import SHARD_KEY, lock_sessions
from memoryd.sessions.revisions import Totals, notification, raise_revisions

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Column, ColumnElement, Connection, Select, Table

    from memoryd.database.dialect import Dialect, Row

REQUEST_KEY = (*SHARD_KEY, "request_id")

MemoryKey = tuple[str, str, str]
"""(tenant, session_id, id)"""


class TenantCondition(NamedTuple):
    """Which tenants' memories are meant."""

    condition: ColumnElement[bool]
    parameters: Row


def session_tables() -> list[Table]:
    """Every table that holds rows of sessions; those that refer to others first."""
    return [table for table in reversed(schema.sorted_tables) if "session_id" in table.c]


def purge(
    connection: Connection,
    dialect: Dialect,
    victims: Sequence[MemoryKey],
    now: datetime,
    *,
    deleted_before: datetime | None = None,
) -> list[MemoryKey]:
    """Delete memories permanently: rows, history, and their text in answers kept for retries.

    What stays is that each was purged, at a revision of its own. Answers those that were there;
    with `deleted_before` only such as were deleted by then and not restored since.
    """
    locked = lock_sessions(
        connection, dialect, (Session(tenant, session_id) for tenant, session_id, _ in victims)
    )
    revisions = {session: row.revision for session, row in locked.items()}
    m = memories.c
    key = (m.tenant, m.session_id, m.id)
    size = size_of_memory(dialect).label("size")
    found = _look_up(
        connection, dialect, key, set(victims), [*key, m.created_revision, m.deleted_at, size]
    )
    if deleted_before is not None:
        found = [row for row in found if row.deleted_at and row.deleted_at <= deleted_before]
    found.sort(key=lambda row: (row.tenant, row.session_id, row.created_revision))
    present: list[MemoryKey] = [(row.tenant, row.session_id, row.id) for row in found]
    if not present:
        return []
    _blank_answers(connection, dialect, found)
    rows = [dict(zip(PRIMARY_KEY, key, strict=True)) for key in present]
    dialect.delete_many(connection, memory_history, PRIMARY_KEY, rows)
    dialect.delete_many(connection, memories, PRIMARY_KEY, rows)
    records = []
    for tenant, session_id, memory_id in present:
        session = Session(tenant, session_id)
        revisions[session] += 1
        records.append(
            {**session._asdict(), "revision": revisions[session], "id": memory_id},
        )
    purged = {"change": Change.PURGED.value, "state": None, "recorded_at": now}
    dialect.insert_many(connection, memory_history, columns_of(records), purged)
    kept = Counter(Session(row.tenant, row.session_id) for row in found if not row.deleted_at)
    changed = {
        session: Totals.after(
            row, revisions=revisions[session] - row.revision, memories=-kept[session]
        )
        for session, row in locked.items()
        if revisions[session] > row.revision
    }
    raise_revisions(connection, dialect, changed, now)
    change_known(connection, dialect, _freed(found))
    return present


def _freed(purged: Sequence[Any]) -> dict[str, Usage]:
    """How the purge of rows changes what their tenants have stored."""
    freed: dict[str, Usage] = {}
    for row in purged:
        if row.deleted_at is None:
            freed[row.tenant] = freed.get(row.tenant, Usage()).minus(Usage(1, 0, row.size))
    return freed


def is_there(connection: Connection, session: Session) -> bool:
    """Whether there is anything of a session."""
    s = sessions.c
    found = select(s.revision).where(s.tenant == session.tenant, s.session_id == session.session_id)
    return connection.execute(found).first() is not None


def nothing_erased() -> dict[str, int]:
    """What `erase` answers where there is nothing of the session."""
    return {table.name: 0 for table in session_tables()}


def erase(connection: Connection, dialect: Dialect, session: Session) -> dict[str, int]:
    """Delete every row of a session in every table; answer how many there were in each."""
    counts = nothing_erased()
    locked = lock_sessions(connection, dialect, [session])
    if not locked:
        return counts  # one that comes into being from here on is another
    raise_floor(connection, dialect, session, locked[session].revision)
    _count_erased(connection, dialect, session)
    for table in session_tables():
        of_session = and_(
            table.c.tenant == session.tenant, table.c.session_id == session.session_id
        )
        counts[table.name] = connection.execute(delete(table).where(of_session)).rowcount
    dialect.owe_scrubbing(connection)
    dialect.notify(connection, notification(locked))
    return counts


def _count_erased(connection: Connection, dialect: Dialect, session: Session) -> None:
    """Take a session that will be erased from its tenant's account, if that has one."""
    accounts = open_known(connection, dialect, [session.tenant])
    for account in accounts.values():
        account.add(Usage().minus(read_usage(connection, dialect, session)))
    save_accounts(connection, dialect, accounts.values())


def expired(connection: Connection, now: datetime, limit: int) -> list[MemoryKey]:
    """Memories whose time has come, not removed yet; the longest overdue first."""
    m = memories.c
    return _keys(
        connection,
        select(m.tenant, m.session_id, m.id)
        .where(m.deleted_at.is_(None), m.expires_at <= now)
        .order_by(m.expires_at)
        .limit(limit),
    )


def unused(
    connection: Connection,
    since: datetime,
    now: datetime,
    limit: int,
    *,
    of: TenantCondition | None = None,
) -> list[MemoryKey]:
    """Live memories `of` some tenants that were not stored, changed or retrieved since a time."""
    m = memories.c
    statement = (
        select(m.tenant, m.session_id, m.id)
        .where(
            m.deleted_at.is_(None),
            m.updated_at <= since,
            or_(m.last_accessed.is_(None), m.last_accessed <= since),
            or_(m.expires_at.is_(None), m.expires_at > now),
        )
        .order_by(m.updated_at)
        .limit(limit)
    )
    if of is None:
        return _keys(connection, statement)
    return _keys(connection, statement.where(of.condition), of.parameters)


def tenants_but(dialect: Dialect, tenants: Collection[str]) -> TenantCondition | None:
    """All tenants but some; None where these are none."""
    if not tenants:
        return None
    some = tenants_among(dialect, tenants)
    return some._replace(condition=not_(some.condition))


def tenants_among(dialect: Dialect, tenants: Collection[str]) -> TenantCondition:
    """Some tenants, at least one."""
    tenant = memories.c.tenant
    keys = dialect.keys(tenant)
    among = tenant.in_(select(keys.c["tenant"]).select_from(keys.source))
    return TenantCondition(among, dialect.bind((tenant,), [(name,) for name in tenants]))


def deleted(connection: Connection, before: datetime, limit: int) -> list[MemoryKey]:
    """Memories that were deleted, or removed as expired, before a time."""
    m = memories.c
    return _keys(
        connection,
        select(m.tenant, m.session_id, m.id)
        .where(m.deleted_at <= before)
        .order_by(m.deleted_at)
        .limit(limit),
    )


def _keys(
    connection: Connection, statement: Select[Any], parameters: Row = NOTHING
) -> list[MemoryKey]:
    return [(row[0], row[1], row[2]) for row in connection.execute(statement, parameters).all()]


def _blank_answers(connection: Connection, dialect: Dialect, victims: Sequence[Any]) -> None:
    """Take the text out of the answers, and have them name memories that soon nothing else does.

    A retry brings its own text.
    """
    ids = {(row.tenant, row.session_id, row.id) for row in victims}
    made = {(row.tenant, row.session_id, row.created_revision): row.id for row in victims}
    for table in (store_receipts, store_requests):
        r = table.c
        session_key = (r.tenant, r.session_id)
        owners = {row[:2] for row in ids}
        by_revision = (r.revision,) if table is store_receipts else ()
        columns = [*session_key, r.request_id, r.memory_id, *by_revision]
        named, nameless = [], []
        for t, session_id, request, memory_id, *revision in _look_up(
            connection, dialect, session_key, owners, columns
        ):
            if memory_id is None:
                place = (t, session_id, *revision)
                if place in made:
                    nameless.append({**_request(t, session_id, request), "memory_id": made[place]})
            elif (t, session_id, memory_id) in ids:
                named.append((t, session_id, request))
        request_key = (*session_key, r.request_id)
        found = _look_up(connection, dialect, request_key, named, [*request_key, r.answer])
        blanked = [{**_request(*row[:3]), "answer": answers.blanked(row.answer)} for row in found]
        for rows in (nameless, blanked):
            if rows:
                dialect.update_many(connection, table, REQUEST_KEY, rows)


def _request(*key: str) -> dict[str, Any]:
    return dict(zip(REQUEST_KEY, key, strict=True))


def _look_up(
    connection: Connection,
    dialect: Dialect,
    key: tuple[Column[Any], ...],
    wanted: Collection[tuple[Any, ...]],
    columns: Sequence[ColumnElement[Any]],
) -> list[Any]:
    """Read columns of the rows whose key is wanted."""
    if not wanted:
        return []
    statement = dialect.look_up(key, columns)
    return list(statements.fetch_built(connection, statement, dialect.bind(key, sorted(wanted))))
