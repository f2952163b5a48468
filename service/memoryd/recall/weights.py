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


BM25_K1 = 0.9
BM25_B = 0.4
"""As Lin, Ma and others set them for short passages (Anserini's defaults)."""

IMPORTANCE_SCALE = 5.0
"""What effective importance 1 counts for at `importance_weight` 1, in the unit of fitted scores:
about the distance between a memory that answers and one that has nothing to do with the query."""

DEFAULT_IMPORTANCE_WEIGHT = 0.2
"""Enough to order what is equally relevant, too little to lift what is not."""

WITHOUT_EMBEDDER = Weights(
    bm25=0.244, bigrams=0.083, rarest=0.128, semantic=0.0,
    two_before=0.507, before=0.666, after=0.317, episode=0.807,
    speaker=2.64, span=2.309, when=1.274, amount=1.72, name=1.197,
    question=-0.652, length=-0.315, information=0.631, opening=0.568,
)  # fmt: skip
WITH_WORDS = Weights(
    bm25=0.129, bigrams=0.073, rarest=0.113, semantic=0.315,
    two_before=0.436, before=0.571, after=0.259, episode=0.891,
    speaker=2.589, span=3.33, when=1.278, amount=1.559, name=1.172,
    question=-0.624, length=-0.264, information=0.58, opening=0.627,
)  # fmt: skip
"""With an embedder that adds up words."""
WITH_SENTENCES = Weights(
    bm25=0.127, bigrams=0.077, rarest=0.111, semantic=0.397,
    two_before=0.376, before=0.499, after=0.234, episode=0.83,
    speaker=2.646, span=3.403, when=1.307, amount=1.528, name=1.169,
    question=-0.613, length=-0.234, information=0.483, opening=0.715,
)  # fmt: skip
"""With an embedder of whole texts."""
