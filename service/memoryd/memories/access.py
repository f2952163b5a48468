"""Access tracking behind the read: counted in memory, written once in a while."""

from __future__ import annotations

import asyncio
import logging
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Integer, case, func, update

from memoryd.database import statements
from memoryd.database.tables import memories, sessions
from memoryd.database.types import UtcDateTime
from memoryd.domain.errors import MemorydError
from memoryd.domain.importance import MAX_LEVEL
from memoryd.domain.records import Accesses
from memoryd.memories.rows import PRIMARY_KEY
from memoryd.sessions.lock import SHARD_KEY, lock_sessions
from memoryd.telemetry import spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect
    from memoryd.database.engine import Database
    from memoryd.domain.records import Memory, Session
    from memoryd.memories.cache import SessionCache
    from memoryd.sessions.lock import Counters

FLUSH_LIMIT = 2_000
"""Memories of one transaction: writers wait for it."""

_log = logging.getLogger(__name__)


Counted = dict["Session", dict[str, Accesses]]
"""By session and memory id."""


class AccessTracker:
    """Counts accesses in memory and writes them behind the reads."""

    def __init__(
        self, database: Database, cache: SessionCache, *, flush_seconds: float = 0.75
    ) -> None:
        self._database = database
        self._cache = cache
        self._flush_seconds = flush_seconds
        self._counted: Counted = {}
        self._flusher: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    def record(self, accessed: Iterable[Memory], now: datetime) -> None:
        """Remember that these were returned; costs no input or output."""
        for memory in accessed:
            counted = self._counted.get(memory.session)
            if counted is None:
                counted = self._counted[memory.session] = {}
            before = counted.get(memory.memory_id)
            counted[memory.memory_id] = Accesses(1 if before is None else before.times + 1, now)
        if self._counted and self._flusher is None:
            self._flusher = asyncio.create_task(
                self._flush_soon(), name="access tracking", context=spans.detached()
            )

    async def close(self) -> None:
        """Write what has gathered."""
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)
        await self.flush()

    async def _flush_soon(self) -> None:
        await asyncio.sleep(self._flush_seconds)
        self._flusher = None
        await self.flush()

    async def flush(self) -> None:
        """Write what has been recorded before; return once it is committed, or given up."""
        async with self._writing:
            counted, self._counted = self._counted, {}
            for portion in _portions(counted):
                try:
                    await self._write(portion)
                except MemorydError:
                    # It is not known whether they were committed, and none may count twice.
                    lost = sum(map(len, portion.values()))
                    _log.warning("accesses lost", extra={"count": lost})

    async def _write(self, counted: Counted) -> None:
        dialect = self._database.dialect
        watched = self._cache.watch(counted)
        before = await self._database.write(
            lambda connection: _count(connection, dialect, counted),
            tenants={session.tenant for session in counted},
        )
        for session, counters in before.items():
            self._cache.count_accesses(watched.get(session), counters, counted[session])


def _portions(counted: Counted) -> Iterator[Counted]:
    """Parts of what was counted that are small enough for a transaction."""
    portion: Counted = {}
    room = FLUSH_LIMIT
    for session, of_session in counted.items():
        for memory_id, accesses in of_session.items():
            portion.setdefault(session, {})[memory_id] = accesses
            room -= 1
            if not room:
                yield portion
                portion, room = {}, FLUSH_LIMIT
    if portion:
        yield portion


def _count(
    connection: Connection, dialect: Dialect, counted: Counted
) -> Mapping[Session, Counters]:
    """Add to the rows that there still are; answer how far their sessions were before.

    Sessions are locked first, in the order of all writers, so no two lock each other out.
    """
    locked = lock_sessions(connection, dialect, counted)
    found = {session: row.counters for session, row in locked.items()}
    if not found:
        return found
    raised = {session: counters.access_revision + 1 for session, counters in found.items()}
    as_stored = UtcDateTime().bind_processor(connection.dialect)
    rows = [
        (*session, memory_id, accesses.times, as_stored(accesses.last), raised[session])
        for session in found
        for memory_id, accesses in sorted(counted[session].items())
    ]
    statements.execute(connection, _statement(dialect), dialect.bind(_COLUMNS, rows))
    dialect.update_many(
        connection,
        sessions,
        SHARD_KEY,
        [{**session._asdict(), "access_revision": n} for session, n in raised.items()],
    )
    return found


_COLUMNS = (
    *(memories.c[name] for name in PRIMARY_KEY),
    Column("how_often", Integer),
    Column("accessed_at", UtcDateTime),
    memories.c.access_revision,
)


@cache
def _statement(dialect: Dialect) -> Any:
    keys = dialect.keys(*_COLUMNS)
    last = keys.c["accessed_at"]
    count = memories.c.access_count + keys.c["how_often"]
    return (
        update(memories)
        .where(
            *(memories.c[name] == keys.c[name] for name in PRIMARY_KEY),
            *dialect.routing(memories),
        )
        .values(
            access_count=count,
            last_accessed=dialect.greatest(func.coalesce(memories.c.last_accessed, last), last),
            access_revision=keys.c["access_revision"],
            eviction_level=case(
                (memories.c.eviction_level.is_not(None), dialect.least(count, MAX_LEVEL))
            ),
        )
    )
