"""What memories share with a query of stop words and signs ("To be or not to be"): these."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from memoryd.recall.arrays import inverse_document_frequency, shares_of
from memoryd.recall.bm25 import bm25
from memoryd.recall.wording import pieces, plain, statement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from memoryd.recall.corpus import Corpus

    Floats = NDArray[np.float64]


class Literal(NamedTuple):
    """As the lexical signals of terms, shape (2, memories)."""

    found: Floats
    weights: Mapping[str, float]
    """The IDF of each word and sign of the query."""
    covered: Floats
    """The share of the query that each memory holds. Shape (memories,)."""
    known: float
    """The share that any memory holds."""


def literal(query: str, corpus: Corpus) -> Literal | None:
    """BM25 and adjacent pairs of what is shared; None where nothing is.

    Contents are read as they stand, since an index has no stop words and no signs.
    """
    # What parts sentences counts only where there is nothing else, as in "?!".
    said = statement if statement(plain(query)) else pieces
    asked = said(plain(query))
    number = {piece: place for place, piece in enumerate(dict.fromkeys(asked))}
    adjacent = {(number[first], number[second]) for first, second in pairwise(asked)}
    found = np.zeros((2, len(corpus)))
    in_order = np.ones(len(corpus))
    lengths = np.fromiter(map(len, corpus.contents()), np.int64)  # in characters
    holders: list[int] = []
    places: list[int] = []
    for memory, content in enumerate(corpus.contents()):
        text = plain(content)
        if not any(piece in text for piece in number):
            continue
        held = [number.get(piece, -1) for piece in said(text)]
        found[1, memory] = sum(map(adjacent.__contains__, pairwise(held)))
        if adjacent:
            in_order[memory] = len(adjacent.intersection(pairwise(held))) / len(adjacent)
        shared = [place for place in held if place >= 0]
        holders += [memory] * len(shared)
        places += shared
    if not holders:
        return None
    pairs = np.unique(np.array([holders, places]), axis=1)
    frequencies = np.bincount(pairs[1], minlength=len(number)).astype(np.int32)
    idf = inverse_document_frequency(frequencies, len(corpus))
    mean_length = max(1.0, float(lengths.mean()))
    shares = np.array(shares_of(frequencies.tolist(), len(corpus)))
    every = bm25(lengths, np.array(holders), np.array(places), idf, mean_length, shares=shares)
    found[0] = every.scores
    return Literal(
        found,
        dict(zip(number, idf.tolist(), strict=True)),
        # Most texts share such words; what tells is that most of them come in the same order.
        every.covered * (2 * in_order - 1).clip(0.0),
        shares[frequencies > 0].sum().item(),
    )
