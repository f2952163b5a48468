"""A session's index does not depend on the order of changes."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoryd.recall.fusion import rank
from memoryd.recall.index import Document, SessionIndex
from memoryd.recall.signals import understand
from memoryd.recall.similarity import similar_to_memory, similar_to_text

START = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = ["red", "blue", "house", "garden", "running", "ran", "cat", "dogs", "piano", "2024", "why"]
WORDS += ["nicht", "und", "katzen", "猫です", "gardne"]


def document(number, content, *, speaker="", episode="", vector=None):
    return Document(
        memory_id=f"m{number}",
        content=content,
        created=number,
        created_at=START + timedelta(minutes=number),
        speaker=speaker,
        episode=episode,
        vector=None if vector is None else np.array(vector, np.float16),
    )


def ranked(index, query, **options):
    given_ = {"now": START, "limit": 100} | options
    return rank(understand(query, [index]), [index], [np.full(len(index), 0.5)], **given_)


contents = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
documents = st.builds(
    document,
    st.integers(0, 12),
    contents,
    speaker=st.sampled_from(["", "Ann", "Ben"]),
    episode=st.sampled_from(["", "a", "b"]),
)
changes = st.lists(
    st.tuples(st.lists(documents, max_size=4), st.lists(st.integers(0, 12), max_size=3)), max_size=8
)


@settings(deadline=None)
@given(changes, contents)
def test_updates_give_the_same_index_as_rebuilding(steps, query):
    index = SessionIndex()
    held = {}
    for changed, removed in steps:
        index.update(changed, [f"m{number}" for number in removed])
        for number in removed:
            held.pop(f"m{number}", None)
        held |= {d.memory_id: d for d in changed}
    rebuilt = SessionIndex(held.values())
    assert index.ids == rebuilt.ids
    assert index.languages == rebuilt.languages
    assert ranked(index, query) == ranked(rebuilt, query)
    assert similar_to_text(index, query).tolist() == similar_to_text(rebuilt, query).tolist()
    for memory_id in index.ids:
        assert (
            similar_to_memory(index, memory_id).tolist()
            == similar_to_memory(rebuilt, memory_id).tolist()
        )


@settings(deadline=None)
@given(st.lists(documents, min_size=1, max_size=12), contents, st.booleans())
def test_parts_add_up_and_scores_fall(held, query, diverse):
    found = ranked(SessionIndex(held), query, diverse=diverse)
    assert len(found) == len({d.memory_id for d in held})
    for result in found:
        parts = (
            result.lexical, result.semantic, result.context, result.speaker, result.temporal,
            result.form, result.importance, result.diversity,
        )  # fmt: skip
        assert result.score == pytest.approx(sum(parts))
    scores = [round(result.score, 8) for result in found]
    assert scores == sorted(scores, reverse=True)


def test_removed_memories_are_no_longer_found():
    index = SessionIndex([document(1, "a red house"), document(2, "a blue house")])
    index.update([], ["m1", "unknown"])
    assert [r.memory_id for r in ranked(index, "red")] == ["m2"]
    assert index.frequency("red") == 0
    assert "m1" not in index
    assert "m2" in index


def test_terms_that_no_memory_has_are_forgotten():
    index = SessionIndex([document(0, "stays here", speaker="Ann", episode="e")])
    for number in range(1, 8):
        text = " ".join(f"word{number}x{place}" for place in range(400))
        index.update([document(1, text, speaker=f"S{number}", episode=f"e{number}")])
    assert index.terms_known < 1900
    assert ranked(index, "word7x3")[0].memory_id == "m1"
    assert ranked(index, "stays")[0].memory_id == "m0"


def test_the_estimate_of_bytes_grows_with_the_index():
    small = SessionIndex([document(0, "a red house")], dimensions=256)
    large = SessionIndex(
        [document(n, f"a red house number {n}") for n in range(100)], dimensions=256
    )
    assert small.nbytes < large.nbytes
    assert large.nbytes > large.vectors.nbytes


def test_vectors_of_tokens_are_in_the_estimate_and_go_with_their_memory():
    tokens = np.ones((30, 128), np.int8)
    index = SessionIndex([document(0, "a red house"), document(1, "a red cat")], dimensions=2)
    before = index.nbytes
    vector = np.array([1, 0], np.float16)
    index.set_vector("m0", vector, tokens)
    index.set_vector("m0", vector, tokens[:20])
    assert (index.token_vectors("m0") == tokens[:20]).all()
    assert tokens[:20].nbytes < index.nbytes - before < 1.2 * tokens[:20].nbytes
    index.update([document(0, "a red house")])
    assert index.token_vectors("m0") is None
    assert not index.has_token_vectors
    index.set_vector("m1", vector, tokens)
    index.update([], ["m1"])
    assert not index.has_token_vectors
    assert index.nbytes <= before


def test_what_an_unknown_word_is_compared_with_is_in_the_estimate_and_follows_changes():
    index = SessionIndex([document(0, "vegetarian food"), document(1, "likes tea")])
    before = index.nbytes
    assert ranked(index, "vegitarian")[0].lexical > 0
    assert index.nbytes > before
    index.update([document(2, "plays the violoncello")], ["m0"])
    assert not any(one.lexical for one in ranked(index, "vegitarian"))
    assert ranked(index, "violoncelo")[0].memory_id == "m2"


def test_languages_are_those_of_the_memories_held():
    german = "Sie hat die Katze und den Hund"
    index = SessionIndex([document(0, german), document(1, "the cat and the dog")])
    index.update([document(2, german)])
    assert index.languages == ("de", "en")
    index.update([document(0, "she has the cat"), document(2, "she has the dog")])
    assert index.languages == ("en",)
