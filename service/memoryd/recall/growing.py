"""Arrays with room for more at their ends, so that appending copies only what is new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray

    Places = NDArray[np.int64]

_SPARE_ROOM = 8
"""When values move, there is room for one more of so many."""


class Growing:
    """Values of one type, or rows of them."""

    def __init__(self, dtype: DTypeLike, width: int | None = None) -> None:
        """`width`: of a row; None: single values."""
        self._room: NDArray[Any] = np.zeros(0 if width is None else (0, width), dtype)
        self.values = self._room
        """The first ones of the room."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """Of the whole room."""
        return self._room.nbytes

    def append(self, values: NDArray[Any]) -> None:
        """Put values behind all others."""
        before = len(self.values)
        count = before + len(values)
        if count > len(self._room):
            room = np.empty((count + count // _SPARE_ROOM, *self._room.shape[1:]), self._room.dtype)
            room[:before] = self.values
            self._room = room
        self.values = self._room[:count]
        self.values[before:] = values

    def replace(self, values: NDArray[Any]) -> None:
        """Have these values instead, without room for more."""
        self._room = self.values = values


class Ragged:
    """A run of whole numbers for each memory, one run after the other."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._dtype = dtype
        self._values = Growing(dtype)
        self._ends = Growing(np.int64)
        self._lengths = Growing(np.int64)

    @property
    def values(self) -> NDArray[Any]:
        return self._values.values

    @property
    def ends(self) -> Places:
        """Where in `values` each run ends."""
        return self._ends.values

    @property
    def nbytes(self) -> int:
        return self._values.nbytes + self._ends.nbytes + self._lengths.nbytes

    @property
    def lengths(self) -> Places:
        """Of each run."""
        return self._lengths.values

    def run(self, place: int) -> NDArray[Any]:
        """One of them."""
        start = self.ends[place - 1] if place else 0
        return self.values[start : self.ends[place]]

    def append(self, runs: Sequence[Sequence[int]]) -> None:
        """Put runs behind all others."""
        lengths = np.array([*map(len, runs)])
        self._lengths.append(lengths)
        self._ends.append(np.cumsum(lengths) + len(self._values))
        self._values.append(self._joined(runs))

    def arrange(self, kept: Places, fresh: Sequence[Sequence[int]], order: Places) -> None:
        """Have the runs kept, followed by fresh ones, in an order.

        `kept` has the places of those that stay, `order` for each place from now on which of all
        these stands there.
        """
        added = np.array([*map(len, fresh)], np.int64)
        lengths = np.concatenate([self.lengths[kept], added])[order]
        begins = np.concatenate(
            [(self.ends - self.lengths)[kept], len(self._values) + np.cumsum(added) - added]
        )[order]
        values = np.concatenate([self.values, self._joined(fresh)])
        ends = np.cumsum(lengths)
        source = np.repeat(begins - (ends - lengths), lengths) + np.arange(lengths.sum())
        self._values.replace(values[source])
        self._ends.replace(ends)
        self._lengths.replace(lengths)

    def renumber(self, used: Places) -> None:
        """Have each value's place among those used, which are sorted, instead of it."""
        self._values.replace(np.searchsorted(used, self.values).astype(self._dtype))

    def _joined(self, runs: Sequence[Sequence[int]]) -> NDArray[Any]:
        return np.array([value for run in runs for value in run], self._dtype)
