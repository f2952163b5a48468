"""What callers know of their documents, compared with what the database holds in the end.

Each caller has a namespace of its own, and keeps a journal of what is below it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from memoryd.v1 import document_pb2 as pb

from .journals import Events, Findings, Journal, compare_journals
from .promises import Broken, Fault
from .stored import Body, DocumentVersion, Name, Stored

Versions = tuple[Body, ...]
"""What was put under a name since it was last deleted; the newest last."""


class DocumentJournal(Journal[Name, Versions]):
    """What one caller, the first label of its namespaces, knows of its documents in a session."""

    @property
    def current(self) -> dict[Name, Body]:
        """The documents by the last state."""
        return {name: versions[-1] for name, versions in self.held.items()}

    def add_puts(self, now: float, bodies: Mapping[Name, Body]) -> None:
        """Record documents that were put, each of which used a revision."""
        documents = dict(self.held)
        for name, body in bodies.items():
            documents[name] = (*documents.get(name, ()), body)
        self.add(now, documents, len(bodies))


class DocumentWatch(Events):
    """Of documents."""

    def newest_of(self, stored: Stored) -> int:
        """The revision of the last event that it has to receive."""
        return max(stored.of_documents.get(self.session_id, ()), default=0)


def body_of(document: pb.Document) -> Body:
    """The body of a document in an answer."""
    kind = document.WhichOneof("body") or ""
    content = getattr(document, kind) if kind else b""
    return Body(kind, content if isinstance(content, bytes) else content.encode())


def find_document_faults(
    journals: Sequence[DocumentJournal], watches: Iterable[DocumentWatch], stored: Stored
) -> Findings:
    """Find every broken promise about documents."""
    tables = _Tables(stored)
    faults, used = compare_journals(journals, tables.of_caller)
    faults += _check_counts(stored)
    for watch in watches:
        faults += _check_watch(watch, stored, tables)
    return Findings(faults, used)


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


def _check_counts(stored: Stored) -> Iterator[Fault]:
    for session_id, count in stored.document_counts.items():
        there = len(stored.current_documents(session_id))
        if count != there:
            what = f"{session_id}: {count} documents by its row, {there} in truth"
            yield Fault(Broken.COUNT, what)


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
