"""Subscriptions to sessions, woken when one changes: here, or in another process."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from memoryd.database.feed import Feed, Subscription
from memoryd.domain.errors import MemorydError, RevisionOutOfRange
from memoryd.domain.records import Session
from memoryd.sessions.lock import read_counters
from memoryd.sessions.revisions import CHANNEL, fingerprint

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from sqlalchemy import Connection

    from memoryd.database.engine import Database
    from memoryd.database.feed import Changes
    from memoryd.database.notifications import Listener


class Revised(Protocol):
    """What has happened at a revision."""

    @property
    def revision(self) -> int: ...


EventT = TypeVar("EventT", bound=Revised)

POLL_SECONDS = 0.5
"""Between two looks at the revisions of watched sessions, where the database does not notify."""

LISTENING_POLL_SECONDS = 10.0
"""The same where it does, in case a notification is lost."""

MAX_READS = 4

_log = logging.getLogger(__name__)


class ChangeFeed(Feed[Session, EventT]):
    """However many subscriptions there are, they share one listener and one poll."""

    def __init__(
        self,
        database: Database,
        listener: Listener,
        read: Callable[[Connection, Session, int], Changes[EventT]],
        purged: Callable[[int], EventT],
    ) -> None:
        """`read` gives the next changes of a session after a revision.

        It raises RevisionOutOfRange. `purged` makes what says that all of a session is gone.
        """
        super().__init__(max_reads=MAX_READS)
        self._read_changes = read
        self._purged = purged
        self._database = database
        self._listener = listener
        self._by_print: defaultdict[str, set[Session]] = defaultdict(set)
        self._wanted = asyncio.Event()
        listener.subscribe(CHANNEL, self._on_payload, self._look)
        self._polling = asyncio.create_task(self._poll(), name="change poll")

    @contextmanager
    def subscribed(
        self, key: Session, *, is_current: bool = False
    ) -> Iterator[Subscription[Session, EventT]]:
        """Subscribe to a session until the end of the block."""
        by_print = self._by_print[fingerprint(key)]
        by_print.add(key)
        self._wanted.set()
        try:
            with super().subscribed(key, is_current=is_current) as subscription:
                yield subscription
        finally:
            if key not in self._subscriptions:
                by_print.discard(key)
                if not by_print:
                    self._by_print.pop(fingerprint(key), None)
            if not self._subscriptions:
                self._wanted.clear()

    async def events(self, session: Session, after: int) -> AsyncGenerator[EventT]:
        """Give every change after a revision, and of a session that is erased at last that it is.

        Raises RevisionOutOfRange, also then; ShuttingDown; what Database raises.
        """
        with self.subscribed(session) as subscription:
            while True:
                try:
                    events = await subscription.after(after)
                except RevisionOutOfRange as error:
                    last = self.known_revision(session)
                    if error.is_gone and last:
                        # Where it is made again, it begins there or beyond.
                        yield self._purged(last + 1)
                    raise
                for event in events:
                    yield event
                    after = event.revision

    async def close(self) -> None:
        """End every subscription with ShuttingDown."""
        self._polling.cancel()
        await asyncio.gather(self._polling, super().close(), return_exceptions=True)

    async def _read(self, key: Session, after: int) -> Changes[EventT]:
        return await self._database.read(
            lambda c: self._read_changes(c, key, after), tenants=(key.tenant,)
        )

    async def _poll(self) -> None:
        """Look again and again; only now and then while the database notifies."""
        while True:
            await self._wanted.wait()
            await asyncio.sleep(
                LISTENING_POLL_SECONDS if self._listener.is_listening else POLL_SECONDS
            )
            try:
                await self._look()
            except MemorydError:
                continue  # health reports it; the subscriptions wait on
            except Exception:  # noqa: BLE001  without the poll they would wait in vain
                _log.exception("unhandled exception while looking for changes; the poll goes on")

    async def _look(self) -> None:
        """Compare the revisions of watched sessions with those known."""
        dialect, watched = self._database.dialect, list(self._subscriptions)
        if not watched:
            return
        found = await self._database.read(
            lambda c: read_counters(c, dialect, watched), tenants={s.tenant for s in watched}
        )
        revisions = {session: counters.revision for session, counters in found.items()}
        # A session that is gone was erased: its subscriptions are to find out.
        self.notify(s for s in watched if revisions.get(s, 0) != self.known_revision(s))

    def _on_payload(self, payload: str) -> None:
        for part in payload.split():
            self.notify(tuple(self._by_print.get(part, ())))
