"""A session's memories in the order of their effective importance, at any time, without sorting.

Among memories that were accessed equally often the order never changes (`fading_rank`): each of
these levels is kept sorted. What is most important at a time is found by merging the levels, and
looks only at as many memories as are asked for.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from typing import TYPE_CHECKING, NamedTuple

from memoryd.domain.importance import (
    ACCESS_BOOST,
    MAX_LEVEL,
    SECONDS_A_DAY,
    effective_importance,
    fading_rank,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from memoryd.domain.records import Memory

ORDER_BYTES = 300
"""Of a memory: its key, and its places in the order."""

SORTED_FROM = 200
"""From so many changes on, levels are sorted instead of searched for each."""

_MOST_DOUBLINGS = 1_000.0
"""Of the importance of a memory from the future, so that no power is larger than a double."""


class _Key(NamedTuple):
    rank: int
    """What fades later is greater."""
    age: int
    """Among equals, the older is greater."""
    memory_id: str


class _Next(NamedTuple):
    """What a level, or a memory alone, has next; the least is the most important."""

    unimportance: float
    """At least; of a memory alone, exactly."""
    rank: int
    age: int
    level: int
    place: int
    """In its level; negative: a memory alone."""
    memory_id: str


class ImportanceOrder:
    def __init__(self, half_life_days: float) -> None:
        self.half_life_days = half_life_days
        self._levels: list[list[_Key]] = [[] for _ in range(MAX_LEVEL + 1)]
        """Each from the least to the most important."""
        self._keys: dict[str, tuple[int, _Key]] = {}
        """Level and key of each memory, by its id."""
        self._memories: dict[str, Memory] = {}

    def update(self, changed: Mapping[str, tuple[Memory, int] | None]) -> None:
        """Take over memories, by their ids, with how often each was accessed; None: it is gone."""
        known = changed.keys() & self._keys.keys()
        if len(changed) < SORTED_FROM:
            for memory_id in known:
                level, key = self._keys[memory_id]
                keys = self._levels[level]
                del keys[bisect_left(keys, key)]
        elif known:
            self._levels = [[k for k in keys if k.memory_id not in known] for keys in self._levels]
        for memory_id, there in changed.items():
            if there is None:
                if memory_id in known:
                    del self._keys[memory_id], self._memories[memory_id]
                continue
            memory, times = there
            rank = fading_rank(memory.importance, memory.created_at, self.half_life_days)
            key, level = _Key(rank, -memory.created_revision, memory_id), min(times, MAX_LEVEL)
            self._keys[memory_id], self._memories[memory_id] = (level, key), memory
            if len(changed) < SORTED_FROM:
                insort(self._levels[level], key)
            else:
                self._levels[level].append(key)
        if len(changed) >= SORTED_FROM:
            for keys in self._levels:
                keys.sort()

    def descending(self, now: datetime) -> Iterator[tuple[float, Memory]]:
        """Memories with their effective importance, the most important first.

        Among equals what fades last, then what is older. Nothing may change meanwhile.
        """
        ahead = [
            self._next(level, len(keys) - 1, now) for level, keys in enumerate(self._levels) if keys
        ]
        heapq.heapify(ahead)
        while ahead:
            found = ahead[0]
            memory, importance = self._memories[found.memory_id], -found.unimportance
            is_exact = found.place < 0 or memory.created_at <= now
            if found.place > 0:
                heapq.heapreplace(ahead, self._next(found.level, found.place - 1, now))
            else:
                heapq.heappop(ahead)
            if is_exact:
                yield importance, memory
            else:
                importance = self._effective(memory, found.level, now)
                alone = found._replace(unimportance=-importance, place=-1)
                heapq.heappush(ahead, alone)

    def _next(self, level: int, place: int, now: datetime) -> _Next:
        rank, age, memory_id = self._levels[level][place]
        memory = self._memories[memory_id]
        if memory.created_at <= now:
            importance = self._effective(memory, level, now)
        else:  # a clock was moved; it would be out of order with what it is given
            days = (memory.created_at - now).total_seconds() / SECONDS_A_DAY
            doublings = min(days / self.half_life_days, _MOST_DOUBLINGS)
            grown = memory.importance * math.exp2(doublings)
            importance = min(1.0, grown + ACCESS_BOOST * level)
        return _Next(-importance, -rank, -age, level, place, memory_id)

    def _effective(self, memory: Memory, times: int, now: datetime) -> float:
        return effective_importance(
            memory.importance,
            memory.created_at,
            times,
            now=now,
            half_life_days=self.half_life_days,
        )
