"""What the sweeper looks for among documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from memoryd.database.tables import documents
from memoryd.domain.documents import DocumentName
from memoryd.domain.records import Session

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection


def expired(
    connection: Connection, now: datetime, limit: int
) -> list[tuple[Session, DocumentName]]:
    """Documents whose time has come; the longest overdue first."""
    d = documents.c
    found = connection.execute(
        select(d.tenant, d.session_id, d.namespace, d.key)
        .where(d.expires_at <= now)
        .order_by(d.expires_at)
        .limit(limit)
    )
    return [(Session(row[0], row[1]), DocumentName(row[2], row[3])) for row in found]
