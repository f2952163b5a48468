"""Rows of `conversations`, `conversation_branches` and `messages` as records, and back."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import or_

from memoryd.conversations.branches import Branch
from memoryd.database.moments import NOW
from memoryd.database.tables import conversation_branches, conversations, messages
from memoryd.domain.conversations import Conversation, Head, Message, Place, Summary, Tip
from memoryd.domain.records import Change, Session
from memoryd.sessions.lock import SHARD_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Select

    from memoryd.database.dialect import Dialect

NAME = (*SHARD_KEY, "conversation_id")
"""The columns that name a conversation."""

KEY = tuple(conversations.c[name] for name in NAME)

PLACE = (*SHARD_KEY, "branch", "depth")
"""The columns that name a message."""

PLACE_KEY = tuple(messages.c[name] for name in PLACE)

ID_KEY = tuple(messages.c[name] for name in (*SHARD_KEY, "tree", "message_id"))

TREE_KEY = tuple(conversation_branches.c[name] for name in (*SHARD_KEY, "tree"))

_MICROSECOND = timedelta(microseconds=1)

_OUTLINE = tuple(column for column in conversations.c if column.name != "summary")

FULL = (*_OUTLINE, conversations.c.summary)
"""What a record of a conversation holds, in the order of the table; OUTLINE is all but the text of
its summary."""

OUTLINE = _OUTLINE

BRANCH = (
    *(conversation_branches.c[name] for name in SHARD_KEY),
    *(
        conversation_branches.c[name]
        for name in ("branch", "owner", "parent", "first_depth", "tokens_before")
    ),
)

_MESSAGE = (
    *("branch", "depth", "message_id", "parent_id", "tokens", "is_estimated", "tokens_through"),
    *("turn_id", "turn_depth", "created_at", "revision", "size", "sha256"),
)

MESSAGE = tuple(messages.c[name] for name in (*SHARD_KEY, *_MESSAGE))
"""What a record of a message holds, but its body."""


def conversation_of(row: Sequence[Any]) -> Conversation:
    """The record of a row that begins with OUTLINE."""
    tenant, session_id, conversation_id, number, tree, revision, change, *values = row[:12]
    created_at, updated_at, expires_at, ttl, branch = values
    depth, first, message_id, tokens, turn_id, turn_depth, head_at, is_end, is_tip = row[12:21]
    tips, promoted, forked_from, forked_at, display_name, labels, state, *summary = row[21:31]
    through, counted, set_at = summary
    text = row[31] if len(row) > len(OUTLINE) else None
    return Conversation(
        Session(tenant, session_id),
        conversation_id,
        number,
        tree,
        revision,
        Change(change),
        created_at,
        updated_at,
        expires_at,
        None if ttl is None else timedelta(microseconds=ttl),
        Head(
            Place(branch, depth),
            first,
            message_id,
            tokens,
            turn_id,
            turn_depth,
            head_at,
            bool(is_end),
        ),
        bool(is_tip),
        tuple(Tip(*tip) for tip in tips),
        tuple(Place(*place) for place in promoted),
        forked_from,
        forked_at,
        display_name,
        labels,
        state,
        None if set_at is None else Summary(text, through, counted, set_at),
    )


def values_of(row: Conversation) -> dict[str, Any]:
    """The columns of a conversation, but the text of its summary where that was not read."""
    head, ttl, summary = row.head, row.ttl, row.summary
    values = {
        **row.session._asdict(),
        "conversation_id": row.conversation_id,
        "number": row.number,
        "tree": row.tree,
        "revision": row.revision,
        "change": row.change.value,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "expires_at": row.expires_at,
        "ttl_microseconds": None if ttl is None else ttl // _MICROSECOND,
        "head_branch": head.place.branch,
        "head_depth": head.place.depth,
        "head_first_depth": head.first_depth,
        "head_message_id": head.message_id,
        "head_tokens": head.tokens,
        "head_turn_id": head.turn_id,
        "head_turn_depth": head.turn_depth,
        "head_created_at": head.created_at,
        "head_is_end": head.is_end,
        "head_is_tip": row.head_is_tip,
        "tips": [[*tip] for tip in row.tips],
        "promoted": [[*place] for place in row.promoted],
        "forked_from": row.forked_from,
        "forked_at": row.forked_at,
        "display_name": row.display_name,
        "labels": row.labels,
        "state": row.state,
        "summary_through": None if summary is None else summary.through_message_id,
        "summary_tokens": None if summary is None else summary.tokens,
        "summary_updated_at": None if summary is None else summary.updated_at,
    }
    if summary is None or summary.text is not None:
        values["summary"] = None if summary is None else summary.text
    return values


def key_of(row: Conversation) -> dict[str, str]:
    """The columns that name a conversation."""
    return {**row.session._asdict(), "conversation_id": row.conversation_id}


def branch_of(row: Sequence[Any]) -> Branch:
    """The record of a row of BRANCH."""
    return Branch(*row[len(SHARD_KEY) :])


def branch_values(session: Session, tree: int, branch: Branch) -> dict[str, Any]:
    """The columns of a branch."""
    values = branch._asdict()
    return {**session._asdict(), "branch": values.pop("number"), "tree": tree, **values}


def message_of(row: Sequence[Any]) -> Message:
    """The record of a row of MESSAGE, or of that and its body."""
    branch, depth, message_id, parent_id, tokens, is_estimated, *values = row[len(SHARD_KEY) :]
    return Message(Place(branch, depth), message_id, parent_id, tokens, bool(is_estimated), *values)


def message_values(session: Session, tree: int, message: Message) -> dict[str, Any]:
    """The columns of a message with its body."""
    values = message._asdict()
    place: Place = values.pop("place")
    return {**session._asdict(), **place._asdict(), "tree": tree, **values}


def live() -> ColumnElement[bool]:
    """What readers see at NOW."""
    return or_(conversations.c.expires_at.is_(None), conversations.c.expires_at > NOW)


@cache
def outlines_by_name(dialect: Dialect) -> Select[Any]:
    """Look up OUTLINE by KEY."""
    return dialect.look_up(KEY, OUTLINE)


@cache
def full_by_name(dialect: Dialect) -> Select[Any]:
    """Look up FULL by KEY."""
    return dialect.look_up(KEY, FULL)


@cache
def messages_by_id(dialect: Dialect) -> Select[Any]:
    """Look up MESSAGE and the tree by ID_KEY."""
    return dialect.look_up(ID_KEY, (*MESSAGE, messages.c.tree))


@cache
def messages_by_place(dialect: Dialect) -> Select[Any]:
    """Look up MESSAGE by PLACE_KEY."""
    return dialect.look_up(PLACE_KEY, MESSAGE)


@cache
def branches_by_tree(dialect: Dialect) -> Select[Any]:
    """Look up BRANCH by TREE_KEY."""
    return dialect.look_up(TREE_KEY, BRANCH)
