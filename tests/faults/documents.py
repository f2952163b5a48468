"""Callers that keep documents while servers are killed, and what is stored of them in the end.

Each caller has a namespace of its own in a session that all of them share, so that it knows at any
time what must be there. What is in doubt it looks up, and a call of several changes must have made
all of them or none.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Self

import grpc
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from tests.roles import as_superuser

from memoryd.database.tables import documents, sessions
from memoryd.domain.documents import labels_of
from memoryd.v1 import document_pb2 as pb
from memoryd.v1.document_pb2_grpc import DocumentServiceStub

from .checker import IN_DOUBT, Broken, Fault
from .harness import CALL_SECONDS, ENDS_OF_STREAMS, PAUSE_SECONDS, TIMEOUT_SECONDS, open_channel

SESSION = "documents"
KEYS = [f"k{number}" for number in range(6)]
WORD = "report"
"""In every search text."""

Name = tuple[tuple[str, ...], str]
"""A namespace and a key."""


class Caller:
    """Makes random calls, one after the other; every text is unique."""

    def __init__(self, name: str, stub: DocumentServiceStub) -> None:
        self.name = name
        self.texts: dict[str, str] = {}
        """What there must be, by key."""
        self.folder = "a"
        """The namespace below the caller's own that holds all of it."""
        self.faults: list[Fault] = []
        self.answered = 0
        self._stub = stub
        self._random = random.Random(name)  # noqa: S311  no secret
        self._numbers = itertools.count()

    @property
    def expected(self) -> dict[Name, str]:
        return {((self.name, self.folder), key): text for key, text in self.texts.items()}

    async def run(self, stop: asyncio.Event) -> None:
        calls = (self._put, self._batch, self._batch, self._delete, self._move, self._get)
        while not stop.is_set():
            await self._random.choice((*calls, self._search))()

    async def attempt(self, method: str, request: Any) -> Any:
        """The answer, or the code of the refusal; None where it is in doubt."""
        try:
            answer = await getattr(self._stub, method)(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            if code not in IN_DOUBT:
                return code
            await asyncio.sleep(PAUSE_SECONDS)
            return None
        self.answered += 1
        return answer

    async def answer(self, method: str, request: Any) -> Any:
        """As `attempt`, again and again until it is not in doubt."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while (answer := await self.attempt(method, request)) is None:
                pass
        return answer

    async def stored(self) -> dict[Name, str]:
        """What a list shows of the caller's own."""
        request = pb.ListDocumentsRequest(session_id=SESSION, namespace_prefix=[self.name])
        answer = await self.answer("ListDocuments", request)
        return {(tuple(one.namespace), one.key): one.text for one in answer.documents}

    def compare(self, what: str, found: object, *allowed: object, kind: Broken) -> None:
        if found not in allowed:
            self.faults.append(Fault(kind, f"{self.name}: {what}: {found}, not {allowed}"))

    def _item(self, key: str) -> pb.PutDocumentRequest:
        text = f"{self.name} writes {WORD} {next(self._numbers)}"
        document = pb.Document(namespace=[self.name, self.folder], key=key, text=text)
        return pb.PutDocumentRequest(document=document, search_texts=[text])

    def _request_id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    async def _put(self) -> None:
        request = self._item(self._random.choice(KEYS))
        request.document.session_id = SESSION
        request.request_id = self._request_id()
        answer = await self.answer("PutDocument", request)
        if isinstance(answer, str):
            self.faults.append(Fault(Broken.LOST, f"{self.name}: a put is refused: {answer}"))
            return
        self.texts[answer.key] = answer.text

    async def _batch(self) -> None:
        items = [self._item(key) for key in self._random.sample(KEYS, 3)]
        request = pb.BatchWriteDocumentsRequest(
            session_id=SESSION,
            writes=[pb.DocumentWrite(put=item) for item in items],
            request_id=self._request_id(),
        )
        before = self.expected
        self.texts |= {item.document.key: item.document.text for item in items}
        if await self.attempt("BatchWriteDocuments", request) is None:
            found = await self.stored()
            self.compare("a batch in doubt", found, before, self.expected, kind=Broken.HALF)
            await self.answer("BatchWriteDocuments", request)

    async def _delete(self) -> None:
        key = self._random.choice(KEYS)
        request = pb.DeleteDocumentRequest(
            session_id=SESSION, namespace=[self.name, self.folder], key=key, allow_missing=True
        )
        await self.answer("DeleteDocument", request)
        self.texts.pop(key, None)

    async def _move(self) -> None:
        folders = self.folder, "b" if self.folder == "a" else "a"
        source, target = (pb.DocumentName(namespace=[self.name, one]) for one in folders)
        request = pb.MoveDocumentsRequest(session_id=SESSION, to=target, **{"from": source})
        answer = await self.attempt("MoveDocuments", request)
        if isinstance(answer, str):
            self.compare("a move", (answer, self.texts), ("NOT_FOUND", {}), kind=Broken.LOST)
            return
        before = self.expected
        self.folder = folders[1]
        if answer is None:
            found = await self.stored()
            self.compare("a move in doubt", found, before, self.expected, kind=Broken.HALF)
            if found == before:
                self.folder = folders[0]

    async def _get(self) -> None:
        key = self._random.choice(KEYS)
        request = pb.GetDocumentRequest(
            session_id=SESSION, namespace=[self.name, self.folder], key=key
        )
        answer = await self.answer("GetDocument", request)
        found = None if isinstance(answer, str) else answer.text
        self.compare(f"get of {key}", found, self.texts.get(key), kind=Broken.BACKWARDS)

    async def _search(self) -> None:
        request = pb.SearchDocumentsRequest(
            session_id=SESSION, namespace_prefix=[self.name], query=WORD, limit=100
        )
        answer = await self.answer("SearchDocuments", request)
        found = {
            (tuple(one.document.namespace), one.document.key): one.document.text
            for one in answer.results
        }
        self.compare("a search", found, self.expected, kind=Broken.BACKWARDS)


class DocumentLoad(AbstractAsyncContextManager):
    """Callers and a watcher, during a block; at its end callers finish their calls."""

    def __init__(self, address: str, callers: int) -> None:
        self._channels = [open_channel(address) for _ in range(callers)]
        stubs = [DocumentServiceStub(channel) for channel in self._channels]
        self.callers = [Caller(f"caller {n}", stub) for n, stub in enumerate(stubs)]
        self._watched: list[pb.WatchDocumentsResponse] = []
        self._stub = stubs[0]
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._running = [asyncio.create_task(one.run(self._stop)) for one in self.callers]
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        if kind is not None:  # they may retry forever
            for task in self._running:
                task.cancel()
        await asyncio.gather(*self._running, return_exceptions=kind is not None)
        if kind is not None:
            await self._close()

    async def _watch(self) -> None:
        while True:
            last = self._watched[-1].revision if self._watched else 0
            request = pb.WatchDocumentsRequest(session_id=SESSION, start_revision=last)
            try:
                async for event in self._stub.WatchDocuments(request):
                    self._watched.append(event)
            except grpc.aio.AioRpcError as error:
                if error.code().name not in ENDS_OF_STREAMS:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)

    async def _close(self) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        await asyncio.gather(*(channel.close() for channel in self._channels))

    @property
    def answered(self) -> int:
        return sum(caller.answered for caller in self.callers)

    async def faults(self, database_url: str) -> list[Fault]:
        """The broken promises; call it once, after the block, while a server runs."""
        revision, count, found = await _read(database_url)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while not self._watched or self._watched[-1].revision < revision:
                assert not self._watching.done(), self._watching
                await asyncio.sleep(PAUSE_SECONDS)
        await self._close()
        expected: dict[Name, str] = {}
        for caller in self.callers:
            expected |= caller.expected
        faults = [fault for caller in self.callers for fault in caller.faults]
        faults += _differences(Broken.LOST, "the tables", found, expected)
        faults += _differences(Broken.WATCH, "the watch", replayed(self._watched), expected)
        told = [event.revision for event in self._watched]
        if told != sorted(set(told)):
            faults.append(Fault(Broken.WATCH, "changes come twice or out of order"))
        if count != len(found):
            faults.append(Fault(Broken.COUNT, f"{count} by the session's row, {len(found)} stored"))
        return faults


def replayed(events: Iterable[pb.WatchDocumentsResponse]) -> dict[Name, str]:
    """What there is after some events."""
    state: dict[Name, str] = {}
    for event in events:
        name = (tuple(event.document.namespace), event.document.key)
        if event.change == pb.DOCUMENT_CHANGE_DELETED:
            state.pop(name, None)
        else:
            state[name] = event.document.text
    return state


def _differences(
    kind: Broken, whose: str, found: Mapping[Name, str], expected: Mapping[Name, str]
) -> list[Fault]:
    return [
        Fault(kind, f"{name}: {found.get(name)!r} by {whose}, not {expected.get(name)!r}")
        for name in sorted({*found, *expected})
        if found.get(name) != expected.get(name)
    ]


async def _read(database_url: str) -> tuple[int, int, dict[Name, str]]:
    """The session's revision, how many documents its row says it has, and those that it has."""
    engine = create_async_engine(as_superuser(database_url))
    d, s = documents.c, sessions.c
    try:
        async with engine.connect() as connection:
            row = await connection.execute(
                sa.select(s.revision, s.document_count).where(s.session_id == SESSION)
            )
            revision, count = row.one()
            found = await connection.execute(
                sa.select(d.namespace, d.key, d.body).where(d.session_id == SESSION)
            )
            texts = {(tuple(labels_of(n)), key): body.decode() for n, key, body in found}
    finally:
        await engine.dispose()
    return revision, count, texts
