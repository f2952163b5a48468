"""The time spans that a query names."""

from datetime import UTC, datetime
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoryd.recall.dates import MAX_CHARACTERS, MAX_PHRASES, MOST_SPANS, phrases, spans

NOW = datetime(2026, 1, 15, 18, 30, tzinfo=UTC)  # a Thursday


def days(query, language="en"):
    return [
        tuple(datetime.fromtimestamp(edge, UTC).strftime("%Y-%m-%d") for edge in span)
        for span in spans(query, NOW, language)
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("what happened yesterday?", ("2026-01-14", "2026-01-15")),
        ("what did I do last week", ("2026-01-05", "2026-01-12")),
        ("Where was I two weeks ago?", ("2025-12-29", "2026-01-05")),
        ("the trip in May 2023", ("2023-05-01", "2023-06-01")),
        ("what was said on 8 May 2023", ("2023-05-08", "2023-05-09")),
        ("on May 8th, 2023", ("2023-05-08", "2023-05-09")),
        ("all from 2023-05-08", ("2023-05-08", "2023-05-09")),
        ("plans made in December", ("2025-12-01", "2026-01-01")),
        ("what changed in 2022", ("2022-01-01", "2023-01-01")),
        ("whom did we meet last month", ("2025-12-01", "2026-01-01")),
        ("where was I on Monday", ("2026-01-12", "2026-01-13")),
    ],
)
def test_a_span_is_understood(query, expected):
    assert days(query) == [expected]


@pytest.mark.parametrize(
    "query",
    ["order 4711", "may I ask", "the march of time", "what now", "room 2023", "second choice", ""],
)
def test_text_without_a_time_has_no_span(query):
    assert days(query) == []


def test_another_language():
    assert days("was war gestern", "de") == [("2026-01-14", "2026-01-15")]
    assert days("im Mai 2023", "de") == [("2023-05-01", "2023-06-01")]


def test_an_unknown_language_reads_english_dates():
    assert days("in May 2023", "xx") == [("2023-05-01", "2023-06-01")]


def test_a_long_query_of_dates_is_cut():
    dates = [f"{day} May {year}" for year in range(1990, 2020) for day in range(1, 29)]
    assert len(days(" ".join(dates))) == MOST_SPANS
    assert days("yesterday " * 1000) == [("2026-01-14", "2026-01-15")]


@pytest.mark.parametrize(
    "phrase",
    ["31 February {n}", "{w} days ago", "{n}-99-99", "{n}00000 weeks ago"],
)
def test_the_number_of_phrases_read_is_limited(phrase):
    words = ("".join(letters) for letters in product("bcdfg", "aeiou", "lmnpr"))
    many = " ".join(phrase.format(n=1900 + n, w=word) for n, word in enumerate(words))
    assert 1 < len(phrases(many, "en")) <= MAX_PHRASES
    assert days(many) == days(many[:MAX_CHARACTERS])


def test_dates_are_found_only_in_the_head_of_a_query():
    assert phrases("x " * 900 + "on 8 May 2023", "en") == ("8 may 2023",)
    assert phrases("x " * (MAX_CHARACTERS // 2) + "on 8 May 2023", "en") == ()
    assert phrases("9" * 1900 + " days ago", "en") == ()


@pytest.mark.parametrize("query", ["9999-12-31", "0001-01-01", "99999999 years ago", "in 9999-12"])
def test_the_ends_of_time_are_no_span_or_one(query):
    assert len(days(query)) <= 1


WORDS = (
    *("last", "this", "next", "in", "on", "since", "of", "week", "month", "days", "ago", "two"),
    *("May", "Mon", "monday", "JAN", "yesterday", "fortnight", "tea", "3", "2023", "heute"),
    *("gestern", "vor", "Tagen", "letzte", "Woche", "hier", "semaine", "ayer", "lunes"),
)


@settings(deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=6), st.sampled_from(("en", "de", "fr", "es")))
def test_no_span_is_missed_by_the_search_for_hints(words: list[str], language: str) -> None:
    # A query that is not ASCII is always searched.
    query = " ".join(words)
    assert spans(query, NOW, language) == spans(f"{query} \N{EM DASH}", NOW, language)
