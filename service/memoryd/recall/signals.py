"""What speaks for each memory, given a query: one row a signal, one column a memory."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from memoryd.recall.arrays import idf_of, shares_of
from memoryd.recall.corpus import CONVERSATIONAL, POSSESSIVES
from memoryd.recall.cues import first_person, query_form
from memoryd.recall.dates import phrases, spans
from memoryd.recall.embedders.embedder import TokenEmbedder, adds_up_words
from memoryd.recall.index import corpus_of
from memoryd.recall.literal import literal
from memoryd.recall.looking_up import look_up
from memoryd.recall.postings import UNKNOWN
from memoryd.recall.standard import NO_SPREAD, Standard, standard
from memoryd.recall.text import words_of
from memoryd.recall.weights import BM25_K1, USUAL_SPREAD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from memoryd.recall.corpus import Corpus
    from memoryd.recall.embedders.embedder import Embedder, QueryTokens
    from memoryd.recall.index import SessionIndex
    from memoryd.recall.postings import Occurrences

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

RELEVANCE = ("bm25", "bigrams", "semantic")
SHARES = ("held", "window")
NEIGHBOURS = ("two_before", "before", "after", "episode", "asked")
CUES = ("speaker", "of_self", "span", "when", "amount", "name", *CONVERSATIONAL)
_ANSWERING = ("when", "amount", "name")

MAX_EMBEDDED_WORDS = 256
"""Of a longer query the first distinct words are embedded; BM25 sees all of them."""

_SPAN_FADES_SECONDS = 7 * 86_400.0
_BITS = 8
"""Of a byte: so many terms are looked at together."""
_IS_SET = np.array(
    [[float(number >> bit & 1) for bit in range(_BITS)] for number in range(1 << _BITS)]
)
"""Which bits each number has, as 1 or 0. Shape (256, 8)."""

_COSINE_SCALE = 100_000.0
"""A cosine counts in its first five decimals."""


@dataclass(frozen=True)
class Signals:
    """All of a query's signals over all memories ranked."""

    corpus: Corpus
    raw: Floats
    """Shape (3, memories), in the order of `RELEVANCE`: as they are measured.

    A memory without a vector has the mean of the cosines.
    """
    standard: Standard
    """What makes z-scores of them."""
    shares: Floats
    """What share of the query each memory holds, and holds with the two before and behind it.

    0 to 1. Shape (2, memories), in the order of `SHARES`.
    """
    cues: Mapping[str, NDArray[Any]]
    """Those of `CUES` that the query gives rise to, but what it gives rise to with any other."""
    matched: bool
    """Whether any memory shares a term with the query, or could be compared with its vector."""
    covered: Floats
    """The share of the query that each memory holds, 0 to 1. Shape (memories,).

    As in `shares`, but of a time that the query names, those hold the words that happened then.
    """
    known: float
    """The share that any memory holds."""
    embedded: bool
    """Whether there was anything to compare with the query's vector."""

    @functools.cached_property
    def relevance(self) -> Floats:
        """Shape (3, memories), in the order of `RELEVANCE`: z-scores."""
        return self.standard.of(self.raw)

    def cue(self, name: str) -> Floats:
        """One of `CUES` of all memories. Shape (memories,)."""
        if name in CONVERSATIONAL:
            row: Floats = self.corpus.conversational[CONVERSATIONAL.index(name)]
            return row
        if name == "of_self":
            return self.cue("speaker") * self.corpus.of_self
        known = self.cues.get(name)
        return np.zeros(len(self.corpus)) if known is None else known.astype(np.float64)

    def cosines(self, places: NDArray[np.int64]) -> Floats:
        """Of the query's vector with some memories', where `embedded`. Shape (places,)."""
        cosines: Floats = self.raw[-1, places] / _COSINE_SCALE
        return cosines


@dataclass(frozen=True, slots=True)
class Query:
    """A query, taken apart. Who is named counts for one signal only."""

    text: str
    names: set[str]
    """The words of it that name a speaker."""
    words: list[str]
    """Without the names of speakers."""
    term_of: Mapping[str, str]
    """The first term that each word stands for; a stop word stands for none."""
    terms: list[str]
    """Of `words`, in order."""
    name_terms: list[str]
    speaker: str
    """The one whom the query names, in lower case; empty for none or several."""
    language: str
    """That it is taken to be in."""
    weights: Mapping[str, float]
    """What each of `terms` and `name_terms` weighs, and other terms that stand for the same: the
    IDF over all the sessions, times the similarity to the word of the query."""
    instead: Mapping[str, str]
    """Of those other terms, which one each stands for the same as."""
    shares: Mapping[str, float]
    """What share of the query each of `terms` and `name_terms` is, by its IDF, times similarity."""
    known: float
    """The share that any memory holds."""

    @property
    def text_to_embed(self) -> str:
        """As the speaker named would say it, in the first person, as memories are written."""
        return _as_said(self.text, self.names, self.language)


class Meaning(NamedTuple):
    """A query as an embedder has it."""

    vector: NDArray[np.float32]
    """Shape (dimensions,), of length 1; zeros where the embedder knows nothing of it."""
    adds_up_words: bool
    """Whether it was made word by word, and not of the whole text."""
    tokens: QueryTokens | None = None
    """None unless a `TokenEmbedder` made it."""


def understand(text: str, indexes: Sequence[SessionIndex]) -> Query:
    """Take a query apart, knowing who speaks in the sessions, and in which languages."""
    corpus = corpus_of(indexes)
    words = words_of(text)
    looked_up = look_up(words, corpus, indexes)
    term_of = looked_up.term_of
    named: dict[str, set[str]] = {}
    for word in term_of:
        for speaker in corpus.names_of_speakers.get(word, ()):
            named.setdefault(speaker, set()).add(word)
    names = set().union(*named.values())
    others = [word for word in words if word not in names]
    terms = [term_of[word] for word in others if word in term_of]
    name_terms = [term_of[word] for word in words if word in names]
    first = dict.fromkeys((*terms, *name_terms))
    count = len(corpus)
    frequencies = {term: corpus.frequency(term) for term in first}
    shares = dict(zip(first, shares_of(frequencies.values(), count), strict=True))
    for term, similarity in looked_up.similarity.items():
        if term in shares:
            shares[term] *= similarity
    weights = {
        term: idf_of(held, count) * looked_up.similarity.get(term, 1.0)
        for term, held in frequencies.items()
    }
    instead: dict[str, str] = {}
    for term in first:
        for other, similarity in looked_up.besides.get(term, ()):
            if other not in weights:
                instead[other] = term
                weights[other] = idf_of(corpus.frequency(other), count) * similarity
    return Query(
        text=text,
        names=names,
        words=others,
        term_of=term_of,
        terms=terms,
        name_terms=name_terms,
        speaker=next(iter(named)) if len(named) == 1 else "",
        language=looked_up.language,
        weights=weights,
        instead=instead,
        shares=shares,
        known=sum(share for term, share in shares.items() if frequencies[term]),
    )


def meaning_of(query: Query, embedder: Embedder) -> Meaning:
    """Have a query embedded; blocks for as long as the embedder takes."""
    if not adds_up_words(embedder):
        return meaning_of_text(query.text_to_embed, embedder)
    term_of = query.term_of
    weighed = {word: query.weights[term_of[word]] for word in query.words if word in term_of}
    telling = dict(islice(weighed.items(), MAX_EMBEDDED_WORDS))
    vector = embedder.embed_weighted([*telling], [*telling.values()])
    return Meaning(vector, adds_up_words=True)


def meaning_of_text(text: str, embedder: Embedder) -> Meaning:
    """Have a whole text embedded; blocks for as long as the embedder takes."""
    if isinstance(embedder, TokenEmbedder):
        vector, tokens = embedder.embed_query(text)
        return Meaning(vector, adds_up_words=False, tokens=tokens)
    return Meaning(embedder.embed([text])[0], adds_up_words=False)


def _as_said(text: str, names: set[str], language: str) -> str:
    """The text with the first person in place of names; without them where it is not known."""
    if not names:
        return text
    person = first_person(language)

    def said(name: re.Match[str]) -> str:
        return person.possessive if name[0].lower().endswith(POSSESSIVES) else person.name

    forms = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    reworded = re.sub(rf"\b(?:{forms})(?:\s+(?:{forms}))*\b", said, text, flags=re.IGNORECASE)
    return " ".join(reworded.split())


def signals(
    query: Query, indexes: Sequence[SessionIndex], *, now: datetime, meaning: Meaning | None
) -> Signals:
    """All signals of a query for the memories of some sessions, one session after the other."""
    corpus = corpus_of(indexes)
    raw = np.zeros((len(RELEVANCE), len(corpus)))
    shares, known = np.zeros((len(SHARES), len(corpus))), query.known
    weights: Mapping[str, float] = query.weights
    if weights:
        matched = _lexical(query, corpus, raw, shares)
    else:
        worded = literal(query.text, corpus)
        matched = worded is not None
        if worded is not None:
            raw[:-1], weights = worded.found, worded.weights
            shares[:], known = worded.covered, worded.known
    embedded = _compare(corpus, meaning, raw[-1])
    cues = _cues(query, corpus, now)
    covered = shares[0]
    if "span" in cues:
        # What happened then has to do with the words that name the time, without having them.
        dated = _share_of_dates(query)
        covered = np.minimum(covered + dated * cues["span"], 1.0)
        known = min(1.0, known + dated * float(cues["span"].max()))
    standards = _standard(corpus, raw, weights, embedded=embedded)
    if any(name in cues for name in _ANSWERING):
        concerned = _is_concerned(corpus, raw, standards)
        for name in _ANSWERING:
            if name in cues:
                cues[name] = cues[name] * concerned
    return Signals(
        corpus,
        raw,
        standards,
        shares,
        cues,
        matched=matched or embedded,
        covered=covered,
        known=known,
        embedded=embedded,
    )


def neighbourhood(corpus: Corpus, relevance: Floats) -> Floats:
    """How relevant a memory's neighbours in its episode are; zeros where it has none.

    `relevance` has shape (memories,), what is answered (5, memories), in the order of `NEIGHBOURS`.
    """
    episodes = corpus.episodes
    if not episodes.are_any:
        return np.zeros((len(NEIGHBOURS), len(relevance)))
    rows = []
    for kind in NEIGHBOURS:
        counts = {name: float(name == kind) for name in NEIGHBOURS[:-1]}
        asked = corpus.questions * (kind == "asked")
        rows.append(episodes.context(relevance, episodes.lending(**counts, asked=asked)))
    return np.array(rows)


def _lexical(query: Query, corpus: Corpus, raw: Floats, shares: Floats) -> bool:
    """BM25 and adjacent pairs of terms shared, and the shares of the query that there are.

    They are put into `raw` and `shares`, which are zeros so far. Pairs are those of contents.
    Answers whether there are any.
    """
    asked = _Asked.of(query)
    held = np.zeros((len(asked.tables), len(corpus)), np.uint8)
    matched = False
    for index, saturation, into, bits in zip(
        corpus.indexes,
        corpus.split(corpus.saturation),
        corpus.split(raw),
        corpus.split(held),
        strict=True,
    ):
        numbers = index.numbers(asked.terms)
        for postings in index.postings:
            found = postings.of(numbers)
            if found is not None:
                matched = True
                asked.tally(found, numbers, saturation, into)
                asked.mark(found, bits)
    if matched:
        near = corpus.episodes.window(held) if corpus.episodes.are_any else held
        for table, own, all_near in zip(asked.tables, held, near, strict=True):
            shares[0] += table.take(own)
            shares[1] += table.take(all_near)
    return matched


class _Asked(NamedTuple):
    """The terms of a query."""

    terms: list[str]
    weights: Floats
    """What each weighs. Shape (terms,)."""
    bits: list[int]
    """The bit of each; terms that stand for the same word have one together."""
    tables: list[Floats]
    """For eight bits each, what share of the query those are whose bits are set. Shape (256,)."""
    followers: list[list[int]]
    """The place of a term that follows each in the query, or -1; then of another one, and so on."""

    @classmethod
    def of(cls, query: Query) -> _Asked:
        terms = [*query.weights]
        weights = np.array([(BM25_K1 + 1) * query.weights[term] for term in terms])
        bit_of = {term: bit for bit, term in enumerate(query.shares)}
        bits = [bit_of[query.instead.get(term, term)] for term in terms]
        shares = [*query.shares.values()]
        tables = [_sums(shares[n : n + _BITS]) for n in range(0, len(shares), _BITS)]
        place_of = {term: place for place, term in enumerate(terms)}
        followers: list[list[int]] = []
        for first, second in dict.fromkeys(pairwise(query.terms)):
            place = place_of[first]
            free = next((row for row in followers if row[place] < 0), None)
            if free is None:
                free = [-1] * len(terms)
                followers.append(free)
            free[place] = place_of[second]
        return cls(terms, weights, bits, tables, followers)

    def tally(
        self, found: Occurrences, numbers: list[int], saturation: Floats, raw: Floats
    ) -> None:
        """Put what occurrences of the terms tell, given their numbers, into signals."""
        holders, follows, counts, sizes = found
        memories = raw.shape[1]
        weights = self.weights.repeat(sizes)
        weights *= counts / (counts + saturation[holders])
        raw[0] += np.bincount(holders, weights, minlength=memories)
        for row in self.followers:
            wanted = np.array([UNKNOWN if place < 0 else numbers[place] for place in row])
            pairs = holders[follows == wanted.repeat(sizes)]
            if len(pairs):
                raw[1] += np.bincount(pairs, minlength=memories)

    def mark(self, found: Occurrences, held: NDArray[np.uint8]) -> None:
        """Set the bits of the terms that memories hold: eight of them a row."""
        end = 0
        for bit, size in zip(self.bits, found.sizes, strict=True):
            start, end = end, end + size
            held[bit // _BITS, found.holders[start:end]] |= 1 << bit % _BITS


def _sums(shares: Sequence[float]) -> Floats:
    """The sum of those shares whose bits are set in each number. Shape (2 ** shares,)."""
    sums: Floats = _IS_SET[: 1 << len(shares), : len(shares)] @ shares
    return sums


def _compare(corpus: Corpus, meaning: Meaning | None, cosines: Floats) -> bool:
    """Put the cosine of the query's vector with each memory's, times `_COSINE_SCALE`, there.

    It is 0 where a memory has none. Answers whether both sides have any.
    """
    if meaning is None or not corpus.vectors_known or not meaning.vector.any():
        return False
    for index, into in zip(corpus.indexes, corpus.split(cosines), strict=True):
        np.multiply(index.vectors @ meaning.vector, _COSINE_SCALE, out=into)
    # A sum's last bits depend on where an array lies in memory; the order of results must not.
    np.rint(cosines, out=cosines)
    return True


def _standard(
    corpus: Corpus, raw: Floats, weights: Mapping[str, float], *, embedded: bool
) -> Standard:
    """What makes z-scores of signals; memories without a vector get the mean of the cosines."""
    of = USUAL_SPREAD
    usual = (of["bm25"] * sum(weights.values()), of["bigrams"], of["semantic"] * _COSINE_SCALE)
    every = len(corpus)
    standards = standard(raw, usual, (every, every, corpus.vectors_known))
    if embedded and corpus.has_vector is not None:
        raw[-1, ~corpus.has_vector] = standards.means[-1]
    return standards


def _is_concerned(corpus: Corpus, raw: Floats, standards: Standard) -> Mask:
    """Which memories, or neighbours of theirs, are above the average in any relevance signal.

    A date answers "when" only where the rest is about what is asked. Shape (memories,).
    """
    above = np.zeros(raw.shape[1], np.bool_)
    for row, mean, scale in zip(raw, *standards, strict=True):
        if scale:
            above |= row > mean + NO_SPREAD / scale
    return corpus.episodes.near(above) if corpus.episodes.are_any else above


def _share_of_dates(query: Query) -> float:
    """The share of a query that its dates are."""
    named = " ".join(phrases(query.text, query.language))
    terms = {query.term_of.get(word, "") for word in words_of(named)}
    return sum(query.shares.get(term, 0.0) for term in terms)


def _cues(query: Query, corpus: Corpus, now: datetime) -> dict[str, NDArray[Any]]:
    cues: dict[str, NDArray[Any]] = {}
    if query.speaker:
        cues["speaker"] = corpus.is_said_by(query.speaker)
    for span in spans(query.text, now, query.language):
        fading = 1 - (corpus.occurred_at - span.end) / _SPAN_FADES_SECONDS
        nearness = np.where(corpus.occurred_at < span.start, 0.0, fading.clip(0.0, 1.0))
        known = cues.get("span")
        cues["span"] = nearness if known is None else np.maximum(known, nearness)
    asked = query_form(query.text, query.language)
    if asked.when:
        cues["when"] = corpus.times
    if asked.amount:
        cues["amount"] = corpus.numbers
    if asked.name:
        cues["name"] = corpus.names
    return cues
