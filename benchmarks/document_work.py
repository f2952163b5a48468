"""The calls on documents and on sessions that are measured, and what they are made on."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import uuid
from typing import TYPE_CHECKING

from texts import SEED, Texts

from memoryd.domain.records import DEFAULT_TENANT
from memoryd.rpc import page_token
from memoryd.v1 import document_pb2, session_pb2

if TYPE_CHECKING:
    from connections import Connections
    from google.protobuf.message import Message

DOCUMENT_SERVICE = "memoryd.v1.DocumentService"
SESSION_SERVICE = "memoryd.v1.SessionService"

BATCH = 100
BODIES = 1_000
"""Made before any round."""
NAMESPACE = ("documents",)

READ_SESSIONS, READ_DOCUMENTS = 16, 100
"""Sessions to read documents from, and how many are in each, all searchable."""

LISTED_SESSIONS = 1_000
SESSIONS_A_PAGE = 50
FILLING_CALLERS = 4


def read_session(number: int) -> str:
    return f"documents-{number % READ_SESSIONS}"


def listed_session(number: int) -> str:
    return f"visitor-{number:05}"


def put_request(
    session_id: str, key: str, text: str, body: str, *, is_searchable: bool
) -> document_pb2.PutDocumentRequest:
    return document_pb2.PutDocumentRequest(
        document=document_pb2.Document(
            session_id=session_id, namespace=NAMESPACE, key=key, json=body
        ),
        search_texts=[text] if is_searchable else (),
    )


def batch_of(
    puts: list[document_pb2.PutDocumentRequest],
) -> document_pb2.BatchWriteDocumentsRequest:
    return document_pb2.BatchWriteDocumentsRequest(
        session_id=puts[0].document.session_id,
        writes=[document_pb2.DocumentWrite(put=put) for put in puts],
        request_id=str(uuid.uuid4()),
    )


class DocumentRequests:
    """Makes requests for a server with the prepared documents and sessions."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._chance = random.Random(SEED)  # noqa: S311  repeatable, not secret
        found = [texts.document() for _ in range(BODIES)]
        self._bodies = itertools.cycle([(str(body["content"]), json.dumps(body)) for body in found])

    def make(self, name: str, target: str, number: int) -> Message:
        """`target`: the session that a put is for."""
        request: Message
        match name:
            case "doc_put":
                request = self._put(target)
                request.request_id = str(uuid.uuid4())
            case "doc_batch" | "doc_batch_texts":
                is_searchable = name == "doc_batch_texts"
                puts = [self._put(target, is_searchable=is_searchable) for _ in range(BATCH)]
                request = batch_of(puts)
            case "doc_get":
                request = document_pb2.GetDocumentRequest(
                    session_id=read_session(number),
                    namespace=NAMESPACE,
                    key=f"{self._chance.randrange(READ_DOCUMENTS)}",
                )
            case "doc_top":
                request = self._search(number)
            case "doc_search":
                request = self._search(number, self._texts.query())
            case "sessions":
                request = self._page()
            case _:
                raise KeyError(name)
        return request

    def _put(self, session: str, *, is_searchable: bool = False) -> document_pb2.PutDocumentRequest:
        text, body = next(self._bodies)
        return put_request(session, str(uuid.uuid4()), text, body, is_searchable=is_searchable)

    def _search(self, number: int, query: str = "") -> document_pb2.SearchDocumentsRequest:
        return document_pb2.SearchDocumentsRequest(
            session_id=read_session(number), namespace_prefix=NAMESPACE, query=query
        )

    def _page(self) -> session_pb2.ListSessionsRequest:
        """A full page that begins behind any session."""
        request = session_pb2.ListSessionsRequest(page_size=SESSIONS_A_PAGE)
        place = self._chance.randrange(LISTED_SESSIONS - SESSIONS_A_PAGE)
        request.page_token = page_token.encode_name(listed_session(place), request, DEFAULT_TENANT)
        return request


async def fill_documents(connections: Connections) -> None:
    """Write the documents to read, and make the sessions to list."""
    (write, *_) = connections.calls(DOCUMENT_SERVICE, "BatchWriteDocuments")
    texts = Texts()
    for number in range(READ_SESSIONS):
        bodies = [texts.document() for _ in range(READ_DOCUMENTS)]
        puts = [
            put_request(
                read_session(number),
                f"{place}",
                str(body["content"]),
                json.dumps(body),
                is_searchable=True,
            )
            for place, body in enumerate(bodies)
        ]
        await write(batch_of(puts).SerializeToString())
    updates = connections.calls(SESSION_SERVICE, "UpdateSession")
    numbers = iter(range(LISTED_SESSIONS))

    async def caller(place: int) -> None:
        for number in numbers:
            session = session_pb2.Session(
                session_id=listed_session(number), display_name=f"Visitor {number}"
            )
            request = session_pb2.UpdateSessionRequest(session=session, allow_missing=True)
            await updates[place % len(updates)](request.SerializeToString())

    async with asyncio.TaskGroup() as group:
        for place in range(FILLING_CALLERS):
            group.create_task(caller(place))
