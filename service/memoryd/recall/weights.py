"""The weights of recall's parts, all of them.

Fitted by `benchmarks/fit_recall.py` on four kinds of memories, those of `certainty` by
`benchmarks/relevance.py`; what these scripts print was found with weights fitted on the rest.
Constants outside `Weights` and `CertaintyWeights` are not fitted.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Weights:
    """What each signal counts for. Relevance signals are z-scores over all memories ranked."""

    bm25: float
    bigrams: float
    semantic: float
    alone: float
    """Of the semantic signal in addition, for a memory of no episode."""
    tokens: float
    """Of MaxSim, as a z-score over the best `COMPARED_BY_TOKENS`."""
    held: float
    """Of the share of the query that the memory holds, 0 to 1."""
    window: float
    """Of the share that it holds with the two before and behind it in its episode."""
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
    long: float
    """Of how much longer it is than `SHORT_TERMS`, as a logarithm."""
    opening: float
    assistant: float
    """Of being said by no person."""
    information: float


@dataclass(frozen=True, slots=True)
class CertaintyWeights:
    """What each signal of `certainty` counts for, in log-odds."""

    bias: float
    window: float
    unknown: float
    """Below 0: it speaks against."""
    score: float
    cosine: float


ENOUGH_MEMORIES = 400
"""Whose scores tell by themselves how far apart they usually lie. In a smaller session the missing
ones are thought to lie about the mean as usual: few scores say little of what is usual, and the
highest z-score of n is √(n − 1), whatever it tells."""

USUAL_SPREAD = {
    "bm25": 0.075, "bigrams": 0.07, "semantic": 0.085, "information": 0.55, "tokens": 0.11,
}  # fmt: skip
"""The standard deviation of each signal that is usual in a session: of BM25 as a share of the
most that the query could have, of MaxSim among the best `COMPARED_BY_TOKENS`, of the others as they
are. Means over LoCoMo's development part, which vary little from one conversation to the next."""

COMPARED_BY_TOKENS = 100
"""Memories with the best scores whose tokens are compared with the query's."""

SHORT_TERMS = 30
"""Longer memories are about more than one thing."""

BM25_K1 = 0.9
BM25_B = 0.4
"""As Lin, Ma and others set them for short passages (Anserini's defaults)."""

CONTRADICTING = 0.5
"""From this cosine on, the later of two facts may correct the earlier one."""

IMPORTANCE_SCALE = 5.0
"""What effective importance 1 counts for at `importance_weight` 1, in the unit of fitted scores:
about the distance between a memory that answers and one that has nothing to do with the query."""

DEFAULT_IMPORTANCE_WEIGHT = 0.2
"""Enough to order what is equally relevant, too little to lift what is not."""

WITHOUT_EMBEDDER = Weights(
    bm25=0.106, bigrams=0.045, semantic=0.0, alone=0.0, tokens=0.0, held=2.87, window=2.944,
    two_before=0.812, before=0.439, after=0.644, episode=1.963, asked=1.653, speaker=1.441,
    of_self=1.034, span=2.607, when=0.919, amount=1.59, name=0.487, question=-0.208, long=-0.797,
    opening=0.632, assistant=-1.508, information=0.095,
)  # fmt: skip
WITH_WORDS = Weights(
    bm25=0.086, bigrams=0.05, semantic=0.206, alone=0.911, tokens=0.0, held=1.889, window=2.822,
    two_before=0.502, before=0.307, after=0.422, episode=1.324, asked=0.935, speaker=1.455,
    of_self=0.996, span=3.279, when=0.986, amount=1.343, name=0.527, question=-0.2, long=-0.696,
    opening=0.684, assistant=-1.64, information=0.111,
)  # fmt: skip
"""With an embedder that adds up words."""
WITH_SENTENCES = Weights(
    bm25=0.092, bigrams=0.053, semantic=0.33, alone=1.139, tokens=0.0, held=1.426, window=3.038,
    two_before=0.345, before=0.209, after=0.305, episode=0.952, asked=0.719, speaker=1.503,
    of_self=0.874, span=3.396, when=0.953, amount=1.216, name=0.521, question=-0.263, long=-0.701,
    opening=0.73, assistant=-1.674, information=0.131,
)  # fmt: skip
"""With an embedder of whole texts."""
WITH_TOKENS = Weights(
    bm25=0.083, bigrams=0.051, semantic=0.402, alone=1.011, tokens=0.436, held=1.3, window=3.028,
    two_before=0.299, before=0.146, after=0.272, episode=0.836, asked=0.592, speaker=1.528,
    of_self=0.812, span=3.551, when=0.952, amount=1.197, name=0.489, question=-0.234, long=-0.67,
    opening=0.718, assistant=-1.672, information=0.109,
)  # fmt: skip
"""With one that also has vectors of tokens."""

CERTAINTY_OF_TERMS = CertaintyWeights(
    bias=-3.31, window=3.18, unknown=-0.35, score=2.01, cosine=0.0
)
CERTAINTY_OF_WORDS = CertaintyWeights(
    bias=-2.73, window=1.67, unknown=-0.25, score=1.66, cosine=10.94
)
"""With an embedder that adds up words."""
CERTAINTY_OF_SENTENCES = CertaintyWeights(
    bias=-3.32, window=1.45, unknown=-0.31, score=1.91, cosine=9.43
)
"""With an embedder of whole texts."""
