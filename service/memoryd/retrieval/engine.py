"""Retrieval: the memories of sessions, from storage, in the order that recall puts them in."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from memoryd.errors import MemoryNotFound
from memoryd.metadata import contains
from memoryd.recall.embedding import adds_up_words
from memoryd.recall.fusion import highest, rank
from memoryd.recall.index import Document, SessionIndex
from memoryd.recall.ranked import PARTS, Ranked
from memoryd.recall.signals import understand
from memoryd.recall.similarity import similar_to_memory, similar_to_text
from memoryd.retrieval.asked import Result, Retrieved, Similar
from memoryd.retrieval.prepared import Prepared
from memoryd.storage.vectors import Unembedded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from memoryd.model import Memory, MemoryFilter, Session
    from memoryd.recall.embedding import Embedder
    from memoryd.retrieval.asked import Encoding, Wanted
    from memoryd.retrieval.vectors import VectorMaker, Vectors
    from memoryd.storage.snapshots import Snapshot, Snapshots

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

INLINE_MEMORIES = 30
"""What an index takes over on the event loop, in about 2 ms; more is indexed in a thread."""

_NOTHING = {part: 0.0 for part in PARTS if part != "importance"}

PATIENCE_SECONDS = 0.25
"""How long a call waits for vectors that are being made; without them the words decide."""


class Retrieval:
    """`now` is the caller's own time, `timeout` in seconds. Methods raise what Database raises."""

    def __init__(
        self,
        snapshots: Snapshots,
        vectors: VectorMaker | None,
        *,
        encoding: Encoding,
        language: str,
        half_life_days: float,
    ) -> None:
        """Without `vectors` the words alone decide what is relevant."""
        self._encoding = encoding
        self._snapshots = snapshots
        self._vectors = vectors
        self._language = language
        self._warming: asyncio.Task[None] | None = None
        self._half_life_days = half_life_days

    async def important(
        self, sessions: Sequence[Session], wanted: Wanted, *, now: datetime, timeout: float | None
    ) -> Retrieved:
        """The memories that are effectively the most important; older first among equals."""
        snapshots = await self._current(sessions, now, timeout)
        found: list[Result] = []
        for number, snapshot in enumerate(snapshots):
            prepared = self._prepared(snapshot)
            importance = prepared.effective_importance(now, self._half_life_days)
            places = highest(importance, _mask(prepared, wanted, now), wanted.limit)
            least = -1.0 if wanted.min_importance is None else wanted.min_importance
            found += [
                _by_importance(number, prepared, place, value)
                for place, value in zip(places, importance[places].tolist(), strict=True)
                if value >= least
            ]
            self._account(snapshot, prepared)
        if len(snapshots) > 1:
            found.sort(key=lambda result: -result.effective_importance)
        return Retrieved(found[: wanted.limit], _revisions(sessions, snapshots))

    async def relevant(
        self,
        sessions: Sequence[Session],
        query: str,
        wanted: Wanted,
        *,
        now: datetime,
        timeout: float | None,
    ) -> Retrieved:
        """The memories that have most to do with a query, tempered by their importance."""
        snapshots = await self._current(sessions, now, timeout)
        if not snapshots:
            return Retrieved([], _revisions(sessions, snapshots))
        await self._warm_up()
        for snapshot in snapshots:
            await self._index(snapshot)
        embedder = await self._embedder_for(query, snapshots)
        # Nothing is awaited from here on: what is read now belongs together.
        prepared = [self._prepared(snapshot) for snapshot in snapshots]
        indexes = [self._index_of(one) for one in prepared]
        importances = [one.effective_importance(now, self._half_life_days) for one in prepared]
        ranked = rank(
            query,
            indexes,
            now=now,
            half_life_days=self._half_life_days,
            limit=wanted.limit,
            allowed=[
                _allowed(one, _important(importance, wanted, _mask(one, wanted, now)))
                for one, importance in zip(prepared, importances, strict=True)
            ],
            embedder=embedder,
            importance_weight=wanted.importance_weight,
            diverse=wanted.diverse,
        )
        for snapshot, one in zip(snapshots, prepared, strict=True):
            self._account(snapshot, one)
        results = []
        for found in ranked:
            of_session = prepared[found.session]
            place = of_session.places[found.memory_id]
            importance = importances[found.session][place].item()
            results.append(Result(of_session.encoded(place), importance, found))
        return Retrieved(results, _revisions(sessions, snapshots))

    async def similar(
        self,
        session: Session,
        *,
        content: str,
        semantic_hash: str,
        memory_id: str,
        now: datetime,
        timeout: float | None,
    ) -> list[Similar]:
        """Every live memory of a session, compared with a text or with one of them, left out.

        In creation order. Raises MemoryNotFound where there is no such `memory_id`; empty, it is
        the text that counts.
        """
        await self._warm_up()
        vector = None if self._vectors is None or not content else await self._vectors.of(content)
        snapshots = await self._current([session], now, timeout)
        if not snapshots:
            if memory_id:
                raise MemoryNotFound(memory_id)
            return []
        (snapshot,) = snapshots
        await self._index(snapshot)
        prepared = self._prepared(snapshot)
        index, live = self._index_of(prepared), prepared.is_live(now)
        if live is None:
            live = np.ones(len(prepared.memories), np.bool_)
        place = prepared.places.get(memory_id)
        if memory_id and (place is None or not live[place]):
            raise MemoryNotFound(memory_id)
        if place is None:
            similarities = similar_to_text(index, content, vector)
        else:
            similarities = similar_to_memory(index, memory_id)
            semantic_hash = prepared.memories[place].semantic_hash
            live[place] = False
        distances = prepared.distances(semantic_hash)
        self._account(snapshot, prepared)
        return [
            Similar(prepared.memory(i), distances[i].item(), similarities[i].item())
            for i in np.flatnonzero(live).tolist()
        ]

    def _prepared(self, snapshot: Snapshot) -> Prepared:
        """What retrieval has made of a session, as the session is now."""
        prepared = snapshot.derived
        if not isinstance(prepared, Prepared):
            prepared = snapshot.derived = Prepared(self._encoding)
            snapshot.changed |= snapshot.memories.keys()
        prepared.refresh(snapshot)
        return prepared

    async def _warm_up(self) -> None:
        """Load in a thread what the first query would load on the event loop, once."""
        if self._warming is None:
            self._warming = asyncio.create_task(asyncio.to_thread(self._load), name="warm up")
        await asyncio.shield(self._warming)

    def _load(self) -> None:
        moment = datetime.now(UTC)
        index = self._build([Document("", "word", 1, moment, 0.5)])
        rank("word last week", [index], now=moment, half_life_days=1.0, limit=1)
        if self._vectors is not None:
            self._vectors.try_out()

    async def _embedder_for(self, query: str, snapshots: Sequence[Snapshot]) -> Embedder | None:
        """The embedder, with what takes it long done already: the vector of the query."""
        if self._vectors is None:
            return None
        embedder = self._vectors.embedder
        if adds_up_words(self._vectors.embedder):
            return embedder
        text = understand(
            query, [self._index_of(self._prepared(s)) for s in snapshots]
        ).text_to_embed
        vector = await self._vectors.of(text)
        return None if vector is None else _Foreseen(embedder, text, vector)

    async def _current(
        self, sessions: Sequence[Session], now: datetime, timeout: float | None
    ) -> list[Snapshot]:
        """Those sessions that there are, as they are."""
        looking = (self._snapshots.current(s, now=now, timeout=timeout) for s in sessions)
        if len(sessions) == 1:  # most often; a task would cost more than the look
            found = [await next(looking)]
        else:
            found = await asyncio.gather(*looking)
        return [snapshot for snapshot in found if snapshot is not None]

    async def _index(self, snapshot: Snapshot) -> None:
        """See that the index has all but a few memories, and the vectors that can be had."""
        await self._have_vectors(snapshot)
        if self._prepared(snapshot).unindexed <= INLINE_MEMORIES:
            return
        # What it is made of stays as it is meanwhile; others may rank by the index of before.
        async with snapshot.refreshing:
            prepared = self._prepared(snapshot)
            if prepared.unindexed > INLINE_MEMORIES:
                documents = prepared.documents()
                prepared.is_being_indexed = True
                try:
                    index = await asyncio.to_thread(self._build, documents)
                    prepared.adopt(index, documents)
                finally:
                    prepared.is_being_indexed = False

    def _index_of(self, prepared: Prepared) -> SessionIndex:
        """The index of a session as it is now; a few memories are taken over here."""
        if prepared.index is None:
            documents = prepared.documents()
            prepared.adopt(self._build(documents), documents)
        return prepared.up_to_date_index()

    async def _have_vectors(self, snapshot: Snapshot) -> None:
        if self._vectors is None:
            return
        prepared = self._prepared(snapshot)
        missing = prepared.without_vector()
        if missing and (prepared.index is None or len(missing) > INLINE_MEMORIES):
            kept = await self._vectors.stored({_key(m): m.content_hash for m in missing})
            prepared.take_vectors({key[2]: found for key, found in kept.items()})
            missing = prepared.without_vector()
        if not missing:
            return

        def take(made: Vectors) -> None:
            prepared.take_vectors({key[2]: found for key, found in made.items()})

        texts = [Unembedded(_key(m), m.content, m.content_hash) for m in missing]
        making = self._vectors.make(texts, take)
        if making is not None:
            prepared.expect(missing)
            await asyncio.wait({making}, timeout=PATIENCE_SECONDS)

    def _build(self, documents: Sequence[Document]) -> SessionIndex:
        dimensions = 0 if self._vectors is None else self._vectors.embedder.dimensions
        return SessionIndex(documents, dimensions=dimensions, language=self._language)

    def _account(self, snapshot: Snapshot, prepared: Prepared) -> None:
        snapshot.derived_bytes = prepared.nbytes
        self._snapshots.account(snapshot)


class _Foreseen:
    """An embedder that has embedded one text before."""

    def __init__(self, embedder: Embedder, text: str, vector: NDArray[np.float32]) -> None:
        self.name = embedder.name
        self.dimensions = embedder.dimensions
        self._embedder = embedder
        self._text = text
        self._vector = vector

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._vector[np.newaxis] if [*texts] == [self._text] else self._embedder.embed(texts)


def _key(memory: Memory) -> tuple[str, str, str]:
    return (*memory.session, memory.memory_id)


def _by_importance(session: int, prepared: Prepared, place: int, importance: float) -> Result:
    encoded = prepared.encoded(place)
    ranked = Ranked(session, encoded.memory.memory_id, **_NOTHING, importance=importance)
    return Result(encoded, importance, ranked)


def _allowed(prepared: Prepared, mask: Mask | None) -> set[str] | None:
    if mask is None or mask.all():
        return None
    return {prepared.memories[place].memory_id for place in np.flatnonzero(mask).tolist()}


def _mask(prepared: Prepared, wanted: Wanted, now: datetime) -> Mask | None:
    """Which memories may be answered, however important; None: all of them."""
    mask = prepared.is_live(now)
    if _narrows(wanted.filter):
        matching = np.fromiter((_matches(m, wanted.filter) for m in prepared.memories), np.bool_)
        mask = matching if mask is None else mask & matching
    return mask


def _important(importance: Floats, wanted: Wanted, mask: Mask | None) -> Mask | None:
    """Those of a mask that are important enough."""
    if wanted.min_importance is None:
        return mask
    important: Mask = importance >= wanted.min_importance
    return important if mask is None else mask & important


def _narrows(wanted: MemoryFilter) -> bool:
    return bool(
        wanted.content_types or wanted.metadata or wanted.created_after or wanted.created_before
    )


def _matches(memory: Memory, wanted: MemoryFilter) -> bool:
    """All of a filter but importance."""
    return (
        (not wanted.content_types or memory.content_type in wanted.content_types)
        and (wanted.created_after is None or memory.created_at >= wanted.created_after)
        and (wanted.created_before is None or memory.created_at < wanted.created_before)
        and contains(memory.metadata, wanted.metadata)
    )


def _revisions(sessions: Sequence[Session], snapshots: Sequence[Snapshot]) -> dict[Session, int]:
    known = {snapshot.session: snapshot.revision for snapshot in snapshots}
    return {session: known.get(session, 0) for session in sessions}
