"""Every sort of call about one session, and what a session has to have for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from memoryd.v1 import conversation_pb2 as conversation_pb
from memoryd.v1 import document_pb2 as document_pb
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import session_pb2 as session_pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from google.protobuf.message import Message
    from tests.conftest import Running

    Calls = Mapping[str, tuple[str, Callable[[str], Message]]]
    """By their method: the service, and the request for a session."""

TIMEOUT_SECONDS = 20
ATTEMPTS = 50
PAUSE_SECONDS = 0.1
REFUSALS = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
"""How a call ends whose worker is away."""

REQUEST_ID = "0190a0b0-0000-4000-8000-000000000001"
NAMED = {"conversation_id": "talk"}


def spoken(session_id: str, text: str, request_id: str = "") -> Message:
    message = conversation_pb.Message(
        role=conversation_pb.ROLE_USER, parts=[conversation_pb.Part(text=text)]
    )
    return conversation_pb.AppendMessagesRequest(
        session_id=session_id, messages=[message], request_id=request_id, **NAMED
    )


def put(session_id: str, key: str, text: str) -> Message:
    return document_pb.PutDocumentRequest(
        document=document_pb.Document(session_id=session_id, key=key, text=text)
    )


def stored(session_id: str, content: str, **values: Any) -> Message:
    return pb.StoreMemoryRequest(session_id=session_id, content=content, **values)


def _changed_session(session_id: str) -> Message:
    return session_pb.UpdateSessionRequest(
        session=session_pb.Session(session_id=session_id, display_name="changed"),
        update_mask=FieldMask(paths=["display_name"]),
    )


READS: Calls = {
    "ListMemories": ("memory", lambda s: pb.ListMemoriesRequest(session_id=s)),
    "RetrieveMemories": (
        "memory",
        lambda s: pb.RetrieveMemoriesRequest(session_id=s, query="fact"),
    ),
    "FindSimilarMemories": (
        "memory",
        lambda s: pb.FindSimilarMemoriesRequest(session_id=s, content="a fact"),
    ),
    "ExportMemories": ("memory", lambda s: pb.ExportMemoriesRequest(session_id=s)),
    "GetDocument": (
        "documents",
        lambda s: document_pb.GetDocumentRequest(session_id=s, key="first"),
    ),
    "ListDocuments": ("documents", lambda s: document_pb.ListDocumentsRequest(session_id=s)),
    "ListNamespaces": ("documents", lambda s: document_pb.ListNamespacesRequest(session_id=s)),
    "SearchDocuments": (
        "documents",
        lambda s: document_pb.SearchDocumentsRequest(session_id=s, query="text"),
    ),
    "ExportDocuments": ("documents", lambda s: document_pb.ExportDocumentsRequest(session_id=s)),
    "GetConversation": (
        "conversations",
        lambda s: conversation_pb.GetConversationRequest(session_id=s, **NAMED),
    ),
    "ListConversations": (
        "conversations",
        lambda s: conversation_pb.ListConversationsRequest(session_id=s),
    ),
    "ListMessages": (
        "conversations",
        lambda s: conversation_pb.ListMessagesRequest(session_id=s, **NAMED),
    ),
    "ExportMessages": (
        "conversations",
        lambda s: conversation_pb.ExportMessagesRequest(session_id=s, **NAMED),
    ),
    "GetSession": ("sessions", lambda s: session_pb.GetSessionRequest(session_id=s)),
}
"""What answers with rows of a session that was prepared."""

WRITES: Calls = {
    "StoreMemory": ("memory", lambda s: stored(s, "another", request_id=REQUEST_ID)),
    "BatchStoreMemories": (
        "memory",
        lambda s: pb.BatchStoreMemoriesRequest(requests=[stored(s, "another", key="second")]),
    ),
    "PutDocument": ("documents", lambda s: put(s, "second", "more")),
    "DeleteDocument": (
        "documents",
        lambda s: document_pb.DeleteDocumentRequest(session_id=s, key="first", allow_missing=True),
    ),
    "BatchWriteDocuments": (
        "documents",
        lambda s: document_pb.BatchWriteDocumentsRequest(
            session_id=s,
            writes=[document_pb.DocumentWrite(put=put(s, "second", "more"))],
            request_id=REQUEST_ID,
        ),
    ),
    "AppendMessages": ("conversations", lambda s: spoken(s, "again", REQUEST_ID)),
    "PopMessages": (
        "conversations",
        lambda s: conversation_pb.PopMessagesRequest(
            session_id=s, count=1, request_id=REQUEST_ID, **NAMED
        ),
    ),
    "UpdateSession": ("sessions", _changed_session),
    "EraseSession": ("memory", lambda s: pb.EraseSessionRequest(session_id=s)),
}
"""What changes a session that was prepared; sent again, it changes nothing more."""

CALLS = {**READS, **WRITES}


async def prepare(running: Running, session_id: str) -> None:
    """Give a session a memory, a document and a conversation."""
    await running.memory.StoreMemory(stored(session_id, "a fact", key="first"))
    await running.documents.PutDocument(put(session_id, "first", "a text"))
    await running.conversations.AppendMessages(spoken(session_id, "hello"))


async def call(running: Running, method: str, session_id: str) -> Any:
    """Make one of CALLS; a stream's answers are a list."""
    service, request = CALLS[method]
    made = getattr(getattr(running, service), method)
    answer = made(request(session_id), timeout=TIMEOUT_SECONDS)
    return [one async for one in answer] if hasattr(answer, "read") else await answer


async def is_refused(running: Running, method: str, session_id: str) -> bool:
    """Make one of CALLS, and tell whether it was refused since a worker is away."""
    try:
        await call(running, method, session_id)
    except grpc.aio.AioRpcError as error:
        if error.code() not in REFUSALS:
            raise
        return True
    return False


async def patiently(read: Callable[[], Awaitable[Any]]) -> Any:
    """Read again where it is refused: each connection fails once more after a worker was away."""
    for _ in range(ATTEMPTS):
        try:
            return await read()
        except grpc.aio.AioRpcError as error:
            if error.code() not in REFUSALS:
                raise
        await asyncio.sleep(PAUSE_SECONDS)
    return await read()


async def state_of(running: Running, session_id: str) -> tuple[object, ...]:
    """What a session has: contents, texts of documents, and messages."""
    return await patiently(lambda: _state_of(running, session_id))


async def _state_of(running: Running, session_id: str) -> tuple[object, ...]:
    memories = await call(running, "ListMemories", session_id)
    documents = await call(running, "ExportDocuments", session_id)
    messages = []
    if (await call(running, "ListConversations", session_id)).conversations:
        found = await call(running, "ListMessages", session_id)
        messages = [one.parts[0].text for one in found.messages]
    return (
        sorted(each.content for each in memories.memories),
        sorted((each.key, each.text) for each in documents),
        messages,
    )
