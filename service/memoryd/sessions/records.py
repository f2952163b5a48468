"""Rows of `sessions` as callers see them: with live counts, and times."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, func, select

from memoryd.database import statements
from memoryd.database.moments import expired
from memoryd.database.tables import conversations, documents, memories, sessions
from memoryd.domain.records import Session
from memoryd.domain.sessions import SessionRecord, SessionSettings
from memoryd.sessions.lock import KEY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Select, Table

    from memoryd.database.dialect import Dialect

_KEPT = memories.c.deleted_at.is_(None)


_SETTINGS = tuple(sessions.c[name] for name in SessionSettings._fields)

Routing = Callable[["Table"], "Iterable[ColumnElement[bool]]"]
"""As `Dialect.routing`."""


def _unrouted(_table: Table) -> tuple[ColumnElement[bool], ...]:
    return ()


def _of(table: Table, value: ColumnElement[Any], *conditions: ColumnElement[bool]) -> Any:
    """Give a value of a table's rows of the session."""
    t = table.c
    return (
        select(value)
        .where(t.tenant == sessions.c.tenant, t.session_id == sessions.c.session_id, *conditions)
        .correlate(sessions)
        .scalar_subquery()
    )


def _columns(routing: Routing) -> tuple[Any, ...]:
    def overdue(table: Table, *conditions: ColumnElement[bool]) -> Any:
        """Count what has expired by NOW and is not swept yet."""
        due = expired(table.c.expires_at)
        return _of(table, func.count(), *routing(table), *conditions, due)

    return (
        *KEY,
        sessions.c.memory_count,
        sessions.c.counted_revision,
        (sessions.c.document_count - overdue(documents)).label("document_count"),
        (sessions.c.conversation_count - overdue(conversations)).label("conversation_count"),
        sessions.c.created_at,
        sessions.c.updated_at,
        sessions.c.revision,
        sessions.c.settings_revision,
        overdue(memories, _KEPT).label("overdue"),
        *_SETTINGS,
    )


def _counted(routing: Routing) -> tuple[Any, ...]:
    """What the rows of a session's memories say where its own does not."""
    m, own = memories.c, tuple(routing(memories))
    return (
        _of(memories, func.count(), *own, _KEPT).label("kept"),
        _of(memories, func.min(m.created_at), *own).label("first_created"),
        _of(memories, func.max(m.updated_at), *own).label("last_updated"),
        _of(memories, func.max(m.deleted_at), *own).label("last_deleted"),
    )


COLUMNS = _columns(_unrouted)
"""What `record_of` makes a record of. `overdue` is what has expired by NOW and is not swept yet."""


def is_counted(row: Sequence[Any]) -> bool:
    """Whether a row that begins with COLUMNS says itself what the session holds, and since when."""
    _, _, _, counted_revision, _, _, created_at, _, revision, *_ = row
    return counted_revision == revision and created_at is not None


def record_of(row: Sequence[Any]) -> SessionRecord:
    """The record of a row that begins with COLUMNS.

    It ends with those of `_counted` if it was counted.
    """
    tenant, session_id, memory_count, _, documents_found, conversations_found = row[:6]
    created_at, updated_at, revision, settings_revision, overdue = row[6:11]
    settings, counted = row[11 : len(COLUMNS)], row[len(COLUMNS) :]
    if counted:
        memory_count, first_created, *changes = counted
        created_at = created_at or first_created
        updated_at = max(filter(None, (updated_at, *changes)), default=None)
    name, labels, state, limit, ttl, never_expire = settings
    return SessionRecord(
        Session(tenant, session_id),
        SessionSettings(name or "", labels or {}, state or {}, limit, ttl, bool(never_expire)),
        memory_count - overdue,
        documents_found,
        conversations_found,
        created_at,
        updated_at,
        revision,
        settings_revision or 0,
    )


def read_records(
    connection: Connection, dialect: Dialect, wanted: Collection[Session], now: datetime
) -> dict[Session, SessionRecord]:
    """Read sessions by their ids; those that no row counts are counted."""
    if not wanted:
        return {}
    bound = {**dialect.bind(KEY, sorted(wanted)), "now": now}
    rows = statements.fetch(connection, _by_key(dialect), bound)
    return complete(connection, dialect, rows, now)


def complete(
    connection: Connection, dialect: Dialect, rows: Sequence[Sequence[Any]], now: datetime
) -> dict[Session, SessionRecord]:
    """Make records of rows of COLUMNS, in their order; count those that no row counts."""
    unknown = [Session(row[0], row[1]) for row in rows if not is_counted(row)]
    counted = count(connection, dialect, unknown, now)
    records: dict[Session, SessionRecord] = {}
    for row in rows:
        session = Session(row[0], row[1])
        if is_counted(row):
            records[session] = record_of(row)
        elif session in counted:  # else it was erased meanwhile
            records[session] = counted[session].record
    return records


class Counted(NamedTuple):
    """What the rows of a session's memories say."""

    record: SessionRecord
    kept: int
    """Memories that are not deleted, expired ones included."""


def count(
    connection: Connection, dialect: Dialect, unknown: Collection[Session], now: datetime
) -> dict[Session, Counted]:
    """Read sessions whose rows do not say what they hold, in one statement."""
    if not unknown:
        return {}
    bound = {**dialect.bind(KEY, sorted(unknown)), "now": now}
    found = statements.fetch(connection, _counting(dialect), bound)
    return {Session(*row[:2]): Counted(record_of(row), row[len(COLUMNS)]) for row in found}


@cache
def _by_key(dialect: Dialect) -> Select[Any]:
    return _selected(dialect, _columns(dialect.routing))


@cache
def _counting(dialect: Dialect) -> Select[Any]:
    return _selected(dialect, (*_columns(dialect.routing), *_counted(dialect.routing)))


def _selected(dialect: Dialect, columns: tuple[Any, ...]) -> Select[Any]:
    keys = dialect.keys(*KEY)
    joined = keys.source.join(sessions, and_(*(c == keys.c[c.name] for c in KEY)))
    return select(*columns).select_from(joined).where(*dialect.routing(sessions))
