"""Which memories an agent should see now, best first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memoryd.ranking import effective_importance
from memoryd.recall.lexical import bm25

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from memoryd.model import Memory

LEXICAL_WEIGHT = 0.8
IMPORTANCE_WEIGHT = 0.2
"""With a query, relevance leads and importance tempers, split as in Redis agent-memory-server."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A memory and the shares of its score, which add up to it."""

    memory: Memory
    lexical: float
    importance: float

    @property
    def score(self) -> float:
        return self.lexical + self.importance


def rank(
    memories: Sequence[Memory],
    query: str,
    *,
    min_importance: float | None,
    limit: int,
    now: datetime,
    half_life_days: float,
) -> list[Scored]:
    """The best `limit` of a session's live memories; older first among equals.

    Without a query by effective importance; with one by 0.8 · lexical relevance (BM25, 0–1 relative
    to the best match) + 0.2 · effective importance.
    """
    importances = [
        effective_importance(
            m.importance, m.created_at, m.access_count, now=now, half_life_days=half_life_days
        )
        for m in memories
    ]
    if query:
        relevances = bm25([m.content for m in memories], query)
        best = max(relevances, default=0.0) or 1.0
        scored = [
            Scored(m, LEXICAL_WEIGHT * r / best, IMPORTANCE_WEIGHT * i)
            for m, r, i in zip(memories, relevances, importances, strict=True)
        ]
    else:
        scored = [Scored(m, 0.0, i) for m, i in zip(memories, importances, strict=True)]
    if min_importance is not None:
        scored = [s for s, i in zip(scored, importances, strict=True) if i >= min_importance]
    scored.sort(key=lambda s: (-s.score, s.memory.created_revision))
    return scored[:limit]
