"""What callers know of things that only they change, compared with what the database holds.

Of such things a caller knows at any time what must be there. It keeps that in a `Journal`, state by
state. What the tables show must be the last of these states; a copy made at some time shows one of
those since then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from .promises import Broken, Fault

Name = TypeVar("Name", bound=Hashable)
Thing = TypeVar("Thing")


@dataclass
class Notes:
    """Broken promises that a caller has seen itself."""

    caller: str
    session_id: str
    faults: list[Fault] = field(default_factory=list)

    def compare(self, what: str, found: object, *allowed: object, kind: Broken) -> None:
        """Record a fault unless what was found is allowed."""
        if found not in allowed:
            self.faults.append(Fault(kind, f"{self.caller}: {what}: {found}, not {allowed}"))


@dataclass(frozen=True)
class State(Generic[Name, Thing]):
    """What a caller has after one of its calls."""

    since: float
    """When that call was answered, in seconds of a monotonic clock."""
    held: Mapping[Name, Thing]
    revisions: int
    """How many revisions of the session its calls have used by then."""


@dataclass
class Journal(Notes, Generic[Name, Thing]):
    """What one caller knows of what is its own in a session."""

    states: list[State[Name, Thing]] = field(default_factory=lambda: [State(0.0, {}, 0)])
    earliest: int = -1
    """The place of the first state that may be stored; by default only the last one may."""

    @property
    def held(self) -> Mapping[Name, Thing]:
        """What is there by the last state."""
        return self.states[-1].held

    def add(self, now: float, held: Mapping[Name, Thing], revisions: int) -> None:
        """Record what an answered call has changed, and how many revisions it used."""
        self.states.append(State(now, held, self.states[-1].revisions + revisions))

    def up_to(self, moment: float) -> Journal[Name, Thing]:
        """What a copy made after a moment may show: the state by then, or any later one."""
        known = sum(state.since <= moment for state in self.states)
        return dataclasses.replace(self, earliest=known - 1)


@dataclass
class Events:
    """The events of one watcher of a session, over all its streams."""

    session_id: str
    start_revision: int = 0
    events: list[Any] = field(default_factory=list)

    @property
    def last_revision(self) -> int:
        return self.events[-1].revision if self.events else self.start_revision


class Span(NamedTuple):
    """How many revisions callers may have used."""

    least: int = 0
    most: int = 0

    def plus(self, other: Span) -> Span:
        return Span(self.least + other.least, self.most + other.most)


Used = Mapping[str, Span]
"""By session."""


class Findings(NamedTuple):
    faults: list[Fault]
    used: Used


def compare_journals(
    journals: Iterable[Journal[Any, Any]], found: Mapping[tuple[str, str], Mapping[Any, Any]]
) -> Findings:
    """Compare journals with what is stored, by session and caller."""
    unknown, faults, used = dict(found), list[Fault](), dict[str, Span]()
    for journal in journals:
        faults += journal.faults
        there = unknown.pop((journal.session_id, journal.caller), {})
        allowed = journal.states[journal.earliest :]
        matching = [state for state in allowed if state.held == there]
        if not matching:
            faults += _differences(journal, there)
            matching = allowed
        counts = [state.revisions for state in matching]
        before = used.get(journal.session_id, Span())
        used[journal.session_id] = before.plus(Span(min(counts), max(counts)))
    for (session_id, caller), there in unknown.items():
        faults.append(Fault(Broken.UNWANTED, f"{session_id}: of {caller} there is {there}"))
    return Findings(faults, used)


def _differences(journal: Journal[Any, Any], found: Mapping[Any, Any]) -> Iterator[Fault]:
    """What is stored other than by the last state."""
    expected = journal.held
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            kind = Broken.LOST if name in expected else Broken.UNWANTED
            what = f"{journal.session_id}: {name} is {found.get(name)}"
            yield Fault(kind, f"{what}, not {expected.get(name)}")
