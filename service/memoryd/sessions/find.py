"""Finding the sessions of a tenant by their ids, which are in the order of code points."""

from __future__ import annotations

from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, String, bindparam, select

from memoryd.database import statements
from memoryd.database.tables import sessions
from memoryd.domain.records import Session
from memoryd.domain.sessions import behind
from memoryd.sessions.lock import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Select

    from memoryd.database.dialect import Dialect
    from memoryd.domain.sessions import SessionRange

CHUNK = 1_000
"""Ids that one statement reads."""


def find_sessions(
    connection: Connection,
    dialect: Dialect,
    tenant: str,
    ranges: Sequence[SessionRange],
    limit: int,
) -> list[Session]:
    """Find the first sessions of some ranges of ids, at most so many."""
    found = rows_in(connection, _keys(dialect), tenant, ranges, size=min(CHUNK, limit))
    return [Session(*row) for row in islice(found, limit)]


def rows_in(
    connection: Connection,
    statement: Select[Any],
    tenant: str,
    ranges: Sequence[SessionRange],
    *,
    size: int,
    after: str = "",
    **parameters: Any,
) -> Iterator[Sequence[Any]]:
    """Read what a statement made by `in_range` selects, `size` rows at once.

    `ranges` are in their order, and no id is in two of them.
    """
    for one in ranges:
        if one.end <= after:
            continue
        while True:
            # One bound alone: of two, SQLite searches by the first and reads up to the other.
            bound = {"tenant": tenant, "first": max(one.first, behind(after)), "end": one.end}
            chunk = statements.fetch(connection, statement, {**bound, "size": size, **parameters})
            yield from chunk
            if len(chunk) < size:
                break
            after = chunk[-1][1]


def in_range(dialect: Dialect, columns: tuple[Any, ...]) -> Select[Any]:
    """Select columns of sessions, which begin with their key."""
    session_id = dialect.by_code_point(sessions.c.session_id)
    return (
        select(*columns)
        .where(
            sessions.c.tenant == bindparam("tenant", type_=String),
            session_id >= bindparam("first", type_=String),
            session_id < bindparam("end", type_=String),
        )
        .order_by(session_id)
        .limit(bindparam("size", type_=Integer))
    )


@cache
def _keys(dialect: Dialect) -> Select[Any]:
    return in_range(dialect, KEY)
