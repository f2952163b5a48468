"""The calls on conversations that are measured, as memoryd's client sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from texts import DIALOGUE_MESSAGES, DIALOGUES, LAST

from memoryd.client.messages import new_request_id
from memoryd.client.new_messages import new_messages
from memoryd.client.windows import window_request
from memoryd.v1 import conversation_pb2

if TYPE_CHECKING:
    from connections import Connections
    from google.protobuf.message import Message
    from texts import Texts

CONVERSATION_SERVICE = "memoryd.v1.ConversationService"
CONVERSATION = "dialogue"
"""The only one of each session."""


def dialogue_session(number: int) -> str:
    return f"dialogue-{number % DIALOGUES}"


def append_request(
    texts: Texts, session_id: str, *, messages: int = 2
) -> conversation_pb2.AppendMessagesRequest:
    """Append so many messages: what a user says, and what the assistant answers, in turn."""
    said: list[conversation_pb2.Message] = []
    while len(said) < messages:
        question, answer = texts.exchange()
        said += new_messages((), {"user": question, "assistant": answer})
    return conversation_pb2.AppendMessagesRequest(
        session_id=session_id,
        conversation_id=CONVERSATION,
        messages=said[:messages],
        request_id=new_request_id(),
    )


def window_of(session_id: str) -> conversation_pb2.ListMessagesRequest:
    """The newest messages of a session's conversation."""
    return window_request(session_id, CONVERSATION, {"last": LAST})


class ConversationRequests:
    """Makes requests for a server with the prepared conversations."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts

    def make(self, name: str, target: str, number: int) -> Message:
        """`target`: the session that is appended to."""
        if name == "append":
            return append_request(self._texts, target)
        return window_of(dialogue_session(number))


async def fill_conversation(
    connections: Connections, texts: Texts, session_id: str, messages: int
) -> None:
    """Append so many messages to a session's conversation."""
    (append, *_) = connections.calls(CONVERSATION_SERVICE, "AppendMessages")
    for start in range(0, messages, DIALOGUE_MESSAGES):
        count = min(DIALOGUE_MESSAGES, messages - start)
        request = append_request(texts, session_id, messages=count)
        await append(request.SerializeToString())


async def fill_conversations(connections: Connections, texts: Texts) -> None:
    """Append the messages to read."""
    for number in range(DIALOGUES):
        await fill_conversation(connections, texts, dialogue_session(number), DIALOGUE_MESSAGES)
