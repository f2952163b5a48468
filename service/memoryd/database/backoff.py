"""Pauses between attempts at something that fails."""

from __future__ import annotations

import random


class BackOff:
    """Each pause is twice as long as the last, up to a limit, and shorter or longer by chance.

    By chance, so that many servers that lost the same database do not come back to it all at once.
    """

    def __init__(self, first: float, longest: float) -> None:
        """Seconds: the first pause and the longest, before chance takes or adds up to a third."""
        self._first = first
        self._longest = longest
        self._next = first

    @property
    def is_fresh(self) -> bool:
        """Whether nothing has failed since the last success."""
        return self._next == self._first

    def reset(self) -> None:
        """Note a success."""
        self._next = self._first

    def pause(self) -> float:
        """Note a failure; give the seconds until the next attempt."""
        pause, self._next = self._next, min(2 * self._next, self._longest)
        return pause * random.uniform(2 / 3, 4 / 3)  # noqa: S311  not secret
