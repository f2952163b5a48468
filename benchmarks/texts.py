"""Contents, queries and metadata from made-up words, the same in every run."""

from __future__ import annotations

import json
import random
from typing import Any

SEED = 7
CONTENT_BYTES = 100
DOCUMENT_BYTES = 1024
"""Of a document as JSON."""
VOCABULARY = 5_000
QUERY_WORDS = 6
ANSWER_CONTENTS = 4
"""How many contents the answer to something said has."""
DIALOGUES, DIALOGUE_MESSAGES = 16, 1_000
"""Conversations to read from, and how many messages are in each."""
LAST = 20
"""How many of the newest messages are read."""
METADATA: dict[str, Any] = {"source": "chat", "turn": 17}


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

    def document(self) -> dict[str, object]:
        """A content with numbers, and notes that fill it up."""
        found: dict[str, object] = {
            "content": self.content(),
            "importance": self.importance(),
            "metadata": METADATA,
            "notes": "",
        }
        room = DOCUMENT_BYTES - len(json.dumps(found))
        found["notes"] = "".join(self.content() for _ in range(room // CONTENT_BYTES + 1))[:room]
        return found

    def exchange(self) -> tuple[str, str]:
        """What a user says, and what is answered."""
        return self.content(), " ".join(self.content() for _ in range(ANSWER_CONTENTS))

    def query(self) -> str:
        return " ".join(self._chance.choices(self._words, k=QUERY_WORDS))

    def importance(self) -> float:
        """An importance above the threshold of retrieval without a query."""
        return self._chance.uniform(0.4, 1.0)
