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

from memoryd.recall.wording import plain, statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from memoryd.recall.corpus import Corpus

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

NEAR_DUPLICATE = 0.6
"""Above this share of common words, numbers and signs (Jaccard) a memory nearly repeats another."""

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
    scores: Floats, relevance: Floats, corpus: Corpus, candidates: Sequence[int], limit: int
) -> list[tuple[int, float]]:
    """Choose up to `limit` of the candidates, given best first with their scores.

    `relevance` is what the query has to do with it, of each 0 or above. Answers their places among
    the candidates and what each lost, 0 or below; scores less that fall.
    """
    suspects = _suspects(corpus, candidates)
    found = _repetition([corpus.content(candidates[place]) for place in suspects.tolist()])
    if not found.near.any():
        return [(place, 0.0) for place in range(min(limit, len(scores)))]
    size = len(scores)
    every = Repetition(np.zeros((size, size), np.bool_), np.zeros((size, size)))
    within = np.ix_(suspects, suspects)
    every.same[within], every.near[within] = found
    return chosen(scores, relevance, every, limit)


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


def _suspects(corpus: Corpus, candidates: Sequence[int]) -> NDArray[np.int64]:
    """Which candidates may repeat another; of others, terms alone tell that they do not.

    Each bit that only one of two has set stands for at least one term that only this one has.
    """
    signatures, sizes = corpus.signatures[candidates], corpus.distinct_terms[candidates]
    alone = np.bitwise_count(signatures[:, np.newaxis] & ~signatures)
    in_common = sizes[:, np.newaxis] - alone
    possible = np.minimum(in_common, in_common.T)
    union = sizes[:, np.newaxis] + sizes - possible
    alike = possible >= NEAR_DUPLICATE * union  # as those without any term are
    np.fill_diagonal(alike, val=False)
    return np.flatnonzero(alike.any(axis=1))


def _repetition(texts: Sequence[str]) -> Repetition:
    """What texts say of each other."""
    said = [tuple(statement(plain(text))) for text in texts]
    number: dict[str, int] = {}
    held = [[number.setdefault(piece, len(number)) for piece in set(pieces)] for pieces in said]
    present = np.zeros((len(said), len(number)), np.float32)
    for row, numbers in zip(present, held, strict=True):
        row[numbers] = 1.0
    sizes = present.sum(axis=1)
    common = present @ present.T
    union = sizes[:, np.newaxis] + sizes - common
    jaccard = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    near: Floats = (jaccard.astype(np.float64) - NEAR_DUPLICATE) / (1 - NEAR_DUPLICATE)
    first: dict[tuple[str, ...], int] = {}
    kinds = np.array([first.setdefault(pieces, len(first)) for pieces in said], np.int64)
    same: Mask = (kinds[:, np.newaxis] == kinds) & (sizes > 0)
    np.fill_diagonal(same, val=False)
    np.fill_diagonal(near, 0.0)
    return Repetition(same, near.clip(0.0, 1.0))
