"""Valid requests of DocumentService, in the order of its methods."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf import struct_pb2
from google.protobuf.message import Message

from memoryd.v1 import condition_pb2
from memoryd.v1 import document_pb2 as pb

_SESSION = "fuzz-1"
_NAMESPACE = ["n", "ü"]
_FILTER = pb.DocumentFilter(
    labels={"team": "x"},
    conditions=[
        condition_pb2.Condition(
            path=["a"],
            op=condition_pb2.CONDITION_OP_GT,
            value=struct_pb2.Value(number_value=1.5),
        )
    ],
)


def _put(key: str, namespace: list[str], **body: object) -> pb.PutDocumentRequest:
    document = pb.Document(
        session_id=_SESSION, namespace=namespace, key=key, labels={"team": "x"}, **body
    )
    return pb.PutDocumentRequest(document=document, search_texts=["blue whales", "last week"])


def _move(source: pb.DocumentName, target: pb.DocumentName) -> pb.MoveDocumentsRequest:
    return pb.MoveDocumentsRequest(session_id=_SESSION, to=target, **{"from": source})


_NAMED = {"session_id": _SESSION, "namespace": _NAMESPACE, "key": "a/key"}

VALID: Mapping[str, tuple[Message, ...]] = {
    "PutDocument": (
        _put("a/key", _NAMESPACE, json='{"a": [1, 9007199254740993]}'),
        _put("moved", ["m"], text="a text", ttl={"seconds": 60}),
        _put("moved", ["m", "below"], data=b"\x00\xff"),
    ),
    "BatchWriteDocuments": (
        pb.BatchWriteDocumentsRequest(
            session_id=_SESSION,
            writes=[
                pb.DocumentWrite(put=_put("second", [], text="")),
                pb.DocumentWrite(delete=pb.DeleteDocumentRequest(key="no", allow_missing=True)),
            ],
        ),
    ),
    "GetDocument": (pb.GetDocumentRequest(**_NAMED, refresh_ttl=True),),
    "BatchGetDocuments": (
        pb.BatchGetDocumentsRequest(
            session_id=_SESSION, names=[{"namespace": _NAMESPACE, "key": "a/key"}, {"key": "no"}]
        ),
    ),
    "DeleteDocument": (
        pb.DeleteDocumentRequest(session_id=_SESSION, key="second", allow_missing=True),
    ),
    "DeleteDocuments": (
        pb.DeleteDocumentsRequest(session_id=_SESSION, namespace_prefix=_NAMESPACE),
        pb.DeleteDocumentsRequest(session_id=_SESSION, namespace_prefix=["none"], force=True),
    ),
    "MoveDocuments": (
        _move(pb.DocumentName(namespace=["m"]), pb.DocumentName(namespace=["o"])),
        _move(
            pb.DocumentName(namespace=["o"], key="moved"),
            pb.DocumentName(namespace=["m"], key="moved"),
        ),
    ),
    "ListDocuments": (
        pb.ListDocumentsRequest(session_id=_SESSION, filter=_FILTER, page_size=1),
        pb.ListDocumentsRequest(
            session_id=_SESSION, namespace_prefix=["n"], view=pb.DOCUMENT_VIEW_BASIC
        ),
    ),
    "ListNamespaces": (
        pb.ListNamespacesRequest(session_id_prefix="fuzz", prefix=["*"], max_depth=1),
        pb.ListNamespacesRequest(session_id=_SESSION, suffix=["ü"], page_size=1),
    ),
    "SearchDocuments": (
        pb.SearchDocumentsRequest(session_id=_SESSION, query="whales last week", limit=3),
        pb.SearchDocumentsRequest(session_id_prefix="fuzz", filter=_FILTER, skip=1),
        pb.SearchDocumentsRequest(
            session_id=_SESSION, namespace_prefix=_NAMESPACE, query="blue", refresh_ttl=True
        ),
    ),
    "ListDocumentRevisions": (pb.ListDocumentRevisionsRequest(**_NAMED, page_size=1),),
    "WatchDocuments": (pb.WatchDocumentsRequest(session_id=_SESSION, namespace_prefix=["n"]),),
    "ExportDocuments": (pb.ExportDocumentsRequest(session_id=_SESSION, filter=_FILTER),),
}
