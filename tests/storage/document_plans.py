"""Every call of documents for the plans of their statements, and the rows they are made on."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy as sa

from memoryd.database.tables import document_history, document_requests, documents
from memoryd.v1 import document_pb2 as pb

TABLES = (documents, document_history, document_requests)
EACH = 10
"""One document for so many memories."""

BY_PREFIX = "documents of sessions by a prefix"
"""The call in whose statements a session id may be the beginning of those that are read."""

Catching = Callable[[str], AbstractContextManager[None]]
Part = tuple[sa.Table, sa.ColumnElement[bool], dict[str, Any]]


def parts(
    n: sa.ColumnElement[int],
    key: dict[str, Any],
    in_session: int,
    moment: Callable[[float], Any],
    due: Callable[[float, float], Any],
) -> list[Part]:
    """What is inserted for the numbers: five documents a session, of which some are due to go."""
    is_one = n % EACH == 0
    place = n % in_session + 1
    name = {
        "namespace": sa.literal("files\x01"),
        "key": sa.literal("document ") + sa.cast(n, sa.Text),
    }
    version = {
        **key,
        **name,
        "change": sa.literal("created"),
        "created_at": moment(1),
        "updated_at": moment(1),
        "kind": sa.literal("json"),
        "size": sa.literal(2),
        "sha256": sa.literal("0" * 64),
        "labels": sa.literal({}, sa.JSON()),
        "body": sa.literal(b"{}"),
    }
    document = {
        **version,
        "revision": place + 2 * in_session,
        "expires_at": due(1, -30),
        "search_texts": sa.case(
            (n % 20 == 0, sa.literal(["often said"], sa.JSON())), else_=sa.null()
        ),
    }
    earlier = {**version, "revision": place + 3 * in_session, "recorded_at": due(30, 0.1)}
    request = {
        **key,
        "request_id": sa.literal("00000000-0000-7000-8000-0000") + sa.cast(n + 10_000_000, sa.Text),
        "fingerprint": sa.literal(""),
        "answer": sa.literal([], sa.JSON()),
        "created_at": due(30, 0.1),
    }
    return [
        (documents, is_one, document),
        (document_history, is_one, earlier),
        (document_requests, is_one, request),
    ]


def put(session_id: str, key: str, **others: Any) -> pb.PutDocumentRequest:
    document = pb.Document(
        session_id=session_id, namespace=["files", "new"], key=key, json='{"a": 1}'
    )
    return pb.PutDocumentRequest(document=document, **others)


async def write(stub: Any, catching: Catching, session_id: str) -> None:
    first = put(session_id, "first", search_texts=["often"], request_id=str(uuid.uuid4()))
    first.document.ttl.seconds = 60
    with catching("PutDocument"):
        made = await stub.PutDocument(first)
        await stub.PutDocument(first)  # answered as before
        first.request_id, first.document.etag = "", made.etag
        await stub.PutDocument(first)
        await stub.PutDocument(put("documents-new", "first"))
    with catching("BatchWriteDocuments"):
        gone = pb.DeleteDocumentRequest(namespace=["files", "new"], key="0")
        writes = [put(session_id, str(n), search_texts=["some"]) for n in range(20)]
        items = [*({"put": one} for one in writes), {"delete": gone}]
        await stub.BatchWriteDocuments(
            pb.BatchWriteDocumentsRequest(
                session_id=session_id,
                writes=[pb.DocumentWrite(**one) for one in items],
                request_id=str(uuid.uuid4()),
            )
        )
    with catching("DeleteDocument"):
        named = {"session_id": session_id, "namespace": ["files", "new"], "key": "1"}
        await stub.DeleteDocument(pb.DeleteDocumentRequest(**named))
    with catching("MoveDocuments"):
        for source, target in (
            ({"namespace": ["files", "new"], "key": "2"}, {"namespace": [], "key": "moved"}),
            ({"namespace": ["files", "new"]}, {"namespace": ["other"]}),
        ):
            request = pb.MoveDocumentsRequest(session_id=session_id, to=target)
            getattr(request, "from").CopyFrom(pb.DocumentName(**source))
            await stub.MoveDocuments(request)
    with catching("DeleteDocuments"):
        for force in (False, True):
            await stub.DeleteDocuments(
                pb.DeleteDocumentsRequest(
                    session_id=session_id, namespace_prefix=["other"], force=force
                )
            )
    await stub.PutDocument(first_again(first))


def first_again(first: pb.PutDocumentRequest) -> pb.PutDocumentRequest:
    """The put without a condition, for the reads."""
    first.document.etag = ""
    return first


async def read(stub: Any, catching: Catching, session_id: str) -> None:
    named = {"namespace": ["files", "new"], "key": "first"}
    with catching("GetDocument"):
        for refresh_ttl in (False, True):
            await stub.GetDocument(
                pb.GetDocumentRequest(session_id=session_id, refresh_ttl=refresh_ttl, **named)
            )
    with catching("BatchGetDocuments"):
        names = [named, *({"namespace": ["files"], "key": str(n)} for n in range(50))]
        await stub.BatchGetDocuments(
            pb.BatchGetDocumentsRequest(session_id=session_id, names=names, refresh_ttl=True)
        )
    with catching("ListDocuments"):
        for view in (pb.DOCUMENT_VIEW_FULL, pb.DOCUMENT_VIEW_BASIC):
            for prefix in ([], ["files"]):
                await pages(
                    stub.ListDocuments,
                    pb.ListDocumentsRequest(
                        session_id=session_id,
                        namespace_prefix=prefix,
                        view=view,
                        filter={"labels": {"no": "such"}} if prefix else None,
                        page_size=2,
                    ),
                )
    with catching("ListDocumentRevisions"):
        await pages(
            stub.ListDocumentRevisions,
            pb.ListDocumentRevisionsRequest(session_id=session_id, page_size=1, **named),
        )
    for call, scope in (
        ("documents of a session", {"session_id": session_id}),
        (BY_PREFIX, {"session_id_prefix": session_id[:-1]}),
    ):
        with catching(call):
            await pages(stub.ListNamespaces, pb.ListNamespacesRequest(page_size=1, **scope))
            for query in ("", "often said"):
                await stub.SearchDocuments(
                    pb.SearchDocumentsRequest(
                        query=query, namespace_prefix=["files"], refresh_ttl=True, **scope
                    )
                )
    with catching("WatchDocuments"):
        for start_revision in (0, 1000):
            watch = stub.WatchDocuments(
                pb.WatchDocumentsRequest(session_id=session_id, start_revision=start_revision)
            )
            await watch.read()
            watch.cancel()
    with catching("ExportDocuments"):
        async for _ in stub.ExportDocuments(pb.ExportDocumentsRequest(session_id=session_id)):
            pass


async def pages(method: Any, request: Any) -> None:
    """Two pages of a listing."""
    request.page_token = (await method(request)).next_page_token
    await method(request)
