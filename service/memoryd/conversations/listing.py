"""Lists of conversations, the last updated first."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Integer, String, bindparam, select, tuple_

from memoryd.conversations import rows
from memoryd.database import statements
from memoryd.database.tables import conversations
from memoryd.database.types import UtcDateTime
from memoryd.domain.conversations import ConversationPage
from memoryd.domain.records import LATEST, Session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Select

    from memoryd.domain.conversations import Conversation
    from memoryd.domain.sessions import TenantRange

CHUNK = 500
"""Conversations that one statement reads, without the texts of their summaries."""

SCAN_LIMIT = 5_000
"""Conversations that one page looks at; a page whose labels fit few ends before it is full."""

_LAST = 2**63 - 1
"""The last revision: what a database can compare with."""

_SEPARATOR = "|"
"""Between the parts of a position; none of them has it."""


def read_page(
    connection: Connection,
    whose: Session | TenantRange,
    labels: Mapping[str, str],
    *,
    after: str,
    size: int,
    now: datetime,
) -> ConversationPage:
    """At most `size` conversations behind a position; empty: from the beginning."""
    found: list[Conversation] = []
    position, scanned = after, 0
    chunk_size = min(size + 1, CHUNK)
    while True:
        chunk = _chunk(connection, whose, position, chunk_size, now)
        for row in chunk:
            if _is_in(row, whose) and labels.items() <= row.labels.items():
                if len(found) == size:
                    return ConversationPage(found, position_of(found[-1], whose))
                found.append(row)
        scanned += len(chunk)
        if len(chunk) < chunk_size:
            return ConversationPage(found, None)
        position = position_of(chunk[-1], whose)
        if scanned >= SCAN_LIMIT:
            return ConversationPage(found, position)
        chunk_size = CHUNK


def is_position(text: str, whose: Session | TenantRange) -> bool:
    """Whether a text is what a page has given as the place to go on."""
    try:
        _parsed(text, whose)
    except ValueError:
        return False
    return True


def _chunk(
    connection: Connection,
    whose: Session | TenantRange,
    position: str,
    size: int,
    now: datetime,
) -> list[Conversation]:
    moment, session_id, revision = _parsed(position, whose)
    if isinstance(whose, Session):
        bound = {**whose._asdict(), "revision": revision, "now": now, "size": size}
        found = statements.fetch(connection, _of_session(), bound)
    else:
        bound = {
            "tenant": whose.tenant,
            "moment": moment,
            "session_id": session_id,
            "revision": revision,
            "now": now,
            "size": size,
        }
        found = statements.fetch(connection, _of_tenant(), bound)
    return [*map(rows.conversation_of, found)]


def position_of(row: Conversation, whose: Session | TenantRange) -> str:
    """Give the place behind a conversation, to go on with."""
    if isinstance(whose, Session):
        return str(row.revision)
    return _SEPARATOR.join((row.updated_at.isoformat(), row.session.session_id, str(row.revision)))


def _parsed(position: str, whose: Session | TenantRange) -> tuple[datetime, str, int]:
    """Raises ValueError."""
    if not position:
        return LATEST, "", _LAST
    if isinstance(whose, Session):
        return LATEST, "", int(position)
    moment, session_id, revision = position.split(_SEPARATOR)
    return datetime.fromisoformat(moment), session_id, int(revision)


def _is_in(row: Conversation, whose: Session | TenantRange) -> bool:
    if isinstance(whose, Session):
        return True
    return any(one.first <= row.session.session_id < one.end for one in whose.sessions)


@cache
def _of_session() -> Select[Any]:
    c = conversations.c
    return (
        select(*rows.OUTLINE)
        .where(
            c.tenant == bindparam("tenant", type_=String),
            c.session_id == bindparam("session_id", type_=String),
            c.revision < bindparam("revision", type_=BigInteger),
            rows.live(),
        )
        .order_by(c.revision.desc())
        .limit(bindparam("size", type_=Integer))
    )


@cache
def _of_tenant() -> Select[Any]:
    c = conversations.c
    order = (c.updated_at, c.session_id, c.revision)
    position = tuple_(
        bindparam("moment", type_=UtcDateTime),
        bindparam("session_id", type_=String),
        bindparam("revision", type_=BigInteger),
    )
    return (
        select(*rows.OUTLINE)
        .where(
            c.tenant == bindparam("tenant", type_=String),
            c.updated_at <= bindparam("moment", type_=UtcDateTime),
            tuple_(*order) < position,
            rows.live(),
        )
        .order_by(*(column.desc() for column in order))
        .limit(bindparam("size", type_=Integer))
    )
