"""Okapi BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009)."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

K1 = 0.9
"""How soon repeating a word stops to count."""

B = 0.4
"""How far long texts are marked down."""

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores, in lower case."""
    return _WORD.findall(text.lower())


def bm25(documents: Sequence[str], query: str) -> list[float]:
    """The relevance of each document to the query, 0 where they share no word."""
    counts = [Counter(words(document)) for document in documents]
    lengths = [count.total() for count in counts]
    mean_length = (sum(lengths) / len(lengths) if lengths else 0.0) or 1.0
    scores = [0.0] * len(documents)
    for word in dict.fromkeys(words(query)):
        holders = [(place, count[word]) for place, count in enumerate(counts) if word in count]
        rarity = math.log(1 + (len(documents) - len(holders) + 0.5) / (len(holders) + 0.5))
        for place, frequency in holders:
            saturation = K1 * (1 - B + B * lengths[place] / mean_length)
            scores[place] += rarity * frequency * (K1 + 1) / (frequency + saturation)
    return scores
