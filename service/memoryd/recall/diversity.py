"""Near duplicates among results give way to what they crowd out.

Maximal marginal relevance (Carbonell and Goldstein, 1998): results are chosen one by one, each by
its score less a penalty for what it repeats of those chosen before. Here only near duplicates
are penalised, so that several memories of one topic may all be found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from memoryd.recall.corpus import Corpus

    Floats = NDArray[np.float64]

NEAR_DUPLICATE = 0.6
"""Above this share of common terms (Jaccard) a memory repeats another; at 1 it says nothing new."""

PENALTY = 5.0
"""What a memory that says nothing new loses, in the unit of scores; below 0.6 nothing."""


def choose(
    scores: Floats, corpus: Corpus, candidates: Sequence[int], limit: int
) -> list[tuple[int, float]]:
    """Choose up to `limit` of the candidates, given best first with their scores.

    Answers their places among the candidates and what each lost, 0 or below; scores less that fall.
    """
    first = [(place, 0.0) for place in range(min(limit, len(scores)))]
    suspects = _suspects(corpus, candidates)
    if not len(suspects):
        return first
    found = _repetition([corpus.own_hashes(candidates[place]) for place in suspects.tolist()])
    if not found.any():
        return first
    repetition = np.zeros((len(scores), len(scores)))
    repetition[np.ix_(suspects, suspects)] = found
    penalties = np.zeros(len(scores))
    free = np.ones(len(scores), np.bool_)
    chosen: list[tuple[int, float]] = []
    while len(chosen) < min(limit, len(scores)):
        place = int(np.argmax(np.where(free, scores - penalties, -np.inf)))
        chosen.append((place, 0.0 - float(penalties[place])))
        free[place] = False
        penalties = np.maximum(penalties, PENALTY * repetition[place])
    return chosen


def _suspects(corpus: Corpus, candidates: Sequence[int]) -> NDArray[np.int64]:
    """Which candidates may repeat another; the others certainly do not.

    Each bit that only one of two has set stands for at least one term that only this one has.
    """
    signatures, sizes = corpus.signatures[candidates], corpus.distinct_terms[candidates]
    alone = np.bitwise_count(signatures[:, np.newaxis] & ~signatures)
    in_common = sizes[:, np.newaxis] - alone
    possible = np.minimum(in_common, in_common.T)
    union = sizes[:, np.newaxis] + sizes - possible
    alike = possible > NEAR_DUPLICATE * union
    np.fill_diagonal(alike, val=False)
    return np.flatnonzero(alike.any(axis=1))


def _repetition(held: Sequence[NDArray[np.int64]]) -> Floats:
    """How far each repeats each other, 0 to 1, given the hashes of their terms. A square."""
    terms, numbers = np.unique(np.concatenate(held), return_inverse=True)
    present = np.zeros((len(held), len(terms)), np.float32)
    present[np.repeat(np.arange(len(held)), [*map(len, held)]), numbers] = 1.0
    sizes = present.sum(axis=1)
    common = present @ present.T
    union = sizes[:, np.newaxis] + sizes - common
    jaccard = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    repeated: Floats = (jaccard.astype(np.float64) - NEAR_DUPLICATE) / (1 - NEAR_DUPLICATE)
    np.fill_diagonal(repeated, 0.0)
    return repeated.clip(0.0, 1.0)
