"""Subscriptions to what changes: they are woken, resume by revision, and share their reads."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from memoryd.domain.errors import ShuttingDown
from memoryd.telemetry import spans

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

KeyT = TypeVar("KeyT", bound="Hashable")
EventT = TypeVar("EventT")


@dataclass(frozen=True, slots=True)
class Changes(Generic[EventT]):
    """What one read brought."""

    events: Sequence[EventT]
    """The next ones, in order and without a gap."""
    revision: int
    """That of the key at the time of the read; 0 where there is nothing of it."""
    is_all: bool
    """Whether there were no more than these by then."""


class Feed(ABC, Generic[KeyT, EventT]):
    """All subscriptions of this process to keys that each have a revision, which rises.

    Subscriptions at the same place share one read.
    """

    def __init__(self, *, max_reads: int) -> None:
        """At most `max_reads` at a time, so that callers find a connection for theirs."""
        self._subscriptions: defaultdict[KeyT, set[Subscription[KeyT, EventT]]] = defaultdict(set)
        self._known: dict[KeyT, int] = {}
        self._notified: defaultdict[KeyT, int] = defaultdict(int)
        self._reads: dict[tuple[KeyT, int, int], asyncio.Task[Changes[EventT]]] = {}
        self._reading = asyncio.Semaphore(max_reads)
        self._closing = False

    @abstractmethod
    async def _read(self, key: KeyT, after: int) -> Changes[EventT]:
        """Read the first changes after a revision. Raises RevisionOutOfRange."""

    @property
    def subscriptions(self) -> int:
        """How many there are."""
        return sum(map(len, self._subscriptions.values()))

    @contextmanager
    def subscribed(
        self, key: KeyT, *, is_current: bool = False
    ) -> Iterator[Subscription[KeyT, EventT]]:
        """Subscribe to a key until the end of the block.

        `is_current`: whether the subscriber knows all changes until now, so that nothing is read
        before the next one.
        """
        subscription = Subscription(self, key, self.news(key) if is_current else None)
        self._subscriptions[key].add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions[key].discard(subscription)
            if not self._subscriptions[key]:
                del self._subscriptions[key]
                self._known.pop(key, None)
                self._notified.pop(key, None)

    def notify(self, changed: Iterable[KeyT]) -> None:
        """Wake the subscriptions to these keys."""
        for key in changed:
            if key in self._subscriptions:
                self._notified[key] += 1
                self._wake(key)

    def known_revision(self, key: KeyT) -> int:
        """What the last read of a key has found; 0 before."""
        return self._known.get(key, 0)

    async def close(self) -> None:
        """End every subscription with ShuttingDown."""
        self._closing = True
        for key in self._subscriptions:
            self._wake(key)
        await asyncio.gather(*self._reads.values(), return_exceptions=True)

    def news(self, key: KeyT) -> tuple[int, int]:
        """What is known of a key; another answer than before is a reason to read."""
        if self._closing:
            raise ShuttingDown
        return self._notified[key], self.known_revision(key)

    async def read(self, key: KeyT, after: int) -> Changes[EventT]:
        """Read the next changes. Raises RevisionOutOfRange, ShuttingDown, what Database raises."""
        # One read serves all who are at this place and know of the same news.
        place = (key, after, self.news(key)[0])
        task = self._reads.get(place)
        if task is None:
            task = self._reads[place] = asyncio.create_task(
                self._bounded(key, after), context=spans.detached()
            )
            task.add_done_callback(lambda read: self._end(place, read))
        changes = await asyncio.shield(task)
        if changes.revision != self.known_revision(key):
            self._known[key] = changes.revision
            self._wake(key)
        return changes

    async def _bounded(self, key: KeyT, after: int) -> Changes[EventT]:
        async with self._reading:
            return await self._read(key, after)

    def _end(self, place: tuple[KeyT, int, int], read: asyncio.Task[Changes[EventT]]) -> None:
        self._reads.pop(place, None)
        if not read.cancelled():
            read.exception()  # seen, also where every subscription that waited for it has gone

    def _wake(self, key: KeyT) -> None:
        for subscription in self._subscriptions[key]:
            subscription.wake.set()


class Subscription(Generic[KeyT, EventT]):
    """One subscription to a key."""

    def __init__(
        self, feed: Feed[KeyT, EventT], key: KeyT, read_at: tuple[int, int] | None
    ) -> None:
        self.wake = asyncio.Event()
        """Set by the feed when there may be something new."""
        self._feed = feed
        self._key = key
        self._read_at = read_at
        """The feed's news that the last read has brought; None if it left some behind."""

    async def after(self, revision: int) -> Sequence[EventT]:
        """Give the next changes after a revision, as soon as there are any.

        Raises RevisionOutOfRange, ShuttingDown, and what Database raises.
        """
        while True:
            self.wake.clear()
            news = self._feed.news(self._key)
            if news == self._read_at:
                await self.wake.wait()
                continue
            changes = await self._feed.read(self._key, revision)
            self._read_at = (news[0], changes.revision) if changes.is_all else None
            if changes.events:
                return changes.events

    async def woken(self) -> None:
        """Wait until there may be something new since the last time, or since the beginning.

        For who knows by itself what there is. Raises ShuttingDown.
        """
        await self.wake.wait()
        self.wake.clear()
        self._feed.news(self._key)
