"""What has changed among a session's conversations since a revision.

A conversation's row says its last change, its messages those before it; `conversation_history` says
that conversations are gone.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

from memoryd.conversations import reading, rows
from memoryd.database import statements
from memoryd.database.feed import Changes
from memoryd.database.tables import (
    conversation_branches,
    conversation_history,
    conversations,
    messages,
    sessions,
)
from memoryd.domain.conversations import ConversationEvent
from memoryd.domain.records import Change
from memoryd.sessions.history import newer, newer_rows, out_of_range
from memoryd.sessions.lock import SHARD_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Select

    from memoryd.database.dialect import Dialect
    from memoryd.domain.conversations import Conversation, Message
    from memoryd.domain.records import Session

READ_LIMIT = 50
"""Conversations that one read brings at the most, and as many that are gone."""

READ_MESSAGES = 1_001
"""Messages that one read brings at the most: always all of one call, and one more."""

_HORIZON = sessions.c.conversation_horizon
_CURRENT = newer(conversations, rows.OUTLINE, limit=READ_LIMIT, horizon=_HORIZON)
_GONE = newer(
    conversation_history,
    [conversation_history.c[n] for n in (*SHARD_KEY, "revision", "conversation_id", "change")],
    limit=READ_LIMIT,
    horizon=_HORIZON,
)
_MESSAGES = newer(messages, rows.MESSAGE, limit=READ_MESSAGES, horizon=_HORIZON)

_BRANCH_KEY = tuple(conversation_branches.c[name] for name in (*SHARD_KEY, "branch"))
_TREE_KEY = tuple(conversations.c[name] for name in (*SHARD_KEY, "tree"))


def session_purged(revision: int) -> ConversationEvent:
    """That all conversations of a session are gone."""
    return ConversationEvent(revision, Change.PURGED, "", None)


def read_changes(
    dialect: Dialect, connection: Connection, session: Session, after: int
) -> Changes[ConversationEvent]:
    """Read the next changes of conversations after a revision.

    Raises RevisionOutOfRange where deletions since are no longer all known, or the session is
    another than the one that had the revision.
    """
    key = {**session._asdict(), "after": after}
    # First what is current: what changes from here on is beyond the session's revision as found.
    current = newer_rows(statements.fetch(connection, _CURRENT, key), after)
    revision = until = current.revision
    if after > revision:
        raise out_of_range(after)
    found = [*map(rows.conversation_of, current.rows)]
    if len(found) == READ_LIMIT:
        until = found[-1].revision
    gone = newer_rows(statements.fetch(connection, _GONE, key), after).rows
    if len(gone) == READ_LIMIT:
        until = min(until, gone[-1][2])
    appended = newer_rows(statements.fetch(connection, _MESSAGES, key), after).rows
    by_revision: defaultdict[int, list[Message]] = defaultdict(list)
    for message in map(rows.message_of, appended):
        by_revision[message.revision].append(message)
    if len(appended) == READ_MESSAGES:
        last = max(by_revision)
        del by_revision[last]
        until = min(until, last - 1)
    by_revision = defaultdict(list, {r: m for r, m in by_revision.items() if r <= until})
    rows_at = {row.revision: row for row in found}
    others = {at: m for at, m in by_revision.items() if at not in rows_at}
    rows_at |= _owners(connection, dialect, session, others)
    events = _events(rows_at, after)
    for _, _, at, conversation_id, change in gone:
        events[at] = ConversationEvent(at, Change(change), conversation_id, None)
    fitting = _fitting([events[at] for at in sorted(events) if at <= until], by_revision)
    if fitting and fitting[-1].revision < max(at for at in events if at <= until):
        until = fitting[-1].revision
    complete = _with_messages(connection, dialect, session, fitting, by_revision)
    return Changes(complete, revision, is_all=until == revision)


def _events(rows_at: Mapping[int, Conversation], after: int) -> dict[int, ConversationEvent]:
    """What has happened to conversations at some revisions, all of them after one.

    The first event of what was made since says that it was, whatever became of it by then.
    """
    events: dict[int, ConversationEvent] = {}
    told: set[int] = set()
    for at, row in sorted(rows_at.items()):
        is_new = row.number > after and row.number not in told
        told.add(row.number)
        change = Change.CREATED if is_new else Change.UPDATED
        events[at] = ConversationEvent(at, change, row.conversation_id, row)
    return events


def _owners(
    connection: Connection,
    dialect: Dialect,
    session: Session,
    appended: dict[int, list[Message]],
) -> dict[int, Conversation]:
    """By revisions, the conversations that messages were appended to.

    Where that is gone, another one that has them, since it was forked from it.
    """
    branch_of = {at: found[0].place.branch for at, found in appended.items()}
    if not branch_of:
        return {}
    bound = dialect.bind(_BRANCH_KEY, [(*session, b) for b in sorted({*branch_of.values()})])
    found = statements.fetch(connection, _by_branch(dialect), bound)
    owner_of = {branch: (owner, tree) for _, _, branch, owner, tree in found}
    trees = sorted({tree for _, tree in owner_of.values()})
    if not trees:
        return {}
    bound = dialect.bind(_TREE_KEY, [(*session, tree) for tree in trees])
    by_tree: defaultdict[int, dict[int, Conversation]] = defaultdict(dict)
    for row in map(rows.conversation_of, statements.fetch(connection, _by_tree(dialect), bound)):
        by_tree[row.tree][row.number] = row
    owners: dict[int, Conversation] = {}
    for at, branch in branch_of.items():
        owner, tree = owner_of.get(branch, (0, 0))
        there = by_tree.get(tree)
        if there:
            owners[at] = there.get(owner) or there[min(there)]
    return owners


def _fitting(
    events: Sequence[ConversationEvent], appended: dict[int, list[Message]]
) -> Sequence[ConversationEvent]:
    """The first ones, whose messages together are not too large; at least one."""
    room = reading.PAGE_BYTES
    for place, event in enumerate(events):
        room -= sum(message.size for message in appended.get(event.revision, ()))
        if room < 0 and place:
            return events[:place]
    return events


def _with_messages(
    connection: Connection,
    dialect: Dialect,
    session: Session,
    events: Sequence[ConversationEvent],
    appended: dict[int, list[Message]],
) -> Sequence[ConversationEvent]:
    wanted = {event.revision for event in events if event.conversation is not None}
    places = [m.place for at in wanted for m in appended.get(at, ())]
    found: defaultdict[int, list[Message]] = defaultdict(list)
    for message in reading.messages_at(connection, dialect, session, places):
        found[message.revision].append(message)
    return [
        event._replace(messages=sorted(found[event.revision], key=lambda m: m.place.depth))
        if event.revision in found
        else event
        for event in events
    ]


@cache
def _by_branch(dialect: Dialect) -> Select[Any]:
    b = conversation_branches.c
    return dialect.look_up(_BRANCH_KEY, (*_BRANCH_KEY, b.owner, b.tree))


@cache
def _by_tree(dialect: Dialect) -> Select[Any]:
    return dialect.look_up(_TREE_KEY, rows.OUTLINE)
