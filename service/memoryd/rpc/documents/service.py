"""DocumentService: a row for each method; each handler takes a record, makes one call, answers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from memoryd.documents.filters import place_of
from memoryd.domain.audit import Audited
from memoryd.domain.principals import Scope
from memoryd.domain.records import Change
from memoryd.rpc import page_token
from memoryd.rpc.answer_size import RESPONSE_FRAMING_BYTES, fill, fill_page
from memoryd.rpc.documents import messages as convert
from memoryd.rpc.documents import plain, requests
from memoryd.rpc.memories.messages import timestamp
from memoryd.rpc.methods import BULK_WEIGHT, SEARCH_WEIGHT, WRITE_WEIGHT, Method
from memoryd.v1 import document_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from datetime import datetime

    from memoryd.documents.store import DocumentStore
    from memoryd.documents.writes import MoveDocuments, WriteDocuments
    from memoryd.domain.documents import Document, DocumentEvent
    from memoryd.domain.records import Session
    from memoryd.retrieval.document_search import DocumentSearch
    from memoryd.rpc.answer_size import LargeAnswers
    from memoryd.rpc.call import Call
    from memoryd.rpc.documents.requests import (
        Export,
        Listing,
        NamespaceListing,
        PrefixRemoval,
        Reading,
        Searching,
        VersionListing,
        Watch,
    )
    from memoryd.sessions.feed import ChangeFeed

MOST_MOVED_ANSWERED = 100
"""Documents that the answer to a move has."""


class DocumentService:
    def __init__(
        self,
        store: DocumentStore,
        feed: ChangeFeed[DocumentEvent],
        search: DocumentSearch,
        answers: LargeAnswers,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._feed = feed
        self._search = search
        self._clock = clock
        self._answers = answers

    def methods(self) -> Mapping[str, Method[Any]]:
        """The table of this service."""
        read, write, in_all = Scope.DOCUMENTS_READ, Scope.DOCUMENTS_WRITE, Audited.IN_ALL
        return {
            "PutDocument": Method(
                requests.put,
                self.put,
                write,
                in_all,
                weight=WRITE_WEIGHT,
                is_plain=plain.is_plain_put,
                waits_for_commit=True,
            ),
            "BatchWriteDocuments": Method(
                requests.batch,
                self.write_batch,
                write,
                in_all,
                weight=BULK_WEIGHT,
                check_size=requests.check_batch,
                is_plain=plain.is_plain_batch,
                waits_for_commit=True,
            ),
            "GetDocument": Method(
                requests.get, self.get, read, in_all, is_plain=plain.is_plain_name
            ),
            "BatchGetDocuments": Method(
                requests.get_many,
                self.get_many,
                read,
                in_all,
                weight=SEARCH_WEIGHT,
                check_size=requests.check_names,
                is_plain=plain.is_plain_names,
            ),
            "DeleteDocument": Method(
                requests.delete,
                self.delete,
                write,
                in_all,
                weight=WRITE_WEIGHT,
                is_plain=plain.is_plain_name,
                waits_for_commit=True,
            ),
            "DeleteDocuments": Method(
                requests.delete_all, self.delete_all, write, Audited.AFTER, weight=BULK_WEIGHT
            ),
            "MoveDocuments": Method(
                requests.move, self.move, write, in_all, weight=BULK_WEIGHT, waits_for_commit=True
            ),
            "ListDocuments": Method(
                requests.listing,
                self.list_page,
                read,
                in_all,
                weight=SEARCH_WEIGHT,
                check_size=requests.check_filter,
            ),
            "ListNamespaces": Method(
                requests.namespaces, self.list_namespaces, read, in_all, weight=SEARCH_WEIGHT
            ),
            "SearchDocuments": Method(
                requests.search,
                self.search,
                read,
                in_all,
                weight=SEARCH_WEIGHT,
                check_size=requests.check_filter,
            ),
            "ListDocumentRevisions": Method(
                requests.versions, self.list_versions, read, in_all, weight=SEARCH_WEIGHT
            ),
            "WatchDocuments": Method(requests.watch, self.watch, read, in_all),
            "ExportDocuments": Method(
                requests.export,
                self.export,
                Scope.MEMORIES_EXPORT,
                Audited.BEFORE,
                weight=BULK_WEIGHT,
                check_size=requests.check_filter,
            ),
        }

    async def put(self, write: WriteDocuments, call: Call) -> document_pb2.Document | bytes:
        del call
        return await self._answer(await self._store.put(write))

    async def write_batch(
        self, write: WriteDocuments, call: Call
    ) -> document_pb2.BatchWriteDocumentsResponse:
        del call
        written = await self._store.write(write) if write.items else ()
        answer = document_pb2.BatchWriteDocumentsResponse()
        for document in written:
            message = answer.documents.add()
            if document is not None:
                convert.fill_document(message, document)
        answer.truncated = convert.shorten(answer.documents)
        return answer

    async def get(self, reading: Reading, call: Call) -> document_pb2.Document | bytes:
        document = await self._store.get(
            reading.session, reading.names[0], now=self._clock(), timeout=call.time_remaining()
        )
        (document,) = await self._refreshed([document], call, wanted=reading.refresh_ttl)
        return await self._answer(document)

    async def get_many(
        self, reading: Reading, call: Call
    ) -> document_pb2.BatchGetDocumentsResponse:
        found = await self._store.get_many(
            reading.session, reading.names, now=self._clock(), timeout=call.time_remaining()
        )
        refreshed = await self._refreshed([*found.values()], call, wanted=reading.refresh_ttl)
        by_name = {document.name: document for document in refreshed}
        answer, names = document_pb2.BatchGetDocumentsResponse(), 0
        for name in reading.names:
            entry = answer.entries.add(name=convert.name_message(name))
            names += entry.ByteSize() + 2 * RESPONSE_FRAMING_BYTES
            if name in by_name:
                entry.document.CopyFrom(convert.document_message(by_name[name]))
        full = [entry.document for entry in answer.entries if entry.HasField("document")]
        is_cut = any(document.body is None for document in by_name.values())
        answer.truncated = convert.shorten(full, names) or is_cut
        return answer

    async def delete(
        self, write: WriteDocuments, call: Call
    ) -> document_pb2.DeleteDocumentResponse:
        del call
        await self._store.write(write)
        return document_pb2.DeleteDocumentResponse()

    async def delete_all(
        self, removal: PrefixRemoval, call: Call
    ) -> document_pb2.DeleteDocumentsResponse:
        session, prefix, now = removal.session, removal.prefix, self._clock()
        if removal.force:
            count = await self._store.delete_all(session, prefix, now=now)
            call.counts("deleted_documents", count)
        else:
            call.changes_nothing()
            count = await self._store.count(session, prefix, now=now, timeout=call.time_remaining())
        return document_pb2.DeleteDocumentsResponse(delete_count=count)

    async def move(self, write: MoveDocuments, call: Call) -> document_pb2.MoveDocumentsResponse:
        moved = await self._store.move(write)
        call.counts("moved_documents", len(moved))
        answer = document_pb2.MoveDocumentsResponse(moved_count=len(moved))
        fill(answer.documents, map(convert.document_message, moved[:MOST_MOVED_ANSWERED]))
        return answer

    async def list_page(self, listing: Listing, call: Call) -> document_pb2.ListDocumentsResponse:
        page = await self._store.page(
            listing.session,
            listing.prefix,
            listing.filter,
            after=listing.after,
            size=listing.size,
            with_bodies=listing.with_bodies,
            now=self._clock(),
            timeout=call.time_remaining(),
        )
        answer = document_pb2.ListDocumentsResponse()
        next_after = fill_page(
            answer.documents,
            page.documents,
            convert.document_message,
            position_of=lambda document: document.name,
            after_all=page.next_after,
        )
        if next_after is not None:
            answer.next_page_token = listing.token_at(next_after)
        return answer

    async def list_namespaces(
        self, listing: NamespaceListing, call: Call
    ) -> document_pb2.ListNamespacesResponse:
        found, next_after = await self._store.namespaces(
            listing.whose,
            listing.pattern,
            after=listing.after,
            size=listing.size,
            now=self._clock(),
            timeout=call.time_remaining(),
        )
        answer = document_pb2.ListNamespacesResponse(
            namespaces=[document_pb2.Namespace(labels=labels) for labels in found]
        )
        if next_after is not None:
            answer.next_page_token = listing.token_at(next_after)
        return answer

    async def search(
        self, searching: Searching, call: Call
    ) -> document_pb2.SearchDocumentsResponse:
        found = await self._search.search(
            searching.whose, searching.search, now=self._clock(), timeout=call.time_remaining()
        )
        answer = document_pb2.SearchDocumentsResponse()
        results = (
            document_pb2.DocumentResult(document=convert.document_message(document), score=score)
            for document, score in found.results
        )
        count = fill(answer.results, results)
        answer.truncated = found.is_cut or count < len(found.results)
        answered = [document for document, _ in found.results[:count]]
        refreshed = await self._refreshed(answered, call, wanted=searching.refresh_ttl)
        for result, document in zip(answer.results, refreshed, strict=True):
            if document.expires_at is not None:
                result.document.expire_time.CopyFrom(timestamp(document.expires_at))
        return answer

    async def list_versions(
        self, listing: VersionListing, call: Call
    ) -> document_pb2.ListDocumentRevisionsResponse:
        versions, next_before = await self._store.versions(
            listing.session,
            listing.name,
            before=listing.before,
            size=listing.size,
            now=self._clock(),
            timeout=call.time_remaining(),
        )
        answer = document_pb2.ListDocumentRevisionsResponse()
        next_before = fill_page(
            answer.revisions,
            versions,
            convert.revision_message,
            position_of=lambda version: version.revision,
            after_all=next_before,
        )
        if next_before is not None:
            answer.next_page_token = listing.token_at(next_before)
        return answer

    async def watch(
        self, watch: Watch, call: Call
    ) -> AsyncIterator[document_pb2.WatchDocumentsResponse]:
        del call
        async with aclosing(self._feed.events(watch.session, watch.start_revision)) as events:
            async for event in events:
                is_of_all = event.change is Change.PURGED
                if is_of_all or event.name.namespace.startswith(watch.prefix):
                    yield convert.event_message(watch.session, event)

    async def export(self, export: Export, call: Call) -> AsyncIterator[document_pb2.Document]:
        after, is_last = None, False
        while not is_last:
            page = await self._store.page(
                export.session,
                export.prefix,
                export.filter,
                after=after,
                size=page_token.DEFAULT_SIZE,
                with_bodies=True,
                now=self._clock(),
                timeout=call.time_remaining(),
            )
            for document in page.documents:
                call.counts("exported_documents", 1)
                yield convert.document_message(document)
            after, is_last = page.next_after, page.next_after is None

    async def _answer(self, document: Document) -> document_pb2.Document | bytes:
        return await self._answers.make(document.size, partial(convert.document_message, document))

    async def _refreshed(
        self, found: Sequence[Document], call: Call, *, wanted: bool
    ) -> Sequence[Document]:
        """Documents as they are once those that have a ttl live for it from now, if that is wanted.

        What is asked for by those who may only read changes nothing.
        """
        if not wanted or Scope.DOCUMENTS_WRITE not in call.principal.scopes:
            return found
        by_session: defaultdict[Session, list[Document]] = defaultdict(list)
        for document in found:
            by_session[document.session].append(document)
        refreshed = await asyncio.gather(
            *(self._store.refresh(session, of_it) for session, of_it in by_session.items())
        )
        by_place = {place_of(one): one for of_session in refreshed for one in of_session}
        return [by_place[place_of(document)] for document in found]
