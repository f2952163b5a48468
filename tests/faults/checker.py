"""Compare what callers saw with what the database holds in the end.

A `History` records every call of many callers (arguments, start, end and answer) and the events of
watchers. `find_faults` compares it with `Stored`, the content of the tables, and names every broken
promise. It relies on two properties of a run: no two writes have the same content (except retries
with the same `request_id`), and nothing is purged, erased or evicted during it. Therefore

- a content identifies the write that stored it, so lost, duplicate and partial writes are seen;
- every revision of a session is in the tables, so every read can be compared with the state that it
  claims to show.

Of documents and conversations it has the journals of their callers (`document_faults.py`,
`conversation_faults.py`). They may lie in the same sessions and use some of the revisions. Those of
versions that went with their document are not in the tables, nor those of changes of a conversation
but its last one and those that appended messages.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from memoryd.domain.records import Change
from memoryd.v1 import memory_pb2 as pb

from .conversation_faults import find_conversation_faults
from .document_faults import find_document_faults
from .history import Call, History
from .journals import Span, Used
from .promises import Broken, Fault
from .stored import Stored, Version

_ABSENT = "NOT_FOUND"
_BRINGS_CONTENT = (Change.CREATED, Change.UPDATED)
_READS = ("GetMemory", "ListMemories", "RetrieveMemories")


def find_faults(history: History, stored: Stored, *, across_callers: bool = True) -> list[Fault]:
    """Find every broken promise.

    A read must be no older than what its own caller knew before it started, or, with
    `across_callers`, than what any caller knew.
    """
    tables = _Tables(stored)
    documents = find_document_faults(history.document_journals, history.document_watches, stored)
    conversations = find_conversation_faults(
        history.talk_journals, history.appends, history.conversation_watches, stored.conversations
    )
    return [
        *_check_revisions(stored),
        *_check_counts(stored),
        *_check_batches(history, tables),
        *_check_contents(history, tables),
        *_check_tables(history, tables),
        *_check_deletions(history, tables),
        *_check_keys(history, tables),
        *_check_watches(history, stored, tables),
        *_check_reads(history, tables, across_callers=across_callers),
        *documents.faults,
        *conversations.faults,
        *_check_used(stored, documents.used, conversations.used),
    ]


class _Tables:
    """Indexes of what is stored."""

    def __init__(self, stored: Stored) -> None:
        self.at: dict[tuple[str, int], Version] = {}
        self.of_memory: dict[tuple[str, str], list[Version]] = defaultdict(list)
        self.of_session: dict[str, set[str]] = defaultdict(set)
        self.brought: dict[tuple[str, str], list[Version]] = defaultdict(list)
        """The versions that first have a content, by session and content."""
        for version in sorted(stored.versions):
            self.at[version.session_id, version.revision] = version
            self.of_memory[version.session_id, version.memory_id].append(version)
            self.of_session[version.session_id].add(version.memory_id)
            if version.change in _BRINGS_CONTENT:
                self.brought[version.session_id, version.content].append(version)

    def as_of(self, session_id: str, memory_id: str, revision: int) -> Version | None:
        """A memory as of a revision of its session; None if it did not exist yet."""
        versions = self.of_memory.get((session_id, memory_id), [])
        place = bisect_right(versions, revision, key=lambda version: version.revision)
        return versions[place - 1] if place else None

    def may_be_absent(self, session_id: str, memory_id: str, revision: int) -> bool:
        """Whether a memory was absent at a revision or at a later one."""
        then = self.as_of(session_id, memory_id, revision)
        return (
            then is None
            or then.change is Change.DELETED
            or any(
                version.revision > revision and version.change is Change.DELETED
                for version in self.of_memory[session_id, memory_id]
            )
        )


def _check_revisions(stored: Stored) -> Iterator[Fault]:
    given: dict[str, Counter[int]] = {name: Counter() for name in stored.revisions}
    for version in (*stored.versions, *stored.documents):
        given.setdefault(version.session_id, Counter())[version.revision] += 1
    for session_id, revisions in stored.conversations.revisions.items():
        given.setdefault(session_id, Counter()).update(revisions)
    forgotten = _forgotten(stored)
    for name, counts in given.items():
        wanted = range(1, stored.revisions.get(name, 0) + 1)
        for revision in sorted({*wanted, *counts}):
            count = counts[revision]
            allowed = (0, 1) if revision < forgotten.get(name, 0) else (1,)
            if count not in allowed or revision not in wanted:
                yield Fault(Broken.GAP, f"{name}: revision {revision} is stored {count} times")


def _forgotten(stored: Stored) -> dict[str, int]:
    """The last revision of each session that left nothing of the one before it.

    With it versions of a document went, or a conversation changed once more.
    """
    found = dict(stored.conversations.newest)
    for version in stored.documents:
        if version.body is None:
            found[version.session_id] = max(version.revision, found.get(version.session_id, 0))
    return found


def _check_used(stored: Stored, *used: Used) -> Iterator[Fault]:
    """What is not of memories was used by other calls, each revision by one change."""
    for session_id in {name for of_kind in used for name in of_kind}:
        spans = [of_kind.get(session_id, Span()) for of_kind in used]
        least, most = sum(span.least for span in spans), sum(span.most for span in spans)
        revision = stored.revisions.get(session_id, 0)
        count = revision - len(stored.of_memories.get(session_id, ()))
        if not least <= count <= most:
            what = f"{session_id}: {count} revisions are not of memories, not {least} to {most}"
            yield Fault(Broken.GAP, what)


def _check_counts(stored: Stored) -> Iterator[Fault]:
    for session_id, (said, kept) in stored.counts.items():
        if said != kept:
            yield Fault(Broken.COUNT, f"{session_id}: {said} by its row, {kept} in truth")


class _Brought(NamedTuple):
    """A content that a call sent, and what the answer says about it."""

    session_id: str
    content: str
    answer: pb.Memory | None
    key: str = ""
    replaced: str = ""
    """The id of the memory that had the key before."""


def _stored(item: pb.StoreMemoryRequest, answer: pb.StoreMemoryResponse | None) -> _Brought:
    memory = None if answer is None else answer.memory
    replaced = "" if answer is None else answer.replaced_memory_id
    return _Brought(item.session_id, item.content, memory, item.key, replaced)


def _contents(call: Call) -> list[_Brought]:
    answer = call.answer
    if call.method == "StoreMemory":
        return [_stored(call.request, answer)]
    if call.method == "BatchStoreMemories":
        answers: Iterable[Any] = [None] * len(call.request.requests)
        if answer is not None:
            answers = answer.responses
        return [*map(_stored, call.request.requests, answers)]
    if call.method == "UpdateMemory":
        return [_Brought(call.session_id, call.request.memory.content, answer)]
    return []


def _check_batches(history: History, tables: _Tables) -> Iterator[Fault]:
    for call in history.calls:
        if call.method == "BatchStoreMemories" and call.answer is None:
            items = _contents(call)
            there = sum((item.session_id, item.content) in tables.brought for item in items)
            if 0 < there < len(items):
                what = f"{call.caller}: {there} of the {len(items)} with {items[0].content!r}"
                yield Fault(Broken.HALF, what)


def _check_contents(history: History, tables: _Tables) -> Iterator[Fault]:
    answered: dict[tuple[str, str], set[tuple[str, int]]] = defaultdict(set)
    for call in history.calls:
        for session_id, content, memory, _, _ in _contents(call):
            if memory is not None:
                answered[session_id, content].add((memory.memory_id, memory.revision))
    for key, places in answered.items():
        found = [(version.memory_id, version.revision) for version in tables.brought.get(key, ())]
        if places.difference(found):
            yield Fault(Broken.LOST, f"{key}: acknowledged as {sorted(places)}, stored as {found}")
        if len(places) > 1:
            yield Fault(Broken.DOUBLED, f"{key}: acknowledged as {sorted(places)}")


def _check_tables(history: History, tables: _Tables) -> Iterator[Fault]:
    wanted = {
        (item.session_id, item.content)
        for call in history.calls
        if call.is_in_doubt or call.answer is not None
        for item in _contents(call)
    }
    for key, versions in tables.brought.items():
        if len(versions) > 1:
            yield Fault(Broken.DOUBLED, f"{key}: stored as {versions}")
        if key not in wanted:
            yield Fault(Broken.UNWANTED, f"{key}: stored as {versions}")


def _check_deletions(history: History, tables: _Tables) -> Iterator[Fault]:
    wanted: Counter[tuple[str, str]] = _replaced(history, tables)
    for call in history.calls:
        if call.method != "DeleteMemory":
            continue
        key = (call.session_id, call.request.memory_id)
        wanted[key] += call.is_in_doubt or call.answer is not None
        if call.answer is not None:
            version = tables.at.get((call.session_id, call.answer.revision))
            if version is None or (version.memory_id, version.change) != (key[1], Change.DELETED):
                yield Fault(Broken.LOST, f"{key}: deleted at {call.answer.revision}, is {version}")
    for key, versions in tables.of_memory.items():
        count = sum(version.change is Change.DELETED for version in versions)
        if count > wanted[key]:
            yield Fault(Broken.UNWANTED, f"{key}: deleted {count} times, requested {wanted[key]}")


def _replaced(history: History, tables: _Tables) -> Counter[tuple[str, str]]:
    """How often memories were deleted for what took their key, right after it was asked for."""
    asked = {
        (item.session_id, item.content, item.key)
        for call in history.calls
        if call.is_in_doubt or call.answer is not None
        for item in _contents(call)
        if item.key
    }
    found: Counter[tuple[str, str]] = Counter()
    for (session_id, revision), version in tables.at.items():
        after = tables.at.get((session_id, revision + 1))
        if (
            version.change is Change.DELETED
            and after is not None
            and after.change is Change.CREATED
            and version.key == after.key
            and (session_id, after.content, after.key) in asked
        ):
            found[session_id, version.memory_id] += 1
    return found


def _check_keys(history: History, tables: _Tables) -> Iterator[Fault]:
    """Compare what was replaced with the answers, and the holders of each key with each other."""
    for call in history.calls:
        for item in _contents(call):
            if item.replaced and item.answer is not None:
                before = tables.at.get((item.session_id, item.answer.revision - 1))
                found = None if before is None else (before.memory_id, before.change)
                if found != (item.replaced, Change.DELETED):
                    what = f"{item.session_id}: {item.replaced} replaced by {item.content!r}"
                    yield Fault(Broken.LOST, f"{what}: stored before it is {before}")
    holders: dict[tuple[str, str], str] = {}
    for (session_id, revision), version in sorted(tables.at.items()):
        if version.key is None:
            continue
        place = session_id, version.key
        holder = holders.setdefault(place, version.memory_id)
        if holder != version.memory_id:
            what = f"{place}: {holder} and {version.memory_id} at {revision}"
            yield Fault(Broken.SHARED, what)
        if version.change is Change.DELETED:
            del holders[place]


def _check_watches(history: History, stored: Stored, tables: _Tables) -> Iterator[Fault]:
    for watch in history.watches:
        name = watch.session_id
        revisions = stored.of_memories.get(name, ())
        wanted = iter(revision for revision in revisions if revision > watch.start_revision)
        for event in watch.events:
            expected = next(wanted, None)
            if event.revision != expected:
                yield Fault(Broken.WATCH, f"{name}: got {event.revision} instead of {expected}")
                break
            version = tables.at.get((name, event.revision))
            change = pb.MemoryChange.Name(event.change).removeprefix("MEMORY_CHANGE_").lower()
            received = (event.memory.memory_id, change)
            if version is None or (version.memory_id, version.change) != received:
                yield Fault(Broken.WATCH, f"{name}: got {received}, stored is {version}")
        else:
            missing = next(wanted, None)
            if missing is not None:
                yield Fault(Broken.WATCH, f"{name}: {missing} and what follows were not received")


def _known(call: Call) -> Iterator[tuple[str, int]]:
    """The sessions of which an answer shows the state, and the least revision of each."""
    answer = call.answer
    if answer is None:
        return
    if call.method == "RetrieveMemories":
        yield call.session_id, answer.revision
    for memory in (*_shown(call), *(item.answer for item in _contents(call))):
        yield memory.session_id, memory.revision
    if call.method == "DeleteMemory":
        yield call.session_id, answer.revision


def _shown(call: Call) -> Sequence[pb.Memory]:
    """The memories in the answer of a read."""
    if call.answer is None:
        return ()
    if call.method == "GetMemory":
        return (call.answer,)
    if call.method == "ListMemories":
        return tuple(call.answer.memories)
    if call.method == "RetrieveMemories":
        return tuple(result.memory for result in call.answer.results)
    return ()


def _check_reads(history: History, tables: _Tables, *, across_callers: bool) -> Iterator[Fault]:
    """Check all reads in order of time, with what was known of each session by then."""
    known: dict[tuple[str, str], int] = defaultdict(int)
    floors: dict[int, int] = {}
    moments = [
        moment
        for place, call in enumerate(history.calls)
        for moment in ((call.started, 0, place), (call.ended, 1, place))
        if moment[0] is not None
    ]
    for _, is_end, place in sorted(moments):
        call = history.calls[place]
        whose = "" if across_callers else call.caller
        if is_end:
            for session_id, revision in _known(call):
                known[whose, session_id] = max(known[whose, session_id], revision)
            if place in floors:
                yield from _check_read(call, floors.pop(place), tables)
        elif call.method in _READS:
            floors[place] = known[whose, call.session_id]


def _check_read(call: Call, floor: int, tables: _Tables) -> Iterator[Fault]:
    """Compare one read with the states that it may show, from a revision on."""
    name, who = call.session_id, f"{call.caller}: {call.method} of {call.session_id}"
    for memory in _shown(call):
        what = f"{who}: {memory.memory_id} at {memory.revision}"
        is_so = tables.at.get((name, memory.revision))
        if is_so is None or (is_so.memory_id, is_so.content) != (memory.memory_id, memory.content):
            yield Fault(Broken.PHANTOM, f"{what}: stored is {is_so}")
        then = tables.as_of(name, memory.memory_id, floor)
        if then is not None and memory.revision < then.revision:
            yield Fault(Broken.BACKWARDS, f"{what}: was {then}")
    for memory_id in _missing(call, tables):
        if not tables.may_be_absent(name, memory_id, floor):
            yield Fault(Broken.BACKWARDS, f"{who}: {memory_id} is absent, was present at {floor}")
    if call.method == "RetrieveMemories" and call.answer is not None:
        yield from _check_retrieval(who, call, floor, tables)


def _missing(call: Call, tables: _Tables) -> Iterable[str]:
    """The memories that a read reports as absent."""
    if call.method == "GetMemory" and call.code == _ABSENT:
        return (call.request.memory_id,)
    if call.method == "ListMemories" and call.answer is not None:
        is_whole = not (call.request.page_token or call.answer.next_page_token)
        shown = {memory.memory_id for memory in call.answer.memories}
        return tables.of_session[call.session_id] - shown if is_whole else ()
    return ()


def _check_retrieval(who: str, call: Call, floor: int, tables: _Tables) -> Iterator[Fault]:
    """Compare a retrieval with exactly the revision that it says it shows."""
    revision = call.answer.revision
    if revision < floor:
        yield Fault(Broken.BACKWARDS, f"{who}: at {revision}, was at {floor}")
    for memory in _shown(call):
        then = tables.as_of(call.session_id, memory.memory_id, revision)
        if then is None or then.revision != memory.revision:
            what = f"{memory.memory_id} at {memory.revision} in the state of {revision}"
            yield Fault(Broken.PHANTOM, f"{who}: {what}: stored is {then}")
