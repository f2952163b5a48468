"""Revisions of sessions: raised under their lock, and announced to other processes."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from memoryd.database.dialect import Notification
from memoryd.database.tables import sessions
from memoryd.sessions.lock import SHARD_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect, Insertion
    from memoryd.domain.records import Session

CHANNEL = "memoryd_changes"
"""Of PostgreSQL's NOTIFY. A payload is the fingerprints of the sessions that changed."""

MAX_PAYLOAD_BYTES = 7_900
"""PostgreSQL takes less than 8,000."""


def fingerprint(session: Session) -> str:
    """Eight hex digits; two sessions that share them wake each other's watchers, no more."""
    return f"{zlib.crc32('/'.join(session).encode()):08x}"


def notification(changed: Iterable[Session]) -> Notification:
    """What other processes are notified of, in as few payloads as possible."""
    prints = sorted({fingerprint(session) for session in changed})
    size = MAX_PAYLOAD_BYTES // 9
    starts = range(0, len(prints), size)
    return Notification(CHANNEL, [" ".join(prints[start : start + size]) for start in starts])


def raise_revisions(
    connection: Connection,
    dialect: Dialect,
    revisions: Mapping[Session, int],
    along: Sequence[Insertion] = (),
) -> None:
    """Set sessions to new revisions, insert what goes along, and notify other processes."""
    if revisions:
        rows = [{**session._asdict(), "revision": n} for session, n in sorted(revisions.items())]
        news = notification(revisions)
        dialect.update_many(connection, sessions, SHARD_KEY, rows, notification=news, along=along)
