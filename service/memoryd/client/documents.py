"""The client for documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memoryd.client import arguments as args
from memoryd.client.answers import (
    BatchGetDocumentsResponse,
    BatchWriteDocumentsResponse,
    Document,
    DocumentRevision,
    MoveDocumentsResponse,
    SearchDocumentsResponse,
    WatchDocumentsResponse,
)
from memoryd.client.channel import Client
from memoryd.client.messages import condition_messages, request_id_or_new
from memoryd.v1 import document_pb2
from memoryd.v1.document_pb2 import DocumentName
from memoryd.v1.document_pb2_grpc import DocumentServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping
    from datetime import timedelta

    import grpc.aio

    from memoryd.client.messages import Condition
    from memoryd.v1.document_pb2_grpc import DocumentServiceAsyncStub

Name = tuple["Iterable[str]", str]
"""A document's namespace and key."""


@dataclass(frozen=True, slots=True)
class Put:
    """A document to write. Give exactly one of `json`, `text` and `data`."""

    key: str
    """1-512 characters."""
    namespace: Iterable[str] = ()
    """0-19 labels of 1-255 characters; with the key at most 1,024 bytes."""
    json: str | None = None
    """JSON text, kept as it is; at most 1 MiB, as the others."""
    text: str | None = None
    data: bytes | None = None
    labels: Mapping[str, str] | None = None
    ttl: timedelta | None = None
    """How long it lives from the put, or from the last read with `refresh_ttl`. None: for ever."""
    etag: str = ""
    """If given, of the document as it is now."""
    if_absent: bool = False
    search_texts: Iterable[str] = ()
    """At most 64 of at most 16,384 characters."""


@dataclass(frozen=True, slots=True)
class Remove:
    """A document to delete."""

    key: str
    namespace: Iterable[str] = ()
    etag: str = ""
    allow_missing: bool = False


class DocumentClient(Client["DocumentServiceAsyncStub"]):
    """Documents, by session, namespace and key. The session belongs to the caller's tenant.

    Every method may raise any `MemorydError`; its docstring names the ones to expect.
    """

    def _stub_over(self, channel: grpc.aio.Channel) -> DocumentServiceAsyncStub:
        return DocumentServiceStub(channel)

    async def put(
        self,
        session_id: str,
        put: Put,
        *,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Document:
        """Write a document; it is committed when this returns.

        Without a `request_id` the call gets its own, so that it is safe to retry.

        Raises InvalidArgument, ResourceExhausted, AlreadyExists where `if_absent` is given and
        there is one, EtagMismatch.
        """
        request = _put_request(args.instance("put", put, Put), "")
        request.document.session_id = args.text("session_id", session_id)
        request.request_id = request_id_or_new(request_id)
        return await self._answer(self._stub.PutDocument, request, Document, timeout)

    async def write_many(
        self,
        session_id: str,
        writes: Iterable[Put | Remove],
        *,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> BatchWriteDocumentsResponse:
        """Write up to 1,000 documents in order: all or none.

        Raises what `put` and `delete` raise, naming `writes[i]`.
        """
        request = document_pb2.BatchWriteDocumentsRequest(
            session_id=args.text("session_id", session_id), request_id=request_id_or_new(request_id)
        )
        for index, write in enumerate(args.items("writes", writes)):
            place = f"writes[{index}]"
            if isinstance(write, Remove):
                request.writes.add(delete=_delete_request(write, f"{place}."))
            else:
                put = _put_request(args.instance(place, write, Put), f"{place}.")
                request.writes.add(put=put)
        return await self._answer(
            self._stub.BatchWriteDocuments, request, BatchWriteDocumentsResponse, timeout
        )

    async def get(
        self,
        session_id: str,
        key: str,
        *,
        namespace: Iterable[str] = (),
        refresh_ttl: bool = False,
        timeout: float | None = None,
    ) -> Document:
        """Read one document. Raises NotFound."""
        request = document_pb2.GetDocumentRequest(
            session_id=args.text("session_id", session_id),
            namespace=args.texts("namespace", namespace),
            key=args.text("key", key),
            refresh_ttl=args.flag("refresh_ttl", refresh_ttl),
        )
        return await self._answer(self._stub.GetDocument, request, Document, timeout)

    async def get_many(
        self,
        session_id: str,
        names: Iterable[Name],
        *,
        refresh_ttl: bool = False,
        timeout: float | None = None,
    ) -> BatchGetDocumentsResponse:
        """Read up to 1,000 documents, each named by its namespace and key, in their order.

        An entry of what is absent has no document.
        """
        request = document_pb2.BatchGetDocumentsRequest(
            session_id=args.text("session_id", session_id),
            names=[
                _name(f"names[{index}]", name)
                for index, name in enumerate(args.items("names", names))
            ],
            refresh_ttl=args.flag("refresh_ttl", refresh_ttl),
        )
        return await self._answer(
            self._stub.BatchGetDocuments, request, BatchGetDocumentsResponse, timeout
        )

    async def delete(
        self,
        session_id: str,
        key: str,
        *,
        namespace: Iterable[str] = (),
        etag: str = "",
        allow_missing: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Delete a document for good. Raises NotFound unless `allow_missing`, EtagMismatch."""
        request = _delete_request(Remove(key, namespace, etag, allow_missing), "")
        request.session_id = args.text("session_id", session_id)
        await self._call(self._stub.DeleteDocument, request, timeout)

    async def delete_all(
        self,
        session_id: str,
        namespace_prefix: Iterable[str] = (),
        *,
        force: bool = False,
        timeout: float | None = None,
    ) -> int:
        """Delete every document at and below a namespace, for good; return how many.

        Without `force` nothing is deleted: they are only counted.
        """
        request = document_pb2.DeleteDocumentsRequest(
            session_id=args.text("session_id", session_id),
            namespace_prefix=args.texts("namespace_prefix", namespace_prefix),
            force=args.flag("force", force),
        )
        return (await self._call(self._stub.DeleteDocuments, request, timeout)).delete_count

    async def move(
        self,
        session_id: str,
        source: Name,
        target: Name,
        *,
        timeout: float | None = None,
    ) -> MoveDocumentsResponse:
        """Give a document another name: all of it goes along, and its etag changes.

        Raises NotFound, AlreadyExists where there is a document with the name.
        """
        return await self._move(
            session_id, _name("source", source), _name("target", target), timeout
        )

    async def move_all(
        self,
        session_id: str,
        source: Iterable[str],
        target: Iterable[str],
        *,
        timeout: float | None = None,
    ) -> MoveDocumentsResponse:
        """Let one namespace take the place of another, for every document at and below it.

        At most 10,000 documents: all or none. Raises NotFound where there is none, AlreadyExists
        where any of the new names is taken.
        """
        return await self._move(
            session_id,
            DocumentName(namespace=args.texts("source", source)),
            DocumentName(namespace=args.texts("target", target)),
            timeout,
        )

    async def _move(
        self, session_id: str, source: DocumentName, target: DocumentName, timeout: float | None
    ) -> MoveDocumentsResponse:
        request = document_pb2.MoveDocumentsRequest(
            session_id=args.text("session_id", session_id), to=target
        )
        getattr(request, "from").CopyFrom(source)  # a word of Python's
        return await self._answer(self._stub.MoveDocuments, request, MoveDocumentsResponse, timeout)

    def list(
        self,
        session_id: str,
        namespace_prefix: Iterable[str] = (),
        *,
        labels: Mapping[str, str] | None = None,
        conditions: Iterable[Condition] = (),
        with_bodies: bool = True,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncGenerator[Document, None]:
        """Iterate over all matching documents by namespace, then key.

        Pages are fetched as they are read; `timeout` applies to each page.
        """
        is_full = args.flag("with_bodies", with_bodies)
        view = document_pb2.DOCUMENT_VIEW_FULL if is_full else document_pb2.DOCUMENT_VIEW_BASIC
        request = document_pb2.ListDocumentsRequest(
            session_id=args.text("session_id", session_id),
            namespace_prefix=args.texts("namespace_prefix", namespace_prefix),
            filter=_filter(labels, conditions),
            view=view,
            page_size=args.int32("page_size", page_size),
        )
        return self._pages(self._stub.ListDocuments, request, _documents_of, timeout)

    def namespaces(
        self,
        session_id: str | None = None,
        *,
        session_id_prefix: str | None = None,
        prefix: Iterable[str] = (),
        suffix: Iterable[str] = (),
        max_depth: int = 0,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncGenerator[tuple[str, ...], None]:
        """Iterate over the namespaces of one session, or of all whose ids begin with a prefix."""
        request = document_pb2.ListNamespacesRequest(
            prefix=args.texts("prefix", prefix),
            suffix=args.texts("suffix", suffix),
            max_depth=args.int32("max_depth", max_depth),
            page_size=args.int32("page_size", page_size),
            **args.one_text(session_id=session_id, session_id_prefix=session_id_prefix),
        )
        return self._pages(self._stub.ListNamespaces, request, _namespaces_of, timeout)

    async def search(
        self,
        session_id: str | None = None,
        *,
        session_id_prefix: str | None = None,
        namespace_prefix: Iterable[str] = (),
        query: str = "",
        labels: Mapping[str, str] | None = None,
        conditions: Iterable[Condition] = (),
        limit: int = 0,
        skip: int = 0,
        refresh_ttl: bool = False,
        timeout: float | None = None,
    ) -> SearchDocumentsResponse:
        """Find documents of one session, or of all whose ids begin with a prefix.

        With a query the best ones come first, with a score, and then those without search texts;
        else the last updated first. `limit`: 0 means 10; at most 100.
        """
        request = document_pb2.SearchDocumentsRequest(
            namespace_prefix=args.texts("namespace_prefix", namespace_prefix),
            query=args.text("query", query),
            filter=_filter(labels, conditions),
            limit=args.int32("limit", limit),
            skip=args.int32("skip", skip),
            refresh_ttl=args.flag("refresh_ttl", refresh_ttl),
            **args.one_text(session_id=session_id, session_id_prefix=session_id_prefix),
        )
        return await self._answer(
            self._stub.SearchDocuments, request, SearchDocumentsResponse, timeout
        )

    def revisions(
        self,
        session_id: str,
        key: str,
        *,
        namespace: Iterable[str] = (),
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncGenerator[DocumentRevision, None]:
        """Iterate over the versions of a document that are kept, the newest first."""
        request = document_pb2.ListDocumentRevisionsRequest(
            session_id=args.text("session_id", session_id),
            namespace=args.texts("namespace", namespace),
            key=args.text("key", key),
            page_size=args.int32("page_size", page_size),
        )
        return self._pages(self._stub.ListDocumentRevisions, request, _revisions_of, timeout)

    def watch(
        self,
        session_id: str,
        start_revision: int = 0,
        *,
        namespace_prefix: Iterable[str] = (),
        timeout: float | None = None,
    ) -> AsyncGenerator[WatchDocumentsResponse, None]:
        """Iterate over the changes after a revision, then over every change as it commits.

        It resumes by itself, and ends, as `MemoryClient.watch` does.
        """
        request = document_pb2.WatchDocumentsRequest(
            session_id=args.text("session_id", session_id),
            namespace_prefix=args.texts("namespace_prefix", namespace_prefix),
            start_revision=args.int64("start_revision", start_revision),
        )
        return self._watch(self._stub.WatchDocuments, request, WatchDocumentsResponse, timeout)

    def export(
        self,
        session_id: str,
        namespace_prefix: Iterable[str] = (),
        *,
        labels: Mapping[str, str] | None = None,
        conditions: Iterable[Condition] = (),
        timeout: float | None = None,
    ) -> AsyncGenerator[Document, None]:
        """Iterate over all matching documents as one stream.

        `timeout`: seconds for the whole stream; None: no limit.
        """
        request = document_pb2.ExportDocumentsRequest(
            session_id=args.text("session_id", session_id),
            namespace_prefix=args.texts("namespace_prefix", namespace_prefix),
            filter=_filter(labels, conditions),
        )
        return self._stream(self._stub.ExportDocuments, request, Document, timeout)


def _name(place: str, name: Name) -> DocumentName:
    """`place` names the argument in errors."""
    parts: list[Any] = args.items(place, name)
    if len(parts) != 2:  # noqa: PLR2004  as the message says
        raise ValueError(f"{place}: expected a namespace and a key, as a tuple")
    namespace, key = parts
    return DocumentName(namespace=args.texts(place, namespace), key=args.text(place, key))


def _put_request(put: Put, place: str) -> document_pb2.PutDocumentRequest:
    """`place` precedes the names of arguments in errors."""
    if sum(body is not None for body in (put.json, put.text, put.data)) != 1:
        raise ValueError(f"{place}json, text or data: give exactly one of them")
    document = document_pb2.Document(
        namespace=args.texts(f"{place}namespace", put.namespace),
        key=args.text(f"{place}key", put.key),
        labels=args.labels(f"{place}labels", put.labels),
        ttl=args.duration(f"{place}ttl", put.ttl),
        etag=args.text(f"{place}etag", put.etag),
    )
    if put.json is not None:
        document.json = args.text(f"{place}json", put.json)
    elif put.text is not None:
        document.text = args.text(f"{place}text", put.text)
    else:
        document.data = args.data(f"{place}data", put.data)
    return document_pb2.PutDocumentRequest(
        document=document,
        if_absent=args.flag(f"{place}if_absent", put.if_absent),
        search_texts=args.texts(f"{place}search_texts", put.search_texts),
    )


def _delete_request(remove: Remove, place: str) -> document_pb2.DeleteDocumentRequest:
    return document_pb2.DeleteDocumentRequest(
        namespace=args.texts(f"{place}namespace", remove.namespace),
        key=args.text(f"{place}key", remove.key),
        etag=args.text(f"{place}etag", remove.etag),
        allow_missing=args.flag(f"{place}allow_missing", remove.allow_missing),
    )


def _filter(
    labels: Mapping[str, str] | None, conditions: Iterable[Condition]
) -> document_pb2.DocumentFilter:
    return document_pb2.DocumentFilter(
        labels=args.labels("labels", labels),
        conditions=condition_messages("conditions", conditions),
    )


def _namespaces_of(page: document_pb2.ListNamespacesResponse) -> Iterable[tuple[str, ...]]:
    return (tuple(namespace.labels) for namespace in page.namespaces)


def _documents_of(page: document_pb2.ListDocumentsResponse) -> Iterable[Document]:
    return map(Document.from_proto, page.documents)


def _revisions_of(page: document_pb2.ListDocumentRevisionsResponse) -> Iterable[DocumentRevision]:
    return map(DocumentRevision.from_proto, page.revisions)
