"""What has changed among a session's documents since a revision, and the versions of one.

A document's row is its version at the row's revision; `document_history` has those that were
superseded, and that documents are gone. Revisions that are in neither are of memories.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select, union_all

from memoryd.database import statements
from memoryd.database.feed import Changes
from memoryd.database.tables import document_history, documents, sessions
from memoryd.documents import rows
from memoryd.domain.documents import DocumentEvent, DocumentName
from memoryd.domain.records import Change
from memoryd.sessions.history import newer, newer_rows, out_of_range
from memoryd.sessions.lock import SHARD_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Select, Table

    from memoryd.database.dialect import Dialect
    from memoryd.domain.documents import Document
    from memoryd.domain.records import Session

READ_LIMIT = 50
"""Changes that one read brings at the most."""

READ_BYTES = 4 * 1024 * 1024
"""Of bodies that one read brings, unless one is larger."""

_CURRENT = newer(documents, rows.OUTLINE, limit=READ_LIMIT, horizon=sessions.c.document_horizon)
_SUPERSEDED = newer(
    document_history,
    rows.HISTORY_OUTLINE,
    document_history.c.revision <= bindparam("until"),
    limit=READ_LIMIT,
    horizon=sessions.c.document_horizon,
)


def session_purged(revision: int) -> DocumentEvent:
    """That all documents of a session are gone."""
    return DocumentEvent(revision, Change.PURGED, DocumentName("", ""), None)


def read_changes(
    dialect: Dialect, connection: Connection, session: Session, after: int
) -> Changes[DocumentEvent]:
    """Read the next changes of documents after a revision.

    Raises RevisionOutOfRange where deletions since are no longer all known, or the session is
    another than the one that had the revision.
    """
    key = {**session._asdict(), "after": after}
    # First what is current, as in the history of memories. A version that is superseded between the
    # two reads is in both.
    current = newer_rows(statements.fetch(connection, _CURRENT, key), after)
    revision = until = current.revision
    if after > revision:
        raise out_of_range(after)
    found = {event.revision: event for event in map(_event, current.rows)}
    if len(found) == READ_LIMIT:
        until = max(found)
    superseded = newer_rows(
        statements.fetch(connection, _SUPERSEDED, {**key, "until": until}), after
    ).rows
    if len(superseded) == READ_LIMIT:
        until = _event(superseded[-1]).revision
    found |= {event.revision: event for event in map(_event, superseded)}
    events = [found[at] for at in sorted(found) if at <= until]
    fitting = _fitting(events)
    if len(fitting) < len(events):
        until = fitting[-1].revision
    complete = _with_bodies(connection, dialect, session, fitting)
    return Changes(complete, revision, is_all=until == revision)


def read_versions(
    connection: Connection, session: Session, name: DocumentName, before: int, limit: int
) -> list[Document]:
    """Read versions of one document, without bodies, before a revision; the newest first."""
    parameters = {**rows.key_of(session, name), "before": before, "how_many": limit}
    return [*map(rows.document_of, statements.fetch(connection, _VERSIONS, parameters))]


def read_bodies(
    connection: Connection, dialect: Dialect, session: Session, revisions: Sequence[int]
) -> dict[int, bytes]:
    """Read the bodies of versions; those that are gone by now are left out."""
    bodies: dict[int, bytes] = {}
    # In this order: what a writer supersedes from here on is in the history by then.
    for table in (documents, document_history):
        missing = [(*session, revision) for revision in revisions if revision not in bodies]
        if missing:
            key = _revision_key(table)
            bound = dialect.bind(key, missing)
            for row in statements.fetch(connection, _by_revision(dialect, table), bound):
                bodies[row[2]] = row[3]
    return bodies


def _event(row: Sequence[Any]) -> DocumentEvent:
    namespace, key, kind = row[2:5]
    revision, change = row[10:12]
    document = None if kind is None else rows.document_of(row)
    return DocumentEvent(revision, Change(change), DocumentName(namespace, key), document)


def _fitting(events: Sequence[DocumentEvent]) -> Sequence[DocumentEvent]:
    """The first ones, whose bodies together are not too large; at least one."""
    room = READ_BYTES
    for place, event in enumerate(events):
        room -= 0 if event.document is None else event.document.size
        if room < 0 and place:
            return events[:place]
    return events


def _with_bodies(
    connection: Connection, dialect: Dialect, session: Session, events: Sequence[DocumentEvent]
) -> Sequence[DocumentEvent]:
    """Leave out those of versions that are gone by now: that they are is yet to come."""
    revisions = [event.revision for event in events if event.document is not None]
    bodies = read_bodies(connection, dialect, session, revisions)
    return [
        event
        if event.document is None
        else event._replace(document=event.document._replace(body=bodies[event.revision]))
        for event in events
        if event.document is None or event.revision in bodies
    ]


def _of_name(table: Table) -> Any:
    named = [table.c[name] == bindparam(name) for name in rows.NAME]
    return [*named, table.c.revision < bindparam("before")]


_kept = union_all(
    select(*rows.OUTLINE).where(*_of_name(documents)),
    select(*rows.HISTORY_OUTLINE).where(
        *_of_name(document_history), document_history.c.kind.is_not(None)
    ),
).subquery()

_VERSIONS: Select[Any] = (
    select(*_kept.c).order_by(_kept.c.revision.desc()).limit(bindparam("how_many"))
)


def _revision_key(table: Table) -> tuple[Any, ...]:
    return tuple(table.c[name] for name in (*SHARD_KEY, "revision"))


@cache
def _by_revision(dialect: Dialect, table: Table) -> Select[Any]:
    key = _revision_key(table)
    has_body = () if table is documents else (table.c.kind.is_not(None),)
    return dialect.look_up(key, (*key, table.c.body), *has_body)
