"""How sure recall is that a memory bears on a query at all: what callers know as relevance.

A score compares the memories of one call with each other, in the unit of their spread. The signals
here mean the same whatever else is ranked, so that their sum compares between queries and sessions:

- own: the share of the query that the memory covers, each term weighing its IDF;
- near: the largest such share of a neighbour in its episode;
- unknown: the share of the query that no memory covers, times ln(1 + memories): the more memories
  lack a word, the more surely they are about something else;
- cosine: of the query's vector and the memory's, squared, since small ones say little; below 0: 0.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from memoryd.recall.weights import (
    CERTAINTY_OF_SENTENCES,
    CERTAINTY_OF_TERMS,
    CERTAINTY_OF_WORDS,
    CertaintyWeights,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from memoryd.recall.signals import Meaning, Signals

    Floats = NDArray[np.float64]

SIGNALS = ("own", "near", "unknown", "cosine")
TERMS = 3
"""So many of them need no embedder."""

DECIMALS = 6
"""Of what is answered, and compared with what a caller wants at least."""


def certainty(found: Signals, meaning: Meaning | None, places: NDArray[np.int64]) -> Floats:
    """How surely each of some memories bears on the query, 0 to 1. Shape (places,)."""
    rows = evidence(found, places)
    # A memory whose vector is not made yet is judged by its terms.
    sure = _logistic(rows[:TERMS], CERTAINTY_OF_TERMS)
    if found.embedded and meaning is not None:
        known = found.corpus.has_vector
        compared = _logistic(rows, certainty_weights(meaning))
        sure = compared if known is None else np.where(known[places], compared, sure)
    rounded: Floats = np.round(sure, DECIMALS)
    return rounded


def evidence(found: Signals, places: NDArray[np.int64]) -> Floats:
    """The signals of some memories, in the order of `SIGNALS`. Shape (signals, places)."""
    corpus = found.corpus
    rows = np.zeros((len(SIGNALS), len(places)))
    rows[0] = found.covered[places]
    if corpus.episodes.are_any:
        near = corpus.episodes.neighbours(places)
        rows[1] = np.where(near < 0, 0.0, found.covered[near]).max(axis=0)
    rows[2] = (1.0 - found.known) * np.log1p(len(corpus))
    if found.embedded:
        rows[3] = np.square(found.cosines(places).clip(0.0))
    return rows


def certainty_weights(meaning: Meaning | None) -> CertaintyWeights:
    """The weights for what an embedder adds; without one, for terms alone."""
    if meaning is None:
        return CERTAINTY_OF_TERMS
    return CERTAINTY_OF_WORDS if meaning.adds_up_words else CERTAINTY_OF_SENTENCES


def _logistic(rows: Floats, weights: CertaintyWeights) -> Floats:
    sure: Floats = 1.0 / (1.0 + np.exp(-weights.bias - _array(weights)[: len(rows)] @ rows))
    return sure


@functools.lru_cache
def _array(weights: CertaintyWeights) -> Floats:
    return np.array([getattr(weights, name) for name in SIGNALS])
