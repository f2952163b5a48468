"""A newer fact passes the older one that it contradicts.

What users say of themselves changes ("Lives in Lisbon" … "Has moved to Porto"), and both facts
answer a query about as well. Of two that mean much the same, as an embedder has it, the later one
is more likely to hold. So a memory of no episode passes the older ones a few places above it whose
scores are near and whose vectors are alike. In episodes nothing is passed: what was said then is
what a query asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from memoryd.recall.diversity import MARGIN
from memoryd.recall.episodes import NO_EPISODE
from memoryd.recall.weights import CONTRADICTING

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from memoryd.recall.corpus import Corpus

    Floats = NDArray[np.float64]
    Places = NDArray[np.int64]

MOST_PASSED = 3
"""Places that a memory rises at most."""

GREATEST_GAP = 2.0
"""Between the scores of two, in their unit; beyond it the older one answers better."""

NO_ROOM = 1e-8
"""Scores that differ by less count as equal."""

MORE_IMPORTANT = 0.2
"""An older memory that is more important by so much is not passed: its caller wants it first."""


def gains(scores: Floats, importances: Floats, corpus: Corpus, candidates: Places) -> Floats:
    """What the candidates gain, given best first with their scores, each 0 or above.

    `importances` says how important they are. All have shape (candidates,).
    """
    gained = np.zeros(len(candidates))
    alike = _alike(corpus, candidates)
    if alike is None:
        return gained
    moments = corpus.field("occurred_at", candidates).tolist()
    left = scores.tolist()
    order: list[int] = [0]
    for place in range(1, len(left)):
        rise = 0
        for above in range(1, min(MOST_PASSED, len(order)) + 1):
            older = order[-above]
            if (
                alike[place, older]
                and (moments[older], candidates[older]) < (moments[place], candidates[place])
                and left[older] - scores[place] <= GREATEST_GAP
                and importances[older] - importances[place] < MORE_IMPORTANT
            ):
                rise = above
        if rise:
            passed = left[order[-rise]]
            room = left[order[-rise - 1]] - passed if len(order) > rise else MARGIN
            left[place] = passed + step_into(room)
            gained[place] = left[place] - float(scores[place])
        order.insert(len(order) - rise, place)
    return gained


def step_into(room: float) -> float:
    """What a memory gains beyond the one that it passes, given the room below the next higher."""
    return min(MARGIN, room / 2) if room > NO_ROOM else MARGIN


def _alike(corpus: Corpus, candidates: Places) -> NDArray[np.bool_] | None:
    """Which facts are about the same: of one session and speaker. None: none are."""
    told = corpus.field("episode", candidates) != NO_EPISODE
    comparable = ~told & corpus.field("has_vector", candidates)
    if np.count_nonzero(comparable) < 2:  # noqa: PLR2004  a pair
        return None
    vectors = corpus.vectors(candidates)
    alike: NDArray[np.bool_] = vectors @ vectors.T >= CONTRADICTING
    np.fill_diagonal(alike, val=False)
    alike &= comparable & comparable[:, np.newaxis]
    if not alike.any():
        return None
    sessions = np.array([corpus.session_of(place) for place in candidates.tolist()])
    speakers = corpus.field("speaker", candidates)
    alike &= (sessions == sessions[:, np.newaxis]) & (speakers == speakers[:, np.newaxis])
    return alike
