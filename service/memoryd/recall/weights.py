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
    bm25=0.206, bigrams=0.089, rarest=0.153, semantic=0.0,
    two_before=0.517, before=0.676, after=0.32, episode=0.831,
    speaker=2.597, span=3.486, when=1.255, amount=1.822, name=1.168,
    question=-0.65, length=-0.34, information=0.638, opening=0.534,
)  # fmt: skip
WITH_WORDS = Weights(
    bm25=0.112, bigrams=0.078, rarest=0.134, semantic=0.289,
    two_before=0.45, before=0.586, after=0.266, episode=0.916,
    speaker=2.559, span=4.343, when=1.312, amount=1.553, name=1.186,
    question=-0.611, length=-0.286, information=0.585, opening=0.591,
)  # fmt: skip
"""With an embedder that adds up words."""
WITH_SENTENCES = Weights(
    bm25=0.104, bigrams=0.082, rarest=0.135, semantic=0.4,
    two_before=0.374, before=0.512, after=0.232, episode=0.852,
    speaker=2.61, span=4.445, when=1.317, amount=1.473, name=1.102,
    question=-0.624, length=-0.193, information=0.446, opening=0.685,
)  # fmt: skip
"""With an embedder of whole texts."""
