"""Dropping what was kept of sessions long enough: request ids and history of any kind of thing."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import select, update

from memoryd.database.tables import sessions
from memoryd.domain.records import Session
from memoryd.sessions.lock import SHARD_KEY, lock_sessions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Column, ColumnElement, Connection, Table

    from memoryd.database.dialect import Dialect

_REQUEST_KEY = (*SHARD_KEY, "request_id")
_HISTORY_KEY = (*SHARD_KEY, "revision")


class History(NamedTuple):
    """A table of what things in a session were before."""

    table: Table
    is_gone: ColumnElement[bool]
    """Whether a row says that something is no longer there."""
    horizon: Column[Any]
    """Of a session: before it not everything that is gone is known any more."""


def drop_requests(
    connection: Connection, dialect: Dialect, table: Table, before: datetime, limit: int
) -> int:
    """Forget the oldest request ids that were used before a time; answer how many."""
    r = table.c
    old = connection.execute(
        select(r.tenant, r.session_id, r.request_id)
        .where(r.created_at < before)
        .order_by(r.created_at)
        .limit(limit)
    ).all()
    _lock(connection, dialect, old)
    return _delete(connection, dialect, table, _REQUEST_KEY, old)


def drop_history(
    connection: Connection,
    dialect: Dialect,
    history: History,
    before: datetime,
    limit: int,
) -> int:
    """Drop the oldest history recorded before a time; answer how much.

    Where it says that something is gone, the session's horizon moves: a resume from before it could
    miss that.
    """
    table, is_gone, horizon = history
    h = table.c
    old = connection.execute(
        select(h.tenant, h.session_id, h.revision, is_gone)
        .where(h.recorded_at < before)
        .order_by(h.recorded_at)
        .limit(limit)
    ).all()
    _lock(connection, dialect, old)
    horizons: defaultdict[Session, int] = defaultdict(int)
    for tenant, session_id, revision, gone in old:
        if gone:
            session = Session(tenant, session_id)
            horizons[session] = max(horizons[session], revision)
    for session, beginning in sorted(horizons.items()):
        connection.execute(
            update(sessions)
            .where(
                sessions.c.tenant == session.tenant,
                sessions.c.session_id == session.session_id,
                horizon < beginning,
            )
            .values({horizon.name: beginning})
        )
    return _delete(connection, dialect, table, _HISTORY_KEY, old)


def _lock(connection: Connection, dialect: Dialect, rows: Iterable[Sequence[Any]]) -> None:
    """Lock the sessions of rows, as everything that deletes rows of theirs does first."""
    lock_sessions(connection, dialect, (Session(row[0], row[1]) for row in rows))


def _delete(
    connection: Connection,
    dialect: Dialect,
    table: Table,
    key: tuple[str, ...],
    rows: Sequence[Sequence[Any]],
) -> int:
    """Delete rows by keys that stand first in `rows`."""
    if not rows:
        return 0
    keys = [dict(zip(key, row, strict=False)) for row in rows]
    return dialect.delete_many(connection, table, key, keys)
