"""The checker finds each broken promise, and nothing if every promise was kept."""

from __future__ import annotations

import dataclasses

import pytest

from memoryd.domain.records import Change
from memoryd.v1 import memory_pb2 as pb

from .checker import find_faults
from .harms import HARMS
from .history import Call, History
from .promises import Broken
from .stored import Stored, Version

SESSION = "user-123"
KEY = "address"


class Story:
    """The history of a session: calls, answers, events, and what is stored."""

    def __init__(self) -> None:
        self.history = History(clock=lambda: self.time)
        self.versions: list[Version] = []
        self.counts: dict[str, tuple[int, int]] = {}
        self.time = 0.0

    @property
    def revision(self) -> int:
        return len(self.versions)

    @property
    def stored(self) -> Stored:
        return Stored({SESSION: self.revision}, self.versions, self.counts)

    def commit(
        self,
        content: str,
        memory_id: str,
        change: Change = Change.CREATED,
        key: str | None = None,
    ) -> pb.Memory:
        version = Version(SESSION, self.revision + 1, memory_id, change, content, key)
        self.versions.append(version)
        return self.memory(version)

    @staticmethod
    def memory(version: Version) -> pb.Memory:
        return pb.Memory(
            session_id=SESSION,
            memory_id=version.memory_id,
            content=version.content,
            revision=version.revision,
        )

    def call(
        self,
        method: str,
        request: object,
        answer: object = None,
        code: str | None = None,
        caller: str = "one",
    ) -> Call:
        self.time += 1
        call = Call(caller, method, request, self.time)
        self.history.calls.append(call)
        self.time += 0.5
        self.history.end(call, answer=answer, code=code)
        return call

    def store(self, content: str, memory_id: str, caller: str = "one") -> pb.Memory:
        memory = self.commit(content, memory_id)
        answer = pb.StoreMemoryResponse(memory=memory)
        self.call("StoreMemory", store_request(content), answer, caller=caller)
        return memory

    def replace(self, content: str, memory_id: str, held: tuple[str, str]) -> pb.Memory:
        """Store under a key that `held`, a content and an id, has."""
        self.commit(*held, Change.DELETED, KEY)
        memory = self.commit(content, memory_id, key=KEY)
        answer = pb.StoreMemoryResponse(memory=memory, replaced_memory_id=held[1])
        self.call("StoreMemory", store_request(content, KEY), answer)
        return memory

    def update(self, content: str, memory_id: str) -> pb.Memory:
        memory = self.commit(content, memory_id, Change.UPDATED)
        self.call("UpdateMemory", update_request(content, memory_id), memory)
        return memory

    def delete(self, content: str, memory_id: str) -> pb.Memory:
        memory = self.commit(content, memory_id, Change.DELETED)
        request = pb.DeleteMemoryRequest(session_id=SESSION, memory_id=memory_id)
        self.call("DeleteMemory", request, memory)
        return memory

    def get(self, memory_id: str, answer: pb.Memory | None, caller: str = "one") -> Call:
        request = pb.GetMemoryRequest(session_id=SESSION, memory_id=memory_id)
        code = None if answer else "NOT_FOUND"
        return self.call("GetMemory", request, answer, code, caller)

    def listed(self, *memories: pb.Memory, caller: str = "one") -> Call:
        answer = pb.ListMemoriesResponse(memories=memories)
        request = pb.ListMemoriesRequest(session_id=SESSION)
        return self.call("ListMemories", request, answer, caller=caller)

    def retrieved(self, revision: int, *memories: pb.Memory) -> Call:
        results = [pb.RetrievedMemory(memory=memory) for memory in memories]
        answer = pb.RetrieveMemoriesResponse(revision=revision, results=results)
        request = pb.RetrieveMemoriesRequest(session_id=SESSION)
        return self.call("RetrieveMemories", request, answer)

    def watch(self) -> list[pb.WatchMemoriesResponse]:
        watch = self.history.watch(SESSION)
        watch.events += [
            pb.WatchMemoriesResponse(
                change=pb.MemoryChange.Value(f"MEMORY_CHANGE_{version.change.name}"),
                memory=self.memory(version),
                revision=version.revision,
            )
            for version in self.versions
        ]
        return watch.events

    def broken(self, *, across_callers: bool = True) -> set[Broken]:
        found = find_faults(self.history, self.stored, across_callers=across_callers)
        return {fault.kind for fault in found}


def store_request(content: str, key: str = "") -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id=SESSION, content=content, key=key)


def update_request(content: str, memory_id: str) -> pb.UpdateMemoryRequest:
    memory = pb.Memory(session_id=SESSION, memory_id=memory_id, content=content)
    return pb.UpdateMemoryRequest(memory=memory)


def batch_request(*contents: str) -> pb.BatchStoreMemoriesRequest:
    return pb.BatchStoreMemoriesRequest(requests=[store_request(content) for content in contents])


@pytest.fixture
def story() -> Story:
    """One call of each kind, with every promise kept."""
    story = Story()
    tea, coffee = story.store("tea", "a"), story.store("coffee", "b")
    story.get("a", tea)
    batch = [story.commit("milk", "c"), story.commit("sugar", "d")]
    answer = pb.BatchStoreMemoriesResponse(
        responses=[pb.StoreMemoryResponse(memory=memory) for memory in batch]
    )
    story.call("BatchStoreMemories", batch_request("milk", "sugar"), answer)
    green = story.update("green tea", "a")
    story.listed(green, coffee, *batch)
    story.delete("coffee", "b")
    story.get("b", None)
    story.retrieved(6, green, batch[0])
    # In doubt or refused.
    story.commit("in time", "e")
    story.call("StoreMemory", store_request("in time"), code="UNAVAILABLE")
    story.call("StoreMemory", store_request("too late"), code="DEADLINE_EXCEEDED")
    story.call("StoreMemory", store_request("too many"), code="RESOURCE_EXHAUSTED")
    story.call("BatchStoreMemories", batch_request("neither", "nor"), code="UNAVAILABLE")
    return story


def test_nothing_is_found_if_every_promise_was_kept(story):
    story.watch()
    assert not find_faults(story.history, story.stored)
    assert (story.history.acknowledged, story.history.codes["UNAVAILABLE"]) == (8, 2)


@pytest.mark.parametrize("place", range(6))
def test_a_missing_acknowledged_write_is_lost(story, place):
    gone = story.versions.pop(place)
    # As after a crash that undid the last write: there is no gap.
    story.versions = [
        version._replace(revision=revision) for revision, version in enumerate(story.versions, 1)
    ]
    assert Broken.LOST in story.broken(), gone


def test_a_write_replaced_by_another_is_lost(story):
    story.versions[0] = story.versions[0]._replace(content="something else")
    assert {Broken.LOST, Broken.UNWANTED} <= story.broken()


def test_a_session_that_says_it_holds_another_number_is_found(story):
    story.counts[SESSION] = (4, 4)
    assert story.broken() == set()
    story.counts[SESSION] = (5, 4)
    assert story.broken() == {Broken.COUNT}


@pytest.mark.parametrize("change", [Change.CREATED, Change.UPDATED])
@pytest.mark.parametrize("content", ["tea", "green tea", "milk", "in time"])
def test_a_write_stored_twice_is_doubled(story, content, change):
    story.commit(content, "z", change)
    assert Broken.DOUBLED in story.broken()


def test_a_repeated_write_with_two_answers_is_doubled(story):
    story.store("tea", "z")
    assert Broken.DOUBLED in story.broken()


def test_a_failed_batch_stored_in_part_is_half(story):
    story.commit("neither", "f")
    assert story.broken() == {Broken.HALF}
    story.commit("nor", "g")
    assert not story.broken()


@pytest.mark.parametrize("content", ["too many", "never sent"])
def test_content_that_was_refused_or_never_sent_is_unwanted(story, content):
    story.commit(content, "f")
    assert story.broken() == {Broken.UNWANTED}


def test_a_deletion_without_a_request_is_unwanted(story):
    story.commit("milk", "c", Change.DELETED)
    assert Broken.UNWANTED in story.broken()


def test_a_gap_between_revisions_is_found(story):
    story.versions[-1] = story.versions[-1]._replace(revision=8)
    assert Broken.GAP in story.broken()


def test_a_revision_given_twice_is_found(story):
    story.versions.append(story.versions[-1])
    assert Broken.GAP in story.broken()


def of_another_memory(events: list) -> None:
    events[2].memory.memory_id = "z"


def of_another_change(events: list) -> None:
    events[2].change = pb.MEMORY_CHANGE_RESTORED


@pytest.mark.parametrize("harm", [*HARMS, of_another_memory, of_another_change])
def test_wrong_events_of_a_watcher_are_found(story, harm):
    harm(story.watch())
    assert story.broken() == {Broken.WATCH}


def test_a_read_that_shows_an_older_version_goes_back(story):
    story.get("a", story.memory(story.versions[0]))
    assert story.broken() == {Broken.BACKWARDS}


def test_a_read_that_misses_a_memory_goes_back(story):
    story.get("a", None)
    assert story.broken() == {Broken.BACKWARDS}


def test_a_list_that_misses_a_memory_goes_back(story):
    story.listed(*map(story.memory, story.versions[2:5]))
    assert not story.broken()
    story.listed(*map(story.memory, story.versions[2:4]))
    assert story.broken() == {Broken.BACKWARDS}


def test_a_retrieval_of_an_older_revision_goes_back(story):
    story.retrieved(5, story.memory(story.versions[4]))
    assert story.broken() == {Broken.BACKWARDS}


def test_a_read_may_be_as_old_as_its_start(story):
    before = story.memory(story.versions[4])
    reading = story.get("a", before)
    story.update("black tea", "a")
    story.history.calls.remove(reading)
    story.history.calls.append(dataclasses.replace(reading, ended=story.time + 1))
    assert not story.broken()


def test_another_callers_knowledge_counts_on_request(story):
    before = story.memory(story.versions[0])
    story.get("a", before, caller="two")
    assert story.broken() == {Broken.BACKWARDS}
    assert not story.broken(across_callers=False)
    story.listed(*map(story.memory, story.versions[2:5]), caller="two")
    story.get("a", before, caller="two")
    assert story.broken(across_callers=False) == {Broken.BACKWARDS}


def test_a_read_of_unstored_content_shows_a_phantom(story):
    never = Version(SESSION, 9, "z", Change.CREATED, "rolled back")
    story.get("z", story.memory(never))
    assert Broken.PHANTOM in story.broken()


def test_a_retrieval_that_mixes_two_states_shows_a_phantom(story):
    after = story.update("black tea", "a")
    story.history.calls.pop()
    story.retrieved(7, after)
    story.call("UpdateMemory", update_request("black tea", "a"), after)
    assert Broken.PHANTOM in story.broken()


@pytest.fixture
def replaced() -> Story:
    """A memory that another one has replaced."""
    story = Story()
    held = story.commit("Bern", "a", key=KEY)
    answer = pb.StoreMemoryResponse(memory=held)
    story.call("StoreMemory", store_request("Bern", KEY), answer)
    story.replace("Rome", "b", ("Bern", "a"))
    return story


def test_a_replacement_breaks_nothing(replaced):
    replaced.get("a", None)
    replaced.watch()
    assert not replaced.broken()


def test_a_replacement_in_doubt_breaks_nothing(replaced):
    answered = replaced.history.calls.pop()
    replaced.call("StoreMemory", answered.request, code="UNAVAILABLE")
    assert not replaced.broken()


def test_a_deletion_for_a_key_that_nobody_asked_for_is_unwanted(replaced):
    replaced.history.calls[-1].request.key = "another"
    assert replaced.broken() == {Broken.UNWANTED}


def test_an_answer_that_names_another_replaced_memory_is_found(replaced):
    replaced.history.calls[-1].answer.replaced_memory_id = "c"
    assert replaced.broken() == {Broken.LOST}


def test_two_live_memories_with_one_key_are_found(replaced):
    memory = replaced.commit("Oslo", "c", key=KEY)
    answer = pb.StoreMemoryResponse(memory=memory)
    replaced.call("StoreMemory", store_request("Oslo", KEY), answer)
    assert replaced.broken() == {Broken.SHARED}


def test_the_longest_unavailability_is_between_two_answers(story):
    story.time += 10
    story.get("b", None)
    story.retrieved(7)
    assert story.history.longest_unavailability() == 19.0
