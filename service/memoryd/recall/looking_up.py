"""Which terms of some sessions the words of a query stand for."""

from __future__ import annotations

import heapq
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from memoryd.recall.languages import commonest, language_of
from memoryd.recall.spellings import Alike, is_comparable
from memoryd.recall.text import analyser, is_unspaced

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from memoryd.recall.corpus import Corpus
    from memoryd.recall.index import SessionIndex

MOST_LANGUAGES = 6
"""Of those that memories are in, the commonest, under which words are looked up."""

MOST_ALIKE = 3
"""Terms that a word may stand for which no memory has."""

MOST_COMPARED = 8
"""Words of a query that are compared with terms because no memory has them."""


class LookedUp(NamedTuple):
    """The words of a query and what they stand for."""

    language: str
    """That the query is taken to be in."""
    term_of: Mapping[str, str]
    """The first term that each word stands for; a stop word stands for none."""
    similarity: Mapping[str, float]
    """Of those that are not a word's own, to that word."""
    besides: Mapping[str, Sequence[Alike]]
    """What else the word of a first term stands for."""


def look_up(words: Sequence[str], corpus: Corpus, indexes: Sequence[SessionIndex]) -> LookedUp:
    """Find the words of a query among the terms of its sessions.

    Each memory has the terms of its own language, so the query's words are looked up under all
    that memories are in. The language of a query says which words are stop words. Words that no
    memory has stand for terms that are spelled much like them.
    """
    held = _languages(indexes)
    language = language_of(words, corpus.language, likely=held)
    own, others = analyser(language), [analyser(known) for known in held if known != language]
    term_of: dict[str, str] = {}
    similarity: dict[str, float] = {}
    besides: dict[str, Sequence[Alike]] = {}
    compared = 0
    for word in dict.fromkeys(words):
        if not (term := own.term(word)):
            continue
        if is_unspaced(word) or (not others and corpus.frequency(term)):
            term_of[word] = term
            continue
        forms = {term, *(other.term(word) for other in others)} - {""}
        known = sorted((-count, form) for form in forms if (count := corpus.frequency(form)))
        term_of[word] = known[0][1] if known else term
        if len(known) > 1:
            besides.setdefault(term_of[word], [Alike(form, 1.0) for _, form in known[1:]])
        elif not known and is_comparable(term) and compared < MOST_COMPARED:
            compared += 1
            alike = _most_alike(chain.from_iterable(i.spelled_like(term) for i in indexes))
            if alike:
                term_of[word] = alike[0].term
                similarity.setdefault(*alike[0])
                besides.setdefault(alike[0].term, alike[1:])
    return LookedUp(language, term_of, similarity, besides)


def _languages(indexes: Sequence[SessionIndex]) -> Sequence[str]:
    """Of the memories, the commonest first."""
    if len(indexes) == 1:
        return indexes[0].languages[:MOST_LANGUAGES]
    counted: Counter[str] = Counter()
    for index in indexes:
        counted += index.memories_in
    return commonest(counted)[:MOST_LANGUAGES]


def _most_alike(found: Iterable[Alike]) -> list[Alike]:
    return heapq.nsmallest(MOST_ALIKE, set(found), key=lambda one: (-one.similarity, one.term))
