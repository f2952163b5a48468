"""The order in which memories answer a query, and how each score came about."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from memoryd.recall.certainty import certainty
from memoryd.recall.diversity import choose
from memoryd.recall.ranked import PARTS, Ranked
from memoryd.recall.signals import RELEVANCE, signals
from memoryd.recall.weights import (
    DEFAULT_IMPORTANCE_WEIGHT,
    IMPORTANCE_SCALE,
    WITH_SENTENCES,
    WITH_WORDS,
    WITHOUT_EMBEDDER,
    Weights,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from memoryd.recall.index import SessionIndex
    from memoryd.recall.signals import Meaning, Query, Signals

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]
    Places = NDArray[np.int64]

_DIRECT = ("lexical", "semantic")
"""Parts that compare a memory with the query; they have a mean of 0."""

SPARE_CANDIDATES = 10
"""How many more memories than are wanted are looked at for diversity."""

_SCORE_DECIMALS = 9
_ROUNDED_AWAY = 1e-8
"""More than rounding to these decimals takes away."""


def rank(
    query: Query,
    indexes: Sequence[SessionIndex],
    importances: Sequence[Floats],
    *,
    now: datetime,
    limit: int,
    allowed: Sequence[Mask | None] = (),
    meaning: Meaning | None = None,
    min_relevance: float | None = None,
    importance_weight: float = DEFAULT_IMPORTANCE_WEIGHT,
    diverse: bool = True,
    matching: bool = False,
) -> list[Ranked]:
    """The best `limit` memories of some sessions for a query, best first.

    The query is as `understand` gives it for these sessions, its meaning as `meaning_of` does. For
    each index `importances` has how important its memories are, and `allowed` which of them may be
    answered, or None for all: arrays of shape (memories,); neither are those of less relevance than
    `min_relevance` nor, with `matching`, those that hold nothing of the query. Scores and relevance
    are the same whatever is allowed.
    Among equals the earlier session and the older memory come first. A query that has nothing in
    common with any memory is answered by importance.
    """
    if not any(map(len, indexes)) or limit < 1:
        return []
    found = signals(query, indexes, now=now, meaning=meaning)
    corpus = found.corpus
    parts: dict[str, Floats] = {}
    if found.matched:
        parts = relevance_parts(found, weights_for(meaning if found.embedded else None))
    parts["importance"] = importance_weight * IMPORTANCE_SCALE * np.concatenate(importances)

    scores = functools.reduce(np.add, parts.values())
    mask = _allowed(indexes, allowed)
    if min_relevance is not None:
        sure = certainty(found, meaning, np.arange(len(corpus))) >= min_relevance
        mask = sure if mask is None else mask & sure
    if matching:
        holding = found.covered > 0
        mask = holding if mask is None else mask & holding
    order, best = highest(scores, mask, limit + SPARE_CANDIDATES if diverse else limit)
    places = order.tolist()
    if diverse:
        chosen = choose(best, lambda: _relevance(parts, order), corpus, places, limit)
    else:
        chosen = [(candidate, 0.0) for candidate in range(len(places))]
    nothing = [0.0] * len(places)
    shares = [parts[part][order].tolist() if part in parts else nothing for part in PARTS]
    relevance = certainty(found, meaning, order).tolist()
    of_each = [*zip(relevance, *shares, strict=True)]
    ranked = []
    for candidate, lost in chosen:
        session = corpus.session_of(places[candidate])
        memory_id = indexes[session].ids[places[candidate] - corpus.starts[session]]
        ranked.append(Ranked(session, memory_id, *of_each[candidate], lost))  # type: ignore[call-arg]
    return ranked


def highest(values: Floats, mask: Mask | None, limit: int) -> tuple[Places, Floats]:
    """Where the `limit` highest values stand that the mask allows, the earlier first among equals.

    Without a mask all are allowed. And these values, rounded as they are compared.
    """
    if mask is not None:
        values = np.where(mask, values, -np.inf)
        limit = min(limit, int(np.count_nonzero(mask)))
    if limit < 1:
        return np.zeros(0, np.int64), np.zeros(0)
    places = np.arange(len(values))
    if limit < len(values):
        least = np.partition(values, len(values) - limit)[len(values) - limit]
        places = np.flatnonzero(values >= least - _ROUNDED_AWAY)
    rounded = np.round(values[places], _SCORE_DECIMALS)
    order = np.argsort(-rounded, kind="stable")[:limit]
    return places[order], rounded[order]


def weights_for(meaning: Meaning | None) -> Weights:
    """The weights for what an embedder adds; without one, for words alone."""
    if meaning is None:
        return WITHOUT_EMBEDDER
    return WITH_WORDS if meaning.adds_up_words else WITH_SENTENCES


def relevance_parts(found: Signals, weights: Weights) -> dict[str, Floats]:
    """Those of `PARTS` that are not 0 for all, but importance, in their order."""
    # Each z-score is a value times a scale and a constant: the weight takes in both.
    scales = _relevance_weights(weights) * found.standard.scales
    constants = scales * found.standard.means
    parts = {"lexical": scales[:-1] @ found.raw[:-1] - constants[:-1].sum()}
    relevance = parts["lexical"]
    if found.embedded:
        parts["semantic"] = scales[-1] * found.raw[-1] - constants[-1]
        relevance = relevance + parts["semantic"]
    corpus, cues = found.corpus, found.cues
    weighed = corpus.weighed(weights)
    if corpus.episodes.are_any:
        parts["context"] = corpus.episodes.context(relevance, weighed.lending)
    if "speaker" in cues:
        parts["speaker"] = cues["speaker"] * weighed.speaker
    temporal = _weighted(cues, weights, ("span", "when"))
    if temporal is not None:
        parts["temporal"] = temporal
    form = _weighted(cues, weights, ("amount", "name"))
    # Small talk and questions are a conversation's; a fact is not the worse for being short.
    if corpus.episodes.are_any:
        parts["form"] = weighed.conversational if form is None else form + weighed.conversational
    elif form is not None:
        parts["form"] = form
    return parts


def _weighted(cues: Mapping[str, Floats], weights: Weights, names: Sequence[str]) -> Floats | None:
    """The sum of those cues that there are, or None."""
    shares = [getattr(weights, name) * cues[name] for name in names if name in cues]
    return functools.reduce(np.add, shares) if shares else None


def _relevance(parts: Mapping[str, Floats], places: Places) -> Floats:
    """What some memories have to do with the query, each 0 or above.

    How far words and meaning are above the least that any memory has, and what else there is but
    importance.
    """
    total = np.zeros(len(places))
    for part, shares in parts.items():
        if part in _DIRECT:
            total += shares[places] - shares.min()
        elif part != "importance":
            total += shares[places]
    return total.clip(0.0)


@functools.lru_cache
def _relevance_weights(weights: Weights) -> Floats:
    """In the order of `RELEVANCE`."""
    return np.array([getattr(weights, name) for name in RELEVANCE])


def _allowed(indexes: Sequence[SessionIndex], allowed: Sequence[Mask | None]) -> Mask | None:
    if all(mask is None for mask in allowed):
        return None
    return np.concatenate(
        [
            np.ones(len(index), np.bool_) if mask is None else mask
            for index, mask in zip(indexes, allowed, strict=True)
        ]
    )
