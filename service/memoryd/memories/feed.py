"""Wakes those who follow a session when it changes: here, or in another process."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from memoryd.domain.errors import MemorydError, ShuttingDown
from memoryd.memories.history import CHANNEL, fingerprint, read_changes
from memoryd.sessions.lock import read_counters

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from memoryd.database.engine import Database
    from memoryd.database.notifications import Listener
    from memoryd.domain.records import MemoryEvent, Session
    from memoryd.memories.history import Changes

POLL_SECONDS = 0.5
"""Between two looks at the revisions of watched sessions, where the database tells nothing."""

LISTENING_POLL_SECONDS = 10.0
"""The same where it does; in case a word of it is lost."""

MAX_READS = 4
"""At a time; callers are to find a connection for theirs, however many followers there are."""

_log = logging.getLogger(__name__)


class ChangeHub:
    """All followers of this process; however many, they share one listener and one poll.

    Followers at the same place share one read too.
    """

    def __init__(self, database: Database, listener: Listener) -> None:
        self._database = database
        self._listener = listener
        self._followers: defaultdict[Session, set[Follower]] = defaultdict(set)
        self._by_print: defaultdict[str, set[Session]] = defaultdict(set)
        self._known: dict[Session, int] = {}
        self._news: defaultdict[Session, int] = defaultdict(int)
        self._reads: dict[tuple[Session, int, int], asyncio.Task[Changes]] = {}
        self._reading = asyncio.Semaphore(MAX_READS)
        self._closing = False
        self._wanted = asyncio.Event()
        listener.subscribe(CHANNEL, self._on_payload, self._look)
        self._polling = asyncio.create_task(self._poll(), name="change poll")

    @property
    def followers(self) -> int:
        """How many there are."""
        return sum(map(len, self._followers.values()))

    @contextmanager
    def following(self, session: Session) -> Iterator[Follower]:
        """Follow a session until the end of the block."""
        follower = Follower(self, session)
        self._followers[session].add(follower)
        self._by_print[fingerprint(session)].add(session)
        self._wanted.set()
        try:
            yield follower
        finally:
            self._followers[session].discard(follower)
            if not self._followers[session]:
                self._forget(session)

    def notify(self, changed: Iterable[Session]) -> None:
        """Wake the followers of these sessions."""
        for session in changed:
            if session in self._followers:
                self._news[session] += 1
                self._wake(session)

    async def close(self) -> None:
        """End every follower with ShuttingDown."""
        self._closing = True
        for session in self._followers:
            self._wake(session)
        self._polling.cancel()
        await asyncio.gather(self._polling, *self._reads.values(), return_exceptions=True)

    def news(self, session: Session) -> tuple[int, int]:
        """What is known of a session; another answer than before is a reason to read."""
        if self._closing:
            raise ShuttingDown
        return self._news[session], self._known.get(session, 0)

    async def read(self, session: Session, after: int) -> Changes:
        """Read the next changes. Raises RevisionOutOfRange, ShuttingDown, what Database raises."""
        # One read serves all who are at this place and know of the same news.
        key = (session, after, self.news(session)[0])
        task = self._reads.get(key)
        if task is None:
            task = self._reads[key] = asyncio.create_task(self._read(session, after))
            task.add_done_callback(lambda read: self._end(key, read))
        changes = await asyncio.shield(task)
        if changes.revision != self._known.get(session, 0):
            self._known[session] = changes.revision
            self._wake(session)
        return changes

    async def _read(self, session: Session, after: int) -> Changes:
        async with self._reading:
            return await self._database.read(lambda c: read_changes(c, session, after))

    def _end(self, key: tuple[Session, int, int], read: asyncio.Task[Changes]) -> None:
        self._reads.pop(key, None)
        if not read.cancelled():
            read.exception()  # seen, also where all who wanted to know have gone

    def _wake(self, session: Session) -> None:
        for follower in self._followers[session]:
            follower.wake.set()

    def _forget(self, session: Session) -> None:
        del self._followers[session]
        self._known.pop(session, None)
        self._news.pop(session, None)
        prints = self._by_print[fingerprint(session)]
        prints.discard(session)
        if not prints:
            del self._by_print[fingerprint(session)]
        if not self._followers:
            self._wanted.clear()

    async def _poll(self) -> None:
        """Look again and again; only now and then while the database tells."""
        while True:
            await self._wanted.wait()
            await asyncio.sleep(
                LISTENING_POLL_SECONDS if self._listener.is_listening else POLL_SECONDS
            )
            try:
                await self._look()
            except MemorydError:
                continue  # health tells of it; the followers wait on
            except Exception:  # noqa: BLE001  without the poll they would wait in vain
                _log.exception("not looking for changes, by a defect")

    async def _look(self) -> None:
        """Compare the revisions of watched sessions with those known."""
        dialect, watched = self._database.dialect, list(self._followers)
        if not watched:
            return
        found = await self._database.read(lambda c: read_counters(c, dialect, watched))
        revisions = {session: counters.revision for session, counters in found.items()}
        # A session that is gone was erased: its followers are to find out.
        self.notify(s for s in watched if revisions.get(s, 0) != self._known.get(s, 0))

    def _on_payload(self, payload: str) -> None:
        for part in payload.split():
            self.notify(self._by_print.get(part, ()))


class Follower:
    """One who follows a session."""

    def __init__(self, hub: ChangeHub, session: Session) -> None:
        self.wake = asyncio.Event()
        """Set by the hub when there may be something new."""
        self._hub = hub
        self._session = session
        self._read_at: tuple[int, int] | None = None
        """The hub's news that the last read has brought; None if it left some behind."""

    async def after(self, revision: int) -> Sequence[MemoryEvent]:
        """Give the next changes after a revision, as soon as there are any.

        Raises RevisionOutOfRange, ShuttingDown, and what Database raises.
        """
        while True:
            self.wake.clear()
            news = self._hub.news(self._session)
            if news == self._read_at:
                await self.wake.wait()
                continue
            changes = await self._hub.read(self._session, revision)
            self._read_at = (news[0], changes.revision) if changes.is_all else None
            if changes.events:
                return changes.events
