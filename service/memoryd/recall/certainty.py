"""How sure recall is that a memory bears on a query at all: what callers know as relevance.

A score compares the memories of one call with each other, in the unit of their spread. Most signals
here mean the same whatever else is ranked, so that their sum compares between queries and sessions:

- window: the share of the query that the memory covers together with the two before and behind it
  in its episode, each term weighing its IDF;
- unknown: the share of the query that no memory covers, times ln(1 + memories): the more memories
  lack a word, the more surely they are about something else;
- score: ln(1 + all that speaks for the memory but importance); below 0: 0. A logarithm, since a
  z-score may grow with the square root of the number of memories;
- cosine: of the query's vector and the memory's, squared, since small ones say little; below 0: 0.
"""

from __future__ import annotations

import math
from operator import attrgetter
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

SIGNALS = ("window", "unknown", "score", "cosine")
TERMS = 3
"""So many of them need no embedder."""

_in_order = attrgetter(*SIGNALS)

DECIMALS = 6
"""Of what is answered, and compared with what a caller wants at least."""


def certainty(
    found: Signals, meaning: Meaning | None, scores: Floats | None, places: NDArray[np.int64]
) -> Floats:
    """How surely each of some memories bears on the query, 0 to 1. Shape (places,).

    `scores` are those of all memories without importance; None where nothing speaks for any.
    """
    rows = evidence(found, scores, places)
    sure = _logistic(rows, certainty_weights(meaning if found.embedded else None))
    if found.embedded and found.corpus.has_vector is not None:
        # A memory whose vector is not made yet is judged by its terms.
        has_vector = found.corpus.has_vector[places]
        sure = np.where(has_vector, sure, _logistic(rows, CERTAINTY_OF_TERMS))
    return sure.round(DECIMALS)


def evidence(found: Signals, scores: Floats | None, places: NDArray[np.int64]) -> Floats:
    """The signals of some memories, in the order of `SIGNALS`. Shape (signals, places)."""
    rows = np.zeros((len(SIGNALS), len(places)))
    rows[0] = np.maximum(found.covered[places], found.shares[1, places])
    rows[1] = (1.0 - found.known) * math.log1p(len(found.corpus))
    if scores is not None:
        rows[2] = np.log1p(np.maximum(scores[places], 0.0))
    if found.embedded:
        rows[3] = np.square(np.maximum(found.cosines(places), 0.0))
    return rows


def certainty_weights(meaning: Meaning | None) -> CertaintyWeights:
    """The weights for what an embedder adds; without one, for terms alone."""
    if meaning is None:
        return CERTAINTY_OF_TERMS
    return CERTAINTY_OF_WORDS if meaning.adds_up_words else CERTAINTY_OF_SENTENCES


def _logistic(rows: Floats, weights: CertaintyWeights) -> Floats:
    sure: Floats = 1.0 / (1.0 + np.exp(-weights.bias - np.array(_in_order(weights)) @ rows))
    return sure
