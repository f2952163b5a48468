"""The memories of one or several sessions as one body of arrays, one session after the other.

Statistics (document frequencies, mean length, z-scores) are those of all together, so that scores
compare. What no query bears on is computed once.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from memoryd.recall.arrays import ROW
from memoryd.recall.episodes import NO_EPISODE, Episodes
from memoryd.recall.standard import Standard, standard
from memoryd.recall.text import analyser
from memoryd.recall.weights import BM25_B, BM25_K1, SHORT_TERMS, USUAL_SPREAD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from memoryd.recall.arrays import SessionArrays
    from memoryd.recall.episodes import Lending
    from memoryd.recall.weights import Weights

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

POSSESSIVES = ("'s", "\u2019s")

CONVERSATIONAL = ("question", "long", "opening", "assistant", "information")
"""What the form of a memory of an episode says, whatever is asked."""

_EPISODE_BITS = 32
"""Of an episode's number in its session."""

_WEIGHTS_KEPT = 2
"""With the embedder, and without for what has no vectors."""


class Weighed(NamedTuple):
    """What does not depend on the query, times weights."""

    conversational: Floats
    """The sum of `CONVERSATIONAL`. Shape (memories,)."""
    speaker: Floats
    """What a memory gains if the query names its speaker. Shape (memories,)."""
    lending: Lending


class Corpus:
    """Valid as long as none of its sessions is updated."""

    def __init__(self, indexes: Sequence[SessionArrays]) -> None:
        self.indexes = indexes
        self.language = indexes[0].language
        self.starts = [0]
        """Where each session's memories begin; at last the number of all."""
        for index in indexes:
            self.starts.append(self.starts[-1] + len(index))
        self.mean_length = sum(len(index.tokens) for index in indexes) / max(1, len(self)) or 1.0
        """In terms."""
        self._weighed: list[tuple[Weights, Weighed]] = []

    def __len__(self) -> int:
        return self.starts[-1]

    def frequency(self, term: str) -> int:
        """How many memories hold a term."""
        if len(self.indexes) == 1:
            return self.indexes[0].frequency(term)
        return sum(index.frequency(term) for index in self.indexes)

    def session_of(self, place: int) -> int:
        """Which session a memory is of."""
        return bisect_right(self.starts, place, hi=len(self.indexes)) - 1

    def split(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """What is given for all memories (the last axis), for each session: views of it."""
        return [values[..., start:end] for start, end in pairwise(self.starts)]

    def named(self, places: Sequence[int]) -> tuple[list[int], list[str]]:
        """Which sessions some memories are of, and their ids."""
        if len(self.indexes) == 1:
            ids = self.indexes[0].ids
            return [0] * len(places), [ids[place] for place in places]
        sessions = [self.session_of(place) for place in places]
        found = zip(sessions, places, strict=True)
        return sessions, [self.indexes[s].ids[place - self.starts[s]] for s, place in found]

    def field(self, name: str, places: NDArray[np.int64]) -> NDArray[Any]:
        """One field of `ROW` of some memories."""
        if len(self.indexes) == 1:
            values: NDArray[Any] = self.indexes[0].rows[name][places]
            return values
        found = [self._found(place) for place in places.tolist()]
        return np.array([index.rows[name][place] for index, place in found], ROW[name])

    def vectors(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Those of some memories, zeros where one has none. Shape (places, dimensions)."""
        if len(self.indexes) == 1:
            values: NDArray[np.float32] = self.indexes[0].vectors[places]
            return values
        found = [self._found(place) for place in places.tolist()]
        return np.array([index.vectors[place] for index, place in found])

    @property
    def has_token_vectors(self) -> bool:
        """Whether any memory has them."""
        return any(index.has_token_vectors for index in self.indexes)

    def token_vectors(self, places: NDArray[np.int64]) -> list[NDArray[np.int8] | None]:
        """`SessionArrays.token_vectors` of some memories."""
        found = map(self._found, places.tolist())
        return [index.token_vectors(index.ids[place]) for index, place in found]

    def contents(self) -> Iterator[str]:
        """The texts of all memories."""
        return chain.from_iterable(index.contents for index in self.indexes)

    def signatures(self, places: NDArray[np.int64]) -> NDArray[np.uint64]:
        """`SessionArrays.signatures` of some memories."""
        if len(self.indexes) == 1:
            return self.indexes[0].signatures[places]
        found = map(self._found, places.tolist())
        return np.array([index.signatures[place] for index, place in found])

    def pieces(self, places: NDArray[np.int64]) -> list[NDArray[np.uint32]]:
        """`SessionArrays.pieces` of some memories."""
        return [index.pieces(place) for index, place in map(self._found, places.tolist())]

    def _found(self, place: int) -> tuple[SessionArrays, int]:
        """A memory's session, and its place there."""
        session = self.session_of(place)
        return self.indexes[session], place - self.starts[session]

    @cached_property
    def saturation(self) -> Floats:
        """The frequency at which BM25 gives a term half of what it can be worth, of each memory."""
        lengths = joined([index.lengths for index in self.indexes])
        saturation: Floats = BM25_K1 * (1 - BM25_B + BM25_B / self.mean_length * lengths)
        return saturation

    @cached_property
    def speakers(self) -> list[str]:
        """Who said any of the memories, in lower case, sorted."""
        return sorted(set().union(*(index.speakers for index in self.indexes)))

    @cached_property
    def names_of_speakers(self) -> dict[str, list[str]]:
        """Whom each word may name: parts of speakers' names, and their possessives."""
        term = analyser(self.language).term
        names: dict[str, list[str]] = {}
        for speaker in self.speakers:
            parts = dict.fromkeys(speaker.split())
            for form in (part + ending for part in parts for ending in ("", *POSSESSIVES)):
                if term(form):
                    names.setdefault(form, []).append(speaker)
        return names

    @cached_property
    def _speaker_numbers(self) -> list[NDArray[np.int32]]:
        """Of each session's memories."""
        return [index.rows["speaker"].copy() for index in self.indexes]

    def is_said_by(self, speaker: str) -> Mask:
        """Which memories are of a speaker, given in lower case."""
        said = [
            numbers == index.speaker_number(speaker)
            for numbers, index in zip(self._speaker_numbers, self.indexes, strict=True)
        ]
        return joined(said)

    @cached_property
    def has_vector(self) -> Mask | None:
        """Which memories have a vector; None: all of them."""
        known: Mask = self._every("has_vector")
        return None if known.all() else known

    @cached_property
    def vectors_known(self) -> int:
        """How many memories have one."""
        return len(self) if self.has_vector is None else int(np.count_nonzero(self.has_vector))

    @cached_property
    def occurred_at(self) -> Floats:
        return self._every("occurred_at")

    @cached_property
    def times(self) -> Floats:
        return self._every("times").astype(np.float64)

    @cached_property
    def numbers(self) -> Floats:
        return self._every("numbers").astype(np.float64)

    @cached_property
    def names(self) -> Floats:
        return self._every("names").astype(np.float64)

    @cached_property
    def of_self(self) -> Floats:
        return self._every("of_self").astype(np.float64)

    @cached_property
    def questions(self) -> Floats:
        """1 for each memory that ends in a question; else 0."""
        return self._every("question").astype(np.float64)

    @cached_property
    def episodes(self) -> Episodes:
        """Of all sessions."""
        every = self._every("episode").astype(np.int64)
        for session, numbers in enumerate(self.split(every)[1:], start=1):
            numbers[numbers != NO_EPISODE] += session << _EPISODE_BITS  # no two share one
        return Episodes(every)

    @cached_property
    def conversational(self) -> Floats:
        """`CONVERSATIONAL` of memories that are of an episode, zeros for others.

        Shape (5, memories).
        """
        rows, standards = self._forms
        conversational: Floats = standards.of(rows) * self.is_told
        return conversational

    @cached_property
    def is_told(self) -> Mask:
        """Which memories are of an episode."""
        told: Mask = self._every("episode") != NO_EPISODE
        return told

    @cached_property
    def _forms(self) -> tuple[Floats, Standard]:
        """`CONVERSATIONAL` of all memories as measured, and what makes z-scores of the last."""
        rows = np.empty((len(CONVERSATIONAL), len(self)))
        rows[0], rows[2] = self.questions, self.episodes.opens
        rows[1] = np.log((1.0 + self._every("terms")) / (1 + SHORT_TERMS)).clip(0.0)
        rows[3] = joined([index.is_said_by_assistant for index in self.indexes])
        rows[4] = joined([index.information for index in self.indexes])
        means, scales = standard(rows[4:], [USUAL_SPREAD["information"]], [len(self)])
        plain = len(CONVERSATIONAL) - 1
        return rows, Standard([0.0] * plain + means, [1.0] * plain + scales)

    def weighed(self, weights: Weights) -> Weighed:
        """What weights make of all that does not depend on the query; kept for the next one."""
        for of, known in self._weighed:
            if of is weights:
                return known
        rows, standards = self._forms
        scales, constant = standards.weighed([getattr(weights, n) for n in CONVERSATIONAL])
        weighed = Weighed(
            (scales @ rows + constant.sum()) * self.is_told,
            weights.speaker + weights.of_self * self.of_self,
            self.episodes.lending(
                two_before=weights.two_before,
                before=weights.before,
                after=weights.after,
                episode=weights.episode,
                asked=weights.asked * self.questions,
            ),
        )
        self._weighed = [(weights, weighed), *self._weighed][:_WEIGHTS_KEPT]
        return weighed

    def _every(self, field: str) -> NDArray[Any]:
        values: NDArray[Any] = np.concatenate([index.rows[field] for index in self.indexes])
        return values


def joined(values: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Of each session, as those of all; one session's as they are."""
    return values[0] if len(values) == 1 else np.concatenate(values)
