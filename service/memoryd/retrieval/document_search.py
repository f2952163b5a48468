"""Searching the documents of sessions: by relevance to a query, or the last updated first."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from memoryd.documents.filters import place_of
from memoryd.documents.newest import Place, read_newest
from memoryd.documents.picking import Picking
from memoryd.documents.ranges import sessions_in
from memoryd.documents.search_texts import read_searchable, read_size, read_text_changes
from memoryd.documents.store import PAGE_BYTES
from memoryd.domain.documents import MAX_SEARCH_TEXTS
from memoryd.domain.errors import MemorydError, RevisionOutOfRange, SearchTextsTooLarge
from memoryd.domain.records import Session
from memoryd.retrieval.heavy import Turns, has_failed, in_thread_to_its_end, no_check
from memoryd.sessions.lock import read_counters
from memoryd.telemetry import spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.engine import Database
    from memoryd.documents.filters import DocumentFilter
    from memoryd.documents.picking import Read
    from memoryd.documents.search_texts import TextChanges, Texts
    from memoryd.domain.documents import Document, DocumentName
    from memoryd.domain.sessions import TenantRange
    from memoryd.retrieval.document_index import DocumentIndex
    from memoryd.retrieval.heavy import Check
    from memoryd.sessions.lock import Counters
    from memoryd.sessions.replica import SessionReads

T = TypeVar("T")

MOST_CHARACTERS = 33_554_432
"""Of search texts: what the sessions of one query may have together."""

MOST_RANKED = 20_000
"""Search texts that one query answers by, the best ones."""

SPARE_DOCUMENTS = 20
"""How many more than are asked for are ranked, since some may have expired."""

PART_CHARACTERS = 250_000
"""What is indexed at once: a quarter of a second's."""

INLINE_CHARACTERS = 10_000
INLINE_WORK = 60_000
"""What is indexed, and in terms looked at what is ranked, on the event loop, in a few ms; more is
done in a thread."""

WORK_A_CHARACTER = 16
WORK_A_TEXT = 10
"""What a query's character costs, and a text that is compared with a namespace; in terms."""

AT_ONCE = 2
MOST_WAITING = 67_108_864
"""Large queries at once; and how much may wait in all, in characters and terms."""

ENTRY_BYTES = 2_000
"""Of a session that is kept, beyond its index."""

ERASED_SECONDS = 60.0
"""Between two looks for sessions that were erased."""


class Search(NamedTuple):
    """What a call asks for."""

    prefix: str
    query: str
    """Empty: the last updated first."""
    filter: DocumentFilter
    limit: int
    skip: int


class Found(NamedTuple):
    """What a search has found."""

    results: Sequence[tuple[Document, float | None]]
    """With their scores, best first."""
    is_cut: bool
    """Whether there may be more that the limit has room for."""


class _Kept:
    """What is kept of a session."""

    def __init__(self, index: DocumentIndex) -> None:
        self.index = index
        self.revision = 0
        """How far the index is."""
        self.loading_until: int | None = None
        """What the session's revision was when it began to be read; None: it is not read yet."""
        self.is_read = False
        self.lock = asyncio.Lock()
        """Held while the index changes, and while it is used."""
        self.nbytes = 0
        """As it was settled."""


class DocumentSearch:
    """Keeps what sessions' documents are found by, the longest unused going first.

    Methods raise what Database raises, and Overloaded where too much waits already.
    """

    def __init__(
        self, database: Database, reads: SessionReads, *, max_bytes: int, language: str
    ) -> None:
        self._database = database
        self._reads = reads
        self._max_bytes = max_bytes
        self._language = language
        self._kept: OrderedDict[Session, _Kept] = OrderedDict()
        self._bytes = 0
        self._turns = Turns(AT_ONCE, most_waiting=MOST_WAITING, noun="searches of documents")
        self._loading: asyncio.Task[None] | None = None
        self._forgetting: asyncio.Task[None] | None = None

    @property
    def nbytes(self) -> int:
        """About what is kept takes."""
        return self._bytes

    @spans.as_part(spans.RETRIEVAL)
    async def search(
        self,
        whose: Session | TenantRange,
        wanted: Search,
        *,
        now: datetime,
        timeout: float | None,
    ) -> Found:
        """Raises InvalidRequest where sessions are too many, SearchTextsTooLarge."""
        dialect = self._database.dialect
        read = self._reader(whose, timeout)
        sessions: Sequence[Session] = (
            [whose]
            if isinstance(whose, Session)
            else await read(lambda c: sessions_in(c, dialect, whose))
        )
        picking = Picking(
            read, dialect, wanted.filter, limit=wanted.limit, skip=wanted.skip, now=now
        )
        scores: Mapping[Place, float] = {}
        is_all = True
        if wanted.query and sessions:
            scores, is_all = await self._ranked(sessions, wanted, now, timeout)
            await picking.pick(scores)
        if is_all and not picking.is_full and not picking.is_exhausted:
            newest = await read(
                partial(
                    read_newest,
                    dialect=dialect,
                    sessions=sessions,
                    prefix=wanted.prefix,
                    unsearchable=bool(wanted.query),
                    how_many=picking.most,
                    now=now,
                )
            )
            await picking.pick(newest.places)
            is_all = newest.is_all
        fitting = _fitting(picking.found)
        results = [
            (document, scores.get(Place(*place_of(document))))
            for document in await picking.complete(fitting)
        ]
        is_cut = not picking.is_full and (picking.is_exhausted or not is_all)
        return Found(results, is_cut or len(fitting) < len(picking.found))

    async def aclose(self) -> None:
        """Keep nothing any more."""
        tasks = [task for task in (self._loading, self._forgetting) if task is not None]
        if self._forgetting is not None:
            self._forgetting.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._kept.clear()

    def _reader(self, whose: Session | TenantRange, timeout: float | None) -> Read:
        async def of_session(body: Callable[[Connection], T]) -> T:
            assert isinstance(whose, Session)  # noqa: S101  for the type checker
            return await self._reads.read(whose, body, timeout=timeout)

        async def of_tenant(body: Callable[[Connection], T]) -> T:
            return await self._database.read(body, tenants=(whose.tenant,), timeout=timeout)

        return of_session if isinstance(whose, Session) else of_tenant

    # By relevance

    async def _ranked(
        self,
        sessions: Sequence[Session],
        wanted: Search,
        now: datetime,
        timeout: float | None,
    ) -> tuple[Mapping[Place, float], bool]:
        """The documents that have to do with the query, best first; and whether these are all."""
        await self._have_recall()
        from memoryd.retrieval.document_index import best_documents  # noqa: PLC0415  is loaded now

        most = MOST_RANKED
        if wanted.filter.is_empty:
            most = (wanted.skip + wanted.limit + SPARE_DOCUMENTS) * MAX_SEARCH_TEXTS
        used = await self._current(sessions, timeout)
        try:
            async with AsyncExitStack() as held:
                for session in sorted(used):
                    await held.enter_async_context(used[session].lock)
                there = [session for session in used if len(used[session].index.index)]
                indexes = [used[session].index for session in there]
                if not indexes:
                    return {}, True
                most = min(most, MOST_RANKED)

                def rank(check: Check) -> tuple[list[tuple[int, DocumentName, float]], bool]:
                    return best_documents(
                        wanted.query, indexes, wanted.prefix, limit=most, now=now, check=check
                    )

                work = _work(wanted, indexes)
                found, is_all = await self._do(sessions[0].tenant, work, INLINE_WORK, rank)
        finally:
            self._settle(used)
        places = {Place(there[number], name): score for number, name, score in found}
        return places, is_all

    async def _have_recall(self) -> None:
        """Load what ranks, in a thread, when it is first asked for."""
        if self._loading is None or has_failed(self._loading):
            self._loading = asyncio.create_task(
                asyncio.to_thread(_load, self._language), name="load search"
            )
        await asyncio.shield(self._loading)  # it is others' too

    async def _current(
        self, sessions: Sequence[Session], timeout: float | None
    ) -> dict[Session, _Kept]:
        """Those sessions that there are, at least as far as they are by now."""
        dialect, tenants = self._database.dialect, (sessions[0].tenant,)
        counters = await self._database.read(
            lambda c: read_counters(c, dialect, sessions), tenants=tenants, timeout=timeout
        )
        used: dict[Session, _Kept] = {}
        room = MOST_CHARACTERS
        try:
            for session in sorted(counters):
                kept = self._kept.get(session)
                if kept is None:
                    kept = self._kept[session] = _Kept(self._new_index())
                used[session] = kept
                async with kept.lock:
                    await self._refresh(session, kept, counters[session], room, timeout)
                room -= kept.index.characters
        except BaseException:
            self._settle(used)
            raise
        return used

    def _new_index(self) -> DocumentIndex:
        from memoryd.retrieval.document_index import DocumentIndex  # noqa: PLC0415  is loaded now

        return DocumentIndex(self._language)

    async def _refresh(
        self,
        session: Session,
        kept: _Kept,
        counters: Counters,
        room: int,
        timeout: float | None,
    ) -> None:
        """Bring an index up to date, whose lock is held. What was read stays if the caller goes.

        Raises SearchTextsTooLarge where it would have more characters than there is room for.
        """

        async def read(body: Callable[[Connection], T]) -> T:
            return await self._reads.read(session, body, timeout=timeout, counters=counters)

        while not kept.is_read or kept.revision < counters.revision:
            if kept.loading_until is None:
                if await read(lambda c: read_size(c, session)) > room:
                    raise SearchTextsTooLarge(MOST_CHARACTERS)
                kept.loading_until = counters.revision
            changes, is_read = await self._next(session, kept, read)
            if changes is None:
                self._start_again(kept)
                continue
            found = [one for part in changes for one in part.found]
            try:
                await self._take(session.tenant, kept.index, found)
            except Exception:
                self._start_again(kept)  # it is of no use
                raise
            kept.revision, kept.is_read = changes[-1].until, is_read
            if kept.index.characters > room:
                raise SearchTextsTooLarge(MOST_CHARACTERS)

    async def _take(self, tenant: str, index: DocumentIndex, found: Sequence[Texts]) -> None:
        characters = sum(len(text) for one in found for text in one.texts)
        await self._do(tenant, characters, INLINE_CHARACTERS, lambda _: index.take(found))

    def _start_again(self, kept: _Kept) -> None:
        kept.index, kept.revision = self._new_index(), 0
        kept.loading_until, kept.is_read = None, False

    async def _next(
        self, session: Session, kept: _Kept, read: Read
    ) -> tuple[list[TextChanges] | None, bool]:
        """What is taken in next, and whether the session is read with it.

        None where what has gone since is no longer all known.
        """
        changes: list[TextChanges] = []
        position, until = kept.revision, kept.loading_until or 0
        characters = 0
        while characters < PART_CHARACTERS:
            try:
                if kept.is_read:
                    part = await read(partial(read_text_changes, session=session, after=position))
                else:
                    part = await read(
                        partial(read_searchable, session=session, after=position, until=until)
                    )
            except RevisionOutOfRange:
                return None, False
            changes.append(part)
            position = part.until
            characters += sum(len(text) for one in part.found for text in one.texts)
            if part.is_all:
                return changes, True
        return changes, kept.is_read

    async def _do(self, tenant: str, work: int, most_inline: int, do: Callable[[Check], T]) -> T:
        """Do something with indexes whose locks are held: much work in a thread, after others'."""
        if work <= most_inline:
            return do(no_check)
        async with self._turns.turn(tenant, work):
            return await in_thread_to_its_end(do)

    # Keeping

    def _settle(self, used: Mapping[Session, _Kept]) -> None:
        """Note that sessions were used, and make room for what they take by now."""
        for session, kept in used.items():
            if self._kept.get(session) is kept:
                self._kept.move_to_end(session)
                size = ENTRY_BYTES + kept.index.nbytes
                self._bytes += size - kept.nbytes
                kept.nbytes = size
        while self._bytes > self._max_bytes and self._kept:
            self._forget(next(iter(self._kept)))
        if self._kept and (self._forgetting is None or has_failed(self._forgetting)):
            self._forgetting = asyncio.create_task(
                self._forget_erased(), name="searched", context=spans.detached()
            )

    def _forget(self, session: Session) -> None:
        kept = self._kept.pop(session, None)
        if kept is not None:
            self._bytes -= kept.nbytes

    async def _forget_erased(self) -> None:
        """Drop what was erased, though it is no longer asked for."""
        while True:
            await asyncio.sleep(ERASED_SECONDS)
            with suppress(MemorydError):  # health reports it
                for session in [*self._kept]:
                    if await self._reads.counters(session, timeout=None) is None:
                        self._forget(session)


def _work(wanted: Search, indexes: Iterable[DocumentIndex]) -> int:
    """How much there is to do for a query, in terms looked at, about."""
    work = len(wanted.query) * WORK_A_CHARACTER
    for one in indexes:
        work += len(one.index.tokens) + one.characters // WORK_A_CHARACTER
        work += len(one.index) * WORK_A_TEXT if wanted.prefix else 0
    return work


def _fitting(found: Sequence[Document]) -> Sequence[Document]:
    """The first ones, whose bodies are answered together; at least one."""
    room = PAGE_BYTES
    for place, document in enumerate(found):
        room -= document.size
        if room < 0 and place:
            return found[:place]
    return found


def _load(language: str) -> None:
    """Import what ranks, and have it load what a first query needs."""
    from memoryd.retrieval import document_index  # noqa: PLC0415  it loads arrays

    document_index.try_out(language)
