"""Documents take other names within their session, in the transaction of its other writes.

Bodies stay in the database: only names pass through here.
"""

from __future__ import annotations

from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, select

from memoryd.database import statements
from memoryd.database.dialect import columns_of
from memoryd.database.tables import document_history, documents
from memoryd.documents import rows
from memoryd.documents.listing import is_below, range_of, read_next
from memoryd.domain.documents import DocumentName, labels_of, problems_with_name
from memoryd.domain.errors import (
    DocumentAlreadyExists,
    DocumentNotFound,
    InvalidRequest,
    Violation,
)
from memoryd.domain.quotas import Usage
from memoryd.domain.records import Change
from memoryd.sessions.lock import SHARD_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Select

    from memoryd.database.dialect import Dialect, Row
    from memoryd.documents.writes import MoveDocuments
    from memoryd.domain.documents import Document
    from memoryd.domain.records import Session
    from memoryd.sessions.revisions import Revisions

MAX_MOVED = 10_000
"""Documents that one call moves."""

MAX_MOVED_VERSIONS = 50_000
"""Earlier versions that go along with them."""

MAX_MOVED_BYTES = 64 * 1024 * 1024
"""Of the bodies of both: SQLite writes them again."""

_BY_REVISION = (*SHARD_KEY, "revision")

_TAKEN = "delete it, or move to another name"


class Moved(NamedTuple):
    """What has become of a session's documents."""

    documents: tuple[Document, ...]
    """As they are now, by name, without bodies."""
    removed: int
    """How many that had expired made room."""


class _Version(NamedTuple):
    """A version of the history that goes along."""

    name: DocumentName
    revision: int
    size: int


def move_documents(
    connection: Connection,
    dialect: Dialect,
    write: MoveDocuments,
    revisions: Revisions,
    now: datetime,
) -> Moved:
    """Move documents of a session that is locked. What is refused has changed nothing.

    Raises DocumentNotFound, DocumentAlreadyExists, InvalidRequest.
    """
    session = write.session
    found = _read(connection, dialect, write, now)
    if not found:
        raise DocumentNotFound(str(write.source))
    names = {document.name: _moved(document.name, write) for document in found}
    _check_names(names)
    versions = [one for one in _read_versions(connection, write) if one.name in names]
    _check_size(found, versions)
    expired = _make_sure_of_room(connection, dialect, session, names, now)
    history = [_tombstone(session, one, Change.EXPIRED, revisions) for one in expired]
    after: list[Document] = []
    for document in found:
        history.append(_tombstone(session, document, Change.DELETED, revisions, Usage()))
        revision = revisions.take(Usage())
        after.append(
            document._replace(name=names[document.name], revision=revision, change=Change.CREATED)
        )
    gone = [rows.key_of(session, one.name) for one in expired]
    if gone:
        for table in (documents, document_history):
            dialect.delete_many(connection, table, rows.NAME, gone)
    _rename(connection, dialect, session, found, after)
    moved = [{**_place(session, one.revision), **names[one.name]._asdict()} for one in versions]
    if moved:
        dialect.update_many(connection, document_history, _BY_REVISION, moved)
    dialect.insert_many(connection, document_history, columns_of(history), {"recorded_at": now})
    return Moved(tuple(after), len(expired))


def _read(
    connection: Connection, dialect: Dialect, write: MoveDocuments, now: datetime
) -> Sequence[Document]:
    if not write.source.key:
        return read_next(
            connection,
            write.session,
            write.source.namespace,
            after=None,
            how_many=MAX_MOVED + 1,
            now=now,
        )
    found = _look_up(connection, dialect, write.session, [write.source])
    return [document for document in found if not document.is_expired(now)]


def _look_up(
    connection: Connection, dialect: Dialect, session: Session, names: Iterable[DocumentName]
) -> Sequence[Document]:
    bound = dialect.bind(rows.KEY, sorted((*session, *name) for name in names))
    found = statements.fetch(connection, _by_name(dialect), bound)
    return [*map(rows.document_of, found)]


def _moved(name: DocumentName, write: MoveDocuments) -> DocumentName:
    source, target = write.source, write.target
    if source.key:
        return target
    return DocumentName(target.namespace + name.namespace[len(source.namespace) :], name.key)


def _check_names(names: Mapping[DocumentName, DocumentName]) -> None:
    for after in names.values():
        for field, description in problems_with_name(labels_of(after.namespace), after.key):
            raise InvalidRequest(
                Violation("to", f"would give a document a {field} that {description}")
            )


def _read_versions(connection: Connection, write: MoveDocuments) -> Sequence[_Version]:
    session, source = write.session, write.source
    parameters = (
        rows.key_of(session, source)
        if source.key
        else {**session._asdict(), **range_of(source.namespace)}
    )
    statement = _versions(bool(source.key))
    found = statements.fetch(connection, statement, {**parameters, "how_many": _MOST_VERSIONS})
    return [_Version(DocumentName(*row[2:4]), *row[4:]) for row in found]


def _check_size(found: Sequence[Document], versions: Sequence[_Version]) -> None:
    size = sum(one.size for one in found) + sum(one.size for one in versions)
    if len(found) > MAX_MOVED:
        have = f"more than {MAX_MOVED:,} documents"
    elif len(versions) > MAX_MOVED_VERSIONS:
        have = f"more than {MAX_MOVED_VERSIONS:,} earlier versions of documents"
    elif size > MAX_MOVED_BYTES:
        have = f"{size:,} bytes of bodies, earlier versions included, over {MAX_MOVED_BYTES:,}"
    else:
        return
    raise InvalidRequest(
        Violation("from", f"has {have}; move namespaces below it, or documents, one by one")
    )


def _make_sure_of_room(
    connection: Connection,
    dialect: Dialect,
    session: Session,
    names: Mapping[DocumentName, DocumentName],
    now: datetime,
) -> Sequence[Document]:
    """Give those that have expired at the names wanted. Raises DocumentAlreadyExists."""
    wanted = set(names.values()) - names.keys()
    there = _look_up(connection, dialect, session, wanted) if wanted else ()
    taken = sorted(document.name for document in there if not document.is_expired(now))
    if taken:
        error = DocumentAlreadyExists(str(taken[0]), _TAKEN)
        error.field = "to"
        raise error
    return there


def _tombstone(
    session: Session,
    document: Document,
    change: Change,
    revisions: Revisions,
    usage: Usage | None = None,
) -> Row:
    """Say of a document that it is gone; by default with what it took of the quotas."""
    less = Usage(documents=-1, bytes=-document.size) if usage is None else usage
    return {
        **rows.key_of(session, document.name),
        "revision": revisions.take(less),
        "change": change.value,
    }


def _rename(
    connection: Connection,
    dialect: Dialect,
    session: Session,
    before: Sequence[Document],
    after: Sequence[Document],
) -> None:
    """First by the old names, then by the new revisions, which are unique as well."""
    revised = [
        {
            **rows.key_of(session, old.name),
            "revision": new.revision,
            "change": new.change.value,
        }
        for old, new in zip(before, after, strict=True)
    ]
    dialect.update_many(connection, documents, rows.NAME, revised)
    # A namespace may take the place of one above it. What is deeper takes names that what is less
    # deep has left.
    for _, level in groupby(sorted(after, key=_depth), key=_depth):
        renamed = [{**_place(session, new.revision), **new.name._asdict()} for new in level]
        dialect.update_many(connection, documents, _BY_REVISION, renamed)


def _depth(document: Document) -> int:
    return len(labels_of(document.name.namespace))


def _place(session: Session, revision: int) -> Row:
    return {**session._asdict(), "revision": revision}


_MOST_VERSIONS = MAX_MOVED_VERSIONS + 1


@cache
def _by_name(dialect: Dialect) -> Select[Any]:
    return dialect.look_up(rows.KEY, rows.OUTLINE)


@cache
def _versions(of_one: bool) -> Select[Any]:  # noqa: FBT001  a cache key
    """Those of one document, or of all at and below a namespace."""
    h = document_history.c
    which = (
        [h[name] == bindparam(name) for name in rows.NAME]
        if of_one
        else [is_below(document_history, has_prefix=True)]
    )
    return (
        select(*(h[name] for name in rows.NAME), h.revision, h.size)
        .where(*which, h.kind.is_not(None))
        .limit(bindparam("how_many"))
    )
