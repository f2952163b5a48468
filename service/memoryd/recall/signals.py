"""What speaks for each memory, given a query: one row a signal, one column a memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from memoryd.recall.arrays import inverse_document_frequency, shares_of
from memoryd.recall.bm25 import bm25
from memoryd.recall.corpus import standardised
from memoryd.recall.cues import first_person, query_form
from memoryd.recall.dates import phrases, spans
from memoryd.recall.embedders.embedder import adds_up_words
from memoryd.recall.index import corpus_of
from memoryd.recall.literal import literal
from memoryd.recall.looking_up import look_up
from memoryd.recall.spellings import Alike
from memoryd.recall.text import words_of
from memoryd.recall.weights import USUAL_SPREAD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from memoryd.recall.corpus import Corpus
    from memoryd.recall.embedders.embedder import Embedder
    from memoryd.recall.index import SessionIndex

    Floats = NDArray[np.float64]

RELEVANCE = ("bm25", "bigrams", "rarest", "semantic")
NEIGHBOURS = ("two_before", "before", "after", "episode", "asked")
CUES = (
    *("speaker", "of_self", "span", "when", "amount", "name"),
    *("question", "length", "information", "opening"),
)
_ANSWERING = ("when", "amount", "name")
_CONVERSATIONAL = CUES[CUES.index("question") :]

MAX_EMBEDDED_WORDS = 256
"""Of a longer query the first distinct words are embedded; BM25 sees all of them."""

_POSSESSIVES = ("'s", "\u2019s")
_SPAN_FADES_SECONDS = 7 * 86_400.0
_COSINE_SCALE = 100_000.0
"""A cosine counts in its first five decimals."""


@dataclass(frozen=True, slots=True)
class Signals:
    """All of a query's signals over all memories ranked."""

    corpus: Corpus
    relevance: Floats
    """Shape (4, memories), in the order of `RELEVANCE`: z-scores."""
    cues: Mapping[str, Floats]
    """Those of `CUES` that the query, or the sessions, give rise to; others are 0 for all."""
    matched: bool
    """Whether any memory shares a term with the query, or could be compared with its vector."""
    covered: Floats
    """The share of the query that each memory holds, 0 to 1. Shape (memories,).

    Of a time that the query names, those hold the words that happened then.
    """
    known: float
    """The share that any memory holds."""
    cosines: Floats | None
    """The cosine of the query's vector with each memory's, 0 where a memory has no vector.

    None: there was nothing to compare. Shape (memories,).
    """

    @property
    def embedded(self) -> bool:
        """Whether there was anything to compare with the query's vector."""
        return self.cosines is not None


@dataclass(frozen=True, slots=True)
class Query:
    """A query, taken apart. Who is named counts for one signal only."""

    text: str
    text_to_embed: str
    """As the speaker named would say it, in the first person, as memories are written."""
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
    shares: Mapping[str, float]
    """What share of the query each of them is, in the same way."""
    known: float
    """The share that any memory holds."""


class Meaning(NamedTuple):
    """A query as an embedder has it."""

    vector: NDArray[np.float32]
    """Shape (dimensions,), of length 1; zeros where the embedder knows nothing of it."""
    adds_up_words: bool
    """Whether it was made word by word, and not of the whole text."""


def understand(text: str, indexes: Sequence[SessionIndex]) -> Query:
    """Take a query apart, knowing who speaks in the sessions, and in which languages."""
    corpus = corpus_of(indexes)
    words = words_of(text)
    looked_up = look_up(words, corpus, indexes)
    term_of = looked_up.term_of
    named: dict[str, set[str]] = {}
    for speaker in corpus.speakers:
        parts = term_of.keys() & {
            form for part in speaker.split() for form in (part, *(part + s for s in _POSSESSIVES))
        }
        if parts:
            named[speaker] = parts
    names = set().union(*named.values())
    others = [word for word in words if word not in names]
    terms = [term_of[word] for word in others if word in term_of]
    name_terms = [term_of[word] for word in words if word in names]
    first = {term: place for place, term in enumerate(dict.fromkeys((*terms, *name_terms)))}
    besides = {
        one.term: Alike(term, one.similarity)
        for term in first
        for one in looked_up.besides.get(term, ())
        if one.term not in first
    }
    every = [*first, *besides]
    frequencies = np.array([*map(corpus.frequency, every)], np.int32)
    similarity = np.array([looked_up.similarity.get(term, 1.0) for term in first])
    shares = shares_of(frequencies[: len(first)], len(corpus))
    known = (shares * similarity)[frequencies[: len(first)] > 0].sum().item()
    if besides:
        similarity = np.append(similarity, [one.similarity for one in besides.values()])
        shares = np.append(shares, shares[[first[one.term] for one in besides.values()]])
    weights = inverse_document_frequency(frequencies, len(corpus)) * similarity
    return Query(
        text=text,
        text_to_embed=_as_said(text, names, looked_up.language),
        words=others,
        term_of=term_of,
        terms=terms,
        name_terms=name_terms,
        speaker=next(iter(named)) if len(named) == 1 else "",
        language=looked_up.language,
        weights=dict(zip(every, weights.tolist(), strict=True)),
        shares=dict(zip(every, (shares * similarity).tolist(), strict=True)),
        known=known,
    )


def meaning_of(query: Query, embedder: Embedder) -> Meaning:
    """Have a query embedded; blocks for as long as the embedder takes."""
    if not adds_up_words(embedder):
        return Meaning(embedder.embed([query.text_to_embed])[0], adds_up_words=False)
    term_of = query.term_of
    weighed = {word: query.weights[term_of[word]] for word in query.words if word in term_of}
    telling = dict(islice(weighed.items(), MAX_EMBEDDED_WORDS))
    vector = embedder.embed_weighted([*telling], [*telling.values()])
    return Meaning(vector, adds_up_words=True)


def _as_said(text: str, names: set[str], language: str) -> str:
    """The text with the first person in place of names; without them where it is not known."""
    if not names:
        return text
    person = first_person(language)

    def said(name: re.Match[str]) -> str:
        return person.possessive if name[0].lower().endswith(_POSSESSIVES) else person.name

    forms = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    reworded = re.sub(rf"\b(?:{forms})(?:\s+(?:{forms}))*\b", said, text, flags=re.IGNORECASE)
    return " ".join(reworded.split())


def signals(
    query: Query, indexes: Sequence[SessionIndex], *, now: datetime, meaning: Meaning | None
) -> Signals:
    """All signals of a query for the memories of some sessions, one session after the other."""
    corpus, weights = corpus_of(indexes), query.weights
    relevance = np.zeros((len(RELEVANCE), len(corpus)))
    lexical = relevance[:-1]
    covered, known = np.zeros(len(corpus)), query.known
    if weights:
        parts = zip(indexes, corpus.split(lexical), corpus.split(covered), strict=True)
        matched = [_lexical(query, index, corpus.mean_length, *part) for index, *part in parts]
        spread = _usual_spread(weights)
    else:
        worded = literal(query.text, corpus)
        matched = [worded is not None]
        if worded is not None:
            lexical[:], spread = worded.found, _usual_spread(worded.weights)
            covered, known = worded.covered, worded.known
    if any(matched):
        relevance[:-1] = standardised(lexical, spread)
    cosines = _cosines(corpus, meaning)
    if cosines is not None:
        usual = np.array(USUAL_SPREAD["semantic"] * _COSINE_SCALE)
        if corpus.has_vector is None:
            relevance[-1] = standardised(cosines, usual)
        else:
            relevance[-1, corpus.has_vector] = standardised(cosines[corpus.has_vector], usual)
    cues = _cues(query, corpus, now)
    if "span" in cues:
        # What happened then has to do with the words that name the time, without having them.
        dated = _share_of_dates(query)
        covered = np.minimum(covered + dated * cues["span"], 1.0)
        known = min(1.0, known + dated * float(cues["span"].max()))
    if any(name in cues for name in _ANSWERING):
        concerned = _is_concerned(relevance, corpus)
        for name in _ANSWERING:
            if name in cues:
                cues[name] = cues[name] * concerned
    return Signals(
        corpus,
        relevance,
        cues,
        matched=cosines is not None or any(matched),
        covered=covered,
        known=known,
        cosines=None if cosines is None else cosines / _COSINE_SCALE,
    )


def neighbourhood(corpus: Corpus, relevance: Floats) -> Floats:
    """How relevant a memory's neighbours in its episode are; zeros where it has none.

    `relevance` has shape (memories,), what is answered (5, memories), in the order of `NEIGHBOURS`.
    """
    shares = np.empty((len(NEIGHBOURS), len(relevance)))
    shares[:3] = np.append(relevance, 0.0)[corpus.neighbours]
    shares[3] = corpus.best_of_episode(relevance)
    # What answers a relevant question seldom repeats its words.
    shares[4] = shares[1] * corpus.follows_question
    return shares


def _usual_spread(weights: Mapping[str, float]) -> Floats:
    """How far the lexical signals of a query usually lie apart. Shape (3,)."""
    of = USUAL_SPREAD
    most = max(weights.values(), default=0.0)
    return np.array([of["bm25"] * sum(weights.values()), of["bigrams"], of["rarest"] * most * most])


def _lexical(
    query: Query,
    index: SessionIndex,
    mean_length: float,
    found: Floats,
    covered: Floats,
) -> bool:
    """BM25, adjacent pairs of terms shared, and the weight of the rarest term shared, squared.

    They are put into `found`: shape (3, memories), zeros so far; what share of the query there is
    into `covered`: shape (memories,), the same. Pairs and the rarest term are those of contents,
    and no speakers' names. Answers whether there are any.
    """
    weights = query.weights
    numbers = {term: number for term in weights if (number := index.number(term)) is not None}
    if not numbers:
        return False
    terms, where = [*numbers], [*numbers.values()]
    wanted = np.zeros(index.terms_known, np.bool_)
    wanted[where] = True
    hits = np.flatnonzero(wanted.take(index.tokens))
    if not len(hits):
        return False
    # By their place in the query, so that sums do not depend on how terms came to be numbered.
    place_of = np.zeros(index.terms_known, np.int64)
    place_of[where] = np.arange(len(terms))
    places, holders = place_of[index.tokens[hits]], index.holders[hits]
    weight = np.array([weights[term] for term in terms])
    shares = np.array([query.shares[term] for term in terms])
    found[0], covered[:] = bm25(index.lengths, holders, places, weight, mean_length, shares=shares)

    of_content = hits >= index.ends[holders] - index.rows["terms"][holders]
    if not of_content.all():
        hits, places, holders = hits[of_content], places[of_content], holders[of_content]
    telling = np.square(weight)
    if query.name_terms:
        telling[[place for place, term in enumerate(terms) if term in query.name_terms]] = 0.0
    np.maximum.at(found[2], holders, telling[places])

    starts = np.flatnonzero((hits[1:] - hits[:-1] == 1) & (holders[1:] == holders[:-1]))
    if len(starts):
        order = {term: place for place, term in enumerate(terms)}
        adjacent = {
            order[first] * len(terms) + order[second]
            for first, second in pairwise(query.terms)
            if first in order and second in order
        }
        codes = (places[starts] * len(terms) + places[starts + 1]).tolist()
        shared = [code in adjacent for code in codes]
        found[1] = np.bincount(holders[starts[shared]], minlength=len(index))
    return True


def _cosines(corpus: Corpus, meaning: Meaning | None) -> Floats | None:
    """The cosine of the query's vector with each memory's, times `_COSINE_SCALE`.

    None where either side has none.
    """
    if meaning is None or not corpus.has_any_vector or not meaning.vector.any():
        return None
    products = np.concatenate([index.vectors @ meaning.vector for index in corpus.indexes])
    # A sum's last bits depend on where an array lies in memory; the order of results must not.
    cosines: Floats = np.rint(products.astype(np.float64) * _COSINE_SCALE)
    return cosines


def _is_concerned(relevance: Floats, corpus: Corpus) -> NDArray[np.bool_]:
    """Which memories, or neighbours of theirs, are above the average in any relevance signal.

    A date answers "when" only where the rest is about what is asked. Shape (memories,).
    """
    above: NDArray[np.bool_] = np.any(relevance > 0, axis=0)
    if corpus.in_episode is None:
        return above
    near: NDArray[np.bool_] = np.append(above, [False])[corpus.neighbours]
    return above | near.any(axis=0)


def _share_of_dates(query: Query) -> float:
    """The share of a query that its dates are."""
    named = " ".join(phrases(query.text, query.language))
    terms = {query.term_of.get(word, "") for word in words_of(named)}
    return sum(query.shares.get(term, 0.0) for term in terms)


def _cues(query: Query, corpus: Corpus, now: datetime) -> dict[str, Floats]:
    cues: dict[str, Floats] = {}
    if query.speaker:
        cues["speaker"] = np.concatenate([i.is_said_by(query.speaker) for i in corpus.indexes])
        cues["of_self"] = cues["speaker"] * corpus.of_self
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
    # Small talk and questions are a conversation's; a fact is not the worse for being short.
    if corpus.in_episode is not None:
        cues |= zip(_CONVERSATIONAL, corpus.conversational, strict=True)
    return cues
