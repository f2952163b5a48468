"""One session's memories as arrays, for ranking; they are kept up to date by `index`."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from memoryd.recall.growing import Growing, Ragged
from memoryd.recall.postings import OCCURRENCE_BYTES, TERM_BYTES, UNKNOWN, Postings
from memoryd.recall.weights import ENOUGH_MEMORIES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

ASSISTANTS = ("ai", "assistant", "bot", "chatbot", "model")
"""Speakers, in lower case, that are no person: their answers are long, and about many things."""

Number = TypeVar("Number", float, "NDArray[Any]")

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
        # Of all words and signs of the content in order, one hash; 0 where there are none.
        ("statement", np.int64),
        # How many different ones these are.
        ("distinct", np.int32),
    ]
)

# Of a Python string, its place in a list and its entry in a dict, in bytes, beyond its characters;
# and of a term's IDF.
_BYTES_A_KEY = 49 + 8 + 100 + 8

_BYTES_AN_ARRAY = 128 + 100
"""Of an array of its own, beyond its values, and of its entry in a dict."""

_DERIVED_BYTES = 34 * 8
"""Of a memory: its places in the arrays that are made when asked for, a corpus' among them, and
in the list of contents."""

_TERM_BYTES = 2 * TERM_BYTES
"""Of a term: it may be among those of the memories that came last as well."""

SIGNATURE_WORDS = 4
"""Of 64 bits, of what words and signs a content has; several may share a bit."""

_MOST_APART = 2048
"""So many terms of memories that came last, or an eighth of all, have postings of their own."""
_APART = 8


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
        """In lower case."""
        self._said = Growing(np.int32)
        """How many memories are of each speaker."""
        self._episodes: dict[str, int] = {}
        self._vocabulary: dict[str, int] = {}
        self._characters = 0
        """Of all the names held."""
        self._frequencies = Growing(np.int32)
        self._rows = Growing(ROW)
        self._terms = Ragged(np.int32)
        self._pieces = Ragged(np.uint32)
        self._signatures = Growing(np.uint64, SIGNATURE_WORDS)
        self._vectors = Growing(np.float32, dimensions)
        self._token_vectors: dict[str, NDArray[np.int8]] = {}
        """By memory id, not in one array: most come later than their memories, one by one."""
        self._token_bytes = 0
        self._postings: Postings | None = None
        """Of the first memories, many or all of them."""

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, memory_id: object) -> bool:
        return memory_id in self._places

    @property
    def nbytes(self) -> int:
        """What the index holds, in bytes; Python's own share is estimated, from above."""
        arrays = (
            self._frequencies,
            self._said,
            self._rows,
            self._terms,
            self._pieces,
            self._signatures,
            self._vectors,
        )
        derived = len(self) * _DERIVED_BYTES
        derived += len(self.tokens) * OCCURRENCE_BYTES + self.terms_known * _TERM_BYTES
        names = (self.ids, self._vocabulary, self._speakers, self._episodes)
        keys = sum(map(len, names)) * _BYTES_A_KEY + self._characters
        tokens = self._token_bytes + len(self._token_vectors) * _BYTES_AN_ARRAY
        return sum(array.nbytes for array in arrays) + derived + keys + tokens

    @property
    def rows(self) -> NDArray[np.void]:
        """What is known of each memory, as `ROW` has it."""
        return self._rows.values

    @property
    def tokens(self) -> NDArray[np.int32]:
        """The numbers of the terms of all memories, one memory after the other."""
        return self._terms.values

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many terms each memory has."""
        return self._terms.lengths

    @property
    def ends(self) -> NDArray[np.int64]:
        """Where in `tokens` those of each memory end."""
        return self._terms.ends

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Shape (memories, dimensions); zeros where there is none."""
        return self._vectors.values

    @property
    def has_token_vectors(self) -> bool:
        """Whether any memory has them."""
        return bool(self._token_vectors)

    def token_vectors(self, memory_id: str) -> NDArray[np.int8] | None:
        """Those of a memory, if it has any. Shape (tokens, token dimensions)."""
        return self._token_vectors.get(memory_id)

    def place(self, memory_id: str) -> int:
        """Where in the arrays a memory stands. Raises `KeyError`."""
        return self._places[memory_id]

    def own_numbers(self, place: int) -> NDArray[np.int32]:
        """The numbers of the terms of a memory's content, in order."""
        held = self._terms.run(place)
        return held[len(held) - int(self.rows["terms"][place]) :]

    @property
    def signatures(self) -> NDArray[np.uint64]:
        """A bit for each word and sign of a memory's content. Shape (memories, words)."""
        return self._signatures.values

    def pieces(self, place: int) -> NDArray[np.uint32]:
        """The hashes of the different words and signs of a memory's content."""
        return self._pieces.run(place)

    @property
    def rarest_idf(self) -> float:
        """The IDF of a term that no memory holds."""
        return idf_of(0, len(self))

    @property
    def terms_known(self) -> int:
        """Numbers of terms are below this."""
        return len(self._frequencies)

    def number(self, term: str) -> int | None:
        """The number of a term, unless none is known."""
        return self._vocabulary.get(term)

    def numbers(self, terms: Iterable[str]) -> list[int]:
        """The numbers of terms, `UNKNOWN` of those that have none."""
        return [self._vocabulary.get(term, UNKNOWN) for term in terms]

    def frequency(self, term: str) -> int:
        """How many memories hold a term."""
        number = self._vocabulary.get(term)
        return 0 if number is None else int(self._frequencies.values[number])

    @property
    def speakers(self) -> set[str]:
        """Who said any of the memories, in lower case."""
        said = zip(self._speakers, self._said.values.tolist(), strict=True)
        return {speaker for speaker, count in said if count}

    def speaker_number(self, speaker: str) -> int | None:
        """The number of a speaker, given in lower case, unless none is known."""
        return self._speakers.get(speaker)

    @property
    def postings(self) -> list[Postings]:
        """Of all memories: of most of them, and where some came since, of these."""
        known = self._postings
        total = len(self.tokens)
        if known is None or total - known.occurrences > max(_MOST_APART, total // _APART):
            known = self._postings = self._posted(0, 0)
        if known.memories == len(self):
            return [known]
        return [known, self._posted_since]

    @cached_property
    def _posted_since(self) -> Postings:
        assert self._postings is not None  # noqa: S101  for the type checker: they are made first
        return self._posted(self._postings.memories, self._postings.occurrences)

    def _posted(self, first: int, start: int) -> Postings:
        """Of the memories from one on, whose terms start there."""
        lengths, contents = self.lengths[first:], self.rows["terms"][first:]
        return Postings(self.tokens[start:], lengths, contents, first=first)

    @cached_property
    def idf(self) -> NDArray[np.float64]:
        """Of each term in this session."""
        return inverse_document_frequency(self._frequencies.values, len(self))

    @cached_property
    def information(self) -> NDArray[np.float64]:
        """How much each memory tells: ln(1 + the sum of its terms' IDF). Shape (memories,)."""
        told = np.zeros(len(self))
        holding = self.lengths > 0
        if holding.any():
            starts = (self.ends - self.lengths)[holding]
            # As the integers that NumPy indexes by: several times as fast as to let it convert.
            told[holding] = np.add.reduceat(self.idf[self.tokens.astype(np.intp)], starts)
        return np.log1p(told, out=told)

    @property
    def is_said_by_assistant(self) -> NDArray[np.bool_]:
        """Shape (memories,)."""
        known = map(self._speakers.get, ASSISTANTS)
        numbers = [number for number in known if number is not None]
        return np.isin(self.rows["speaker"], numbers)


def inverse_document_frequency(
    frequencies: NDArray[np.int32], documents: int
) -> NDArray[np.float64]:
    """ln(1 + (N − n + ½) / (n + ½)), as BM25 weighs a term that n of N documents hold."""
    odds: NDArray[np.float64] = _odds(frequencies.astype(np.float64), documents)
    return np.log1p(odds)


def idf_of(frequency: int, documents: int) -> float:
    """As `inverse_document_frequency`, of one term."""
    return math.log1p(_odds(frequency, documents))


def _odds(held: Number, documents: int) -> Number:
    """How many documents lack a term for one that holds it."""
    return (documents - held + 0.5) / (held + 0.5)


def shares_of(frequencies: Iterable[int], documents: int) -> list[float]:
    """The share that each term has in a query, by its IDF; they add up to 1.

    A small session counts as one of `ENOUGH_MEMORIES`: its memories alone would have each term that
    they hold seem common, and each that they lack rare.
    """
    enough = max(documents, ENOUGH_MEMORIES)
    rarities = [idf_of(frequency, enough) for frequency in frequencies]
    total = sum(rarities)
    return [rarity / total for rarity in rarities]
