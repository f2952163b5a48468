"""One session while writes are applied: its rows as far as they matter, with the changes so far."""

from __future__ import annotations

import dataclasses
import heapq
from typing import TYPE_CHECKING, Any

from memoryd.model import Change, Memory
from memoryd.ranking import effective_importance

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from memoryd.model import Capacity, ContentType, Session


class SessionWork:
    """The rows of one session that were read, and what becomes of them. Knows no database."""

    def __init__(self, session: Session, revision: int, now: datetime) -> None:
        self.session = session
        self.now = now
        self.revision = revision
        self.live_count = 0
        self.rows: dict[str, Memory] = {}
        """By id; as they are after the changes so far."""
        self.added: set[str] = set()
        """Ids of rows that are new."""
        self.changed: set[str] = set()
        """Ids of rows that were there and changed."""
        self.touched: set[str] = set()
        """Ids of rows whose access was counted."""
        self.superseded: list[Memory] = []
        """Versions that a change has replaced."""
        self._holders: dict[tuple[ContentType, str], str] = {}
        self._least_important: list[tuple[float, int, str]] | None = None

    def copy(self) -> SessionWork:
        """The state to go back to if a write is refused in its middle."""
        twin = SessionWork(self.session, self.revision, self.now)
        twin.live_count = self.live_count
        twin.rows = dict(self.rows)
        twin.added = set(self.added)
        twin.changed = set(self.changed)
        twin.touched = set(self.touched)
        twin.superseded = list(self.superseded)
        twin._holders = dict(self._holders)
        if self._least_important is not None:
            twin._least_important = list(self._least_important)
        return twin

    def load(self, memories: Iterable[Memory]) -> None:
        """Take in rows as the database has them."""
        for memory in memories:
            self.rows[memory.memory_id] = memory
            if memory.deleted_at is None:
                self._holders[memory.content_type, memory.content_hash] = memory.memory_id

    def rank_for_eviction(self, capacity: Capacity) -> None:
        """Prepare `evict`. Every live row that may have to go has been loaded."""
        self._least_important = []
        for memory in self.rows.values():
            self._rank(memory, capacity)

    def live(self, memory_id: str) -> Memory | None:
        memory = self.rows.get(memory_id)
        return memory if memory is not None and memory.is_live(self.now) else None

    def holder(self, content_type: ContentType, content_hash: str) -> Memory | None:
        """The live memory with this content. One that has expired makes room."""
        memory_id = self._holders.get((content_type, content_hash))
        if memory_id is None:
            return None
        memory = self.rows[memory_id]
        return None if self.expire(memory) else memory

    def add(self, memory: Memory, capacity: Capacity) -> Memory:
        """A new row, at the next revision."""
        self.revision += 1
        memory = dataclasses.replace(
            memory, revision=self.revision, created_revision=self.revision, change=Change.CREATED
        )
        self.added.add(memory.memory_id)
        self._put(memory)
        self.live_count += 1
        self._rank(memory, capacity)
        return memory

    def change(
        self, memory: Memory, change: Change, capacity: Capacity | None = None, /, **values: Any
    ) -> Memory:
        """The row with new values, at the next revision."""
        self.revision += 1
        was_live = memory.is_live(self.now)
        if memory.deleted_at is None:
            del self._holders[memory.content_type, memory.content_hash]
        self.superseded.append(memory)
        memory = dataclasses.replace(memory, revision=self.revision, change=change, **values)
        self._put(memory)
        self.live_count += memory.is_live(self.now) - was_live
        if memory.memory_id not in self.added:
            self.changed.add(memory.memory_id)
        if capacity is not None:
            self._rank(memory, capacity)
        return memory

    def expire(self, memory: Memory) -> bool:
        """Remove a memory that is not deleted, if its time has come; answer whether it had."""
        expired = memory.is_expired(self.now)
        if expired:
            self.change(memory, Change.EXPIRED, deleted_at=self.now)
        return expired

    def touch(self, memory: Memory, count: int, at: datetime) -> None:
        """Count accesses; the revision stays."""
        self.rows[memory.memory_id] = dataclasses.replace(
            memory,
            access_count=memory.access_count + count,
            last_accessed=at if memory.last_accessed is None else max(at, memory.last_accessed),
        )
        self.touched.add(memory.memory_id)

    def evict(self, capacity: Capacity, *, keep: str) -> tuple[str, ...]:
        """Soft-delete the least effectively important until the limit holds; never `keep`."""
        evicted: list[str] = []
        kept = None
        while self.live_count > capacity.max_entries and self._least_important:
            entry = heapq.heappop(self._least_important)
            memory = self.live(entry[2])
            if memory is None or memory.revision != entry[1]:
                continue  # changed since; it stands there again with its new rank, or is gone
            if memory.memory_id == keep:
                kept = entry
                continue
            self.change(memory, Change.DELETED, deleted_at=self.now)
            evicted.append(memory.memory_id)
        if kept is not None and self._least_important is not None:
            heapq.heappush(self._least_important, kept)
        return tuple(evicted)

    def _put(self, memory: Memory) -> None:
        self.rows[memory.memory_id] = memory
        if memory.deleted_at is None:
            self._holders[memory.content_type, memory.content_hash] = memory.memory_id

    def _rank(self, memory: Memory, capacity: Capacity) -> None:
        if self._least_important is None or not memory.is_live(self.now):
            return
        score = effective_importance(
            memory.importance,
            memory.created_at,
            memory.access_count,
            now=self.now,
            half_life_days=capacity.half_life_days,
        )
        # Among equals the one unchanged for longest goes first.
        heapq.heappush(self._least_important, (score, memory.revision, memory.memory_id))
