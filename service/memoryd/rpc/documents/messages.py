"""Documents as messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memoryd.domain.documents import BodyKind, labels_of
from memoryd.domain.records import Change
from memoryd.rpc.answer_size import MAX_ANSWER_BYTES, RESPONSE_FRAMING_BYTES
from memoryd.rpc.memories.messages import fill_time, timestamp
from memoryd.v1 import document_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from memoryd.domain.documents import Document, DocumentEvent, DocumentName
    from memoryd.domain.records import Session

_PROTO_CHANGE = {
    Change.CREATED: document_pb2.DOCUMENT_CHANGE_CREATED,
    Change.UPDATED: document_pb2.DOCUMENT_CHANGE_UPDATED,
    Change.DELETED: document_pb2.DOCUMENT_CHANGE_DELETED,
    Change.EXPIRED: document_pb2.DOCUMENT_CHANGE_EXPIRED,
    Change.PURGED: document_pb2.DOCUMENT_CHANGE_PURGED,
}


def document_message(document: Document) -> document_pb2.Document:
    """With its body, where that was read."""
    message = document_pb2.Document()
    fill_document(message, document)
    return message


def fill_document(message: document_pb2.Document, document: Document) -> None:
    """Make an empty message that of a document. A message that is put into another is copied."""
    namespace, message.key = document.name
    message.session_id = document.session.session_id
    if namespace:
        message.namespace.extend(labels_of(namespace))
    if document.labels:
        message.labels.update(document.labels)
    fill_time(message.create_time, document.created_at)
    fill_time(message.update_time, document.updated_at)
    message.revision = document.revision
    message.etag = document.etag
    message.size_bytes = document.size
    message.body_sha256 = document.sha256
    if document.ttl is not None:
        message.ttl.FromTimedelta(document.ttl)
    if document.expires_at is not None:
        fill_time(message.expire_time, document.expires_at)
    body = document.body
    if body is not None:
        match document.kind:
            case BodyKind.JSON:
                message.json = body.decode()
            case BodyKind.TEXT:
                message.text = body.decode()
            case BodyKind.DATA:
                message.data = body


def name_message(name: DocumentName) -> document_pb2.DocumentName:
    return document_pb2.DocumentName(namespace=labels_of(name.namespace), key=name.key)


def revision_message(document: Document) -> document_pb2.DocumentRevision:
    return document_pb2.DocumentRevision(
        document=document_message(document),
        change=_PROTO_CHANGE[document.change],
        revision=document.revision,
        record_time=timestamp(document.updated_at),
    )


def event_message(session: Session, event: DocumentEvent) -> document_pb2.WatchDocumentsResponse:
    if event.document is None:
        document = document_pb2.Document(
            session_id=session.session_id,
            namespace=labels_of(event.name.namespace),
            key=event.name.key,
            revision=event.revision,
        )
    else:
        document = document_message(event.document)
    return document_pb2.WatchDocumentsResponse(
        change=_PROTO_CHANGE[event.change], document=document, revision=event.revision
    )


def shorten(documents: Iterable[document_pb2.Document], others: int = 0) -> bool:
    """Take bodies and labels from the last of an answer's documents that are too large together.

    `others`: bytes that the answer has besides. Answers whether it was too large.
    """
    room, cut = MAX_ANSWER_BYTES - others, False
    for document in documents:
        size = document.ByteSize() + RESPONSE_FRAMING_BYTES
        if size > room:
            cut = True
            size -= document.ByteSize()
            for field in ("json", "text", "data", "labels"):
                document.ClearField(field)
            size += document.ByteSize()
        room -= size
    return cut
