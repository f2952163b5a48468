"""The rows of `sessions`: their counters, and the lock that puts a session's writers in line."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, select

from memoryd.database import statements
from memoryd.database.tables import sessions
from memoryd.domain.records import Session

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Column, Connection, Select

    from memoryd.database.dialect import Dialect

SHARD_KEY = ("tenant", "session_id")
"""What every key of something in a session begins with."""

KEY = tuple(sessions.c[name] for name in SHARD_KEY)


class Counters(NamedTuple):
    """How far a session is."""

    revision: int
    """Of the last change."""
    access_revision: int
    """Raised by every transaction that counts accesses."""
    horizon: int
    """Before it not every purge is known any more."""
    ranked_revision: int | None = None
    """Up to it memories have their ranks for eviction; None: none have to."""
    ranked_half_life: float | None = None
    """The half-life in days that these are for."""


_COLUMNS = (*KEY, *(sessions.c[name] for name in Counters._fields))


def read_counters(
    connection: Connection, dialect: Dialect, wanted: Iterable[Session]
) -> dict[Session, Counters]:
    """Read how far the sessions that exist are."""
    return _read(connection, dialect, wanted, lock=False)


def lock_sessions(
    connection: Connection, dialect: Dialect, wanted: Iterable[Session]
) -> dict[Session, Counters]:
    """Lock the sessions that exist until the transaction ends, in one order for all writers.

    Gives how far they are.
    """
    return _read(connection, dialect, wanted, lock=True)


def _read(
    connection: Connection, dialect: Dialect, wanted: Iterable[Session], *, lock: bool
) -> dict[Session, Counters]:
    in_order = sorted(set(wanted))
    if not in_order:
        return {}
    statement = by_key(dialect, KEY, _COLUMNS, lock)
    found = statements.fetch(connection, statement, dialect.bind(KEY, in_order))
    return {Session(*row[:2]): Counters(*row[2:]) for row in found}


@cache
def by_key(
    dialect: Dialect,
    key: tuple[Column[Any], ...],
    columns: tuple[Column[Any], ...],
    lock: bool,  # noqa: FBT001  a cache key
) -> Select[Any]:
    """Select, and lock, rows of a table by their whole key, in its order."""
    keys, table = dialect.keys(*key), key[0].table
    statement = (
        select(*columns)
        .select_from(keys.source.join(table, and_(*(c == keys.c[c.name] for c in key))))
        .order_by(*key)
    )
    return statement.with_for_update(of=table) if lock else statement
