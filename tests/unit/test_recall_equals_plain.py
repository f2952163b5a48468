"""`rank` gives what the formulas of `docs/recall.md` give, computed memory by memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.plain_recall import plain_rank

from memoryd.recall.embedders.embedder import QueryTokens
from memoryd.recall.fusion import rank
from memoryd.recall.index import Document, SessionIndex
from memoryd.recall.signals import Meaning, understand

NOW = datetime(2026, 1, 15, tzinfo=UTC)
DECIMALS = 6

words = st.sampled_from(
    [
        *("red", "blue", "garden", "piano", "pianos", "tea", "runs", "running", "Rome,", "Paris"),
        *("yesterday", "January", "2024", "17", "dozen", "Ann", "Tom", "I", "my", "you", "the"),
        *("was", "not"),
    ]
)
common = st.sampled_from(["red", "piano", "tea"])  # what queries have, too
texts = st.builds(
    lambda said, times, end: " ".join(said * times) + end,
    st.lists(common | words, max_size=7),
    st.sampled_from([1, 1, 1, 9]),
    st.sampled_from("?.! "),
)
unit = st.sampled_from([(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.6, 0.8), (0.28, -0.96)])
tokens = st.sampled_from([(127, 0), (0, 127), (-127, 0), (76, 102), (36, -122)])
documents = st.builds(
    lambda number, content, speaker, episode, days, vector, tokens: Document(
        f"m{number}",
        content,
        number,
        NOW - timedelta(minutes=100 - number),
        speaker,
        None if days is None else NOW - timedelta(days=days),
        episode,
        None if vector is None else np.array(vector, np.float16),
        None if tokens is None else np.array(tokens, np.int8).reshape(-1, 2),
    ),
    st.integers(0, 14),
    texts,
    st.sampled_from(["", "Ann", "ann", "Tom Lee", "Assistant"]),
    st.sampled_from(["", "a", "a", "b", "c"]),
    st.none() | st.sampled_from([1, 6, 9, 12, 400]),
    st.none() | unit,
    st.none() | st.lists(tokens, max_size=3),
)
steps = st.lists(
    st.tuples(st.lists(documents, max_size=6), st.lists(st.integers(0, 14), max_size=2)),
    max_size=3,
)
appended = st.lists(documents, max_size=8, unique_by=lambda document: document.created).map(
    lambda found: [([one], []) for one in sorted(found, key=lambda document: document.created)]
)
asked = st.sampled_from(
    [
        "", "when was ", "who ", "how many ", "what did Ann do last week ", "where ",
        "yesterday: ", "does Tom's ", "piano tea piano ",
    ]
)  # fmt: skip
# With a term at least: without one `literal` reads the contents, which has tests of its own.
queries = st.builds(lambda first, rest: f"{first}red {rest}", asked, texts)
tokens_of_queries = st.lists(
    st.tuples(unit, common | words | st.just("")), min_size=1, max_size=4
).map(
    lambda found: QueryTokens(
        np.array([vector for vector, _ in found], np.float32).reshape(-1, 2),
        tuple(word.lower() for _, word in found),
    )
)
vectors = unit.map(lambda pair: np.array(pair, np.float32))
with_tokens = st.builds(Meaning, vectors, st.just(value=False), tokens_of_queries)
meanings = st.none() | st.builds(Meaning, vectors, st.booleans()) | with_tokens

seeds = st.integers(0, 2**32)


def ask(index: SessionIndex) -> None:
    """Have what a query makes of a session there, to be followed by changes."""
    importances = [np.zeros(len(index))]
    rank(understand("red", [index]), [index], importances, now=NOW, limit=1)


def built(
    changes: list[tuple[list[Document], list[int]]],
) -> tuple[SessionIndex, list[Document]]:
    """A session after some changes, and the documents that it holds then, in creation order."""
    index = SessionIndex(dimensions=2)
    held: dict[str, Document] = {}
    for changed, removed in changes:
        index.update(changed, [f"m{number}" for number in removed])
        ask(index)
        for number in removed:
            held.pop(f"m{number}", None)
        held |= {document.memory_id: document for document in changed}
    return index, sorted(held.values(), key=lambda document: document.created)


def assert_ranked_alike(
    query: str,
    sessions: list[tuple[SessionIndex, list[Document]]],
    *,
    importances: list[list[float]],
    allowed: list[list[bool]],
    **options: object,
) -> None:
    indexes = [index for index, _ in sessions]
    found = rank(
        understand(query, indexes),
        indexes,
        [np.array(one, np.float64) for one in importances],
        allowed=[np.array(mask, np.bool_) for mask in allowed],
        now=NOW,
        **options,  # type: ignore[arg-type]
    )
    expected = plain_rank(
        query,
        [documents for _, documents in sessions],
        importances=importances,
        allowed=allowed,
        now=NOW,
        **options,  # type: ignore[arg-type]
    )
    assert [(r.session, r.memory_id) for r in found] == [(r.session, r.memory_id) for r in expected]
    for one, other in zip(found, expected, strict=True):
        assert one[2:] == pytest.approx(other[2:], abs=10**-DECIMALS, rel=0)
        assert one.score == pytest.approx(other.score, abs=10**-DECIMALS, rel=0)


@settings(deadline=None)  # the first query loads what it needs
@given(
    query=queries,
    changes=st.lists(
        st.builds(lambda first, then: first + then, appended, steps), min_size=1, max_size=3
    ),
    meaning=meanings,
    limit=st.integers(1, 30),
    min_relevance=st.none() | st.floats(0.0, 0.9),
    importance_weight=st.floats(0.0, 1.0),
    diverse=st.booleans(),
    matching=st.booleans(),
    seed=seeds,
)
def test_small_sessions(query, changes, seed, **options):
    random = np.random.default_rng(seed)
    sessions = [built(one) for one in changes]
    sizes = [len(documents) for _, documents in sessions]
    assert_ranked_alike(
        query,
        sessions,
        importances=[[random.random() for _ in range(size)] for size in sizes],
        allowed=[[random.random() < 0.8 for _ in range(size)] for size in sizes],
        **options,
    )


SAID = [
    *("garden", "piano", "tea", "house", "train", "letter", "river", "winter", "sister"),
    *("likes", "paints", "sells", "forgets", "wants", "repairs", "moves", "the", "I", "you"),
    *("Rome", "Paris", "yesterday", "17"),
]


TOKENS = np.array([(127, 0), (0, 127), (-127, 0), (76, 102), (36, -122)])


def talk(
    size: int, random: np.random.Generator, *, interleaved: bool, uneven: bool
) -> list[Document]:
    """A session of more memories than a z-score needs."""
    found = []
    vectors = np.array([(1, 0), (0, 1), (0.6, 0.8)], np.float16)
    for number in range(size):
        words = [*random.choice(SAID, random.integers(2, 9))]
        if found and random.random() < 0.3:  # nearly what was said before
            words = found[random.integers(len(found))].content.split()
            words[random.integers(len(words))] = random.choice(SAID)
        said = " ".join(words)
        episode = number % 7 if interleaved else number // 20
        episode = 0 if uneven and number < size // 2 else episode + 1
        days = int(random.integers(30))
        found.append(
            Document(
                f"m{number}",
                said + [".", "?", f" {number}."][random.integers(3)],
                number,
                NOW,
                ["Ann", "Tom Lee"][random.integers(2)],
                NOW - timedelta(days=days) if random.random() < 0.3 else None,
                "" if random.random() < 0.1 else str(episode),
                None if random.random() < 0.1 else vectors[random.integers(3)],
                None
                if random.random() < 0.1
                else random.choice(TOKENS, random.integers(4)).astype(np.int8),
            )
        )
    return found


@settings(deadline=None, max_examples=12)
@given(
    seed=seeds,
    interleaved=st.booleans(),
    uneven=st.booleans(),
    change=st.booleans(),
    meaning=meanings | with_tokens,
    query=st.sampled_from(
        ["who likes the garden piano?", "what does Ann want last week", "tea", "when was the train"]
    ),
)
def test_large_sessions(seed, change, meaning, query, **shape):
    random = np.random.default_rng(seed)
    documents = talk(450, random, **shape)
    index = SessionIndex(documents[:300], dimensions=2)
    ask(index)
    for document in documents[300:320]:
        index.update([document])
    index.update(documents[320:])
    if change:
        changed = replace(documents[40], content="sells the garden piano?")
        index.update([changed], ["m7"])
        documents[40] = changed
        del documents[7]
    assert_ranked_alike(
        query,
        [(index, documents)],
        importances=[[random.random() for _ in documents]],
        allowed=[[True] * len(documents)],
        limit=20,
        meaning=meaning,
        min_relevance=None,
        importance_weight=0.2,
        diverse=True,
        matching=False,
    )
