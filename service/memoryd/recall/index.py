"""The recall data of one session, in memory, brought up to date from what changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import compress, islice
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import numpy as np

from memoryd.recall.arrays import ROW, SIGNATURE_WORDS, SessionArrays
from memoryd.recall.corpus import Corpus
from memoryd.recall.cues import month_name, text_form
from memoryd.recall.episodes import NO_EPISODE
from memoryd.recall.languages import DEFAULT_LANGUAGE, commonest, language_of
from memoryd.recall.spellings import Spellings
from memoryd.recall.text import analyser, words_of
from memoryd.recall.wording import plain, statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from memoryd.recall.spellings import Alike

_SIGNATURE_BITS = 64 * SIGNATURE_WORDS

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
    token_vectors: NDArray[np.int8] | None = None
    """Shape (tokens, token dimensions), for `maxsim`; None unless the embedder makes them."""


class _Analysed(NamedTuple):
    """What is known of some documents."""

    rows: NDArray[np.void]
    terms: list[list[int]]
    pieces: list[list[int]]
    signatures: NDArray[np.uint64]
    vectors: NDArray[np.float32]


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
        left = [i for i in {*removed, *fresh} if i in self._places]
        gone = [self._places[i] for i in left]
        if not fresh and not gone:
            return
        for memory_id in left:
            self._keep_token_vectors(memory_id, None)
        for document in fresh.values():
            self._keep_token_vectors(document.memory_id, document.token_vectors)
        for place in gone:
            self._frequencies.values[np.unique(self._terms.run(place))] -= 1
            self._said.values[self.rows["speaker"][place]] -= 1
            self.memories_in[language_of(words_of(self.contents[place]), self.language)] -= 1
        documents = sorted(fresh.values(), key=lambda document: document.created)
        last = self.rows["created"][-1] if self.ids else -1
        analysed = self._analysed(documents)
        self._count(analysed)
        if not gone and documents[0].created > last:
            self._append(documents, analysed)
        else:
            kept = np.ones(len(self), np.bool_)
            kept[gone] = False
            self._arrange(kept, documents, analysed)
            if self._is_stale():
                self._renumber()
        self._forget_derived()

    def set_vector(
        self,
        memory_id: str,
        vector: NDArray[np.float16],
        token_vectors: NDArray[np.int8] | None = None,
    ) -> None:
        """Let a memory have a vector, and those of its tokens. Raises `KeyError`."""
        place = self._places[memory_id]
        self.vectors[place] = vector
        self.rows["has_vector"][place] = True
        self._keep_token_vectors(memory_id, token_vectors)
        self._corpus = None

    def _keep_token_vectors(self, memory_id: str, vectors: NDArray[np.int8] | None) -> None:
        before = self._token_vectors.pop(memory_id, None)
        if before is not None:
            self._token_bytes -= before.nbytes
        if vectors is not None:
            self._token_vectors[memory_id] = vectors
            self._token_bytes += vectors.nbytes

    def _analysed(self, documents: list[Document]) -> _Analysed:
        count = len(documents)
        signatures = np.zeros((count, SIGNATURE_WORDS), np.uint64)
        vectors = np.zeros((count, self.vectors.shape[1]), np.float32)
        analysed = _Analysed(np.zeros(count, ROW), [], [], signatures, vectors)
        vocabulary = self._vocabulary
        known = [(names, len(names)) for names in (self._speakers, self._episodes)]
        for place, document in enumerate(documents):
            words = words_of(document.content)
            language = language_of(words, self.language)
            self.memories_in[language] += 1
            terms = analyser(language).terms(words)[:MAX_TERMS]
            own = len(terms)
            terms = [*self._heading(document), *terms]
            analysed.terms.append([vocabulary.setdefault(term, len(vocabulary)) for term in terms])
            pieces = statement(plain(document.content))
            hashes = [crc32(piece.encode()) for piece in {*pieces}]
            analysed.pieces.append(hashes)
            signatures[place] = _signature(hashes)
            if document.vector is not None:
                vectors[place] = document.vector
            analysed.rows[place] = (
                document.created,
                (document.occurred_at or document.created_at).timestamp(),
                self._speakers.setdefault(document.speaker.lower(), len(self._speakers)),
                self._episodes.setdefault(document.episode, len(self._episodes))
                if document.episode
                else NO_EPISODE,
                own,
                *text_form(document.content, words, language),
                document.vector is not None,
                hash(tuple(pieces)) if pieces else 0,
                len(hashes),
            )
        for names, number in known:
            self._characters += sum(map(len, islice(names, number, None)))
        return analysed

    def _heading(self, document: Document) -> list[str]:
        """Who said it and when, as terms: a query may name them instead of what was said."""
        day = document.occurred_at
        date = f"{day.day} {month_name(day.month, self.language)} {day.year}" if day else ""
        return [
            *analyser(self.language).terms_of_label(document.speaker),
            *analyser(self.language).terms_of_label(date),
        ]

    def _count(self, analysed: _Analysed) -> None:
        """Count what memories hold, and who said it, where terms and speakers may be new."""
        terms = [*islice(self._vocabulary, len(self._frequencies), None)]
        self._characters += sum(map(len, terms))
        self._frequencies.append(np.zeros(len(terms), np.int32))
        frequencies = self._frequencies.values
        for numbers in analysed.terms:
            frequencies[[*{*numbers}]] += 1
        self._said.append(np.zeros(len(self._speakers) - len(self._said), np.int32))
        np.add.at(self._said.values, analysed.rows["speaker"], 1)

    def _append(self, documents: list[Document], analysed: _Analysed) -> None:
        """Put what is younger than all others behind them."""
        before = len(self)
        self._rows.append(analysed.rows)
        self._terms.append(analysed.terms)
        self._pieces.append(analysed.pieces)
        self._signatures.append(analysed.signatures)
        self._vectors.append(analysed.vectors)
        ids = [document.memory_id for document in documents]
        self.ids += ids
        self.contents += [document.content for document in documents]
        self._places.update(zip(ids, range(before, len(self)), strict=True))
        self._characters += sum(map(len, ids))

    def _arrange(self, kept: NDArray[np.bool_], fresh: list[Document], analysed: _Analysed) -> None:
        """Put what was kept and what is new into creation order."""
        places = np.flatnonzero(kept)
        rows = np.concatenate([self.rows[places], analysed.rows])
        order = np.argsort(rows["created"], kind="stable")
        self._rows.replace(rows[order])
        self._terms.arrange(places, analysed.terms, order)
        self._pieces.arrange(places, analysed.pieces, order)
        signatures = np.concatenate([self.signatures[places], analysed.signatures])
        self._signatures.replace(signatures[order])
        # One copy of what may be megabytes: what stands in for new memories is overwritten.
        is_new = order >= len(places)
        source = np.append(places, np.zeros(len(fresh), np.int64))[order]
        if len(places):
            vectors = self.vectors.take(source, axis=0)
        else:
            vectors = np.empty((len(order), self.vectors.shape[1]), np.float32)
        vectors[is_new] = analysed.vectors
        self._vectors.replace(vectors)
        self._postings = None

        ids = [*compress(self.ids, kept.tolist()), *(document.memory_id for document in fresh)]
        self._characters += sum(map(len, ids)) - sum(map(len, self.ids))
        texts = [*compress(self.contents, kept.tolist()), *(d.content for d in fresh)]
        self.ids = [ids[place] for place in order.tolist()]
        self.contents = [texts[place] for place in order.tolist()]
        self._places = dict(zip(self.ids, range(len(ids)), strict=True))

    def _forget_derived(self) -> None:
        """Drop what is derived from all memories together; it is computed again when asked for."""
        self._corpus = None
        for name in ("idf", "information", "_posted_since", "languages"):
            self.__dict__.pop(name, None)

    def _is_stale(self) -> bool:
        """Whether most terms known are held by no memory any more."""
        unused = np.count_nonzero(self._frequencies.values == 0)
        return int(unused) > max(_TOLERATED_UNUSED_TERMS, len(self._frequencies) // 2)

    def _renumber(self) -> None:
        """Forget the terms, speakers and episodes that no memory holds."""
        used = np.flatnonzero(self._frequencies.values)
        self._terms.renumber(used)
        self._frequencies.replace(self._frequencies.values[used])
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
        self._said.replace(np.bincount(self.rows["speaker"]).astype(np.int32))


def _signature(hashes: Iterable[int]) -> NDArray[np.uint64]:
    signature = 0
    for number in hashes:
        signature |= 1 << number % _SIGNATURE_BITS
    return np.frombuffer(signature.to_bytes(_SIGNATURE_BITS // 8, "little"), np.uint64)


def _renumbered(names: dict[str, int], used: NDArray[np.int64]) -> dict[str, int]:
    by_number = {number: name for name, number in names.items()}
    return {by_number[number]: new for new, number in enumerate(used.tolist())}


def corpus_of(indexes: Sequence[SessionIndex]) -> Corpus:
    """Several sessions as one; one session's is kept with it."""
    return indexes[0].corpus if len(indexes) == 1 else Corpus(indexes)
