"""How alike memories are, whatever is asked: for finding near duplicates and paraphrases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from memoryd.recall.languages import language_of
from memoryd.recall.text import analyser, words_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from memoryd.recall.index import SessionIndex

    Floats = NDArray[np.float64]

_DECIMALS = 5


def similar_to_text(
    index: SessionIndex, text: str, vector: NDArray[np.float32] | None = None
) -> Floats:
    """The similarity of a text to each memory, 0 to 1. Shape (memories,), in the index's order.

    The cosine of the vectors (below 0 counts as 0) where both have one, else that of the terms'
    frequencies times IDF. `vector` is the text's, of length 1.
    """
    words = words_of(text)
    terms = analyser(language_of(words, index.language)).terms(words)
    counts = np.zeros(index.terms_known)
    outside: dict[str, int] = {}
    for term in terms:
        number = index.number(term)
        if number is None:
            outside[term] = outside.get(term, 0) + 1
        else:
            counts[number] += 1
    strangers = sum(count * count for count in outside.values()) * index.rarest_idf**2
    return _similarities(index, counts, strangers, vector)


def similar_to_memory(index: SessionIndex, memory_id: str) -> Floats:
    """As `similar_to_text`, for a memory of the index; to itself it is 1. Raises `KeyError`."""
    place = index.place(memory_id)
    counts = np.bincount(index.own_numbers(place), minlength=index.terms_known).astype(np.float64)
    vector = index.vectors[place] if index.rows["has_vector"][place] else None
    similarities = _similarities(index, counts, 0.0, vector)
    similarities[place] = 1.0
    return similarities


def _similarities(
    index: SessionIndex, counts: Floats, strangers: float, vector: NDArray[np.float32] | None
) -> Floats:
    weights = counts * index.idf**2
    begins = index.ends - index.rows["terms"]
    every = np.repeat(np.arange(len(index)), index.lengths)
    of_content = np.arange(len(index.tokens)) >= begins[every]
    tokens, holders = index.tokens[of_content], every[of_content]
    # Each token adds its term's weight, so a term that a memory repeats counts as often.
    products = np.bincount(holders, weights[tokens], minlength=len(index))
    length = np.sqrt(float(counts @ weights) + strangers)
    lengths = _lengths(index, tokens, holders)
    cosines = np.divide(
        products, length * lengths, out=np.zeros(len(index)), where=length * lengths > 0
    )
    if vector is not None:
        known = index.rows["has_vector"]
        meant = index.vectors @ vector
        cosines = np.where(known, meant.astype(np.float64), cosines)
    similarities: Floats = np.round(np.clip(cosines, 0.0, 1.0), _DECIMALS)
    return similarities


def _lengths(index: SessionIndex, tokens: NDArray[np.int32], holders: NDArray[np.int64]) -> Floats:
    pairs, counts = np.unique(holders * max(1, index.terms_known) + tokens, return_counts=True)
    where, terms = np.divmod(pairs, max(1, index.terms_known))
    squares = np.square(counts * index.idf[terms])
    return np.sqrt(np.bincount(where, squares, minlength=len(index)))
