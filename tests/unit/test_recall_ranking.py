"""The order of memories in the answer to a query."""

from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoryd.recall.diversity import PENALTY, RELEVANCE_KEPT, Repetition, chosen
from memoryd.recall.fusion import rank
from memoryd.recall.index import Document, SessionIndex
from memoryd.recall.signals import meaning_of, understand

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
    fields = {"created_at": NOW} | given
    return Document(memory_id=f"m{number}", content=content, created=number, **fields)


OTHERS = [f"something else, number {number}" for number in range(60)]
"""Enough that scores are as large as in an ordinary session."""


def ids(query, *indexes, **options):
    return [result.memory_id for result in results(query, *indexes, **options)]


def results(query, *indexes, **options):
    given = {"now": NOW, "limit": 10} | options
    importance = given.pop("importance", {})
    importances = [
        np.array([importance.get(memory_id, 0.5) for memory_id in index.ids]) for index in indexes
    ]
    embedder = given.pop("embedder", None)
    understood = understand(query, indexes)
    meaning = None if embedder is None else meaning_of(understood, embedder)
    return rank(understood, indexes, importances, meaning=meaning, **given)


class Colours:
    """An embedder of whole texts that knows colours and similar words."""

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


def test_the_limit_holds_and_an_empty_query_finds_nothing():
    assert len(results("tea", index_of("tea", "green tea", "black tea"), limit=2)) == 2
    assert results("tea", SessionIndex()) == []
    assert results("tea", index_of("tea"), limit=0) == []


@pytest.mark.parametrize(
    "query",
    ["what is it", "!!", "zebra", "those " * 2730, "x" * 16_384, "\u200b", "e\u0301" * 8000],
)
def test_a_query_that_matches_no_memory_is_answered_by_importance(query):
    index = index_of(
        document(0, "likes tea"),
        document(1, "plays the piano?", episode="a"),
        document(2, "lives in Rome", episode="a"),
    )
    importance = {"m0": 0.1, "m1": 0.9, "m2": 0.5}
    assert ids(query, index, importance=importance) == ["m1", "m2", "m0"]
    found = ids(query, index, importance=importance, importance_weight=0.0)
    assert found == ["m0", "m1", "m2"]


def test_a_query_of_the_greatest_length_is_answered():
    index = index_of("likes tea", "plays the piano")
    assert ids(("piano " * 3000)[:16_384], index)[0] == "m1"
    embedder = ColourWords()
    found = coloured("red one", "blue one", embedder=embedder)
    many = " ".join(f"word{n}" for n in range(2000))
    assert ids(f"azure {many}", found, embedder=embedder)[0] == "m1"


POLYGLOT = (
    "Sie hat zwei Katzen, die im Garten schlafen",
    "Il paie toujours ses factures après le deuxième rappel",
    "Он живёт в городе, но работает за городом",
    "お客様は駅の隣の倉庫で働いている",
    "The customer runs two bakeries in the old town",
)


@pytest.mark.parametrize(
    ("query", "best"),
    [
        ("Wie heißt die Katze, die sie hat?", 0),
        ("Katze", 0),
        ("Est-ce qu'il a payé sa facture ?", 1),
        ("facture", 1),
        ("каких городах он жил?", 2),
        ("倉庫はどこにありますか", 3),
        ("does the customer run a bakery", 4),
        ("bakery", 4),
    ],
)
@pytest.mark.parametrize("language", ["en", "de", "ru"])
def test_memories_are_found_in_their_own_languages(query, best, language):
    index = SessionIndex(
        [document(number, text) for number, text in enumerate(POLYGLOT)], language=language
    )
    assert ids(query, index)[0] == f"m{best}"
    apart = [
        SessionIndex([document(number, text)], language=language)
        for number, text in enumerate(POLYGLOT)
    ]
    assert ids(query, *apart)[0] == f"m{best}"


def test_what_is_a_stop_word_in_one_language_only_counts_in_the_others():
    index = index_of(
        "Wir machen das auf die harte Art", "if it breaks they die", "it is what it is"
    )
    assert ids("when do they die", index)[0] == "m1"
    assert results("wie machen wir die Wäsche", index)[0].memory_id == "m0"


def test_german_nouns_are_no_names():
    index = index_of("Er hat den Hund im Garten und die Katze im Haus", "He met Anna in Rome")
    assert index.rows["names"].tolist() == [0, 2]


@pytest.mark.parametrize("query", ["restuarant", "vegitarian restaurants", "vegetarians"])
def test_an_unknown_word_finds_what_is_spelled_much_like_it(query):
    index = index_of("likes tea", "runs a vegetarian restaurant", "lives in Rome")
    assert ids(query, index, importance={"m1": 0.0})[0] == "m1"


def test_what_is_spelled_alike_counts_less_and_only_where_the_word_is_unknown():
    index = index_of("the wedding planner", "the weddding planner", "the tea")
    assert ids("wedding", index)[0] == "m0"
    exact = results("wedding", index)
    assert exact[1].lexical == exact[2].lexical
    slip = results("weddimg", index)
    assert slip[0].lexical < exact[0].lexical
    assert slip[0].relevance < exact[0].relevance


@pytest.mark.parametrize("query", ["order 4712", "A1B2C4", "cars"])
def test_numbers_ids_and_short_words_are_like_no_other(query):
    index = index_of("number 4711", "a1b2c3", "carts", "tea")
    assert not any(one.lexical for one in results(query, index))


def test_pictures_count_beside_words():
    index = index_of("good news today", "news with \N{FOX FACE}", "no \N{CAT FACE}", "tea")
    assert ids("\N{FOX FACE} news", index)[:2] == ["m1", "m0"]


def test_cjk():
    index = SessionIndex(
        [document(0, "東京に住んでいます"), document(1, "猫が好きです")], language="ja"
    )
    assert ids("東京", index)[0] == "m0"
    assert ids("猫", index)[0] == "m1"


def test_meaning_counts_where_vectors_exist():
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


def test_a_named_speaker_is_preferred_and_embedded_in_the_first_person():
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
    ("query", "language", "embedded"),
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
def test_names_of_speakers_give_way_to_the_first_person(query, language, embedded):
    said = [document(n, "Hello", speaker=name) for n, name in enumerate(("Ann Lee", "Ben", "V"))]
    assert understand(query, [SessionIndex(said, language=language)]).text_to_embed == embedded


def test_what_a_named_speaker_says_of_themselves_comes_first():
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

    question, statement = (
        {r.memory_id: r.context for r in results("piano", turns(text), limit=100)}["m1"]
        for text in ("Why the piano?", "Why, the piano!")
    )
    assert question > statement > 0


def test_time_counts_if_the_query_names_one():
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


def test_importance_tempers_by_its_weight():
    index = index_of(
        document(0, "drinks tea"),
        document(1, "drinks tea daily"),
        *OTHERS,
    )
    given = {"importance": {"m0": 0.1, "m1": 0.4}, "diverse": False}
    assert ids("tea", index, importance_weight=0.0, **given)[0] == "m0"
    assert ids("tea", index, **given)[:2] == ["m1", "m0"]
    assert ids("tea", index, importance_weight=1.0, **given)[:2] == ["m1", "m0"]


def test_the_share_of_importance_grows_with_it_and_its_weight():
    index = index_of("tea")

    def share(importance, weight):
        given = {"importance": {"m0": importance}, "importance_weight": weight}
        return results("tea", index, **given)[0].importance

    assert share(0.8, 1.0) == pytest.approx(2 * share(0.8, 0.5))
    assert share(0.8, 0.5) == pytest.approx(2 * share(0.4, 0.5))
    assert share(0.4, 0.5) > 0


def test_ties_are_broken_by_age_alone():
    reordered = [document(n, "the same words") for n in (2, 0, 1)]
    assert ids("same words", index_of(*reordered), diverse=False) == ["m0", "m1", "m2"]


TATTOO = "To be or not to be is her tattoo"


@pytest.mark.parametrize(
    ("query", "best"),
    [
        ("\N{FOX FACE}", "she reacts with \N{FOX FACE} to good news"),
        ("\N{FOX FACE}?", "she reacts with \N{FOX FACE} to good news"),
        ("To be or not to be", TATTOO),
        ("to BE, or NOT to be?!", TATTOO),
        ("?!", "the answer was a loud what?!"),
        (
            "\U0001f469\u200d\U0001f469\u200d\U0001f467",
            "trip \U0001f469\u200d\U0001f469\u200d\U0001f467",
        ),
        ("\u2764", "signs with \u2764\ufe0f"),
        ("\u2764\ufe0f", "signs with \u2764\ufe0f"),
        ("\N{THUMBS UP SIGN}", "\N{THUMBS UP SIGN}\U0001f3fd given"),
        ("++", "writes C++ at work"),
        ("don\u2019t", "they don't, they said"),
    ],
)
@pytest.mark.parametrize("embedder", [None, Colours(), ColourWords()])
def test_a_query_without_terms_finds_its_own_words_and_signs(query, best, embedder):
    texts = [
        "she reacts with \N{FOX FACE} to good news",
        "to be honest it is not what it was",
        TATTOO,
        "the answer was a loud what?!",
        "trip \U0001f469\u200d\U0001f469\u200d\U0001f467",
        "\U0001f469\u200d\U0001f52c at work",
        "signs with \u2764\ufe0f",
        "the \N{CAT FACE}\ufe0f is ill",
        "\N{THUMBS UP SIGN}\U0001f3fd given",
        "writes C++ at work",
        "they don't, they said",
    ]
    index = index_of(*OTHERS, *texts)
    found = results(query, index, embedder=embedder)
    assert index.contents[index.place(found[0].memory_id)] == best
    assert found[0].lexical > max(0, found[1].lexical)
    apart = index_of(*texts), index_of(*OTHERS, first=len(texts))
    assert apart[0].contents[int(ids(query, *apart)[0][1:])] == best


def test_joiners_and_marks_alone_are_not_words():
    index = index_of("\u2764\ufe0f", "\N{SUN BEHIND CLOUD}\ufe0f", "x\u200dy")
    found = {r.memory_id: r.lexical for r in results("\u2764\ufe0f", index)}
    assert found["m0"] > 0 >= max(found["m1"], found["m2"])


BUDGET = "The board agreed last night that the budget for the new office in Leeds will be"

CORRECTIONS = [
    ("User likes sushi", "User does not like sushi", "Does the user like sushi?"),
    ("Take the pill before breakfast", "Take the pill after breakfast", "When is the pill due?"),
    ("He writes C++ at work", "He writes C# at work", "What does he write at work?"),
    ("Discount applies if age > 65", "Discount applies if age < 65", "Who gets the discount?"),
    ("The rooms are booked", "The room is booked", "Are the rooms booked?"),
    ("It was 5 degrees at dawn", "It was -5 degrees at dawn", "How many degrees were it at dawn?"),
    ("Ann owes Ben money", "Ben owes Ann money", "Who owes money?"),
    (
        f"{BUDGET} 120000 euros",
        f"{BUDGET} 140000 euros",
        "What is the budget for the office?",
    ),
    ("\u732b\u304c\u597d\u304d", "\u732b\u304c\u5acc\u3044", "\u732b\u304c\u597d\u304d?"),
]


@pytest.mark.parametrize(("first", "second", "query"), CORRECTIONS)
def test_a_possible_correction_is_not_a_repetition(first, second, query):
    for pair in ((first, second), (second, first)):
        index = index_of(pair[0], "User cooks ramen", "User plays chess", *OTHERS[:12], pair[1])
        found = results(query, index)
        assert {r.memory_id for r in found[:2]} == {"m0", "m15"}
        assert all(r.diversity == 0 for r in found[:2])


@pytest.mark.parametrize(
    "again",
    ["THE ORDER ARRIVED DAMAGED", "The order, arrived: damaged!", "the  order\narrived damaged"],
)
def test_the_same_in_another_case_punctuation_or_spacing_gives_way(again):
    index = index_of("the order arrived damaged", again, "the order was late", *OTHERS)
    assert ids("order arrived", index, limit=2) == ["m0", "m2"]


def test_two_of_many_near_duplicates_come_before_others():
    late = "the customer says that order 4711 has come late once more and wants a refund for item"
    index = index_of(*(f"{late} {n}" for n in range(6)), "order 9 was late in spring", *OTHERS)
    found = results("did order 4711 come late?", index)
    assert [r.memory_id for r in found[:3]] == ["m0", "m1", "m6"]
    assert {r.memory_id for r in found[3:7]} == {f"m{n}" for n in range(2, 6)}
    assert [r.diversity < 0 for r in found[:7]] == [False] * 3 + [True] * 4


@given(st.data())
def test_repeated_relevant_memories_stay_before_irrelevant_ones(data):
    size = data.draw(st.integers(1, 8))
    several = {"min_size": size, "max_size": size}
    numbers = st.lists(st.floats(-5, 15), **several)
    scores = np.array(sorted(data.draw(numbers), reverse=True))
    relevance = np.array(data.draw(st.lists(st.floats(0, 15), **several)))
    near = np.array(data.draw(st.lists(st.lists(st.floats(0, 1), **several), **several)))
    near = np.maximum(near, near.T)
    np.fill_diagonal(near, 0.0)
    limit = data.draw(st.integers(1, size))
    answer = chosen(scores, relevance, Repetition(near == 1.0, near), limit)
    places = [place for place, _ in answer]
    assert len(places) == len({*places}) == limit
    left = [round(scores[place] + diversity, 9) for place, diversity in answer]
    assert left == sorted(left, reverse=True)
    assert all(-PENALTY <= round(diversity, 9) <= 0 for _, diversity in answer)
    rank_of = {place: rank for rank, place in enumerate(places)} | {
        place: size for place in range(size) if place not in places
    }
    for better in range(size):
        for worse in range(better + 1, size):
            if relevance[worse] < relevance[better] * RELEVANCE_KEPT:
                assert rank_of[better] <= rank_of[worse]


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


def test_only_allowed_memories_are_returned_with_unchanged_scores():
    index = index_of("black tea", "green tea", "coffee")
    everything = {r.memory_id: r.score for r in results("green tea", index, diverse=False)}
    found = results("green tea", index, allowed=[np.array([True, False, True])], diverse=False)
    assert [r.memory_id for r in found] == ["m0", "m2"]
    assert {r.memory_id: r.score for r in found} == {i: everything[i] for i in ("m0", "m2")}
    assert results("green tea", index, allowed=[np.zeros(3, np.bool_)]) == []


def test_several_sessions_are_ranked_as_one():
    contents = ["black tea", "green tea", "coffee", "a cup of tea", "water", "green door"]
    whole = index_of(*contents)
    parts = index_of(*contents[:2]), SessionIndex(), index_of(*contents[2:], first=2)
    together = results("green tea in a cup", whole)
    apart = results("green tea in a cup", *parts)
    assert [r.memory_id for r in apart] == [r.memory_id for r in together]
    assert {r.session for r in apart} == {0, 2}
    # Everything is the same except each session's statistics of terms.
    for one, other in zip(together, apart, strict=True):
        assert one.lexical == pytest.approx(other.lexical)


def test_questions_give_way_to_answers_in_a_conversation():
    index = index_of("Do you play the piano?", "I play the piano", *OTHERS, episode="a")
    assert ids("piano", index)[0] == "m1"
    form = {r.memory_id: r.form for r in results("piano", index_of("a piano?", "piano"))}
    assert set(form.values()) == {0.0}


def test_only_what_holds_something_of_the_query_matches():
    index = index_of("green tea", "a blue whale", "whales sing", *OTHERS)
    assert set(ids("the song of whales", index, matching=True)) == {"m1", "m2"}
    assert len(ids("the song of whales", index)) == 10
    allowed = [np.arange(len(index)) != 1]
    assert ids("whales", index, matching=True, allowed=allowed) == ["m2"]
    assert ids("nothing like it", index, matching=True) == []
    # It changes no score.
    everything = {one.memory_id: one.score for one in results("whales", index, diverse=False)}
    for found in results("whales", index, matching=True, diverse=False):
        assert found.score == everything[found.memory_id]
