"""What callers know of their documents, compared with what the database holds in the end.

Each caller has a namespace of its own, so it knows at any time what must be there. It keeps that in
a `Journal`, state by state. What the tables show must be the last of these states; a copy made at
some time shows one of those since then.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from memoryd.v1 import document_pb2 as pb

from .promises import Broken, Fault
from .stored import Body, DocumentVersion, Name, Stored

Versions = tuple[Body, ...]
"""What was put under a name since it was last deleted; the newest last."""


class State(NamedTuple):
    """A caller's documents after one of its calls."""

    since: float
    """When that call was answered, in seconds of a monotonic clock."""
    documents: Mapping[Name, Versions]
    revisions: int
    """How many revisions of the session its calls have used by then."""

    @property
    def current(self) -> dict[Name, Body]:
        return {name: versions[-1] for name, versions in self.documents.items()}


@dataclass
class Journal:
    """What one caller knows of the documents below a namespace of its session."""

    caller: str
    """The first label of the namespace of each of its documents."""
    session_id: str
    states: list[State] = field(default_factory=lambda: [State(0.0, {}, 0)])
    faults: list[Fault] = field(default_factory=list)
    """Broken promises that it has seen itself."""
    earliest: int = -1
    """The place of the first state that may be stored; by default only the last one may."""

    @property
    def last(self) -> State:
        return self.states[-1]

    def add(self, now: float, documents: Mapping[Name, Versions], revisions: int) -> None:
        """Record what an answered call has changed, and how many revisions it used."""
        self.states.append(State(now, documents, self.last.revisions + revisions))

    def add_puts(self, now: float, bodies: Mapping[Name, Body]) -> None:
        """Record documents that were put, each of which used a revision."""
        documents = dict(self.last.documents)
        for name, body in bodies.items():
            documents[name] = (*documents.get(name, ()), body)
        self.add(now, documents, len(bodies))

    def compare(self, what: str, found: object, *allowed: object, kind: Broken) -> None:
        """Record a fault unless what was found is allowed."""
        if found not in allowed:
            self.faults.append(Fault(kind, f"{self.caller}: {what}: {found}, not {allowed}"))

    def up_to(self, moment: float) -> Journal:
        """What a copy made after a moment may show: the state by then, or any later one."""
        known = sum(state.since <= moment for state in self.states)
        return dataclasses.replace(self, earliest=known - 1)


@dataclass
class DocumentWatch:
    """The events of one watcher of a session's documents, over all its streams."""

    session_id: str
    events: list[pb.WatchDocumentsResponse] = field(default_factory=list)

    @property
    def last_revision(self) -> int:
        return self.events[-1].revision if self.events else 0

    def newest_of(self, stored: Stored) -> int:
        """The revision of the last event that it has to receive."""
        return max(stored.of_documents.get(self.session_id, ()), default=0)


def body_of(document: pb.Document) -> Body:
    """The body of a document in an answer."""
    kind = document.WhichOneof("body") or ""
    content = getattr(document, kind) if kind else b""
    return Body(kind, content if isinstance(content, bytes) else content.encode())


def find_document_faults(
    journals: Sequence[Journal], watches: Iterable[DocumentWatch], stored: Stored
) -> Iterator[Fault]:
    """Find every broken promise about documents."""
    tables = _Tables(stored)
    used: dict[str, tuple[int, int]] = {}
    for journal in journals:
        yield from journal.faults
        found = tables.of_caller.pop((journal.session_id, journal.caller), {})
        allowed = journal.states[journal.earliest :]
        matching = [state for state in allowed if state.documents == found]
        if not matching:
            yield from _differences(journal, found)
            matching = allowed
        least, most = used.get(journal.session_id, (0, 0))
        counts = [state.revisions for state in matching]
        used[journal.session_id] = least + min(counts), most + max(counts)
    for (session_id, caller), there in tables.of_caller.items():
        yield Fault(Broken.UNWANTED, f"{session_id}: documents of {caller}: {there}")
    yield from _check_counts(stored)
    yield from _check_revisions(stored, used)
    for watch in watches:
        yield from _check_watch(watch, stored, tables)


class _Tables:
    """Indexes of the documents that are stored."""

    def __init__(self, stored: Stored) -> None:
        self.at: dict[tuple[str, int], DocumentVersion] = {}
        self.of_caller: dict[tuple[str, str], dict[Name, Versions]] = defaultdict(dict)
        """Every version of the documents that each caller has in a session."""
        for version in stored.documents:
            self.at[version.session_id, version.revision] = version
            if version.body is not None:
                of_caller = self.of_caller[version.session_id, version.name[0][0]]
                before = of_caller.get(version.name, ())
                of_caller[version.name] = (*before, version.body)


def _differences(journal: Journal, found: Mapping[Name, Versions]) -> Iterator[Fault]:
    """What is stored other than by the last state."""
    expected = journal.last.documents
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            kind = Broken.LOST if name in expected else Broken.UNWANTED
            what = f"{journal.session_id}: {name} is {found.get(name)}"
            yield Fault(kind, f"{what}, not {expected.get(name)}")


def _check_counts(stored: Stored) -> Iterator[Fault]:
    for session_id, count in stored.document_counts.items():
        there = len(stored.current_documents(session_id))
        if count != there:
            what = f"{session_id}: {count} documents by its row, {there} in truth"
            yield Fault(Broken.COUNT, what)


def _check_revisions(stored: Stored, used: Mapping[str, tuple[int, int]]) -> Iterator[Fault]:
    """What is not of memories was used by documents, each revision by one change."""
    for session_id, (least, most) in used.items():
        revision = stored.revisions.get(session_id, 0)
        count = revision - len(stored.of_memories.get(session_id, ()))
        if not least <= count <= most:
            what = f"{session_id}: documents have {count} revisions, not {least} to {most}"
            yield Fault(Broken.GAP, what)


def _check_watch(watch: DocumentWatch, stored: Stored, tables: _Tables) -> Iterator[Fault]:
    name, state, last = watch.session_id, dict[Name, Body](), 0
    for event in watch.events:
        if event.revision <= last:
            yield Fault(Broken.WATCH, f"{name}: got {event.revision} after {last}")
        last = event.revision
        document = (tuple(event.document.namespace), event.document.key)
        if event.change == pb.DOCUMENT_CHANGE_DELETED:
            state.pop(document, None)
            continue
        state[document] = body_of(event.document)
        version = tables.at.get((name, last))
        # A version that was deleted since, or has another name, left no trace of this one.
        is_kept = version is not None and version.name == document
        if is_kept and version is not None and version.body != state[document]:
            yield Fault(Broken.WATCH, f"{name}: got {state[document]}, stored is {version}")
    newest = watch.newest_of(stored)
    if last != newest:
        yield Fault(Broken.WATCH, f"{name}: received up to {last}, stored up to {newest}")
    there = stored.current_documents(name)
    if state != there:
        yield Fault(Broken.WATCH, f"{name}: by the watch there is {state}, stored is {there}")
