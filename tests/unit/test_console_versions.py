"""What the console says has changed between two versions."""

from __future__ import annotations

import pytest

from memoryd.client import Memory
from memoryd.console.versions import MOST_WORDS, changes, compared


@pytest.mark.parametrize(
    ("before", "after", "pieces"),
    [
        ("one two three", "one two three", ["=one two three"]),
        ("one two three", "one three", ["=one ", "-two ", "=three"]),
        ("one three", "one two three", ["=one ", "+two ", "=three"]),
        ("by e-mail", "by e-mail, late", ["=by e-mail", "+, late"]),
        ("by mail over phone, now", "by mail, now", ["=by mail ", "-over phone", "=, now"]),
        ("a b c d", "x b y d", ["-a ", "+x ", "=b ", "-c ", "+y ", "=d"]),
        ("one", "", ["-one"]),
        ("", "one", ["+one"]),
        ("one  two", "one two", ["-one  ", "+one ", "=two"]),
        ("äß日本", "äß日木", ["-äß日本", "+äß日木"]),
    ],
)
def test_texts_are_compared_word_by_word(before: str, after: str, pieces: list[str]):
    signs = {"same": "=", "removed": "-", "added": "+"}
    assert [signs[piece.kind] + piece.text for piece in compared(before, after)] == pieces


@pytest.mark.parametrize("words", [MOST_WORDS // 4, MOST_WORDS, MOST_WORDS * 40])
def test_what_is_new_is_what_is_left_without_what_was_removed(words: int):
    before, after = "a b " * words + "c", "b a c " * words + "d"
    pieces = compared(before, after)
    assert "".join(one.text for one in pieces if one.kind != "removed") == after
    assert "".join(one.text for one in pieces if one.kind != "added") == before


def test_long_texts_show_a_small_change_as_one():
    before = "word " * 3000 + "old" + " word" * 3000
    changed = [one for one in compared(before, before.replace("old", "new")) if one.kind != "same"]
    assert [(one.kind, one.text.strip()) for one in changed] == [
        ("removed", "old"),
        ("added", "new"),
    ]


def test_only_fields_that_differ_have_changed():
    before = Memory(content="one", importance=0.5, tags=("a", "b"))
    after = Memory(content="one", importance=0.25, tags=("b", "c"))
    importance, tags = changes(before, after)
    assert (importance.name, importance.before, importance.after) == ("importance", "0.5", "0.25")
    assert [(one.kind, one.text) for one in tags.pieces] == [
        *(("removed", "a"), ("same", "b"), ("added", "c")),
    ]
