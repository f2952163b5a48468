"""Counts for sessions whose rows have none.

They are older than the columns, or a server of an earlier release has written to them since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import select, tuple_

from memoryd.database.tables import sessions
from memoryd.domain.records import Session
from memoryd.sessions.lock import KEY, SHARD_KEY, lock_sessions
from memoryd.sessions.records import count

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect

LOOKED_AT = 2_000
"""Rows of sessions that one transaction looks at."""

COUNTED = 200
"""Sessions that one transaction counts, under their locks."""


class Portion(NamedTuple):
    counted: int
    last: Session | None
    """The last session that was looked at; None: there are no more."""


def fill_counts(
    connection: Connection, dialect: Dialect, after: Session | None, now: datetime
) -> Portion:
    """Count some of the sessions behind one whose rows do not say what they hold."""
    s = sessions.c
    wanted = select(*KEY, s.revision, s.counted_revision, s.created_at).order_by(*KEY)
    if after is not None:
        wanted = wanted.where(tuple_(*KEY) > tuple_(*after))
    looked_at = connection.execute(wanted.limit(LOOKED_AT)).all()
    unknown: list[Session] = []
    last = None
    if len(looked_at) == LOOKED_AT:
        last = Session(looked_at[-1].tenant, looked_at[-1].session_id)
    for row in looked_at:
        if row.counted_revision != row.revision or row.created_at is None:
            unknown.append(Session(row.tenant, row.session_id))
            if len(unknown) == COUNTED:
                last = unknown[-1]
                break
    locked = lock_sessions(connection, dialect, unknown)
    rows = [
        {
            **session._asdict(),
            "memory_count": kept,
            "counted_revision": record.revision,
            "created_at": record.created_at or now,
            "updated_at": record.updated_at or now,
        }
        for session, (record, kept) in count(connection, dialect, locked, now).items()
    ]
    if rows:
        dialect.update_many(connection, sessions, SHARD_KEY, rows)
    return Portion(len(rows), last)
