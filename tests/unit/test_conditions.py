"""Conditions on JSON, compared with their plain meaning."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.plain_conditions import OPERATORS, matches, takes

from memoryd.domain.conditions import Condition, Conditions, Operator

TEXTS = st.sampled_from(["", "a", "b", "ab", "Z", "é", "\uffff", "\U00010000", "10", "9", "true"])
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([0.0, -0.0, 0.5, 2**53, 2**53 + 1, 1e308, 10**400, -(10**400), 5e-324]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
KEYS = st.sampled_from(["a", "b", "", "0", "a.b"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)
PATHS = st.lists(KEYS, min_size=1, max_size=3)


@st.composite
def conditions(draw: st.DrawFn) -> tuple[list[str], str, object]:
    op = draw(st.sampled_from(OPERATORS))
    if op == "EXISTS":
        return draw(PATHS), op, draw(st.booleans())
    return draw(PATHS), op, draw(st.lists(VALUES, max_size=4) if op.endswith("IN") else VALUES)


@given(st.one_of(VALUES, st.dictionaries(KEYS, VALUES)), st.lists(conditions(), max_size=3))
def test_all_conditions_have_to_hold(document, given_conditions):
    judged = Conditions(Condition(tuple(p), Operator(op), v) for p, op, v in given_conditions)
    assert judged.hold_for(document) == all(matches(document, *each) for each in given_conditions)
    assert bool(judged) == bool(given_conditions)


@given(VALUES, st.sampled_from(OPERATORS), VALUES)
def test_a_value_is_judged_by_its_type(found, op, wanted):
    if takes(op, wanted):
        judged = Conditions([Condition(("v",), Operator(op), wanted)])
        assert judged.hold_for({"v": found}) == matches({"v": found}, ["v"], op, wanted)


@pytest.mark.parametrize("op", OPERATORS)
def test_a_deep_value_is_compared_no_deeper_than_the_condition(op):
    deep = json.loads("[" * 500 + "]" * 500)
    wanted = {"EXISTS": True, "IN": [[[]]], "NOT_IN": [[[]]]}.get(op, [[]])
    judged = Conditions([Condition(("v",), Operator(op), wanted)])
    assert judged.hold_for({"v": deep}) == (op in {"NE", "NOT_IN", "EXISTS"})
