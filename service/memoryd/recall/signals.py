"""What speaks for each memory, given a query: one row a signal, one column a memory.

Memories of several sessions stand one session after the other; the statistics (document
frequencies, mean length, z-scores) are those of all together, so that scores compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING

import numpy as np

from memoryd.recall.cues import query_form
from memoryd.recall.dates import spans
from memoryd.recall.embedding import WordEmbedder
from memoryd.recall.index import NO_EPISODE, inverse_document_frequency
from memoryd.recall.text import analyser
from memoryd.recall.weights import BM25_B, BM25_K1

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

MAX_EMBEDDED_WORDS = 256
"""Of a longer query the first distinct words are embedded; BM25 sees all of them."""

_BEST_OF_EPISODE = 3
_OPENING_TURNS = 2
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
    embedded: bool
    """Whether there was anything to compare with the query's vector."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query, taken apart."""

    text: str
    words: list[str]
    """Without the names of speakers."""
    terms: list[str]
    """Of `words`, in order."""
    name_terms: list[str]
    speaker: str
    """The one whom the query names, in lower case; empty for none or several."""
    language: str

    @property
    def without_names(self) -> str:
        """The text for an embedder: who spoke is another signal's to judge."""
        return " ".join(self.words) if self.name_terms else self.text


def understand(text: str, indexes: Sequence[SessionIndex]) -> Query:
    """Take a query apart, knowing who speaks in the sessions."""
    language = indexes[0].language
    analysed = analyser(language)
    words = analysed.words(text)
    present = set(words)
    named: dict[str, set[str]] = {}
    for speaker in {name.lower() for index in indexes for name in index.speakers}:
        parts = present.intersection(
            form for part in speaker.split() for form in (part, part + "'s", part + "\u2019s")
        )
        if parts := {part for part in parts if analysed.term(part)}:
            named[speaker] = parts
    names = set().union(*named.values())
    others = [word for word in words if word not in names]
    return Query(
        text=text,
        words=others,
        terms=analysed.terms(others),
        name_terms=analysed.terms(word for word in words if word in names),
        speaker=next(iter(named)) if len(named) == 1 else "",
        language=language,
    )


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
    for row, signal in zip(relevance, lexical, strict=False):
        row[:] = standardised(signal)
    if cosines is not None:
        known = np.concatenate([index.rows["has_vector"] for index in indexes])
        relevance[-1, known] = standardised(cosines[known])
    return Signals(relevance, _cues(query, indexes, now), embedded=cosines is not None)


def neighbourhood(index: SessionIndex, relevance: Floats) -> Floats:
    """How relevant a memory's neighbours in its episode are; zeros where it has none.

    `relevance` has shape (memories,), what is answered (4, memories), in the order of `NEIGHBOURS`.
    """
    order = index.by_episode
    episodes = index.rows["episode"][order]
    grouped = relevance[order]
    shares = np.zeros((len(NEIGHBOURS), len(order)))
    for row, distance in enumerate((2, 1)):
        near = (episodes[distance:] == episodes[:-distance]) & (episodes[distance:] != NO_EPISODE)
        shares[row, distance:] = np.where(near, grouped[:-distance], 0.0)
    near = (episodes[1:] == episodes[:-1]) & (episodes[1:] != NO_EPISODE)
    shares[2, :-1] = np.where(near, grouped[1:], 0.0)
    shares[3] = np.where(episodes != NO_EPISODE, _best_of_episode(index, grouped), 0.0)
    placed = np.empty_like(shares)
    placed[:, order] = shares
    return placed


def standardised(values: Floats) -> Floats:
    """Z-scores; zeros where all values are equal. Shape as given."""
    if not len(values):
        return values
    spread = float(values.std())
    return (values - values.mean()) / spread if spread > _NO_SPREAD else np.zeros_like(values)


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

    Shape (3, memories). The pairs and the rarest term leave speakers' names out.
    """
    count = len(index)
    found = np.zeros((3, count))
    numbers = {term: number for term in weights if (number := index.number(term)) is not None}
    weight = np.zeros(index.terms_known)
    weight[[*numbers.values()]] = [weights[term] for term in numbers]
    hits = np.flatnonzero(weight[index.tokens])
    if not len(hits):
        return found
    pairs, frequency = np.unique(
        index.holders[hits].astype(np.int64) * index.terms_known + index.tokens[hits],
        return_counts=True,
    )
    holders, terms = np.divmod(pairs, index.terms_known)
    saturation = BM25_K1 * (1 - BM25_B + BM25_B * index.lengths[holders] / mean_length)
    shares = weight[terms] * frequency * (BM25_K1 + 1) / (frequency + saturation)
    found[0] = np.bincount(holders, shares, minlength=count)

    adjacent = [
        numbers[first] * index.terms_known + numbers[second]
        for first, second in pairwise(query.terms)
        if first in numbers and second in numbers
    ]
    if adjacent:
        starts = hits[hits + 1 < len(index.tokens)]
        starts = starts[index.holders[starts] == index.holders[starts + 1]]
        codes = index.tokens[starts].astype(np.int64) * index.terms_known + index.tokens[starts + 1]
        shared = starts[np.isin(codes, adjacent)]
        found[1] = np.bincount(index.holders[shared], minlength=count)

    weight[[number for term, number in numbers.items() if term in query.name_terms]] = 0.0
    np.maximum.at(found[2], holders, np.square(weight[terms]))
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
    every = np.concatenate([index.vectors for index in indexes])
    cosines: Floats = (every.astype(np.float32) @ vector).astype(np.float64)
    # A sum's last bits depend on where an array lies in memory; the order of results must not.
    return np.round(cosines, _COSINE_DECIMALS)


def query_vector(
    query: Query, weights: dict[str, float], embedder: Embedder
) -> NDArray[np.float32]:
    """The query's vector, of shape (dimensions,)."""
    vector: NDArray[np.float32]
    if not isinstance(embedder, WordEmbedder):
        vector = embedder.embed([query.without_names])[0]
        return vector
    term = analyser(query.language).term
    weighed = {word: weights[term(word)] for word in query.words if term(word)}
    telling = dict(islice(weighed.items(), MAX_EMBEDDED_WORDS))
    return embedder.embed_weighted([*telling], [*telling.values()])


def _cues(query: Query, indexes: Sequence[SessionIndex], now: datetime) -> Floats:
    rows = np.concatenate([index.rows for index in indexes])
    asked = query_form(query.text, query.language)
    cues = dict.fromkeys(CUES, np.zeros(len(rows)))
    if query.speaker:
        cues["speaker"] = np.concatenate([index.is_said_by(query.speaker) for index in indexes])
    for span in spans(query.text, now, query.language):
        late = rows["occurred_at"] - span.end
        nearness = np.where(rows["occurred_at"] < span.start, 0.0, 1 - late / _SPAN_FADES_SECONDS)
        cues["span"] = np.maximum(cues["span"], np.clip(nearness, 0.0, 1.0))
    cues["when"] = asked.when * rows["times"]
    cues["amount"] = asked.amount * rows["numbers"]
    cues["name"] = asked.name * rows["names"]
    cues["question"] = rows["question"].astype(np.float64)
    cues["length"] = standardised(np.log1p(rows["terms"]))
    cues["information"] = standardised(
        np.log1p(np.concatenate([index.information for index in indexes]))
    )
    cues["opening"] = np.concatenate([_opens_episode(index) for index in indexes])
    return np.stack([cues[name] for name in CUES])


def _opens_episode(index: SessionIndex) -> Floats:
    """1 for the first two turns of each episode."""
    opens = np.zeros(len(index))
    first = np.repeat(index.episode_starts, np.diff(np.append(index.episode_starts, len(index))))
    opens[index.by_episode] = np.arange(len(index)) - first < _OPENING_TURNS
    opens[index.rows["episode"] == NO_EPISODE] = 0.0
    return opens


def _best_of_episode(index: SessionIndex, grouped: Floats) -> Floats:
    """For each memory, grouped by episode, the mean of the best three of its episode."""
    starts = index.episode_starts
    sizes = np.diff(np.append(starts, len(grouped)))
    group = np.repeat(np.arange(len(starts)), sizes)
    falling = grouped[np.lexsort((-grouped, group))]
    rank = np.arange(len(grouped)) - np.repeat(starts, sizes)
    best = np.bincount(
        group, np.where(rank < _BEST_OF_EPISODE, falling, 0.0), minlength=len(starts)
    )
    return (best / np.minimum(sizes, _BEST_OF_EPISODE))[group]
