"""Spans of time that a query names: "last week", "in May 2023", "on 8 May", "three days ago"."""

from __future__ import annotations

import functools
import importlib
from datetime import UTC, datetime, time, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import regex
from dateutil.relativedelta import MO, relativedelta

from memoryd.recall.languages import DEFAULT_LANGUAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MOST_SPANS = 4
"""Of a query; what it names beyond is passed over."""

MAX_CHARACTERS = 2_000
"""Of a query, in which phrases are looked for; a longer one says what it is about before that."""

MAX_PHRASES = 16
"""Of a query, that are read; it takes milliseconds to read one, most of all one that is no date."""

MAX_PHRASE_CHARACTERS = 64
"""What is longer names no date, and takes long to read."""

# As dateparser's tables of every language name them.
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SHORTEST_NAME = 3
_NUMBER = r"(\d++[.,]?\d*+)"
# Hours and less tell no memories apart, and what is to come is in none.
_PAST_UNITS = ("day", "week", "fortnight", "month", "year")


class Span(NamedTuple):
    """From `start` up to, not including, `end`; seconds since 1970, UTC."""

    start: float
    end: float


def spans(query: str, now: datetime, language: str) -> list[Span]:
    """The spans of time that `query` names, as seen from `now`, in the order of the text.

    What phrases a language has, and what they mean, is dateparser's. A month or a year without
    more counts after "in", "since", "of" or "during", a weekday after "on" or "last". A date
    without a year is the last one before `now`.
    """
    day = now.astimezone(UTC).date().isoformat()
    named = (_span(phrase, day, language) for phrase in phrases(query, language))
    return list(islice((span for span in named if span), MOST_SPANS))


def phrases(query: str, language: str) -> tuple[str, ...]:
    """What `spans` reads of a query, in order: different phrases, each of which may name a span."""
    return _phrases_in(query[:MAX_CHARACTERS], language)


@functools.lru_cache(256)
def _phrases_in(head: str, language: str) -> tuple[str, ...]:
    if not _may_name_some(head, language):
        return ()
    found = (match[0].lower() for match in _phrases(language).finditer(head))
    different = dict.fromkeys(phrase for phrase in found if len(phrase) <= MAX_PHRASE_CHARACTERS)
    return tuple(islice(different, MAX_PHRASES))


@functools.lru_cache(4096)
def _span(phrase: str, day: str, language: str) -> Span | None:
    from dateparser.date import DateDataParser  # noqa: PLC0415  a tenth of a second

    parser = DateDataParser(
        languages=[language if _tables(language) else DEFAULT_LANGUAGE],
        settings={
            "RELATIVE_BASE": datetime.combine(datetime.fromisoformat(day), time(12)),
            "PREFER_DATES_FROM": "past",
        },
    )
    found = parser.get_date_data(phrase)
    if found.date_obj is None:
        return None
    start = datetime(*found.date_obj.timetuple()[:3], tzinfo=UTC)
    return _span_from(start, found.period)


def _span_from(start: datetime, period: str | None) -> Span | None:
    """The day, week, month or year of a day; None for one that ends after the year 9999."""
    try:
        match period:
            case "week":
                start += relativedelta(weekday=MO(-1))
                end = start + timedelta(weeks=1)
            case "month":
                start = start.replace(day=1)
                end = start + relativedelta(months=1)
            case "year":
                start = start.replace(month=1, day=1)
                end = start + relativedelta(years=1)
            case _:
                end = start + timedelta(days=1)
    except (OverflowError, ValueError):  # dateutil raises the latter
        return None
    return Span(start.timestamp(), end.timestamp())


def _may_name_some(query: str, language: str) -> bool:
    """Whether it is worth the search: some digit or some part of a phrase is there."""
    if not query.isascii():
        return True
    hints, lower = _hints(language), query.lower()
    return hints is None or any(hint in lower for hint in hints) or any(map(str.isdigit, lower))


@functools.lru_cache
def _hints(language: str) -> tuple[str, ...] | None:
    """What phrases without a digit hold, one of these each, in lower case; None: no telling."""
    tables = _tables(language) or _tables(DEFAULT_LANGUAGE) or {}
    named = [form for name in (*_MONTHS, *_WEEKDAYS) for form in tables[name]]
    named += [form for forms in tables["relative-type"].values() for form in forms]
    hints = {form.lower() for form in named if len(form) >= _SHORTEST_NAME}
    for meaning, forms in tables["relative-type-regex"].items():
        for form in forms if meaning.endswith(" ago") else ():
            plain = [part for part in form.replace(_NUMBER, " ").lower().split() if part.isalpha()]
            if not plain:
                return None
            hints.add(plain[-1])
    return tuple(
        hint
        for hint in sorted(hints)
        if not any(other != hint and other in hint for other in hints)
    )


@functools.lru_cache
def _phrases(language: str) -> regex.Pattern[str]:
    """What may name a span, so that dateparser reads phrases and not a whole query."""
    tables = _tables(language) or _tables(DEFAULT_LANGUAGE) or {}
    months = _any_of(form for name in _MONTHS for form in tables[name])
    weekdays = _any_of(form for name in _WEEKDAYS for form in tables[name])
    relative = _any_of(
        form
        for meaning, forms in tables["relative-type"].items()
        if meaning.endswith(tuple(f"{unit} ago" for unit in _PAST_UNITS))
        or meaning.startswith("last ")
        for form in forms
    )
    ago = [
        form.replace(_NUMBER, r"(?:\d+|\p{L}+)")
        for meaning, forms in tables["relative-type-regex"].items()
        if meaning.endswith(tuple(f"{unit} ago" for unit in _PAST_UNITS))
        for form in forms
        if " " in form
    ]
    day, year = r"\d{1,2}(?:st|nd|rd|th|\.)?", r"(?:19|20)\d\d"
    shapes = (
        r"\d{4}-\d\d-\d\d",
        rf"{day}(?: (?:of|de|di))? (?:{months})\.?(?:,? {year})?",
        rf"(?:{months})\.? {day}(?:,? {year})?(?!\d)",
        rf"(?:{months})\.?,? {year}",
        *ago,
        relative,
        rf"(?<=\b(?:in|since|of|during|last) )(?:{months}|{year})",
        rf"(?<=\b(?:on|last) )(?:{weekdays})",
    )
    return regex.compile(rf"\b(?:{'|'.join(shapes)})\b", regex.IGNORECASE)


def _any_of(forms: Iterable[str]) -> str:
    """Longer ones first, since the first that fits is taken."""
    long_enough = {form for form in forms if len(form) >= _SHORTEST_NAME}
    return "|".join(map(regex.escape, sorted(long_enough, key=lambda form: (-len(form), form))))


@functools.lru_cache
def _tables(language: str) -> Mapping[str, Any] | None:
    """Dateparser's words of a language; None if it knows none."""
    try:
        module = importlib.import_module(f"dateparser.data.date_translation_data.{language}")
    except ImportError:
        return None
    tables: Mapping[str, Any] = module.info
    return tables
