"""Sessions as they are, kept in memory: read once, then brought up to date from what has changed.

Whoever asks gets a session at least as new as the database had it when they asked: its counters are
looked up each time, and only where they have moved are rows read, those that changed.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sqlalchemy import and_, bindparam, func, select

from memoryd.database import statements as direct
from memoryd.database.tables import memories, memory_history, sessions
from memoryd.domain.errors import MemorydError
from memoryd.domain.records import Change
from memoryd.memories import rows
from memoryd.memories.kept import KeptSessions
from memoryd.memories.rows import COLUMNS, memory_of
from memoryd.sessions.lock import Counters

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.domain.records import Memory, Session
    from memoryd.memories.access import Accesses
    from memoryd.memories.replica import SessionReads

RELOAD_CHANGES = 500
"""From so many changes on, a session is read anew rather than brought up to date."""

MEMORY_BYTES = 1_200
"""A record in memory, beside the text of its content and metadata."""

ERASED_SECONDS = 60.0
"""Between two looks for kept sessions that another process has erased."""

_NOWHERE = Counters(-1, -1, -1)


def _in_session(table: Any) -> Any:
    return and_(*(table.c[name] == bindparam(name) for name in rows.SHARD_KEY))


# The counters and the rows in one statement, so that they belong together.
_LIVE = (
    select(*(sessions.c[name] for name in Counters._fields), *COLUMNS)
    .select_from(
        sessions.outerjoin(
            memories,
            and_(*(memories.c[n] == sessions.c[n] for n in rows.SHARD_KEY), rows.live()),
        )
    )
    .where(_in_session(sessions))
    .order_by(memories.c.created_revision)
)
_LENGTH = select(func.sum(func.length(memories.c.content))).where(
    _in_session(memories), memories.c.deleted_at.is_(None)
)
_CHANGED = (
    select(*COLUMNS)
    .where(_in_session(memories), memories.c.revision > bindparam("after"))
    .order_by(memories.c.created_revision)
)
_PURGED = select(memory_history.c.id).where(
    _in_session(memory_history),
    memory_history.c.revision > bindparam("after"),
    memory_history.c.change == Change.PURGED.value,
)
_ACCESSED = select(memories.c.id, memories.c.access_count, memories.c.last_accessed).where(
    _in_session(memories), memories.c.access_revision > bindparam("after")
)


class Accessed(NamedTuple):
    """How often a memory was accessed, and when last."""

    times: int
    last: datetime | None


def accessed_of(memory: Memory) -> Accessed:
    """As a record has it."""
    return Accessed(memory.access_count, memory.last_accessed)


class Derived(Protocol):
    """What somebody makes of a session."""

    @property
    def nbytes(self) -> int:
        """About what it takes."""


class Snapshot:
    """One session's memories that are not deleted. Those that have expired since are among them."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.memories: dict[str, Memory] = {}
        """By id, in creation order."""
        self.changed: set[str] = set()
        """Ids of memories that came, went or changed since somebody emptied this set."""
        self.accesses: dict[str, Accessed] = {}
        """By id, of memories whose accesses were counted since their record was read; the record
        stays as it was."""
        self.accessed: set[str] = set()
        """Ids of memories whose accesses were counted since somebody emptied this set."""
        self.derived: Derived | None = None
        """What somebody has made of it; goes with it."""
        self.counters = _NOWHERE
        self.content_bytes = 0
        self.refreshing = asyncio.Lock()
        self.refreshes = 0
        """How often rows have been read for it."""

    @property
    def revision(self) -> int:
        return self.counters.revision

    @property
    def nbytes(self) -> int:
        """About what it takes."""
        return self.content_bytes + (0 if self.derived is None else self.derived.nbytes)

    def is_behind(self, counters: Counters) -> bool:
        return (
            self.counters.revision < counters.revision
            or self.counters.access_revision < counters.access_revision
        )

    def reset(self, counters: Counters, found: Iterable[Memory]) -> None:
        """Let it be what was read."""
        self.changed |= self.memories.keys()
        self.memories = {}
        self.accesses.clear()
        self.accessed.clear()
        self.content_bytes = 0
        self.counters = counters
        for memory in found:
            self._put(memory)

    def update(self, counters: Counters, news: _News) -> None:
        """Take in what has changed."""
        revision = max(self.counters.revision, counters.revision)
        for memory in news.changed:
            revision = max(revision, memory.revision)
            if memory.deleted_at is None:
                self._put(memory)
            else:
                self._drop(memory.memory_id)
        for memory_id in news.purged:
            self._drop(memory_id)
        for memory_id, accessed in news.accessed.items():
            if memory_id in self.memories:
                self.accesses[memory_id] = accessed
                self.accessed.add(memory_id)
        access_revision = max(self.counters.access_revision, counters.access_revision)
        self.counters = Counters(revision, access_revision, counters.horizon)

    def count_accesses(self, counted: Mapping[str, Accesses]) -> None:
        """Take in accesses that were counted since, all of them at once."""
        for memory_id, accesses in counted.items():
            memory = self.memories.get(memory_id)
            if memory is not None:
                before = self.accesses.get(memory_id) or accessed_of(memory)
                last = accesses.last if before.last is None else max(before.last, accesses.last)
                self.accesses[memory_id] = Accessed(before.times + accesses.times, last)
                self.accessed.add(memory_id)
        self.counters = self.counters._replace(access_revision=self.counters.access_revision + 1)

    def _put(self, memory: Memory) -> None:
        known = self.memories.get(memory.memory_id)
        if known is not None:
            self.content_bytes -= _bytes_of(known)
        elif (
            self.memories
            and memory.created_revision < next(reversed(self.memories.values())).created_revision
        ):
            # One that was deleted before and has been restored: to its place.
            later = {
                i: m
                for i, m in self.memories.items()
                if m.created_revision > memory.created_revision
            }
            for memory_id in later:
                del self.memories[memory_id]
            self.memories[memory.memory_id] = memory
            self.memories |= later
        self.memories[memory.memory_id] = memory
        self.accesses.pop(memory.memory_id, None)
        self.accessed.discard(memory.memory_id)
        self.content_bytes += _bytes_of(memory)
        self.changed.add(memory.memory_id)

    def _drop(self, memory_id: str) -> None:
        known = self.memories.pop(memory_id, None)
        if known is not None:
            self.accesses.pop(memory_id, None)
            self.accessed.discard(memory_id)
            self.content_bytes -= _bytes_of(known)
            self.changed.add(memory_id)


class _News(NamedTuple):
    changed: Sequence[Memory]
    purged: Sequence[str]
    accessed: Mapping[str, Accessed]


class Watched(NamedTuple):
    """A session as it was kept when a transaction began."""

    snapshot: Snapshot
    refreshes: int

    @property
    def is_undisturbed(self) -> bool:
        """Whether no rows have been read since, which may show the transaction's already."""
        snapshot = self.snapshot
        return not snapshot.refreshing.locked() and snapshot.refreshes == self.refreshes


class SessionNews(NamedTuple):
    """What a transaction of this process has made of a session."""

    session: Session
    before: int
    """Its revision when the transaction began; no purge is among what it did."""
    revision: int
    access_revision: int
    changed: Sequence[Memory]
    """As they are now, those that it deleted among them."""


class Snapshots:
    """The sessions that were asked for last, as far as there is room."""

    def __init__(self, reads: SessionReads, *, max_bytes: int) -> None:
        self._reads = reads
        self._kept = KeptSessions(max_bytes)
        self._forgetting = asyncio.create_task(self._forget_erased(), name="snapshots")

    @property
    def nbytes(self) -> int:
        """About what all of them take."""
        return self._kept.nbytes

    def kept(self, session: Session) -> Snapshot | None:
        """The session as it was when last asked for, if it is in memory."""
        snapshot = self._kept.get(session)
        return None if snapshot is None or snapshot.counters is _NOWHERE else snapshot

    async def lengths(
        self, wanted: Sequence[Session], *, most: int, timeout: float | None
    ) -> list[int]:
        """How many characters the contents of sessions have, of those that have any.

        Two that have more than `most` together are the last that are looked at.
        """

        def body(connection: Connection) -> list[int]:
            found: list[int] = []
            for session in wanted:
                ((length,),) = direct.fetch(connection, _LENGTH, session._asdict())
                if length:
                    found.append(length)
                if len(found) > 1 and sum(found) > most:
                    break
            return found

        return await self._reads.read(wanted[0], body, timeout=timeout)

    async def current(
        self, session: Session, *, now: datetime, timeout: float | None
    ) -> Snapshot | None:
        """The session as it is; None where there is none. Raises what Database raises.

        It changes under later calls: who has it makes use of it before awaiting anything, and
        settles it in the end.
        """
        counters = await self._reads.counters(session, timeout=timeout)
        if counters is None:
            self.forget(session)
            return None
        snapshot = self._kept.get(session)
        if snapshot is None:
            snapshot = Snapshot(session)
            self._kept.add(snapshot)
        if snapshot.is_behind(counters):
            async with snapshot.refreshing:
                if snapshot.is_behind(counters):
                    await self._refresh(snapshot, counters, now, timeout)
        return snapshot if snapshot.counters is not _NOWHERE else None

    def watch(self, sessions: Iterable[Session]) -> dict[Session, Watched]:
        """Begin a transaction that changes sessions; those of them that are kept."""
        return {
            session: Watched(snapshot, snapshot.refreshes)
            for session in sessions
            if (snapshot := self._kept.get(session)) is not None
        }

    def count_accesses(
        self, watched: Watched | None, before: Counters, counted: Mapping[str, Accesses]
    ) -> None:
        """Take in accesses that this process has committed, so that nobody reads them back.

        `before` is how far the session was. One that is not as far, or was read meanwhile, is
        brought up to date when next asked for.
        """
        if (
            watched is not None
            and watched.is_undisturbed
            and watched.snapshot.counters.access_revision == before.access_revision
        ):
            watched.snapshot.count_accesses(counted)

    def take_in(self, watched: Watched | None, news: SessionNews) -> None:
        """Take in what this process has committed; as `count_accesses`."""
        if watched is None or not watched.is_undisturbed:
            return
        snapshot = watched.snapshot
        known = snapshot.counters
        if known.revision == news.before and known.access_revision == news.access_revision:
            changed = sorted(news.changed, key=lambda memory: memory.created_revision)
            snapshot.update(known._replace(revision=news.revision), _News(changed, (), {}))

    def settle(self, used: Iterable[Session], caller: str) -> None:
        """Note that a call of `caller` used sessions, and what they take by now."""
        self._kept.settle(used, caller)

    def forget(self, session: Session) -> None:
        """Keep nothing of a session."""
        self._kept.forget(session)

    async def close(self) -> None:
        """Keep nothing any more."""
        self._forgetting.cancel()
        await asyncio.gather(self._forgetting, return_exceptions=True)
        for session in self._kept:
            self.forget(session)

    async def _refresh(
        self, snapshot: Snapshot, counters: Counters, now: datetime, timeout: float | None
    ) -> None:
        known, key = snapshot.counters, snapshot.session._asdict()
        snapshot.refreshes += 1
        # Whoever is before the horizon may have missed a purge, or know another session.
        if known.revision < counters.horizon or (
            counters.revision - known.revision > RELOAD_CHANGES
        ):
            counters, found = await self._reads.read(
                snapshot.session,
                lambda c: _read_live(c, key, now),
                timeout=timeout,
                counters=counters,
            )
            snapshot.reset(counters, found)
        else:
            news = await self._reads.read(
                snapshot.session,
                lambda c: _read_news(c, key, known, counters),
                timeout=timeout,
                counters=counters,
            )
            snapshot.update(counters, news)

    async def _forget_erased(self) -> None:
        """Let go of what another process has erased, though nobody asks for it any more."""
        while True:
            await asyncio.sleep(ERASED_SECONDS)
            with suppress(MemorydError):  # health tells of it
                kept = [*self._kept]
                found = await asyncio.gather(*(self._reads.counters(s, timeout=None) for s in kept))
                for session, counters in zip(kept, found, strict=True):
                    if counters is None:
                        self.forget(session)


def _read_live(
    connection: Connection, key: dict[str, Any], now: datetime
) -> tuple[Counters, list[Memory]]:
    found = direct.fetch(connection, _LIVE, {**key, "now": now})
    if not found:
        return _NOWHERE, []
    width = len(Counters._fields)
    counters = Counters(*found[0][:width])
    return counters, [memory_of(row[width:]) for row in found if row[width] is not None]


def _read_news(
    connection: Connection, key: dict[str, Any], known: Counters, counters: Counters
) -> _News:
    changed: list[Memory] = []
    purged: Sequence[str] = ()
    accessed: Sequence[Any] = ()
    if counters.revision > known.revision:
        parameters = {**key, "after": known.revision}
        changed = [memory_of(row) for row in direct.fetch(connection, _CHANGED, parameters)]
        # After the rows: whatever was purged up to the latest of them is among these.
        purged = [row[0] for row in direct.fetch(connection, _PURGED, parameters)]
    if counters.access_revision > known.access_revision:
        parameters = {**key, "after": known.access_revision}
        accessed = direct.fetch(connection, _ACCESSED, parameters)
    return _News(changed, purged, {row[0]: Accessed(row[1], row[2]) for row in accessed})


def _bytes_of(memory: Memory) -> int:
    # A character takes up to four bytes; metadata as much as its values and their boxes, roughly.
    return MEMORY_BYTES + len(memory.content.encode()) + 3 * len(str(memory.metadata))
