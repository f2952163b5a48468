"""Known terms that are spelled much like an unknown one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoryd.recall.spellings import LEAST_SIMILARITY, Spellings, is_a_slip

KNOWN = ["vegetarian", "photograph", "wednesday", "küchenfenster", "restaur", "order4711", "a1b2c3"]
LETTERS = st.text("abcdeé", min_size=5, max_size=9)


def like(term, known):
    return dict(Spellings().like(term, dict.fromkeys(known)))


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("vegitarian", ["vegetarian"]),
        ("photografi", ["photograph"]),
        ("wednseday", ["wednesday"]),
        ("fenster", ["küchenfenster"]),
        ("resteur", ["restaur"]),
        ("rests", []),
        ("order4712", []),
        ("a1b2c4", []),
        ("elephant", []),
    ],
)
def test_what_is_alike_is_found(term, expected):
    assert [*like(term, KNOWN)] == expected


def test_short_words_are_like_no_other():
    assert not like("cats", ["cars", "cat", "catss"])
    assert not like("catss", ["cats"])


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("horse", "house", True),
        ("horse", "horses", True),
        ("horse", "orse", True),
        ("horse", "hosre", True),
        ("horse", "hores", True),
        ("horse", "hersos", False),
        ("horse", "hoeres", False),
        ("aaaa", "aa", False),
    ],
)
def test_a_slip_is_one(one, other, expected):
    assert is_a_slip(one, other) is expected
    assert is_a_slip(other, one) is expected


@given(st.lists(st.lists(LETTERS, max_size=4), max_size=12), LETTERS)
def test_a_vocabulary_that_grows_is_like_one_that_was_there(steps, term):
    vocabulary: dict[str, None] = {}
    grown = Spellings()
    for added in steps:
        vocabulary |= dict.fromkeys(added)
        found = grown.like(term, vocabulary)
    assert not steps or dict(found) == like(term, vocabulary)


@given(st.lists(LETTERS), LETTERS)
def test_similarity_is_the_share_of_trigrams_in_common(known, term):
    def trigrams(word):
        return {f"<{word}>"[place : place + 3] for place in range(len(word))}

    def dice(word):
        shared = trigrams(word) & trigrams(term)
        return 2 * len(shared) / (len(trigrams(word)) + len(trigrams(term)))

    found = like(term, known)
    assert {word for word in known if dice(word) >= LEAST_SIMILARITY} <= found.keys()
    for word, similarity in found.items():
        assert similarity == pytest.approx(dice(word))
        assert similarity >= LEAST_SIMILARITY or is_a_slip(word, term)
