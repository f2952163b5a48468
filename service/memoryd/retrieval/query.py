"""What retrieval is asked for and answers: without what it takes to find it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from memoryd.domain.matching import matches
from memoryd.recall.ranked import PARTS, Ranked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from memoryd.domain.records import Accesses, Memory, MemoryFilter, Session

_NOTHING = {part: 0.0 for part in PARTS if part != "importance"}

ENCODED_BYTES = 350
"""Of an encoded memory: its objects, without the bytes themselves."""


class Encoding(NamedTuple):
    """How memories are encoded for callers: in two parts, which make one put together."""

    lasting: Callable[[Memory], bytes]
    """What stays the same until the memory's next revision."""
    accesses: Callable[[Accesses], bytes]
    """How often and when it was accessed."""


class Encoded(NamedTuple):
    """A memory as callers are sent it, but for what the time bears on."""

    memory: Memory
    accessed: Accesses | None
    """Its accesses; None: those of the record."""
    lasting: bytes
    accesses: bytes

    @property
    def nbytes(self) -> int:
        return len(self.lasting) + len(self.accesses) + ENCODED_BYTES


@dataclass(frozen=True, slots=True)
class RetrievalQuery:
    """What a call asks for."""

    filter: MemoryFilter
    min_importance: float | None
    """Of effective importance; the filter's own says nothing here."""
    limit: int
    importance_weight: float
    """How much effective importance tempers relevance, 0–1."""
    diverse: bool
    """Whether near duplicates give way to others."""
    min_relevance: float | None = None
    """0–1; None: any. Only with a query."""
    excluded: frozenset[str] = frozenset()
    """Ids of memories that are not answered."""

    def admits(self, memory: Memory) -> bool:
        """Whether it may be answered, however important and relevant it is."""
        return memory.memory_id not in self.excluded and matches(memory, self.filter)


class Result(NamedTuple):
    encoded: Encoded
    """The memory, but for its effective importance."""
    effective_importance: float
    ranked: Ranked
    """How it came to its place."""


@dataclass(frozen=True, slots=True)
class Retrieved:
    results: Sequence[Result]
    """Best first."""
    revisions: Mapping[Session, int]
    """Of each session, as the results reflect it; 0 for one without memories."""


@dataclass(frozen=True, slots=True)
class Similar:
    """A memory, and how near it is to what was asked about."""

    memory: Memory
    distance: int
    """Hamming distance of the semantic hashes, 0–64 bits."""
    similarity: float
    """0–1."""


def by_importance(session: int, encoded: Encoded, importance: float) -> Result:
    """A result that has its place by its effective importance alone."""
    ranked = Ranked(
        session,
        encoded.memory.memory_id,
        relevance=None,
        **_NOTHING,
        importance=importance,
    )
    return Result(encoded, importance, ranked)
