"""Reading messages by their places."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from memoryd.conversations import rows
from memoryd.database import statements
from memoryd.database.tables import messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Select

    from memoryd.database.dialect import Dialect
    from memoryd.domain.conversations import Message, Place
    from memoryd.domain.records import Session

PAGE_BYTES = 3 * 1024 * 1024
"""Of messages in one answer, unless one is larger."""

MESSAGE_OVERHEAD_BYTES = 512
"""What an answer has of a message besides its body, about."""


def outlines_at(
    connection: Connection, dialect: Dialect, session: Session, places: Sequence[Place]
) -> list[Message]:
    """Read messages without their bodies, in this order; those that are gone are left out."""
    return read(connection, dialect, rows.messages_by_place(dialect), session, places)


def messages_at(
    connection: Connection, dialect: Dialect, session: Session, places: Sequence[Place]
) -> list[Message]:
    """As `outlines_at`, with their bodies."""
    return read(connection, dialect, _full_by_place(dialect), session, places)


def fitting(found: Sequence[Message]) -> Sequence[Message]:
    """The first of some messages that fit into one answer, at least one."""
    room = PAGE_BYTES
    for place, message in enumerate(found):
        room -= message.size + MESSAGE_OVERHEAD_BYTES
        if place and room < 0:
            return found[:place]
    return found


def read(
    connection: Connection,
    dialect: Dialect,
    statement: Select[Any],
    session: Session,
    places: Sequence[Place],
) -> list[Message]:
    """As `outlines_at`, by a statement that looks up what a message has by PLACE_KEY."""
    if not places:
        return []
    bound = dialect.bind(rows.PLACE_KEY, [(*session, *place) for place in places])
    found = map(rows.message_of, statements.fetch(connection, statement, bound))
    by_place = {message.place: message for message in found}
    return [by_place[place] for place in places if place in by_place]


@cache
def _full_by_place(dialect: Dialect) -> Select[Any]:
    return dialect.look_up(rows.PLACE_KEY, (*rows.MESSAGE, messages.c.body))
