"""What the tables hold of conversations and their messages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from memoryd.database.tables import (
    conversation_branches,
    conversation_history,
    conversations,
    messages,
)

from .talks import Said, Talk

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class Message(NamedTuple):
    """A row of `messages`."""

    said: Said
    parent_id: str
    revision: int
    tokens: int


Line = tuple[Message, ...]
"""The messages of a branch, from the first one on."""


class Conversation(NamedTuple):
    """A row of `conversations`, with the messages that it leads to."""

    session_id: str
    conversation_id: str
    revision: int
    head: Line
    others: tuple[Line, ...] = ()
    counted: tuple[int, int] = (0, 0)
    """Its messages and tokens by its row."""
    summary: tuple[str, str] | None = None
    state: str = ""

    @property
    def lines(self) -> Iterator[Line]:
        yield self.head
        yield from self.others

    @property
    def talk(self) -> Talk:
        others = frozenset(tuple(m.said for m in line) for line in self.others)
        return Talk(tuple(m.said for m in self.head), others, self.summary, self.state)


@dataclass(frozen=True)
class Conversations:
    """All of a database, by session."""

    held: Sequence[Conversation] = ()
    messages: Mapping[str, Sequence[Message]] = field(default_factory=dict)
    """Every row of `messages`, those that several conversations share once."""
    revisions: Mapping[str, Collection[int]] = field(default_factory=dict)
    """Of which something is left."""
    newest: Mapping[str, int] = field(default_factory=dict)
    """The revision of the last change."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """How many conversations each session has by its row."""

    def only(self, session_ids: Collection[str]) -> Conversations:
        """The part of some sessions."""
        return Conversations(
            [one for one in self.held if one.session_id in session_ids],
            *(
                {name: value for name, value in of_sessions.items() if name in session_ids}
                for of_sessions in (self.messages, self.revisions, self.newest, self.counts)
            ),
        )


async def read_conversations(
    connection: AsyncConnection, counts: Mapping[str, int]
) -> Conversations:
    """Read the tables; `counts` are those of the sessions' rows."""
    rows, parents = await _messages(connection), await _parents(connection)
    c, h = conversations.c, conversation_history.c
    held, revisions = [], defaultdict[str, set[int]](set)
    newest = defaultdict[str, int](int)
    for row in await connection.execute(sa.select(conversations)):

        def line(branch: int, depth: int, session_id: str = row.session_id) -> Line:
            places = _back(parents[session_id], branch, depth)
            found = (rows[session_id].get(place) for place in places)
            return tuple(one for one in found if one is not None)[::-1]

        held.append(
            Conversation(
                *(row.session_id, row.conversation_id, row.revision),
                head=line(row.head_branch, row.head_depth),
                others=tuple(line(branch, depth) for branch, depth, _ in row.tips),
                counted=(row.head_depth, row.head_tokens),
                summary=None
                if row.summary_updated_at is None
                else (row.summary, row.summary_through),
                state=str(row.state.get("last", "")),
            )
        )
    said = {session_id: list(of_session.values()) for session_id, of_session in rows.items()}
    for table in (c.session_id, c.revision), (h.session_id, h.revision):
        for session_id, revision in await connection.execute(sa.select(*table)):
            revisions[session_id].add(revision)
            newest[session_id] = max(newest[session_id], revision)
    for session_id, of_session in said.items():
        revisions[session_id].update(message.revision for message in of_session)
    return Conversations(held, said, revisions, newest, counts)


async def _messages(
    connection: AsyncConnection,
) -> Mapping[str, dict[tuple[int, int], Message]]:
    """By session, branch and depth."""
    m = messages.c
    columns = (m.message_id, m.body, m.parent_id, m.revision, m.tokens)
    found = await connection.execute(sa.select(m.session_id, m.branch, m.depth, *columns))
    rows: defaultdict[str, dict[tuple[int, int], Message]] = defaultdict(dict)
    for session_id, branch, depth, message_id, body, *values in found:
        rows[session_id][branch, depth] = Message(Said(message_id, body), *values)
    return rows


async def _parents(connection: AsyncConnection) -> Mapping[str, dict[int, Any]]:
    """By session and branch: the branch before it, and the depth of its first message."""
    b = conversation_branches.c
    found = await connection.execute(sa.select(b.session_id, b.branch, b.parent, b.first_depth))
    parents: defaultdict[str, dict[int, Any]] = defaultdict(dict)
    for session_id, branch, *before in found:
        parents[session_id][branch] = tuple(before)
    return parents


def _back(
    parents: Mapping[int, tuple[int, int]], branch: int, depth: int
) -> Iterator[tuple[int, int]]:
    """The places from a message back to the first one."""
    while branch:
        before, first = parents.get(branch, (0, 1))
        yield from ((branch, at) for at in range(depth, first - 1, -1))
        branch, depth = before, first - 1
