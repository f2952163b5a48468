"""What has changed in a session since a revision.

A memory's row is its version at the row's revision; `memory_history` has the versions that were
superseded, and the purges. Every revision is therefore in exactly one of the two, and storing a new
memory costs no second row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam

from memoryd.database import statements
from memoryd.database.feed import Changes
from memoryd.database.tables import memories, memory_history
from memoryd.domain.records import Change, MemoryEvent
from memoryd.memories import answers
from memoryd.memories.rows import COLUMNS, memory_of
from memoryd.sessions.history import newer, newer_rows, out_of_range

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from memoryd.domain.records import Session

READ_LIMIT = 50
"""Changes that one read brings at the most; with contents and metadata as large as may be, 2 MB."""

_CURRENT = newer(memories, COLUMNS, limit=READ_LIMIT)
_SUPERSEDED = newer(
    memory_history,
    (
        memory_history.c.revision,
        memory_history.c.id,
        memory_history.c.change,
        memory_history.c.state,
    ),
    memory_history.c.revision <= bindparam("until"),
    limit=READ_LIMIT,
)


def session_purged(revision: int) -> MemoryEvent:
    """That all memories of a session are gone."""
    return MemoryEvent(revision, Change.PURGED, "", None)


def read_changes(connection: Connection, session: Session, after: int) -> Changes[MemoryEvent]:
    """Read the next changes after a revision.

    Raises RevisionOutOfRange where purges since are no longer all known, or the session is another
    than the one that had the revision.
    """
    key = {**session._asdict(), "after": after}
    # First what is current, with the revision up to which that is so: what a writer supersedes from
    # here on is in the history below by then, and what it adds is beyond that revision.
    current = newer_rows(statements.fetch(connection, _CURRENT, key), after)
    revision = until = current.revision
    if after > revision:
        raise out_of_range(after)
    events: dict[int, MemoryEvent] = {}
    for row in current.rows:
        memory = memory_of(row)
        events[memory.revision] = MemoryEvent(
            memory.revision, memory.change, memory.memory_id, memory
        )
    if len(current.rows) == READ_LIMIT:
        until = max(events)
    if len(events) < until - after:
        superseded = newer_rows(
            statements.fetch(connection, _SUPERSEDED, {**key, "until": until}), after
        ).rows
        for at, memory_id, change, state in superseded:
            version = None if state is None else answers.from_state(session, memory_id, state)
            events[at] = MemoryEvent(at, Change(change), memory_id, version)
        if len(superseded) == READ_LIMIT:
            until = superseded[-1][0]
    in_order = tuple(events[at] for at in sorted(events) if at <= until)
    return Changes(in_order, revision, is_all=until == revision)
