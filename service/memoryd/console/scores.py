"""Why a memory ranks where it does: its score as a bar of its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memoryd.client.answers import RetrievedMemory


class Part(NamedTuple):
    """A part of a score, by its place in the breakdown and how it is drawn."""

    name: str
    label: str
    series: int
    says: str


PARTS = (
    Part("lexical", "words", 1, "words that the query and the memory share"),
    Part("semantic", "meaning", 2, "what it means, where the server has an embedder"),
    Part("importance", "importance", 3, "its effective importance"),
    Part("context", "neighbours", 4, "how relevant its neighbours in its episode are"),
    Part("temporal", "time", 5, "when it happened, where the query asks for a time"),
    Part("form", "form", 6, "how much it says, and whether it has the kind of thing asked for"),
    Part("speaker", "speaker", 7, "it was said by the one whom the query names"),
    Part("recency", "newer", 9, "it passes an older memory that it may correct"),
    Part("diversity", "repeats", 8, "taken off where it repeats a better one"),
)


class Segment(NamedTuple):
    """A part of one score, in percent of the width of a bar."""

    part: Part
    value: float
    x: float
    width: float


@dataclass(frozen=True)
class Card:
    """A result, and its score as a bar: what adds to it right of zero, what takes off left."""

    rank: int
    result: RetrievedMemory
    parts: list[Segment]
    zero: float
    """In percent."""
    end: float
    """Where the score is."""
    other_rank: int | None
    """In the other answer; None: it is not there."""


def cards_of(results: Sequence[RetrievedMemory], other_ranks: Mapping[str, int]) -> list[Card]:
    """The results of one answer, whose bars have one scale; `other_ranks`: in another one's."""
    values = [
        [(part, getattr(result.breakdown, part.name)) for part in PARTS] for result in results
    ]
    most = max((sum(v for _, v in each if v > 0) for each in values), default=0.0)
    least = min((sum(v for _, v in each if v < 0) for each in values), default=0.0)
    scale = 100 / (most - least or 1.0)
    zero = -least * scale
    return [
        Card(
            rank,
            result,
            _segments(each, zero, scale),
            zero,
            zero + result.score * scale,
            other_ranks.get(result.memory.memory_id),
        )
        for rank, (result, each) in enumerate(zip(results, values, strict=True), 1)
    ]


def _segments(values: Sequence[tuple[Part, float]], zero: float, scale: float) -> list[Segment]:
    found: list[Segment] = []
    left = right = zero
    for part, value in values:
        width = abs(value) * scale
        if value > 0:
            found.append(Segment(part, value, right, width))
            right += width
        elif value < 0:
            left -= width
            found.append(Segment(part, value, left, width))
    return found
