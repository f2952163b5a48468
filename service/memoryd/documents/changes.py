"""The documents of one transaction.

It reads what matters, applies writes in their order, and writes what came out in a constant number
of statements. The unit of work holds the locks, and gives out revisions.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, insert, select

from memoryd.database import statements
from memoryd.database.dialect import Insertion, columns_of
from memoryd.database.keyed import fetch_keyed
from memoryd.database.tables import document_history, document_requests, documents
from memoryd.database.types import UtcDateTime
from memoryd.documents import rows
from memoryd.documents.answers import (
    REQUEST_KEY,
    Answered,
    answers_by_request,
    from_answer,
    to_answer,
)
from memoryd.documents.moving import move_documents
from memoryd.documents.session_documents import SessionDocuments
from memoryd.documents.writes import (
    ExpireDocument,
    MoveDocuments,
    OnNames,
    RefreshDocuments,
    RemoveDocuments,
    WriteDocuments,
)
from memoryd.domain.documents import Document, NewDocument
from memoryd.domain.errors import RequestIdReused
from memoryd.domain.records import Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Insert

    from memoryd.database.dialect import Dialect, Row
    from memoryd.documents.writes import DocumentsOutcome, DocumentWrite
    from memoryd.domain.documents import DocumentName
    from memoryd.sessions.revisions import Revisions

_KEPT = (*rows.VERSION, "recorded_at")


class _State(NamedTuple):
    """What to go back to if a write is refused in its middle."""

    session: Session
    documents: SessionDocuments


class DocumentChanges:
    """Documents in one transaction."""

    def __init__(
        self,
        connection: Connection,
        dialect: Dialect,
        now: datetime,
        revisions: Mapping[Session, Revisions],
    ) -> None:
        """`revisions`: those of the sessions that writes are about."""
        self._connection = connection
        self._dialect = dialect
        self._now = now
        self._revisions = revisions
        self._sessions: dict[Session, SessionDocuments] = {}
        self._requests: dict[tuple[Session, str], Answered] = {}
        self._names: defaultdict[Session, set[DocumentName]] = defaultdict(set)
        """What the writes are about, as far as they name it."""
        self._saved: Counter[Session] = Counter()
        """How many documents more a session has by what is saved already."""

    def load(self, writes: Iterable[DocumentWrite]) -> None:
        """Read what writes are about. Their sessions are locked."""
        requests: set[tuple[str, ...]] = set()
        for write in writes:
            session = write.session
            self._sessions.setdefault(session, SessionDocuments(session, self._now))
            self._names[session].update(_names(write))
            if isinstance(write, WriteDocuments) and write.request_id:
                requests.add((*session, write.request_id))
        self._take_in(self._sessions)
        for row in fetch_keyed(
            self._connection,
            self._dialect,
            answers_by_request(self._dialect),
            REQUEST_KEY,
            requests,
        ):
            tenant, session_id, request_id, *answered = row
            self._requests[Session(tenant, session_id), request_id] = Answered(*answered)

    def _take_in(self, sessions: Iterable[Session]) -> None:
        """Read the documents that writes name."""
        names = {(*session, *name) for session in sessions for name in self._names[session]}
        loaded: defaultdict[Session, list[Document]] = defaultdict(list)
        for row in fetch_keyed(
            self._connection, self._dialect, rows.outlines_by_name(self._dialect), rows.KEY, names
        ):
            document = rows.document_of(row)
            loaded[document.session].append(document)
        for session, found in loaded.items():
            self._sessions[session].load(found)

    def count_change(self, session: Session) -> int:
        """How many documents more a session has after the transaction than before."""
        found = self._sessions.get(session)
        return self._saved[session] + (0 if found is None else found.count_change)

    @property
    def inserted(self) -> int:
        """How many documents are new."""
        return sum(max(0, self.count_change(session)) for session in self._sessions)

    def state(self, write: DocumentWrite) -> _State | None:
        """Give what `go_back` needs; None where the write cannot be refused in its middle."""
        if not isinstance(write, WriteDocuments) or len(write.items) == 1:
            return None
        return _State(write.session, self._sessions[write.session].copy())

    def go_back(self, state: _State) -> None:
        """Undo what a refused write has done."""
        self._sessions[state.session] = state.documents

    def apply(self, write: DocumentWrite) -> DocumentsOutcome:
        """Raises DocumentNotFound, DocumentAlreadyExists, EtagMismatch, RequestIdReused."""
        found, revisions = self._sessions[write.session], self._revisions[write.session]
        match write:
            case WriteDocuments():
                return self._write(write, found, revisions)
            case ExpireDocument(name=name):
                found.expire(name, revisions)
                return ()
            case RemoveDocuments(names=names):
                return tuple(found.remove(name, revisions) for name in names)
            case RefreshDocuments(names=names):
                return tuple(found.refresh(name) for name in names)
            case MoveDocuments():
                return self._move(write, revisions)

    def _move(self, write: MoveDocuments, revisions: Revisions) -> DocumentsOutcome:
        """Move what the database has: the changes before are written first."""
        session = write.session
        self._save_and_reload(session)
        moved = move_documents(self._connection, self._dialect, write, revisions, self._now)
        self._saved[session] -= moved.removed
        self._save_and_reload(session)
        return moved.documents

    def _save_and_reload(self, session: Session) -> None:
        found = self._sessions[session]
        for insertion in self._save([found]):
            self._dialect.insert_many(self._connection, *insertion)
        self._saved[session] += found.count_change
        self._sessions[session] = SessionDocuments(session, self._now)
        self._take_in([session])

    def _write(
        self, write: WriteDocuments, found: SessionDocuments, revisions: Revisions
    ) -> DocumentsOutcome:
        place = (write.session, write.request_id)
        answered = self._requests.get(place) if write.request_id else None
        if answered is not None:
            if answered.fingerprint != write.fingerprint:
                raise RequestIdReused("request_id")
            return from_answer(write, answered)
        outcome: list[Document | None] = []
        for item in write.items:
            if isinstance(item, NewDocument):
                outcome.append(found.put(item, revisions))
            else:
                found.delete(item, revisions)
                outcome.append(None)
        if write.request_id:
            self._requests[place] = Answered(
                write.fingerprint, to_answer(outcome), self._now, is_new=True
            )
        return tuple(outcome)

    def save(self) -> list[Insertion]:
        """Write what has changed; give the rows that are still to be inserted."""
        return [*self._save([*self._sessions.values()]), *self._answers()]

    def _save(self, sessions: Sequence[SessionDocuments]) -> list[Insertion]:
        kept = [(*found.session, *name) for found in sessions for name in found.kept]
        if kept:
            statement, names = _keep(self._dialect), rows.KEY
            bound = self._dialect.bind(names, sorted(kept))
            statements.execute(self._connection, statement, {**bound, "recorded_at": self._now})
        self._delete(document_history, sessions, purged=True)
        self._delete(documents, sessions, purged=False)
        updated = [
            {**rows.values_of(document), "search_texts": list(texts) or None}
            for found in sessions
            for document, texts in _changed(found, stored=True)
        ]
        if updated:
            self._dialect.update_many(self._connection, documents, rows.NAME, updated)
        refreshed = [row for found in sessions for row in _refreshed(found)]
        if refreshed:
            self._dialect.update_many(self._connection, documents, rows.NAME, refreshed)
        added = [pair for found in sessions for pair in _changed(found, stored=False)]
        insertions = [rows.insertion(added, self._now)] if added else []
        return [*insertions, *self._history(sessions)]

    def _delete(self, table: Any, sessions: Sequence[SessionDocuments], *, purged: bool) -> None:
        gone = [
            rows.key_of(found.session, name)
            for found in sessions
            for name in (
                found.purged & found.stored
                if purged
                else [n for n in found.changed & found.stored if found.current(n) is None]
            )
        ]
        if gone:
            self._dialect.delete_many(self._connection, table, rows.NAME, gone)

    def _history(self, sessions: Sequence[SessionDocuments]) -> list[Insertion]:
        insertions = []
        versions = [rows.values_of(version) for found in sessions for version in found.superseded]
        if versions:
            common = {"recorded_at": self._now}
            insertions.append(Insertion(document_history, columns_of(versions), common))
        gone = [
            {**rows.key_of(found.session, name), "revision": revision, "change": change.value}
            for found in sessions
            for name, revision, change in found.gone
        ]
        if gone:
            common = {"recorded_at": self._now}
            insertions.append(Insertion(document_history, columns_of(gone), common))
        return insertions

    def _answers(self) -> list[Insertion]:
        new = [
            {
                **session._asdict(),
                "request_id": request_id,
                "fingerprint": answered.fingerprint,
                "answer": answered.answer,
            }
            for (session, request_id), answered in self._requests.items()
            if answered.is_new
        ]
        if not new:
            return []
        return [Insertion(document_requests, columns_of(new), {"created_at": self._now})]


def _names(write: DocumentWrite) -> Iterable[DocumentName]:
    match write:
        case WriteDocuments(items=items):
            return (item.name for item in items)
        case ExpireDocument(name=name):
            return (name,)
        case OnNames(names=names):
            return names
        case MoveDocuments():
            return ()


def _changed(found: SessionDocuments, *, stored: bool) -> Iterable[tuple[Document, Sequence[str]]]:
    """Documents that were put and are still there, each with its search texts."""
    for name in sorted(found.changed):
        document = found.current(name)
        if document is not None and (name in found.stored) is stored:
            yield document, found.search_texts[name]


def _refreshed(found: SessionDocuments) -> Iterable[Row]:
    for name in sorted(found.refreshed - found.changed):
        document = found.current(name)
        if document is not None:
            yield {**rows.key_of(found.session, name), "expires_at": document.expires_at}


@cache
def _keep(dialect: Dialect) -> Insert:
    """Copy rows into the history as they are, without their bodies passing through here."""
    found = dialect.look_up(rows.KEY, rows.FULL).subquery()
    recorded_at = bindparam("recorded_at", type_=UtcDateTime)
    return insert(document_history).from_select(_KEPT, select(*found.c, recorded_at))
