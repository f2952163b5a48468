"""What has changed in a session since a revision.

A memory's row is its version at the row's revision; `memory_history` has the versions that were
superseded, and the purges. Every revision is therefore in exactly one of the two, and storing a new
memory costs no second row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, bindparam, select, true

from memoryd.database import statements
from memoryd.database.feed import Changes
from memoryd.database.tables import memories, memory_history, sessions
from memoryd.domain.errors import RevisionOutOfRange
from memoryd.domain.records import Change, MemoryEvent
from memoryd.memories import answers
from memoryd.memories.rows import COLUMNS, memory_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Column, ColumnElement, Connection, Table

    from memoryd.domain.records import Session

READ_LIMIT = 50
"""Changes that one read brings at the most; with contents and metadata as large as may be, 2 MB."""

_WATCHED = and_(
    sessions.c.tenant == bindparam("tenant"), sessions.c.session_id == bindparam("session_id")
)


def _newer(table: Table, columns: Sequence[Column[Any]], *conditions: ColumnElement[bool]) -> Any:
    """The session's row joined with the first rows of another table after a revision, in order."""
    rows = (
        select(*columns)
        .where(
            table.c.tenant == bindparam("tenant"),
            table.c.session_id == bindparam("session_id"),
            table.c.revision > bindparam("after"),
            *conditions,
        )
        .order_by(table.c.revision)
        .limit(READ_LIMIT)
        .subquery()
    )
    return (
        select(sessions.c.revision, sessions.c.horizon, *rows.c)
        .select_from(sessions.outerjoin(rows, true()))
        .where(_WATCHED)
        .order_by(rows.c.revision)
    )


_CURRENT = _newer(memories, COLUMNS)
_SUPERSEDED = _newer(
    memory_history,
    (
        memory_history.c.revision,
        memory_history.c.id,
        memory_history.c.change,
        memory_history.c.state,
    ),
    memory_history.c.revision <= bindparam("until"),
)


def read_changes(connection: Connection, session: Session, after: int) -> Changes[MemoryEvent]:
    """Read the next changes after a revision.

    Raises RevisionOutOfRange where purges since are no longer all known, or the session is another
    than the one that had the revision.
    """
    key = {**session._asdict(), "after": after}
    # First what is current, with the revision up to which that is so: what a writer supersedes from
    # here on is in the history below by then, and what it adds is beyond that revision.
    current = _rows(statements.fetch(connection, _CURRENT, key), after)
    revision = until = current.revision
    if after > revision:
        raise _out_of_range(after)
    events: dict[int, MemoryEvent] = {}
    for row in current.rows:
        memory = memory_of(row)
        events[memory.revision] = MemoryEvent(
            memory.revision, memory.change, memory.memory_id, memory
        )
    if len(current.rows) == READ_LIMIT:
        until = max(events)
    if len(events) < until - after:
        superseded = _rows(
            statements.fetch(connection, _SUPERSEDED, {**key, "until": until}), after
        ).rows
        for at, memory_id, change, state in superseded:
            version = None if state is None else answers.from_state(session, memory_id, state)
            events[at] = MemoryEvent(at, Change(change), memory_id, version)
        if len(superseded) == READ_LIMIT:
            until = superseded[-1][0]
    in_order = tuple(events[at] for at in sorted(events) if at <= until)
    return Changes(in_order, revision, is_all=until == revision)


class _Rows(NamedTuple):
    revision: int
    rows: Sequence[Sequence[Any]]


def _rows(found: Sequence[Sequence[Any]], after: int) -> _Rows:
    """Take apart what `_newer` found. Raises RevisionOutOfRange."""
    if not found:
        if after:
            raise _out_of_range(after)
        return _Rows(0, ())
    revision, horizon = found[0][0], found[0][1]
    if 0 < after < horizon:
        raise _out_of_range(after)
    return _Rows(revision, [row[2:] for row in found if row[2] is not None])


def _out_of_range(after: int) -> RevisionOutOfRange:
    return RevisionOutOfRange(
        f"changes since revision {after} are no longer all kept, or the session was erased since;"
        " list the memories again and watch from there"
    )
