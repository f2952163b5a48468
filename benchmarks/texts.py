"""Contents, queries and metadata from made-up words, the same in every run."""

from __future__ import annotations

import random

SEED = 7
CONTENT_BYTES = 100
VOCABULARY = 5_000
QUERY_WORDS = 6
METADATA = {"source": "chat", "turn": 17}


class Texts:
    """Makes texts one after the other."""

    def __init__(self, seed: int = SEED) -> None:
        self._chance = random.Random(seed)  # noqa: S311  repeatable, not secret
        letters = "abcdefghijklmnopqrstuvwxyz"
        self._words = [
            "".join(self._chance.choices(letters, k=self._chance.randint(3, 9)))
            for _ in range(VOCABULARY)
        ]

    def content(self) -> str:
        """A content that practically never repeats."""
        words = " ".join(self._chance.choices(self._words, k=CONTENT_BYTES // 4))
        return words[: CONTENT_BYTES - 1] + "x"  # no space at the end

    def query(self) -> str:
        return " ".join(self._chance.choices(self._words, k=QUERY_WORDS))

    def importance(self) -> float:
        """An importance above the threshold of retrieval without a query."""
        return self._chance.uniform(0.4, 1.0)
