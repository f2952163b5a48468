"""Windows of conversations: which messages callers ask for, and what they get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from memoryd.client import arguments as args
from memoryd.v1 import conversation_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from memoryd.client.answers import Message, Summary


class WindowOptions(TypedDict, total=False):
    """Which messages of a conversation, as keyword arguments: at most one of the first four."""

    last: int | None
    """The newest, so many."""
    max_tokens: int | None
    """The newest whose tokens together are at most so many; at least one message."""
    since: datetime | None
    """Those appended at this time or later. Aware."""
    after_message_id: str | None
    """Those after this message."""
    branch_head: str
    """The message that the branch ends with, in place of the head."""
    complete_turns: bool
    """Whether to begin with a whole turn: not with a tool's result whose call was cut off, and not
    within a `turn_id`."""
    with_summary: bool
    """Whether to read the summary, and only messages after the one that it ends with."""


@dataclass(frozen=True, slots=True)
class Window:
    """Messages of a conversation."""

    messages: Sequence[Message]
    """The oldest first."""
    summary: Summary | None
    """With `with_summary`, if there is one that applies."""


class ConversationName(TypedDict):
    """What names a conversation."""

    session_id: str
    conversation_id: str


def name_of(session_id: str, conversation_id: str) -> ConversationName:
    return {
        "session_id": args.text("session_id", session_id),
        "conversation_id": args.text("conversation_id", conversation_id),
    }


def window_request(
    session_id: str, conversation_id: str, which: WindowOptions
) -> conversation_pb2.ListMessagesRequest:
    args.only_known(which, WindowOptions, "option")
    max_tokens = which.get("max_tokens")
    bounds: dict[str, Any] = {
        "last": args.optional_int32("last", which.get("last")),
        "max_tokens": None if max_tokens is None else args.int64("max_tokens", max_tokens),
        "since": args.timestamp("since", which.get("since")),
        "after_message_id": args.optional_text("after_message_id", which.get("after_message_id")),
    }
    args.at_most_one(**bounds)
    return conversation_pb2.ListMessagesRequest(
        **name_of(session_id, conversation_id),
        **bounds,
        branch_head=args.text("branch_head", which.get("branch_head", "")),
        complete_turns=args.flag("complete_turns", which.get("complete_turns", False)),
        with_summary=args.flag("with_summary", which.get("with_summary", False)),
    )
