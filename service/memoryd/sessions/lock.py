"""The rows of `sessions`: their counters, and the lock that puts a session's writers in line."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, select

from memoryd.database import statements
from memoryd.database.tables import sessions
from memoryd.domain.records import Session, expiry

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

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


class LockedSession(NamedTuple):
    """A session's row under its lock, as far as a decision may depend on it."""

    revision: int
    access_revision: int
    horizon: int
    memory_count: int | None = 0
    counted_revision: int | None = 0
    document_count: int = 0
    conversation_count: int = 0
    memory_limit: int | None = None
    """In the place of `memory.max_entries`; None: that holds."""
    memory_ttl: int | None = None
    """In the place of `memory.ttl_hours`, in microseconds; None: that holds."""
    memories_never_expire: bool | None = None
    """In the place of `memory.ttl_hours`."""
    ranked_revision: int | None = None
    """Up to it memories have their ranks for eviction; None: none have to."""
    ranked_half_life: float | None = None
    """The half-life in days that these are for."""

    @property
    def counters(self) -> Counters:
        return Counters(self.revision, self.access_revision, self.horizon)

    @property
    def kept_memories(self) -> int | None:
        """Memories that are not deleted, expired ones included.

        None: a server of an earlier release has written since they were counted.
        """
        return self.memory_count if self.counted_revision == self.revision else None

    def default_expiration(self, now: datetime, by_settings: datetime | None) -> datetime | None:
        """When a memory expires that is stored `now` without an expiration of its own.

        `by_settings`: when it does by the tools' settings. None: never.
        """
        if self.memories_never_expire:
            return None
        if self.memory_ttl is None:
            return by_settings
        return expiry(now, timedelta(microseconds=self.memory_ttl))


def read_counters(
    connection: Connection, dialect: Dialect, wanted: Iterable[Session]
) -> dict[Session, Counters]:
    """Read how far the sessions that exist are."""
    found = _read(connection, dialect, wanted, Counters._fields, lock=False)
    return {session: Counters(*values) for session, values in found.items()}


def lock_sessions(
    connection: Connection, dialect: Dialect, wanted: Iterable[Session]
) -> dict[Session, LockedSession]:
    """Lock the sessions that exist until the transaction ends, in one order for all writers.

    Gives their rows.
    """
    found = _read(connection, dialect, wanted, LockedSession._fields, lock=True)
    return {session: LockedSession(*values) for session, values in found.items()}


def _read(
    connection: Connection,
    dialect: Dialect,
    wanted: Iterable[Session],
    names: tuple[str, ...],
    *,
    lock: bool,
) -> dict[Session, list[Any]]:
    in_order = sorted(set(wanted))
    if not in_order:
        return {}
    columns = (*KEY, *(sessions.c[name] for name in names))
    statement = by_key(dialect, KEY, columns, lock)
    found = statements.fetch(connection, statement, dialect.bind(KEY, in_order))
    return {Session(tenant, session_id): values for tenant, session_id, *values in found}


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
    if not lock:
        return statement
    return statement.where(*dialect.routing(table)).with_for_update(of=table)
