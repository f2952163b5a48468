"""Whether a server goes on from a database that was restored."""

from __future__ import annotations

import grpc

from memoryd.v1 import conversation_pb2, document_pb2
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.conversation_pb2_grpc import ConversationServiceStub
from memoryd.v1.document_pb2_grpc import DocumentServiceStub
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

from .document_faults import body_of
from .harness import SESSIONS
from .stored import Stored
from .talks import said_of


async def assert_continues(stored: Stored, channel: grpc.aio.Channel) -> None:
    """Fail unless a server of the restored database continues its sessions."""
    memory, documents = MemoryServiceStub(channel), DocumentServiceStub(channel)
    conversations = ConversationServiceStub(channel)
    for session_id in SESSIONS:
        request = pb.StoreMemoryRequest(session_id=session_id, content="after the restore")
        answer = await memory.StoreMemory(request)
        assert answer.memory.revision == stored.revisions[session_id] + 1
        shown = await documents.ListDocuments(
            document_pb2.ListDocumentsRequest(session_id=session_id, page_size=1000)
        )
        found = {(tuple(one.namespace), one.key): body_of(one) for one in shown.documents}
        assert found == stored.current_documents(session_id)
        document = document_pb2.Document(session_id=session_id, key="new", text="after it, too")
        put = await documents.PutDocument(document_pb2.PutDocumentRequest(document=document))
        assert put.revision == answer.memory.revision + 1
        await _assert_conversations(stored, conversations, session_id, put.revision)


async def _assert_conversations(
    stored: Stored, conversations: ConversationServiceStub, session_id: str, revision: int
) -> None:
    """Fail unless all messages are there, and others follow them."""
    exported = [
        one
        async for one in conversations.ExportMessages(
            conversation_pb2.ExportMessagesRequest(session_id=session_id)
        )
    ]
    held = [one for one in stored.conversations.held if one.session_id == session_id]
    found = {
        (one.conversation.conversation_id, said_of(message))
        for one in exported
        for message in one.messages
    }
    assert found == {
        (one.conversation_id, message.said)
        for one in held
        for line in one.lines
        for message in line
    }
    for conversation in (*held, None):
        name = conversation.conversation_id if conversation else "new"
        last = conversation.head[-1].said.message_id if conversation and conversation.head else ""
        message = conversation_pb2.Message(parts=[{"text": "after it, too"}])
        answer = await conversations.AppendMessages(
            conversation_pb2.AppendMessagesRequest(
                session_id=session_id, conversation_id=name, messages=[message]
            )
        )
        revision += 1
        assert answer.messages[0].revision == revision
        assert answer.messages[0].parent_message_id == last
