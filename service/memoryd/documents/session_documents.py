"""One session's documents while writes are applied: rows that matter, with the changes so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from memoryd.domain.documents import Document, NewDocument
from memoryd.domain.errors import DocumentAlreadyExists, DocumentNotFound, EtagMismatch
from memoryd.domain.quotas import Usage
from memoryd.domain.records import Change, expiry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from memoryd.domain.documents import DocumentName, Removal
    from memoryd.domain.records import Session
    from memoryd.sessions.revisions import Revisions


class Gone(NamedTuple):
    """That a document is no longer there."""

    name: DocumentName
    revision: int
    change: Change


class SessionDocuments:
    """Knows no database."""

    def __init__(self, session: Session, now: datetime) -> None:
        self.session = session
        self._now = now
        self._rows: dict[DocumentName, Document | None] = {}
        """As they are after the changes so far; None: there is none."""
        self.stored: set[DocumentName] = set()
        """Names that the database has a row of."""
        self.search_texts: dict[DocumentName, Sequence[str]] = {}
        """Of those that were put."""
        self.changed: set[DocumentName] = set()
        self.refreshed: set[DocumentName] = set()
        self.kept: dict[DocumentName, None] = {}
        """Names whose row in the database becomes a version of the history."""
        self.superseded: list[Document] = []
        """Versions of the history that were never a row."""
        self.purged: set[DocumentName] = set()
        """Names whose versions in the history go."""
        self.gone: list[Gone] = []

    def copy(self) -> SessionDocuments:
        """The state to go back to if a write is refused in its middle."""
        twin = SessionDocuments(self.session, self._now)
        twin._rows = dict(self._rows)
        twin.stored = set(self.stored)
        twin.search_texts = dict(self.search_texts)
        twin.changed = set(self.changed)
        twin.refreshed = set(self.refreshed)
        twin.kept = dict(self.kept)
        twin.superseded = list(self.superseded)
        twin.purged = set(self.purged)
        twin.gone = list(self.gone)
        return twin

    def load(self, rows: Iterable[Document]) -> None:
        """Take in rows as the database has them, without bodies."""
        for row in rows:
            self._rows[row.name] = row
            self.stored.add(row.name)

    @property
    def count_change(self) -> int:
        """How many documents more the session has after the changes than before."""
        after = sum(self._rows[name] is not None for name in self.changed)
        return after - len(self.changed & self.stored)

    def current(self, name: DocumentName) -> Document | None:
        """The row by now, expired or not."""
        return self._rows.get(name)

    def put(self, new: NewDocument, revisions: Revisions) -> Document:
        """Raises DocumentAlreadyExists, EtagMismatch, QuotaExceeded."""
        before = self._live(new.name, revisions)
        if before is not None and new.if_absent:
            raise _at(DocumentAlreadyExists(str(new.name)), new.field)
        _check_etag(before, new)
        size = len(new.body)
        added = Usage(documents=before is None, bytes=size - (0 if before is None else before.size))
        document = Document(
            self.session,
            new.name,
            new.kind,
            new.labels,
            new.ttl,
            self._now if before is None else before.created_at,
            self._now,
            expiry(self._now, new.ttl),
            revisions.take(added),
            Change.CREATED if before is None else Change.UPDATED,
            size,
            new.sha256,
            new.body,
        )
        if before is not None:
            self._supersede(before)
        self._set(new.name, document)
        self.search_texts[new.name] = new.search_texts
        return document

    def delete(self, removal: Removal, revisions: Revisions) -> None:
        """Raises DocumentNotFound, EtagMismatch."""
        before = self._live(removal.name, revisions)
        if before is None and not removal.etag:
            if removal.allow_missing:
                return
            raise _at(DocumentNotFound(str(removal.name)), removal.field)
        _check_etag(before, removal)
        self.remove(removal.name, revisions)

    def remove(self, name: DocumentName, revisions: Revisions) -> Document | None:
        """Delete it; give what was there."""
        before = self._live(name, revisions)
        if before is not None:
            self._remove(before, Change.DELETED, revisions)
        return before

    def expire(self, name: DocumentName, revisions: Revisions) -> None:
        """Remove it if its time has come."""
        self._live(name, revisions)

    def refresh(self, name: DocumentName) -> Document | None:
        """Have it live for its ttl from now. Changes no revision."""
        before = self._rows.get(name)
        if before is None or before.ttl is None or before.is_expired(self._now):
            return None
        after = before._replace(expires_at=expiry(self._now, before.ttl))
        self._rows[name] = after
        self.refreshed.add(name)
        return after

    def _live(self, name: DocumentName, revisions: Revisions) -> Document | None:
        """What is there. One that has expired makes room."""
        row = self._rows.get(name)
        if row is not None and row.is_expired(self._now):
            self._remove(row, Change.EXPIRED, revisions)
            return None
        return row

    def _remove(self, row: Document, change: Change, revisions: Revisions) -> None:
        revision = revisions.take(Usage(documents=-1, bytes=-row.size))
        name = row.name
        self.kept.pop(name, None)
        self.superseded = [version for version in self.superseded if version.name != name]
        self.purged.add(name)
        self.gone.append(Gone(name, revision, change))
        self._set(name, None)

    def _supersede(self, row: Document) -> None:
        if row.body is None:  # as the database has it
            self.kept[row.name] = None
        else:
            self.superseded.append(row)

    def _set(self, name: DocumentName, row: Document | None) -> None:
        self._rows[name] = row
        self.changed.add(name)


def _check_etag(found: Document | None, item: NewDocument | Removal) -> None:
    if item.etag and (found is None or found.etag != item.etag):
        raise _at(EtagMismatch("the document"), item.field)


def _at(
    error: DocumentAlreadyExists | DocumentNotFound | EtagMismatch, field: str
) -> DocumentAlreadyExists | DocumentNotFound | EtagMismatch:
    error.field = field
    return error
