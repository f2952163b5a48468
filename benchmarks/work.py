"""The calls that are measured.

Memories have 100 bytes, documents 1,024, the two messages of an append 100 and 403.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conversation_work import CONVERSATION_SERVICE, ConversationRequests
from document_work import DOCUMENT_SERVICE, SESSION_SERVICE, DocumentRequests
from texts import METADATA, SEED, Texts

from memoryd.client.messages import new_request_id
from memoryd.v1 import conversation_pb2, document_pb2, session_pb2
from memoryd.v1 import memory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

SERVICE = "memoryd.v1.MemoryService"
ECHO_SERVICE = "echo.MemoryService"

STORE_SESSIONS = 64
"""Enough that a round's stores evict nothing."""
BATCH = 100

SMALL, SMALL_SESSIONS = 100, 16
LARGE, LARGE_SESSIONS = 1_000, 4
GROWING_ROOM = 64
"""Memories that a growing session can take before it evicts."""


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of call; the echo answers it with the same bytes as memoryd."""

    name: str
    label: str
    method: str
    request_type: type[Message]
    answer_type: type[Message]
    callers: tuple[int, ...]
    memories: int = 1
    """The number of memories, or documents, that one call stores."""
    streamed: bool = False
    """Whether memoryd's client makes the calls, which share a stream; the echo gets bare ones."""
    service: str = SERVICE


_RETRIEVE = ("RetrieveMemories", pb.RetrieveMemoriesRequest, pb.RetrieveMemoriesResponse)
_WRITE_BATCH = (
    *("BatchWriteDocuments", document_pb2.BatchWriteDocumentsRequest),
    *(document_pb2.BatchWriteDocumentsResponse, (1, 16), BATCH),
)
_SEARCH = (
    *("SearchDocuments", document_pb2.SearchDocumentsRequest),
    *(document_pb2.SearchDocumentsResponse, (1, 64)),
)
_LOADS = (1, 16, 64, 256)

WORK = {
    work.name: work
    for work in (
        Work(
            "store", "StoreMemory", "StoreMemory",
            pb.StoreMemoryRequest, pb.StoreMemoryResponse, _LOADS,
        ),
        Work(
            "batch", "BatchStoreMemories of 100", "BatchStoreMemories",
            # More callers would exceed the queue for the database.
            pb.BatchStoreMemoriesRequest, pb.BatchStoreMemoriesResponse, (1, 16), BATCH,
        ),
        # Beside the echo of StoreMemory: what it costs in place of a call.
        Work(
            "store_stream", "StoreMemory over a stream", "StoreMemory",
            pb.StoreMemoryRequest, pb.StoreMemoryResponse, (64, 256), streamed=True,
        ),
        Work("get", "GetMemory", "GetMemory", pb.GetMemoryRequest, pb.Memory, _LOADS),
        Work("top_small", "Retrieve, no query, of 100", *_RETRIEVE, _LOADS),
        Work("top_large", "Retrieve, no query, of 1,000", *_RETRIEVE, _LOADS),
        Work("query", "Retrieve, query, of 1,000", *_RETRIEVE, _LOADS),
        # As many callers as change one session between two queries of each.
        Work("query_changed", "Retrieve, query, after a store", *_RETRIEVE, (1, 4)),
        Work(
            "doc_put", "PutDocument", "PutDocument",
            document_pb2.PutDocumentRequest, document_pb2.Document, (1, 64),
            service=DOCUMENT_SERVICE,
        ),
        Work(
            "doc_batch", "BatchWriteDocuments of 100", *_WRITE_BATCH, service=DOCUMENT_SERVICE
        ),
        Work(
            "doc_batch_texts", "the same, searchable", *_WRITE_BATCH, service=DOCUMENT_SERVICE
        ),
        Work(
            "doc_get", "GetDocument", "GetDocument",
            document_pb2.GetDocumentRequest, document_pb2.Document, (1, 64),
            service=DOCUMENT_SERVICE,
        ),
        Work(
            "doc_top", "SearchDocuments, no query", *_SEARCH, service=DOCUMENT_SERVICE
        ),
        Work(
            "doc_search", "SearchDocuments, query", *_SEARCH, service=DOCUMENT_SERVICE
        ),
        Work(
            "sessions", "ListSessions, 50 a page", "ListSessions",
            session_pb2.ListSessionsRequest, session_pb2.ListSessionsResponse, (1, 64),
            service=SESSION_SERVICE,
        ),
        Work(
            "append", "AppendMessages of 2", "AppendMessages",
            conversation_pb2.AppendMessagesRequest, conversation_pb2.AppendMessagesResponse,
            (1, 64), service=CONVERSATION_SERVICE,
        ),
        Work(
            "window", "ListMessages, 20 of 1,000", "ListMessages",
            conversation_pb2.ListMessagesRequest, conversation_pb2.ListMessagesResponse,
            (1, 64), service=CONVERSATION_SERVICE,
        ),
    )
}  # fmt: skip


def store_request(texts: Texts, session_id: str) -> pb.StoreMemoryRequest:
    """A unique memory for a session."""
    request = pb.StoreMemoryRequest(
        session_id=session_id,
        content=texts.content(),
        content_type=pb.CONTENT_TYPE_FACT,
        importance=texts.importance(),
        request_id=new_request_id(),
    )
    request.metadata.update(METADATA)
    return request


def small_session(number: int) -> str:
    return f"small-{number % SMALL_SESSIONS}"


def large_session(number: int) -> str:
    return f"large-{number % LARGE_SESSIONS}"


def growing_session(number: int) -> str:
    return f"growing-{number % LARGE_SESSIONS}"


def prepared_sessions() -> Iterator[tuple[str, int]]:
    """The sessions to read from, and the number of memories in each."""
    for number in range(SMALL_SESSIONS):
        yield small_session(number), SMALL
    for number in range(LARGE_SESSIONS):
        yield large_session(number), LARGE
        yield growing_session(number), LARGE - GROWING_ROOM


class Requests:
    """Endless encoded requests of each kind, for a server with the prepared sessions."""

    def __init__(self, ids: list[tuple[str, str]]) -> None:
        """`ids`: session and memory of what may be read by id."""
        self._ids = ids
        self._texts = Texts(SEED + 1)
        self._documents = DocumentRequests(self._texts)
        self._conversations = ConversationRequests(self._texts)
        self._chance = random.Random(SEED)  # noqa: S311  repeatable, not secret
        self._runs = 0

    def of(self, name: str) -> Iterator[bytes]:
        """The requests of one run, which stores to its own sessions."""
        self._runs += 1
        run, number = self._runs, 0
        while True:
            yield self._make(name, run, number).SerializeToString()
            number += 1

    def _make(self, name: str, run: int, number: int) -> Message:
        target = f"run-{run}-{number % STORE_SESSIONS}"
        request: Message
        match name:
            case "store" | "store_stream":
                request = store_request(self._texts, target)
            case "growing":
                request = store_request(self._texts, growing_session(number))
            case "batch":
                items = [store_request(self._texts, target) for _ in range(BATCH)]
                request = pb.BatchStoreMemoriesRequest(requests=items)
            case "get":
                session_id, memory_id = self._chance.choice(self._ids)
                request = pb.GetMemoryRequest(session_id=session_id, memory_id=memory_id)
            case "top_small":
                request = pb.RetrieveMemoriesRequest(session_id=small_session(number))
            case "top_large":
                request = pb.RetrieveMemoriesRequest(session_id=large_session(number))
            case "query":
                request = question(large_session(number), self._texts.query())
            case "query_changed":
                request = question(growing_session(number), self._texts.query())
            case "append" | "window":
                request = self._conversations.make(name, target, number)
            case _:
                request = self._documents.make(name, target, number)
        return request


def question(session_id: str, query: str) -> pb.RetrieveMemoriesRequest:
    return pb.RetrieveMemoriesRequest(session_id=session_id, query=query)
