"""Trees of messages against plain paths, and merge patches by the examples of RFC 7386."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoryd.conversations.branches import Branch, Branches
from memoryd.domain.conversations import NOWHERE, Place, estimated_tokens, patched


@st.composite
def trees(draw):
    """Branches, and of each message the whole way to it."""
    branches, ways = [], {NOWHERE: ()}
    for number in range(1, draw(st.integers(1, 6)) + 1):
        before = draw(st.sampled_from(sorted(ways)))
        first = before.depth + 1
        branches.append(Branch(number, 1, before.branch, first, 0))
        way = ways[before]
        for depth in range(first, first + draw(st.integers(1, 4))):
            way = (*way, Place(number, depth))
            ways[Place(number, depth)] = way
    return Branches(branches), ways


@given(trees(), st.data())
def test_ways_lead_back_to_the_first_message(tree, data):
    branches, ways = tree
    place = data.draw(st.sampled_from(sorted(ways)))
    assert [*branches.back_from(place)] == [*reversed(ways[place])]
    for wanted in ways:
        expected = wanted == NOWHERE or wanted in ways[place]
        assert branches.leads_to(place, wanted) is expected


@given(trees(), st.data())
def test_what_is_lost_is_what_no_way_has_any_more(tree, data):
    branches, ways = tree
    some = st.lists(st.sampled_from(sorted(ways)), max_size=4)
    before, after = data.draw(some), data.draw(some)
    had, has = ({p for end in ends for p in ways[end]} for ends in (before, after))
    needed = branches.needed(before), branches.needed(after)
    lost = Branches.lost(*needed)
    gone = {place for place in had if place.depth > lost.get(place.branch, place.depth)}
    assert gone == had - has
    assert all(
        (place in had) is (place.depth <= needed[0].get(place.branch, 0))
        for place in ways
        if place != NOWHERE
    )


@pytest.mark.parametrize(
    ("state", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_state_is_patched_by_rfc_7386(state, patch, result):
    before = {**state}
    assert patched(state, patch) == result
    assert state == before


def test_tokens_are_estimated_by_quarters_rounded_up():
    assert [estimated_tokens(size) for size in (0, 1, 4, 5, 8)] == [0, 1, 1, 2, 2]
