"""Reading what has changed in a session since a revision, whatever kind of thing it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, bindparam, select, true

from memoryd.database.tables import sessions
from memoryd.domain.errors import RevisionOutOfRange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Table

_WATCHED = and_(
    sessions.c.tenant == bindparam("tenant"), sessions.c.session_id == bindparam("session_id")
)


def newer(
    table: Table,
    columns: Sequence[ColumnElement[Any]],
    *conditions: ColumnElement[bool],
    limit: int,
    horizon: ColumnElement[int] = sessions.c.horizon,
) -> Any:
    """The session's row joined with the first rows of another table after a revision, in order.

    `horizon`: the column that says since when what is gone is no longer all known.
    """
    rows = (
        select(*columns)
        .where(
            table.c.tenant == bindparam("tenant"),
            table.c.session_id == bindparam("session_id"),
            table.c.revision > bindparam("after"),
            *conditions,
        )
        .order_by(table.c.revision)
        .limit(limit)
        .subquery()
    )
    return (
        select(sessions.c.revision, horizon, *rows.c)
        .select_from(sessions.outerjoin(rows, true()))
        .where(_WATCHED)
        .order_by(rows.c.revision)
    )


class NewerRows(NamedTuple):
    """What `newer` has found."""

    revision: int
    """The session's."""
    rows: Sequence[Sequence[Any]]


def newer_rows(found: Sequence[Sequence[Any]], after: int) -> NewerRows:
    """Take apart what `newer` found. Raises RevisionOutOfRange."""
    if not found:
        if after:
            raise out_of_range(after, is_gone=True)
        return NewerRows(0, ())
    revision, horizon = found[0][0], found[0][1]
    if 0 < after < horizon:
        raise out_of_range(after)
    return NewerRows(revision, [row[2:] for row in found if row[2] is not None])


def out_of_range(after: int, *, is_gone: bool = False) -> RevisionOutOfRange:
    return RevisionOutOfRange(
        f"changes since revision {after} are no longer all kept, or the session was erased since;"
        " list again and watch from there",
        is_gone=is_gone,
    )
