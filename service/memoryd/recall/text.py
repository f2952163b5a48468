"""Texts as terms: words without stop words, stemmed; scripts without spaces by bigrams."""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import TYPE_CHECKING

import regex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DEFAULT_LANGUAGE = "en"

MAX_WORD_CHARS = 64
"""Of a longer run only the head is kept: it is no word, and equal heads are enough to find it."""

_CACHED_WORDS = 65_536
_CACHED_LABELS = 1024

# Of a regular expression: characters of scripts that put no space between words.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー"
# Marks and joiners belong to words (`regex` counts them, `re` does not), but are none by
# themselves, as those of an emoji; apostrophes between letters join.
SPACED_WORD = (
    rf"[[\p{{L}}\p{{N}}]--[{UNSPACED}]][\w--[_{UNSPACED}]]*(?:['\u2019][\w--[_{UNSPACED}]]+)*"
)
_WORD = regex.compile(rf"[{UNSPACED}]+|{SPACED_WORD}", regex.V1)
# The same for what most texts are, several times as fast.
_ASCII_WORD = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*")
_IDEOGRAPH = regex.compile(r"\p{Han}")
_BELOW_UNSPACED = "\u0e00"
"""Thai is the first block of these scripts: words that sort before it are not looked at."""
_UNSPACED_RUN = regex.compile(rf"[{UNSPACED}]+", regex.V1)

_STOP_WORD_LISTS = {
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


class Analyser:
    """What a language makes of a text; `analyser` gives the one of a language."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._stop_words = _stop_words(language)
        self._stem = _stemmer(language)
        self._term_of = functools.lru_cache(_CACHED_WORDS)(self._term)
        self._terms_of_label = functools.lru_cache(_CACHED_LABELS)(
            lambda label: tuple(self.terms(self.words(label)))
        )

    def words(self, text: str) -> list[str]:
        """Words in lower case and compatibility form (NFKC), in order, stop words among them."""
        lower = folded(text)
        if lower.isascii():
            return [word[:MAX_WORD_CHARS] for word in _ASCII_WORD.findall(lower)]
        words: list[str] = []
        for word in _WORD.findall(lower):
            if not word.isascii() and _UNSPACED_RUN.match(word):
                words += _pieces(word)
            else:
                words.append(word[:MAX_WORD_CHARS])
        return words

    def term(self, word: str) -> str:
        """What `word` is indexed as: its stem, or nothing if it is a stop word."""
        return self._term_of(word)

    def terms(self, words: Iterable[str]) -> list[str]:
        """The terms of `words`, in order, repeats kept."""
        return [term for term in map(self._term_of, words) if term]

    def terms_of_label(self, label: str) -> tuple[str, ...]:
        """The terms of a text that many memories share, as a name or a date."""
        return self._terms_of_label(label)

    def _term(self, word: str) -> str:
        if word > _BELOW_UNSPACED and _UNSPACED_RUN.match(word):
            return "" if word in self._stop_words else word  # no stemmer knows these scripts
        word = word.replace("\u2019", "'")
        if word in self._stop_words:
            return ""
        word = word.removesuffix("'s").replace("'", "")
        if word in self._stop_words:
            return ""
        return self._stem(word)


@functools.lru_cache
def analyser(language: str = DEFAULT_LANGUAGE) -> Analyser:
    """The analyser of a language, given as an ISO 639-1 code.

    A language without a stop word list keeps every word, one without a stemmer every ending.
    """
    return Analyser(language)


def folded(text: str) -> str:
    """In lower case and compatibility form (NFKC)."""
    lower = text.lower()
    return lower if lower.isascii() else unicodedata.normalize("NFKC", lower)


def _pieces(run: str) -> list[str]:
    """Each pair of neighbours, and each ideograph, since one alone may be a word."""
    pieces = [run[place : place + 2] for place in range(len(run) - 1)]
    return [*pieces, *_IDEOGRAPH.findall(run)] if pieces else [run]


def _stop_words(language: str) -> frozenset[str]:
    name = _STOP_WORD_LISTS.get(language)
    if name is None:
        return frozenset()
    from bm25s import stopwords  # noqa: PLC0415  a third of a second

    words: Iterable[str] = getattr(stopwords, f"STOPWORDS_{name}")
    return frozenset(form for word in words for form in (word, word.replace("'", "")))


def _stemmer(language: str) -> Callable[[str], str]:
    import Stemmer  # noqa: PLC0415  as above

    try:
        # Without a cache of its own: words are cached here, and PyStemmer sorts its cache each time
        # that it is full.
        stemmer = Stemmer.Stemmer(language, 0)
    except KeyError:
        return str
    stem: Callable[[str], str] = stemmer.stemWord
    return stem
