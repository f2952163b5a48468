"""One session while writes are applied: its rows as far as they matter, with the changes so far."""

from __future__ import annotations

import heapq
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memoryd.domain.metadata import json_bytes
from memoryd.domain.quotas import NOTHING, Usage
from memoryd.domain.records import Change, Memory
from memoryd.memories.ranks import UNRANKED, EvictionKey, Ranks
from memoryd.sessions.revisions import Totals

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from memoryd.domain.quotas import Account
    from memoryd.domain.records import Capacity, Identity, NewMemory, Session
    from memoryd.sessions.lock import LockedSession


class SessionWork:
    """The rows of one session that were read, and what becomes of them. Knows no database."""

    def __init__(
        self,
        session: Session,
        found: LockedSession,
        now: datetime,
        account: Account | None = None,
        *,
        is_new: bool = False,
    ) -> None:
        """`found`: its row; `account`: its tenant's, if that has one."""
        self.session = session
        self.now = now
        self.found = found
        self.revision = found.revision
        self.account = account
        self._is_new = is_new
        self.kept_count = found.kept_memories
        """Rows that are not deleted, expired ones included; None: not counted."""
        self.live_count = self.kept_count or 0
        self.rows: dict[str, Memory] = {}
        """By id; as they are after the changes so far."""
        self.added: set[str] = set()
        """Ids of rows that are new."""
        self.changed: set[str] = set()
        """Ids of rows that were there and changed."""
        self.superseded: list[Memory] = []
        """Versions that a change has replaced."""
        self.sizes: dict[str, int] = {}
        """By id, what the rows take of the account; not filled without one."""
        self.ranks: Ranks = UNRANKED
        self.is_ranked = False
        """Whether every live row has its rank for eviction."""
        self._holders: dict[Identity, str] = {}
        self._half_life_days: float | None = None
        """None: nothing can have to go."""
        self._least_important: list[EvictionKey] = []
        """A heap; what ranks otherwise by now stands in it a second time."""
        self._ranks: dict[str, EvictionKey] = {}
        """By id; as they are by now."""

    @property
    def has_changed(self) -> bool:
        return self.revision != self.found.revision

    def totals(self, added_documents: int) -> Totals:
        """What its row says after the changes."""
        documents = self.found.document_count + added_documents
        return Totals(self.revision, self.kept_count, documents)

    def own(self, capacity: Capacity) -> Capacity:
        """The limits of its tool, with those that are set for the session in their place."""
        limit = self.found.memory_limit
        return capacity if limit is None else replace(capacity, max_entries=limit)

    def with_expiration(self, item: NewMemory) -> NewMemory:
        """What is to be stored, with the session's own expiration where it has none."""
        if not item.expires_by_default:
            return item
        return item._replace(expires_at=self.found.default_expiration(self.now, item.expires_at))

    @property
    def held(self) -> Iterable[Identity]:
        """Of the rows that were read or made, what those that are not deleted hold."""
        return self._holders

    def copy(self) -> SessionWork:
        """The state to go back to if a write is refused in its middle."""
        twin = SessionWork(self.session, self.found, self.now, self.account, is_new=self._is_new)
        twin.revision = self.revision
        twin.live_count = self.live_count
        twin.kept_count = self.kept_count
        twin.rows = dict(self.rows)
        twin.added = set(self.added)
        twin.changed = set(self.changed)
        twin.superseded = list(self.superseded)
        twin.sizes = dict(self.sizes)
        twin.ranks = self.ranks
        twin.is_ranked = self.is_ranked
        twin._holders = dict(self._holders)
        twin._half_life_days = self._half_life_days
        twin._least_important = list(self._least_important)
        twin._ranks = dict(self._ranks)
        return twin

    def load(self, memories: Iterable[Memory]) -> None:
        """Take in rows as the database has them."""
        for memory in memories:
            self.rows[memory.memory_id] = memory
            if memory.deleted_at is None:
                self._holders[memory.identity] = memory.memory_id

    def rank_for_eviction(self, half_life_days: float) -> None:
        """Prepare `evict`. Every live row that may have to go has been loaded."""
        self._half_life_days = half_life_days
        for memory in self.rows.values():
            self._rank(memory)

    def live(self, memory_id: str) -> Memory | None:
        memory = self.rows.get(memory_id)
        return memory if memory is not None and memory.is_live(self.now) else None

    def holder(self, identity: Identity) -> Memory | None:
        """The live memory with this key, or content. One that has expired makes room."""
        memory_id = self._holders.get(identity)
        if memory_id is None:
            return None
        memory = self.rows[memory_id]
        return None if self.expire(memory) else memory

    def add(self, memory: Memory, max_entries: int) -> None:
        """A new row; its revision is beyond the session's.

        Raises QuotaExceeded, before anything is changed; what `evict` will take makes room.
        """
        memory_id, is_kept = memory.memory_id, memory.deleted_at is None
        if self.account is not None:
            size = self.sizes[memory_id] = _size(memory)
            added = Usage(is_kept, self._new_sessions, size * is_kept)
            over = self.live_count + memory.is_live(self.now) - max_entries
            self.account.add(added, NOTHING if over <= 0 else self._least(over, memory_id))
        self._add(memory)

    def _add(self, memory: Memory) -> None:
        self.revision = memory.revision
        self.added.add(memory.memory_id)
        self._put(memory)
        self.live_count += memory.is_live(self.now)
        self._count_kept(memory.deleted_at is None)

    def replace(self, held: Memory, memory: Memory, max_entries: int) -> None:
        """Delete a live memory, at the next revision, and add a new row in its place, beyond it.

        Raises QuotaExceeded, before anything is changed; the room of `held` counts for the new one.
        """
        if self.account is not None:
            size = self.sizes[memory.memory_id] = _size(memory)
            over = self.live_count - max_entries
            grown = Usage(0, 0, size - self.sizes[held.memory_id])
            self.account.add(grown, NOTHING if over <= 0 else self._least(over, held.memory_id))
        gone = held._replace(revision=self.revision + 1, change=Change.DELETED, deleted_at=self.now)
        self._change(held, gone)
        self._add(memory)

    def change(self, memory: Memory, change: Change, /, **values: Any) -> Memory:
        """The row with new values, at the next revision.

        Raises QuotaExceeded, before anything is changed.
        """
        before = memory
        memory = before._replace(revision=self.revision + 1, change=change, **values)
        if self.account is not None:
            self._count_change(self.account, before, memory)
        self._change(before, memory)
        return memory

    def _change(self, before: Memory, memory: Memory) -> None:
        self.revision = memory.revision
        if before.deleted_at is None:
            del self._holders[before.identity]
        self.superseded.append(before)
        self._put(memory)
        self.live_count += memory.is_live(self.now) - before.is_live(self.now)
        self._count_kept((memory.deleted_at is None) - (before.deleted_at is None))
        if memory.memory_id not in self.added:
            self.changed.add(memory.memory_id)

    def take(self, change: Usage) -> int:
        """Take the next revision for a change of something else than a memory.

        Raises QuotaExceeded, and takes none.
        """
        if self.account is not None:
            self.account.add(change.plus(Usage(sessions=self._new_sessions)))
        self.revision += 1
        return self.revision

    @property
    def _new_sessions(self) -> int:
        """How many sessions the next change adds to the account."""
        return int(self._is_new and not self.has_changed)

    def expire(self, memory: Memory) -> bool:
        """Remove a memory that is not deleted, if its time has come; answer whether it had."""
        expired = memory.is_expired(self.now)
        if expired:
            self.change(memory, Change.EXPIRED, deleted_at=self.now)
        return expired

    def evict(self, max_entries: int, *, keep: str) -> tuple[str, ...]:
        """Soft-delete the least effectively important until the limit holds; never `keep`."""
        evicted = self._take_least(self.live_count - max_entries, keep)
        for key in evicted:
            self.change(self.rows[key.memory_id], Change.DELETED, deleted_at=self.now)
        return tuple(key.memory_id for key in evicted)

    def _take_least(self, count: int, keep: str) -> list[EvictionKey]:
        """Take the keys of the least important rows from the heap; never that of `keep`."""
        taken: list[EvictionKey] = []
        kept = None
        while len(taken) < count and self._least_important:
            rank = heapq.heappop(self._least_important)
            memory_id = rank.memory_id
            if self._ranks.get(memory_id) is not rank:
                continue  # it ranks otherwise by now, or is gone
            if memory_id == keep:
                kept = rank
                continue
            taken.append(rank)
        if kept is not None:
            heapq.heappush(self._least_important, kept)
        return taken

    def _least(self, count: int, keep: str) -> Usage:
        """What the least important rows take of the account, which go first; never `keep`."""
        ranks = self._take_least(count, keep)
        for rank in ranks:
            heapq.heappush(self._least_important, rank)
        return Usage(len(ranks), 0, sum(self.sizes[rank.memory_id] for rank in ranks))

    def _count_change(self, account: Account, before: Memory, after: Memory) -> None:
        """Count it in the account. Raises QuotaExceeded, and counts nothing."""
        memory_id, size = before.memory_id, self.sizes[before.memory_id]
        is_same = after.content is before.content and after.metadata is before.metadata
        size_after = size if is_same else _size(after)
        was_kept, is_kept = before.deleted_at is None, after.deleted_at is None
        change = Usage(is_kept - was_kept, 0, size_after * is_kept - size * was_kept)
        account.add(change)
        self.sizes[memory_id] = size_after

    def _count_kept(self, change: int) -> None:
        if self.kept_count is not None:
            self.kept_count += change

    def _put(self, memory: Memory) -> None:
        self.rows[memory.memory_id] = memory
        if memory.deleted_at is None:
            self._holders[memory.identity] = memory.memory_id
        self._rank(memory)

    def _rank(self, memory: Memory) -> None:
        if self._half_life_days is None:
            return
        if not memory.is_live(self.now):
            self._ranks.pop(memory.memory_id, None)
            return
        key = EvictionKey.of(memory, self.now, self._half_life_days)
        self._ranks[memory.memory_id] = key
        heapq.heappush(self._least_important, key)


def _size(memory: Memory) -> int:
    """What it will take as it is stored."""
    return len(memory.content.encode()) + json_bytes(memory.metadata)
