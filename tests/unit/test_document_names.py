"""The quick check of a document's name agrees with the one that says what is wrong."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from memoryd.domain.documents import (
    LABEL_END,
    MAX_KEY_CHARACTERS,
    MAX_LABEL_CHARACTERS,
    MAX_NAMESPACE_LABELS,
    DocumentName,
    is_clean_name,
    labels_of,
    namespace_of,
    problems_with_name,
)

A_LABEL = "l" * MAX_LABEL_CHARACTERS
A_KEY = "k" * MAX_KEY_CHARACTERS

_characters = ["a", "ü", "€", "\x00", LABEL_END, "\x1f", "\x7f", "\x9f", "\xa0", "\n"]
_texts = st.builds(
    lambda text, times: text * times,
    st.text(st.sampled_from(_characters), max_size=4),
    st.sampled_from([1, 1, 64, 129]),
)


@given(st.lists(_texts, max_size=MAX_NAMESPACE_LABELS + 1), _texts)
@example([], "")
@example([], A_KEY)
@example([], f"{A_KEY}k")
@example([], "k\n")
@example([A_LABEL], "k")
@example([f"{A_LABEL}l"], "k")
@example([""], "k")
@example(["l\n"], "k")
@example([LABEL_END], "k")
@example([f"a{LABEL_END}b"], "k")
@example(["a"] * MAX_NAMESPACE_LABELS, "k")
@example(["a"] * (MAX_NAMESPACE_LABELS + 1), "k")
@example([A_LABEL, A_LABEL, "ll"], A_KEY)
@example([A_LABEL, A_LABEL, "lll"], A_KEY)
@example(["ü" * 255], A_KEY)
def test_a_name_is_clean_exactly_where_it_has_no_problem(labels: list[str], key: str) -> None:
    name = DocumentName(namespace_of(labels), key)

    assert is_clean_name(name, len(labels)) == (not [*problems_with_name(labels, key)])


@given(st.lists(st.text(st.characters(min_codepoint=ord(LABEL_END) + 1)), max_size=4))
def test_a_namespace_as_text_gives_its_labels(labels: list[str]) -> None:
    assert [*labels_of(namespace_of(labels))] == labels
