"""Messages of conversations that are kept as a framework gave them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from memoryd.client import Cancelled, DeadlineExceeded, Internal, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from memoryd.client import ConversationHandle, Message

MAYBE_DONE = (Cancelled, DeadlineExceeded, Internal, Unavailable)
"""Errors after which a change may have been committed."""

MAX_LAST = 2**31 - 1
"""Messages that a window may be of."""


async def newest(
    conversation: ConversationHandle, raw_format: str, limit: int | None = None
) -> list[Any]:
    """The newest messages of a format, the oldest of them first; `limit`: None: all.

    None of a conversation that is not there.
    """
    wanted = MAX_LAST if limit is None else min(limit, MAX_LAST)
    last = wanted
    while last > 0:
        try:
            window = await conversation.window(last=None if limit is None else last)
        except NotFound:
            break
        found = of_format(raw_format, window.messages)
        # Messages of others do not count, so that it takes more to have enough.
        if len(found) >= wanted or len(window.messages) < last:
            return found[-wanted:]
        last = min(2 * last, MAX_LAST)
    return []


def of_format(raw_format: str, messages: Iterable[Message]) -> list[Any]:
    """The JSON of those messages that are of a format."""
    return [json.loads(each.raw_json) for each in messages if each.raw_format == raw_format]
