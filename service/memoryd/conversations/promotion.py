"""Which messages are to be promoted, and how far a conversation was gone over for that.

Messages are read first, and their texts made memories of, which takes long; then the transaction
that stores them looks what of it still holds. So two calls at once promote each message once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memoryd.conversations import reading, rows
from memoryd.conversations.branches import Branches
from memoryd.conversations.windows import Position, Window, read_conversation, read_page
from memoryd.database import statements
from memoryd.domain.conversations import MAX_PROMOTED, NOWHERE, Place
from memoryd.domain.errors import InvalidRequest, MessageNotFound, Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.conversations.trees import Trees
    from memoryd.conversations.writes import Candidate
    from memoryd.database.dialect import Dialect
    from memoryd.domain.conversations import Conversation, Message
    from memoryd.domain.records import Session

    Shared = Callable[[Place, Place], Place]
    """The last message that the ways back from two messages have in common."""

MAX_BYTES = reading.PAGE_BYTES
"""Of messages that one call goes over. Their texts are in memory together."""


# Marks


def reached(marks: Iterable[Place], head: Place, shared: Shared) -> Place:
    """How far the way to a message was gone over."""
    return max((shared(head, mark) for mark in marks), key=_depth, default=NOWHERE)


def advanced(marks: Iterable[Place], to: Place, shared: Shared) -> tuple[Place, ...]:
    """The marks once the way to a message is gone over."""
    return (*(mark for mark in marks if shared(to, mark) != mark), to)


def kept(marks: Iterable[Place], ends: Sequence[Place], shared: Shared) -> tuple[Place, ...]:
    """The marks of a conversation whose branches have these ends."""
    result: tuple[Place, ...] = ()
    for mark in marks:
        last = max((shared(end, mark) for end in ends), key=_depth, default=NOWHERE)
        if last != NOWHERE and not any(shared(other, last) == last for other in result):
            result = advanced(result, last, shared)
    return result


def _depth(place: Place) -> int:
    return place.depth


# Reading


def read_since_last(
    connection: Connection, dialect: Dialect, session: Session, conversation_id: str, now: datetime
) -> Sequence[Message]:
    """Read the next messages of the head's branch, without the bodies of those that are large.

    Raises ConversationNotFound.
    """
    row = read_conversation(connection, dialect, session, conversation_id, now, full=False)
    begin = Position(*row.head.place, _reached(connection, dialect, row).depth + 1)
    page = read_page(connection, dialect, row, Window(), position=begin, size=MAX_PROMOTED)
    return page.messages


def read_named(
    connection: Connection,
    dialect: Dialect,
    session: Session,
    conversation_id: str,
    now: datetime,
    *,
    message_ids: Sequence[str],
) -> Sequence[Message]:
    """Read messages of any branch without their bodies, in this order.

    Raises ConversationNotFound, MessageNotFound, and InvalidRequest where they are too large.
    """
    row = read_conversation(connection, dialect, session, conversation_id, now, full=False)
    keys = sorted((*session, row.tree, message_id) for message_id in message_ids)
    found = statements.fetch(
        connection, rows.messages_by_id(dialect), dialect.bind(rows.ID_KEY, keys)
    )
    branches = _branches(connection, dialect, row)
    ends = [row.head.place, *(tip.place for tip in row.tips)]
    by_id = {
        message.message_id: message
        for message in (rows.message_of(values[:-1]) for values in found)
        if any(branches.leads_to(end, message.place) for end in ends)
    }
    for message_id in message_ids:
        if message_id not in by_id:
            raise MessageNotFound(message_id)
    size = sum(message.size for message in by_id.values())
    if size > MAX_BYTES:
        raise InvalidRequest(
            Violation(
                "message_ids",
                f"must be of messages that have at most {MAX_BYTES:,} bytes together, these have"
                f" {size:,}; promote them in several calls",
            )
        )
    return [by_id[message_id] for message_id in message_ids]


def _reached(connection: Connection, dialect: Dialect, row: Conversation) -> Place:
    head, marks = row.head.place, row.promoted
    on_branch = [mark for mark in marks if mark.branch == head.branch]
    if on_branch:  # nothing beyond it was gone over: no mark lies before another
        return min(head, *on_branch)
    if not marks:
        return NOWHERE
    return reached(marks, head, _branches(connection, dialect, row).shared)


def _branches(connection: Connection, dialect: Dialect, row: Conversation) -> Branches:
    bound = dialect.bind(rows.TREE_KEY, [(*row.session, row.tree)])
    found = statements.fetch(connection, rows.branches_by_tree(dialect), bound)
    return Branches(map(rows.branch_of, found))


# In the transaction


def still_there(
    candidates: Sequence[Candidate],
    connection: Connection,
    dialect: Dialect,
    row: Conversation,
    trees: Trees,
) -> list[Candidate]:
    """Give those candidates that the conversation still has."""
    places = [candidate.place for candidate in candidates]
    found = reading.outlines_at(connection, dialect, row.session, places)
    # Where a message was removed and another one came into its place, that has another revision.
    there = {(message.place, message.revision) for message in found}
    return [
        candidate
        for candidate in candidates
        if (candidate.place, candidate.revision) in there and trees.has(row, candidate.place)
    ]


def next_in_line(
    candidates: Iterable[Candidate], row: Conversation, trees: Trees, start: Place
) -> list[Candidate]:
    """Give those candidates that follow a message on the head's branch without a gap."""
    following: list[Candidate] = []
    depth = start.depth
    for candidate in candidates:
        if candidate.place.depth <= start.depth:
            continue
        depth += 1
        on_branch = trees.leads_to(row, row.head.place, candidate.place)
        if candidate.place.depth != depth or not on_branch:
            break
        following.append(candidate)
    return following


def shared_in(trees: Trees, row: Conversation) -> Shared:
    return lambda place, other: trees.shared(row, place, other)
