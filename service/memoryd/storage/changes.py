"""What has changed in a session since a revision.

A memory's row is its version at the row's revision; `memory_history` has the versions that were
superseded, and the purges. Every revision is therefore in exactly one of the two, and storing a new
memory costs no second row.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from sqlalchemy import and_, bindparam, select

from memoryd.errors import RevisionOutOfRange
from memoryd.model import Change, MemoryEvent
from memoryd.storage import answers
from memoryd.storage.rows import COLUMNS, memory_of
from memoryd.storage.tables import memories, memory_history, sessions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection

    from memoryd.model import Session
    from memoryd.storage.dialect import Dialect

CHANNEL = "memoryd_changes"
"""Of PostgreSQL's NOTIFY. A payload is the fingerprints of the sessions that changed."""

MAX_PAYLOAD_BYTES = 7_900
"""PostgreSQL takes less than 8,000."""

READ_LIMIT = 200
"""Changes that one read brings at the most."""

_WATCHED = and_(
    sessions.c.tenant == bindparam("tenant"), sessions.c.session_id == bindparam("session_id")
)
_CURRENT = (
    select(sessions.c.revision, sessions.c.horizon, *COLUMNS)
    .select_from(
        sessions.outerjoin(
            memories,
            and_(
                memories.c.tenant == sessions.c.tenant,
                memories.c.session_id == sessions.c.session_id,
                memories.c.revision > bindparam("after"),
            ),
        )
    )
    .where(_WATCHED)
    .order_by(memories.c.revision)
    .limit(READ_LIMIT)
)
_SUPERSEDED = (
    select(
        memory_history.c.revision,
        memory_history.c.id,
        memory_history.c.change,
        memory_history.c.state,
    )
    .where(
        memory_history.c.tenant == bindparam("tenant"),
        memory_history.c.session_id == bindparam("session_id"),
        memory_history.c.revision > bindparam("after"),
        memory_history.c.revision <= bindparam("until"),
    )
    .order_by(memory_history.c.revision)
    .limit(READ_LIMIT)
)


def fingerprint(session: Session) -> str:
    """Eight hex digits; two sessions that share them wake each other's watchers, no more."""
    return f"{zlib.crc32('/'.join(session).encode()):08x}"


def payloads(changed: Iterable[Session]) -> Iterator[str]:
    """What to notify of, in as few payloads as will do."""
    prints = sorted({fingerprint(session) for session in changed})
    size = MAX_PAYLOAD_BYTES // 9
    for start in range(0, len(prints), size):
        yield " ".join(prints[start : start + size])


def announce(connection: Connection, dialect: Dialect, changed: Iterable[Session]) -> None:
    """Have other processes told when this transaction commits."""
    for payload in payloads(changed):
        dialect.notify(connection, CHANNEL, payload)


def read_changes(connection: Connection, session: Session, after: int) -> list[MemoryEvent]:
    """Read the next changes after a revision, in order and without a gap.

    Raises RevisionOutOfRange where purges since are no longer all known, or the session is another
    than the one that had the revision.
    """
    key = {**session._asdict(), "after": after}
    # First what is current, with the revision up to which that is so: what a writer supersedes from
    # here on is in the history below by then, and what it adds is beyond that revision.
    current = connection.execute(_CURRENT, key).all()
    if not current:
        if after:
            raise _out_of_range(after)
        return []
    until, horizon = current[0][0], current[0][1]
    if after > until or 0 < after < horizon:
        raise _out_of_range(after)
    events: dict[int, MemoryEvent] = {}
    for row in current:
        if row[2] is not None:
            memory = memory_of(row[2:])
            events[memory.revision] = MemoryEvent(
                memory.revision, memory.change, memory.memory_id, memory
            )
    if len(current) == READ_LIMIT:
        until = max(events)
    if len(events) < until - after:
        superseded = connection.execute(_SUPERSEDED, {**key, "until": until}).all()
        for revision, memory_id, change, state in superseded:
            version = None if state is None else answers.from_state(session, memory_id, state)
            events[revision] = MemoryEvent(revision, Change(change), memory_id, version)
        if len(superseded) == READ_LIMIT:
            until = superseded[-1][0]
    return [events[revision] for revision in sorted(events) if revision <= until]


def _out_of_range(after: int) -> RevisionOutOfRange:
    return RevisionOutOfRange(
        f"changes since revision {after} are no longer all kept, or the session was erased since;"
        " list the memories anew and watch from there"
    )
