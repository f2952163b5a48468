"""The memories of one or several sessions as one body of arrays, one session after the other.

Statistics (document frequencies, mean length, z-scores) are those of all together, so that scores
compare. What no query bears on is computed once.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import cached_property
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from memoryd.recall.episodes import NO_EPISODE
from memoryd.recall.weights import ENOUGH_MEMORIES, USUAL_SPREAD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from memoryd.recall.arrays import SessionArrays

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

BEST_OF_EPISODE = 3

_NO_SPREAD = 1e-9

_MOST_PADDING = 4
"""Times as many places as memories, in a table of episodes as long as the longest."""


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

    def split(self, values: Floats) -> list[Floats]:
        """What is given for all memories (the last axis), for each session: views of it."""
        return [values[..., start:end] for start, end in pairwise(self.starts)]

    def content(self, place: int) -> str:
        """The text of a memory."""
        session = self.session_of(place)
        return self.indexes[session].contents[place - self.starts[session]]

    def contents(self) -> Iterator[str]:
        """The texts of all memories."""
        return chain.from_iterable(index.contents for index in self.indexes)

    @cached_property
    def signatures(self) -> NDArray[np.uint64]:
        """Of what different terms each memory's content has."""
        return self._every("signature")

    @cached_property
    def distinct_terms(self) -> NDArray[np.int64]:
        """How many those are."""
        return self._every("distinct").astype(np.int64)

    @cached_property
    def speakers(self) -> list[str]:
        """Who said any of the memories, in lower case, sorted."""
        return sorted(set().union(*(index.speakers for index in self.indexes)))

    @cached_property
    def has_vector(self) -> Mask | None:
        """Which memories have a vector; None: all of them."""
        known: Mask = self._every("has_vector")
        return None if known.all() else known

    @cached_property
    def has_any_vector(self) -> bool:
        return self.has_vector is None or bool(self.has_vector.any())

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
    def in_episode(self) -> Mask | None:
        """Which memories are of an episode; None: none is."""
        said: Mask = self._every("episode") != NO_EPISODE
        return said if said.any() else None

    @cached_property
    def conversational(self) -> Floats:
        """What form says of memories that are of an episode, zeros for others.

        Question, length, information, opening: shape (4, memories).
        """
        usual = np.array([USUAL_SPREAD["length"], USUAL_SPREAD["information"]])
        extent = standardised(np.hstack([index.extent for index in self.indexes]), usual)
        opens = np.concatenate([index.episodes.opens for index in self.indexes])
        rows: Floats = np.vstack([self._every("question"), extent, opens])
        return rows if self.in_episode is None else rows * self.in_episode

    @cached_property
    def neighbours(self) -> NDArray[np.int64]:
        """`Episodes.neighbours` of all. Shape (3, memories)."""
        moved = []
        for index, start in zip(self.indexes, self.starts, strict=False):
            own = index.episodes.neighbours.astype(np.int64)
            moved.append(np.where(own == len(index), len(self), own + start))
        return np.hstack(moved)

    @cached_property
    def follows_question(self) -> Floats:
        """1 for each memory whose previous one in its episode is a question; else 0."""
        follows: Floats = np.append(self._every("question"), 0.0)[self.neighbours[1]]
        return follows

    @cached_property
    def _episodes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The episode of each memory that is of one, numbered from 0; and where those memories are.

        In the order of episodes.
        """
        numbers = []
        highest = 0
        for index in self.indexes:
            own = index.episodes.groups + highest
            own[index.rows["episode"] == NO_EPISODE] = NO_EPISODE
            numbers.append(own)
            highest += index.episodes.count
        every = np.concatenate(numbers)
        order = np.argsort(every, kind="stable")
        order = order[every[order] != NO_EPISODE]
        return np.unique(every[order], return_inverse=True)[1], order

    @cached_property
    def _table(self) -> NDArray[np.int64] | None:
        """Where the memories of each episode stand, a row an episode, filled up with their number.

        None where the episodes' lengths differ so much that it would be large.
        """
        episodes, order = self._episodes
        sizes = np.bincount(episodes)
        longest = max(int(sizes.max()), BEST_OF_EPISODE)
        if len(sizes) * longest > _MOST_PADDING * len(self):
            return None
        table = np.full((len(sizes), longest), len(self))
        table[episodes, np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)] = order
        return table

    def best_of_episode(self, relevance: Floats) -> Floats:
        """For each memory, the mean relevance of the best three of its episode; 0 without one."""
        means = np.zeros(len(relevance))
        if self.in_episode is None:
            return means
        episodes, order = self._episodes
        sizes = np.minimum(np.bincount(episodes), BEST_OF_EPISODE)
        if self._table is not None:
            falling = np.append(-relevance, np.inf)[self._table]
            falling.partition(BEST_OF_EPISODE - 1, axis=1)
            best = falling[:, :BEST_OF_EPISODE]
            best.sort(axis=1)
            best[np.isinf(best)] = 0.0
            total = -best.sum(axis=1)
        else:
            falling = np.lexsort((-relevance[order], episodes))
            own = np.bincount(episodes)
            rank = np.arange(len(order)) - np.repeat(np.cumsum(own) - own, own)
            chosen = falling[rank < BEST_OF_EPISODE]
            total = np.bincount(episodes[chosen], relevance[order][chosen])
        means[order] = (total / sizes)[episodes]
        return means

    def _every(self, field: str) -> NDArray[Any]:
        values: NDArray[Any] = np.concatenate([index.rows[field] for index in self.indexes])
        return values


def standardised(values: Floats, usual: Floats) -> Floats:
    """Z-scores of each row; zeros where all values are equal. Shape as given.

    Of less than `ENOUGH_MEMORIES` values the missing ones are taken to spread as is `usual` for the
    row, about the same mean.
    """
    if values.ndim > 1:
        rows = [standardised(row, one) for row, one in zip(values, usual, strict=True)]
        return np.array(rows)
    width = len(values)
    centred: Floats = values - float(np.add.reduce(values)) / width
    count = max(width, ENOUGH_MEMORIES)
    missing = (count - width) * float(usual) ** 2
    spread = math.sqrt((float(np.add.reduce(centred * centred)) + missing) / count)
    # Where there is no spread, what is left of rounding says nothing either.
    centred *= 1.0 / spread if spread > _NO_SPREAD else 0.0
    return centred
