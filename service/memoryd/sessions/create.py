"""Sessions that come into being with the first write to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memoryd.database.again import BeginAgain
from memoryd.database.tables import sessions
from memoryd.domain.records import Session
from memoryd.sessions.floors import read_floors
from memoryd.sessions.lock import SHARD_KEY, LockedSession, lock_sessions, read_counters

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect

_BEGINNING = (
    *("revision", "horizon", "document_horizon", "conversation_horizon"),
    "counted_revision",
)
"""Columns that say where a session begins."""


def lock_or_create(
    connection: Connection,
    dialect: Dialect,
    wanted: Iterable[Session],
    needed: set[Session],
    now: datetime,
    *,
    absent: set[Session] | None = None,
) -> tuple[dict[Session, LockedSession], set[Session]]:
    """Lock those sessions of `wanted` that exist, and make those that are `needed`.

    Gives the row of each, and which have had no change before. Who makes a session waits for others
    who make it, and so may hold no lock that these wait for. `absent`: empty at first; where
    sessions are to be made and others are locked, it takes what is to be made, and this raises
    BeginAgain. None: for one session.
    """
    if absent:
        read_counters(connection, dialect, absent)  # it tells row-level security the tenants
        _make(connection, dialect, sorted(absent), now)
    wanted = set(wanted)
    locked = lock_sessions(connection, dialect, wanted)
    # Not once: what another process has just made, it may erase before it is locked here.
    while missing := sorted(needed - locked.keys()):
        if locked and absent is not None and dialect.locks_rows:
            absent.update(missing)
            raise BeginAgain
        _make(connection, dialect, missing, now)
        locked |= lock_sessions(connection, dialect, missing)
    new = {session for session, row in locked.items() if row.revision == 0}
    if new:
        _raise_above_erased(connection, dialect, locked, new)
    return locked, new


def _make(
    connection: Connection, dialect: Dialect, missing: Sequence[Session], now: datetime
) -> None:
    """Make those of them that there are not, in one order for all writers."""
    keys = dict(zip(SHARD_KEY, zip(*missing, strict=True), strict=True))
    unchanged = {
        **dict.fromkeys(("revision", "horizon", "memory_count", "counted_revision"), 0),
        "created_at": now,
        "updated_at": now,
    }
    dialect.insert_many(connection, sessions, keys, unchanged, ignore_existing=True)


def drop_unused(connection: Connection, dialect: Dialect, unused: Iterable[Session]) -> None:
    """Delete new sessions whose every write was refused: they do not come into being."""
    rows = [session._asdict() for session in unused]
    if rows:
        dialect.delete_many(connection, sessions, SHARD_KEY, rows)


def _raise_above_erased(
    connection: Connection,
    dialect: Dialect,
    locked: dict[Session, LockedSession],
    new: set[Session],
) -> None:
    # Read while the rows are locked: an erasure before has raised the floor by now.
    floors = read_floors(connection, dialect, new)
    raised = [
        {**session._asdict(), **dict.fromkeys(_BEGINNING, begin)}
        for session in new
        if (begin := floors.get(session, -1) + 1)
    ]
    if not raised:
        return
    dialect.update_many(connection, sessions, SHARD_KEY, raised)
    for row in raised:
        session = Session(row["tenant"], row["session_id"])
        beginning = {name: row[name] for name in _BEGINNING if name in LockedSession._fields}
        locked[session] = locked[session]._replace(**beginning)
