"""Texts as terms: words and pictures, no stop words, stemmed; bigrams where no spaces are."""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import TYPE_CHECKING

import regex

from memoryd.recall.languages import DEFAULT_LANGUAGE, language_in, script_of, stop_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_WORD_CHARS = 64
"""Of a longer run only the head is kept: it is no word, and equal heads are enough to find it."""

_CACHED_WORDS = 16_384
"""Of each language, of which there may be some twenty."""

_CACHED_LABELS = 1024

# Of a regular expression: characters of scripts that put no space between words.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー"
# Marks and joiners belong to words (`regex` counts them, `re` does not), but are none by
# themselves, as those of an emoji; apostrophes between letters join.
SPACED_WORD = (
    rf"[[\p{{L}}\p{{N}}]--[{UNSPACED}]][\w--[_{UNSPACED}]]*(?:['\u2019][\w--[_{UNSPACED}]]+)*"
)
# What readers take for one picture, which may be several characters; a letter in a circle is none.
_PICTURE = r"(?=[\p{Extended_Pictographic}\p{Regional_Indicator}--[\u00a9\u00ae]])\X"
_WORD = regex.compile(rf"[{UNSPACED}]+|{SPACED_WORD}|{_PICTURE}", regex.V1)
# The same for what most texts are, several times as fast.
_ASCII_WORD = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*")
_VARIATIONS = re.compile("[\ufe0e\ufe0f]+")
# What joins pictures to one or colours them: joiner, skin tones, tags.
_JOINS = re.compile("[\u200d\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]+")
_IDEOGRAPH = regex.compile(r"\p{Han}")
_BELOW_UNSPACED = "\u0e00"
"""Thai is the first block of these scripts: words that sort before it are not looked at."""
_UNSPACED_RUN = regex.compile(rf"[{UNSPACED}]+", regex.V1)

_ELIDING = frozenset({"ca", "fr", "it"})
"""Languages whose articles and prepositions join a word by an apostrophe."""
_LONGEST_ELIDED = 5
"""In letters: Italian has "dell'", "quell'", French "qu'" and "jusqu'", which is longer."""


class Analyser:
    """What a language makes of a text; `analyser` gives the one of a language."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._stop_words = stop_words(language)
        self._stem = _stemmer(language)
        self._term_of = functools.lru_cache(_CACHED_WORDS)(self._term)
        self._terms_of_label = functools.lru_cache(_CACHED_LABELS)(
            lambda label: tuple(self.terms(words_of(label)))
        )

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
        language = language_in(script_of(word), self.language)
        if is_unspaced(word):
            return "" if word in stop_words(language) else word  # no stemmer knows these scripts
        if language != self.language:
            return analyser(language).term(word)
        word = word.replace("\u2019", "'")
        if word in self._stop_words:
            return ""
        if self.language in _ELIDING:
            article, joined, rest = word.partition("'")
            word = rest if joined and len(article) <= _LONGEST_ELIDED else word
        word = word.removesuffix("'s").replace("'", "")
        if word in self._stop_words:
            return ""
        return self._stem(word)


def words_of(text: str) -> list[str]:
    """Words in lower case and compatibility form (NFKC), in order, stop words among them."""
    lower = folded(text)
    if lower.isascii():
        return [word[:MAX_WORD_CHARS] for word in _ASCII_WORD.findall(lower)]
    words: list[str] = []
    for word in _WORD.findall(lower):
        if is_unspaced(word):
            words += _pieces(word)
        elif word[0].isalnum():
            words.append(word[:MAX_WORD_CHARS])
        else:
            words += picture_parts(word[:MAX_WORD_CHARS])
    return words


@functools.lru_cache
def analyser(language: str = DEFAULT_LANGUAGE) -> Analyser:
    """The analyser of a language, given as an ISO 639-1 code.

    A language without a stop word list keeps every word, one without a stemmer every ending.
    """
    return Analyser(language)


def is_unspaced(word: str) -> bool:
    """Whether a word begins in a script that puts no space between words."""
    return word > _BELOW_UNSPACED and _UNSPACED_RUN.match(word) is not None


def folded(text: str) -> str:
    """In lower case and compatibility form (NFKC)."""
    lower = text.lower()
    # The compatibility form of a sign as \u2122 has capitals.
    return lower if lower.isascii() else unicodedata.normalize("NFKC", lower).lower()


def picture_parts(picture: str) -> tuple[str, ...]:
    """A picture as a whole and, if it is made of several, in its parts; nothing if none is seen.

    So it has something in common with those that share a part.
    """
    plain = _VARIATIONS.sub("", picture)
    parts = tuple(filter(None, _JOINS.split(plain)))
    if all(unicodedata.category(character)[0] == "C" for part in parts for character in part):
        return ()
    return parts if parts == (plain,) else (plain, *parts)


def _pieces(run: str) -> list[str]:
    """Each pair of neighbours, and each ideograph, since one alone may be a word."""
    pieces = [run[place : place + 2] for place in range(len(run) - 1)]
    return [*pieces, *_IDEOGRAPH.findall(run)] if pieces else [run]


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
