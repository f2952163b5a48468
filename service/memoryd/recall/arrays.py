"""One session's memories as arrays, for ranking; they are kept up to date by `index`."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from memoryd.recall.episodes import Episodes
from memoryd.recall.weights import ENOUGH_MEMORIES

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROW = np.dtype(
    [
        ("created", np.int64),
        ("occurred_at", np.float64),
        ("speaker", np.int32),
        ("episode", np.int32),
        ("terms", np.int32),
        ("question", np.float32),
        ("times", np.float32),
        ("numbers", np.float32),
        ("names", np.float32),
        ("of_self", np.float32),
        ("has_vector", np.bool_),
        # How many different terms the content has, and a bit for each by its hash.
        ("distinct", np.int32),
        ("signature", np.uint64),
    ]
)

# Of a Python string, its place in a list and its entry in a dict, in bytes, beyond its characters;
# and of a term's IDF.
_BYTES_A_KEY = 49 + 8 + 100 + 8

_DERIVED_BYTES = 29 * 8
"""Of a memory: its places in the arrays that are made when asked for, a corpus' among them, and
in the list of contents."""


class SessionArrays:
    """In creation order, whatever order the memories came in."""

    def __init__(self, *, dimensions: int, language: str) -> None:
        """`dimensions`: of the memories' vectors; 0 without an embedder."""
        self.language = language
        self.ids: list[str] = []
        """In creation order, as are all arrays."""
        self.contents: list[str] = []
        """As they were given: the caller's own objects, so that only their places cost memory."""
        self._places: dict[str, int] = {}
        self._speakers: dict[str, int] = {}
        self._episodes: dict[str, int] = {}
        self._vocabulary: dict[str, int] = {}
        self._characters = 0
        """Of all the names held."""
        self._frequencies = np.zeros(0, np.int32)
        self.rows = np.zeros(0, ROW)
        self.tokens = np.zeros(0, np.int64)
        """The terms of all memories, one memory after the other."""
        self.holders = np.zeros(0, np.int64)
        """Which memory each token belongs to."""
        self.lengths = np.zeros(0, np.int64)
        """How many terms each memory has."""
        self.ends = np.zeros(0, np.int64)
        """Where in `tokens` those of each memory end."""
        self._room = np.zeros((0, dimensions), np.float32)
        self.vectors = self._room
        """Shape (memories, dimensions); zeros where there is none. The first rows of the room."""

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, memory_id: object) -> bool:
        return memory_id in self._places

    @property
    def nbytes(self) -> int:
        """What the index holds, in bytes; Python's own share is estimated, from above."""
        arrays = (
            *(self.rows, self.tokens, self.holders, self._room, self.lengths, self.ends),
            self._frequencies,
        )
        names = (self.ids, self._vocabulary, self._speakers, self._episodes)
        keys = sum(map(len, names)) * _BYTES_A_KEY + self._characters
        return sum(array.nbytes for array in arrays) + len(self) * _DERIVED_BYTES + keys

    def place(self, memory_id: str) -> int:
        """Where in the arrays a memory stands. Raises `KeyError`."""
        return self._places[memory_id]

    def own_numbers(self, place: int) -> NDArray[np.int64]:
        """The numbers of the terms of a memory's content, in order."""
        end = int(self.ends[place])
        return self.tokens[end - int(self.rows["terms"][place]) : end]

    @property
    def rarest_idf(self) -> float:
        """The IDF of a term that no memory holds."""
        return float(inverse_document_frequency(np.zeros(1, np.int32), len(self))[0])

    @property
    def terms_known(self) -> int:
        """Numbers of terms are below this."""
        return len(self._frequencies)

    def number(self, term: str) -> int | None:
        """The number of a term, unless none is known."""
        return self._vocabulary.get(term)

    def frequency(self, term: str) -> int:
        """How many memories hold a term."""
        number = self._vocabulary.get(term)
        return 0 if number is None else int(self._frequencies[number])

    @property
    def speakers(self) -> set[str]:
        """Who said any of the memories, in lower case."""
        present = set(np.flatnonzero(np.bincount(self.rows["speaker"])).tolist())
        return {name.lower() for name, number in self._speakers.items() if number in present}

    def is_said_by(self, speaker: str) -> NDArray[np.float64]:
        """1 for each memory of a speaker, given in lower case; else 0. Shape (memories,)."""
        numbers = [number for name, number in self._speakers.items() if name.lower() == speaker]
        return np.isin(self.rows["speaker"], numbers).astype(np.float64)

    def _held(self, place: int) -> NDArray[np.int64]:
        end = int(self.ends[place])
        return self.tokens[end - int(self.lengths[place]) : end]

    @cached_property
    def idf(self) -> NDArray[np.float64]:
        """Of each term in this session."""
        return inverse_document_frequency(self._frequencies, len(self))

    @cached_property
    def extent(self) -> NDArray[np.float64]:
        """How long each memory is and how much it tells (the sum of its terms' IDF), as logarithms.

        Shape (2, memories).
        """
        information = np.bincount(self.holders, self.idf[self.tokens], minlength=len(self))
        extent: NDArray[np.float64] = np.log1p(np.stack([self.rows["terms"], information]))
        return extent

    @cached_property
    def episodes(self) -> Episodes:
        return Episodes(self.rows["episode"])


def inverse_document_frequency(
    frequencies: NDArray[np.int32], documents: int
) -> NDArray[np.float64]:
    """ln(1 + (N − n + ½) / (n + ½)), as BM25 weighs a term that n of N documents hold."""
    held: NDArray[np.float64] = frequencies.astype(np.float64)
    return np.log1p((documents - held + 0.5) / (held + 0.5))


def shares_of(frequencies: NDArray[np.int32], documents: int) -> NDArray[np.float64]:
    """The share that each term has in a query, by its IDF; they add up to 1.

    A small session counts as one of `ENOUGH_MEMORIES`: its memories alone would have each term that
    they hold seem common, and each that they lack rare.
    """
    idf = inverse_document_frequency(frequencies, max(documents, ENOUGH_MEMORIES))
    shares: NDArray[np.float64] = idf / idf.sum()
    return shares
