"""Page tokens: one of a list is refused by every other list, however alike their requests are."""

from __future__ import annotations

import grpc
import pytest

from memoryd.v1 import conversation_pb2, document_pb2, memory_pb2, session_pb2

NAME = "s"
PAGES = {
    "memory.ListMemories": memory_pb2.ListMemoriesRequest(session_id=NAME, page_size=1),
    "sessions.ListSessions": session_pb2.ListSessionsRequest(session_id_prefix=NAME, page_size=1),
    "documents.ListDocuments": document_pb2.ListDocumentsRequest(session_id=NAME, page_size=1),
    "documents.ListNamespaces": document_pb2.ListNamespacesRequest(session_id=NAME, page_size=1),
    "conversations.ListConversations": conversation_pb2.ListConversationsRequest(
        session_id=NAME, page_size=1
    ),
}
"""Requests whose bytes are the same but for the page's size."""


@pytest.fixture
def read(running):
    """Read a page of one of these lists."""

    def read(method, page_token=""):
        service, _, name = method.partition(".")
        request = type(PAGES[method])()
        request.CopyFrom(PAGES[method])
        request.page_token = page_token
        return getattr(getattr(running, service), name)(request)

    return read


async def test_a_token_of_another_list_is_refused(running, read, refused):
    for number in range(3):
        await running.memory.StoreMemory(
            memory_pb2.StoreMemoryRequest(session_id=NAME, content=f"fact {number}")
        )
        document = document_pb2.Document(
            session_id=NAME, namespace=[str(number)], key="k", json="{}"
        )
        await running.documents.PutDocument(document_pb2.PutDocumentRequest(document=document))
        conversation = conversation_pb2.Conversation(session_id=NAME, conversation_id=f"c{number}")
        await running.conversations.CreateConversation(
            conversation_pb2.CreateConversationRequest(conversation=conversation)
        )
        await running.sessions.UpdateSession(
            session_pb2.UpdateSessionRequest(
                session=session_pb2.Session(session_id=f"{NAME}{number}"), allow_missing=True
            )
        )
    tokens = {method: (await read(method)).next_page_token for method in PAGES}
    assert all(tokens.values())
    for method, own in tokens.items():
        assert (await read(method, own)).next_page_token
        for token in tokens.values():
            if token != own:
                found = await refused(read(method, token))
                assert found.code is grpc.StatusCode.INVALID_ARGUMENT
                assert list(found.violations) == ["page_token"]
