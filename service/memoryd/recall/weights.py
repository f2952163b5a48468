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
    asked: float
    """Of the relevance of the previous turn, where that is a question."""
    speaker: float
    of_self: float
    """Of how far the speaker named talks about themselves."""
    span: float
    when: float
    amount: float
    name: float
    question: float
    length: float
    information: float
    opening: float


@dataclass(frozen=True, slots=True)
class CertaintyWeights:
    """What each signal of `certainty` counts for, in log-odds."""

    bias: float
    own: float
    near: float
    unknown: float
    """Below 0: it speaks against."""
    cosine: float


ENOUGH_MEMORIES = 400
"""Whose scores tell by themselves how far apart they usually lie. In a smaller session the missing
ones are thought to lie about the mean as usual: few scores say little of what is usual, and the
highest z-score of n is √(n − 1), whatever it tells."""

USUAL_SPREAD = {
    "bm25": 0.075, "bigrams": 0.07, "rarest": 0.12, "semantic": 0.085,
    "length": 0.55, "information": 0.55,
}  # fmt: skip
"""The standard deviation of each signal that is usual in a session: of BM25 and of the rarest term
as a share of the most that the query could have, of the others as they are. Means over LoCoMo's
development part, which vary little from one conversation to the next."""

BM25_K1 = 0.9
BM25_B = 0.4
"""As Lin, Ma and others set them for short passages (Anserini's defaults)."""

IMPORTANCE_SCALE = 5.0
"""What effective importance 1 counts for at `importance_weight` 1, in the unit of fitted scores:
about the distance between a memory that answers and one that has nothing to do with the query."""

DEFAULT_IMPORTANCE_WEIGHT = 0.2
"""Enough to order what is equally relevant, too little to lift what is not."""

WITHOUT_EMBEDDER = Weights(
    bm25=0.199, bigrams=0.091, rarest=0.154, semantic=0.0,
    two_before=0.485, before=0.394, after=0.313, episode=0.849, asked=0.55,
    speaker=2.175, of_self=1.021, span=3.606, when=1.206, amount=1.718,
    name=1.249, question=-0.271, length=-0.297, information=0.439, opening=0.571,
)  # fmt: skip
WITH_WORDS = Weights(
    bm25=0.111, bigrams=0.081, rarest=0.136, semantic=0.274,
    two_before=0.42, before=0.319, after=0.261, episode=0.927, asked=0.497,
    speaker=2.124, of_self=0.95, span=4.367, when=1.27, amount=1.475,
    name=1.26, question=-0.255, length=-0.252, information=0.397, opening=0.609,
)  # fmt: skip
"""With an embedder that adds up words."""
WITH_SENTENCES = Weights(
    bm25=0.103, bigrams=0.083, rarest=0.132, semantic=0.416,
    two_before=0.345, before=0.267, after=0.212, episode=0.842, asked=0.397,
    speaker=2.234, of_self=0.754, span=4.54, when=1.229, amount=1.282,
    name=1.122, question=-0.314, length=-0.174, information=0.3, opening=0.678,
)  # fmt: skip
"""With an embedder of whole texts."""

CERTAINTY_OF_TERMS = CertaintyWeights(bias=-1.9, own=6.58, near=3.86, unknown=-0.31, cosine=0.0)
CERTAINTY_OF_WORDS = CertaintyWeights(bias=-1.61, own=3.65, near=2.98, unknown=-0.13, cosine=12.71)
"""With an embedder that adds up words."""
CERTAINTY_OF_SENTENCES = CertaintyWeights(
    bias=-2.08, own=3.24, near=2.42, unknown=-0.11, cosine=14.36
)
"""With an embedder of whole texts."""
