"""Reading whole conversations, with all branches, part by part."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import String, bindparam, select

from memoryd.conversations import reading, rows
from memoryd.conversations.branches import Branches
from memoryd.conversations.windows import read_conversation
from memoryd.database import statements
from memoryd.database.tables import conversations
from memoryd.domain.conversations import Place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Select

    from memoryd.database.dialect import Dialect
    from memoryd.domain.conversations import Conversation, Message
    from memoryd.domain.records import Session

IDS_AT_ONCE = 500
"""Names of conversations that one statement reads."""

CHUNK = 200
"""Messages that one statement reads."""


class Content(NamedTuple):
    """What there is of a conversation."""

    conversation: Conversation
    branches: Sequence[tuple[int, int, int]]
    """Each with the depths of its first message and of its last that the conversation has. One
    that goes on from another comes after it."""

    def places(self, position: Position) -> list[Place]:
        """The next places from a position on, of one branch."""
        branch, _, last = self.branches[position.branch]
        end = min(last, position.depth + CHUNK - 1)
        return [Place(branch, depth) for depth in range(position.depth, end + 1)]


class Position(NamedTuple):
    branch: int
    """Which one of those of the content."""
    depth: int


class Part(NamedTuple):
    messages: Sequence[Message]
    next_position: Position | None
    """None: this was the last part."""


def read_ids(connection: Connection, session: Session, after: str, now: datetime) -> list[str]:
    """The next ids of a session's conversations behind one, in the database's order."""
    bound = {**session._asdict(), "after": after, "now": now}
    return [row[2] for row in statements.fetch(connection, _ids(), bound)]


def read_content(
    connection: Connection, dialect: Dialect, session: Session, conversation_id: str, now: datetime
) -> Content:
    """Raises ConversationNotFound."""
    row = read_conversation(connection, dialect, session, conversation_id, now, full=True)
    bound = dialect.bind(rows.TREE_KEY, [(*session, row.tree)])
    found = statements.fetch(connection, rows.branches_by_tree(dialect), bound)
    branches = Branches(map(rows.branch_of, found))
    needed = branches.needed([row.head.place, *(tip.place for tip in row.tips)])
    # A branch has a higher number than the one that it goes on from.
    parts = [(b, branches.named(b).first_depth, last) for b, last in sorted(needed.items())]
    return Content(row, parts)


def first_position(content: Content) -> Position | None:
    """Where to begin; None: there are no messages."""
    return Position(0, content.branches[0][1]) if content.branches else None


def read_part(
    connection: Connection, dialect: Dialect, content: Content, position: Position
) -> Part:
    """Read the next messages of a conversation, as many as fit into an answer."""
    session = content.conversation.session
    places = content.places(position)
    outlines = reading.outlines_at(connection, dialect, session, places)
    fitting = [message.place for message in reading.fitting(outlines)]
    found = reading.messages_at(connection, dialect, session, fitting)
    is_whole = len(fitting) == len(outlines)
    depth = (places[-1] if is_whole else fitting[-1]).depth + 1
    if depth <= content.branches[position.branch][2]:
        return Part(found, Position(position.branch, depth))
    branch = position.branch + 1
    is_last = branch == len(content.branches)
    return Part(found, None if is_last else Position(branch, content.branches[branch][1]))


@cache
def _ids() -> Select[Any]:
    c = conversations.c
    return (
        select(*rows.KEY)
        .where(
            c.tenant == bindparam("tenant", type_=String),
            c.session_id == bindparam("session_id", type_=String),
            c.conversation_id > bindparam("after", type_=String),
            rows.live(),
        )
        .order_by(c.conversation_id)
        .limit(IDS_AT_ONCE)
    )
