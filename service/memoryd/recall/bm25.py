"""How much memories hold of a query's terms (Robertson and Zaragoza, 2009)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from memoryd.recall.weights import BM25_B, BM25_K1

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Held(NamedTuple):
    """What each memory holds of a query. Both have shape (memories,)."""

    scores: Floats
    """BM25."""
    covered: Floats
    """The sum of the shares of the terms held, 0 to 1."""


def bm25(
    lengths: NDArray[np.int64],
    holders: NDArray[np.int64],
    places: NDArray[np.int64],
    weight: Floats,
    mean_length: float,
    *,
    shares: Floats,
) -> Held:
    """BM25, given which memory holds which of the query's terms, in the order of memories.

    `lengths` has for each memory how many terms it has, `shares` the share that each term has in
    the query.
    """
    pairs = holders * len(weight) + places
    pairs.sort()
    is_first = np.ones(len(pairs), np.bool_)
    np.not_equal(pairs[1:], pairs[:-1], out=is_first[1:])
    firsts = np.flatnonzero(is_first)
    frequency = np.full(len(firsts), len(pairs))
    frequency[:-1] = firsts[1:]
    frequency -= firsts
    holders, places = np.divmod(pairs[firsts], len(weight))
    saturation = BM25_K1 * (1 - BM25_B + BM25_B * lengths[holders] / mean_length)
    gains = weight[places] * frequency * (BM25_K1 + 1) / (frequency + saturation)
    return Held(
        np.bincount(holders, gains, minlength=len(lengths)).astype(np.float64, copy=False),
        np.bincount(holders, shares[places], minlength=len(lengths)).astype(np.float64, copy=False),
    )
