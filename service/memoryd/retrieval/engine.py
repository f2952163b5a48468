"""Retrieval: the memories of sessions, from storage, in the order that recall puts them in."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from memoryd.domain.errors import MemoryNotFound
from memoryd.domain.matching import matches, narrows
from memoryd.recall.dates import phrases
from memoryd.recall.embedders.embedder import adds_up_words
from memoryd.recall.fusion import rank
from memoryd.recall.index import Document
from memoryd.recall.languages import language_of
from memoryd.recall.signals import meaning_of, understand
from memoryd.recall.similarity import similar_to_memory, similar_to_text
from memoryd.recall.text import analyser, words_of
from memoryd.retrieval.heavy import has_failed, no_check
from memoryd.retrieval.loading import INLINE_WORK
from memoryd.retrieval.query import Result, Retrieved, Similar, by_importance
from memoryd.telemetry import spans

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from memoryd.domain.records import Memory, MemoryFilter, Session
    from memoryd.memories.cached_session import CachedSession
    from memoryd.recall.index import SessionIndex
    from memoryd.recall.ranked import Ranked
    from memoryd.recall.signals import Meaning, Query
    from memoryd.retrieval.embedding_worker import EmbeddingWorker
    from memoryd.retrieval.heavy import Check
    from memoryd.retrieval.loading import SessionLoader
    from memoryd.retrieval.query import RetrievalQuery
    from memoryd.retrieval.session_view import SessionView

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

WORK_A_CHARACTER = 16
WORK_A_PHRASE = 20_000
WORK_A_MATCH = 10
WORK_A_LOOK = 20
"""What a query's character costs, a phrase of it that may be a date, a memory that is filtered, and
one that is looked at in the order of importance; in terms looked at."""

HEAD_CHARACTERS = 1_000
"""Of a query, that tell whether it has terms at all."""


class Retrieval:
    """`now` is the caller's own time, `timeout` in seconds; `caller` says who they are.

    Methods raise what Database raises.
    """

    def __init__(
        self,
        sessions: SessionLoader,
        vectors: EmbeddingWorker | None,
        *,
        language: str,
        half_life_days: float,
    ) -> None:
        """Without `vectors` the words alone decide what is relevant."""
        self._sessions = sessions
        self._vectors = vectors
        self._language = language
        self._warming: asyncio.Task[None] | None = None
        self._half_life_days = half_life_days

    @spans.as_part(spans.RETRIEVAL)
    async def important(
        self,
        sessions: Sequence[Session],
        wanted: RetrievalQuery,
        *,
        now: datetime,
        timeout: float | None,
        caller: str,
    ) -> Retrieved:
        """The memories that are effectively the most important; older first among equals."""
        if len(sessions) == 1:  # several have a limit together
            top = await self._sessions.most_important(
                sessions[0],
                wanted,
                now=now,
                half_life_days=self._half_life_days,
                timeout=timeout,
            )
            if top is not None:
                return Retrieved(top.results, {sessions[0]: top.revision})
        loading = self._sessions.loaded(sessions, now, timeout, caller, indexed=False)
        async with loading as cached:
            await self._sessions.order(cached, self._half_life_days)
            # Most often few memories have to be looked at, however many there are.
            most = INLINE_WORK // (WORK_A_LOOK + _work_a_match(wanted.filter))
            tops = _tops(self._by_importance(cached, now), wanted, now, no_check, most=most)
            if tops is None:
                async with self._sessions.steady(
                    cached, _filter_work(wanted.filter, cached)
                ) as run:
                    in_order = self._by_importance(cached, now)
                    tops = await run(lambda check: _tops(in_order, wanted, now, check))
            views = [self._sessions.view(one) for one in cached]
            found = [
                by_importance(number, views[number].encoded_memory(memory), importance)
                for number, top in enumerate(tops or ())
                for importance, memory in top
            ]
            if len(cached) > 1:
                found.sort(key=lambda result: -result.effective_importance)
            return Retrieved(found[: wanted.limit], _revisions(sessions, cached))

    def _by_importance(
        self, cached: Sequence[CachedSession], now: datetime
    ) -> list[Iterator[tuple[float, Memory]]]:
        """The memories of each session with their effective importance, the greatest first."""
        views = [self._sessions.view(one) for one in cached]
        return [view.by_importance(now, self._half_life_days) for view in views]

    @spans.as_part(spans.RETRIEVAL)
    async def relevant(
        self,
        sessions: Sequence[Session],
        query: str,
        wanted: RetrievalQuery,
        *,
        now: datetime,
        timeout: float | None,
        caller: str,
    ) -> Retrieved:
        """The memories that have most to do with a query, tempered by their importance."""
        await self._warm_up()
        loading = self._sessions.loaded(sessions, now, timeout, caller, indexed=True)
        async with loading as cached:
            if not cached:
                return Retrieved([], _revisions(sessions, cached))
            work = self._query_work(query, cached)
            embedded = await self._embedded(query, cached, work)
            work += _filter_work(wanted.filter, cached)
            # Nothing changes from here on: what is read now belongs together.
            async with self._sessions.steady(cached, work) as run:
                views = [self._sessions.view(one) for one in cached]
                indexes = [self._sessions.index_of(one) for one in views]
                importances = [one.effective_importance(now, self._half_life_days) for one in views]

                def ranked(check: Check) -> list[Ranked]:
                    masks = [
                        _important(importance, wanted, _mask(one, wanted, now, check))
                        for importance, one in zip(importances, views, strict=True)
                    ]
                    check()
                    understood, meaning = embedded or self._understood(query, indexes)
                    return rank(
                        understood,
                        indexes,
                        importances,
                        now=now,
                        limit=wanted.limit,
                        allowed=masks,
                        meaning=meaning,
                        min_relevance=wanted.min_relevance,
                        importance_weight=wanted.importance_weight,
                        diverse=wanted.diverse,
                    )

                results = []
                for found in await run(ranked):
                    of_session = views[found.session]
                    place = of_session.places[found.memory_id]
                    importance = importances[found.session][place].item()
                    results.append(Result(of_session.encoded(place), importance, found))
                return Retrieved(results, _revisions(sessions, cached))

    @spans.as_part(spans.RETRIEVAL)
    async def similar(
        self,
        session: Session,
        *,
        content: str,
        semantic_hash: str,
        memory_id: str,
        now: datetime,
        timeout: float | None,
        caller: str,
    ) -> list[Similar]:
        """Every live memory of a session, compared with a text or with one of them, left out.

        In creation order. Raises MemoryNotFound where there is no such `memory_id`; empty, it is
        the text that counts.
        """
        await self._warm_up()
        meaning = None
        if self._vectors is not None and content:
            meaning = await self._vectors.of(session.tenant, content)
        vector = None if meaning is None else meaning.vector
        loading = self._sessions.loaded([session], now, timeout, caller, indexed=True)
        async with loading as cached:
            if not cached:
                if memory_id:
                    raise MemoryNotFound(memory_id)
                return []
            async with self._sessions.steady(cached, self._query_work(content, cached)) as run:
                view = self._sessions.view(cached[0])
                index, live = self._sessions.index_of(view), view.is_live(now)
                if live is None:
                    live = np.ones(len(view.memories), np.bool_)
                place = view.places.get(memory_id)
                if memory_id and (place is None or not live[place]):
                    raise MemoryNotFound(memory_id)
                if place is None:
                    similarities = await run(lambda _: similar_to_text(index, content, vector))
                else:
                    similarities = await run(lambda _: similar_to_memory(index, memory_id))
                    semantic_hash = view.memories[place].semantic_hash
                    live[place] = False
                distances = view.distances(semantic_hash)
                return [
                    Similar(view.memory(i), distances[i].item(), similarities[i].item())
                    for i in np.flatnonzero(live).tolist()
                ]

    def _query_work(self, query: str, cached: Sequence[CachedSession]) -> int:
        """How much there is to do for a query, in terms looked at, about."""
        work = len(query) * WORK_A_CHARACTER
        work += len(phrases(query, self._language)) * WORK_A_PHRASE
        words = words_of(query[:HEAD_CHARACTERS])
        has_terms = any(map(analyser(language_of(words, self._language)).term, words))
        for one in cached:
            index = self._sessions.view(one).index
            work += 0 if index is None else len(index.tokens)
            work += 0 if has_terms else sum(len(m.content) for m in one.memories.values())
        return work

    async def _warm_up(self) -> None:
        """Load in a thread what the first query would load on the event loop, once."""
        if self._warming is None or has_failed(self._warming):
            self._warming = asyncio.create_task(asyncio.to_thread(self._load), name="warm up")
        await asyncio.shield(self._warming)

    def _load(self) -> None:
        moment = datetime.now(UTC)
        index = self._sessions.build([Document("", "word", 1, moment)])
        query = understand("word last week", [index])
        rank(query, [index], [np.zeros(1)], now=moment, limit=1)
        if self._vectors is not None:
            self._vectors.try_out()

    async def _embedded(
        self, text: str, cached: Sequence[CachedSession], work: int
    ) -> tuple[Query, Meaning | None] | None:
        """A query and its meaning, where an embedder of whole texts makes that; else None."""
        if self._vectors is None or adds_up_words(self._vectors.embedder):
            return None
        async with self._sessions.steady(cached, work) as run:
            indexes = [self._sessions.index_of(self._sessions.view(one)) for one in cached]
            query = await run(lambda _: understand(text, indexes))
        return query, await self._vectors.of(cached[0].session.tenant, query.text_to_embed)

    def _understood(
        self, text: str, indexes: Sequence[SessionIndex]
    ) -> tuple[Query, Meaning | None]:
        """A query and its meaning, where that is made on the spot."""
        query = understand(text, indexes)
        if self._vectors is None:
            return query, None
        with spans.part(spans.EMBEDDING):
            return query, meaning_of(query, self._vectors.embedder)


def _tops(
    in_order: Sequence[Iterator[tuple[float, Memory]]],
    wanted: RetrievalQuery,
    now: datetime,
    check: Check,
    *,
    most: int = sys.maxsize,
) -> list[list[tuple[float, Memory]]] | None:
    """What each session has to answer; None where `most` memories do not show it."""
    least = -1.0 if wanted.min_importance is None else wanted.min_importance
    tops: list[list[tuple[float, Memory]]] = []
    for of_session in in_order:
        top: list[tuple[float, Memory]] = []
        tops.append(top)
        for importance, memory in of_session:
            if importance < least:
                break
            most -= 1
            if most < 0:
                return None
            check()
            if not memory.is_expired(now) and wanted.admits(memory):
                top.append((importance, memory))
                if len(top) == wanted.limit:
                    break
    return tops


def _mask(view: SessionView, wanted: RetrievalQuery, now: datetime, check: Check) -> Mask | None:
    """Which memories may be answered, however important; None: all of them."""
    mask = view.is_live(now)
    if narrows(wanted.filter):
        matching = np.zeros(len(view.memories), np.bool_)
        for place, memory in enumerate(view.memories):
            check()
            matching[place] = matches(memory, wanted.filter)
        mask = matching if mask is None else mask & matching
    excluded = [view.places[i] for i in wanted.excluded if i in view.places]
    if excluded:
        mask = np.ones(len(view.memories), np.bool_) if mask is None else mask
        mask[excluded] = False
    return mask


def _important(importance: Floats, wanted: RetrievalQuery, mask: Mask | None) -> Mask | None:
    """Those of a mask that are important enough."""
    if wanted.min_importance is None:
        return mask
    important: Mask = importance >= wanted.min_importance
    return important if mask is None else mask & important


def _filter_work(wanted: MemoryFilter, cached: Sequence[CachedSession]) -> int:
    """How much there is to do for a filter, in terms looked at, about."""
    if not narrows(wanted):
        return 0
    return _work_a_match(wanted) * sum(len(one.memories) for one in cached)


def _work_a_match(wanted: MemoryFilter) -> int:
    return WORK_A_MATCH + wanted.conditions.work


def _revisions(sessions: Sequence[Session], cached: Sequence[CachedSession]) -> dict[Session, int]:
    known = {one.session: one.revision for one in cached}
    return {session: known.get(session, 0) for session in sessions}
