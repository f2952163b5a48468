"""What is like a memory, as what a drawing is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memoryd.client.answers import SimilarMemory

NEAR_BITS = 10
"""Up to which distance two memories are near duplicates: what FindSimilarMemories takes unasked."""

_LEAST_BITS = 32
"""Of the axis: hashes of texts that have nothing in common are about so far apart."""
_TOP, _RIGHT, _BOTTOM, _LEFT = 14, 14, 28, 34


class Tick(NamedTuple):
    """A place on an axis."""

    at: float
    text: str


class Dot(NamedTuple):
    """A neighbour, by its number in the table."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Map:
    """Neighbours by distance, from left to right, and by similarity, from the bottom up."""

    found: Sequence[SimilarMemory]
    width: int = 0
    height: int = 0

    top = _TOP
    left = _LEFT
    near = NEAR_BITS

    def sized(self, width: int, height: int) -> Map:
        """The same, for a drawing of that size."""
        return Map(self.found, width, height)

    @property
    def right(self) -> int:
        return self.width - _RIGHT

    @property
    def bottom(self) -> int:
        return self.height - _BOTTOM

    @property
    def most_bits(self) -> int:
        return max(_LEAST_BITS, *(one.distance or 0 for one in self.found), 0)

    def x(self, bits: int) -> float:
        return round(self.left + bits / self.most_bits * (self.right - self.left), 1)

    def y(self, similarity: float) -> float:
        return round(self.bottom - similarity * (self.bottom - self.top), 1)

    @property
    def levels(self) -> list[Tick]:
        return [Tick(self.y(value), f"{value:.1f}") for value in (0.0, 0.5, 1.0)]

    @property
    def bits(self) -> list[Tick]:
        return [Tick(self.x(bits), f"{bits}") for bits in range(0, self.most_bits + 1, 8)]

    @property
    def dots(self) -> list[Dot]:
        return [
            Dot(self.x(one.distance or 0), self.y(one.similarity or 0.0), str(number))
            for number, one in enumerate(self.found, 1)
        ]
