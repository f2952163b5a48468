"""MaxSim: how near the tokens of a query find their like among those of a memory.

The late interaction of ColBERT (Khattab and Zaharia, 2020), over token vectors that a sentence
transformer makes anyhow: a vector of a whole text forgets which word said what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Tokens = NDArray[np.int8]

_MOST = 127

_DECIMALS = 5
"""Of a cosine, that count."""


def quantised(vectors: Floats) -> Tokens:
    """Vectors in 8 bits, each with a scale of its own, which no cosine needs. Shape as given."""
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=1e-9)
    tokens: Tokens = np.rint(vectors * (_MOST / largest)).astype(np.int8)
    return tokens


def maxsim(
    query: Floats, weights: NDArray[np.float64], tokens: Tokens, counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The cosine of each of the query's tokens with the nearest token of a memory, added up.

    `query` has shape (query tokens, dimensions), rows of length 1; `weights` what each counts for;
    `tokens` those of all memories, one memory after the other: shape (tokens, dimensions); `counts`
    how many each has: shape (memories,), as what is answered. 0 for a memory without tokens, and
    for a query without.
    """
    found = np.zeros(len(counts))
    told = np.flatnonzero(counts)
    if not len(query) or not len(told):
        return found
    rows = tokens.astype(np.float32)
    lengths = np.sqrt(np.einsum("td,td->t", rows, rows))
    cosines = query @ rows.T
    cosines /= np.maximum(lengths, 1e-9)
    ends = np.cumsum(counts)
    starts = (ends - counts)[told]
    # A sum's last bits depend on where an array lies in memory; the order of results must not.
    nearest = np.maximum.reduceat(cosines, starts, axis=1).round(_DECIMALS)
    found[told] = weights @ nearest
    return found
