"""Retrieval with a query: meaning, context, cues, several sessions, the parts of a score."""

from __future__ import annotations

import asyncio
import math
from typing import ClassVar

import numpy as np
import pytest

from memoryd.memories import cache
from memoryd.recall.embedders.embedder import QueryTokens
from memoryd.v1 import memory_pb2 as pb

PARTS = (
    "lexical",
    "importance",
    "semantic",
    "context",
    "speaker",
    "temporal",
    "form",
    "recency",
    "diversity",
)

TALK = [
    ("Ann", "2023-05-08T13:56:00Z", "1", "I went to a support group yesterday and it was powerful"),
    ("Ben", "2023-05-08T13:57:00Z", "1", "Tell me more, what did you hear there?"),
    ("Ann", "2023-05-08T13:58:00Z", "1", "The stories were inspiring, I felt thankful"),
    ("Ben", "2023-06-20T09:00:00Z", "2", "I signed up for a pottery class last week"),
    ("Ann", "2023-06-20T09:01:00Z", "2", "Nice! My kids love painting sunsets with me"),
    ("Ben", "2023-08-01T18:00:00Z", "3", "We hiked in the mountains and saw a waterfall"),
    ("Ann", "2023-08-01T18:01:00Z", "3", "My daughter adopted a puppy called Oscar"),
]


async def remember(memory, *contents: str, session_id: str = "user-123", **fields) -> None:
    for content in contents:
        await memory.StoreMemory(
            pb.StoreMemoryRequest(session_id=session_id, content=content, **fields)
        )


async def remember_talk(memory) -> None:
    for speaker, occurred_at, episode, content in TALK:
        metadata = {"speaker": speaker, "occurred_at": occurred_at, "episode": episode}
        await remember(memory, content, metadata=metadata)


async def ask(memory, query: str, session_id: str = "user-123", **fields):
    return await memory.RetrieveMemories(
        pb.RetrieveMemoriesRequest(session_id=session_id, query=query, peek=True, **fields)
    )


def contents(answer) -> list[str]:
    return [result.memory.content for result in answer.results]


async def has_vectors(tables, embedders: list[str]) -> None:
    """Wait until the database has vectors of exactly these embedders, one name per vector."""
    async with asyncio.timeout(30):
        while True:
            rows = await tables.rows("SELECT embedder FROM memory_vectors")
            if [row.embedder for row in rows] == embedders:
                return
            await asyncio.sleep(0.02)


async def test_the_shares_add_up_to_the_score_and_the_score_orders(memory):
    await remember_talk(memory)
    for query in ("When did Ben sign up for pottery?", "puppy", "what did Ann feel in May 2023"):
        answer = await ask(memory, query)
        assert len(answer.results) == len(TALK)
        for result in answer.results:
            shares = [getattr(result.breakdown, part) for part in PARTS]
            assert math.isclose(sum(shares), result.score, abs_tol=1e-9)
        scores = [result.score for result in answer.results]
        assert scores == sorted(scores, reverse=True)


async def test_words_are_found_in_other_forms(memory):
    await remember_talk(memory)
    assert "waterfall" in contents(await ask(memory, "hiking on a mountain"))[0]


@pytest.mark.parametrize("embedder", ["static", "minilm"])
async def test_a_meaning_is_found_without_a_common_word(serve, embedder):
    memory = (await serve(MEMORYD_EMBEDDER=embedder)).memory
    await remember(memory, "the dog has fleas", "pays by credit card", "speaks Portuguese")
    answer = await ask(memory, "which languages can the customer talk")
    assert contents(answer)[0] == "speaks Portuguese"
    assert answer.results[0].breakdown.semantic > 0
    assert answer.results[0].breakdown.lexical <= 0


async def test_the_service_works_without_an_embedder(serve):
    memory = (await serve(MEMORYD_EMBEDDER="none")).memory
    await remember_talk(memory)
    answer = await ask(memory, "pottery class")
    assert "pottery" in contents(answer)[0]
    assert all(result.breakdown.semantic == 0 for result in answer.results)


async def test_a_speaker_named_and_a_time_named_count(memory):
    await remember_talk(memory)
    answer = await ask(memory, "What did Ann say about her daughter?")
    best = answer.results[0]
    assert "Oscar" in best.memory.content
    assert best.breakdown.speaker > 0
    answer = await ask(memory, "what happened in August 2023?")
    assert {result.memory.metadata["episode"] for result in answer.results[:2]} == {"3"}
    assert answer.results[0].breakdown.temporal > 0


async def test_importance_counts_by_its_weight(memory):
    await remember(memory, "the invoice for the desk is open", importance=0.1)
    await remember(memory, "the invoice for the lamp is open", importance=1.0)
    for weight in (0.0, 0.5, 1.0):
        for result in (await ask(memory, "invoice", importance_weight=weight)).results:
            share = result.breakdown.importance
            assert share == pytest.approx(result.memory.effective_importance * 5 * weight)
    best = contents(await ask(memory, "invoice for the desk", importance_weight=0))[0]
    assert "desk" in best


async def test_a_correction_is_found_with_what_it_corrects(memory):
    await remember(memory, "User likes sushi", "User cooks ramen on Sundays", "User likes jazz")
    await remember(
        memory, "User has a cat called Miso", "User dislikes elevators", "Lunch is at noon"
    )
    await remember(
        memory, "Kim likes sashimi and tea", "User plays chess", "User moved to Leeds in May"
    )
    await remember(memory, "User orders soup when it rains", "User does not like sushi")
    answer = await ask(memory, "Does the user like sushi?")
    assert {*contents(answer)[:2]} == {"User likes sushi", "User does not like sushi"}
    assert not any(result.breakdown.diversity for result in answer.results[:2])


@pytest.mark.parametrize("embedder", ["none", "static"])
async def test_a_query_without_terms_finds_its_exact_text(serve, embedder):
    memory = (await serve(MEMORYD_EMBEDDER=embedder)).memory
    fox, tattoo = "she reacts with \N{FOX FACE} to good news", "To be or not to be is her tattoo"
    await remember(memory, "likes tea", "works in Porto", "is to be in Rome", importance=1.0)
    await remember(memory, fox, tattoo, "has two cats", importance=0.1)
    assert contents(await ask(memory, "\N{FOX FACE}"))[0] == fox
    assert contents(await ask(memory, "To be or not to be"))[0] == tattoo


@pytest.mark.parametrize(
    "moment",
    ["2024-03-05t10:00:00z", "2024-03-05T10:00:60Z", "2024-03-05 10:00:00.5+01:00", "2024-03-05"],
)
async def test_a_time_is_understood_however_it_is_written(memory, moment):
    days = ["2024-01-11T09:00:00Z", "2024-02-14T09:00:00Z", moment, "2024-04-20T09:00:00Z"]
    for number, day in zip(("seven", "eight", "nine", "ten"), days, strict=True):
        await remember(memory, f"went hiking, trip number {number}", metadata={"occurred_at": day})
    answer = await ask(memory, "When did they go hiking on 5 March 2024?")
    assert contents(answer)[0] == "went hiking, trip number nine"
    assert answer.results[0].breakdown.temporal > answer.results[1].breakdown.temporal


@pytest.mark.parametrize(
    "moment",
    ["9999-12-31T23:59:60Z", "2024-03-05T10:00:61Z", "5 March", "t", "0" * 7_000, "\u0660"],
)
async def test_an_invalid_time_is_stored_and_not_used_for_ranking(memory, moment):
    await remember(memory, "went hiking", metadata={"occurred_at": moment, "speaker": "x" * 7_000})
    answer = await ask(memory, "hiking on 5 March 2024?")
    assert contents(answer) == ["went hiking"]
    assert answer.results[0].breakdown.temporal == 0


async def test_near_duplicates_give_way_by_default(memory):
    late = "the customer says that order 4711 has come late once more and wants a refund for"
    await remember(memory, *(f"{late} item {n}" for n in range(6)))
    await remember(memory, "order 9 was late in spring")
    await remember(memory, "likes tea", "works in Porto", "has two cats")
    assert "order 9 was late in spring" not in contents(
        await ask(memory, "did order 4711 come late", limit=5, diversify=False)
    )
    answer = await ask(memory, "did order 4711 come late", limit=5)
    assert "order 9 was late in spring" in contents(answer)
    assert any(result.breakdown.diversity < 0 for result in answer.results)


async def test_several_sessions_are_ranked_together(memory, refused):
    await remember(memory, "prefers e-mail", "likes tea", session_id="a")
    await remember(memory, "the e-mail address is new", session_id="b")
    await remember(memory, "e-mail bounced twice", session_id="c")
    answer = await ask(memory, "e-mail", "a", session_ids=["b", "missing", "a"])
    assert set(contents(answer)[:2]) == {"prefers e-mail", "the e-mail address is new"}
    assert len(answer.results) == 3
    assert dict(answer.revisions) == {"a": 2, "b": 1, "missing": 0}
    assert answer.revision == 2
    important = await ask(memory, "", "a", session_ids=["b", "c"])
    assert len(important.results) == 4
    refusal = await refused(ask(memory, "x", "a", session_ids=["b"] * 17))
    assert list(refusal.violations) == ["session_ids"]
    refusal = await refused(ask(memory, "x", "a", session_ids=["b", "../c"]))
    assert list(refusal.violations) == ["session_ids[1]"]


async def test_a_weight_out_of_bounds_is_refused(memory, refused):
    for weight in (-0.1, 1.1, math.nan, math.inf):
        refusal = await refused(ask(memory, "x", importance_weight=weight))
        assert list(refusal.violations) == ["importance_weight"]


async def test_recent_changes_are_ranked(memory):
    await remember_talk(memory)
    await ask(memory, "puppy")
    await remember(memory, "the puppy needs a vet")
    found = await ask(memory, "vet for the puppy")
    assert contents(found)[0] == "the puppy needs a vet"
    vet = found.results[0].memory
    vet.content = "the parrot needs a cage"
    await memory.UpdateMemory(
        pb.UpdateMemoryRequest(
            memory=pb.Memory(
                session_id=vet.session_id, memory_id=vet.memory_id, content=vet.content
            )
        )
    )
    assert contents(await ask(memory, "parrot cage"))[0] == "the parrot needs a cage"
    await memory.DeleteMemory(
        pb.DeleteMemoryRequest(session_id=vet.session_id, memory_id=vet.memory_id)
    )
    assert "the parrot needs a cage" not in contents(await ask(memory, "parrot cage"))
    await memory.UndeleteMemory(
        pb.UndeleteMemoryRequest(session_id=vet.session_id, memory_id=vet.memory_id)
    )
    assert contents(await ask(memory, "parrot cage"))[0] == "the parrot needs a cage"


@pytest.mark.parametrize(
    "query",
    [
        "the of and to it",
        "?!… —",
        "word " * 3_276 + "word",
        "x" * 16_384,
        "ένα σκυλί",
        "猫が好きです",
        "\u200b",
        "in the year 99999999999",
        "last week " * 1000,
    ],
    ids=[
        "stop words",
        "signs",
        "long",
        "one word",
        "Greek",
        "Japanese",
        "nothing",
        "year",
        "dates",
    ],
)
async def test_odd_queries_are_answered(memory, query):
    await remember_talk(memory)
    assert len((await ask(memory, query)).results) == len(TALK)


async def test_odd_metadata_is_stored_and_not_used_for_ranking(memory):
    for n, odd in enumerate(({}, [], 7, None, True, "", "never", "x" * 500)):
        await remember(
            memory,
            f"the kettle is broken {n}",
            metadata={"speaker": odd, "occurred_at": odd, "episode": odd},
        )
    assert len((await ask(memory, "broken kettle yesterday")).results) == 8


async def test_chinese_is_found_by_its_characters(memory):
    await remember(memory, "他喜欢喝绿茶", "订单四七一一延迟了", "他住在北京")
    assert contents(await ask(memory, "绿茶"))[0] == "他喜欢喝绿茶"


@pytest.mark.parametrize(
    ("query", "best"),
    [
        ("Wie heißt die Katze, die sie hat?", "Sie hat zwei Katzen, die im Garten schlafen"),
        ("A-t-il payé la facture ?", "Il paie toujours ses factures après le deuxième rappel"),
        ("Gdzie on mieszkał?", "On teraz pracuje w mieście, ale mieszka na wsi"),
        ("倉庫はどこにありますか", "お客様は駅の隣の倉庫で働いている"),
        ("Does he run a bakery?", "The customer runs two bakeries"),
    ],
)
async def test_each_language_is_found_without_being_set(serve, query, best):
    memory = (await serve(MEMORYD_EMBEDDER="none")).memory
    await remember(
        memory,
        "Sie hat zwei Katzen, die im Garten schlafen",
        "Wie sie sagt, ist sie die Chefin",
        "Il paie toujours ses factures après le deuxième rappel",
        "Il a la clé, et il est là",
        "On teraz pracuje w mieście, ale mieszka na wsi",
        "お客様は駅の隣の倉庫で働いている",
        "The customer runs two bakeries",
        "He does as he does",
    )
    assert contents(await ask(memory, query))[0] == best


async def test_a_misspelled_word_is_found_for_less(serve):
    memory = (await serve(MEMORYD_EMBEDDER="none")).memory
    await remember(memory, "prefers vegetarian food", "order 4711 is late", "lives in Porto")
    right, wrong = [await ask(memory, query) for query in ("vegetarian", "vegitarian")]
    assert contents(wrong)[0] == contents(right)[0] == "prefers vegetarian food"
    assert wrong.results[0].breakdown.lexical > 0
    assert 0 < wrong.results[0].relevance < right.results[0].relevance
    assert not any(r.breakdown.lexical for r in (await ask(memory, "4712")).results)


async def test_pictures_count_beside_words(memory):
    await remember(memory, "news of the day", "good news \N{FOX FACE}", "the \N{FOX FACE} is red")
    assert contents(await ask(memory, "\N{FOX FACE} news"))[0] == "good news \N{FOX FACE}"


async def test_another_language_is_stemmed_by_its_own_rules(serve):
    memory = (await serve(MEMORYD_RECALL_LANGUAGE="de", MEMORYD_EMBEDDER="none")).memory
    await remember(memory, "hat zwei Häuser am See", "mag Tee", "wohnt in Porto")
    answer = await ask(memory, "Haus")
    assert contents(answer)[0] == "hat zwei Häuser am See"
    assert answer.results[0].breakdown.lexical > 0


async def test_vectors_outlive_a_restart_and_go_with_their_memories(serve, tables):
    memory = (await serve(MEMORYD_EMBEDDER="static")).memory
    await remember_talk(memory)
    before = await ask(memory, "pets")
    await has_vectors(tables, ["wordllama-l2-supercat-256"] * len(TALK))
    other = (await serve(MEMORYD_EMBEDDER="static")).memory
    assert (await ask(other, "pets")).results == before.results
    await memory.EraseSession(pb.EraseSessionRequest(session_id="user-123"))
    assert not any((await tables.naming("user-123")).values())
    assert not (await ask(other, "pets")).results


async def test_similarity_finds_a_paraphrase_that_no_distance_finds(serve):
    memory = (await serve(MEMORYD_EMBEDDER="static")).memory
    await remember(memory, "he adores hot tea at breakfast", "the order is late", "works in Porto")
    paraphrase = "he loves a warm tea in the morning"
    request = pb.FindSimilarMemoriesRequest(session_id="user-123", content=paraphrase)
    assert not (await memory.FindSimilarMemories(request)).results
    request.min_similarity = 0.3
    (result,) = (await memory.FindSimilarMemories(request)).results
    assert result.memory.content == "he adores hot tea at breakfast"
    assert 0.3 <= result.similarity < 1
    assert result.distance > 10
    request.max_distance = 5
    assert not (await memory.FindSimilarMemories(request)).results


class Letters:
    """A custom embedder: a text's vector counts its letters."""

    name = "letters"
    dimensions = 26
    broken = False
    asked: ClassVar[list[str]] = []

    def embed(self, texts):
        if self.broken:
            raise RuntimeError("no letters today")
        self.asked.extend(texts)
        counts = np.array([[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts])
        lengths = np.linalg.norm(counts, axis=1, keepdims=True)
        return (counts / np.where(lengths, lengths, 1)).astype(np.float32)


class Words:
    """Texts mean much the same, as a whole; their tokens are the words, by their first letter."""

    name = "words"
    dimensions = 2
    token_dimensions = 26
    made: ClassVar[list[str]] = []

    def embed(self, texts):
        return np.tile(np.array([0.6, 0.8], np.float32), (len(texts), 1))

    def embed_with_tokens(self, texts):
        self.made.extend(texts)
        tokens = [127 * self.of_words(text.split()).astype(np.int8) for text in texts]
        return self.embed(texts), tokens

    def embed_query(self, text):
        words = text.lower().split()
        return self.embed([text])[0], QueryTokens(self.of_words(words), tuple(words))

    def of_words(self, words):
        letters = [ord(word[0].lower()) - ord("a") for word in words]
        return np.eye(26, dtype=np.float32)[letters]


async def test_tokens_tell_apart_what_means_the_same_as_a_whole(serve, tables, monkeypatch):
    monkeypatch.setattr(Words, "made", [])
    said = ["mild rain", "quiet zebras", "old doors"]
    memory = (await serve(MEMORYD_EMBEDDER=f"{__name__}:Words")).memory
    await remember(memory, *said)
    # No memory has the word, and one has a token like its own.
    first = await ask(memory, "Zoo")
    semantic = {r.memory.content: r.breakdown.semantic for r in first.results}
    assert contents(first)[0] == "quiet zebras"
    assert semantic["quiet zebras"] > 0 > semantic["old doors"] == semantic["mild rain"]
    # A filter changes no score.
    await has_vectors(tables, ["words"] * 3)
    best = first.results[0]
    few = await ask(memory, "Zoo", exclude_memory_ids=[best.memory.memory_id])
    assert {r.memory.content: r.breakdown.semantic for r in few.results} == {
        text: value for text, value in semantic.items() if text != "quiet zebras"
    }
    # Another server has them from the database, and makes those of what comes.
    memory = (await serve(MEMORYD_EMBEDDER=f"{__name__}:Words")).memory
    assert (await ask(memory, "Zoo")).results == first.results
    assert sorted(Words.made) == sorted(said)
    await remember(memory, "two zoos")
    await has_vectors(tables, ["words"] * 3)
    assert contents(await ask(memory, "Zoo"))[0] == "two zoos"
    assert Words.made[-1] == "two zoos"


async def test_an_embedder_may_be_any_class(serve, tables):
    first = (await serve(MEMORYD_EMBEDDER="static")).memory
    await remember(first, "abba", "zzz", "mmm")
    await ask(first, "x")
    memory = (await serve(MEMORYD_EMBEDDER=f"{__name__}:Letters")).memory
    answer = await ask(memory, "baab!")
    assert contents(answer)[0] == "abba"
    assert answer.results[0].breakdown.semantic > 0
    await has_vectors(tables, ["letters"] * 3)


async def test_a_query_is_embedded_once(serve, monkeypatch):
    monkeypatch.setattr(Letters, "asked", [])
    memory = (await serve(MEMORYD_EMBEDDER=f"{__name__}:Letters")).memory
    await remember(memory, "abba", "zzz", "mmm")
    first = await ask(memory, "baab!")
    assert (await ask(memory, "baab!")).results == first.results
    assert Letters.asked.count("baab!") == 1


async def test_words_decide_until_another_embedder_has_made_its_vectors(serve, tables, monkeypatch):
    memory = (await serve(MEMORYD_EMBEDDER="static")).memory
    await remember_talk(memory)
    await ask(memory, "pottery class")
    await has_vectors(tables, ["wordllama-l2-supercat-256"] * len(TALK))
    monkeypatch.setattr(Letters, "broken", True)
    memory = (await serve(MEMORYD_EMBEDDER=f"{__name__}:Letters")).memory
    answer = await ask(memory, "pottery class")
    assert "pottery" in contents(answer)[0]
    assert not any(result.breakdown.semantic for result in answer.results)
    memory = (await serve()).memory
    answer = await ask(memory, "pottery class")
    assert any(result.breakdown.semantic for result in answer.results)
    await has_vectors(tables, ["use-multilingual-3-128"] * len(TALK))


@pytest.mark.parametrize(
    ("query", "best"),
    [
        ("Wann hat der Kunde seinen Arzttermin?", 0),
        ("¿Qué mascota tiene el cliente?", 1),
        ("顧客の好きな飲み物は何ですか", 2),
    ],
)
async def test_a_query_finds_a_memory_in_another_language(serve, query, best):
    memory = (await serve()).memory
    facts = ("The doctor's appointment is on Thursday", "Has two small cats", "Loves green tea")
    await remember(memory, *facts)
    assert contents(await ask(memory, query))[0] == facts[best]


async def test_a_broken_embedder_leaves_the_words(serve, monkeypatch, caplog):
    monkeypatch.setattr(Letters, "broken", True)
    memory = (await serve(MEMORYD_EMBEDDER=f"{__name__}:Letters")).memory
    await remember_talk(memory)
    answer = await ask(memory, "pottery class")
    assert "pottery" in contents(answer)[0]
    assert any("the embedder failed" in record.message for record in caplog.records)


async def test_a_missing_embedder_stops_the_start(serve):
    for choice in ("nowhere:Class", f"{__name__}:Nothing"):
        with pytest.raises(ValueError, match="MEMORYD_EMBEDDER"):
            await serve(MEMORYD_EMBEDDER=choice)


@pytest.mark.parametrize("kept", ["0", "4000"])
async def test_sessions_without_room_in_memory_are_read_again(serve, kept):
    memory = (await serve(MEMORYD_SESSION_CACHE_BYTES=kept)).memory
    for n in range(5):
        await remember(memory, f"order {n} is late", "likes tea", session_id=f"s{n}")
    for _ in range(2):
        for n in range(5):
            assert contents(await ask(memory, "late order", f"s{n}"))[0] == f"order {n} is late"


async def test_two_servers_rank_alike_while_both_change_a_session(serve):
    one, other = (await serve()).memory, (await serve()).memory
    for n, (memory, _) in enumerate([(one, 0), (other, 0)] * 6):
        await remember(memory, f"note {n}: the parcel of customer {n % 3} was returned")
        here, there = await ask(one, "returned parcel"), await ask(other, "returned parcel")
        assert len(here.results) == min(n + 1, 10)
        assert here.results == there.results


async def test_reindexing_makes_missing_vectors(serve, tables, command_line, database_url):
    memory = (await serve(MEMORYD_EMBEDDER="none")).memory
    await remember_talk(memory)
    variables = {"MEMORYD_DATABASE_URL": database_url, "MEMORYD_EMBEDDER": "static"}
    done = await asyncio.to_thread(command_line.run, "reindex", **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"made {len(TALK)} vectors with wordllama-l2-supercat-256\n"
    assert f"embedding: {len(TALK)} of {len(TALK)}" in done.stderr
    again = await asyncio.to_thread(command_line.run, "reindex", **variables)
    assert again.stdout.startswith("made 0 vectors")
    none = await asyncio.to_thread(
        command_line.run, "reindex", **{**variables, "MEMORYD_EMBEDDER": "none"}
    )
    assert none.returncode == 1
    assert "MEMORYD_EMBEDDER" in none.stderr
    await has_vectors(tables, ["wordllama-l2-supercat-256"] * len(TALK))


async def test_a_session_erased_elsewhere_is_dropped_from_memory(serve, monkeypatch):
    monkeypatch.setattr(cache, "ERASED_SECONDS", 0.05)
    here, there = await serve(), await serve()
    await remember_talk(here.memory)
    assert (await ask(there.memory, "pottery")).results
    kept = there.server.kept_bytes
    assert kept > 0
    await here.memory.EraseSession(pb.EraseSessionRequest(session_id="user-123"))
    async with asyncio.timeout(30):
        while there.server.kept_bytes:  # noqa: ASYNC110  no event to await
            await asyncio.sleep(0.02)
