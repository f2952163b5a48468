"""Each broken promise to callers that share a conversation is found."""

from __future__ import annotations

import pytest

from .appends import Pop, Read
from .conversation_story import SHARED, Story, broken, said, told
from .history import up_to
from .promises import Broken


@pytest.fixture
def story() -> Story:
    return told()


@pytest.mark.parametrize("place", [0, 1, 3, 7])
def test_a_missing_message_is_lost(story, place):
    del story.lines[SHARED][place]
    assert Broken.LOST in story.broken()


@pytest.mark.parametrize("place", [4, 5])
def test_an_append_in_doubt_that_is_stored_in_part_is_half(story, place):
    del story.lines[SHARED][place]
    assert Broken.HALF in story.broken()


def test_an_append_in_doubt_may_be_missing_as_a_whole(story):
    kinds = {Broken.UNLINKED, Broken.GAP, Broken.WATCH}  # of the others, which are as they were
    del story.lines[SHARED][4:6]
    assert story.broken() <= kinds


def test_what_was_popped_of_an_append_in_doubt_shows_that_it_was_made(story):
    line = story.lines[SHARED]
    bodies = tuple(row.said.body for row in line[5:])
    del line[4:]
    story.two.pops.append(Pop(SHARED, bodies, story.time))
    assert Broken.HALF in story.broken()


def test_messages_of_two_appends_that_alternate_are_interleaved(story):
    line = story.lines[SHARED]
    line[5], line[6] = line[6], line[5]
    assert Broken.INTERLEAVED in story.broken()


def test_messages_of_one_append_in_another_order_are_interleaved(story):
    line = story.lines[SHARED]
    line[0], line[1] = line[1], line[0]
    assert Broken.INTERLEAVED in story.broken()


def test_an_append_before_an_earlier_one_is_interleaved(story):
    line = story.lines[SHARED]
    story.lines[SHARED] = [*line[:4], *line[6:], *line[4:6]]
    assert Broken.INTERLEAVED in story.broken()


def test_a_message_that_is_stored_twice_is_doubled(story):
    line = story.lines[SHARED]
    line.append(line[-1]._replace(parent_id=line[-1].said.message_id))
    assert Broken.DOUBLED in story.broken()


def test_an_append_that_is_stored_twice_is_doubled(story):
    story.change(SHARED, "j", "k")  # as a retry that was not told from a new call
    assert {Broken.DOUBLED, Broken.GAP} <= story.broken()


def test_a_message_that_two_calls_have_popped_is_found(story):
    story.two.pops.append(story.one.pops[0])
    assert Broken.TAKEN in story.broken()


def test_a_message_that_was_popped_and_is_there_is_unwanted(story):
    story.two.pops.append(Pop(SHARED, (said("k").body,), story.time))
    assert Broken.UNWANTED in story.broken()


def test_a_message_that_nobody_sent_is_unwanted(story):
    story.change(SHARED, "never")
    assert Broken.UNWANTED in story.broken()


def test_a_branch_of_what_is_only_appended_to_is_unwanted(story):
    shared, own = story.stored.conversations.held
    forked = shared._replace(others=(shared.head[:2],))
    assert story.broken(held=[forked, own]) == {Broken.UNWANTED}


def test_messages_of_one_append_at_two_revisions_are_found(story):
    line = story.lines[SHARED]
    line[-1] = line[-1]._replace(revision=story.revision)
    assert Broken.GAP in story.broken()


def test_a_list_is_compared_with_what_followed(story):
    bodies = [row.said.body for row in story.lines[SHARED]]
    story.one.reads.append(Read(SHARED, bodies[0], tuple(bodies[1:4]), story.time))
    assert story.broken() == set()
    story.one.reads.append(Read(SHARED, bodies[0], (bodies[1], bodies[3]), story.time))
    assert story.broken() == {Broken.PHANTOM}


def test_a_call_that_used_two_revisions_is_found(story):
    story.revision += 1
    assert Broken.GAP in story.broken()


def test_what_callers_have_seen_themselves_is_found(story):
    story.one.compare("a pop", 1, 2, kind=Broken.DOUBLED)
    assert story.broken() == {Broken.DOUBLED}


def test_a_copy_has_what_was_known_before_it_and_all_or_nothing_of_the_rest(story):
    copy, before = story.stored, story.time
    story.pop(story.one, 3)
    story.append(story.two, "l", "m")
    story.say("w")
    for stored in (copy, story.stored):
        assert not broken(up_to(story.history, before), stored)
    # It was acknowledged before the copy was made.
    assert {Broken.UNWANTED, Broken.LOST} <= broken(up_to(story.history, story.time), copy)
