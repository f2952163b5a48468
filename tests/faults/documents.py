"""Callers that keep documents, and watchers of them, while faults are injected.

What is in doubt a caller looks up, and a call of several changes must have made all of them or
none.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterable, Mapping

from memoryd.v1 import document_pb2 as pb
from memoryd.v1.document_pb2_grpc import DocumentServiceStub

from .callers import Caller
from .document_faults import Versions, body_of
from .harness import Watcher
from .history import History
from .promises import Broken
from .stored import Body, Name

KEYS = [f"k{number}" for number in range(6)]

WORD = "report"
"""In every search text."""

MOST_DATA = 4096
"""Bytes of a body; the larger ones lie outside their row on PostgreSQL."""


class DocumentCaller(Caller):
    """Every body is unique."""

    def __init__(
        self, name: str, stub: DocumentServiceStub, history: History, session_id: str
    ) -> None:
        self.journal = history.document_journal(name, session_id)
        super().__init__(self.journal, stub, history, "documents")
        self._name = name
        self._folder = "a"
        """The namespace below the caller's own that holds all of its documents."""
        self._numbers = itertools.count()

    async def run(self, stop: asyncio.Event) -> None:
        writes = (self._put, self._batch, self._batch, self._delete, self._move)
        reads = (self._get, self._list, self._versions, self._search)
        while not stop.is_set():
            await self._random.choice((*writes, *reads))()

    async def _look_up(self) -> Mapping[Name, Body]:
        """What a list shows of the caller's own documents."""
        request = pb.ListDocumentsRequest(
            session_id=self._session_id, namespace_prefix=[self._name]
        )
        answer = await self.answer("ListDocuments", request)
        return {(tuple(one.namespace), one.key): body_of(one) for one in answer.documents}

    def _place(self, key: str) -> Name:
        return (self._name, self._folder), key

    def _item(self, key: str) -> pb.PutDocumentRequest:
        """A put with a body that callers could not get back if anything read more into it."""
        text = f"{self._name} writes {WORD} {next(self._numbers)}"
        document = pb.Document(namespace=[self._name, self._folder], key=key)
        match self._random.randrange(3):
            case 0:
                document.text = f"\ufeff{text} \r\n größer, 数, 🙂 "
            case 1:
                document.json = f' {{"n" : 9007199254740993, "n":1E2,"text":{json.dumps(text)} }}\n'
            case _:
                size = self._random.randrange(MOST_DATA)
                document.data = text.encode() + b"\x00\xff" + self._random.randbytes(size)
        return pb.PutDocumentRequest(document=document, search_texts=[text])

    async def _put(self) -> None:
        request = self._item(self._random.choice(KEYS))
        request.document.session_id = self._session_id
        request.request_id = self._request_id()
        answer = await self.answer("PutDocument", request)
        if isinstance(answer, str):
            self.journal.compare("a put is refused", answer, kind=Broken.LOST)
            return
        body = body_of(request.document)
        self.journal.compare("a put answers", body_of(answer), body, kind=Broken.PHANTOM)
        self.journal.add_puts(self._history.now(), {self._place(answer.key): body})
        await self._repeat("PutDocument", request, answer)

    async def _batch(self) -> None:
        items = [self._item(key) for key in self._random.sample(KEYS, 3)]
        request = pb.BatchWriteDocumentsRequest(
            session_id=self._session_id,
            writes=[pb.DocumentWrite(put=item) for item in items],
            request_id=self._request_id(),
        )
        before = self.journal.current
        bodies = {self._place(item.document.key): body_of(item.document) for item in items}
        answer = await self.attempt("BatchWriteDocuments", request)
        if answer is None:
            found = await self._look_up()
            self.journal.compare(
                "a batch in doubt", found, before, before | bodies, kind=Broken.HALF
            )
            answer = await self.answer("BatchWriteDocuments", request)
        if isinstance(answer, str):
            self.journal.compare("a batch is refused", answer, kind=Broken.LOST)
            return
        self.journal.add_puts(self._history.now(), bodies)
        await self._repeat("BatchWriteDocuments", request, answer)

    async def _delete(self) -> None:
        place = self._place(self._random.choice(KEYS))
        request = pb.DeleteDocumentRequest(
            session_id=self._session_id, namespace=place[0], key=place[1], allow_missing=True
        )
        await self.answer("DeleteDocument", request)
        documents = dict(self.journal.held)
        if documents.pop(place, None):
            self.journal.add(self._history.now(), documents, revisions=1)

    async def _move(self) -> None:
        other = "b" if self._folder == "a" else "a"
        source = pb.DocumentName(namespace=[self._name, self._folder])
        target = pb.DocumentName(namespace=[self._name, other])
        request = pb.MoveDocumentsRequest(
            session_id=self._session_id, to=target, **{"from": source}
        )
        before = self.journal.current
        moved: dict[Name, Versions] = {
            ((self._name, other), key): versions for (_, key), versions in self.journal.held.items()
        }
        answer = await self.attempt("MoveDocuments", request)
        is_in_doubt = answer is None
        if is_in_doubt:
            after = {name: versions[-1] for name, versions in moved.items()}
            found = await self._look_up()
            self.journal.compare("a move in doubt", found, before, after, kind=Broken.HALF)
            answer = await self.answer("MoveDocuments", request)
        is_done = not isinstance(answer, str)
        if answer == "NOT_FOUND" and (is_in_doubt or not moved):
            is_done = bool(moved)  # by the first attempt
        elif isinstance(answer, str):
            self.journal.compare("a move is refused", answer, kind=Broken.LOST)
        if is_done:
            self._folder = other
            # Of each document that it is gone, and that it is there.
            self.journal.add(self._history.now(), moved, revisions=2 * len(moved))

    async def _get(self) -> None:
        place = self._place(self._random.choice(KEYS))
        request = pb.GetDocumentRequest(
            session_id=self._session_id, namespace=place[0], key=place[1]
        )
        answer = await self.answer("GetDocument", request)
        found = None if isinstance(answer, str) else body_of(answer)
        wanted = self.journal.current.get(place)
        self.journal.compare(f"a get of {place}", found, wanted, kind=Broken.BACKWARDS)

    async def _list(self) -> None:
        found = await self._look_up()
        self.journal.compare("a list", found, self.journal.current, kind=Broken.BACKWARDS)

    async def _versions(self) -> None:
        place = self._place(self._random.choice(KEYS))
        request = pb.ListDocumentRevisionsRequest(
            session_id=self._session_id, namespace=place[0], key=place[1], page_size=1000
        )
        answer = await self.answer("ListDocumentRevisions", request)
        shown = () if isinstance(answer, str) else answer.revisions
        found = tuple(body_of(one.document) for one in reversed(shown))
        wanted = self.journal.held.get(place, ())
        self.journal.compare(f"versions of {place}", found, wanted, kind=Broken.BACKWARDS)

    async def _search(self) -> None:
        request = pb.SearchDocumentsRequest(
            session_id=self._session_id, namespace_prefix=[self._name], query=WORD, limit=100
        )
        answer = await self.answer("SearchDocuments", request)
        found = {
            (tuple(one.document.namespace), one.document.key): body_of(one.document)
            for one in answer.results
        }
        self.journal.compare("a search", found, self.journal.current, kind=Broken.BACKWARDS)


def watch_documents(stub: DocumentServiceStub, history: History, session_id: str) -> Watcher:
    """Follow the documents of a session."""

    def stream(last: int) -> AsyncIterable[pb.WatchDocumentsResponse]:
        request = pb.WatchDocumentsRequest(session_id=session_id, start_revision=last)
        return stub.WatchDocuments(request)

    return Watcher(history.watch_documents(session_id), stream)
