"""Removing messages that no conversation needs any more, and what the sweeper looks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, delete, func, select

from memoryd.conversations import rows
from memoryd.conversations.branches import Branches
from memoryd.conversations.trees import tree_of
from memoryd.conversations.writes import Named
from memoryd.database import statements
from memoryd.database.tables import conversation_branches, conversation_requests, conversations
from memoryd.database.tables import messages as message_table
from memoryd.domain.quotas import Usage
from memoryd.domain.records import Session

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

    from memoryd.conversations.trees import Trees
    from memoryd.domain.conversations import Conversation, Place


class Lost(NamedTuple):
    """Messages that go: those of a branch beyond a depth."""

    branch: int
    kept: int
    """0: all of them."""


class Unneeded:
    """What a tree has no need of once one of its conversations changes or is gone.

    The transaction has written all that it has changed of the tree before.
    """

    def __init__(
        self, connection: Connection, trees: Trees, before: Conversation, after: Conversation | None
    ) -> None:
        self._connection = connection
        self._trees = trees
        self._tree = tree_of(before)
        others = [
            row
            for row in _sharing(connection, before)
            if row.conversation_id != before.conversation_id
        ]
        self._lost: list[Lost] | None = None
        """None: the whole tree."""
        if others or after is not None:
            branches = trees.branches(self._tree)
            shared = [place for other in others for place in _places(other)]
            own = [] if after is None else _places(after)
            lost = Branches.lost(
                branches.needed([*shared, *_places(before)]), branches.needed([*shared, *own])
            )
            self._lost = [Lost(branch, kept) for branch, kept in sorted(lost.items())]

    def usage(self) -> Usage:
        """How much the tenant has less without it."""
        m = message_table.c
        count, size = 0, 0
        for condition in self._conditions():
            found = self._connection.execute(
                select(func.count(), func.coalesce(func.sum(m.size), 0)).where(condition)
            ).one()
            count, size = count + found[0], size + int(found[1])
        return Usage(messages=-count, bytes=-size)

    def delete(self) -> None:
        for condition in self._conditions():
            self._connection.execute(delete(message_table).where(condition))
        b = conversation_branches.c
        own = _of_session(b, self._tree.session)
        if self._lost is None:
            gone = b.tree == self._tree.number
        else:
            gone = b.branch.in_([lost.branch for lost in self._lost if not lost.kept])
        self._connection.execute(delete(conversation_branches).where(own, gone))
        self._trees.forget(self._tree)

    def _conditions(self) -> Iterable[ColumnElement[bool]]:
        m = message_table.c
        own = _of_session(m, self._tree.session)
        if self._lost is None:
            yield and_(own, m.tree == self._tree.number)
            return
        for branch, kept in self._lost:
            yield and_(own, m.branch == branch, m.depth > kept)


def forget_requests(connection: Connection, session: Session, conversation_id: str) -> None:
    """Drop the answers that are kept for retries of calls on a conversation."""
    r = conversation_requests.c
    connection.execute(
        delete(conversation_requests).where(
            _of_session(r, session), r.conversation_id == conversation_id
        )
    )


def expired(connection: Connection, now: datetime, limit: int) -> list[Named]:
    """Conversations whose time has come; the longest overdue first."""
    c = conversations.c
    found = connection.execute(
        select(c.tenant, c.session_id, c.conversation_id)
        .where(c.expires_at <= now)
        .order_by(c.expires_at)
        .limit(limit)
    )
    return [Named(Session(row[0], row[1]), row[2]) for row in found]


def _sharing(connection: Connection, row: Conversation) -> list[Conversation]:
    """The conversations of a tree."""
    c = conversations.c
    statement = select(*rows.OUTLINE).where(_of_session(c, row.session), c.tree == row.tree)
    return [*map(rows.conversation_of, statements.fetch_built(connection, statement, {}))]


def _places(row: Conversation) -> list[Place]:
    return [row.head.place, *(tip.place for tip in row.tips)]


def _of_session(columns: Any, session: Session) -> ColumnElement[bool]:
    return and_(columns.tenant == session.tenant, columns.session_id == session.session_id)
