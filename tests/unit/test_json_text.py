"""JSON that is kept as it came: what is accepted is what the standard says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoryd.domain import json_text
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
    assert problem_with_json(text.encode()) is None
    assert json.dumps(parsed(text)) == json.dumps(value) or parsed(text) == parsed(text.encode())


@given(st.text(st.characters(codec="utf-8")))
def test_whatever_comes_is_judged(text):
    problem = problem_with_json(text.encode())
    if problem is None:
        parsed(text)
    else:
        assert problem.startswith("must ")


PIECES = st.sampled_from([
    *'{}[]",:0123eE+-. \t\n\x00\x1f',
    *(r"\u", r"\ud8", r"\uDFFF", r"\\", r"\"", "true", "null", "é"),
])  # fmt: skip


@given(VALUES, st.lists(st.tuples(st.integers(min_value=0), PIECES), max_size=3), st.booleans())
def test_what_pythons_own_reader_refuses_is_refused(value, changes, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only, allow_nan=False)
    for place, piece in changes:
        at = place % (len(text) + 1)
        text = text[:at] + piece + text[at:]
    try:
        json.loads(text, parse_constant=int)
    except ValueError:
        assert problem_with_json(text.encode()) is not None
    else:
        assert problem_with_json(text.encode()) is None


def depth_of(value):
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth_of, inner), default=0) if isinstance(value, (dict, list)) else 0


@given(
    st.recursive(
        st.text('a"\\[]{}\n'),
        lambda inner: st.lists(inner) | st.dictionaries(st.text('"\\[]{}'), inner),
    ),
    st.integers(min_value=0, max_value=5),
)
def test_nesting_is_what_it_is_whatever_stands_in_strings(value, limit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "MAX_JSON_DEPTH", limit)
        patch.setattr(json_text, "_AT_ONCE", 3)
        assert (problem_with_json(json.dumps(value).encode()) is None) is (depth_of(value) <= limit)


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", '{"a": Infinity}', "01", "[1,]", "'a'", ""])
def test_what_is_no_json_is_refused(text):
    assert problem_with_json(text.encode()) is not None


def test_nesting_ends_at_the_limit():
    brackets = '"' + "[" * 10_000 + '\\""'
    assert problem_with_json(brackets.encode()) is None
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        inner = "1" if opening != "[" else ""
        for depth, is_fine in ((MAX_JSON_DEPTH, True), (MAX_JSON_DEPTH + 1, False)):
            text = opening * depth + inner + closing * depth
            assert (problem_with_json(text.encode()) is None) is is_fine
            # What only Python's own reader takes.
            beside = f"[{text}, " + '"\\ud800"]'
            assert (problem_with_json(beside.encode()) is None) is (depth < MAX_JSON_DEPTH)
    for text in ("[" * 100_000, "[" * 100_000 + "]" * 100_000):
        assert "must nest at most" in problem_with_json(text.encode())
