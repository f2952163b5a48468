"""First answers to writes that have a `request_id`, as far as a retry does not say them itself."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from memoryd.database.tables import document_requests
from memoryd.domain.documents import Document, NewDocument
from memoryd.domain.records import Change, expiry
from memoryd.sessions.lock import SHARD_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Select

    from memoryd.database.dialect import Dialect
    from memoryd.documents.writes import DocumentsOutcome, WriteDocuments

    Outline = int | tuple[int, str] | None
    """Of a new document the revision; of one that was there also when it was created; of a delete
    nothing."""

REQUEST_KEY = tuple(document_requests.c[name] for name in (*SHARD_KEY, "request_id"))


class Answered(NamedTuple):
    """A `request_id` with its first answer."""

    fingerprint: str
    answer: Sequence[Outline]
    written_at: datetime
    is_new: bool = False


def to_answer(written: Iterable[Document | None]) -> Sequence[Outline]:
    return [*map(_outline, written)]


def from_answer(write: WriteDocuments, first: Answered) -> DocumentsOutcome:
    """The first answer, with what the retry says."""
    return tuple(
        _document(write, item, outline, first.written_at)
        if isinstance(item, NewDocument) and outline is not None
        else None
        for item, outline in zip(write.items, first.answer, strict=True)
    )


@cache
def answers_by_request(dialect: Dialect) -> Select[Any]:
    """Look up fingerprint, answer and time by REQUEST_KEY."""
    r = document_requests.c
    return dialect.look_up(REQUEST_KEY, (*REQUEST_KEY, r.fingerprint, r.answer, r.created_at))


def _outline(document: Document | None) -> Outline:
    if document is None:
        return None
    if document.change is Change.CREATED:
        return document.revision
    return document.revision, document.created_at.isoformat()


def _document(
    write: WriteDocuments, item: NewDocument, outline: int | Sequence[Any], written_at: datetime
) -> Document:
    if isinstance(outline, int):
        revision, created_at, change = outline, written_at, Change.CREATED
    else:
        revision, created_at = outline[0], datetime.fromisoformat(outline[1])
        change = Change.UPDATED
    return Document(
        write.session,
        item.name,
        item.kind,
        item.labels,
        item.ttl,
        created_at,
        written_at,
        expiry(written_at, item.ttl),
        revision,
        change,
        len(item.body),
        item.sha256,
        item.body,
    )
