"""Literal texts: words, numbers and signs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoryd.recall.wording import MINUS, pieces, plain, statement


def said(text):
    return statement(plain(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He doesn\u2019t, at ALL!", ["he", "doesn't", "at", "all"]),
        ("C++ or C#", ["c", "+", "+", "or", "c", "#"]),
        ("age > 65", ["age", ">", "65"]),
        ("-5 or 5, well-known", [MINUS, "5", "or", "5", "well", "known"]),
        ("\u22125", [MINUS, "5"]),
        ("5 % of \N{EURO SIGN}9", ["5", "%", "of", "\N{EURO SIGN}", "9"]),
        ("\u732b\u304c", ["\u732b", "\u304c"]),
        ("\u2764\ufe0f", ["\u2764"]),
        ("\U0001f44d\U0001f3fd", ["\U0001f44d\U0001f3fd", "\U0001f44d"]),
        ("\U0001f1e9\U0001f1ea", ["\U0001f1e9\U0001f1ea"]),
        ("\u200b \u2060", []),
        ("?! \u2026 \u3002", []),
    ],
)
def test_the_pieces_of_a_text(text, expected):
    assert said(text) == expected


def test_punctuation_between_sentences_is_a_piece():
    assert pieces(plain("so, what?!")) == ["so", ",", "what", "?", "!"]


@given(st.text(st.characters(max_codepoint=127)))
def test_the_fast_path_reads_texts_as_the_general_one(text):
    # A text that is not ASCII takes the general path.
    assert [*pieces(plain(text)), "\N{EM DASH}"] == pieces(plain(f"{text} \N{EM DASH}"))


@given(st.text())
def test_no_text_is_too_strange(text):
    assert all(map(str.strip, said(text)))
