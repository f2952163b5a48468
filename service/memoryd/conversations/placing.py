"""Where messages that are appended come to stand. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from memoryd.domain.conversations import Message, NewMessage, Place
from memoryd.domain.errors import MessageAlreadyExists
from memoryd.domain.ids import uuid7

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from memoryd.domain.conversations import Head

TAKEN = "on another branch, or with another body; give it an id that is new in the conversation"


class Same(NamedTuple):
    """That an item says the same as an earlier one of its call."""

    place: int


Planned = NewMessage | Message | Same
"""What becomes of an item: it is added, it is there already, or it is the same as another one."""


def plan(
    items: Sequence[NewMessage],
    find: Callable[[str], Message | None],
    is_on_branch: Callable[[Place], bool],
) -> list[Planned]:
    """Tell what is new from what is there. Raises MessageAlreadyExists.

    `find` gives the message of the conversation with an id; `is_on_branch` says whether the new
    ones will follow a place.
    """
    planned: list[Planned] = []
    first: dict[str, int] = {}
    for place, item in enumerate(items):
        message_id = item.message_id
        if not message_id:
            planned.append(item)
            continue
        earlier = first.setdefault(message_id, place)
        if earlier != place:
            if items[earlier].sha256 != item.sha256:
                raise _taken(item)
            planned.append(Same(earlier))
            continue
        held = find(message_id)
        if held is None:
            planned.append(item)
        elif held.sha256 == item.sha256 and is_on_branch(held.place):
            planned.append(held._replace(body=item.body))
        else:
            raise _taken(item)
    return planned


class Placed(NamedTuple):
    answered: list[Message]
    """One for each item."""
    added: list[Message]
    head: Head
    """The last one of those that were added, or as before."""


def placed(
    planned: Sequence[Planned], head: Head, branch: int, revision: int, now: datetime
) -> Placed:
    """Have what is new follow `head`, on a branch, in order."""
    answer: list[Message] = []
    added: list[Message] = []
    # A clock may be set back; the times of a branch never fall.
    created_at = now if head.created_at is None else max(now, head.created_at)
    for item in planned:
        if isinstance(item, Same):
            answer.append(answer[item.place])
            continue
        if isinstance(item, Message):
            answer.append(item)
            continue
        depth = head.depth + 1
        goes_on = head.depth and (item.is_result or (item.turn_id and item.turn_id == head.turn_id))
        message = Message(
            Place(branch, depth),
            item.message_id or uuid7(now),
            head.message_id,
            item.tokens,
            item.is_estimated,
            head.tokens + item.tokens,
            item.turn_id,
            head.turn_depth if goes_on else depth,
            created_at,
            revision,
            len(item.body),
            item.sha256,
            item.body,
        )
        answer.append(message)
        added.append(message)
        head = message.head(head.first_depth if head.place.branch == branch else depth, is_end=True)
    return Placed(answer, added, head)


def _taken(item: NewMessage) -> MessageAlreadyExists:
    error = MessageAlreadyExists(item.message_id, TAKEN)
    error.field = item.field
    return error
