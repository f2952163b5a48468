"""The ranking of `docs/recall.md`, memory by memory: slow, and plain to be read beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from memoryd.recall.arrays import ASSISTANTS
from memoryd.recall.cues import month_name, query_form, text_form
from memoryd.recall.dates import phrases, spans
from memoryd.recall.diversity import MARGIN, NEAR_DUPLICATE, PENALTY, RELEVANCE_KEPT
from memoryd.recall.fusion import SPARE_CANDIDATES
from memoryd.recall.ranked import Ranked
from memoryd.recall.recency import GREATEST_GAP, MORE_IMPORTANT
from memoryd.recall.text import analyser, words_of
from memoryd.recall.weights import (
    BM25_B,
    BM25_K1,
    CERTAINTY_OF_SENTENCES,
    CERTAINTY_OF_TERMS,
    CERTAINTY_OF_WORDS,
    COMPARED_BY_TOKENS,
    CONTRADICTING,
    ENOUGH_MEMORIES,
    IMPORTANCE_SCALE,
    SHORT_TERMS,
    USUAL_SPREAD,
    WITH_SENTENCES,
    WITH_TOKENS,
    WITH_WORDS,
    WITHOUT_EMBEDDER,
)
from memoryd.recall.wording import plain, statement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from memoryd.recall.embedders.embedder import QueryTokens
    from memoryd.recall.index import Document
    from memoryd.recall.signals import Meaning

LANGUAGE = "en"
WEEK_SECONDS = 7 * 86_400


@dataclass
class Memory:
    """A memory, and what the query is found to have to do with it."""

    document: Document
    session: int
    importance: float
    allowed: bool
    own: list[str] = field(default_factory=list)
    heading: list[str] = field(default_factory=list)
    raw: dict[str, float] = field(default_factory=dict)
    z: dict[str, float] = field(default_factory=dict)
    cues: dict[str, float] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)
    relevance: float = 0.0
    held: float = 0.0
    covered: float = 0.0
    certainty: float = 0.0
    like: float | None = None
    two_before: Memory | None = None
    before: Memory | None = None
    after: Memory | None = None
    two_after: Memory | None = None
    episode: list[Memory] = field(default_factory=list)

    def __post_init__(self) -> None:
        document, english = self.document, analyser(LANGUAGE)
        words = words_of(document.content)
        self.form = text_form(document.content, words, LANGUAGE)
        self.own = english.terms(words)
        day = document.occurred_at
        date = f"{day.day} {month_name(day.month, LANGUAGE)} {day.year}" if day else ""
        for label in (document.speaker, date):
            self.heading += english.terms(words_of(label))
        self.moment = (document.occurred_at or document.created_at).timestamp()
        self.says = statement(plain(document.content))

    @property
    def terms(self) -> list[str]:
        return self.heading + self.own

    @property
    def neighbours(self) -> list[Memory]:
        near = (self.two_before, self.before, self.after)
        return [memory for memory in near if memory is not None]


def plain_rank(
    text: str,
    sessions: Sequence[Sequence[Document]],
    *,
    importances: Sequence[Sequence[float]],
    now: datetime,
    limit: int,
    allowed: Sequence[Sequence[bool]],
    meaning: Meaning | None,
    min_relevance: float | None,
    importance_weight: float,
    diverse: bool,
    matching: bool,
) -> list[Ranked]:
    """As `rank`, for sessions whose documents are in creation order."""
    memories = [
        Memory(document, number, importances[number][place], allowed[number][place])
        for number, documents in enumerate(sessions)
        for place, document in enumerate(documents)
    ]
    if not memories or limit < 1:
        return []
    connect(memories)
    query = Query(text, memories)
    lexical(query, memories)
    compared = semantic(memories, meaning)
    covers = share_covered(query, memories, now)
    weights = WITHOUT_EMBEDDER
    if compared and meaning is not None:
        weights = WITH_WORDS if meaning.adds_up_words else WITH_SENTENCES
        weights = WITH_TOKENS if meaning.tokens is not None else weights
    matched = compared or any(m.raw["bm25"] > 0 for m in memories)
    cues(query, memories)
    for memory in memories:
        if compared and meaning is not None and meaning.tokens is not None:
            memory.like = likeness(query, memory, meaning.tokens)
        z = memory.z
        lexical_z = weights.bm25 * z["bm25"] + weights.bigrams * z["bigrams"]
        memory.relevance = lexical_z + weights.semantic * z["semantic"]
        memory.parts["lexical"] = lexical_z + (weights.held + weights.window) * memory.held
        alone = 0.0 if memory.document.episode else weights.alone
        memory.parts["semantic"] = (weights.semantic + alone) * z["semantic"]
    for memory in memories:
        parts = memory.parts
        parts["context"] = context(memory, weights)
        parts["context"] += weights.window * (share_near(query, memory) - memory.held)
        for part, names in (
            ("speaker", ("speaker", "of_self")),
            ("temporal", ("span", "when")),
            (
                "form",
                ("amount", "name", "question", "long", "opening", "assistant", "information"),
            ),
        ):
            parts[part] = sum(getattr(weights, n) * memory.cues.get(n, 0.0) for n in names)
        if not matched:
            parts.update(dict.fromkeys(parts, 0.0))
        near = share_near(query, memory)
        memory.certainty = certainty(
            memory, near, covers, len(memories), meaning, compared=compared
        )
        parts["importance"] = importance_weight * IMPORTANCE_SCALE * memory.importance
    candidates = [
        memory
        for memory in memories
        if memory.allowed
        and (min_relevance is None or memory.certainty >= min_relevance)
        and (not matching or memory.covered > 0)
    ]
    # Python sorts stably: the earlier session and the older memory first among equals.
    place_of = {id(memory): place for place, memory in enumerate(memories)}
    best = sorted(memories, key=by_score)[:COMPARED_BY_TOKENS]
    wanted = limit + SPARE_CANDIDATES
    candidates = sorted(candidates, key=by_score)[: max(wanted, COMPARED_BY_TOKENS)]
    by_tokens(candidates, best, weights.tokens)
    candidates.sort(key=lambda memory: (by_score(memory), place_of[id(memory)]))
    candidates = newer_first(candidates[:wanted])
    if diverse:
        return diversified(candidates, bearing(memories), limit)
    return [ranked(memory, 0.0) for memory in candidates[:limit]]


def ranked(memory: Memory, diversity: float) -> Ranked:
    parts = memory.parts
    return Ranked(
        memory.session, memory.document.memory_id, memory.certainty,
        parts["lexical"], parts["semantic"] + parts.get("tokens", 0.0),
        parts["context"], parts["speaker"],
        parts["temporal"], parts["form"], parts["importance"],
        parts.get("recency", 0.0), diversity,
    )  # fmt: skip


def connect(memories: list[Memory]) -> None:
    """Tell each memory of an episode who its neighbours are."""
    episodes: dict[tuple[int, str], list[Memory]] = {}
    for memory in memories:
        if memory.document.episode:
            episodes.setdefault((memory.session, memory.document.episode), []).append(memory)
    for episode in episodes.values():
        for place, memory in enumerate(episode):
            memory.episode = episode
            memory.two_before = episode[place - 2] if place >= 2 else None
            memory.before = episode[place - 1] if place >= 1 else None
            memory.after = episode[place + 1] if place + 1 < len(episode) else None
            memory.two_after = episode[place + 2] if place + 2 < len(episode) else None


class Query:
    """The terms of a query, with what they weigh in these memories."""

    def __init__(self, text: str, memories: list[Memory]) -> None:
        english = analyser(LANGUAGE)
        self.text = text
        words = words_of(text)
        named: dict[str, set[str]] = {}
        for speaker in {memory.document.speaker.lower() for memory in memories}:
            forms = {form for part in speaker.split() for form in (part, part + "'s")}
            if parts := {w for w in words if w in forms and english.term(w)}:
                named[speaker] = parts
        names = set().union(*named.values())
        self.speaker = next(iter(named)) if len(named) == 1 else ""
        self.terms = english.terms(word for word in words if word not in names)
        self.name_terms = english.terms(word for word in words if word in names)
        self.held = {
            term: sum(term in memory.terms for memory in memories)
            for term in (*self.terms, *self.name_terms)
        }
        self.idf = {term: idf(held, len(memories)) for term, held in self.held.items()}
        # A session of few memories counts as one of enough of them.
        total = max(len(memories), ENOUGH_MEMORIES)
        shares = {term: idf(held, total) for term, held in self.held.items()}
        self.shares = {term: share / sum(shares.values()) for term, share in shares.items()}


def idf(held: int, memories: int) -> float:
    return math.log(1 + (memories - held + 0.5) / (held + 0.5))


def lexical(query: Query, memories: list[Memory]) -> None:
    mean_length = sum(len(memory.terms) for memory in memories) / len(memories) or 1.0
    adjacent = {*pairwise(query.terms)}
    for memory in memories:
        score = 0.0
        for term, weight in query.idf.items():
            count = memory.terms.count(term)
            saturation = BM25_K1 * (1 - BM25_B + BM25_B * len(memory.terms) / mean_length)
            score += weight * count * (BM25_K1 + 1) / (count + saturation)
        memory.raw["bm25"] = score
        memory.raw["bigrams"] = sum(pair in adjacent for pair in pairwise(memory.own))
    usual = {
        "bm25": USUAL_SPREAD["bm25"] * sum(query.idf.values()),
        "bigrams": USUAL_SPREAD["bigrams"],
    }
    for name, spread in usual.items():
        standardise(memories, name, spread)


def standardise(memories: list[Memory], name: str, usual: float) -> None:
    """Z-scores; where memories are few, the missing ones spread as usual about the same mean."""
    values = [memory.raw[name] for memory in memories]
    for memory, z in zip(memories, z_scores(values, usual), strict=True):
        memory.z[name] = z


def z_scores(values: list[float], usual: float) -> list[float]:
    mean = math.fsum(values) / len(values)
    count = max(len(values), ENOUGH_MEMORIES)
    squares = math.fsum((value - mean) ** 2 for value in values)
    spread = math.sqrt((squares + (count - len(values)) * usual**2) / count)
    if spread < 1e-9 or all(value == values[0] for value in values):
        return [0.0] * len(values)
    return [(value - mean) / spread for value in values]


def semantic(memories: list[Memory], meaning: Meaning | None) -> bool:
    """Whether there was anything to compare."""
    for memory in memories:
        memory.raw["cosine"] = memory.z["semantic"] = 0.0
    known = [memory for memory in memories if memory.document.vector is not None]
    if meaning is None or not known or not meaning.vector.any():
        return False
    for memory in known:
        product = np.dot(np.array(memory.document.vector, np.float64), meaning.vector)
        memory.raw["cosine"] = round(float(product), 5)
    cosines = [memory.raw["cosine"] for memory in known]
    for memory, z in zip(known, z_scores(cosines, USUAL_SPREAD["semantic"]), strict=True):
        memory.z["semantic"] = z
    return True


def likeness(query: Query, memory: Memory, tokens: QueryTokens) -> float | None:
    """How near each token of the query finds its like, by what its word weighs."""
    english = analyser(LANGUAGE)
    asked = words_of(query.text)
    weights = [
        query.idf.get(english.term(word), 0.0) if word in asked else 0.0 for word in tokens.words
    ]
    held = memory.document.token_vectors
    if held is None or not len(held) or not sum(weights):
        return None
    total = 0.0
    for weight, token in zip(weights, tokens.vectors, strict=True):
        nearest = max(float(np.dot(token, other)) / float(np.linalg.norm(other)) for other in held)
        total += weight * round(nearest, 5)
    return total / sum(weights)


def by_tokens(candidates: list[Memory], best: list[Memory], weight: float) -> None:
    """What likeness gives the candidates that have tokens: a z-score over the best of all."""
    values = [memory.like for memory in best if memory.like is not None]
    for memory in candidates:
        if memory.like is None or not values:
            continue
        mean = math.fsum(values) / len(values)
        squares = math.fsum((value - mean) ** 2 for value in values)
        missing = COMPARED_BY_TOKENS - len(values)
        spread = math.sqrt((squares + missing * USUAL_SPREAD["tokens"] ** 2) / COMPARED_BY_TOKENS)
        memory.parts["tokens"] = weight * (memory.like - mean) / spread if spread > 1e-9 else 0.0


def by_score(memory: Memory) -> float:
    """The best first."""
    return -round(sum(memory.parts.values()), 9)


def share_covered(query: Query, memories: list[Memory], now: datetime) -> float:
    """The share of the query that each memory covers; answers what all of them do together."""
    for memory in memories:
        memory.covered = memory.held = share_held(query, memory.terms)
        memory.cues["span"] = in_span(query, memory, now)
    covers = sum(share for term, share in query.shares.items() if query.held[term])
    if spans(query.text, now, LANGUAGE):
        english = analyser(LANGUAGE)
        dates = english.terms(words_of(" ".join(phrases(query.text, LANGUAGE))))
        dated = sum(query.shares.get(term, 0.0) for term in {*dates})
        for memory in memories:
            memory.covered = min(1.0, memory.covered + dated * memory.cues["span"])
        covers = min(1.0, covers + dated * max(memory.cues["span"] for memory in memories))
    return covers


def share_held(query: Query, terms: list[str]) -> float:
    return sum(query.shares[term] for term in query.shares if term in terms)


def share_near(query: Query, memory: Memory) -> float:
    """What share of the query a memory holds together with the two before and behind it."""
    near = (*memory.neighbours, memory.two_after)
    return share_held(query, [*memory.terms, *(t for other in near if other for t in other.terms)])


def in_span(query: Query, memory: Memory, now: datetime) -> float:
    """1 within a span that the query names, falling to 0 in the week after."""
    nearness = [0.0]
    for span in spans(query.text, now, LANGUAGE):
        if memory.moment >= span.start:
            fading = 1 - (memory.moment - span.end) / WEEK_SECONDS
            nearness.append(min(1.0, max(0.0, fading)))
    return max(nearness)


def cues(query: Query, memories: list[Memory]) -> None:
    asked = query_form(query.text, LANGUAGE)
    for memory, information in zip(memories, informations(memories), strict=True):
        found = memory.cues
        if query.speaker:
            found["speaker"] = float(memory.document.speaker.lower() == query.speaker)
            found["of_self"] = found["speaker"] * memory.form.of_self
        concerned = float(is_concerned(memory) or any(map(is_concerned, memory.neighbours)))
        found["when"] = concerned * memory.form.times * asked.when
        found["amount"] = concerned * memory.form.numbers * asked.amount
        found["name"] = concerned * memory.form.names * asked.name
        if memory.episode:
            found["question"] = memory.form.question
            found["long"] = max(0.0, math.log((1 + len(memory.own)) / (1 + SHORT_TERMS)))
            found["assistant"] = float(memory.document.speaker.lower() in ASSISTANTS)
            found["information"] = information
            found["opening"] = float(memory in memory.episode[:2])


def is_concerned(memory: Memory) -> bool:
    return any(z > 1e-9 for z in memory.z.values())


def informations(memories: list[Memory]) -> list[float]:
    """Z-scores of how rare the words of memories are, IDF being each session's."""
    logarithms = []
    for memory in memories:
        session = [other for other in memories if other.session == memory.session]
        rarities = [
            idf(sum(term in other.terms for other in session), len(session))
            for term in memory.terms
        ]
        logarithms.append(math.log1p(sum(rarities)))
    return z_scores(logarithms, USUAL_SPREAD["information"])


def context(memory: Memory, weights: object) -> float:
    def of(name: str, neighbour: Memory | None) -> float:
        return 0.0 if neighbour is None else float(getattr(weights, name)) * neighbour.relevance

    total = of("two_before", memory.two_before) + of("before", memory.before)
    total += of("after", memory.after)
    if memory.before is not None and memory.before.form.question:
        total += of("asked", memory.before)
    if memory.episode:
        best = sorted((m.relevance for m in memory.episode), reverse=True)[:3]
        total += float(getattr(weights, "episode")) * sum(best) / len(best)  # noqa: B009
    return total


def certainty(
    memory: Memory,
    near: float,
    covers: float,
    memories: int,
    meaning: Meaning | None,
    *,
    compared: bool,
) -> float:
    weights = CERTAINTY_OF_TERMS
    if compared and meaning is not None and memory.document.vector is not None:
        weights = CERTAINTY_OF_WORDS if meaning.adds_up_words else CERTAINTY_OF_SENTENCES
    odds = (
        weights.bias
        + weights.window * max(near, memory.covered)
        + weights.unknown * (1 - covers) * math.log1p(memories)
        + weights.score * math.log1p(max(0.0, sum(memory.parts.values())))
        + weights.cosine * max(0.0, memory.raw["cosine"]) ** 2
    )
    return round(1 / (1 + math.exp(-odds)), 6)


def bearing(memories: list[Memory]) -> Callable[[Memory], float]:
    """What a memory has to do with the query, 0 or above: all but importance."""
    least = {
        part: min(memory.parts[part] for memory in memories) for part in ("lexical", "semantic")
    }

    def of(memory: Memory) -> float:
        parts = memory.parts.items()
        left_out = ("importance", "recency", "tokens")
        return max(0.0, sum(v - least.get(part, 0.0) for part, v in parts if part not in left_out))

    return of


def newer_first(candidates: list[Memory]) -> list[Memory]:
    """Each passes the older ones that it may correct, up to three places above it."""
    order: list[Memory] = []
    own = {id(memory): round(sum(memory.parts.values()), 9) for memory in candidates}
    reached = dict(own)
    for memory in candidates:
        rise = 0
        for above in range(1, min(3, len(order)) + 1):
            older = order[-above]
            if may_correct(memory, older) and reached[id(older)] - own[id(memory)] <= GREATEST_GAP:
                rise = above
        if rise:
            reached[id(memory)] = reached[id(order[-rise])]
        order.insert(len(order) - rise, memory)
    for memory, after in [*pairwise(order)][::-1]:
        if own[id(memory)] < own[id(after)]:
            memory.parts["recency"] = own[id(after)] + MARGIN - own[id(memory)]
            own[id(memory)] = own[id(after)] + MARGIN
    return order


def may_correct(memory: Memory, older: Memory) -> bool:
    one, other = memory.document, older.document
    if one.vector is None or other.vector is None or one.episode or other.episode:
        return False
    alike = float(np.dot(np.array(one.vector, np.float32), np.array(other.vector, np.float32)))
    return (
        memory.session == older.session
        and older.importance - memory.importance < MORE_IMPORTANT
        and one.speaker.lower() == other.speaker.lower()
        and (older.moment, other.created) < (memory.moment, one.created)
        and alike >= CONTRADICTING
    )


def diversified(
    candidates: list[Memory], bears: Callable[[Memory], float], limit: int
) -> list[Ranked]:
    """Choose one by one, each by its score less what it loses for repeating those before it."""
    scores = [round(sum(memory.parts.values()), 9) for memory in candidates]
    chosen: list[int] = []
    losses: list[float] = []
    while len(chosen) < min(limit, len(candidates)):
        best, most = -1, -math.inf
        for place, memory in enumerate(candidates):
            if place in chosen:
                continue
            loss = penalty(memory, [candidates[other] for other in chosen])
            below = [
                scores[other]
                for other in range(place + 1, len(candidates))
                if bears(candidates[other]) < RELEVANCE_KEPT * bears(memory)
            ]
            left = scores[place] - loss
            if below:
                left = max(left, min(scores[place], max(below) + MARGIN))
            if left > most:
                best, most = place, left
        chosen.append(best)
        losses.append(scores[best] - most)
    return [ranked(candidates[p], -lost) for p, lost in zip(chosen, losses, strict=True)]


def penalty(memory: Memory, chosen: list[Memory]) -> float:
    if memory.says and any(memory.says == other.says for other in chosen):
        return PENALTY
    near = sorted((nearness(memory, other) for other in chosen), reverse=True)
    return PENALTY * near[1] if len(near) > 1 else 0.0


def nearness(one: Memory, other: Memory) -> float:
    pieces, others = {*one.says}, {*other.says}
    if not pieces | others:
        return 0.0
    jaccard = len(pieces & others) / len(pieces | others)
    return max(0.0, (jaccard - NEAR_DUPLICATE) / (1 - NEAR_DUPLICATE))
