"""The branches of a tree of messages, and the way from a message back to the first. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from memoryd.domain.conversations import NOWHERE, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class Branch(NamedTuple):
    """A run of messages, one after the other."""

    number: int
    """Tells it from others in the session."""
    owner: int
    """The number of the conversation that appends to it."""
    parent: int
    """The branch that it goes on from; 0: it begins with the first message."""
    first_depth: int
    """Of its first message."""
    tokens_before: int
    """Of the messages before it."""

    @property
    def before(self) -> Place:
        """Where the message before its first one stands."""
        return Place(self.parent, self.first_depth - 1) if self.parent else NOWHERE


class Run(NamedTuple):
    """A part of the way: messages of one branch."""

    branch: int
    first: int
    last: int
    """Depths."""
    tokens_before: int
    """Of the messages before the branch."""


class Branches:
    """Some branches, with all those that they go on from."""

    def __init__(self, found: Iterable[Branch] = ()) -> None:
        self._by_number = {branch.number: branch for branch in found}

    def add(self, branch: Branch) -> None:
        self._by_number[branch.number] = branch

    def named(self, number: int) -> Branch:
        return self._by_number[number]

    def way(self, place: Place) -> Iterator[Run]:
        """Give the runs from a message back to the first one."""
        while place.branch:
            branch = self._by_number[place.branch]
            yield Run(branch.number, branch.first_depth, place.depth, branch.tokens_before)
            place = branch.before

    def back_from(self, place: Place) -> Iterator[Place]:
        """Give the places from a message back to the first one."""
        for run in self.way(place):
            for depth in range(run.last, run.first - 1, -1):
                yield Place(run.branch, depth)

    def leads_to(self, place: Place, wanted: Place) -> bool:
        """Whether the way back from a message passes another one, or begins with it."""
        if wanted == NOWHERE:
            return True
        return any(
            run.branch == wanted.branch and wanted.depth <= run.last for run in self.way(place)
        )

    def shared(self, place: Place, other: Place) -> Place:
        """The last message that the ways back from two messages have in common."""
        lasts = {run.branch: run.last for run in self.way(other)}
        for run in self.way(place):
            if run.branch in lasts:
                return Place(run.branch, min(run.last, lasts[run.branch]))
        return NOWHERE

    def needed(self, places: Iterable[Place]) -> dict[int, int]:
        """Up to which depth each branch is part of the way back from any of some messages."""
        needed: dict[int, int] = {}
        for place in places:
            for run in self.way(place):
                if needed.get(run.branch, 0) >= run.last:
                    break  # so is all before it
                needed[run.branch] = run.last
        return needed

    @staticmethod
    def lost(before: Mapping[int, int], after: Mapping[int, int]) -> dict[int, int]:
        """Of two answers of `needed`: the branches that end earlier, with the depth they keep."""
        return {
            branch: kept
            for branch, depth in before.items()
            if (kept := after.get(branch, 0)) < depth
        }
