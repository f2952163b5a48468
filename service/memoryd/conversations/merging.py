"""The conversations of one session become another's."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import BigInteger, String, and_, bindparam, case, cast, func, insert, select

from memoryd.conversations import rows
from memoryd.conversations.writes import Named
from memoryd.database import statements
from memoryd.database.dialect import columns_of
from memoryd.database.moments import expired
from memoryd.database.tables import conversation_branches, conversations, messages
from memoryd.domain.conversations import Place, Tip
from memoryd.domain.quotas import Usage
from memoryd.domain.records import Change

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Insert, Table

    from memoryd.database.dialect import Dialect
    from memoryd.domain.conversations import Conversation
    from memoryd.domain.records import Session

_NUMBERS: Mapping[Table, Collection[str]] = {
    conversation_branches: ("branch", "tree", "owner", "parent"),
    messages: ("branch", "tree", "revision"),
}
"""Columns with revisions of a session; 0 is none."""

MAX_ID_CHARACTERS = 255
"""Of a conversation's id."""


class MovedConversations(NamedTuple):
    """What became of the source's conversations."""

    moved: int
    conflicts: tuple[str, ...]
    """Ids that both sessions had: those of the source have a suffix now."""
    added: int = 0
    """How many more the target has: those that had expired there made room."""


def measure_conversations(connection: Connection, session: Session) -> Usage:
    """Count a session's conversations and messages, and the bytes of these."""
    count, size = connection.execute(
        select(func.count(), func.coalesce(func.sum(messages.c.size), 0)).where(
            _of(messages, session)
        )
    ).one()
    found = select(func.count()).select_from(conversations).where(_of(conversations, session))
    conversation_count = connection.execute(found).scalar_one()
    return Usage(bytes=int(size), conversations=conversation_count, messages=count)


def expired_in(connection: Connection, session: Session, now: datetime) -> list[Named]:
    """The conversations of a session whose time has come."""
    c = conversations.c
    found = select(c.conversation_id).where(_of(conversations, session), expired(c.expires_at))
    return [Named(session, row[0]) for row in connection.execute(found, {"now": now})]


def move_conversations(
    connection: Connection,
    dialect: Dialect,
    source: Session,
    target: Session,
    *,
    revision: int,
    now: datetime,
) -> MovedConversations:
    """Move all conversations to another session of the tenant, which is at this revision.

    What was a revision of the source becomes as many beyond it of the target. Both sessions are
    locked, none of their conversations has expired, and the source is erased after it.
    """
    statement = select(*rows.FULL).where(_of(conversations, source))
    statement = statement.order_by(conversations.c.revision)
    found = [*map(rows.conversation_of, statements.fetch_built(connection, statement, {}))]
    if not found:
        return MovedConversations(0, ())
    ids = select(conversations.c.conversation_id).where(_of(conversations, target))
    taken = set(connection.execute(ids).scalars())
    own = {row.conversation_id for row in found}
    renamed = {i: _free(i, taken | own) for i in sorted(own & taken)}
    moved = [rows.values_of(_moved(row, target, renamed, revision, now)) for row in found]
    dialect.insert_many(connection, conversations, columns_of(moved))
    parameters = {
        "from_tenant": source.tenant,
        "from_session": source.session_id,
        "to_session": target.session_id,
        "beyond": revision,
    }
    for table in _NUMBERS:
        connection.execute(_copy(table), parameters)
    return MovedConversations(len(found), tuple(renamed))


def _free(conversation_id: str, taken: set[str]) -> str:
    """An id that is not taken, which then is."""
    number = 1
    while True:
        suffix = f".merged-{number}"
        # An id may not have two dots in a row.
        name = conversation_id[: MAX_ID_CHARACTERS - len(suffix)].rstrip(".") + suffix
        if name not in taken:
            taken.add(name)
            return name
        number += 1


def _moved(
    row: Conversation, target: Session, renamed: Mapping[str, str], beyond: int, now: datetime
) -> Conversation:
    head, source = row.head, row.forked_from
    branch = head.place.branch
    return row._replace(
        session=target,
        conversation_id=renamed.get(row.conversation_id, row.conversation_id),
        number=row.number + beyond,
        tree=row.tree + beyond,
        revision=row.revision + beyond,
        change=Change.CREATED,
        updated_at=now,  # lists go by it, and by the revision
        head=head._replace(place=Place(branch + beyond, head.depth) if branch else head.place),
        tips=tuple(Tip(tip.branch + beyond, tip.depth, tip.message_id) for tip in row.tips),
        promoted=tuple(Place(place.branch + beyond, place.depth) for place in row.promoted),
        forked_from=None if source is None else renamed.get(source, source),
    )


def _of(table: Table, session: Session) -> ColumnElement[bool]:
    return and_(table.c.tenant == session.tenant, table.c.session_id == session.session_id)


@cache
def _copy(table: Table) -> Insert:
    """Copy rows as they are, so that no body passes through here."""
    beyond = bindparam("beyond", type_=BigInteger)
    new: dict[str, Any] = {"session_id": cast(bindparam("to_session"), String)}
    for name in _NUMBERS[table]:
        column = table.c[name]
        new[name] = cast(case((column == 0, column), else_=column + beyond), BigInteger)
    columns: Sequence[Any] = [new.get(column.name, column) for column in table.c]
    return insert(table).from_select(
        [column.name for column in table.c],
        select(*columns).where(
            table.c.tenant == bindparam("from_tenant"),
            table.c.session_id == bindparam("from_session"),
        ),
    )
