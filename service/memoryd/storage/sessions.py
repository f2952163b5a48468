"""The rows of `sessions`: their revisions, and the lock that puts a session's writers in line."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, and_, select

from memoryd.model import Session
from memoryd.storage.tables import sessions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from memoryd.storage.dialect import Dialect

KEY = (sessions.c.tenant, sessions.c.session_id)


def read_revisions(
    connection: Connection, dialect: Dialect, wanted: Iterable[Session]
) -> dict[Session, int]:
    """Read the current revisions of the sessions that exist."""
    return _read(connection, dialect, wanted, lock=False)


def lock_sessions(
    connection: Connection, dialect: Dialect, wanted: Iterable[Session]
) -> dict[Session, int]:
    """Lock the sessions that exist until the transaction ends, in one order for all writers.

    Gives their revisions.
    """
    return _read(connection, dialect, wanted, lock=True)


def _read(
    connection: Connection, dialect: Dialect, wanted: Iterable[Session], *, lock: bool
) -> dict[Session, int]:
    in_order = sorted(set(wanted))
    if not in_order:
        return {}
    found = connection.execute(_statement(dialect, lock), dialect.bind(KEY, in_order)).all()
    return {Session(tenant, session_id): revision for tenant, session_id, revision in found}


@cache
def _statement(dialect: Dialect, lock: bool) -> Select[Any]:  # noqa: FBT001  a cache key
    keys = dialect.keys(*KEY)
    statement = (
        select(*KEY, sessions.c.revision)
        .select_from(keys.source.join(sessions, and_(*(c == keys.c[c.name] for c in KEY))))
        .order_by(*KEY)
    )
    return statement.with_for_update(of=sessions) if lock else statement
