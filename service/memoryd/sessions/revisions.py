"""Revisions of sessions: raised under their lock, and announced to other processes.

What a session holds is written with its revision: the row is updated anyway.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple, Protocol

from memoryd.database.dialect import Notification
from memoryd.database.tables import sessions
from memoryd.sessions.lock import SHARD_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect, Insertion, Row, Update
    from memoryd.domain.quotas import Usage
    from memoryd.domain.records import Session
    from memoryd.sessions.lock import LockedSession

CHANNEL = "memoryd_changes"
"""Of PostgreSQL's NOTIFY. A payload is the fingerprints of the sessions that changed."""

MAX_PAYLOAD_BYTES = 7_900
"""PostgreSQL takes less than 8,000."""


class Revisions(Protocol):
    """Gives out the revisions of one session, under its lock."""

    def take(self, change: Usage) -> int:
        """Take the next one for a change. Raises QuotaExceeded, and takes none."""


class Totals(NamedTuple):
    """What a transaction leaves a session at."""

    revision: int
    memories: int | None
    """Those that are not deleted, expired ones included; None where they are not counted."""
    documents: int
    conversations: int

    @classmethod
    def after(
        cls,
        before: LockedSession,
        *,
        revisions: int,
        memories: int = 0,
        documents: int = 0,
        conversations: int = 0,
    ) -> Totals:
        """Give those after so many revisions, and so many things of each kind more."""
        kept = before.kept_memories
        return cls(
            before.revision + revisions,
            None if kept is None else kept + memories,
            before.document_count + documents,
            before.conversation_count + conversations,
        )


def fingerprint(session: Session) -> str:
    """Eight hex digits; two sessions that share them wake each other's watchers, no more."""
    return f"{zlib.crc32('/'.join(session).encode()):08x}"


def notification(changed: Iterable[Session]) -> Notification:
    """What other processes are notified of, in as few payloads as possible."""
    prints = sorted({fingerprint(session) for session in changed})
    size = MAX_PAYLOAD_BYTES // 9
    starts = range(0, len(prints), size)
    return Notification(CHANNEL, [" ".join(prints[start : start + size]) for start in starts])


def row_after(session: Session, totals: Totals, now: datetime) -> Row:
    """Give the key of a session's row, and what every change of the session writes to it."""
    return {
        **session._asdict(),
        "revision": totals.revision,
        "memory_count": totals.memories,
        "counted_revision": None if totals.memories is None else totals.revision,
        "document_count": totals.documents,
        "conversation_count": totals.conversations,
        "updated_at": now,
    }


def raise_revisions(
    connection: Connection,
    dialect: Dialect,
    changed: Mapping[Session, Totals],
    now: datetime,
    along: Sequence[Insertion | Update] = (),
) -> None:
    """Set sessions to what they are now, write what goes along, and notify other processes."""
    if changed:
        rows = [row_after(session, totals, now) for session, totals in sorted(changed.items())]
        news = notification(changed)
        dialect.update_many(connection, sessions, SHARD_KEY, rows, notification=news, along=along)
