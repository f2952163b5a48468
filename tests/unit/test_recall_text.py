"""Texts as terms, in languages with and without a stemmer, with and without spaces."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoryd.recall.text import MAX_WORD_CHARS, analyser, words_of


def terms(text, language="en"):
    return analyser(language).terms(words_of(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Running dogs ran", ["run", "dog", "ran"]),
        ("What is it that you are?", []),
        ("Don't say we can't", ["say", "cant"]),
        ("Anna's and Anna\u2019s house", ["anna", "anna", "hous"]),
        ("snake_case e-mail 4711", ["snake", "case", "e", "mail", "4711"]),
        ("ＦＵＬＬ width", ["full", "width"]),  # noqa: RUF001
    ],
)
def test_english(text, expected):
    assert terms(text) == expected


def test_scripts_without_spaces_are_cut_into_bigrams():
    assert terms("東京タワー", "ja") == ["東京", "京タ", "タワ", "ワー", "東", "京"]
    assert terms("猫 naps", "ja") == ["猫", "nap"]


def test_vowel_signs_belong_to_their_words():
    assert words_of("हिन्दी भाषा") == ["हिन्दी", "भाषा"]


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Docker läuft, сервер нет", "de", ["dock", "lauft", "сервер"]),
        ("Docker running на сервере", "ru", ["docker", "run", "сервер"]),
        ("東京 Café 사과", "en", ["東京", "東", "京", "café", "사과"]),
        ("l'acqua dell'albergo", "it", ["acqua", "alberg"]),
        ("qu\u2019il aime l\u2019eau aujourd'hui", "fr", ["aim", "eau", "aujourdhui"]),
    ],
)
def test_each_word_follows_the_rules_of_its_script_in_a_language(text, language, expected):
    assert terms(text, language) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("good news 🦊", ["good", "news", "🦊"]),
        ("❤\ufe0f or ❤", ["❤", "❤"]),
        ("👩\u200d🚀 lands", ["👩\u200d🚀", "👩", "🚀", "land"]),
        ("🇩🇪 wins", ["🇩🇪", "win"]),
        ("a™ b® c© → 5", ["atm", "b", "c", "5"]),
    ],
)
def test_pictures_are_words(text, expected):
    assert terms(text) == expected


def test_a_language_has_its_own_stop_words_and_stems():
    assert terms("Die Katzen und der Hund", "de") == ["katz", "hund"]


def test_an_unknown_language_keeps_all_words():
    assert terms("The running dogs", "xx") == ["the", "running", "dogs"]


@settings(deadline=None)  # what a language needs is loaded for the first text
@given(st.text(), st.sampled_from(["en", "de", "ja", "xx"]))
def test_any_text_has_terms_of_bounded_length(text, language):
    found = terms(text, language)
    assert all(0 < len(term) <= MAX_WORD_CHARS for term in found)
    assert found == terms(text.upper().lower(), language) or text.upper().lower() != text.lower()
