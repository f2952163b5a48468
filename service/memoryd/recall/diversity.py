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

    from memoryd.recall.index import SessionIndex

    Floats = NDArray[np.float64]

NEAR_DUPLICATE = 0.6
"""Above this share of common terms (Jaccard) a memory repeats another; at 1 it says nothing new."""

PENALTY = 5.0
"""What a memory that says nothing new loses, in the unit of scores; below 0.6 nothing."""


def choose(
    scores: Floats, candidates: Sequence[tuple[SessionIndex, int]], limit: int
) -> list[tuple[int, float]]:
    """Choose up to `limit` of the candidates, given best first with their scores.

    Answers their places among the candidates and what each lost, 0 or below; scores less that fall.
    """
    repetition = _repetition(candidates)
    lost = np.zeros(len(scores))
    free = np.ones(len(scores), np.bool_)
    chosen: list[tuple[int, float]] = []
    while len(chosen) < min(limit, len(scores)):
        place = int(np.argmax(np.where(free, scores + lost, -np.inf)))
        chosen.append((place, float(lost[place])))
        free[place] = False
        lost = np.minimum(lost, -PENALTY * repetition[place])
    return chosen


def _repetition(candidates: Sequence[tuple[SessionIndex, int]]) -> Floats:
    """How far each candidate repeats each other, 0 to 1. Shape (candidates, candidates)."""
    numbers: dict[str, int] = {}
    held = [
        {numbers.setdefault(term, len(numbers)) for term in index.own_terms(place)}
        for index, place in candidates
    ]
    present = np.zeros((len(held), max(1, len(numbers))), np.float32)
    for row, terms in zip(present, held, strict=True):
        row[[*terms]] = 1.0
    sizes = present.sum(axis=1)
    common = present @ present.T
    union = sizes[:, np.newaxis] + sizes - common
    jaccard = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    repeated: Floats = (jaccard.astype(np.float64) - NEAR_DUPLICATE) / (1 - NEAR_DUPLICATE)
    return repeated.clip(0.0, 1.0)
