"""A newer fact passes the older one that it contradicts.

What users say of themselves changes ("Lives in Lisbon" … "Has moved to Porto"), and both facts
answer a query about as well. Of two that mean much the same, as an embedder has it, the later one
is more likely to hold. So a memory of no episode passes the older ones a few places above it whose
scores are near and whose vectors are alike. In episodes nothing is passed: what was said then is
what a query asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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

MORE_IMPORTANT = 0.2
"""An older memory that is more important by so much is not passed: its caller wants it first."""


class NewerFirst(NamedTuple):
    """Candidates in their order."""

    places: Places
    """Among those given."""
    gained: Floats
    """What each gains, 0 or above: with it scores fall."""


def newer_first(
    scores: Floats, importances: Floats, corpus: Corpus, candidates: Places
) -> NewerFirst | None:
    """Let newer candidates pass older ones, given best first with their scores; None: none does.

    `importances` says how important they are. All have shape (candidates,).
    """
    alike = _alike(corpus, candidates)
    if alike is None:
        return None
    moments = corpus.field("occurred_at", candidates).tolist()
    reached = scores.tolist()
    order: list[int] = [0]
    for place in range(1, len(reached)):
        rise = 0
        for above in range(1, min(MOST_PASSED, len(order)) + 1):
            older = order[-above]
            if (
                alike[place, older]
                and (moments[older], candidates[older]) < (moments[place], candidates[place])
                and reached[older] - scores[place] <= GREATEST_GAP
                and importances[older] - importances[place] < MORE_IMPORTANT
            ):
                rise = above
        if rise:
            reached[place] = reached[order[-rise]]
        order.insert(len(order) - rise, place)
    places = np.array(order)
    return NewerFirst(places, _falling(scores[places]))


def _falling(scores: Floats) -> Floats:
    """What scores gain so that none is below the next one. Shape (scores,)."""
    gained = np.zeros(len(scores))
    below = scores[-1]
    for place in range(len(scores) - 2, -1, -1):
        if scores[place] < below:
            below += MARGIN
            gained[place] = below - scores[place]
        else:
            below = scores[place]
    return gained


def _alike(corpus: Corpus, candidates: Places) -> NDArray[np.bool_] | None:
    """Which facts are about the same: of one session and speaker. None: none are."""
    if not corpus.vectors_known:
        return None
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
