"""Each broken promise about documents is found, and nothing if every promise was kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memoryd.domain.records import Change
from memoryd.v1 import document_pb2 as pb

from .checker import find_faults
from .harms import HARMS
from .history import History, up_to
from .promises import Broken
from .stored import Body, DocumentVersion, Name, Stored, Version

SESSION = "user-123"
CALLER = "keeper"
PLAN: Name = ((CALLER, "a"), "plan")
DRAFT: Name = ((CALLER, "a"), "draft")


def body(text: str) -> Body:
    return Body("text", text.encode())


class Story:
    """The history of a session: a caller's documents, events, and what is stored."""

    def __init__(self) -> None:
        self.history = History()
        self.journal = self.history.document_journal(CALLER, SESSION)
        self.versions: list[DocumentVersion] = []
        self.memories: list[Version] = []
        self.events = self.history.watch_documents(SESSION).events
        self.time = 0.0

    @property
    def stored(self) -> Stored:
        current = sum(version.is_current for version in self.versions)
        revision = len(self.events) + len(self.memories)
        revisions = {SESSION: revision}
        return Stored(revisions, self.memories, {}, self.versions, {SESSION: current})

    def _change(self, name: Name, new: Body | None, change: pb.DocumentChange) -> None:
        revision = len(self.events) + len(self.memories) + 1
        there = [one for one in self.versions if one.name == name]
        others = [one for one in self.versions if one.name != name]
        if new is None:
            there = []
        kept = [one._replace(is_current=False) for one in there]
        added = DocumentVersion(SESSION, revision, name, new, is_current=new is not None)
        self.versions = sorted([*others, *kept, added], key=lambda one: one.revision)
        document = pb.Document(namespace=name[0], key=name[1])
        if new is not None:
            document.text = new.content.decode()
        self.events.append(
            pb.WatchDocumentsResponse(change=change, document=document, revision=revision)
        )

    def put(self, name: Name, text: str) -> None:
        self.time += 1
        is_new = name not in self.journal.held
        change = pb.DOCUMENT_CHANGE_CREATED if is_new else pb.DOCUMENT_CHANGE_UPDATED
        self._change(name, body(text), change)
        self.journal.add_puts(self.time, {name: body(text)})

    def delete(self, name: Name) -> None:
        self.time += 1
        self._change(name, None, pb.DOCUMENT_CHANGE_DELETED)
        documents = {**self.journal.held}
        del documents[name]
        self.journal.add(self.time, documents, revisions=1)

    def store_memory(self) -> None:
        revision = len(self.events) + len(self.memories) + 1
        content = f"fact {revision}"
        self.memories.append(Version(SESSION, revision, content, Change.CREATED, content))

    def change(self, place: int, **fields: object) -> None:
        """Change what is stored."""
        self.versions[place] = self.versions[place]._replace(**fields)

    def broken(self) -> set[Broken]:
        return broken(self.history, self.stored)


def broken(history: History, stored: Stored) -> set[Broken]:
    """What is found, apart from that no caller has asked for the memories."""
    return {fault.kind for fault in find_faults(history, stored) if "fact" not in fault.what}


@pytest.fixture
def story() -> Story:
    """A document with an earlier version, one that was deleted, and a memory between them."""
    story = Story()
    story.put(DRAFT, "draft")
    story.put(PLAN, "first")
    story.delete(DRAFT)
    story.store_memory()
    story.put(PLAN, "second")
    return story


def test_nothing_is_found_if_every_promise_was_kept(story):
    assert story.broken() == set()


@pytest.mark.parametrize("place", [0, 2])
def test_a_missing_version_is_lost(story, place):
    assert story.versions.pop(place).name == PLAN
    assert Broken.LOST in story.broken()


@pytest.mark.parametrize("place", [0, 2])
def test_a_byte_that_differs_is_found(story, place):
    content = story.versions[place].body.content
    story.change(place, body=Body("text", content[:-1] + b"!"))
    assert Broken.LOST in story.broken()


def test_another_kind_of_body_is_found(story):
    story.change(2, body=Body("json", b"second"))
    assert Broken.LOST in story.broken()


def test_a_deleted_document_that_is_there_is_unwanted(story):
    story.versions.append(DocumentVersion(SESSION, 6, DRAFT, body("draft"), is_current=True))
    assert {Broken.UNWANTED, Broken.GAP} <= story.broken()


def test_a_document_of_no_caller_is_unwanted(story):
    story.change(2, name=(("another",), "plan"))
    assert Broken.UNWANTED in story.broken()


def test_a_session_that_says_it_holds_another_number_is_found(story):
    stored = replace(story.stored, document_counts={SESSION: 2})
    assert broken(story.history, stored) == {Broken.COUNT}


def test_a_write_that_used_two_revisions_is_found(story):
    story.change(1, revision=4)  # that of a deletion: what is before it may be gone
    story.memories[0] = story.memories[0]._replace(revision=3)
    assert story.broken() == set()
    last = story.journal.states[-1]
    story.journal.states[-1] = replace(last, revisions=last.revisions - 1)
    assert story.broken() == {Broken.GAP}


def test_a_revision_of_a_memory_and_of_a_document_is_found(story):
    story.memories[0] = story.memories[0]._replace(revision=5)
    assert Broken.GAP in story.broken()


def test_a_gap_after_the_last_deletion_is_found(story):
    story.memories.pop()
    assert Broken.GAP in story.broken()


def with_another_body(events: list) -> None:
    events[1].document.text = "another"


@pytest.mark.parametrize("harm", [*HARMS, with_another_body])
def test_wrong_events_of_a_watcher_are_found(story, harm):
    stored = story.stored
    harm(story.events)
    assert broken(story.history, stored) == {Broken.WATCH}


def test_what_a_caller_has_seen_itself_is_found(story):
    story.journal.compare("a get", 1, 1, 2, kind=Broken.BACKWARDS)
    assert story.broken() == set()
    story.journal.compare("a get", 3, 1, 2, kind=Broken.BACKWARDS)
    assert story.broken() == {Broken.BACKWARDS}


def test_a_copy_has_what_was_known_before_it_and_all_or_nothing_of_the_rest(story):
    copy = story.stored
    before = story.time
    story.put(PLAN, "third")
    assert not broken(up_to(story.history, before), copy)
    assert not broken(up_to(story.history, before), story.stored)
    # It was acknowledged before the copy was made.
    assert Broken.LOST in broken(up_to(story.history, story.time), copy)
