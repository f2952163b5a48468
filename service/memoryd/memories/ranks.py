"""The order in which memories are evicted, and how far a session's rows have their places in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from memoryd.domain.importance import effective_importance, fading_rank

if TYPE_CHECKING:
    from datetime import datetime

    from memoryd.domain.records import Memory


class EvictionKey(NamedTuple):
    """The least goes first: of equal importance what has faded most, then the longest unchanged."""

    importance: float
    """Effective."""
    rank: int
    revision: int
    memory_id: str

    @classmethod
    def of(
        cls, memory: Memory, now: datetime, half_life_days: float, *, accesses: int | None = None
    ) -> EvictionKey:
        """`accesses`: how many to assume."""
        importance = effective_importance(
            memory.importance,
            memory.created_at,
            memory.access_count if accesses is None else accesses,
            now=now,
            half_life_days=half_life_days,
        )
        rank = fading_rank(memory.importance, memory.created_at, half_life_days)
        return cls(importance, rank, memory.revision, memory.memory_id)


class Ranks(NamedTuple):
    """How far a session's ranks are kept."""

    revision: int | None
    half_life_days: float | None


UNRANKED = Ranks(None, None)
