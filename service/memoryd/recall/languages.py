"""Which language a text is in: told by its script and its stop words, since no more is needed.

What language a memory is taken to be in decides its stop words, its endings and its cues alone.
"""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter, defaultdict
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

DEFAULT_LANGUAGE = "en"

LATIN = "LATIN"

_BEYOND_LATIN = "\u0370"
"""Letters that sort before it are Latin."""

_OF_SCRIPT = {
    "ARABIC": "ar",
    "ARMENIAN": "hy",
    "CJK": "zh",
    "CYRILLIC": "ru",
    "DEVANAGARI": "hi",
    "GREEK": "el",
    "HANGUL": "ko",
    "HEBREW": "he",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "TAMIL": "ta",
    "THAI": "th",
}
"""The language that a script is taken for where words do not tell, by the script's name in
Unicode's names of characters."""

_SCRIPT_OF = {
    **{language: script for script, language in _OF_SCRIPT.items() if language != "ja"},
    "bg": "CYRILLIC",
    "fa": "ARABIC",
    "ja": "HIRAGANA",
    "ne": "DEVANAGARI",
    "sr": "CYRILLIC",
    "uk": "CYRILLIC",
    "yi": "HEBREW",
}
"""Of languages that are not written in Latin letters."""

_BM25S_LISTS = {
    "da": "DANISH",
    "de": "GERMAN",
    "en": "EN_PLUS",
    "es": "SPANISH",
    "fr": "FRENCH",
    "it": "ITALIAN",
    "ko": "KOREAN",
    "nl": "DUTCH",
    "no": "NORWEGIAN",
    "pt": "PORTUGUESE",
    "ru": "RUSSIAN",
    "sv": "SWEDISH",
    "tr": "TURKISH",
    "zh": "CHINESE",
}
_OTHER_LISTS = frozenset(
    ("ar", "bg", "ca", "cs", "fa", "fi", "he", "hi", "hu", "id", "ja", "pl", "ro", "sk", "uk")
)
"""Those of the library stop-words; its Greek is ancient, its Vietnamese mostly phrases."""

_GUESSED = (
    *("ar", "bg", "da", "de", "en", "es", "fa", "fr", "it"),
    *("nl", "no", "pl", "pt", "ru", "sv", "tr", "uk"),
)
"""Languages that stop words tell apart; of each other script there is one."""

TELLING_WORDS = 64
"""Of a text, from its beginning; more tell nothing else."""

_ONE = 1000
"""What a stop word counts that is of one language alone. Whole numbers, since a sum of others would
depend on the order of words in a set, which differs between processes."""

_SHARED = 500
"""What a stop word counts at least, of however many languages."""

_LETTER = 500
"""What a letter counts at least, which names have in any language."""

_LEAD = 600
"""How much more has to speak for a language than for the default."""

_MOST_OTHERS = 1
"""Languages that share a word of the longer English list, for it to be English."""


class _Signs(NamedTuple):
    """What tells the languages of a script apart."""

    languages: tuple[str, ...]
    words: Mapping[str, tuple[int, tuple[str, ...]]]
    """The stop words: what each counts, for which languages."""
    letters: Mapping[str, tuple[int, tuple[str, ...]]]
    """Letters beyond ASCII that stop words have; the same."""
    strange: frozenset[str]
    """The words that are none of the usual language's."""


def script_of(word: str) -> str:
    """The script of a word's first letter, as Unicode's names of characters begin."""
    if word < _BEYOND_LATIN:
        return LATIN
    return unicodedata.name(word[0], LATIN).partition(" ")[0]


def _script(language: str) -> str:
    return _SCRIPT_OF.get(language, LATIN)


def language_in(script: str, language: str) -> str:
    """The language that words of a script are in, in a text of a language."""
    if script == _script(language):
        return language
    known = _OF_SCRIPT.get(script, DEFAULT_LANGUAGE if script == LATIN else language)
    # Japanese is written in three scripts.
    return language if language == "ja" and known in ("ja", "zh") else known


def language_of(words: Sequence[str], default: str, likely: Container[str] = ()) -> str:
    """The language of a text, given its words in lower case; `default` where they do not tell.

    Less is enough for one that is `likely`. Given are ISO 639-1 codes, and so is the answer.
    """
    script, told, letters = LATIN, set(words[:TELLING_WORDS]), set[str]()
    if not all(map(str.isascii, told)):
        script, told = _main_script(told)
        letters.update(*(word for word in told if not word.isascii()))
        told = {word.replace("\u2019", "'") for word in told}
    for joined in [word for word in told if "'" in word]:
        told.update(joined.split("'"))
    usual = language_in(script, default)
    signs = _signs(script, usual)
    if signs.strange.isdisjoint(told) and not letters:
        return usual  # what counts for another language counts for this one as much
    votes = dict.fromkeys(signs.languages, 0)
    for seen, weights in ((told, signs.words), (letters, signs.letters)):
        for sign in [sign for sign in seen if sign in weights]:
            weight, languages = weights[sign]
            for language in languages:
                votes[language] += weight
    best = max(votes, key=lambda known: (votes[known], known == usual, known in likely))
    lead = votes[best] - votes[usual]
    if best in likely:
        return best if lead > 0 else usual
    # One sign alone may be a name ("Ben", which is Dutch for "am"), and would be left out.
    found = [signs.words[word] for word in told if word in signs.strange]
    found += [signs.letters[letter] for letter in letters if letter in signs.letters]
    strange = [languages for _, languages in found if usual not in languages]
    is_told = lead >= _LEAD and sum(best in languages for languages in strange) > 1
    return best if is_told else usual


def _main_script(words: set[str]) -> tuple[str, set[str]]:
    """The script of most words, and which words those are."""
    by_script: dict[str, set[str]] = defaultdict(set)
    for word in words:
        if word[0].isalpha():
            by_script[script_of(word)].add(word)
    if "HIRAGANA" in by_script or "KATAKANA" in by_script:
        by_script["HIRAGANA"] |= by_script.pop("KATAKANA", set()) | by_script.pop("CJK", set())
    if not by_script:
        return LATIN, words
    script = max(by_script, key=lambda script: (len(by_script[script]), script))
    return script, by_script[script]


@functools.lru_cache
def _signs(script: str, usual: str) -> _Signs:
    languages = sorted({usual, *(name for name in _GUESSED if _script(name) == script)})
    words = {language: _parts(stop_words(language)) for language in languages}
    if "en" in words:
        # Most texts are English. The longer list has words of others, too, most in several lists.
        held = Counter(chain.from_iterable(words.values()))
        words["en"] |= {word for word in _parts(_other_list("en")) if held[word] <= _MOST_OTHERS}
    letters = (
        {language: frozenset(filter(_is_special, "".join(words[language]))) for language in words}
        if script == LATIN
        else {}
    )
    strange = frozenset().union(*words.values()) - words[usual]
    return _Signs(
        tuple(sorted(languages, key=lambda language: len(words[language]))),
        {
            word: (_SHARED + (_ONE - _SHARED) // len(known), known)
            for word, known in _holders(words).items()
        },
        {
            letter: (_LETTER + (_LEAD - _LETTER) // (len(known) + 1), known)
            for letter, known in _holders(letters).items()
        },
        strange,
    )


def _holders(signs: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """The languages that have each sign."""
    found: dict[str, list[str]] = defaultdict(list)
    for language, held in signs.items():
        for sign in held:
            found[sign].append(language)
    return {sign: tuple(languages) for sign, languages in found.items()}


def _is_special(letter: str) -> bool:
    return letter.isalpha() and not letter.isascii()


def _parts(words: Iterable[str]) -> frozenset[str]:
    return frozenset(part for word in words for part in word.split("'"))


def commonest(counted: Mapping[str, int]) -> tuple[str, ...]:
    """The languages that are counted above 0, the commonest first."""
    held = [(-count, language) for language, count in counted.items() if count > 0]
    return tuple(language for _, language in sorted(held))


@functools.lru_cache
def stop_words(language: str) -> frozenset[str]:
    """Those of a language, also without their apostrophes; none where no list is known."""
    name = _BM25S_LISTS.get(language)
    if name is not None:
        from bm25s import stopwords  # noqa: PLC0415  a third of a second

        words: Iterable[str] = getattr(stopwords, f"STOPWORDS_{name}")
    elif language in _OTHER_LISTS:
        words = _other_list(language)
    else:
        return frozenset()
    return frozenset(form for word in words for form in (word, word.replace("'", "")))


def _other_list(language: str) -> frozenset[str]:
    from stop_words import get_stop_words  # noqa: PLC0415  reads a file

    return frozenset(get_stop_words(language))
