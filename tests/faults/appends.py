"""Appends of many callers to the same conversations, compared with what the database holds.

Every body is unique, so it tells which append a stored message is of, and which pop took it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .journals import Findings, Notes, Span
from .promises import Broken, Fault, shortened
from .stored_conversations import Conversation, Conversations, Line

Bodies = tuple[bytes, ...]
Place = tuple[str, str]
"""A session and a conversation of it."""

NEVER = float("inf")


@dataclass
class Append:
    """A call that appends messages."""

    conversation_id: str
    bodies: Bodies
    revision: int = 0
    """That it was answered with."""
    answered: float = NEVER
    """When, in seconds of a monotonic clock. Never: it is in doubt."""

    def up_to(self, moment: float) -> Append:
        return self if self.answered <= moment else Append(self.conversation_id, self.bodies)


class Pop(NamedTuple):
    """An answered call that pops messages."""

    conversation_id: str
    bodies: Bodies
    answered: float


class Read(NamedTuple):
    """The messages that a list has shown after one of them."""

    conversation_id: str
    after: bytes
    bodies: Bodies
    answered: float


@dataclass
class Appends(Notes):
    """The calls of one caller on conversations that others use, too."""

    appends: list[Append] = field(default_factory=list)
    pops: list[Pop] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    until: float = NEVER
    """Pops that were answered later may have been made or not."""

    def up_to(self, moment: float) -> Appends:
        """What a copy made after a moment may show."""
        return dataclasses.replace(
            self,
            appends=[one.up_to(moment) for one in self.appends],
            reads=[one for one in self.reads if one.answered <= moment],
            until=moment,
        )


def find_append_faults(callers: Sequence[Appends], stored: Conversations) -> Findings:
    """Find every broken promise about conversations that callers share."""
    faults = [fault for caller in callers for fault in caller.faults]
    used: dict[str, Span] = {}
    lines = {(one.session_id, one.conversation_id): one.head for one in stored.held}
    for place, calls in _by_place(callers).items():
        shared = _Shared(place, calls, lines.get(place, ()))
        faults += shared.faults()
        used[place[0]] = used.get(place[0], Span()).plus(shared.used())
    return Findings(faults, used)


def shared_by(callers: Iterable[Appends]) -> set[Place]:
    """The conversations that callers share."""
    return {*_by_place(callers)}


def branches_of(conversation: Conversation) -> Iterator[Fault]:
    """Find branches of a conversation whose callers only append and pop."""
    if conversation.others:
        what = f"{conversation.conversation_id} has branches: {conversation.others}"
        yield Fault(Broken.UNWANTED, what)


@dataclass
class _Calls:
    """On one conversation."""

    appends: list[Append] = field(default_factory=list)
    pops: list[tuple[Pop, bool]] = field(default_factory=list)
    """With whether it is certain that it was made."""
    reads: list[Read] = field(default_factory=list)


def _by_place(callers: Iterable[Appends]) -> Mapping[Place, _Calls]:
    found: defaultdict[Place, _Calls] = defaultdict(_Calls)
    for caller in callers:
        name = caller.session_id
        for append in caller.appends:
            found[name, append.conversation_id].appends.append(append)
        for pop in caller.pops:
            is_certain = pop.answered <= caller.until
            found[name, pop.conversation_id].pops.append((pop, is_certain))
        for read in caller.reads:
            found[name, read.conversation_id].reads.append(read)
    return found


class _Shared:
    """One conversation."""

    def __init__(self, place: Place, calls: _Calls, line: Line) -> None:
        self._place = "/".join(place)
        self._calls = calls
        self._line = line
        self._at = {message.said.body: at for at, message in enumerate(line)}
        self._popped = Counter(body for pop, _ in calls.pops for body in pop.bodies)
        """Also by pops of which it is not certain that they were made."""
        self._gone = {body for pop, is_certain in calls.pops if is_certain for body in pop.bodies}

    def used(self) -> Span:
        """The revisions that its calls have used."""
        span = Span()
        for append in self._calls.appends:
            least = any(body in self._at or body in self._gone for body in append.bodies)
            most = least or any(body in self._popped for body in append.bodies)
            span = span.plus(Span(least, most))
        for pop, is_certain in self._calls.pops:
            span = span.plus(Span(is_certain and bool(pop.bodies), bool(pop.bodies)))
        return span

    def faults(self) -> Iterator[Fault]:
        for append in self._calls.appends:
            yield from self._check_append(append)
        yield from self._check_bodies()
        for read in self._calls.reads:
            start = self._at.get(read.after, -1) + 1
            then = tuple(m.said.body for m in self._line[start : start + len(read.bodies)])
            if then != read.bodies:
                what = f"{len(read.bodies)} after {shortened(read.after)}"
                yield self._fault(Broken.PHANTOM, f"a list has shown others: {what}")

    def _check_append(self, append: Append) -> Iterator[Fault]:
        named = f"{len(append.bodies)} with {shortened(append.bodies[0])}"
        there = [body for body in append.bodies if body in self._at]
        missing = [
            body for body in append.bodies if body not in self._at and body not in self._popped
        ]
        if append.answered < NEVER:
            if missing:
                yield self._fault(Broken.LOST, f"{len(missing)} of {named} at {append.revision}")
        elif missing and (there or self._gone.intersection(append.bodies)):
            yield self._fault(Broken.HALF, f"{len(missing)} of {named} are missing")
        # Pops take the last ones of an append first.
        places = [self._at[body] for body in there]
        is_begin = there == list(append.bodies[: len(there)])
        if places and (not is_begin or places != [*range(places[0], places[0] + len(places))]):
            yield self._fault(Broken.INTERLEAVED, f"{named} are at {places}")
        revisions = {self._line[at].revision for at in places}
        if len(revisions) > 1 or (append.revision and revisions - {append.revision}):
            what = f"{named}: stored at {revisions}, answered at {append.revision}"
            yield self._fault(Broken.GAP, what)

    def _check_bodies(self) -> Iterator[Fault]:
        for body, count in self._popped.items():
            if count > 1:
                yield self._fault(Broken.TAKEN, f"{shortened(body)} by {count}")
        sent = {body for append in self._calls.appends for body in append.bodies}
        for body in self._at.keys() - sent:
            yield self._fault(Broken.UNWANTED, f"{shortened(body)} was sent by none")
        for body in self._at.keys() & self._gone:
            yield self._fault(Broken.UNWANTED, f"{shortened(body)} was popped")
        revisions = [message.revision for message in self._line]
        if revisions != sorted(revisions):
            yield self._fault(Broken.INTERLEAVED, f"the revisions are {revisions}")

    def _fault(self, kind: Broken, what: str) -> Fault:
        return Fault(kind, f"{self._place}: {what}")
