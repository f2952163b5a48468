"""Rows of `documents` and of `document_history` as records, and back."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import or_

from memoryd.database.dialect import Insertion
from memoryd.database.moments import NOW
from memoryd.database.tables import document_history, documents
from memoryd.domain.documents import BodyKind, Document, DocumentName
from memoryd.domain.records import Change, Session
from memoryd.sessions.lock import SHARD_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Select, Table

    from memoryd.database.dialect import Dialect, Row

NAME = (*SHARD_KEY, "namespace", "key")
"""The columns that name a document."""

KEY = tuple(documents.c[name] for name in NAME)

_MICROSECOND = timedelta(microseconds=1)

_VERSION = (
    *("kind", "labels", "ttl_microseconds", "created_at", "updated_at", "expires_at"),
    *("revision", "change", "size", "sha256"),
)

VERSION = (*NAME, *_VERSION, "body")
"""What a document and a version in the history have in common."""

_OFTEN_ALIKE = (("tenant", "session_id", "namespace"), ("kind", "change"))
"""Few groups, since each choice of columns is a statement of its own."""


def columns(table: Table, *, with_body: bool) -> tuple[ColumnElement[Any], ...]:
    """What a record holds, in its order."""
    names = VERSION if with_body else VERSION[:-1]
    return tuple(table.c[name] for name in names)


OUTLINE = columns(documents, with_body=False)
FULL = columns(documents, with_body=True)
HISTORY_OUTLINE = columns(document_history, with_body=False)
HISTORY_FULL = columns(document_history, with_body=True)


def document_of(row: Sequence[Any]) -> Document:
    """The record of a row that holds OUTLINE or FULL, in their order."""
    tenant, session_id, namespace, key, kind, labels, ttl, *values = row[: len(VERSION) - 1]
    created_at, updated_at, expires_at, revision, change, size, sha256 = values
    body = row[len(VERSION) - 1] if len(row) >= len(VERSION) else None
    return Document(
        Session(tenant, session_id),
        DocumentName(namespace, key),
        BodyKind(kind),
        labels,
        None if ttl is None else timedelta(microseconds=ttl),
        created_at,
        updated_at,
        expires_at,
        revision,
        Change(change),
        size,
        sha256,
        body,
    )


def values_of(document: Document) -> dict[str, Any]:
    """The columns of a version."""
    return {
        **document.session._asdict(),
        **document.name._asdict(),
        "kind": document.kind.value,
        "labels": document.labels,
        "ttl_microseconds": _microseconds(document.ttl),
        "created_at": document.created_at,
        "updated_at": document.updated_at,
        "expires_at": document.expires_at,
        "revision": document.revision,
        "change": document.change.value,
        "size": document.size,
        "sha256": document.sha256,
        "body": document.body,
    }


def insertion(added: Sequence[tuple[Document, Sequence[str]]], now: datetime) -> Insertion:
    """Insert documents that are put where there were none, each with its search texts.

    Columns that are null in all of the rows are left out, and those of a group in _OFTEN_ALIKE are
    sent once where all rows have the same: a batch mostly writes new documents of one namespace.
    """
    found = [document for document, _ in added]
    columns: dict[str, Sequence[Any]] = {
        "tenant": [document.session.tenant for document in found],
        "session_id": [document.session.session_id for document in found],
        "namespace": [document.name.namespace for document in found],
        "key": [document.name.key for document in found],
        "kind": [document.kind.value for document in found],
        "revision": [document.revision for document in found],
        "change": [document.change.value for document in found],
        "size": [document.size for document in found],
        "sha256": [document.sha256 for document in found],
        "body": [document.body for document in found],
    }
    common: Row = {"created_at": now, "updated_at": now}
    for group in _OFTEN_ALIKE:
        if all(len(set(columns[name])) == 1 for name in group):
            common |= {name: columns.pop(name)[0] for name in group}
    if any(document.labels for document in found):
        columns["labels"] = [document.labels for document in found]
    else:
        common["labels"] = {}
    if any(document.ttl is not None for document in found):
        columns["ttl_microseconds"] = [_microseconds(document.ttl) for document in found]
        columns["expires_at"] = [document.expires_at for document in found]
    if any(texts for _, texts in added):
        columns["search_texts"] = [list(texts) or None for _, texts in added]
    return Insertion(documents, columns, common)


def key_of(session: Session, name: DocumentName) -> dict[str, str]:
    """The columns that name a document."""
    return {**session._asdict(), **name._asdict()}


def _microseconds(ttl: timedelta | None) -> int | None:
    return None if ttl is None else ttl // _MICROSECOND


def live() -> ColumnElement[bool]:
    """What readers see at NOW."""
    return or_(documents.c.expires_at.is_(None), documents.c.expires_at > NOW)


@cache
def outlines_by_name(dialect: Dialect) -> Select[Any]:
    """Look up OUTLINE by KEY."""
    return dialect.look_up(KEY, OUTLINE)


@cache
def full_by_name(dialect: Dialect) -> Select[Any]:
    """Look up FULL by KEY."""
    return dialect.look_up(KEY, FULL)
