"""The recall data of one session, in memory, brought up to date from what changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import compress, islice
from typing import TYPE_CHECKING

import numpy as np

from memoryd.recall.arrays import ROW, SessionArrays
from memoryd.recall.corpus import Corpus
from memoryd.recall.cues import month_name, text_form
from memoryd.recall.episodes import NO_EPISODE
from memoryd.recall.languages import DEFAULT_LANGUAGE, commonest, language_of
from memoryd.recall.spellings import Spellings
from memoryd.recall.text import analyser, words_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from memoryd.recall.spellings import Alike

SIGNATURE_BITS = 64
"""Of what terms a memory's content has; several terms may share a bit."""

_SPARE_ROOM = 8
"""When vectors move, there is room for one more of so many."""

_TOLERATED_UNUSED_TERMS = 1000

MAX_TERMS = 4096
"""Of a memory's content, from its beginning: more than a content of the greatest length has in a
script with spaces, unless it is made of single letters. Without spaces each character is two."""


@dataclass(frozen=True, slots=True)
class Document:
    """What recall knows of a memory."""

    memory_id: str
    content: str
    created: int
    """Its place in creation order (`Memory.created_revision`), unique in its session."""
    created_at: datetime
    speaker: str = ""
    occurred_at: datetime | None = None
    """None: when it was created."""
    episode: str = ""
    """Empty: of no episode, and so without neighbours."""
    vector: NDArray[np.float16] | None = None
    """Shape (dimensions,), of length 1; None until it is made, and without an embedder."""


class SessionIndex(SessionArrays):
    """One session's memories as arrays that follow what changes.

    Not safe for use by several threads while it is updated. What depends on the order of updates
    (the numbers of terms, speakers and episodes) reaches no score.
    """

    def __init__(
        self,
        documents: Iterable[Document] = (),
        *,
        dimensions: int = 0,
        language: str = DEFAULT_LANGUAGE,
    ) -> None:
        """`dimensions`: of the documents' vectors; 0 without an embedder."""
        super().__init__(dimensions=dimensions, language=language)
        self.memories_in: Counter[str] = Counter()
        """How many memories are taken to be in each language."""
        self._spellings = Spellings()
        self._corpus: Corpus | None = None
        self._forget_derived()
        self.update(documents)

    @property
    def corpus(self) -> Corpus:
        """This session alone, as what is ranked."""
        if self._corpus is None:
            self._corpus = Corpus([self])
        return self._corpus

    @property
    def nbytes(self) -> int:
        """As of arrays, and the trigrams of terms, which are made for the first query in need."""
        return super().nbytes + self._spellings.nbytes

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Those that memories are taken to be in, the commonest first."""
        return commonest(self.memories_in)

    def spelled_like(self, term: str) -> list[Alike]:
        """The terms of memories that are spelled much like one of none, in no order."""
        alike = self._spellings.like(term, self._vocabulary)
        return [one for one in alike if self.frequency(one.term)]

    def update(self, changed: Iterable[Document], removed: Iterable[str] = ()) -> None:
        """Take in new and changed memories and drop removed ones; ids not held are passed over."""
        fresh = {document.memory_id: document for document in changed}
        gone = [self._places[i] for i in {*removed, *fresh} if i in self._places]
        if not fresh and not gone:
            return
        kept = np.ones(len(self.ids), np.bool_)
        kept[gone] = False
        for place in gone:
            np.subtract.at(self._frequencies, np.unique(self._held(place)), 1)
            self.memories_in[language_of(words_of(self.contents[place]), self.language)] -= 1
        documents = sorted(fresh.values(), key=lambda document: document.created)
        rows, tokens = self._analysed(documents)
        self._count_terms(tokens)
        if not gone and (not self.ids or documents[0].created > self.rows["created"][-1]):
            self._append(documents, rows, tokens)
        else:
            self._arrange(kept, documents, rows, tokens)
            if self._is_stale():
                self._renumber()
        self._forget_derived()

    def set_vector(self, memory_id: str, vector: NDArray[np.float16]) -> None:
        """Let a memory have a vector. Raises `KeyError`."""
        place = self._places[memory_id]
        self.vectors[place] = vector
        self.rows["has_vector"][place] = True
        self._corpus = None

    def _analysed(
        self, documents: list[Document]
    ) -> tuple[NDArray[np.void], list[NDArray[np.int64]]]:
        rows = np.zeros(len(documents), ROW)
        tokens: list[NDArray[np.int64]] = []
        vocabulary = self._vocabulary
        known = [(names, len(names)) for names in (self._speakers, self._episodes)]
        for place, document in enumerate(documents):
            words = words_of(document.content)
            language = language_of(words, self.language)
            self.memories_in[language] += 1
            terms = analyser(language).terms(words)[:MAX_TERMS]
            own = len(terms)
            distinct = set(terms)
            terms = [*self._heading(document), *terms]
            numbers = [vocabulary.setdefault(term, len(vocabulary)) for term in terms]
            tokens.append(np.array(numbers, np.int64))
            rows[place] = (
                document.created,
                (document.occurred_at or document.created_at).timestamp(),
                self._speakers.setdefault(document.speaker, len(self._speakers)),
                self._episodes.setdefault(document.episode, len(self._episodes))
                if document.episode
                else NO_EPISODE,
                own,
                *text_form(document.content, words, language),
                document.vector is not None,
                len(distinct),
                _signature(distinct),
            )
        for names, count in known:
            self._characters += sum(map(len, islice(names, count, None)))
        return rows, tokens

    def _heading(self, document: Document) -> list[str]:
        """Who said it and when, as terms: a query may name them instead of what was said."""
        day = document.occurred_at
        date = f"{day.day} {month_name(day.month, self.language)} {day.year}" if day else ""
        return [
            *analyser(self.language).terms_of_label(document.speaker),
            *analyser(self.language).terms_of_label(date),
        ]

    def _count_terms(self, tokens: list[NDArray[np.int64]]) -> None:
        terms = [*islice(self._vocabulary, len(self._frequencies), None)]
        self._characters += sum(map(len, terms))
        self._frequencies = np.concatenate([self._frequencies, np.zeros(len(terms), np.int32)])
        for held in tokens:
            self._frequencies[np.unique(held)] += 1

    def _append(
        self, documents: list[Document], rows: NDArray[np.void], tokens: list[NDArray[np.int64]]
    ) -> None:
        """Put what is younger than all others behind them."""
        before, count = len(self), len(self) + len(documents)
        if count > len(self._room):
            room = np.zeros((count + count // _SPARE_ROOM, self._room.shape[1]), np.float32)
            room[:before] = self.vectors
            self._room = room
        self.vectors = self._room[:count]
        self.vectors[before:] = 0.0
        self._put_vectors(range(before, count), documents)
        lengths = [*map(len, tokens)]
        self.rows = np.concatenate([self.rows, rows])
        self.tokens = np.concatenate([self.tokens, *tokens])
        self.holders = np.concatenate([self.holders, np.repeat(np.arange(before, count), lengths)])
        self.lengths = np.concatenate([self.lengths, lengths])
        self.ends = np.cumsum(self.lengths)
        self.ids += [document.memory_id for document in documents]
        self.contents += [document.content for document in documents]
        self._places.update(zip(self.ids[before:], range(before, count), strict=True))
        self._characters += sum(map(len, self.ids[before:]))

    def _put_vectors(self, places: Iterable[int], documents: list[Document]) -> None:
        for place, document in zip(places, documents, strict=True):
            if document.vector is not None:
                self.vectors[place] = document.vector

    def _arrange(
        self,
        kept: NDArray[np.bool_],
        fresh: list[Document],
        rows: NDArray[np.void],
        tokens: list[NDArray[np.int64]],
    ) -> None:
        """Put what was kept and what is new into creation order."""
        places = np.flatnonzero(kept)
        created = np.concatenate([self.rows["created"][places], rows["created"]])
        order = np.argsort(created, kind="stable")
        place_of = np.empty(len(order), np.int32)
        place_of[order] = np.arange(len(order), dtype=np.int32)
        moved, added = place_of[: len(places)], place_of[len(places) :]

        everything = np.empty(len(order), ROW)
        everything[moved], everything[added] = self.rows[places], rows
        self.rows = everything
        # One copy of what may be a megabyte: whatever lands on a new memory's place is overwritten.
        source = np.zeros(len(order), np.int64)
        source[moved] = places
        if len(kept):
            vectors = self.vectors.take(source, axis=0)
            vectors[added] = 0.0
        else:
            vectors = np.zeros((len(order), self.vectors.shape[1]), np.float32)
        self.vectors = self._room = vectors
        self._put_vectors(added.tolist(), fresh)

        where = np.empty(len(kept), np.int64)
        where[places] = moved
        stay = kept[self.holders]
        holders = np.concatenate([where[self.holders[stay]], np.repeat(added, [*map(len, tokens)])])
        arranged = np.argsort(holders, kind="stable")
        self.holders = holders[arranged]
        self.tokens = np.concatenate([self.tokens[stay], *tokens])[arranged]
        self.lengths = np.bincount(self.holders, minlength=len(order))
        self.ends = np.cumsum(self.lengths)

        ids = [*compress(self.ids, kept.tolist()), *(document.memory_id for document in fresh)]
        self._characters += sum(map(len, ids)) - sum(map(len, self.ids))
        texts = [*compress(self.contents, kept.tolist()), *(d.content for d in fresh)]
        self.ids = [ids[place] for place in order.tolist()]
        self.contents = [texts[place] for place in order.tolist()]
        self._places = dict(zip(self.ids, range(len(ids)), strict=True))

    def _forget_derived(self) -> None:
        """Drop what is derived from all memories together; it is computed again when asked for."""
        self._corpus = None
        for name in ("idf", "extent", "episodes", "languages"):
            self.__dict__.pop(name, None)

    def _is_stale(self) -> bool:
        """Whether most terms known are held by no memory any more."""
        unused = np.count_nonzero(self._frequencies == 0)
        return int(unused) > max(_TOLERATED_UNUSED_TERMS, len(self._frequencies) // 2)

    def _renumber(self) -> None:
        """Forget the terms, speakers and episodes that no memory holds."""
        used = np.flatnonzero(self._frequencies)
        self.tokens = np.searchsorted(used, self.tokens)
        self._frequencies = self._frequencies[used]
        kept = _renumbered(self._vocabulary, used)
        self._characters += sum(map(len, kept)) - sum(map(len, self._vocabulary))
        self._vocabulary = kept
        self._spellings = Spellings()
        for field, names in (("speaker", self._speakers), ("episode", self._episodes)):
            values = self.rows[field]
            present = np.unique(values[values != NO_EPISODE])
            values[values != NO_EPISODE] = np.searchsorted(present, values[values != NO_EPISODE])
            kept = _renumbered(names, present)
            names.clear()
            names.update(kept)


def _signature(terms: Iterable[str]) -> int:
    signature = 0
    for term in terms:
        signature |= 1 << hash(term) % SIGNATURE_BITS
    return signature


def _renumbered(names: dict[str, int], used: NDArray[np.int64]) -> dict[str, int]:
    by_number = {number: name for name, number in names.items()}
    return {by_number[number]: new for new, number in enumerate(used.tolist())}


def corpus_of(indexes: Sequence[SessionIndex]) -> Corpus:
    """Several sessions as one; one session's is kept with it."""
    return indexes[0].corpus if len(indexes) == 1 else Corpus(indexes)
