"""Finding the sessions of a tenant by the beginning of their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, false, or_, select, true

from memoryd.database import statements
from memoryd.database.tables import sessions
from memoryd.domain.records import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection

    from memoryd.database.dialect import Dialect
    from memoryd.domain.principals import SessionRange


def find_sessions(
    connection: Connection, dialect: Dialect, tenant: str, wanted: SessionRange, limit: int
) -> Sequence[Session]:
    """Find the first sessions by their ids, at most so many."""
    session_id = dialect.by_code_point(sessions.c.session_id)
    conditions: list[ColumnElement[bool]] = [_begins_with(session_id, p) for p in wanted.prefixes]
    if wanted.exact:
        conditions.append(sessions.c.session_id.in_(wanted.exact))
    found = (
        select(sessions.c.tenant, sessions.c.session_id)
        .where(sessions.c.tenant == tenant, or_(false(), *conditions))
        .order_by(session_id)
        .limit(limit)
    )
    rows = statements.fetch_built(connection, found, {})
    return [Session(tenant, row.session_id) for row in rows]


def _begins_with(session_id: ColumnElement[Any], prefix: str) -> ColumnElement[bool]:
    if not prefix:
        return true()
    # No session id has a character beyond ASCII.
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return and_(session_id >= prefix, session_id < end)
