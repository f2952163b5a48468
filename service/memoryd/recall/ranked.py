"""A memory in its place, and what put it there."""

from __future__ import annotations

from typing import NamedTuple

PARTS = ("lexical", "semantic", "context", "speaker", "temporal", "form", "importance")


class Ranked(NamedTuple):
    """A memory and the shares of its score, which add up to it."""

    session: int
    """Which of the indexes given holds it."""
    memory_id: str
    relevance: float | None
    """How sure it is that the memory bears on the query, 0 to 1; None without a query."""
    lexical: float
    """From words that it shares with the query."""
    semantic: float
    """From what it means; 0 without an embedder, and until its vector is made."""
    context: float
    """From how relevant its neighbours in its episode are, most of all a question it follows."""
    speaker: float
    """From being said by the one whom the query names, of themselves rather than of others."""
    temporal: float
    """From when it happened, where the query names a time, and from times that it names itself."""
    form: float
    """From how much it tells, whether it asks, and whether it holds what kind of thing is asked."""
    importance: float
    recency: float = 0.0
    """Above 0 where it passes an older memory that it may correct."""
    diversity: float = 0.0
    """Below 0 where it repeats a result before it."""

    @property
    def score(self) -> float:
        """The higher the better; comparable within one answer only."""
        return (
            self.lexical + self.semantic + self.context + self.speaker
            + self.temporal + self.form + self.importance + self.recency + self.diversity
        )  # fmt: skip
