"""Each broken promise about conversations is found, and nothing if every promise was kept."""

from __future__ import annotations

import pytest

from memoryd.v1 import conversation_pb2 as pb

from .checker import find_faults
from .conversation_story import OWN, SESSION, Story, broken, said, told
from .harms import HARMS
from .promises import Broken
from .stored_conversations import Message


@pytest.fixture
def story() -> Story:
    return told()


def test_nothing_is_found_if_every_promise_was_kept(story):
    assert find_faults(story.history, story.stored) == []


# A caller's own, and the rows


def test_a_missing_message_of_a_callers_own_is_lost(story):
    story.lines[OWN].pop()
    assert Broken.LOST in story.broken()


@pytest.mark.parametrize(
    "change",
    [{"others": ((),)}, {"summary": ("so far", "x")}, {"state": "another"}],
)
def test_what_a_caller_has_not_done_to_its_own_is_found(story, change):
    shared, own = story.stored.conversations.held
    assert story.broken(held=[shared, own._replace(**change)]) == {Broken.LOST}


def test_a_conversation_of_no_caller_is_unwanted(story):
    shared, own = story.stored.conversations.held
    other = own._replace(conversation_id="nobody:0")
    assert Broken.UNWANTED in story.broken(held=[shared, own, other])


def test_a_message_that_names_another_parent_is_found(story):
    line = story.lines[OWN]
    line[1] = line[1]._replace(parent_id="a")
    assert story.broken() == {Broken.UNLINKED}


@pytest.mark.parametrize("counted", [(4, 3), (3, 4)])
def test_a_conversation_that_says_it_has_another_number_is_found(story, counted):
    shared, own = story.stored.conversations.held
    assert Broken.COUNT in story.broken(held=[shared, own._replace(counted=counted)])


def test_a_session_that_says_it_holds_another_number_is_found(story):
    story.conversations = 1
    assert story.broken() == {Broken.COUNT}


def test_a_message_of_no_conversation_is_unwanted(story):
    rows = [*story.stored.conversations.messages[SESSION], Message(said("left"), "", 4, 1)]
    kinds = {Broken.UNWANTED, Broken.WATCH}
    assert story.broken(messages={SESSION: rows}) == kinds


# Watchers


def with_another_body(events: list) -> None:
    events[1].messages[0].parts[0].text = "another"


def with_a_message_twice(events: list) -> None:
    events[4].messages.append(events[0].messages[0])


def without_a_message(events: list) -> None:
    del events[-1].messages[-1]


def in_another_order(events: list) -> None:
    a, b = events[1].messages
    a.parent_message_id, b.parent_message_id = b.message_id, ""


def with_another_head(events: list) -> None:
    events[-1].conversation.head_message_id = "x"


def with_another_count(events: list) -> None:
    events[-1].conversation.message_count += 1


def of_what_is_gone(events: list) -> None:
    events[-1].change = pb.CONVERSATION_CHANGE_DELETED


OWN_HARMS = (
    *(with_another_body, with_a_message_twice, without_a_message, in_another_order),
    *(with_another_head, with_another_count, of_what_is_gone),
)


@pytest.mark.parametrize("harm", [*HARMS, *OWN_HARMS])
def test_wrong_events_of_a_watcher_are_found(story, harm):
    stored = story.stored
    harm(story.events)
    assert broken(story.history, stored) == {Broken.WATCH}
