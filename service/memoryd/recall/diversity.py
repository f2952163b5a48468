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

PENALTY = 5.0
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


def choose(
    scores: Floats,
    relevance: Callable[[], Floats],
    corpus: Corpus,
    candidates: Sequence[int],
    limit: int,
) -> list[tuple[int, float]]:
    """Choose up to `limit` of the candidates, given best first with their scores.

    `relevance` answers what the query has to do with it, of each 0 or above. Answers their places
    among the candidates and what each lost, 0 or below; scores less that fall.
    """
    unchanged = [(place, 0.0) for place in range(min(limit, len(scores)))]
    rows = corpus.rows(candidates)
    suspects = _suspects(rows)
    if not len(suspects):
        return unchanged
    places = [candidates[place] for place in suspects.tolist()]
    found = _repetition(rows["statement"][suspects], corpus.pieces(places))
    if not found.near.any():
        return unchanged
    size = len(scores)
    every = Repetition(np.zeros((size, size), np.bool_), np.zeros((size, size)))
    within = np.ix_(suspects, suspects)
    every.same[within], every.near[within] = found
    return chosen(scores, relevance(), every, limit)


def chosen(
    scores: Floats, relevance: Floats, repetition: Repetition, limit: int
) -> list[tuple[int, float]]:
    """`choose`, knowing what the candidates repeat."""
    least = _least(scores, relevance)
    best, second = np.zeros(len(scores)), np.zeros(len(scores))
    free = np.ones(len(scores), np.bool_)
    answer: list[tuple[int, float]] = []
    while len(answer) < min(limit, len(scores)):
        left = np.maximum(scores - PENALTY * second, least)
        place = int(np.argmax(np.where(free, left, -np.inf)))
        answer.append((place, 0.0 - float(scores[place] - left[place])))
        free[place] = False
        near = repetition.near[place]
        second = np.maximum(second, np.minimum(best, near))
        second[repetition.same[place]] = 1.0
        best = np.maximum(best, near)
    return answer


def _least(scores: Floats, relevance: Floats) -> Floats:
    """What each candidate's score may fall to: that of the next one that is far less relevant."""
    later = np.tri(len(scores), k=-1, dtype=np.bool_).T
    below = later & (relevance < RELEVANCE_KEPT * relevance[:, np.newaxis])
    least: Floats = np.where(below, scores, -np.inf).max(axis=1, initial=-np.inf)
    return np.minimum(least + MARGIN, scores)


def _suspects(rows: NDArray[np.void]) -> NDArray[np.int64]:
    """Which candidates may repeat another; of others, signatures tell that they do not.

    Each bit that only one of two has set stands for at least one piece that only this one has.
    """
    signatures, sizes = rows["signature"], rows["distinct"]
    apart = np.bitwise_count(signatures[:, np.newaxis] ^ signatures)
    alike = apart <= _MOST_APART * (sizes[:, np.newaxis] + sizes)
    if np.count_nonzero(alike) == len(rows):
        return np.zeros(0, np.int64)  # each is alike itself alone
    return np.flatnonzero(alike.sum(axis=1) > 1)


def _repetition(statements: NDArray[np.int64], pieces: Sequence[NDArray[np.int64]]) -> Repetition:
    """What texts say of each other, given the hash of each and of its different pieces."""
    sizes = np.array([*map(len, pieces)])
    kinds, number = np.unique(np.concatenate(pieces), return_inverse=True)
    present = np.zeros((len(pieces), len(kinds)), np.float32)
    present[np.repeat(np.arange(len(pieces)), sizes), number] = 1.0
    common = present @ present.T
    union = sizes[:, np.newaxis] + sizes - common
    jaccard = np.divide(common, union, out=np.zeros_like(union), where=union > 0)
    near: Floats = (jaccard - NEAR_DUPLICATE) / (1 - NEAR_DUPLICATE)
    same: Mask = (statements[:, np.newaxis] == statements) & (sizes > 0)
    np.fill_diagonal(same, val=False)
    np.fill_diagonal(near, 0.0)
    return Repetition(same, near.clip(0.0, 1.0))
