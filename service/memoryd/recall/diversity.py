"""Repetitions among results give way to what they crowd out.

Maximal marginal relevance (Carbonell and Goldstein, 1998): results are chosen one by one, each by
its score less a penalty for what it repeats of those chosen before. Here only two things are
penalised, so that several memories of one topic may all be found, and so may what corrects
another:

- saying the same as a memory chosen before: the same words, numbers and signs in the same order;
- saying nearly the same as two chosen before. One alone may be what this one corrects ("does not
  like", 120,000 instead of 140,000).

However much is repeated, a memory stays before those that have less than a third of its relevance.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from memoryd.recall.corpus import Corpus

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

NEAR_DUPLICATE = 0.6
"""Above this share of common words, numbers and signs (Jaccard) a memory nearly repeats another."""

_MOST_APART = (1 - NEAR_DUPLICATE) / (1 + NEAR_DUPLICATE)
"""Of two such, how many pieces only one has, as a share of the pieces of both, each counted."""

PENALTY = 8.0
"""What a memory that says nothing new loses at most, in the unit of scores."""

RELEVANCE_KEPT = 1 / 3
"""A repetition stays before memories with less than this share of its relevance."""

MARGIN = 1e-6
"""What it stays before them by: more than rounding takes away."""


class Repetition(NamedTuple):
    """What candidates say of each other. Both are squares, symmetric, without a diagonal."""

    same: Mask
    """Whether two say the same."""
    near: Floats
    """How nearly, from 0 (at `NEAR_DUPLICATE`) to 1."""


class Chosen(NamedTuple):
    """Results, in their order."""

    places: NDArray[np.int64]
    """Among the candidates."""
    lost: list[float]
    """What repetition takes from each score, 0 or below; scores less that fall."""


def choose(
    scores: Floats,
    relevance: Callable[[], Floats],
    corpus: Corpus,
    candidates: NDArray[np.int64],
    limit: int,
) -> Chosen:
    """Choose up to `limit` of the candidates, given best first with their scores.

    `relevance` answers what the query has to do with it, of each 0 or above.
    """
    unchanged = Chosen(np.arange(min(limit, len(scores))), [0.0] * min(limit, len(scores)))
    suspects = _suspects(corpus.signatures(candidates), corpus.field("distinct", candidates))
    if not len(suspects):
        return unchanged
    suspected = candidates[suspects]
    found = _repetition(corpus.field("statement", suspected), corpus.pieces(suspected))
    if not found.near.any():
        return unchanged
    size = len(scores)
    every = Repetition(np.zeros((size, size), np.bool_), np.zeros((size, size)))
    within = np.ix_(suspects, suspects)
    every.same[within], every.near[within] = found
    places, lost = zip(*chosen(scores, relevance(), every, limit), strict=True)
    return Chosen(np.array(places), [*lost])


def chosen(
    scores: Floats, relevance: Floats, repetition: Repetition, limit: int
) -> list[tuple[int, float]]:
    """As `choose`, knowing what the candidates repeat: places, with what each lost."""
    own, relevant = scores.tolist(), relevance.tolist()
    pairs = np.nonzero(repetition.near)
    of_pairs = (*pairs, repetition.near[pairs], repetition.same[pairs])
    repeating: dict[int, list[tuple[int, float, bool]]] = {}
    for place, other, near, same in zip(*(some.tolist() for some in of_pairs), strict=True):
        repeating.setdefault(place, []).append((other, near, same))
    nearest, second = dict.fromkeys(repeating, 0.0), dict.fromkeys(repeating, 0.0)
    least = {place: _least(own, relevant, place) for place in repeating}
    left = own.copy()
    # The highest first; of those that fall meanwhile, what they had before is passed over.
    waiting = [(-score, place) for place, score in enumerate(own)]
    heapq.heapify(waiting)
    taken: set[int] = set()
    answer: list[tuple[int, float]] = []
    while len(answer) < limit and waiting:
        negative, place = heapq.heappop(waiting)
        if place in taken or -negative != left[place]:
            continue
        taken.add(place)
        answer.append((place, 0.0 - (own[place] - left[place])))
        for other, near, same in repeating.get(place, ()):
            second[other] = 1.0 if same else max(second[other], min(nearest[other], near))
            nearest[other] = max(nearest[other], near)
            falls_to = max(own[other] - PENALTY * second[other], least[other])
            if falls_to < left[other]:
                left[other] = falls_to
                heapq.heappush(waiting, (-falls_to, other))
    return answer


def _least(scores: list[float], relevance: list[float], place: int) -> float:
    """What a candidate's score may fall to: that of the next one that is far less relevant."""
    bound = RELEVANCE_KEPT * relevance[place]
    later = range(place + 1, len(scores))
    below = next((scores[other] for other in later if relevance[other] < bound), -math.inf)
    return min(scores[place], below + MARGIN)


def _suspects(signatures: NDArray[np.uint64], sizes: NDArray[np.int32]) -> NDArray[np.int64]:
    """Which candidates may repeat another; of others, signatures tell that they do not.

    Each bit that only one of two has set stands for at least one piece that only this one has.
    """
    words = np.ascontiguousarray(signatures.T)  # a table for each word is added up much faster
    different = np.bitwise_count(words[:, :, np.newaxis] ^ words[:, np.newaxis])
    apart = np.add.reduce(different, axis=0, dtype=np.int32)
    shares = _MOST_APART * sizes
    alike = apart <= shares[:, np.newaxis] + shares
    if np.count_nonzero(alike) == len(sizes):
        return np.zeros(0, np.int64)  # each is alike itself alone
    return np.flatnonzero(alike.sum(axis=1) > 1)


def _repetition(statements: NDArray[np.int64], pieces: Sequence[NDArray[np.uint32]]) -> Repetition:
    """What texts say of each other, given the hash of each and of its different pieces."""
    sizes = np.array([*map(len, pieces)])
    every = np.concatenate(pieces)
    order = every.argsort()
    ordered = every[order]
    number = np.empty(len(every), np.int64)
    number[order] = np.cumsum(np.append([False], ordered[1:] != ordered[:-1]))
    present = np.zeros((len(pieces), number.max(initial=0) + 1), np.float32)
    present[np.repeat(np.arange(len(pieces)), sizes), number] = 1.0
    common = present @ present.T
    union = sizes[:, np.newaxis] + sizes - common
    jaccard = np.divide(common, union, out=np.zeros_like(union), where=union > 0)
    near: Floats = (jaccard - NEAR_DUPLICATE) / (1 - NEAR_DUPLICATE)
    same: Mask = (statements[:, np.newaxis] == statements) & (sizes > 0)
    np.fill_diagonal(same, val=False)
    np.fill_diagonal(near, 0.0)
    return Repetition(same, near.clip(0.0, 1.0))
