"""Sessions brought into memory, indexed, and kept still while they are used."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from memoryd.domain.errors import SessionsTooLarge
from memoryd.memories.vectors import Unembedded
from memoryd.recall.index import Document, SessionIndex
from memoryd.retrieval.heavy import Turns, in_thread, no_check, parts
from memoryd.retrieval.session_view import SessionView
from memoryd.retrieval.top import Top

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from datetime import datetime

    from memoryd.domain.records import Memory, Session
    from memoryd.memories.cache import SessionCache
    from memoryd.memories.cached_session import CachedSession
    from memoryd.retrieval.embedding_worker import EmbeddingWorker, Vectors
    from memoryd.retrieval.heavy import Check
    from memoryd.retrieval.query import Encoding, RetrievalQuery

T = TypeVar("T")

INLINE_MEMORIES = 30
INLINE_CHARACTERS = 10_000
INLINE_CHANGED_CHARACTERS = 100_000
"""What an index takes over on the event loop, in a few ms; more is indexed in a thread. Where an
index is there already it takes over more, since a thread makes a new one of the whole session."""

INLINE_WORK = 60_000
"""In terms looked at: what is done with sessions on the event loop, in up to a few ms; more is done
in a thread."""

MOST_LOADED = 8_388_608
"""In characters: what several sessions of a call may bring into memory together. One alone is
always answered."""

SMALL_LOAD = 1_048_576
"""In characters: larger ones wait for each other, and not for them."""

SMALL_LOADS = 4
MOST_WAITING = 67_108_864
"""In characters of loads of one kind, and in terms of rankings: about a minute's work. What goes
beyond is refused."""

PART_CHARACTERS = 250_000
"""What a thread indexes before it looks whether that is still wanted: a quarter of a second's."""

VECTOR_TIMEOUT_SECONDS = 0.25
"""How long a call waits for vectors that are being made; without them the words decide."""


class SessionLoader:
    """Raises what Database raises, and Overloaded where too much waits already."""

    def __init__(
        self,
        cache: SessionCache,
        vectors: EmbeddingWorker | None,
        *,
        encoding: Encoding,
        language: str,
    ) -> None:
        """Without `vectors` an index knows words alone."""
        self._encoding = encoding
        self._cache = cache
        self._vectors = vectors
        self._language = language
        self._small_loads = Turns(SMALL_LOADS, most_waiting=MOST_WAITING, noun="sessions")
        self._large_loads = Turns(1, most_waiting=MOST_WAITING, noun="large sessions")
        self._rankings = Turns(2, most_waiting=MOST_WAITING, noun="large queries")

    def view(self, cached: CachedSession) -> SessionView:
        """What retrieval makes of a session, as the session is now."""
        view = cached.view
        if not isinstance(view, SessionView):
            view = cached.view = SessionView(cached, self._encoding)
        view.refresh()
        return view

    async def most_important(
        self,
        session: Session,
        wanted: RetrievalQuery,
        *,
        now: datetime,
        half_life_days: float,
        timeout: float | None,
    ) -> Top | None:
        """What a session has to answer that is too large to be kept; None where it is not.

        All of it is read, some at a time, and only what may be answered stays in memory.
        """
        characters = await self._cache.outgrown(session, timeout=timeout)
        if not characters:
            return None
        top = Top(wanted, now, half_life_days, self._encoding)
        async with self._large_loads.turn(session.tenant, characters):
            async for counters, part in self._cache.parts(session, now=now, timeout=timeout):
                top.take(counters.revision, part)
        return top

    @asynccontextmanager
    async def loaded(
        self,
        sessions: Sequence[Session],
        now: datetime,
        timeout: float | None,
        caller: str,
        *,
        indexed: bool,
    ) -> AsyncIterator[list[CachedSession]]:
        """Those sessions that there are, as they are, for as long as they are used.

        What is not in memory is read, and indexed if it has to be, after other such work. Raises
        SessionsTooLarge where it is too much.
        """
        characters = await self._missing(sessions, timeout, indexed=indexed)
        try:
            if characters:
                turns = self._small_loads if characters <= SMALL_LOAD else self._large_loads
                async with turns.turn(sessions[0].tenant, characters):
                    cached = await self._current(sessions, now, timeout, indexed=indexed)
            else:
                cached = await self._current(sessions, now, timeout, indexed=indexed)
            yield cached
        finally:
            self._cache.settle(sessions, caller)

    async def _missing(
        self, sessions: Sequence[Session], timeout: float | None, *, indexed: bool
    ) -> int:
        """How many characters have to be read or indexed, about; 0 if none are.

        Raises SessionsTooLarge where several sessions have more than one could have.
        """
        unread: list[Session] = []
        lengths: list[int] = []
        for session in sessions:
            cached = self._cache.kept(session)
            if cached is None:
                unread.append(session)
            elif indexed and _is_much(self.view(cached)):
                lengths.append(cached.content_bytes)
        if unread:
            lengths += await self._cache.lengths(unread, most=MOST_LOADED, timeout=timeout)
        missing = sum(lengths)
        if len(lengths) > 1 and missing > MOST_LOADED:
            raise SessionsTooLarge(MOST_LOADED)
        return missing

    async def _current(
        self, sessions: Sequence[Session], now: datetime, timeout: float | None, *, indexed: bool
    ) -> list[CachedSession]:
        """Those sessions that there are, as they are."""
        looking = [self._cache.current(s, now=now, timeout=timeout) for s in sessions]
        if len(looking) == 1:  # most often; a task would cost more than the look
            found = [await looking[0]]
        else:
            # All of them to their end, so that whatever is kept by then is settled.
            ended = await asyncio.gather(*looking, return_exceptions=True)
            found = [one for one in ended if not isinstance(one, BaseException)]
            for one in ended:
                if isinstance(one, BaseException):
                    raise one
        sessions_there = [one for one in found if one is not None]
        if indexed:
            for one in sessions_there:
                await self._index(one)
        return sessions_there

    async def order(self, cached: Sequence[CachedSession], half_life_days: float) -> None:
        """Put what has no place in the order of importance yet there, if that is much."""
        for one in cached:
            if self.view(one).has_much_to_order:
                async with one.refreshing:  # what it is made of stays as it is meanwhile
                    view = self.view(one)
                    if view.has_much_to_order:
                        make = view.new_order(half_life_days)
                        view.adopt_order(await asyncio.to_thread(make))

    @asynccontextmanager
    async def steady(
        self, cached: Sequence[CachedSession], work: int
    ) -> AsyncIterator[Callable[[Callable[[Check], T]], Awaitable[T]]]:
        """Let sessions stay as they are, and do with them what is given: large work in a thread."""
        if work <= INLINE_WORK:
            yield _at_once
            return
        async with AsyncExitStack() as held:
            for one in sorted(cached, key=lambda one: one.session):
                await held.enter_async_context(one.refreshing)
            for one in cached:
                held.enter_context(self.view(one).steady())
            # Last, so that no holder of a turn waits for a session.
            await held.enter_async_context(self._rankings.turn(cached[0].session.tenant, work))
            yield in_thread

    async def _index(self, cached: CachedSession) -> None:
        """See that the index has all but a few memories, and the vectors that can be had."""
        await self._have_vectors(cached)
        if not _is_much(self.view(cached)):
            return
        # What it is made of stays as it is meanwhile; others may rank by the index of before.
        async with cached.refreshing:
            view = self.view(cached)
            if _is_much(view):
                documents = view.documents()
                view.is_being_indexed = True
                try:
                    index = await in_thread(lambda check: self.build(documents, check))
                    view.adopt(index, documents)
                finally:
                    view.is_being_indexed = False

    def index_of(self, view: SessionView) -> SessionIndex:
        """The index of a session as it is now; a few memories are taken over here."""
        if view.index is None:
            documents = view.documents()
            view.adopt(self.build(documents), documents)
        return view.up_to_date_index()

    async def _have_vectors(self, cached: CachedSession) -> None:
        if self._vectors is None:
            return
        view = self.view(cached)
        missing = view.without_vector()
        if missing and (view.index is None or len(missing) > INLINE_MEMORIES):
            kept = await self._vectors.stored({_key(m): m.content_hash for m in missing})
            view.take_vectors({key[2]: found for key, found in kept.items()})
            missing = view.without_vector()
        if not missing:
            return

        def take(made: Vectors) -> None:
            view.take_vectors({key[2]: found for key, found in made.items()})

        texts = [Unembedded(_key(m), m.content, m.content_hash) for m in missing]
        making = self._vectors.make(texts, take)
        if making is not None:
            view.expect(missing)
            await asyncio.wait({making}, timeout=VECTOR_TIMEOUT_SECONDS)

    def build(self, documents: Sequence[Document], check: Check = no_check) -> SessionIndex:
        dimensions = 0 if self._vectors is None else self._vectors.embedder.dimensions
        index = SessionIndex(dimensions=dimensions, language=self._language)
        for part in parts(documents, len(documents), PART_CHARACTERS):
            check()
            index.update(part)
        return index


def _is_much(view: SessionView) -> bool:
    """Whether what an index has to take over is too much for the event loop."""
    most = INLINE_CHARACTERS if view.index is None else INLINE_CHANGED_CHARACTERS
    count, characters = view.unindexed
    return count > INLINE_MEMORIES or characters > most


async def _at_once(work: Callable[[Check], T]) -> T:
    return work(no_check)


def _key(memory: Memory) -> tuple[str, str, str]:
    return (*memory.session, memory.memory_id)
