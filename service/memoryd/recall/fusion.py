"""The order in which memories answer a query, and how each score came about."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from memoryd.recall.certainty import certainty
from memoryd.recall.diversity import choose
from memoryd.recall.index import corpus_of
from memoryd.recall.ranked import PARTS, Ranked
from memoryd.recall.signals import CUES, NEIGHBOURS, RELEVANCE, neighbourhood, signals
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

# Which of `CUES` make which part.
_CUES_OF = {"speaker": CUES[:2], "temporal": CUES[2:4], "form": CUES[4:]}

_DIRECT = ("lexical", "semantic")
"""Parts that compare a memory with the query; they have a mean of 0."""

SPARE_CANDIDATES = 10
"""How many more memories than are wanted are looked at for diversity."""

_SCORE_DECIMALS = 9


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
    corpus = corpus_of(indexes)
    found = signals(query, indexes, now=now, meaning=meaning)
    parts: dict[str, Floats] = {}
    if found.matched:
        parts = relevance_parts(found, weights_for(meaning if found.embedded else None))
    parts["importance"] = importance_weight * IMPORTANCE_SCALE * np.concatenate(importances)

    scores = np.zeros(len(corpus))
    for part in parts.values():
        scores += part
    np.round(scores, _SCORE_DECIMALS, out=scores)
    most = limit + SPARE_CANDIDATES if diverse else limit
    mask = _allowed(indexes, allowed)
    if min_relevance is not None:
        sure = certainty(found, meaning, np.arange(len(corpus))) >= min_relevance
        mask = sure if mask is None else mask & sure
    if matching:
        holding = found.covered > 0
        mask = holding if mask is None else mask & holding
    order = highest(scores, mask, most)
    if diverse:
        chosen = choose(scores[order], _relevance(parts, order), corpus, order, limit)
    else:
        chosen = [(candidate, 0.0) for candidate in range(len(order))]
    nothing = [0.0] * len(order)
    shares = [parts[part][order].tolist() if part in parts else nothing for part in PARTS]
    relevance = certainty(found, meaning, np.array(order, np.int64)).tolist()
    of_each = [*zip(relevance, *shares, strict=True)]
    ranked = []
    for candidate, lost in chosen:
        session = corpus.session_of(order[candidate])
        memory_id = indexes[session].ids[order[candidate] - corpus.starts[session]]
        ranked.append(Ranked(session, memory_id, *of_each[candidate], lost))  # type: ignore[call-arg]
    return ranked


def highest(values: Floats, mask: Mask | None, limit: int) -> list[int]:
    """Where the `limit` highest values stand that the mask allows, the earlier first among equals.

    Without a mask all are allowed.
    """
    if mask is not None:
        values = np.where(mask, values, -np.inf)
        limit = min(limit, int(np.count_nonzero(mask)))
    if limit < 1:
        return []
    if limit < len(values):
        least = np.partition(values, len(values) - limit)[len(values) - limit]
        places = np.flatnonzero(values >= least)
        order = places[np.argsort(-values[places], kind="stable")[:limit]]
    else:
        order = np.argsort(-values, kind="stable")
    found: list[int] = order.tolist()
    return found


def weights_for(meaning: Meaning | None) -> Weights:
    """The weights for what an embedder adds; without one, for words alone."""
    if meaning is None:
        return WITHOUT_EMBEDDER
    return WITH_WORDS if meaning.adds_up_words else WITH_SENTENCES


def relevance_parts(found: Signals, weights: Weights) -> dict[str, Floats]:
    """Those of `PARTS` that are not 0 for all, but importance, in their order."""
    of = _arrays(weights)
    parts = {"lexical": of.relevance[:-1] @ found.relevance[:-1]}
    if found.embedded:
        parts["semantic"] = of.relevance[-1] * found.relevance[-1]
    if found.corpus.in_episode is not None:
        relevance = parts["lexical"] + parts["semantic"] if found.embedded else parts["lexical"]
        parts["context"] = of.neighbours @ neighbourhood(found.corpus, relevance)
    for part, names in _CUES_OF.items():
        shares = [getattr(weights, name) * found.cues[name] for name in names if name in found.cues]
        if shares:
            parts[part] = functools.reduce(np.add, shares)
    return parts


def _relevance(parts: Mapping[str, Floats], places: Sequence[int]) -> Floats:
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


class _Arrays(NamedTuple):
    """Weights in the order of the signals that they are of."""

    relevance: Floats
    neighbours: Floats


@functools.lru_cache
def _arrays(weights: Weights) -> _Arrays:
    def of(names: Sequence[str]) -> Floats:
        return np.array([getattr(weights, name) for name in names])

    return _Arrays(of(RELEVANCE), of(NEIGHBOURS))


def _allowed(indexes: Sequence[SessionIndex], allowed: Sequence[Mask | None]) -> Mask | None:
    if all(mask is None for mask in allowed):
        return None
    return np.concatenate(
        [
            np.ones(len(index), np.bool_) if mask is None else mask
            for index, mask in zip(indexes, allowed, strict=True)
        ]
    )
