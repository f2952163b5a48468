"""The weights of recall's parts, all of them.

Fitted by `benchmarks/fit_recall.py` on the four conversations of LoCoMo's development part; what
that script prints for a conversation was fitted on the other three. Constants outside `Weights`
are not fitted.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Weights:
    """What each signal counts for. Relevance signals are z-scores over all memories ranked."""

    bm25: float
    bigrams: float
    rarest: float
    semantic: float
    two_before: float
    """Of the relevance of the turn before the previous one, in the same episode; and so on."""
    before: float
    after: float
    episode: float
    """Of the mean relevance of the episode's best three."""
    speaker: float
    span: float
    when: float
    amount: float
    name: float
    question: float
    length: float
    information: float
    opening: float


FITTED_SIZE = 520
"""About how many memories the sessions have that weights were fitted on."""

SMALLEST_SIZE = 50
"""Among fewer memories differences are enlarged no further, lest importance count for nothing."""

BM25_K1 = 0.9
BM25_B = 0.4
"""As Lin, Ma and others set them for short passages (Anserini's defaults)."""

IMPORTANCE_SCALE = 5.0
"""What effective importance 1 counts for at `importance_weight` 1, in the unit of fitted scores:
about the distance between a memory that answers and one that has nothing to do with the query."""

DEFAULT_IMPORTANCE_WEIGHT = 0.2
"""Enough to order what is equally relevant, too little to lift what is not."""

WITHOUT_EMBEDDER = Weights(
    bm25=0.19, bigrams=0.088, rarest=0.14, semantic=0.0,
    two_before=0.526, before=0.697, after=0.335, episode=0.871,
    speaker=2.601, span=3.514, when=1.258, amount=1.819, name=1.13,
    question=-0.655, length=-0.334, information=0.644, opening=0.529,
)  # fmt: skip
WITH_WORDS = Weights(
    bm25=0.103, bigrams=0.077, rarest=0.121, semantic=0.268,
    two_before=0.457, before=0.603, after=0.277, episode=0.971,
    speaker=2.564, span=4.333, when=1.321, amount=1.544, name=1.157,
    question=-0.617, length=-0.285, information=0.592, opening=0.584,
)  # fmt: skip
"""With an embedder that adds up words."""
WITH_SENTENCES = Weights(
    bm25=0.093, bigrams=0.082, rarest=0.124, semantic=0.373,
    two_before=0.375, before=0.528, after=0.239, episode=0.906,
    speaker=2.579, span=4.304, when=1.315, amount=1.451, name=1.077,
    question=-0.628, length=-0.195, information=0.457, opening=0.67,
)  # fmt: skip
"""With an embedder of whole texts."""
