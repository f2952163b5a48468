"""The order in which memories answer a query, and how each score came about."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from memoryd.recall.by_tokens import by_tokens
from memoryd.recall.certainty import certainty
from memoryd.recall.corpus import joined
from memoryd.recall.diversity import choose
from memoryd.recall.ranked import PARTS, Ranked
from memoryd.recall.recency import newer_first
from memoryd.recall.signals import RELEVANCE, signals
from memoryd.recall.weights import (
    COMPARED_BY_TOKENS,
    DEFAULT_IMPORTANCE_WEIGHT,
    IMPORTANCE_SCALE,
    WITH_SENTENCES,
    WITH_TOKENS,
    WITH_WORDS,
    WITHOUT_EMBEDDER,
    Weights,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from memoryd.recall.index import SessionIndex
    from memoryd.recall.signals import Meaning, Query, Signals

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]
    Places = NDArray[np.int64]

_PART_OF = {"span": "temporal", "when": "temporal", "amount": "form", "name": "form"}
"""Which part a cue belongs to, but for the speaker's."""

_DIRECT = ("lexical", "semantic")
"""Parts that compare a memory with the query."""

SPARE_CANDIDATES = 10
"""How many more memories than are wanted are looked at for recency and diversity."""

_in_order = attrgetter(*RELEVANCE)

_SCORE_DECIMALS = 9
_ROWS = 64
_ENOUGH_COLUMNS = 4
"""Times as many as values are wanted, for the best to stand in different ones mostly."""

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
    of_importance = importance_weight * IMPORTANCE_SCALE
    # A new array: what callers keep stays as it is.
    scores = joined(importances) * of_importance
    speaking = total = None
    if found.matched:
        speaking = Speaking(found, weights_for(meaning if found.embedded else None))
        total = speaking.total
        scores += total
    mask = _allowed(indexes, allowed)
    if min_relevance is not None:
        sure = certainty(found, meaning, total, np.arange(len(corpus))) >= min_relevance
        mask = sure if mask is None else mask & sure
    if matching:
        holding = found.covered > 0
        mask = holding if mask is None else mask & holding
    wanted = limit + SPARE_CANDIDATES
    of_tokens = None
    tokens = meaning.tokens if meaning is not None and found.embedded else None
    if tokens is not None and corpus.has_token_vectors:
        order, best = highest(scores, mask, max(wanted, COMPARED_BY_TOKENS))
        # Of all that is ranked, so that scores are the same whatever is allowed.
        reference, _ = highest(scores, None, COMPARED_BY_TOKENS)
        near = by_tokens(query, tokens, corpus, order, reference)
        of_tokens = np.zeros(len(corpus))
        of_tokens[order] = weights_for(meaning).tokens * near
        order, best = _again(scores[order] + of_tokens[order], order, wanted)
    else:
        order, best = highest(scores, mask, wanted)
    if not len(order):
        return []
    order, gained, lost = _refined(
        order, best, found, speaking, importances=joined(importances), limit=limit, diverse=diverse
    )
    parts = {"importance": joined(importances)[order] * of_importance}
    if speaking is not None:
        parts |= speaking.parts(order)
    if of_tokens is not None:
        parts["semantic"] += of_tokens[order]
    nothing = [0.0] * len(order)
    columns = (parts[part].tolist() if part in parts else nothing for part in PARTS)
    relevance = certainty(found, meaning, total, order).tolist()
    return [*map(Ranked, *corpus.named(order.tolist()), relevance, *columns, gained, lost)]


def _again(scores: Floats, places: Places, limit: int) -> tuple[Places, Floats]:
    """As `highest`, of memories that stand there and have other scores by now."""
    rounded = scores.round(_SCORE_DECIMALS)
    order = np.lexsort((places, -rounded))[:limit]
    return places[order], rounded[order]


def _refined(
    order: Places,
    scores: Floats,
    found: Signals,
    speaking: Speaking | None,
    *,
    importances: Floats,
    limit: int,
    diverse: bool,
) -> tuple[Places, list[float], list[float]]:
    """The best candidates, what recency gives each and what diversity takes from it.

    The candidates are given best first with their scores.
    """
    gained = np.zeros(len(order))
    newer = newer_first(scores, importances[order], found.corpus, order)
    if newer is not None:
        gained = newer.gained
        order, scores = order[newer.places], scores[newer.places] + gained
    if not diverse:
        return order[:limit], gained[:limit].tolist(), [0.0] * min(limit, len(order))

    def bearing() -> Floats:
        return np.zeros(len(order)) if speaking is None else speaking.bearing(order)

    chosen, lost = choose(scores, bearing, found.corpus, order, limit)
    return order[chosen], gained[chosen].tolist(), lost


def highest(values: Floats, mask: Mask | None, limit: int) -> tuple[Places, Floats]:
    """Where the `limit` highest values stand that the mask allows, the earlier first among equals.

    Without a mask all are allowed. And these values, rounded as they are compared.
    """
    if mask is not None:
        values = np.where(mask, values, -np.inf)
        limit = min(limit, int(np.count_nonzero(mask)))
    limit = min(limit, len(values))
    if limit < 1:
        return np.zeros(0, np.int64), np.zeros(0)
    places = (values >= _reached(values, limit) - _ROUNDED_AWAY).nonzero()[0]
    rounded = values[places].round(_SCORE_DECIMALS)
    order = (-rounded).argsort(kind="stable")[:limit]
    return places[order], rounded[order]


def _reached(values: Floats, count: int) -> float:
    """What at least so many values reach, but few others. There are at least so many."""
    width = len(values) // _ROWS
    if width > _ENOUGH_COLUMNS * count:
        # The highest ones of columns are reached by one value each, and are few.
        columns = np.maximum.reduce(values[: _ROWS * width].reshape(_ROWS, width), axis=0)
        columns.partition(width - count)
        if columns[-count] > -np.inf:
            return float(columns[-count])
    rising = values.copy()
    rising.partition(len(values) - count)
    return float(rising[-count])


def weights_for(meaning: Meaning | None) -> Weights:
    """The weights for what an embedder adds; without one, for words alone."""
    if meaning is None:
        return WITHOUT_EMBEDDER
    if meaning.tokens is not None:
        return WITH_TOKENS
    return WITH_WORDS if meaning.adds_up_words else WITH_SENTENCES


class Speaking:
    """How much a query's signals, weighed, speak for each memory: all of a score but importance."""

    def __init__(self, found: Signals, weights: Weights) -> None:
        self._found = found
        self._weights = weights
        self._scales, self._constants = found.standard.weighed(_in_order(weights))
        relevance = self._scales @ found.raw
        relevance += self._constants.sum()
        self._others = [*self._of_others(relevance)]
        for _, share in self._others:
            relevance += share
        self.total: Floats = relevance
        """Shape (memories,)."""

    def _of_others(self, relevance: Floats) -> Iterator[tuple[str, Floats]]:
        """Each share of a part that neighbours are not lent."""
        corpus, cues, weights = self._found.corpus, self._found.cues, self._weights
        weighed = corpus.weighed(weights)
        held, window = self._found.shares
        yield "lexical", (weights.held + weights.window) * held
        if self._found.embedded and not corpus.is_told.all():
            # Facts are short, and asked for in other words: what they mean counts for more.
            alone = (~corpus.is_told) * (weights.alone / weights.semantic)
            yield "semantic", (self._scales[-1] * self._found.raw[-1] + self._constants[-1]) * alone
        if corpus.episodes.are_any:
            yield "context", corpus.episodes.context(relevance, weighed.lending)
            yield "context", weights.window * (window - held)
            # Small talk and questions are a conversation's; a fact may well be short.
            yield "form", weighed.conversational
        for name, cue in cues.items():
            if name == "speaker":
                yield "speaker", cue * weighed.speaker
            else:
                yield _PART_OF[name], cue * getattr(weights, name)

    def parts(self, places: Places) -> dict[str, Floats]:
        """Those of `PARTS` of some memories that are not 0 for all. Each has shape (places,)."""
        raw = self._found.raw[:, places]
        parts: dict[str, Floats] = {
            "lexical": self._scales[:-1] @ raw[:-1] + self._constants[:-1].sum()
        }
        if self._found.embedded:
            parts["semantic"] = self._scales[-1] * raw[-1] + self._constants[-1]
        for part, share in self._others:
            before = parts.get(part)
            parts[part] = share[places] if before is None else before + share[places]
        return parts

    def bearing(self, places: Places) -> Floats:
        """What some memories have to do with the query, each 0 or above.

        How far words and meaning are above the least that any memory has, and what else there is.
        """
        every = self.parts(np.arange(len(self.total)))
        least = sum(float(every[part].min()) for part in _DIRECT if part in every)
        bearing: Floats = self.total[places] - least
        return bearing.clip(0.0)


def _allowed(indexes: Sequence[SessionIndex], allowed: Sequence[Mask | None]) -> Mask | None:
    if all(mask is None for mask in allowed):
        return None
    return np.concatenate(
        [
            np.ones(len(index), np.bool_) if mask is None else mask
            for index, mask in zip(indexes, allowed, strict=True)
        ]
    )
