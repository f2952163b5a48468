"""JSON that is kept as it came: what is accepted is what the standard says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoryd.domain.json_text import MAX_JSON_DEPTH, parsed, problem_with_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES, st.booleans())
def test_what_json_writes_is_accepted(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only, allow_nan=False)
    assert problem_with_json(text) is None
    assert json.dumps(parsed(text)) == json.dumps(value) or parsed(text) == parsed(text.encode())


@given(st.text())
def test_whatever_comes_is_judged(text):
    problem = problem_with_json(text)
    if problem is None:
        parsed(text)
    else:
        assert problem.startswith("must ")


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", '{"a": Infinity}', "01", "[1,]", "'a'", ""])
def test_what_is_no_json_is_refused(text):
    assert problem_with_json(text) is not None


def test_nesting_ends_at_the_limit():
    brackets = '"' + "[" * 10_000 + '\\""'
    assert problem_with_json(brackets) is None
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        inner = "1" if opening != "[" else ""
        for depth, is_fine in ((MAX_JSON_DEPTH, True), (MAX_JSON_DEPTH + 1, False)):
            text = opening * depth + inner + closing * depth
            assert (problem_with_json(text) is None) is is_fine
