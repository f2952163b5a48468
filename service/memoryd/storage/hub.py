"""Wakes those who follow a session when it changes: here, or in another process."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from memoryd.errors import MemorydError, ShuttingDown
from memoryd.storage.changes import CHANNEL, fingerprint, read_changes
from memoryd.storage.sessions import read_revisions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from memoryd.model import MemoryEvent, Session
    from memoryd.storage.database import Database

POLL_SECONDS = 0.5
"""Between two looks at the revisions of watched sessions, where the database tells nothing."""

LISTENING_POLL_SECONDS = 10.0
"""The same where it does; in case a word of it is lost."""

MAX_BACK_OFF_SECONDS = 5.0

_log = logging.getLogger(__name__)


class ChangeHub:
    """All followers of this process; however many, they share one listener and one poll.

    Followers at the same place share one read too.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._followers: defaultdict[Session, set[asyncio.Event]] = defaultdict(set)
        self._by_print: defaultdict[str, set[Session]] = defaultdict(set)
        self._known: dict[Session, int] = {}
        self._news: defaultdict[Session, int] = defaultdict(int)
        self._reads: dict[tuple[Session, int, int], asyncio.Task[list[MemoryEvent]]] = {}
        self._closing = False
        self._listening = False
        self._wanted = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._poll(), name="change poll"),
            asyncio.create_task(self._listen(), name="change listener"),
        ]

    @contextmanager
    def following(self, session: Session) -> Iterator[Follower]:
        """Follow a session until the end of the block."""
        wake = asyncio.Event()
        self._followers[session].add(wake)
        self._by_print[fingerprint(session)].add(session)
        self._wanted.set()
        try:
            yield Follower(self, session, wake)
        finally:
            self._followers[session].discard(wake)
            if not self._followers[session]:
                self._forget(session)

    def notify(self, changed: Iterable[Session]) -> None:
        """Wake the followers of these sessions."""
        for session in changed:
            if session in self._followers:
                self._news[session] += 1
                for wake in self._followers[session]:
                    wake.set()

    async def close(self) -> None:
        """End every follower with ShuttingDown."""
        self._closing = True
        for session in list(self._followers):
            self.notify([session])
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def read(self, session: Session, after: int) -> Sequence[MemoryEvent]:
        """Read the next changes. Raises RevisionOutOfRange, ShuttingDown, what Database raises."""
        if self._closing:
            raise ShuttingDown
        # One read serves all who are at this place and know of the same news.
        key = (session, after, self._news[session])
        task = self._reads.get(key)
        if task is None:
            task = self._reads[key] = asyncio.create_task(self._read(session, after))
            task.add_done_callback(lambda _: self._reads.pop(key, None))
        events = await asyncio.shield(task)
        reached = events[-1].revision if events else after
        self._known[session] = max(self._known.get(session, 0), reached)
        return events

    async def _read(self, session: Session, after: int) -> list[MemoryEvent]:
        return await self._database.read(lambda c: read_changes(c, session, after))

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
        """Compare the revisions of watched sessions with those known."""
        while True:
            await self._wanted.wait()
            await asyncio.sleep(LISTENING_POLL_SECONDS if self._listening else POLL_SECONDS)
            try:
                current = await self._revisions(list(self._followers))
            except MemorydError:
                continue  # health tells of it; the followers wait on
            # A session that is gone was erased: its followers are to find out.
            self.notify(s for s, now in current.items() if now != self._known.get(s, 0))

    async def _revisions(self, watched: Sequence[Session]) -> dict[Session, int]:
        dialect = self._database.dialect
        found = await self._database.read(lambda c: read_revisions(c, dialect, watched))
        return {session: found.get(session, 0) for session in watched}

    async def _listen(self) -> None:
        """Hear of other processes' changes, if the database tells."""
        back_off = POLL_SECONDS
        while self._database.can_listen:
            await self._wanted.wait()
            try:
                async with self._database.listening(CHANNEL, self._on_payload) as lost:
                    self._listening, back_off = True, POLL_SECONDS
                    self.notify(list(self._followers))  # of what was missed meanwhile
                    await lost.wait()
            except MemorydError as error:
                _log.warning("not listening for changes: %s", error)
            finally:
                self._listening = False
            await asyncio.sleep(back_off * random.uniform(0.5, 1.5))  # noqa: S311  jitter
            back_off = min(2 * back_off, MAX_BACK_OFF_SECONDS)

    def _on_payload(self, payload: str) -> None:
        for part in payload.split():
            self.notify(self._by_print.get(part, ()))


class Follower:
    """One who follows a session."""

    def __init__(self, hub: ChangeHub, session: Session, wake: asyncio.Event) -> None:
        self._hub = hub
        self._session = session
        self._wake = wake

    async def after(self, revision: int) -> Sequence[MemoryEvent]:
        """Give the next changes after a revision, as soon as there are any.

        Raises RevisionOutOfRange, ShuttingDown, and what Database raises.
        """
        while True:
            self._wake.clear()
            events = await self._hub.read(self._session, revision)
            if events:
                return events
            await self._wake.wait()
