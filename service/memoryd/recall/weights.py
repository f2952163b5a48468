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
    bm25=0.102, bigrams=0.039, semantic=0.0, alone=0.0, tokens=0.0, held=2.923, window=2.641,
    two_before=0.812, before=0.439, after=0.644, episode=1.963, asked=1.653, speaker=1.232,
    of_self=0.777, span=1.333, when=0.807, amount=1.378, name=0.422, question=-0.156, long=-0.892,
    opening=0.517, assistant=-2.126, information=0.083,
)  # fmt: skip
WITH_WORDS = Weights(
    bm25=0.087, bigrams=0.047, semantic=0.166, alone=0.801, tokens=0.0, held=1.993, window=2.38,
    two_before=0.502, before=0.307, after=0.422, episode=1.324, asked=0.935, speaker=1.219,
    of_self=0.77, span=1.826, when=0.756, amount=1.143, name=0.42, question=-0.162, long=-0.71,
    opening=0.522, assistant=-2.218, information=0.097,
)  # fmt: skip
"""With an embedder that adds up words."""
WITH_SENTENCES = Weights(
    bm25=0.084, bigrams=0.05, semantic=0.28, alone=0.965, tokens=0.0, held=1.578, window=2.61,
    two_before=0.345, before=0.209, after=0.305, episode=0.952, asked=0.719, speaker=1.291,
    of_self=0.648, span=1.998, when=0.728, amount=1.074, name=0.433, question=-0.23, long=-0.74,
    opening=0.564, assistant=-2.156, information=0.121,
)  # fmt: skip
"""With an embedder of whole texts."""
WITH_TOKENS = Weights(
    bm25=0.068, bigrams=0.045, semantic=0.269, alone=0.699, tokens=0.428, held=-0.128, window=2.468,
    two_before=0.299, before=0.146, after=0.272, episode=0.836, asked=0.592, speaker=1.374,
    of_self=0.589, span=2.358, when=0.712, amount=1.021, name=0.394, question=-0.234, long=-0.54,
    opening=0.475, assistant=-1.806, information=0.008,
)  # fmt: skip
"""With one that also has vectors of tokens."""

CERTAINTY_OF_TERMS = CertaintyWeights(
    bias=-3.22, window=3.37, unknown=-0.33, score=1.99, cosine=0.0
)
CERTAINTY_OF_WORDS = CertaintyWeights(
    bias=-2.62, window=1.64, unknown=-0.26, score=1.75, cosine=11.17
)
"""With an embedder that adds up words."""
CERTAINTY_OF_SENTENCES = CertaintyWeights(
    bias=-3.2, window=1.43, unknown=-0.31, score=1.99, cosine=9.56
)
"""With an embedder of whole texts."""
