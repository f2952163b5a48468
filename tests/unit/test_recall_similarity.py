"""How similar memories are."""

from datetime import UTC, datetime

import numpy as np
import pytest

from memoryd.recall.index import Document, SessionIndex
from memoryd.recall.similarity import similar_to_memory, similar_to_text

NOW = datetime(2026, 1, 15, tzinfo=UTC)


def index_of(*contents, vectors=None):
    return SessionIndex(
        (
            Document(
                str(n), content, n, NOW, speaker="Ann",
                vector=None if vectors is None else np.array(vectors[n], np.float16),
            )
            for n, content in enumerate(contents)
        ),
        dimensions=0 if vectors is None else 2,
    )  # fmt: skip


def test_shared_words_make_memories_similar_in_any_order():
    index = index_of("likes green tea", "green tea is liked", "lives in Rome")
    likeness = similar_to_text(index, "Likes green tea!")
    assert likeness[0] == pytest.approx(1.0)
    assert likeness[0] >= likeness[1] > 0.5
    assert likeness[2] == 0.0


def test_the_speaker_adds_no_similarity():
    assert similar_to_text(index_of("likes tea"), "Ann") == [0.0]


def test_words_that_no_memory_has_lower_similarity():
    index = index_of("green tea", "Rome")
    assert similar_to_text(index, "green tea and unknown zebras")[0] < 1.0


def test_a_memory_is_fully_similar_to_itself():
    index = index_of("likes tea", "likes black tea", "the")
    for place in range(3):
        likeness = similar_to_memory(index, str(place))
        assert likeness[place] == 1.0
        assert ((likeness >= 0) & (likeness <= 1)).all()
    with pytest.raises(KeyError):
        similar_to_memory(index, "unknown")


def test_a_text_of_stop_words_is_similar_to_nothing():
    assert similar_to_text(index_of("likes tea"), "what is it").tolist() == [0.0]
    assert len(similar_to_text(SessionIndex(), "tea")) == 0


def test_vectors_decide_where_both_sides_have_one():
    index = index_of("red", "crimson", "blue", vectors=[(1, 0), (1, 0), (-0.6, 0.8)])
    assert similar_to_memory(index, "0").tolist() == [1.0, 1.0, 0.0]
    index.update([Document("3", "red", 3, NOW)])
    likeness = similar_to_text(index, "red", np.array([1, 0], np.float32))
    assert likeness[1] == 1.0
    assert likeness[3] == pytest.approx(1.0)
