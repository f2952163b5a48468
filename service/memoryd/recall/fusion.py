"""The order in which memories answer a query, and how each score came about."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from memoryd.recall.diversity import choose
from memoryd.recall.embedding import WordEmbedder
from memoryd.recall.signals import CUES, NEIGHBOURS, RELEVANCE, neighbourhood, signals, understand
from memoryd.recall.weights import (
    DEFAULT_IMPORTANCE_WEIGHT,
    IMPORTANCE_SCALE,
    WITH_SENTENCES,
    WITH_WORDS,
    WITHOUT_EMBEDDER,
    Weights,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from memoryd.recall.embedding import Embedder
    from memoryd.recall.index import SessionIndex
    from memoryd.recall.signals import Signals

    Floats = NDArray[np.float64]

PARTS = ("lexical", "semantic", "context", "speaker", "temporal", "form", "importance")
# Which of `CUES` make which part.
_SPEAKER, _TEMPORAL, _FORM = slice(0, 1), slice(1, 3), slice(3, None)

SPARE_CANDIDATES = 10
"""How many more memories than are wanted are looked at for diversity."""

_SCORE_DECIMALS = 9


class Ranked(NamedTuple):
    """A memory and the shares of its score, which add up to it."""

    session: int
    """Which of the indexes given holds it."""
    memory_id: str
    lexical: float
    """From words that it shares with the query."""
    semantic: float
    """From what it means; 0 without an embedder, and until its vector is made."""
    context: float
    """From how relevant its neighbours in its episode are."""
    speaker: float
    """From being said by the one whom the query names."""
    temporal: float
    """From when it happened, where the query names a time, and from times that it names itself."""
    form: float
    """From how much it tells, whether it asks, and whether it holds what kind of thing is asked."""
    importance: float
    diversity: float = 0.0
    """Below 0 where it repeats a result before it."""

    @property
    def score(self) -> float:
        """The higher the better; comparable within one answer only."""
        return (
            self.lexical + self.semantic + self.context + self.speaker
            + self.temporal + self.form + self.importance + self.diversity
        )  # fmt: skip


def rank(
    text: str,
    indexes: Sequence[SessionIndex],
    *,
    now: datetime,
    half_life_days: float,
    limit: int,
    allowed: Sequence[Collection[str] | None] = (),
    embedder: Embedder | None = None,
    importance_weight: float = DEFAULT_IMPORTANCE_WEIGHT,
    diverse: bool = True,
) -> list[Ranked]:
    """The best `limit` memories of some sessions for a query, best first.

    `allowed` has for each index the ids that may be answered, or None for all; scores are the same
    whatever it says. Among equals the earlier session and the older memory come first. A query
    that has nothing in common with any memory is answered by importance.
    """
    count = sum(map(len, indexes))
    if not count or limit < 1:
        return []
    query = understand(text, indexes)
    found = signals(query, indexes, now=now, embedder=embedder)
    weights = weights_for(embedder if found.embedded else None)
    parts = np.zeros((len(PARTS), count))
    if found.matched:
        parts[:-1] = relevance_parts(found, indexes, weights)
    importance = [index.effective_importance(now, half_life_days) for index in indexes]
    parts[-1] = importance_weight * IMPORTANCE_SCALE * np.concatenate(importance)

    scores = np.round(parts.sum(axis=0), _SCORE_DECIMALS)
    wanted = _allowed(indexes, allowed)
    order = np.argsort(-scores, kind="stable")
    order = order[wanted[order]]
    order = order[: limit + SPARE_CANDIDATES if diverse else limit]
    starts = np.cumsum([0, *map(len, indexes)])
    sessions = (np.searchsorted(starts, order, side="right") - 1).tolist()
    places = [
        (session, int(place - starts[session]))
        for session, place in zip(sessions, order.tolist(), strict=True)
    ]
    if diverse:
        chosen = choose(scores[order], [(indexes[s], place) for s, place in places], limit)
    else:
        chosen = [(candidate, 0.0) for candidate in range(len(places))]
    return [
        Ranked(
            session,
            indexes[session].ids[place],
            **dict(zip(PARTS, parts[:, order[candidate]].tolist(), strict=True)),
            diversity=lost,
        )
        for candidate, lost in chosen
        for session, place in [places[candidate]]
    ]


def weights_for(embedder: Embedder | None) -> Weights:
    """The weights for what an embedder adds; without one, for words alone."""
    if embedder is None:
        return WITHOUT_EMBEDDER
    return WITH_WORDS if isinstance(embedder, WordEmbedder) else WITH_SENTENCES


def relevance_parts(found: Signals, indexes: Sequence[SessionIndex], weights: Weights) -> Floats:
    """All parts but importance, in the order of `PARTS`. Shape (6, memories)."""

    def of(names: Sequence[str]) -> Floats:
        return np.array([getattr(weights, name) for name in names])

    own = of(RELEVANCE)
    relevance = own @ found.relevance
    starts = np.cumsum([0, *map(len, indexes)])
    near = np.hstack(
        [
            neighbourhood(index, relevance[start : start + len(index)])
            for index, start in zip(indexes, starts, strict=False)
        ]
    )
    cues = of(CUES)
    parts = np.empty((len(PARTS) - 1, len(relevance)))
    parts[0] = own[:-1] @ found.relevance[:-1]
    parts[1] = own[-1] * found.relevance[-1]
    parts[2] = of(NEIGHBOURS) @ near
    for part, signals_of in zip(parts[3:], (_SPEAKER, _TEMPORAL, _FORM), strict=True):
        part[:] = cues[signals_of] @ found.cues[signals_of]
    return parts


def _allowed(
    indexes: Sequence[SessionIndex], allowed: Sequence[Collection[str] | None]
) -> NDArray[np.bool_]:
    masks = [np.ones(len(index), np.bool_) for index in indexes]
    for index, mask, ids in zip(indexes, masks, allowed, strict=False):
        if ids is not None:
            mask[:] = False
            mask[[index.place(memory_id) for memory_id in ids if memory_id in index]] = True
    return np.concatenate(masks)
