"""The order in which memories answer a query."""

from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import numpy as np
import pytest

from memoryd.ranking import effective_importance
from memoryd.recall.fusion import rank
from memoryd.recall.index import Document, SessionIndex
from memoryd.recall.signals import understand

NOW = datetime(2026, 1, 15, tzinfo=UTC)


def index_of(*contents, dimensions=0, first=0, **common):
    return SessionIndex(
        [
            document(first + number, content, **common) if isinstance(content, str) else content
            for number, content in enumerate(contents)
        ],
        dimensions=dimensions,
    )


def document(number, content, **given):
    fields = {"created_at": NOW, "importance": 0.5} | given
    return Document(memory_id=f"m{number}", content=content, created=number, **fields)


OTHERS = [f"something else, number {number}" for number in range(60)]
"""Enough of them that scores are as large as in an ordinary session."""


def ids(query, *indexes, **options):
    return [result.memory_id for result in results(query, *indexes, **options)]


def results(query, *indexes, **options):
    given = {"now": NOW, "half_life_days": 30.0, "limit": 10} | options
    return rank(query, indexes, **given)


class Colours:
    """An embedder of whole texts that knows colours, and what is like them."""

    name = "colours"
    dimensions = 2
    axes = MappingProxyType({"red": (1, 0), "blue": (0, 1), "azure": (0, 1)})

    def __init__(self):
        self.texts = []

    def embed(self, texts):
        self.texts += texts
        rows = np.zeros((len(texts), 2), np.float32)
        for place, text in enumerate(texts):
            row = np.sum([self.axes.get(word, (0, 0)) for word in text.lower().split()], axis=0)
            rows[place] = row / (np.linalg.norm(row) or 1)
        return rows


class ColourWords(Colours):
    def embed_weighted(self, words, weights):
        self.weights = dict(zip(words, weights, strict=True))
        vector = np.sum([w * self.embed([word])[0] for word, w in self.weights.items()], axis=0)
        return (vector / (np.linalg.norm(vector) or 1)).astype(np.float32)


def coloured(*contents, embedder):
    vectors = embedder.embed(contents).astype(np.float16)
    return index_of(
        *(
            document(number, content, vector=vector)
            for number, (content, vector) in enumerate(zip(contents, vectors, strict=True))
        ),
        dimensions=2,
    )


def test_words_shared_come_first():
    index = index_of("likes tea", "plays the piano", "lives in Rome")
    assert ids("who played a piano?", index)[0] == "m1"


def test_the_limit_holds_and_nothing_is_found_in_nothing():
    assert len(results("tea", index_of("tea", "green tea", "black tea"), limit=2)) == 2
    assert results("tea", SessionIndex()) == []
    assert results("tea", index_of("tea"), limit=0) == []


@pytest.mark.parametrize(
    "query",
    ["what is it", "?!", "zebra", "the " * 4096, "x" * 16_384, "\u200b", "e\u0301" * 8000],
)
def test_a_query_that_has_nothing_to_do_with_any_memory_is_answered_by_importance(query):
    index = index_of(
        document(0, "likes tea", importance=0.1),
        document(1, "plays the piano?", importance=0.9, episode="a"),
        document(2, "lives in Rome", importance=0.5, episode="a"),
    )
    assert ids(query, index) == ["m1", "m2", "m0"]
    assert ids(query, index, importance_weight=0.0) == ["m0", "m1", "m2"]


def test_a_query_of_the_greatest_length_is_answered():
    index = index_of("likes tea", "plays the piano")
    assert ids(("piano " * 3000)[:16_384], index)[0] == "m1"
    embedder = ColourWords()
    found = coloured("red one", "blue one", embedder=embedder)
    many = " ".join(f"word{n}" for n in range(2000))
    assert ids(f"azure {many}", found, embedder=embedder)[0] == "m1"


def test_cjk():
    index = SessionIndex(
        [document(0, "東京に住んでいます"), document(1, "猫が好きです")], language="ja"
    )
    assert ids("東京", index)[0] == "m0"
    assert ids("猫", index)[0] == "m1"


def test_what_it_means_counts_where_vectors_are():
    for embedder in (Colours(), ColourWords()):
        index = coloured("a red door", "a blue door", "a plain door", embedder=embedder)
        first = results("anything azure", index, embedder=embedder)[0]
        assert first.memory_id == "m1"
        assert first.semantic > 0
        assert first.lexical == 0


def test_a_memory_without_a_vector_is_found_by_its_words():
    embedder = Colours()
    index = coloured("a red door", "a blue door", embedder=embedder)
    index.update([document(2, "the garden gate")])
    first = results("garden gate", index, embedder=embedder)[0]
    assert first.memory_id == "m2"
    assert first.semantic == 0


def test_rare_words_of_a_query_weigh_more():
    embedder = ColourWords()
    index = coloured("red door", "red gate", "blue door", "red wall", embedder=embedder)
    ids("red blue", index, embedder=embedder)
    assert embedder.weights["blue"] > embedder.weights["red"] > 0


def test_neighbours_lend_their_relevance_within_an_episode():
    def turns(episodes):
        return index_of(
            *(
                document(number, content, episode=episode)
                for number, (content, episode) in enumerate(
                    zip(("tea", "the piano", "yes indeed", "roads"), episodes, strict=True)
                )
            )
        )

    by_id = {r.memory_id: r for r in results("piano", turns("aaab"))}
    assert min(by_id["m0"].context, by_id["m2"].context) > by_id["m3"].context
    assert ids("piano", turns("aaab"))[0] == "m1"
    assert all(r.context == 0 for r in results("piano", turns(["", "", "", ""])))


def test_who_is_named_is_preferred_and_embedded_in_the_first_person():
    embedder = Colours()
    vectors = embedder.embed(["red", "red", "blue"])
    index = index_of(
        document(0, "my door is red", speaker="Ann Lee", vector=vectors[0]),
        document(1, "my gate is red", speaker="Ben", vector=vectors[1]),
        document(2, "my wall is blue", speaker="Ben", vector=vectors[2]),
        dimensions=2,
    )
    embedder.texts.clear()
    first = results("What of Ben's is red?", index, embedder=embedder)[0]
    assert embedder.texts == ["What of my is red?"]
    assert first.memory_id == "m1"
    assert first.speaker > 0
    assert all(r.speaker == 0 for r in results("What of Ann's and Ben's is red?", index))


@pytest.mark.parametrize(
    ("query", "language", "told"),
    [
        ("Where does Ann Lee live?", "en", "Where does I live?"),
        ("What is Ann Lee\u2019s job?", "en", "What is my job?"),
        ("What do Ann and BEN share?", "en", "What do I and I share?"),
        ("Who lives in Leeds?", "en", "Who lives in Leeds?"),
        ("Wo wohnt Ann Lee?", "de", "Wo wohnt ?"),
        ("Ann's", "en", "my"),
        ("What does V. like?", "en", "What does I. like?"),
    ],
)
def test_names_of_speakers_give_way_to_the_first_person(query, language, told):
    said = [document(n, "Hello", speaker=name) for n, name in enumerate(("Ann Lee", "Ben", "V"))]
    assert understand(query, [SessionIndex(said, language=language)]).text_to_embed == told


def test_of_what_is_said_by_the_one_named_own_affairs_come_first():
    index = index_of(
        document(0, "Your trip to Rome, you told us of it", speaker="Ann"),
        document(1, "My trip to Rome, I told you of it", speaker="Ann"),
        document(2, "My trip to Rome, I told you of it", speaker="Ben"),
        *OTHERS,
    )
    found = results("Ann and Rome", index, diverse=False)
    by_id = {result.memory_id: result for result in found}
    assert found[0].memory_id == "m1"
    assert by_id["m1"].speaker > by_id["m0"].speaker > by_id["m2"].speaker == 0


def test_the_turn_after_a_relevant_question_answers_it():
    def turns(question):
        return index_of(question, "Since my grandmother taught me", *OTHERS, episode="a")

    asked, told = (
        {r.memory_id: r.context for r in results("piano", turns(text), limit=100)}["m1"]
        for text in ("Why the piano?", "Why, the piano!")
    )
    assert asked > told > 0


def test_when_it_happened_counts_where_a_query_says_when():
    index = index_of(
        document(0, "went for a swim", occurred_at=NOW - timedelta(days=40)),
        document(1, "went for a swim", occurred_at=NOW - timedelta(days=9)),
        document(2, "went for a run", created_at=NOW - timedelta(days=9)),
    )
    swims = results("any swim last week?", index, diverse=False)
    assert swims[0].memory_id == "m1"
    assert swims[0].temporal > 0
    by_id = {r.memory_id: r.temporal for r in swims}
    assert by_id["m0"] == 0
    assert by_id["m2"] == by_id["m1"]


def test_importance_tempers_as_far_as_asked():
    index = index_of(
        document(0, "drinks tea", importance=0.1),
        document(1, "drinks tea daily", importance=0.4),
        *OTHERS,
    )
    assert ids("tea", index, importance_weight=0.0, diverse=False)[0] == "m0"
    assert ids("tea", index, diverse=False)[:2] == ["m1", "m0"]
    assert ids("tea", index, importance_weight=1.0, diverse=False)[:2] == ["m1", "m0"]


def test_importance_is_the_effective_one():
    old = document(
        0, "tea", importance=0.8, created_at=NOW - timedelta(days=45, hours=7), access_count=3
    )
    (found,) = results("tea", index_of(old), importance_weight=0.5)
    (twice,) = results("tea", index_of(old), importance_weight=1.0)
    expected = effective_importance(0.8, old.created_at, 3, now=NOW, half_life_days=30.0)
    assert twice.importance == pytest.approx(2 * found.importance)
    (certain,) = results("tea", index_of(document(0, "tea", importance=1.0)), importance_weight=1.0)
    assert twice.importance == pytest.approx(expected * certain.importance)


def test_equals_are_told_apart_by_age_alone():
    reordered = [document(n, "the same words") for n in (2, 0, 1)]
    assert ids("same words", index_of(*reordered), diverse=False) == ["m0", "m1", "m2"]


def test_near_duplicates_give_way():
    index = index_of(
        "the order arrived damaged",
        "the order arrived damaged!",
        "the order was late",
        *OTHERS,
    )
    assert ids("order arrived", index, limit=2) == ["m0", "m2"]
    assert ids("order arrived", index, limit=2, diverse=False) == ["m0", "m1"]
    found = results("order arrived", index, limit=100)
    assert {r.memory_id: r.diversity < 0 for r in found}["m1"]


def test_only_what_is_allowed_is_answered_with_the_scores_of_all():
    index = index_of("black tea", "green tea", "coffee")
    everything = {r.memory_id: r.score for r in results("green tea", index, diverse=False)}
    found = results("green tea", index, allowed=[{"m0", "m2", "gone"}], diverse=False)
    assert [r.memory_id for r in found] == ["m0", "m2"]
    assert {r.memory_id: r.score for r in found} == {i: everything[i] for i in ("m0", "m2")}
    assert results("green tea", index, allowed=[set()]) == []


def test_several_sessions_are_ranked_as_one():
    contents = ["black tea", "green tea", "coffee", "a cup of tea", "water", "green door"]
    whole = index_of(*contents)
    parts = index_of(*contents[:2]), SessionIndex(), index_of(*contents[2:], first=2)
    together = results("green tea in a cup", whole)
    apart = results("green tea in a cup", *parts)
    assert [r.memory_id for r in apart] == [r.memory_id for r in together]
    assert {r.session for r in apart} == {0, 2}
    # All but what each session says of its own terms is the same.
    for one, other in zip(together, apart, strict=True):
        assert one.lexical == pytest.approx(other.lexical)


def test_questions_give_way_to_answers_in_a_conversation():
    index = index_of("Do you play the piano?", "I play the piano", *OTHERS, episode="a")
    assert ids("piano", index)[0] == "m1"
    form = {r.memory_id: r.form for r in results("piano", index_of("a piano?", "piano"))}
    assert set(form.values()) == {0.0}
