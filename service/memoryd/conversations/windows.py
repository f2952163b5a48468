"""Windows of a conversation's messages, found by index from the end of a branch backwards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import BigInteger, String, bindparam, case, literal, null, select

from memoryd.conversations import reading, rows
from memoryd.conversations.branches import Branches, Run
from memoryd.database import statements
from memoryd.database.tables import conversation_branches, messages
from memoryd.domain.conversations import Place
from memoryd.domain.errors import ConversationNotFound, MessageNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Select

    from memoryd.database.dialect import Dialect
    from memoryd.domain.conversations import Conversation, Message, Summary
    from memoryd.domain.records import Session

CHUNK = 200
"""Messages that one statement reads, with those bodies that are small."""

SMALL_BYTES = 16 * 1024
"""Bodies up to this size are read with the rest of a message; larger ones by themselves, so that
small reads do not wait for them."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which messages are wanted; of the first four at most one is given."""

    last: int | None = None
    max_tokens: int | None = None
    since: datetime | None = None
    after_message_id: str = ""
    branch_head: str = ""
    """Empty: the head."""
    complete_turns: bool = False
    with_summary: bool = False


class Position(NamedTuple):
    """Where a page begins: in which branch, up to which depth of it, and from which one."""

    branch: int
    end: int
    first: int


class MessagePage(NamedTuple):
    messages: Sequence[Message]
    """Without the bodies of those that are large."""
    summary: Summary | None
    next_position: Position | None
    """None: this was the last page."""
    is_whole: bool
    """Whether each message follows the one before it: none was removed while they were read."""


class _Way:
    """The way from the end of a branch back to the first message, as far as it was read."""

    def __init__(
        self,
        connection: Connection,
        dialect: Dialect,
        row: Conversation,
        end: Place,
        tokens: int,
    ) -> None:
        self._connection = connection
        self._dialect = dialect
        self._row = row
        self.end = end
        self.tokens = tokens
        """Of all messages up to the end."""
        self.runs: list[Run] = []
        """From the end backwards."""
        head = row.head
        if end.branch == head.place.branch and head.first_depth == 1:
            self.runs = [Run(end.branch, 1, end.depth, 0)]

    def read(self, *, depth: int = 1, tokens: int = 0) -> None:
        """Read the runs back to a depth, or as far as to have so many tokens before them."""
        if not self.end.branch or (self.runs and self.runs[-1].first <= depth):
            return
        bound = {
            **self._row.session._asdict(),
            "tree": self._row.tree,
            "branch": self.end.branch,
            "depth": depth,
            "tokens": tokens,
        }
        last = self.end.depth
        self.runs = []
        for row in statements.fetch(self._connection, _way(), bound):
            branch = rows.branch_of(row)
            self.runs.append(Run(branch.number, branch.first_depth, last, branch.tokens_before))
            last = branch.first_depth - 1

    def has(self, place: Place) -> bool:
        """Whether a message is on the way."""
        self.read(depth=place.depth)
        return any(
            run.branch == place.branch and run.first <= place.depth <= run.last for run in self.runs
        )

    def places(self, first: int, count: int) -> list[Place]:
        """Give the places from a depth on, at most so many."""
        last = min(first + count - 1, self.end.depth)
        self.read(depth=first)
        return [
            Place(run.branch, depth)
            for run in reversed(self.runs)
            for depth in range(max(run.first, first), min(run.last, last) + 1)
        ]

    def outlines(self, first: int, count: int) -> list[Message]:
        """Read messages from a depth on without their bodies, at most so many."""
        places = self.places(first, count)
        return reading.outlines_at(self._connection, self._dialect, self._row.session, places)

    def first_of_tokens(self, most: int) -> int:
        """The depth of the first of the newest messages that have so many tokens together."""
        before = self.tokens - most
        if before <= 0:
            return 1
        self.read(tokens=before)
        run = next(run for run in self.runs if run.tokens_before < before or run.first == 1)
        bound = {
            **self._row.session._asdict(),
            "branch": run.branch,
            "before": before,
            "last": run.last,
        }
        found = statements.fetch(self._connection, _at_tokens(), bound)
        if not found:
            return run.last + 1
        message = rows.message_of(found[0])
        is_in = message.tokens_through - message.tokens >= before
        return message.place.depth if is_in else message.place.depth + 1

    def first_since(self, moment: datetime) -> int:
        """The depth of the first message of a time or later: times never fall along the way."""
        low, high = 1, self.end.depth + 1
        while low < high:
            middle = (low + high) // 2
            found = self.outlines(middle, 1)
            if found and found[0].created_at < moment:
                low = middle + 1
            else:
                high = middle
        return low

    def whole_turn(self, first: int) -> int:
        """Where a window begins that is to begin with a turn: at the next one from a depth on.

        Where there is none, at the beginning of the one that the depth lies in.
        """
        cut: int | None = None
        depth, count = first, 1  # most windows begin with one
        while depth <= self.end.depth:
            for message in self.outlines(depth, count):
                cut = message.turn_depth if cut is None else cut
                if message.turn_depth == message.place.depth:
                    return message.place.depth
            depth, count = depth + count, min(8 * count, CHUNK)
        return first if cut is None else cut


def read_page(
    connection: Connection,
    dialect: Dialect,
    row: Conversation,
    window: Window,
    *,
    position: Position | None,
    size: int,
) -> MessagePage:
    """Read a page of a window, the first one where there is no position.

    Raises MessageNotFound.
    """
    summary = None
    if position is not None:
        way = _Way(connection, dialect, row, Place(position.branch, position.end), 0)
        first = position.first
    else:
        way = _way_of(connection, dialect, row, window.branch_head)
        first = _first(connection, dialect, row, way, window)
        if window.with_summary and row.summary is not None:
            through = _on_way(connection, dialect, row, way, row.summary.through_message_id)
            if through is not None:
                summary = row.summary
                first = max(first, through.place.depth + 1)
        if window.complete_turns and first <= way.end.depth:
            first = way.whole_turn(first)
    found: list[Message] = []
    depth, is_whole = first, True
    while depth <= way.end.depth and len(found) < size:
        places = way.places(depth, min(CHUNK, size - len(found)))
        some = _small_at(connection, dialect, row.session, places)
        is_whole = is_whole and len(some) == len(places)
        found += some
        depth += len(places)
        if len(reading.fitting(found)) < len(found) or not places:
            break
    page = reading.fitting(found)
    is_last = not page or page[-1].place.depth >= way.end.depth
    follows = None if is_last else Position(*way.end, page[-1].place.depth + 1)
    pairs = pairwise(page)
    is_whole = is_whole and all(after.parent_id == one.message_id for one, after in pairs)
    return MessagePage(page, summary, follows, is_whole)


def read_conversation(
    connection: Connection,
    dialect: Dialect,
    session: Session,
    conversation_id: str,
    now: datetime,
    *,
    full: bool,
) -> Conversation:
    """Read one, with the text of its summary if it is to be full. Raises ConversationNotFound."""
    statement = rows.full_by_name(dialect) if full else rows.outlines_by_name(dialect)
    bound = dialect.bind(rows.KEY, [(*session, conversation_id)])
    found = [*map(rows.conversation_of, statements.fetch(connection, statement, bound))]
    if not found or found[0].is_expired(now):
        raise ConversationNotFound(conversation_id)
    return found[0]


def _first(
    connection: Connection, dialect: Dialect, row: Conversation, way: _Way, window: Window
) -> int:
    """The depth that a window begins with, as far as its kind says."""
    if window.last is not None:
        return max(1, way.end.depth - window.last + 1)
    if window.max_tokens is not None:
        return max(1, min(way.first_of_tokens(window.max_tokens), way.end.depth))
    if window.since is not None:
        return way.first_since(window.since)
    if window.after_message_id:
        message_id = window.after_message_id
        after = _on_way(connection, dialect, row, way, message_id)
        if after is None:
            raise MessageNotFound(message_id, "the branch")
        return after.place.depth + 1
    return 1


def _way_of(connection: Connection, dialect: Dialect, row: Conversation, end: str) -> _Way:
    """The way back from a message of a conversation; empty: from its head."""
    if end in ("", row.head.message_id):
        return _Way(connection, dialect, row, row.head.place, row.head.tokens)
    bound = dialect.bind(rows.TREE_KEY, [(*row.session, row.tree)])
    found = statements.fetch(connection, rows.branches_by_tree(dialect), bound)
    branches = Branches(map(rows.branch_of, found))
    ends = [row.head.place, *(tip.place for tip in row.tips)]
    for message in _with_id(connection, dialect, row, end):
        if any(branches.leads_to(place, message.place) for place in ends):
            return _Way(connection, dialect, row, message.place, message.tokens_through)
    raise MessageNotFound(end)


def _on_way(
    connection: Connection, dialect: Dialect, row: Conversation, way: _Way, message_id: str
) -> Message | None:
    found = _with_id(connection, dialect, row, message_id)
    return next((message for message in found if way.has(message.place)), None)


def _with_id(
    connection: Connection, dialect: Dialect, row: Conversation, message_id: str
) -> list[Message]:
    """The messages of a tree with an id; forks may have others with the same."""
    bound = dialect.bind(rows.ID_KEY, [(*row.session, row.tree, message_id)])
    found = statements.fetch(connection, rows.messages_by_id(dialect), bound)
    return [rows.message_of(values[:-1]) for values in found]


def _small_at(
    connection: Connection, dialect: Dialect, session: Session, places: Sequence[Place]
) -> list[Message]:
    return reading.read(connection, dialect, _small_by_place(dialect), session, places)


@cache
def _small_by_place(dialect: Dialect) -> Select[Any]:
    body = case((messages.c.size <= SMALL_BYTES, messages.c.body), else_=null())
    return dialect.look_up(rows.PLACE_KEY, (*rows.MESSAGE, body.label("body")))


@cache
def _at_tokens() -> Select[Any]:
    """The first message of a branch with which so many tokens are there, itself included."""
    m = messages.c
    return (
        select(*rows.MESSAGE)
        .where(
            m.tenant == bindparam("tenant", type_=String),
            m.session_id == bindparam("session_id", type_=String),
            m.branch == bindparam("branch", type_=BigInteger),
            m.tokens_through >= bindparam("before", type_=BigInteger),
            m.depth <= bindparam("last", type_=BigInteger),
        )
        .order_by(m.tokens_through, m.depth)
        .limit(1)
    )


@cache
def _way() -> Select[Any]:
    """The branches from one back to the first message, or as far as they are wanted."""
    b = conversation_branches
    of_session = (
        b.c.tenant == bindparam("tenant", type_=String),
        b.c.session_id == bindparam("session_id", type_=String),
        b.c.tree == bindparam("tree", type_=BigInteger),
    )
    begin = select(*rows.BRANCH, literal(1).label("place")).where(
        *of_session, b.c.branch == bindparam("branch", type_=BigInteger)
    )
    way = begin.cte("way", recursive=True)
    parents = (
        select(*rows.BRANCH, way.c.place + 1)
        .select_from(way.join(b, b.c.branch == way.c.parent))
        .where(
            *of_session,
            way.c.first_depth > bindparam("depth", type_=BigInteger),
            way.c.tokens_before >= bindparam("tokens", type_=BigInteger),
        )
    )
    way = way.union_all(parents)
    columns = [way.c[column.name] for column in rows.BRANCH]
    return select(*columns).order_by(way.c.place)
