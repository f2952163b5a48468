"""What the form of a text says about what it can answer, and of a query about what is asked.

The words of a language stand in one table; a language without one has fewer cues.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

_APOSTROPHES = ("'", "\u2019")


def _forms(stems: str, endings: str = "", others: str = "") -> frozenset[str]:
    """Each of `stems` as it is and contracted with each of `endings`; and `others`."""
    contracted = (
        f"{stem}{apostrophe}{ending}"
        for stem in stems.split()
        for apostrophe in _APOSTROPHES
        for ending in endings.split()
    )
    return frozenset((*stems.split(), *contracted, *others.split()))


class FirstPerson(NamedTuple):
    """What a speaker says in place of the own name."""

    name: str
    possessive: str


@dataclass(frozen=True, slots=True)
class _Language:
    months: str
    """The twelve, in order."""
    times: frozenset[str]
    """Words that place something in time."""
    numbers: frozenset[str]
    """Words for numbers; what begins with a digit is one, too."""
    of_self: frozenset[str]
    """Words of the first person."""
    of_other: frozenset[str]
    """Words of the second person."""
    first_person: FirstPerson
    asks_when: re.Pattern[str]
    asks_amount: re.Pattern[str]
    asks_name: re.Pattern[str]


_LANGUAGES = {
    "en": _Language(
        months="January February March April May June"
        " July August September October November December",
        times=_forms(
            "yesterday today tomorrow tonight last next ago just recently since soon"
            " day days week weeks weekend weekends month months year years"
            " spring summer autumn fall winter"
            " monday tuesday wednesday thursday friday saturday sunday"
            " january february march april may june july august september october november december"
        )
        | frozenset(map(str, range(1900, 2100))),
        numbers=_forms(
            "one two three four five six seven eight nine ten eleven twelve dozen couple few"
            " several once twice"
        ),
        of_self=_forms("i we", "m ve d ll re", "my our me us mine ours"),
        of_other=_forms("you", "ve d ll re", "your yours u"),
        first_person=FirstPerson("I", "my"),
        asks_when=re.compile(
            r"\W*(?:when|how long|(?:what|which) (?:date|day|week|month|year|time)) "
        ),
        asks_amount=re.compile(r"\bhow (?:many|much|often|long|old)\b"),
        asks_name=re.compile(r"\b(?:who|whom|whose|where|which|names?)\b"),
    )
}

# An annotation in brackets at the end, as of a picture that was shared, is not what was said.
_ANNOTATION = re.compile(r"\s*\[[^\][]*\]\s*$")
_QUESTION_MARKS = ("?", "\N{FULLWIDTH QUESTION MARK}", "\N{ARABIC QUESTION MARK}")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+")

_MOST_TIMES = 2
_MOST_NAMES = 3


class TextForm(NamedTuple):
    """Of a memory's text."""

    question: float
    """1 if it ends in a question."""
    times: float
    """How many of its words place something in time, at most 2."""
    numbers: float
    """1 if it holds a number."""
    names: float
    """How many capitalised words stand inside its sentences, at most 3."""
    of_self: float
    """Whether it is about the one who says it (towards 1) or the one addressed (towards -1)."""


class QueryForm(NamedTuple):
    """What a query asks for; each 0 or 1."""

    when: float
    amount: float
    name: float


def text_form(text: str, words: list[str], language: str) -> TextForm:
    """The form of a memory's text, given with its words in lower case."""
    spoken = _ANNOTATION.sub("", text) if text.endswith("]") else text
    question = float(spoken.rstrip().endswith(_QUESTION_MARKS))
    known = _LANGUAGES.get(language)
    if known is None:
        return TextForm(question, 0.0, 0.0, 0.0, 0.0)
    times = sum(map(known.times.__contains__, words))
    begin_with = {word[0] for word in words}
    numbers = not known.numbers.isdisjoint(words) or any(map(str.isdecimal, begin_with))
    names = len(_NAME.findall(text))
    first = sum(map(known.of_self.__contains__, words))
    second = sum(map(known.of_other.__contains__, words))
    return TextForm(
        question,
        float(min(times, _MOST_TIMES)),
        float(numbers),
        float(min(names, _MOST_NAMES)),
        (first - second) / (first + second + 1),
    )


def query_form(query: str, language: str) -> QueryForm:
    """What a query asks for."""
    known = _LANGUAGES.get(language)
    if known is None:
        return QueryForm(0.0, 0.0, 0.0)
    lower = query.lower()
    return QueryForm(
        float(bool(known.asks_when.match(lower))),
        float(bool(known.asks_amount.search(lower))),
        float(bool(known.asks_name.search(lower))),
    )


def first_person(language: str) -> FirstPerson:
    """What speakers of a language say for themselves; nothing where it is not known."""
    known = _LANGUAGES.get(language)
    return known.first_person if known else FirstPerson("", "")


def month_name(month: int, language: str) -> str:
    """The name of a month (1 to 12) in a language, or nothing where it is not known."""
    known = _LANGUAGES.get(language)
    return known.months.split()[month - 1] if known else ""
