"""Requests that certainly keep the protos' rules, as those of MemoryService in its own module."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from memoryd.domain.conversations import MAX_MESSAGES
from memoryd.rpc.memories.plain import is_request_id, is_session_id
from memoryd.rpc.violations import FIRST_SECOND, LAST_SECOND, NANOS_A_SECOND
from memoryd.v1.conversation_pb2 import Role

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from memoryd.v1 import conversation_pb2

_is_message_id = re.compile(r"[A-Za-z0-9._:@-]{1,255}").fullmatch

_ROLES = frozenset(Role.values())

MAX_NAME_CHARACTERS = 255
"""Of an author, a turn and a format, as the protos have it."""


def is_plain_name(
    request: conversation_pb2.GetConversationRequest | conversation_pb2.AppendMessagesRequest,
) -> bool:
    return (
        is_session_id(request.session_id) is not None
        and is_session_id(request.conversation_id) is not None
    )


def is_plain_append(request: conversation_pb2.AppendMessagesRequest) -> bool:
    return (
        is_plain_name(request)
        and (not request.request_id or is_request_id(request.request_id) is not None)
        and len(request.messages) <= MAX_MESSAGES
        and all(map(_is_plain_message, request.messages))
    )


def _is_plain_message(message: conversation_pb2.Message) -> bool:
    return (
        (not message.message_id or _is_message_id(message.message_id) is not None)
        and message.role in _ROLES
        and len(message.author) <= MAX_NAME_CHARACTERS
        and len(message.turn_id) <= MAX_NAME_CHARACTERS
        and len(message.raw_format) <= MAX_NAME_CHARACTERS
        and message.token_count >= 0
        and not message.HasField("create_time")
        and (not message.HasField("occur_time") or _is_time(message.occur_time))
        and all(part.WhichOneof("part") is not None for part in message.parts)
    )


def _is_time(moment: Timestamp) -> bool:
    return FIRST_SECOND <= moment.seconds <= LAST_SECOND and 0 <= moment.nanos < NANOS_A_SECOND
