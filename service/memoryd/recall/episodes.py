"""Which memories of a session belong to one episode, and follow each other there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_EPISODE = -1

OPENING = 2
"""How many memories open an episode."""


class Episodes:
    """Of one session, in creation order."""

    def __init__(self, episodes: NDArray[np.int32]) -> None:
        """`episodes` has a number for each memory, `NO_EPISODE` for one of none."""
        count = len(episodes)
        order = np.argsort(episodes, kind="stable")
        grouped = episodes[order]
        in_episode = grouped != NO_EPISODE
        self.neighbours = np.full((3, count), count, np.int32)
        """Where the memory two before, the one before and the one after stand, in the same episode.

        Shape (3, memories); where there is none, the number of memories.
        """
        for row, distance in enumerate((2, 1)):
            near = in_episode[distance:] & (grouped[distance:] == grouped[:-distance])
            self.neighbours[row, order[distance:][near]] = order[:-distance][near]
        self.neighbours[2, order[:-1][near]] = order[1:][near]
        starts = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]][:count])
        sizes = np.diff(np.append(starts, count))
        self.groups = np.empty(count, np.int64)
        """The episode of each memory, numbered from 0; those of none together, if there are any."""
        self.groups[order] = np.repeat(np.arange(len(starts)), sizes)
        self.count = len(starts)
        """How many such numbers there are."""
        self.opens = np.zeros(count)
        """1 for the first two memories of each episode."""
        self.opens[order] = in_episode & (np.arange(count) - np.repeat(starts, sizes) < OPENING)
