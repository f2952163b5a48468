"""One session's memories, kept in memory and brought up to date from what has changed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol

from memoryd.sessions.lock import Counters

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from memoryd.domain.records import Accesses, Memory, Session

MEMORY_BYTES = 1_200
"""A record in memory, in bytes, without the text of its content and metadata."""

TAG_BYTES = 80
"""Of a tag, without its characters."""

NOWHERE = Counters(-1, -1, -1)
"""How far a session is that was never read."""


class View(Protocol):
    """What retrieval makes of a session; it is kept with the session, and follows it."""

    @property
    def nbytes(self) -> int:
        """About what it takes, in bytes."""

    def note_change(self, memory_id: str) -> None:
        """Note that a memory came, went or changed."""

    def note_accesses(self, memory_id: str) -> None:
        """Note that accesses of a memory were counted."""


class CachedSession:
    """One session's memories that are not deleted. Those that have expired since are among them."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.memories: dict[str, Memory] = {}
        """By id, in creation order."""
        self.accesses: dict[str, Accesses] = {}
        """By id, of memories whose accesses were counted since their record was read; the record
        stays as it was."""
        self.view: View | None = None
        self.counters = NOWHERE
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
        return self.content_bytes + (0 if self.view is None else self.view.nbytes)

    def is_behind(self, counters: Counters) -> bool:
        return (
            self.counters.revision < counters.revision
            or self.counters.access_revision < counters.access_revision
        )

    def reset(self, counters: Counters, loaded: Loaded) -> None:
        """Let it be what was read."""
        if self.view is not None:
            for memory_id in self.memories.keys() | loaded.memories.keys():
                self.view.note_change(memory_id)
        self.memories, self.content_bytes = loaded.memories, loaded.content_bytes
        self.accesses = {}
        self.counters = counters

    def update(self, counters: Counters, news: News) -> None:
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
                self._count(memory_id, accessed)
        access_revision = max(self.counters.access_revision, counters.access_revision)
        self.counters = Counters(revision, access_revision, counters.horizon)

    def count_accesses(self, counted: Mapping[str, Accesses]) -> None:
        """Take in accesses that were counted since, all of them at once."""
        for memory_id, accesses in counted.items():
            memory = self.memories.get(memory_id)
            if memory is not None:
                before = self.accesses.get(memory_id) or memory.accesses
                self._count(memory_id, before.and_later(accesses))
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
        self.content_bytes += _bytes_of(memory)
        if self.view is not None:
            self.view.note_change(memory.memory_id)

    def _drop(self, memory_id: str) -> None:
        known = self.memories.pop(memory_id, None)
        if known is not None:
            self.accesses.pop(memory_id, None)
            self.content_bytes -= _bytes_of(known)
            if self.view is not None:
                self.view.note_change(memory_id)

    def _count(self, memory_id: str, accesses: Accesses) -> None:
        self.accesses[memory_id] = accesses
        if self.view is not None:
            self.view.note_accesses(memory_id)


class Loaded:
    """The memories of a session, as far as they have been read."""

    def __init__(self) -> None:
        self.memories: dict[str, Memory] = {}
        self.content_bytes = 0

    def add(self, part: Iterable[Memory]) -> None:
        """Add memories; they come in creation order."""
        for memory in part:
            self.memories[memory.memory_id] = memory
            self.content_bytes += _bytes_of(memory)


class News(NamedTuple):
    """What has changed in a session."""

    changed: Sequence[Memory]
    purged: Sequence[str]
    accessed: Mapping[str, Accesses]


class Watched(NamedTuple):
    """A session as it was kept when a transaction began."""

    cached: CachedSession
    refreshes: int

    @property
    def is_undisturbed(self) -> bool:
        """Whether no rows have been read since, which may show the transaction's already."""
        cached = self.cached
        return not cached.refreshing.locked() and cached.refreshes == self.refreshes


class SessionNews(NamedTuple):
    """What a transaction of this process has made of a session."""

    session: Session
    before: int
    """Its revision when the transaction began; no purge is among what it did."""
    revision: int
    access_revision: int
    changed: Sequence[Memory]
    """As they are now, those that it deleted among them."""


def _bytes_of(memory: Memory) -> int:
    # A character takes up to four bytes; metadata as much as its values and their boxes, roughly.
    size = MEMORY_BYTES + len(memory.content.encode()) + 3 * len(str(memory.metadata))
    if memory.key is not None or memory.tags:
        size += len(memory.key or "") + sum(map(len, memory.tags)) + TAG_BYTES * len(memory.tags)
    return size
