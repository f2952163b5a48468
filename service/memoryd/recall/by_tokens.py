"""Which memories hold the like of each word of a query: MaxSim among those that score best.

A vector of a whole text forgets which word said what; comparing tokens with each of a hundred
memories costs little, with all of them much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from memoryd.recall.maxsim import maxsim
from memoryd.recall.standard import standard
from memoryd.recall.weights import COMPARED_BY_TOKENS, USUAL_SPREAD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from memoryd.recall.corpus import Corpus
    from memoryd.recall.embedders.embedder import QueryTokens
    from memoryd.recall.signals import Query

    Floats = NDArray[np.float64]
    Places = NDArray[np.int64]


def by_tokens(
    query: Query, tokens: QueryTokens, corpus: Corpus, places: Places, reference: Places
) -> Floats:
    """How near the tokens of some memories are to the query's: z-scores. Shape (places,).

    Each token of the query weighs what the query's word does. The z-scores are over the memories of
    `reference`, up to `COMPARED_BY_TOKENS` of them. A memory without tokens gets 0.
    """
    weights = np.array([query.weights.get(query.term_of.get(w, ""), 0.0) for w in tokens.words])
    telling = weights > 0
    every = np.union1d(places, reference)
    held = [() if one is None else one for one in corpus.token_vectors(every)]
    counts = np.array([*map(len, held)])
    is_known = counts > 0
    is_reference = is_known & np.isin(every, reference)
    if not telling.any() or not is_reference.any():
        return np.zeros(len(places))
    near = maxsim(
        tokens.vectors[telling],
        weights[telling] / weights.sum(),
        np.concatenate([one for one in held if len(one)]),
        counts,
    )
    usual = [USUAL_SPREAD["tokens"]]
    known = near[np.newaxis, is_reference]
    standards = standard(known, usual, [known.shape[1]], COMPARED_BY_TOKENS)
    scores = standards.of(near[np.newaxis])[0] * is_known
    found: Floats = scores[np.searchsorted(every, places)]
    return found
