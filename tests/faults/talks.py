"""A conversation as its one caller knows it: what was said on each branch. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from memoryd.v1 import conversation_pb2 as pb

from .promises import shortened

_NOT_SET_BY_CALLERS = (
    *("message_id", "parent_message_id", "token_count_estimated", "create_time", "revision"),
)


class Said(NamedTuple):
    """A message."""

    message_id: str
    body: bytes

    def __repr__(self) -> str:
        return f"{self.message_id}={shortened(self.body)}"


Way = tuple[Said, ...]
"""The messages of a branch, from the first one on."""


class Talk(NamedTuple):
    """A conversation."""

    head: Way = ()
    others: frozenset[Way] = frozenset()
    """The branches that do not lead to the head: each to its last message."""
    summary: tuple[str, str] | None = None
    """Its text, and the id of the message that it ends with."""
    state: str = ""
    """What the last append with a patch has set."""

    @property
    def ways(self) -> Iterator[Way]:
        """To every message: the branches, each to its last message, and that of the head."""
        yield self.head
        yield from self.others

    @property
    def places(self) -> dict[str, Way]:
        """The way to each message, by its id."""
        return {way[n - 1].message_id: way[:n] for way in self.ways for n in range(1, len(way) + 1)}

    @property
    def ends(self) -> frozenset[Way]:
        """Every branch, to its last message."""
        if not self.head or any(_leads_to(other, self.head) for other in self.others):
            return self.others
        return self.others | {self.head}

    def appended(self, said: Iterable[Said]) -> Talk:
        return self._replace(head=(*self.head, *said))

    def popped(self, count: int) -> Talk:
        left = self._replace(head=self.head[: max(0, len(self.head) - count)])
        if left.summary is None or left.summary[1] in left.places:
            return left
        return left._replace(summary=(left.summary[0], ""))

    def moved(self, to: Way) -> Talk:
        """With another head."""
        others = frozenset(end for end in self.ends if not _leads_to(to, end))
        return self._replace(head=to, others=others)

    def forked(self, at: Way) -> Talk:
        """Another conversation that shares the messages up to one."""
        return Talk(head=at, state=self.state)


def _leads_to(way: Way, other: Way) -> bool:
    return way[: len(other)] == other


def said_of(message: pb.Message) -> Said:
    """A message of an answer, or of a request."""
    kept = pb.Message()
    kept.CopyFrom(message)
    for field in _NOT_SET_BY_CALLERS:
        kept.ClearField(field)
    if message.token_count_estimated:
        kept.ClearField("token_count")
    return Said(message.message_id, kept.SerializeToString(deterministic=True))


def are_linked(messages: Iterable[pb.Message]) -> bool:
    """Whether each message follows the one before it."""
    last = None
    for message in messages:
        if last not in (None, message.parent_message_id):
            return False
        last = message.message_id
    return True
