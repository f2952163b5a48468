"""Sessions as they are, kept in memory: read once, then brought up to date from what has changed.

A caller gets a session at least as new as the database had it when the call came: its counters are
looked up each time, and only where they have moved are rows read, those that changed.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, and_, bindparam, func, select, true

from memoryd.database import statements
from memoryd.database.tables import memories, memory_history, sessions
from memoryd.domain.errors import MemorydError
from memoryd.domain.records import Accesses, Change
from memoryd.memories import rows
from memoryd.memories.cached_session import (
    MEMORY_BYTES,
    NOWHERE,
    CachedSession,
    Loaded,
    News,
    Watched,
)
from memoryd.memories.rows import COLUMNS, memory_of
from memoryd.sessions.lock import SHARD_KEY, Counters
from memoryd.telemetry.instruments import SILENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.domain.records import Memory, Session
    from memoryd.memories.cached_session import SessionNews
    from memoryd.sessions.replica import SessionReads
    from memoryd.telemetry.instruments import Counter

RELOAD_CHANGES = 500
MOST_CHANGES = 5_000
"""From so many changes on, a session is read again as a whole; a larger one from half as many as it
has memories, up to the second."""

SURELY_KEPT = 1_000
"""Changes of a session: one that has had no more is read without being measured."""

PART = 2_000
"""Memories of a session that are read at once, so that no statement takes long, nor any step."""

CALL_SHARE = 0.75
"""Of the room, at most: the sessions that one call brings in. What is beyond is answered and not
kept, so that one call does not drive all other sessions out."""

ERASED_SECONDS = 60.0
"""Between two looks for kept sessions that another process has erased."""

HIT, UPDATE, MISS = "hit", "update", "miss"
"""How a session that is asked for is found: as it is, behind, or not at all."""


def _in_session(table: Any) -> Any:
    return and_(*(table.c[name] == bindparam(name) for name in SHARD_KEY))


# The counters and the rows in one statement, so that they belong together.
_PART = (
    select(*COLUMNS)
    .where(_in_session(memories), rows.live(), memories.c.created_revision > bindparam("after"))
    .order_by(memories.c.created_revision)
    .limit(bindparam("most", type_=Integer))
    .subquery("part")
)
_LIVE = (
    select(*(sessions.c[name] for name in Counters._fields), *_PART.c)
    .select_from(sessions.outerjoin(_PART, true()))
    .where(_in_session(sessions))
)
_SIZE = select(func.sum(func.length(memories.c.content)), func.count()).where(
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


class SessionCache:
    """The sessions that were asked for last, as far as there is room."""

    def __init__(
        self,
        reads: SessionReads,
        *,
        max_bytes: int,
        requests: Counter = SILENT.cache_requests,
    ) -> None:
        """`requests` counts sessions that are asked for, by what had to be read."""
        self._reads = reads
        self._requests = requests
        self._kept = RecentSessions(max_bytes)
        self._forgetting = asyncio.create_task(self._forget_erased(), name="cached")

    @property
    def nbytes(self) -> int:
        """About what all of them take."""
        return self._kept.nbytes

    def kept(self, session: Session) -> CachedSession | None:
        """The session as it was when last asked for, if it is in memory."""
        cached = self._kept.get(session)
        return None if cached is None or cached.counters is NOWHERE else cached

    async def lengths(
        self, wanted: Sequence[Session], *, most: int, timeout: float | None
    ) -> list[int]:
        """How many characters the contents of sessions have, of those that have any.

        Two that have more than `most` together are the last that are looked at.
        """

        def body(connection: Connection) -> list[int]:
            found: list[int] = []
            for session in wanted:
                ((length, _),) = statements.fetch(connection, _SIZE, session._asdict())
                if length:
                    found.append(length)
                if len(found) > 1 and sum(found) > most:
                    break
            return found

        return await self._reads.read(wanted[0], body, timeout=timeout)

    async def outgrown(self, session: Session, *, timeout: float | None) -> int:
        """How many characters a session has that could not be kept; 0: it is, or can be.

        One that has had few changes is small enough.
        """
        if self.kept(session) is not None:
            return 0
        counters = await self._reads.counters(session, timeout=timeout)
        if counters is None or counters.revision <= SURELY_KEPT:
            return 0
        ((length, count),) = await self._reads.read(
            session,
            lambda c: statements.fetch(c, _SIZE, session._asdict()),
            timeout=timeout,
            counters=counters,
        )
        fits = count * MEMORY_BYTES + (length or 0) <= self._kept.most_of_a_call
        return 0 if fits else length

    async def parts(
        self, session: Session, *, now: datetime, timeout: float | None
    ) -> AsyncIterator[tuple[Counters, list[Memory]]]:
        """The live memories of a session, some at a time, with how far it was; nothing is kept.

        Each comes once, as it was when its part was read.
        """
        remaining = _countdown(timeout)
        counters = await self._reads.counters(session, timeout=timeout)
        if counters is not None:
            async for latest, part in self._parts(session, counters, now, remaining):
                yield latest, part

    async def current(
        self, session: Session, *, now: datetime, timeout: float | None
    ) -> CachedSession | None:
        """The session as it is; None where there is none. Raises what Database raises.

        It changes under later calls: who has it makes use of it before awaiting anything, and
        settles it in the end.
        """
        counters = await self._reads.counters(session, timeout=timeout)
        if counters is None:
            self.forget(session)
            return None
        cached = self._kept.get(session)
        if cached is None:
            cached = CachedSession(session)
            self._kept.add(cached)
        if not cached.is_behind(counters):
            self._requests.add(1, HIT)
        else:
            self._requests.add(1, MISS if cached.counters is NOWHERE else UPDATE)
            async with cached.refreshing:
                if cached.is_behind(counters):
                    await self._refresh(cached, counters, now, timeout)
        return cached if cached.counters is not NOWHERE else None

    def watch(self, sessions: Iterable[Session]) -> dict[Session, Watched]:
        """Begin a transaction that changes sessions; those of them that are kept."""
        return {
            session: Watched(cached, cached.refreshes)
            for session in sessions
            if (cached := self._kept.get(session)) is not None
        }

    def count_accesses(
        self, watched: Watched | None, before: Counters, counted: Mapping[str, Accesses]
    ) -> None:
        """Take in accesses that this process has committed, so that they are not read back.

        `before` is how far the session was. One that is not as far, or was read meanwhile, is
        brought up to date when next asked for.
        """
        if (
            watched is not None
            and watched.is_undisturbed
            and watched.cached.counters.access_revision == before.access_revision
        ):
            watched.cached.count_accesses(counted)

    def take_in(self, watched: Watched | None, news: SessionNews) -> None:
        """Take in what this process has committed; as `count_accesses`."""
        if watched is None or not watched.is_undisturbed:
            return
        cached = watched.cached
        known = cached.counters
        if known.revision == news.before and known.access_revision == news.access_revision:
            changed = sorted(news.changed, key=lambda memory: memory.created_revision)
            cached.update(known._replace(revision=news.revision), News(changed, (), {}))

    def settle(self, used: Iterable[Session], caller: str) -> None:
        """Note that a call of `caller` used sessions, and what they take by now."""
        self._kept.settle(used, caller)

    def forget(self, session: Session) -> None:
        """Keep nothing of a session."""
        self._kept.forget(session)

    async def close(self) -> None:
        """Drop everything."""
        self._forgetting.cancel()
        await asyncio.gather(self._forgetting, return_exceptions=True)
        for session in self._kept:
            self.forget(session)

    async def _refresh(
        self, cached: CachedSession, counters: Counters, now: datetime, timeout: float | None
    ) -> None:
        known = cached.counters
        cached.refreshes += 1
        most = max(RELOAD_CHANGES, min(len(cached.memories) // 2, MOST_CHANGES))
        # What is before the horizon may have missed a purge, or know another session.
        if known.revision < counters.horizon or counters.revision - known.revision > most:
            await self._load(cached, counters, now, timeout)
        else:
            await self._follow(cached, counters, timeout)

    async def _load(
        self, cached: CachedSession, counters: Counters, now: datetime, timeout: float | None
    ) -> None:
        """Read a session as a whole, part by part, and then what has changed meanwhile."""
        remaining = _countdown(timeout)
        while True:
            loaded = Loaded()
            first = None
            async for latest, part in self._parts(cached.session, counters, now, remaining):
                first = first or latest
                loaded.add(part)
            if first is None or latest == NOWHERE:  # it has been erased
                cached.reset(NOWHERE, Loaded())
                return
            # Else a purge may have been missed.
            if latest.horizon <= first.revision:
                break
        cached.reset(first, loaded)
        if first != latest:
            await self._follow(cached, latest, remaining())

    async def _parts(
        self,
        session: Session,
        counters: Counters,
        now: datetime,
        remaining: Callable[[], float | None],
    ) -> AsyncIterator[tuple[Counters, list[Memory]]]:
        """The live memories of a session in creation order, with how far it was at each part."""
        key, after = session._asdict(), -1
        while True:
            parameters = {**key, "now": now, "after": after, "most": PART}
            latest, part = await self._reads.read(
                session,
                lambda c: _read_live(c, parameters),  # noqa: B023  it has ended
                timeout=remaining(),
                counters=counters,
            )
            yield latest, part
            if len(part) < PART:
                return
            after = part[-1].created_revision

    async def _follow(
        self, cached: CachedSession, counters: Counters, timeout: float | None
    ) -> None:
        """Read what has changed in a session since it was read."""
        known, key = cached.counters, cached.session._asdict()
        news = await self._reads.read(
            cached.session,
            lambda c: _read_news(c, key, known, counters),
            timeout=timeout,
            counters=counters,
        )
        cached.update(counters, news)

    async def _forget_erased(self) -> None:
        """Drop what another process has erased, though it is no longer asked for."""
        while True:
            await asyncio.sleep(ERASED_SECONDS)
            with suppress(MemorydError):  # health tells of it
                kept = [*self._kept]
                found = await asyncio.gather(*(self._reads.counters(s, timeout=None) for s in kept))
                for session, counters in zip(kept, found, strict=True):
                    if counters is None:
                        self.forget(session)


def _countdown(timeout: float | None) -> Callable[[], float | None]:
    """Give what tells how much of a time is left."""
    if timeout is None:
        return lambda: None
    end = time.monotonic() + timeout
    return lambda: end - time.monotonic()


def _read_live(connection: Connection, parameters: dict[str, Any]) -> tuple[Counters, list[Memory]]:
    found = statements.fetch(connection, _LIVE, parameters)
    if not found:
        return NOWHERE, []
    width = len(Counters._fields)
    counters = Counters(*found[0][:width])
    part = [memory_of(row[width:]) for row in found if row[width] is not None]
    part.sort(key=lambda memory: memory.created_revision)
    return counters, part


def _read_news(
    connection: Connection, key: dict[str, Any], known: Counters, counters: Counters
) -> News:
    changed: list[Memory] = []
    purged: Sequence[str] = ()
    accessed: Sequence[Any] = ()
    if counters.revision > known.revision:
        parameters = {**key, "after": known.revision}
        changed = [memory_of(row) for row in statements.fetch(connection, _CHANGED, parameters)]
        # After the rows: whatever was purged up to the latest of them is among these.
        purged = [row[0] for row in statements.fetch(connection, _PURGED, parameters)]
    if counters.access_revision > known.access_revision:
        parameters = {**key, "after": known.access_revision}
        accessed = statements.fetch(connection, _ACCESSED, parameters)
    return News(changed, purged, {row[0]: Accesses(row[1], row[2]) for row in accessed})


class RecentSessions:
    """Room is made by the caller whose sessions take most of it, the longest unused first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._sessions: dict[Session, CachedSession] = {}
        self._bytes: dict[Session, int] = {}
        """What each takes, once it is settled."""
        self._caller: dict[Session, str] = {}
        """Who asked for each last."""
        self._of: dict[str, OrderedDict[Session, None]] = {}
        """Those of each caller, the longest unused first."""
        self._taken: collections.Counter[str] = collections.Counter()
        """What those of each caller take."""

    def __iter__(self) -> Iterator[Session]:
        return iter([*self._sessions])

    @property
    def nbytes(self) -> int:
        """About what all of them take."""
        return self._taken.total()

    def get(self, session: Session) -> CachedSession | None:
        return self._sessions.get(session)

    def add(self, cached: CachedSession) -> None:
        """Keep one at least until a call that uses it is settled."""
        self._sessions[cached.session] = cached

    def forget(self, session: Session) -> None:
        """Keep nothing of a session."""
        self._sessions.pop(session, None)
        self._leave(session)

    @property
    def most_of_a_call(self) -> int:
        """What the sessions of one call may take."""
        return int(self._max_bytes * CALL_SHARE)

    def settle(self, sessions: Iterable[Session], caller: str) -> None:
        """Note that a call used sessions, and make room for what they take by now."""
        room = most = self.most_of_a_call
        for session in sessions:
            cached = self._sessions.get(session)
            if cached is None:
                continue  # forgotten meanwhile
            size = cached.nbytes
            room -= size
            if size > most or (room < 0 and session not in self._bytes):
                self.forget(session)
                continue
            self._leave(session)
            self._bytes[session] = size
            self._caller[session] = caller
            self._of.setdefault(caller, OrderedDict())[session] = None
            self._taken[caller] += size
        while self.nbytes > self._max_bytes:
            ((heaviest, _),) = self._taken.most_common(1)
            self.forget(next(iter(self._of[heaviest])))

    def _leave(self, session: Session) -> None:
        caller = self._caller.pop(session, None)
        if caller is None:
            return
        self._taken[caller] -= self._bytes.pop(session)
        del self._of[caller][session]
        if not self._of[caller]:
            del self._of[caller], self._taken[caller]
