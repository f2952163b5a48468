"""What a session's documents are found by, as it is and as it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Text, bindparam, cast, func, select

from memoryd.database import statements
from memoryd.database.tables import document_history, documents, sessions
from memoryd.documents import rows
from memoryd.documents.listing import is_below
from memoryd.domain.documents import DocumentName
from memoryd.sessions.history import newer, newer_rows, out_of_range

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.domain.records import Session

READ_LIMIT = 100
"""Documents that one read brings."""

_TEXTS = (
    *rows.KEY,
    documents.c.revision,
    documents.c.updated_at,
    documents.c.search_texts,
)
_GONE = (*(document_history.c[name] for name in rows.NAME), document_history.c.revision)

_SEARCHABLE = (
    select(*_TEXTS)
    .where(
        is_below(documents, has_prefix=False),
        documents.c.search_texts.is_not(None),
        documents.c.revision > bindparam("after"),
        documents.c.revision <= bindparam("until"),
    )
    .order_by(documents.c.revision)
    .limit(READ_LIMIT)
)
_CHANGED = newer(documents, _TEXTS, limit=READ_LIMIT, horizon=sessions.c.document_horizon)
_REMOVED = newer(
    document_history,
    _GONE,
    document_history.c.kind.is_(None),
    document_history.c.revision <= bindparam("until"),
    limit=READ_LIMIT,
    horizon=sessions.c.document_horizon,
)


_SIZE = select(func.coalesce(func.sum(func.length(cast(documents.c.search_texts, Text))), 0)).where(
    is_below(documents, has_prefix=False), documents.c.search_texts.is_not(None)
)


class Texts(NamedTuple):
    """The search texts of a document as of a revision; none: it has none, or is gone."""

    name: DocumentName
    revision: int
    updated_at: datetime | None
    texts: Sequence[str]


class TextChanges(NamedTuple):
    """What has changed, in the order of revisions."""

    found: Sequence[Texts]
    until: int
    """Up to this revision it is all."""
    is_all: bool
    """Whether that is as far as the session is."""


def read_searchable(
    connection: Connection, session: Session, after: int, until: int
) -> TextChanges:
    """Read the next documents that have search texts, up to a revision."""
    key = {**session._asdict(), "after": after, "until": until}
    found = [_texts(row) for row in statements.fetch(connection, _SEARCHABLE, key)]
    if len(found) == READ_LIMIT:
        return TextChanges(found, found[-1].revision, is_all=False)
    return TextChanges(found, until, is_all=True)


def read_size(connection: Connection, session: Session) -> int:
    """About how many characters the search texts of a session have, from above."""
    return int(connection.execute(_SIZE, session._asdict()).scalar_one())


def read_text_changes(connection: Connection, session: Session, after: int) -> TextChanges:
    """Read what has changed after a revision. Raises RevisionOutOfRange."""
    key = {**session._asdict(), "after": after}
    # First what is current, as in the history of documents.
    current = newer_rows(statements.fetch(connection, _CHANGED, key), after)
    revision = until = current.revision
    if after > revision:
        raise out_of_range(after)
    found = [_texts(row) for row in current.rows]
    if len(found) == READ_LIMIT:
        until = found[-1].revision
    removed = newer_rows(statements.fetch(connection, _REMOVED, {**key, "until": until}), after)
    gone = [Texts(DocumentName(*row[2:4]), row[4], None, ()) for row in removed.rows]
    if len(gone) == READ_LIMIT:
        until = gone[-1].revision
    changes = sorted((*found, *gone), key=lambda one: one.revision)
    changes = [one for one in changes if one.revision <= until]
    return TextChanges(changes, until, is_all=until == revision)


def _texts(row: Sequence[Any]) -> Texts:
    _, _, namespace, key, revision, updated_at, texts = row
    return Texts(DocumentName(namespace, key), revision, updated_at, texts or ())
