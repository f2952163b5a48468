"""Requests that certainly keep the protos' rules, as those of MemoryService in its own module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memoryd.domain.documents import MAX_WRITES
from memoryd.rpc.memories.plain import is_request_id, is_session_id

if TYPE_CHECKING:
    from memoryd.v1 import document_pb2


def is_plain_put(request: document_pb2.PutDocumentRequest) -> bool:
    return bool(request.document.session_id) and _is_plain_item(request)


def is_plain_batch(request: document_pb2.BatchWriteDocumentsRequest) -> bool:
    return (
        is_session_id(request.session_id) is not None
        and _is_plain_request_id(request.request_id)
        and len(request.writes) <= MAX_WRITES
        and all(map(_is_plain_write, request.writes))
    )


def is_plain_name(
    request: document_pb2.GetDocumentRequest | document_pb2.DeleteDocumentRequest,
) -> bool:
    return is_session_id(request.session_id) is not None


def is_plain_names(request: document_pb2.BatchGetDocumentsRequest) -> bool:
    return is_session_id(request.session_id) is not None and len(request.names) <= MAX_WRITES


def _is_plain_write(write: document_pb2.DocumentWrite) -> bool:
    match write.WhichOneof("write"):
        case "put":
            return _is_plain_item(write.put)
        case "delete":
            return not write.delete.session_id or is_session_id(write.delete.session_id) is not None
    return False


def _is_plain_item(request: document_pb2.PutDocumentRequest) -> bool:
    document = request.document
    return (
        request.HasField("document")
        and (not document.session_id or is_session_id(document.session_id) is not None)
        # The wire carries any two numbers as a time.
        and not document.HasField("ttl")
        and not document.HasField("create_time")
        and not document.HasField("update_time")
        and not document.HasField("expire_time")
        and _is_plain_request_id(request.request_id)
    )


def _is_plain_request_id(request_id: str) -> bool:
    return not request_id or is_request_id(request_id) is not None
