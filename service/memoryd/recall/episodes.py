"""Which memories belong to one episode, and what their neighbours there lend them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]
    Places = NDArray[np.int64]

Value = TypeVar("Value", bound=np.generic)

NO_EPISODE = -1


BEST_OF_EPISODE = 3

_MOST_PADDING = 4
"""Times as many places as memories, in a table of episodes as long as the longest."""


class Lending(NamedTuple):
    """How much of its relevance a neighbour lends each memory; 0 where there is none.

    In the order of `Episodes`. Shape (memories,), but without the first ones or the last one,
    which have no such neighbour.
    """

    two_before: Floats
    """Without the first two."""
    before: Floats
    """Without the first."""
    after: Floats
    """Without the last."""
    episode: float
    """Of the mean of the best three of an episode."""


class Episodes:
    """Of memories in creation order. Inside, they are in the order of episodes.

    That is the same where no two episodes are interleaved, as they mostly are not.
    """

    def __init__(self, episodes: NDArray[np.int64]) -> None:
        """`episodes` has a number for each memory, `NO_EPISODE` for one of none."""
        self._count = count = len(episodes)
        starts = _starts(episodes)
        heads = episodes[starts]
        told = heads[heads != NO_EPISODE]
        self._order: Places | None = None
        """Where the memories stand; None: where they are."""
        if len(np.unique(told)) < len(told):
            self._order = np.argsort(episodes, kind="stable")
            episodes = episodes[self._order]
            starts = _starts(episodes)
        self._starts = starts
        self._sizes = np.diff(starts, append=count)
        self._told = episodes[starts] != NO_EPISODE
        """Which runs of memories are an episode, and not of none."""
        told = episodes != NO_EPISODE
        self._there = there = np.zeros((3, count), np.bool_)
        """Whether the memory two before, the one before and the one after are of its episode."""
        there[1, 1:] = (episodes[1:] == episodes[:-1]) & told[1:]
        there[0, 1:] = there[1, 1:] & there[1, :-1]
        there[2, :-1] = there[1, 1:]
        self._opens = told & ~there[0]
        self.are_any = bool(self._told.any())
        """Whether any memory is of an episode."""

    @cached_property
    def opens(self) -> Floats:
        """1 for the first two memories of each episode. In creation order."""
        return self._in_creation_order(self._opens.astype(np.float64))

    def lending(
        self, *, two_before: float, before: float, after: float, episode: float, asked: Floats
    ) -> Lending:
        """What neighbours lend, given what each kind counts for.

        `asked` has for each memory, in creation order, what it lends the next one in addition.
        """
        has_two, has_one, has_next = self._there
        of_before: Floats = (self._in_order(asked)[:-1] + before) * has_one[1:]
        return Lending(
            np.multiply(has_two[2:], two_before, dtype=np.float64),
            of_before,
            np.multiply(has_next[:-1], after, dtype=np.float64),
            episode,
        )

    def context(self, relevance: Floats, lent: Lending) -> Floats:
        """What neighbours lend each memory of their relevance. Both have shape (memories,)."""
        own = self._in_order(relevance)
        context = np.repeat(lent.episode * self._best(relevance), self._sizes)
        behind, second, ahead = context[1:], context[2:], context[:-1]
        behind += lent.before * own[:-1]
        second += lent.two_before * own[:-2]
        ahead += lent.after * own[1:]
        return self._in_creation_order(context)

    def window(self, bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The bits of each memory and of the two before and behind it in its episode, or-ed.

        The last axis is that of memories.
        """
        own = bits if self._order is None else bits[..., self._order]
        window = own.copy()
        has_two, has_one, has_next = self._there.view(np.uint8)
        window[..., 2:] |= own[..., :-2] * has_two[2:]
        window[..., 1:] |= own[..., :-1] * has_one[1:]
        window[..., :-1] |= own[..., 1:] * has_next[:-1]
        window[..., :-2] |= own[..., 2:] * has_two[2:]
        return self._in_creation_order(window)

    def near(self, mask: Mask) -> Mask:
        """Those of a mask, and their neighbours. Both have shape (memories,)."""
        own = self._in_order(mask)
        near: Mask = own.copy()
        has_two, has_one, has_next = self._there
        near[1:] |= own[:-1] & has_one[1:]
        near[:-1] |= own[1:] & has_next[:-1]
        near[2:] |= own[:-2] & has_two[2:]
        return self._in_creation_order(near)

    def _best(self, relevance: Floats) -> Floats:
        """The mean relevance of the best three of each run that is an episode; of others 0."""
        total = np.zeros(len(self._starts))
        most = np.minimum(self._sizes, BEST_OF_EPISODE)
        if self._table is not None:
            padded = np.empty(self._count + 1)
            padded[:-1] = relevance
            padded[-1] = -np.inf
            rows = padded.take(self._table)
            rows.partition(rows.shape[1] - BEST_OF_EPISODE, axis=1)
            best = rows[:, -BEST_OF_EPISODE:]
            if self._has_short:
                best[np.isinf(best)] = 0.0
            total[self._told] = np.add.reduce(best, axis=1)
        else:
            own = self._in_order(relevance)
            runs = np.repeat(np.arange(len(self._sizes)), self._sizes)
            falling = np.lexsort((-own, runs))
            place = np.arange(self._count) - np.repeat(self._starts, self._sizes)
            chosen = falling[place < BEST_OF_EPISODE]
            np.add.at(total, runs[chosen], own[chosen])
            total[~self._told] = 0.0
        means: Floats = total / most
        return means

    @cached_property
    def _has_short(self) -> bool:
        return bool((self._sizes[self._told] < BEST_OF_EPISODE).any())

    @cached_property
    def _table(self) -> Places | None:
        """Where the memories of each episode stand, a row an episode, filled up with their number.

        None where the episodes' lengths differ so much that it would be large.
        """
        sizes, starts = self._sizes[self._told], self._starts[self._told]
        longest = max(int(sizes.max()), BEST_OF_EPISODE)
        if len(sizes) * longest > _MOST_PADDING * self._count:
            return None
        within = np.arange(longest)
        table: Places = starts[:, np.newaxis] + within
        beyond = within >= sizes[:, np.newaxis]
        table[beyond] = 0
        if self._order is not None:
            table = self._order[table]
        table[beyond] = self._count
        return table

    def _in_order(self, values: NDArray[Value]) -> NDArray[Value]:
        return values if self._order is None else values[self._order]

    def _in_creation_order(self, values: NDArray[Value]) -> NDArray[Value]:
        if self._order is None:
            return values
        back = np.empty_like(values)
        back[..., self._order] = values
        return back


def _starts(episodes: NDArray[np.int64]) -> Places:
    """Where runs of equal numbers start."""
    changes: Places = np.flatnonzero(episodes[1:] != episodes[:-1]) + 1
    return np.concatenate([np.zeros(min(1, len(episodes)), np.int64), changes])
