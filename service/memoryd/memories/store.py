"""What the rest of the house asks of the store of memories."""

from __future__ import annotations

import asyncio
import itertools
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import and_, bindparam, select

from memoryd.database import statements
from memoryd.database.batch_loader import BatchLoader
from memoryd.database.tables import memories
from memoryd.domain.errors import MemoryNotFound
from memoryd.domain.matching import matches
from memoryd.domain.quotas import Quotas
from memoryd.domain.records import Page
from memoryd.memories import deletion as removal
from memoryd.memories import narrowing, rows
from memoryd.memories.cache import SessionCache
from memoryd.memories.group_commit import GroupCommit
from memoryd.memories.lookups import lookups_of
from memoryd.memories.merge import MergeWork
from memoryd.memories.rows import COLUMNS, memory_of, size_on_page
from memoryd.memories.shard_commits import ShardCommits
from memoryd.memories.versions import read_versions
from memoryd.memories.writes import Delete, Rollback, Store, Undelete, Update
from memoryd.sessions.lock import lock_sessions
from memoryd.sessions.replica import SessionReads
from memoryd.telemetry.instruments import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Select

    from memoryd.conversations.writes import ConversationOutcome, ConversationWrite
    from memoryd.database.dialect import Dialect
    from memoryd.database.engine import Database
    from memoryd.documents.writes import DocumentsOutcome, DocumentWrite
    from memoryd.domain.records import (
        Capacity,
        Memory,
        MemoryEdit,
        MemoryFilter,
        NewMemory,
        Session,
        Stored,
    )
    from memoryd.memories.deletion import MemoryKey
    from memoryd.memories.merge import Merge, Merged
    from memoryd.memories.versions import Versions
    from memoryd.telemetry.instruments import Instruments

MAX_PAGE_BYTES = 3 * 1024 * 1024
"""A page ends early rather than grow over what a gRPC client receives by default, 4 MiB."""

PURGE_BATCH = 1000
"""Memories that one transaction purges."""

_SESSION = and_(
    memories.c.tenant == bindparam("tenant"), memories.c.session_id == bindparam("session_id")
)
_KEY = tuple(memories.c[name] for name in rows.PRIMARY_KEY)


@cache
def _by_id(dialect: Dialect) -> Select[Any]:
    return dialect.look_up(_KEY, COLUMNS, memories.c.deleted_at.is_(None))


class MemoryStore:
    """The memories of all sessions. `now` is always the caller's own time; `timeout` is in seconds.

    Every method raises what Database raises.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        notify: Callable[[Iterable[Session]], None],
        *,
        standby: Database | None,
        queue_limit: int,
        batch_limit: int,
        cache_bytes: int,
        quotas_of: Callable[[str], Quotas] = lambda _: Quotas(),
        instruments: Instruments = SILENT,
    ) -> None:
        """`quotas_of` gives those of a tenant."""
        self._database = database
        self._notify = notify
        self.reads = SessionReads(database, standby)
        """Reads of sessions, of other kinds of things as well."""
        self.cache = SessionCache(
            self.reads, max_bytes=cache_bytes, requests=instruments.cache_requests
        )
        """Sessions in memory."""
        make = partial(
            GroupCommit,
            database,
            clock,
            notify,
            self.cache,
            queue_limit=queue_limit,
            batch_limit=batch_limit,
            quotas_of=quotas_of,
            instruments=instruments,
            turns=asyncio.Semaphore(database.most_writers),
        )
        self._commits = ShardCommits(database, make)
        self._by_id: BatchLoader[MemoryKey, Memory] = BatchLoader(database, self._read_by_id)
        self._by_key: BatchLoader[MemoryKey, Memory] = BatchLoader(database, self._read_by_key)

    def admitted_write(self, tenant: str) -> AbstractContextManager[None]:
        """Have a tenant's write come, to be entered before its request is read.

        Raises Overloaded where it would have to wait for too long.
        """
        return self._commits.admitted(tenant)

    @property
    def all_waiting_writes(self) -> int:
        """How much waits for its transaction, by weight."""
        return self._commits.all_waiting

    def waiting_writes(self, tenant: str) -> int:
        """How many writes of a tenant wait for their transaction, by weight."""
        return self._commits.waiting(tenant)

    async def store(self, items: Sequence[NewMemory], capacity: Capacity) -> tuple[Stored, ...]:
        """Store all of them or none.

        Raises InvalidRequest where merged metadata is too large, RequestIdReused, QuotaExceeded.
        """
        return cast("tuple[Stored, ...]", await self._commits.submit(Store(tuple(items), capacity)))

    def begin_store(
        self, item: NewMemory, capacity: Capacity
    ) -> asyncio.Future[tuple[Stored, ...]]:
        """Give a future of what `store` returns or raises; cancelled, it may not be stored.

        Raises Overloaded and ShuttingDown.
        """
        future = self._commits.begin(Store((item,), capacity))
        return cast("asyncio.Future[tuple[Stored, ...]]", future)

    async def write_documents(self, write: DocumentWrite) -> DocumentsOutcome:
        """Write documents, in one transaction with whatever else waits.

        Raises DocumentNotFound, DocumentAlreadyExists, EtagMismatch, RequestIdReused,
        QuotaExceeded.
        """
        return cast("DocumentsOutcome", await self._commits.submit(write))

    async def write_conversations(self, write: ConversationWrite) -> ConversationOutcome:
        """Write to a conversation, in one transaction with whatever else waits.

        Raises what `ConversationChanges.apply` raises.
        """
        return cast("ConversationOutcome", await self._commits.submit(write))

    async def update(self, edit: MemoryEdit) -> Memory:
        """Raises MemoryNotFound, EtagMismatch, MemoryAlreadyExists, QuotaExceeded."""
        return cast("Memory", await self._commits.submit(Update(edit)))

    async def delete(self, session: Session, memory_id: str, etag: str) -> Memory:
        """Raises MemoryNotFound, EtagMismatch."""
        return cast("Memory", await self._commits.submit(Delete(session, memory_id, etag)))

    async def delete_by_key(self, session: Session, key: str, etag: str) -> Memory:
        """As `delete`, of the live memory with a key."""
        return cast("Memory", await self._commits.submit(Delete(session, "", etag, key)))

    async def rollback(self, session: Session, memory_id: str, revision: int) -> Memory:
        """Give a memory what it had at a revision.

        Raises MemoryNotFound, RevisionOutOfRange, VersionExpired, MemoryAlreadyExists,
        QuotaExceeded.
        """
        return cast("Memory", await self._commits.submit(Rollback(session, memory_id, revision)))

    async def undelete(self, session: Session, memory_id: str, capacity: Capacity) -> Memory:
        """Restore a deleted memory.

        Raises MemoryNotFound, MemoryNotDeleted, MemoryAlreadyExists, and SessionFull or
        QuotaExceeded where there is no room.
        """
        return cast("Memory", await self._commits.submit(Undelete(session, memory_id, capacity)))

    async def get(
        self, session: Session, memory_id: str, *, now: datetime, timeout: float | None
    ) -> Memory:
        """Raises MemoryNotFound."""
        memory = await self._by_id.get((*session, memory_id), timeout=timeout)
        if memory is None or not memory.is_live(now):
            raise MemoryNotFound(memory_id)
        return memory

    async def get_by_key(
        self, session: Session, key: str, *, now: datetime, timeout: float | None
    ) -> Memory:
        """Raises MemoryNotFound."""
        memory = await self._by_key.get((*session, key), timeout=timeout)
        if memory is None or not memory.is_live(now):
            raise MemoryNotFound(key, is_key=True)
        return memory

    def _read_by_key(
        self, connection: Connection, wanted: Collection[MemoryKey]
    ) -> dict[MemoryKey, Memory]:
        lookup = lookups_of(self._database.dialect).by_key
        bound = self._database.dialect.bind(lookup.columns, sorted(wanted))
        found = map(memory_of, statements.fetch(connection, lookup.select, bound))
        return {(*m.session, m.key): m for m in found if m.key is not None}

    async def revisions(
        self,
        session: Session,
        memory_id: str,
        *,
        before: int | None,
        size: int,
        now: datetime,
        timeout: float | None,
    ) -> Versions:
        """At most `size` versions of a memory from before a revision. Raises MemoryNotFound."""
        return await self.reads.read(
            session,
            lambda c: read_versions(
                c, session, memory_id, before=before, size=size, now=now, max_bytes=MAX_PAGE_BYTES
            ),
            timeout=timeout,
        )

    def _read_by_id(
        self, connection: Connection, wanted: Collection[MemoryKey]
    ) -> dict[MemoryKey, Memory]:
        dialect = self._database.dialect
        found = statements.fetch(connection, _by_id(dialect), dialect.bind(_KEY, sorted(wanted)))
        return {(*m.session, m.memory_id): m for m in map(memory_of, found)}

    async def page(
        self,
        session: Session,
        wanted: MemoryFilter,
        *,
        after: int,
        size: int,
        show_deleted: bool,
        half_life_days: float,
        now: datetime,
        timeout: float | None,
    ) -> Page:
        """At most `size` memories after the `created_revision` `after`, in creation order."""
        parameters = {**session._asdict(), "now": now, "half_life_days": half_life_days}
        statement = select(*COLUMNS).where(
            _SESSION,
            rows.unexpired() if show_deleted else rows.live(),
            *self._conditions(wanted, parameters),
        )

        def body(connection: Connection) -> Page:
            found: list[Memory] = []
            room, position = MAX_PAGE_BYTES, after
            # One more than asked for tells whether there is another page.
            most = size + 1
            while True:
                chunk = statements.fetch_built(
                    connection,
                    statement.where(memories.c.created_revision > bindparam("after"))
                    .order_by(memories.c.created_revision)
                    .limit(most),
                    {**parameters, "after": position},
                )
                for row in chunk:
                    memory = memory_of(row)
                    if matches(memory, wanted):
                        room -= size_on_page(memory)
                        if found and (len(found) == size or room < 0):
                            return Page(tuple(found), found[-1].created_revision)
                        found.append(memory)
                    position = memory.created_revision
                if len(chunk) < most:
                    return Page(tuple(found), None)
                # Few match: in a large session as few statements as steps of this size allow.
                most = max(most, min(2 * most, PURGE_BATCH))

        return await self.reads.read(session, body, timeout=timeout)

    async def matching(
        self,
        session: Session,
        wanted: MemoryFilter,
        *,
        sample_size: int,
        half_life_days: float,
        now: datetime,
        timeout: float | None,
    ) -> tuple[int, list[Memory]]:
        """How many memories match, deleted and expired ones included, and the first few."""

        def body(connection: Connection) -> tuple[int, list[Memory]]:
            count, sample = 0, []
            matches = self._matching(connection, session, wanted, half_life_days, now)
            for memory in matches:
                count += 1
                if count <= sample_size:
                    sample.append(memory)
            return count, sample

        return await self._database.read(body, tenants=(session.tenant,), timeout=timeout)

    async def purge(
        self, session: Session, wanted: MemoryFilter, *, half_life_days: float, now: datetime
    ) -> int:
        """Delete permanently what matches, deleted and expired ones included; answer how many."""

        def body(connection: Connection) -> int:
            dialect = self._database.dialect
            lock_sessions(connection, dialect, [session])
            matches = self._matching(connection, session, wanted, half_life_days, now)
            victims = [(*session, m.memory_id) for m in itertools.islice(matches, PURGE_BATCH)]
            return len(removal.purge(connection, dialect, victims, now))

        purged, tenants = 0, (session.tenant,)
        while True:
            batch = await self._database.write(body, tenants=tenants)
            purged += batch
            if batch:
                self._notify([session])
            if batch < PURGE_BATCH:
                return purged

    async def erase(self, session: Session) -> dict[str, int]:
        """Delete every row of the session in every table; answer how many there were in each.

        On an embedded database its files hold none of the contents when this returns. A session
        that is not there costs a look-up, and the wait for what an erasure before it still owes.
        """
        counts = removal.nothing_erased()
        tenants = (session.tenant,)
        if await self._database.read(
            lambda connection: removal.is_there(connection, session), tenants=tenants
        ):
            counts = await self._database.write(
                lambda connection: removal.erase(connection, self._database.dialect, session),
                tenants=tenants,
            )
        self.cache.forget(session)
        self._notify([session])
        await self._database.scrub()
        return counts

    async def merge(self, wanted: Merge, *, now: datetime) -> Merged:
        """Move what one session has into another of the same tenant, and erase it.

        Raises SessionNotFound, SessionTooLarge, RequestIdReused, and InvalidRequest where merged
        metadata is too large.
        """
        source, target = wanted.source, wanted.target
        absent: set[Session] = set()
        merged = await self._database.write(
            lambda c: MergeWork(c, self._database.dialect, now, absent).merge(wanted),
            tenants=(source.tenant,),
        )
        self.cache.forget(source)
        self._notify([source, target])
        await self._database.scrub()
        return merged

    async def close(self) -> None:
        """Commit what is waiting."""
        await self._commits.close()
        await self.cache.close()

    def _matching(
        self,
        connection: Connection,
        session: Session,
        wanted: MemoryFilter,
        half_life_days: float,
        now: datetime,
    ) -> Iterator[Memory]:
        """All rows of a session that match, whatever their state, in creation order."""
        parameters = {**session._asdict(), "now": now, "half_life_days": half_life_days}
        statement = (
            select(*COLUMNS)
            .where(
                _SESSION,
                *self._conditions(wanted, parameters),
                memories.c.created_revision > bindparam("after"),
            )
            .order_by(memories.c.created_revision)
            .limit(PURGE_BATCH)
        )
        after = -1
        while True:
            chunk = statements.fetch_built(connection, statement, {**parameters, "after": after})
            for row in chunk:
                memory = memory_of(row)
                after = memory.created_revision
                if matches(memory, wanted):
                    yield memory
            if len(chunk) < PURGE_BATCH:
                return

    def _conditions(
        self, wanted: MemoryFilter, parameters: dict[str, Any]
    ) -> list[ColumnElement[bool]]:
        """What the database can tell of a filter; `matches` judges what is read."""
        conditions = [*narrowing.conditions(wanted)]
        if wanted.min_importance is not None:
            parameters["min_importance"] = wanted.min_importance
            effective = rows.effective_importance(self._database.dialect)
            conditions.append(effective >= bindparam("min_importance"))
        return conditions
