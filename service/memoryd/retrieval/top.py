"""The most important memories out of more than there is room for."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from memoryd.domain.importance import effective_importance
from memoryd.retrieval.query import Encoded, by_importance

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from memoryd.domain.records import Memory
    from memoryd.retrieval.query import Encoding, Result, RetrievalQuery


class Top:
    """Keeps the memories that may be answered of those that it is given, and no others."""

    def __init__(
        self, wanted: RetrievalQuery, now: datetime, half_life_days: float, encoding: Encoding
    ) -> None:
        self._wanted = wanted
        self._now = now
        self._half_life_days = half_life_days
        self._encoding = encoding
        self._best: list[tuple[float, int, Memory]] = []
        """With their effective importance, and the older greater; best first."""
        self.revision = 0
        """The session's, when the first of them were read."""

    def take(self, revision: int, part: Iterable[Memory]) -> None:
        """Look at live memories of the session, which is this far."""
        self.revision = self.revision or revision
        least = -1.0 if self._wanted.min_importance is None else self._wanted.min_importance
        found = [
            (importance, -memory.created_revision, memory)
            for memory in part
            if self._wanted.admits(memory) and (importance := self._effective(memory)) >= least
        ]
        self._best = heapq.nlargest(
            self._wanted.limit, (*self._best, *found), key=lambda one: one[:2]
        )

    @property
    def results(self) -> Sequence[Result]:
        """The best of all, best first."""
        return [
            by_importance(0, self._encoded(memory), importance)
            for importance, _, memory in self._best
        ]

    def _effective(self, memory: Memory) -> float:
        return effective_importance(
            memory.importance,
            memory.created_at,
            memory.access_count,
            now=self._now,
            half_life_days=self._half_life_days,
        )

    def _encoded(self, memory: Memory) -> Encoded:
        lasting, accesses = self._encoding.lasting(memory), self._encoding.accesses(memory.accesses)
        return Encoded(memory, None, lasting, accesses)
