"""The vectors of queries that were asked lately."""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ENTRY_BYTES = 400
"""Of an entry, beside the text and the numbers: keys, an array's head, links. Rather too much."""


class QueryVectors:
    """The latest ones, as far as there is room.

    Each tenant has its own, so that no answer's time tells what another tenant asked.
    """

    def __init__(self, room: int) -> None:
        """`room`: in bytes."""
        self._room = room
        self._vectors: OrderedDict[tuple[str, str], NDArray[np.float32]] = OrderedDict()
        self.nbytes = 0

    def get(self, tenant: str, text: str) -> NDArray[np.float32] | None:
        """The vector of a text, if it is kept."""
        vector = self._vectors.get((tenant, text))
        if vector is not None:
            self._vectors.move_to_end((tenant, text))
        return vector

    def keep(self, tenant: str, text: str, vector: NDArray[np.float32]) -> None:
        """Keep a vector, in place of those that were not asked for the longest."""
        if (tenant, text) in self._vectors:
            return
        self._vectors[tenant, text] = vector
        self.nbytes += _size(text, vector)
        while self.nbytes > self._room:
            (_, forgotten), its_vector = self._vectors.popitem(last=False)
            self.nbytes -= _size(forgotten, its_vector)


def _size(text: str, vector: NDArray[np.float32]) -> int:
    return sys.getsizeof(text) + vector.nbytes + _ENTRY_BYTES
