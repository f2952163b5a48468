"""How sure recall is that a memory bears on a query at all."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoryd.recall.fusion import rank
from memoryd.recall.index import Document, SessionIndex
from memoryd.recall.signals import Meaning, understand

NOW = datetime(2026, 1, 15, tzinfo=UTC)
FOX = "\N{FOX FACE}"

words = st.sampled_from(
    [
        "tea",
        "likes",
        "piano",
        "the",
        "to",
        "be",
        "Ann",
        "Rome",
        FOX,
        "?",
        "yesterday",
        "茶",
        "e\u0301",
    ]
)
texts = st.text(max_size=20) | st.lists(words, max_size=6).map(" ".join)
unit = st.sampled_from([(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.6, 0.8), (0.0, 0.0)])
vectors = unit.map(lambda pair: np.array(pair, np.float16))
documents = st.builds(
    lambda content, speaker, episode, vector: (content, speaker, episode, vector),
    texts,
    st.sampled_from(["", "Ann", "Ben"]),
    st.sampled_from(["", "1", "2"]),
    st.none() | vectors,
)
meanings = st.none() | st.builds(
    Meaning, unit.map(lambda pair: np.array(pair, np.float32)), st.booleans()
)


def index_of(*contents, **common):
    return SessionIndex(
        Document(f"m{place}", content, place, NOW, **common)
        for place, content in enumerate(contents)
    )


def relevance(query, *indexes, meaning=None, **options):
    """Of each memory found, by its session and id."""
    found = rank(
        understand(query, indexes),
        indexes,
        [np.full(len(index), 0.5) for index in indexes],
        now=NOW,
        limit=100,
        meaning=meaning,
        **options,
    )
    return {(one.session, one.memory_id): one.relevance for one in found}


def built(given, order):
    """A session of documents that are taken in in some order."""
    every = [
        Document(f"m{place}", content, place, NOW, speaker, None, episode, vector)
        for place, (content, speaker, episode, vector) in enumerate(given)
    ]
    index = SessionIndex(dimensions=2)
    for place in order:
        index.update([every[place]])
    return index


@settings(deadline=None)  # the first query loads what they need
@given(
    query=texts,
    given=st.lists(documents, min_size=1, max_size=6),
    meaning=meanings,
    data=st.data(),
)
def test_relevance_lies_between_0_and_1_whatever_the_order(query, given, meaning, data):
    plain = relevance(query, built(given, range(len(given))), meaning=meaning)
    assert len(plain) == len(given)
    assert all(0.0 <= value <= 1.0 for value in plain.values())
    order = data.draw(st.permutations(range(len(given))))
    assert relevance(query, built(given, order), meaning=meaning) == plain


@settings(deadline=None)  # as above
@given(
    query=texts,
    sessions=st.lists(st.lists(texts, max_size=4), min_size=1, max_size=3),
    least=st.floats(0.0, 1.0),
)
def test_the_least_relevance_leaves_out_exactly_what_is_below_it(query, sessions, least):
    indexes = [index_of(*contents) for contents in sessions]
    every = relevance(query, *indexes, diverse=False)
    for bound in (least, *every.values()):
        found = relevance(query, *indexes, min_relevance=bound, diverse=False)
        expected = [(key, value) for key, value in every.items() if value >= bound]
        assert [*found.items()] == expected


@settings(deadline=None)  # as above
@given(query=texts, contents=st.lists(texts, min_size=1, max_size=5), weight=st.floats(0.0, 1.0))
def test_neither_importance_nor_what_is_allowed_changes_relevance(query, contents, weight):
    index = index_of(*contents)
    every = relevance(query, index)
    assert relevance(query, index, importance_weight=weight) == every
    few = np.arange(len(contents)) % 2 == 0
    assert relevance(query, index, allowed=[few]).items() <= every.items()


SMALL = ("likes green tea", "plays the piano", "lives in Rome")
OTHERS = tuple(f"talks of something else, number {number}" for number in range(900))


@pytest.mark.parametrize("others", [(), OTHERS[:60], OTHERS])
def test_what_bears_on_a_query_is_told_from_what_does_not_in_every_session(others):
    index = index_of(*SMALL, *others)
    assert relevance("who plays the piano?", index)[0, "m1"] > 0.8
    assert max(relevance("when does the passport expire?", index).values()) < 0.3


@pytest.mark.parametrize("others", [(), OTHERS[:60], OTHERS])
def test_words_that_no_memory_has_make_what_shares_the_others_less_relevant(others):
    index = index_of(*SMALL, *others)
    queries = ("the piano?", "tuning the piano?", "does the piano need tuning in winter?")
    relevant = [relevance(query, index)[0, "m1"] for query in queries]
    assert relevant == sorted(relevant, reverse=True)
    assert relevant[0] > relevant[-1]


def test_a_neighbour_in_its_episode_makes_a_memory_relevant():
    alone = index_of("who tunes the piano?", "an old man from Turin", *OTHERS[:60])
    talk = index_of("who tunes the piano?", "an old man from Turin", *OTHERS[:60], episode="1")
    query = "who tunes the piano?"
    assert relevance(query, talk)[0, "m1"] > relevance(query, alone)[0, "m1"] + 0.2


def test_a_memory_in_a_time_that_the_query_names_is_more_relevant():
    query = "what happened last week?"
    indexes = []
    for day in (8, 2):
        moment = datetime(2026, 1, day, tzinfo=UTC)
        indexes.append(SessionIndex([Document("m0", "went hiking", 0, NOW, occurred_at=moment)]))
    inside, outside = (relevance(query, index)[0, "m0"] for index in indexes)
    assert inside > outside


def test_stop_words_and_signs_count_in_their_order():
    index = index_of("she says: to be or not to be", "is it not to be had", f"loves {FOX}", *SMALL)
    found = relevance("to be or not to be", index)
    assert found[0, "m0"] > 0.8
    assert max(value for key, value in found.items() if key != (0, "m0")) < 0.5
    assert relevance(FOX, index)[0, "m2"] > 0.8


def test_meaning_counts_where_there_is_a_vector():
    red, blue = np.array([1, 0], np.float16), np.array([0, 1], np.float16)
    index = SessionIndex(
        [
            Document("near", "likes scarlet", 0, NOW, vector=red),
            Document("far", "likes azure", 1, NOW, vector=blue),
            Document("unknown", "likes crimson", 2, NOW),
        ],
        dimensions=2,
    )
    meaning = Meaning(np.array([1, 0], np.float32), adds_up_words=False)
    found = relevance("anything red", index, meaning=meaning)
    assert found[0, "near"] > 0.8
    assert found[0, "near"] > found[0, "far"] > found[0, "unknown"]
    assert found[0, "unknown"] == relevance("anything red", index)[0, "unknown"]
