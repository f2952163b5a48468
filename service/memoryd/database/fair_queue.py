"""What waits, by tenant: each has its turn, however much another has waiting."""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

QUANTUM = 16
"""By weight, what a tenant may take in one turn while others wait."""


class _Waiting(Generic[T]):
    """What one tenant has waiting."""

    __slots__ = ("credit", "items", "weight")

    def __init__(self) -> None:
        self.items: deque[tuple[T, int]] = deque()
        self.weight = 0
        self.credit = 0
        """What it may still take."""


class FairQueue(Generic[T]):
    """Deficit round robin (Shreedhar and Varghese, 1995) over tenants, first in first out in each.

    What a tenant's turn gives and its next item exceeds, is kept for its next turn, as long as it
    has something waiting.
    """

    def __init__(self, quantum: int = QUANTUM) -> None:
        """`quantum`: what a tenant may take in one turn while others wait, by weight."""
        self._quantum = quantum
        self._tenants: dict[str, _Waiting[T]] = {}
        """Those that have something waiting, in the order of their turns."""
        self._length = 0
        self._is_within_turn = False
        """Whether the first tenant's turn was begun."""
        self.weight = 0
        """Of all that waits."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        chained = itertools.chain.from_iterable(w.items for w in self._tenants.values())
        return (item for item, _ in chained)

    @property
    def tenants(self) -> int:
        """How many have something waiting."""
        return len(self._tenants)

    def weight_of(self, tenant: str) -> int:
        waiting = self._tenants.get(tenant)
        return 0 if waiting is None else waiting.weight

    def add(self, tenant: str, item: T, weight: int) -> None:
        waiting = self._tenants.get(tenant)
        if waiting is None:
            waiting = self._tenants[tenant] = _Waiting()
        waiting.items.append((item, weight))
        waiting.weight += weight
        self.weight += weight
        self._length += 1

    def remove(self, tenant: str, item: T) -> None:
        """Remove an item, if it is there still."""
        waiting = self._tenants.get(tenant)
        for entry in waiting.items if waiting is not None else ():
            if waiting is not None and entry[0] is item:
                waiting.items.remove(entry)
                waiting.weight -= entry[1]
                self.weight -= entry[1]
                self._length -= 1
                break
        if waiting is not None and not waiting.items:
            del self._tenants[tenant]

    def take(self, room: int, *, most_tenants: int) -> list[T]:
        """Remove what is next and fits into the room, by weight; one item always does.

        It is of no more tenants than said.
        """
        taken: list[T] = []
        taken_of: set[str] = set()
        left = room
        while self._tenants:
            tenant, waiting = next(iter(self._tenants.items()))
            if tenant not in taken_of and len(taken_of) == most_tenants:
                return taken
            if len(self._tenants) == 1:
                waiting.credit = room
            elif not self._is_within_turn:
                waiting.credit += self._quantum
            self._is_within_turn = False
            while waiting.items:
                item, weight = waiting.items[0]
                cost = min(weight, room)
                if cost > waiting.credit:
                    break
                if cost > left:
                    self._is_within_turn = True  # which goes on when there is room again
                    return taken
                waiting.items.popleft()
                waiting.credit -= cost
                waiting.weight -= weight
                left -= cost
                self.weight -= weight
                self._length -= 1
                taken.append(item)
                taken_of.add(tenant)
            del self._tenants[tenant]
            if waiting.items:
                self._tenants[tenant] = waiting  # behind the others
        return taken
