"""What speaks for each memory, given a query: one row a signal, one column a memory.

Memories of several sessions stand one session after the other; the statistics (document
frequencies, mean length, z-scores) are those of all together, so that scores compare.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING

import numpy as np

from memoryd.recall.cues import query_form
from memoryd.recall.dates import spans
from memoryd.recall.embedding import WordEmbedder
from memoryd.recall.index import NO_EPISODE, inverse_document_frequency
from memoryd.recall.text import analyser
from memoryd.recall.weights import BM25_B, BM25_K1, ENOUGH_MEMORIES, USUAL_SPREAD

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from memoryd.recall.embedding import Embedder
    from memoryd.recall.index import SessionIndex

    Floats = NDArray[np.float64]

RELEVANCE = ("bm25", "bigrams", "rarest", "semantic")
NEIGHBOURS = ("two_before", "before", "after", "episode")
CUES = (
    *("speaker", "span", "when", "amount", "name"),
    *("question", "length", "information", "opening"),
)

_ANSWERING = slice(CUES.index("when"), CUES.index("name") + 1)

MAX_EMBEDDED_WORDS = 256
"""Of a longer query the first distinct words are embedded; BM25 sees all of them."""

_BEST_OF_EPISODE = 3
_SPAN_FADES_SECONDS = 7 * 86_400.0
_COSINE_DECIMALS = 5
_NO_SPREAD = 1e-9


@dataclass(frozen=True, slots=True)
class Signals:
    """All of a query's signals over all memories ranked."""

    relevance: Floats
    """Shape (4, memories), in the order of `RELEVANCE`: z-scores."""
    cues: Floats
    """Shape (9, memories), in the order of `CUES`."""
    matched: bool
    """Whether any memory shares a term with the query, or could be compared with its vector."""
    embedded: bool
    """Whether there was anything to compare with the query's vector."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query, taken apart. Who is named is one signal's to judge, and kept from others."""

    text: str
    text_without_names: str
    words: list[str]
    """Without the names of speakers."""
    terms: list[str]
    """Of `words`, in order."""
    name_terms: list[str]
    speaker: str
    """The one whom the query names, in lower case; empty for none or several."""
    language: str


def understand(text: str, indexes: Sequence[SessionIndex]) -> Query:
    """Take a query apart, knowing who speaks in the sessions."""
    language = indexes[0].language
    analysed = analyser(language)
    words = analysed.words(text)
    present = set(words)
    named: dict[str, set[str]] = {}
    for speaker in sorted(set().union(*(index.speakers for index in indexes))):
        parts = present.intersection(
            form for part in speaker.split() for form in (part, part + "'s", part + "\u2019s")
        )
        if parts := {part for part in parts if analysed.term(part)}:
            named[speaker] = parts
    names = set().union(*named.values())
    others = [word for word in words if word not in names]
    return Query(
        text=text,
        text_without_names=_without(names, text),
        words=others,
        terms=analysed.terms(others),
        name_terms=analysed.terms(word for word in words if word in names),
        speaker=next(iter(named)) if len(named) == 1 else "",
        language=language,
    )


def _without(words: set[str], text: str) -> str:
    if not words:
        return text
    forms = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    return " ".join(re.sub(rf"\b(?:{forms})\b", "", text, flags=re.IGNORECASE).split())


def signals(
    query: Query, indexes: Sequence[SessionIndex], *, now: datetime, embedder: Embedder | None
) -> Signals:
    """All signals of a query for the memories of some sessions, one session after the other."""
    weights = _term_weights(query, indexes)
    tokens = sum(len(index.tokens) for index in indexes)
    mean_length = tokens / max(1, sum(map(len, indexes))) or 1.0
    lexical = np.hstack([_lexical(query, index, weights, mean_length) for index in indexes])
    cosines = _cosines(query, indexes, weights, embedder)
    relevance = np.zeros((len(RELEVANCE), lexical.shape[1]))
    relevance[:-1] = standardised(lexical, _usual_spread(weights))
    if cosines is not None:
        known = np.concatenate([index.rows["has_vector"] for index in indexes])
        relevance[-1, known] = standardised(cosines[known], np.array(USUAL_SPREAD["semantic"]))
    cues = _cues(query, indexes, now)
    cues[_ANSWERING] *= _is_concerned(relevance, indexes)
    embedded = cosines is not None
    return Signals(relevance, cues, matched=embedded or bool(lexical.any()), embedded=embedded)


def neighbourhood(index: SessionIndex, relevance: Floats) -> Floats:
    """How relevant a memory's neighbours in its episode are; zeros where it has none.

    `relevance` has shape (memories,), what is answered (4, memories), in the order of `NEIGHBOURS`.
    """
    shares = np.empty((len(NEIGHBOURS), len(relevance)))
    shares[:3] = np.append(relevance, 0.0)[index.neighbours]
    shares[3] = np.where(
        index.rows["episode"] != NO_EPISODE, _best_of_episode(index, relevance), 0.0
    )
    return shares


def standardised(values: Floats, usual: Floats) -> Floats:
    """Z-scores of each row; zeros where all values are equal. Shape as given.

    Of less than `ENOUGH_MEMORIES` values the missing ones are taken to spread as is `usual` for the
    row, about the same mean.
    """
    centred: Floats = values - values.mean(axis=-1, keepdims=True)
    count = max(values.shape[-1], ENOUGH_MEMORIES)
    missing = (count - values.shape[-1]) * np.square(usual)[..., np.newaxis]
    spread = np.sqrt((np.square(centred).sum(axis=-1, keepdims=True) + missing) / count)
    scores: Floats = np.divide(
        centred, spread, out=np.zeros_like(centred), where=spread > _NO_SPREAD
    )
    return scores


def _usual_spread(weights: dict[str, float]) -> Floats:
    """How far the lexical signals of a query usually lie apart. Shape (3,)."""
    of = USUAL_SPREAD
    most = max(weights.values(), default=0.0)
    return np.array([of["bm25"] * sum(weights.values()), of["bigrams"], of["rarest"] * most * most])


def _term_weights(query: Query, indexes: Sequence[SessionIndex]) -> dict[str, float]:
    """The IDF of each of the query's terms over all the sessions."""
    terms = list(dict.fromkeys((*query.terms, *query.name_terms)))
    frequencies = [sum(index.frequency(term) for index in indexes) for term in terms]
    idf = inverse_document_frequency(np.array(frequencies, np.int32), sum(map(len, indexes)))
    return dict(zip(terms, idf.tolist(), strict=True))


def _lexical(
    query: Query, index: SessionIndex, weights: dict[str, float], mean_length: float
) -> Floats:
    """BM25, adjacent pairs of terms shared, and the weight of the rarest term shared, squared.

    Shape (3, memories). Pairs and the rarest term are those of contents, and no speakers' names.
    """
    count = len(index)
    found = np.zeros((3, count))
    numbers = {
        term: number
        for term in weights
        if (number := index.number(term)) is not None and index.frequency(term)
    }
    terms = [*numbers]
    # By their place in the query, so that sums do not depend on how terms came to be numbered.
    asked = np.zeros(index.terms_known, np.int32)
    asked[[*numbers.values()]] = np.arange(1, len(terms) + 1)
    hits = np.flatnonzero(asked[index.tokens])
    if not len(hits):
        return found
    pairs, frequency = np.unique(
        index.holders[hits].astype(np.int64) * len(terms) + asked[index.tokens[hits]] - 1,
        return_counts=True,
    )
    holders, places = np.divmod(pairs, len(terms))
    weight = np.array([weights[term] for term in terms])
    saturation = BM25_K1 * (1 - BM25_B + BM25_B * index.lengths[holders] / mean_length)
    shares = weight[places] * frequency * (BM25_K1 + 1) / (frequency + saturation)
    found[0] = np.bincount(holders, shares, minlength=count)

    hits = hits[index.is_content[hits]]
    telling = np.where([term in query.name_terms for term in terms], 0.0, np.square(weight))
    np.maximum.at(found[2], index.holders[hits], telling[asked[index.tokens[hits]] - 1])

    adjacent = [
        numbers[first] * index.terms_known + numbers[second]
        for first, second in pairwise(query.terms)
        if first in numbers and second in numbers
    ]
    if adjacent:
        starts = hits[:-1][np.diff(hits) == 1]
        starts = starts[index.holders[starts] == index.holders[starts + 1]]
        codes = index.tokens[starts].astype(np.int64) * index.terms_known + index.tokens[starts + 1]
        shared = starts[np.isin(codes, adjacent)]
        found[1] = np.bincount(index.holders[shared], minlength=count)
    return found


def _cosines(
    query: Query,
    indexes: Sequence[SessionIndex],
    weights: dict[str, float],
    embedder: Embedder | None,
) -> Floats | None:
    """The cosine of the query's vector with each memory's; None where either side has none."""
    if embedder is None or not any(index.rows["has_vector"].any() for index in indexes):
        return None
    vector = query_vector(query, weights, embedder)
    if not vector.any():
        return None
    products = np.concatenate([index.vectors @ vector for index in indexes])
    cosines: Floats = products.astype(np.float64)
    # A sum's last bits depend on where an array lies in memory; the order of results must not.
    return np.round(cosines, _COSINE_DECIMALS)


def query_vector(
    query: Query, weights: dict[str, float], embedder: Embedder
) -> NDArray[np.float32]:
    """The query's vector, of shape (dimensions,)."""
    vector: NDArray[np.float32]
    if not isinstance(embedder, WordEmbedder):
        vector = embedder.embed([query.text_without_names])[0]
        return vector
    term = analyser(query.language).term
    weighed = {word: weights[term(word)] for word in query.words if term(word)}
    telling = dict(islice(weighed.items(), MAX_EMBEDDED_WORDS))
    return embedder.embed_weighted([*telling], [*telling.values()])


def _is_concerned(relevance: Floats, indexes: Sequence[SessionIndex]) -> NDArray[np.bool_]:
    """Which memories, or neighbours of theirs, are above the average in any relevance signal.

    A date answers "when" only where the rest is about what is asked. Shape (memories,).
    """
    above: NDArray[np.bool_] = np.any(relevance > 0, axis=0)
    concerned = []
    start = 0
    for index in indexes:
        own: NDArray[np.bool_] = above[start : start + len(index)]
        near: NDArray[np.bool_] = np.append(own, [False])[index.neighbours]
        concerned.append(own | near.any(axis=0))
        start += len(index)
    return np.concatenate(concerned)


def _cues(query: Query, indexes: Sequence[SessionIndex], now: datetime) -> Floats:
    def every(field: str) -> Floats:
        values: Floats = np.concatenate([index.rows[field] for index in indexes])
        return values

    asked = query_form(query.text, query.language)
    cues = np.zeros((len(CUES), sum(map(len, indexes))))
    row = dict(zip(CUES, cues, strict=True))
    if query.speaker:
        row["speaker"][:] = np.concatenate([index.is_said_by(query.speaker) for index in indexes])
    for span in spans(query.text, now, query.language):
        occurred_at = every("occurred_at")
        fading = 1 - (occurred_at - span.end) / _SPAN_FADES_SECONDS
        nearness = np.where(occurred_at < span.start, 0.0, fading.clip(0.0, 1.0))
        np.maximum(row["span"], nearness, out=row["span"])
    if asked.when:
        row["when"][:] = every("times")
    if asked.amount:
        row["amount"][:] = every("numbers")
    if asked.name:
        row["name"][:] = every("names")
    # Small talk and questions are a conversation's; a fact is not the worse for being short.
    said = every("episode") != NO_EPISODE
    if said.any():
        row["question"][:] = said * every("question")
        usual = np.array([USUAL_SPREAD["length"], USUAL_SPREAD["information"]])
        extent = standardised(np.hstack([index.extent for index in indexes]), usual)
        row["length"][:], row["information"][:] = said * extent
        row["opening"][:] = np.concatenate([index.opens for index in indexes])
    return cues


def _best_of_episode(index: SessionIndex, relevance: Floats) -> Floats:
    """For each memory, the mean relevance of the best three of its episode."""
    falling = np.argsort(-relevance, kind="stable")
    by_group = falling[np.argsort(index.groups[falling], kind="stable")]
    sizes = index.group_sizes
    rank = np.arange(len(relevance)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    best = by_group[rank < _BEST_OF_EPISODE]
    total = np.bincount(index.groups[best], relevance[best], minlength=len(sizes))
    return (total / np.minimum(sizes, _BEST_OF_EPISODE))[index.groups]
