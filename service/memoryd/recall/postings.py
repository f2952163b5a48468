"""Which memories hold each term: what a query looks up, instead of reading all terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Places = NDArray[np.int64]

NOTHING = -1
"""What follows the last term of a memory."""

HEADING = -2
"""What follows a term that is not of the content: who said it, or when."""

UNKNOWN = -3
"""The number of a term that is not known; it follows none."""

OCCURRENCE_BYTES = 3 * 4
TERM_BYTES = 2 * 8

_POSITION_BITS = 32


class Occurrences(NamedTuple):
    """Of some terms, one term after the other. All have shape (occurrences,)."""

    holders: Places
    """The memory that holds it."""
    follows: NDArray[np.int32]
    """The number of the term after it, or `NOTHING`, or `HEADING`."""
    counts: NDArray[np.int32]
    """How often the memory holds the term, at the first of its occurrences there; 0 at others."""
    sizes: list[int]
    """How many there are of each term."""


class Postings:
    """Of consecutive memories of a session; sorted by term, then as they stand in the texts."""

    def __init__(
        self,
        tokens: NDArray[np.int32],
        lengths: Places,
        contents: NDArray[np.int32],
        *,
        first: int,
    ) -> None:
        """`tokens` are the terms of all, of each memory as many as `lengths` says.

        The last of them, as many as `contents` says, are of its content. `first` is the first
        memory's place.
        """
        count = len(tokens)
        ends = np.cumsum(lengths)
        memories = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        follows = np.full(count, NOTHING, np.int32)
        follows[:-1] = tokens[1:]
        follows[ends[lengths > 0] - 1] = NOTHING
        follows[np.arange(count) < np.repeat(ends - contents, lengths)] = HEADING
        # Sorted as one number each, which is much faster than a stable order of the terms.
        keys = tokens.astype(np.int64) << _POSITION_BITS
        keys |= np.arange(count)
        keys.sort()
        terms = keys >> _POSITION_BITS
        order = keys & ((1 << _POSITION_BITS) - 1)
        holders = memories[order]
        begins = np.ones(count, np.bool_)
        np.not_equal(terms[1:], terms[:-1], out=begins[1:])
        self._starts = np.append(np.flatnonzero(begins), count)
        self._terms = terms[self._starts[:-1]]
        begins[1:] |= holders[1:] != holders[:-1]
        firsts = np.flatnonzero(begins)
        self._rows = np.zeros((3, count), np.int32)
        self._rows[0] = holders + first
        self._rows[1] = follows[order]
        self._rows[2, firsts] = np.diff(firsts, append=count)
        self.memories = first + len(lengths)
        """How many memories there are up to its last one."""
        self.occurrences = count

    def of(self, numbers: Sequence[int]) -> Occurrences | None:
        """The occurrences of terms, given by their numbers; None where there are none."""
        terms, starts = self._terms.data, self._starts.data
        places = self._terms.searchsorted(numbers).tolist()
        sizes, parts = [], []
        for number, place in zip(numbers, places, strict=True):
            if place < len(terms) and terms[place] == number:
                start, end = starts[place], starts[place + 1]
                sizes.append(end - start)
                parts.append(self._rows[:, start:end])
            else:
                sizes.append(0)
        if not parts:
            return None
        holders, follows, counts = np.concatenate(parts, axis=1)
        return Occurrences(holders.astype(np.intp), follows, counts, sizes)
