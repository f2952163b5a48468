"""The documents of sessions by their last update, as far as a search looks."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Integer, bindparam, func, select

from memoryd.database import statements
from memoryd.database.tables import documents
from memoryd.documents import rows
from memoryd.documents.listing import is_below, range_of
from memoryd.domain.documents import DocumentName
from memoryd.domain.records import Session

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Select

    from memoryd.database.dialect import Dialect

MOST_SORTED = 100_000
"""Documents of several sessions, or of a namespace, that one search puts in order: the first ones
that the database comes upon. Those of one whole session are in order already."""

_SESSION = (documents.c.tenant, documents.c.session_id)
_PLACE = (*rows.KEY, documents.c.updated_at, documents.c.revision)


class Place(NamedTuple):
    """Where a document is."""

    session: Session
    name: DocumentName


class Newest(NamedTuple):
    places: Sequence[Place]
    """The last updated first."""
    is_all: bool
    """Whether there are no more."""


def read_newest(
    connection: Connection,
    dialect: Dialect,
    sessions: Sequence[Session],
    prefix: str,
    *,
    unsearchable: bool,
    how_many: int,
    now: datetime,
) -> Newest:
    """Read which documents at and below a namespace were updated last, at most so many.

    `unsearchable`: only those without search texts.
    """
    if not sessions:
        return Newest((), is_all=True)
    parameters = {**range_of(prefix), "now": now, "how_many": how_many + 1}
    if len(sessions) == 1 and not prefix:
        parameters |= sessions[0]._asdict()
        statement = _of_session(unsearchable)
    else:
        parameters |= {**dialect.bind(_SESSION, sorted(sessions)), "most": MOST_SORTED + 1}
        statement = _of_sessions(dialect, bool(prefix), unsearchable)
    found = statements.fetch(connection, statement, parameters)
    is_sorted = all(row[-1] <= MOST_SORTED for row in found)
    if len(sessions) > 1:  # each shard's are in order, and not one shard's beside another's
        found = sorted(found, key=lambda row: (-row[4].timestamp(), row[1], -row[5]))
    places = [Place(Session(*row[:2]), DocumentName(*row[2:4])) for row in found[:how_many]]
    return Newest(places, is_all=len(found) <= how_many and is_sorted)


def _unsearchable(*, wanted: bool) -> list[ColumnElement[bool]]:
    return [documents.c.search_texts.is_(None)] if wanted else []


@cache
def _of_session(unsearchable: bool) -> Select[Any]:  # noqa: FBT001  a cache key
    """Those of one session, by an index that has them in order."""
    d = documents.c
    return (
        select(*_PLACE, bindparam("none_sorted", 0))
        .where(
            is_below(documents, has_prefix=False),
            rows.live(),
            *_unsearchable(wanted=unsearchable),
        )
        .order_by(d.updated_at.desc(), d.revision.desc())
        .limit(bindparam("how_many"))
    )


@cache
def _of_sessions(dialect: Dialect, has_prefix: bool, unsearchable: bool) -> Select[Any]:  # noqa: FBT001  cache keys
    namespace = documents.c.namespace
    within: list[ColumnElement[bool]] = []
    if has_prefix:
        within = [namespace >= bindparam("first"), namespace < bindparam("end")]
    found = (
        dialect.look_up(_SESSION, _PLACE, *within, rows.live(), *_unsearchable(wanted=unsearchable))
        .limit(bindparam("most", type_=Integer))
        .subquery()
    )
    return (
        select(*found.c, func.count().over())
        .order_by(found.c.updated_at.desc(), found.c.session_id, found.c.revision.desc())
        .limit(bindparam("how_many"))
    )
