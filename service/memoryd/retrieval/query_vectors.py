"""The vectors of queries that were asked lately."""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memoryd.recall.signals import Meaning

_ENTRY_BYTES = 400
"""Of an entry, and of its tokens, beside texts and numbers: keys, an array's head, links. Rather
too much."""


class QueryVectors:
    """The latest ones, as far as there is room.

    Each tenant has its own, so that no answer's time tells what another tenant asked.
    """

    def __init__(self, room: int) -> None:
        """`room`: in bytes."""
        self._room = room
        self._meanings: OrderedDict[tuple[str, str], Meaning] = OrderedDict()
        self.nbytes = 0

    def get(self, tenant: str, text: str) -> Meaning | None:
        """The meaning of a text, if it is kept."""
        meaning = self._meanings.get((tenant, text))
        if meaning is not None:
            self._meanings.move_to_end((tenant, text))
        return meaning

    def keep(self, tenant: str, text: str, meaning: Meaning) -> None:
        """Keep a meaning, in place of those that were not asked for the longest."""
        if (tenant, text) in self._meanings:
            return
        self._meanings[tenant, text] = meaning
        self.nbytes += _size(text, meaning)
        while self.nbytes > self._room:
            (_, forgotten), its_meaning = self._meanings.popitem(last=False)
            self.nbytes -= _size(forgotten, its_meaning)


def _size(text: str, meaning: Meaning) -> int:
    size = sys.getsizeof(text) + meaning.vector.nbytes + _ENTRY_BYTES
    if meaning.tokens is None:
        return size
    words = sum(map(sys.getsizeof, meaning.tokens.words))
    return size + meaning.tokens.vectors.nbytes + words + _ENTRY_BYTES
