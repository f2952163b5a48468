"""Conversations and their messages as messages of the wire, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memoryd.domain.conversations import estimated_tokens
from memoryd.domain.records import Change
from memoryd.rpc.answer_size import MAX_ANSWER_BYTES, RESPONSE_FRAMING_BYTES
from memoryd.rpc.encoding import LENGTH, tag, varint
from memoryd.rpc.memories.messages import fill_time, timestamp
from memoryd.rpc.structs import fill_struct
from memoryd.v1 import conversation_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.protobuf.message import Message as AnyMessage

    from memoryd.conversations.windows import MessagePage
    from memoryd.conversations.writes import Appended
    from memoryd.domain.conversations import Conversation, ConversationEvent, Message, Summary
    from memoryd.domain.records import Session


_PROTO_CHANGE = {
    Change.CREATED: conversation_pb2.CONVERSATION_CHANGE_CREATED,
    Change.UPDATED: conversation_pb2.CONVERSATION_CHANGE_UPDATED,
    Change.DELETED: conversation_pb2.CONVERSATION_CHANGE_DELETED,
    Change.EXPIRED: conversation_pb2.CONVERSATION_CHANGE_EXPIRED,
    Change.PURGED: conversation_pb2.CONVERSATION_CHANGE_PURGED,
}

_MESSAGES: dict[type[AnyMessage], bytes] = {
    answer: bytes([tag(answer, "messages", LENGTH)])
    for answer in (
        conversation_pb2.AppendMessagesResponse,
        conversation_pb2.PopMessagesResponse,
        conversation_pb2.ListMessagesResponse,
        conversation_pb2.ExportMessagesResponse,
    )
}
"""What stands before each message of an answer."""

Encoded = tuple[bytes, bytes]
"""A message in two parts: its body, and the rest."""


def conversation_message(row: Conversation) -> conversation_pb2.Conversation:
    """With the text of its summary, where that was read."""
    message = conversation_pb2.Conversation(
        session_id=row.session.session_id,
        conversation_id=row.conversation_id,
        display_name=row.display_name,
        labels=row.labels,
        head_message_id=row.head.message_id,
        branch_heads=row.branch_heads,
        message_count=row.head.depth,
        token_count=row.head.tokens,
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        revision=row.revision,
        etag=row.etag,
    )
    if row.state:
        fill_struct(message.state, row.state)
    if row.summary is not None:
        message.summary.CopyFrom(summary_message(row.summary))
    if row.forked_from is not None:
        message.forked_from.conversation_id = row.forked_from
        message.forked_from.message_id = row.forked_at
    if row.ttl is not None:
        message.ttl.FromTimedelta(row.ttl)
    if row.expires_at is None:
        message.never_expires = True
    else:
        message.expire_time.CopyFrom(timestamp(row.expires_at))
    return message


def summary_message(summary: Summary) -> conversation_pb2.Summary:
    return conversation_pb2.Summary(
        text=summary.text or "",
        through_message_id=summary.through_message_id,
        token_count=summary.tokens,
        update_time=timestamp(summary.updated_at),
    )


def encoded_message(message: Message) -> Encoded:
    """A message that was read with its body, which is kept as it is encoded."""
    rest = conversation_pb2.Message(
        message_id=message.message_id,
        parent_message_id=message.parent_id,
        token_count=message.tokens,
        token_count_estimated=message.is_estimated,
        revision=message.revision,
    )
    fill_time(rest.create_time, message.created_at)
    return message.body or b"", rest.SerializeToString()


def append_response(appended: Appended) -> bytes:
    """An AppendMessagesResponse."""
    conversation = brief_message(appended.conversation)
    messages, is_cut = _fitting(appended.messages, conversation)
    return _response(
        messages,
        conversation_pb2.AppendMessagesResponse(conversation=conversation, truncated=is_cut),
    )


def pop_response(popped: Iterable[Message]) -> bytes:
    """A PopMessagesResponse."""
    return _response(map(encoded_message, popped), conversation_pb2.PopMessagesResponse())


def window_response(page: MessagePage, next_token: str) -> bytes:
    """A ListMessagesResponse."""
    rest = conversation_pb2.ListMessagesResponse(next_page_token=next_token)
    if page.summary is not None:
        rest.summary.CopyFrom(summary_message(page.summary))
    return _response(map(encoded_message, page.messages), rest)


def export_response(
    conversation: Conversation, messages: Iterable[Message], *, is_first: bool
) -> bytes:
    """An ExportMessagesResponse; the first on a conversation tells all of it."""
    rest = conversation_pb2.ExportMessagesResponse()
    if is_first:
        rest.conversation.CopyFrom(conversation_message(conversation))
    else:
        rest.conversation.session_id = conversation.session.session_id
        rest.conversation.conversation_id = conversation.conversation_id
    return _response(map(encoded_message, messages), rest)


def _response(messages: Iterable[Encoded], rest: AnyMessage) -> bytes:
    """An answer of encoded messages, and of a message that has what it has besides them."""
    field = _MESSAGES[type(rest)]
    parts: list[bytes] = []
    for body, other in messages:
        parts += (field, varint(len(body) + len(other)), body, other)
    parts.append(rest.SerializeToString())
    return b"".join(parts)


def event_message(
    session: Session, event: ConversationEvent
) -> conversation_pb2.WatchConversationsResponse:
    answer = conversation_pb2.WatchConversationsResponse(
        change=_PROTO_CHANGE[event.change], revision=event.revision
    )
    if event.conversation is not None:
        answer.conversation.CopyFrom(brief_message(event.conversation))
    else:
        answer.conversation.session_id = session.session_id
        answer.conversation.conversation_id = event.conversation_id
        answer.conversation.revision = event.revision
    messages, answer.truncated = _fitting(event.messages, answer.conversation)
    answer.messages.extend(map(conversation_pb2.Message.FromString, map(b"".join, messages)))
    return answer


def brief_message(row: Conversation) -> conversation_pb2.Conversation:
    """Without the text of its summary."""
    message = conversation_message(row)
    if row.summary is not None:
        message.summary.ClearField("text")
    return message


def _fitting(
    messages: Iterable[Message], conversation: conversation_pb2.Conversation
) -> tuple[list[Encoded], bool]:
    """Encode messages, the last ones without what is large if all would be too large together.

    Says whether that is so.
    """
    room, is_cut = MAX_ANSWER_BYTES - conversation.ByteSize() - RESPONSE_FRAMING_BYTES, False
    fitting: list[Encoded] = []
    for message in messages:
        body, rest = encoded_message(message)
        if len(body) + len(rest) + RESPONSE_FRAMING_BYTES > room:
            is_cut = True
            short = conversation_pb2.Message.FromString(body)
            for field in ("parts", "raw_json", "metadata"):
                short.ClearField(field)
            body = short.SerializeToString()
        room -= len(body) + len(rest) + RESPONSE_FRAMING_BYTES
        fitting.append((body, rest))
    return fitting, is_cut


def body_of(message: conversation_pb2.Message) -> bytes:
    """What the caller set of a message but its id, as it is kept; see `encoded_message`."""
    kept = conversation_pb2.Message()
    kept.CopyFrom(message)
    kept.DiscardUnknownFields()
    kept.ClearField("message_id")
    if has_estimate(message):
        kept.ClearField("token_count")
    for field in ("parent_message_id", "token_count_estimated", "create_time", "revision"):
        kept.ClearField(field)
    body: bytes = kept.SerializeToString(deterministic=True)
    return body


def has_estimate(message: conversation_pb2.Message) -> bool:
    """Whether its tokens are to be estimated, such as those of a message that was read so."""
    return message.token_count_estimated or not message.HasField("token_count")


def tokens_of(message: conversation_pb2.Message) -> int:
    """Estimate the tokens of a message that says none."""
    texts = [text for part in message.parts for text in texts_of(part)]
    if not message.parts:
        texts = [message.raw_json]
    return estimated_tokens(sum(len(text.encode()) for text in texts))


def texts_of(part: conversation_pb2.Part) -> Iterator[str]:
    """What a model reads of a part."""
    match part.WhichOneof("part"):
        case "text":
            yield part.text
        case "thinking":
            yield part.thinking
        case "tool_call":
            yield part.tool_call.name
            yield part.tool_call.arguments_json
        case "tool_result":
            yield part.tool_result.text
            yield part.tool_result.json


def is_result(message: conversation_pb2.Message) -> bool:
    """Whether it has the result of a call that is not in it."""
    calls = {p.tool_call.call_id for p in message.parts if p.HasField("tool_call")}
    results = (p.tool_result.call_id for p in message.parts if p.HasField("tool_result"))
    return any(call_id not in calls for call_id in results)
