"""The cached state of a session matches the database, whichever process wrote it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.patience import PATIENT_DATABASE

from memoryd.database.engine import Database
from memoryd.database.tables import memories
from memoryd.database.tenancy import EVERY_TENANT
from memoryd.domain.content import hashes_of
from memoryd.domain.errors import MemorydError
from memoryd.domain.importance import effective_importance
from memoryd.domain.records import (
    Capacity,
    ContentType,
    MemoryEdit,
    MemoryFilter,
    NewMemory,
    Session,
)
from memoryd.memories import cache
from memoryd.memories.access import AccessTracker
from memoryd.memories.rows import COLUMNS, memory_of
from memoryd.memories.store import MemoryStore
from memoryd.retrieval.session_view import SessionView
from memoryd.rpc.memories import messages as convert
from memoryd.rpc.memories.results import ENCODING
from memoryd.v1 import memory_pb2 as pb

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CAPACITY = Capacity(max_entries=4, half_life_days=30.0)

numbers = itertools.count()


class Replica:
    """The database access of one process."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = MemoryStore(
            database,
            lambda: NOW,
            lambda _: None,
            standby=None,
            queue_limit=1000,
            batch_limit=1000,
            cache_bytes=10_000_000,
        )
        self.accesses = AccessTracker(database, self.store.cache, flush_seconds=60.0)

    async def put(
        self,
        session: Session,
        content: str,
        importance: float = 0.5,
        *,
        capacity: Capacity = CAPACITY,
    ) -> str:
        hashes = hashes_of(content)
        item = NewMemory(
            session=session,
            content=content,
            content_type=ContentType.FACT,
            importance=importance,
            metadata={"n": 1.5, "of": ["a", None, {"b": True}]},
            content_hash=hashes.content_hash,
            semantic_hash=hashes.semantic_hash,
            expires_at=NOW + timedelta(days=1, microseconds=3),
        )
        (stored,) = await self.store.store([item], capacity)
        return stored.memory.memory_id

    async def access(self, session: Session, place: int) -> None:
        found = await self.seen(session)
        if found:
            moment = NOW + timedelta(seconds=place)
            self.accesses.record([found[place % len(found)]] * (place + 1), moment)
        await self.accesses.flush()

    async def seen(self, session: Session) -> list:
        """All cached memories, as the next reader sees them."""
        prepared = await self.prepared(session)
        return [] if prepared is None else prepared.memories

    async def prepared(self, session: Session) -> SessionView | None:
        snapshot = await self.store.cache.current(session, now=NOW, timeout=None)
        if snapshot is None:
            return None
        if snapshot.view is None:
            snapshot.view = SessionView(snapshot, ENCODING)
        view: SessionView = snapshot.view
        view.refresh()
        return view

    async def close(self) -> None:
        await self.accesses.close()
        await self.store.close()
        await self.database.close()


@asynccontextmanager
async def replicas(database_url: str) -> AsyncIterator[tuple[Replica, Replica]]:
    both = (
        Replica(Database(database_url, PATIENT_DATABASE)),
        Replica(Database(database_url, PATIENT_DATABASE)),
    )
    try:
        yield both
    finally:
        for replica in both:
            await replica.close()


async def in_database(replica: Replica, session: Session) -> list:
    def body(connection: sa.Connection) -> list:
        statement = (
            sa.select(*COLUMNS)
            .where(memories.c.session_id == session.session_id, memories.c.deleted_at.is_(None))
            .order_by(memories.c.created_revision)
        )
        return [memory_of(row) for row in connection.execute(statement).all()]

    return await replica.database.read(body, tenants=EVERY_TENANT)


steps = st.tuples(
    st.sampled_from((0, 0, 1)),
    st.sampled_from(("put", "put", "merge", "edit", "delete", "undelete", "access", "look")),
    st.integers(0, 3),
)


async def take(replica: Replica, session: Session, kind: str, place: int, known: list[str]) -> None:
    match kind:
        case "put":
            known.append(await replica.put(session, f"fact {next(numbers)}", place / 4))
        case "merge":
            known.append(await replica.put(session, f"always {place}", 0.9))
        case "access":
            await replica.access(session, place)
        case "look":
            prepared = await replica.prepared(session)
            assert prepared is not None
            for number in range(len(prepared.memories)):
                prepared.encoded(number)
        case "edit" if known:
            edit = MemoryEdit(session, known[place % len(known)], importance=place / 4)
            await replica.store.update(edit)
        case "delete" if known:
            await replica.store.delete(session, known[place % len(known)], "")
        case "undelete" if known:
            await replica.store.undelete(session, known[place % len(known)], CAPACITY)


@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(planned=st.lists(steps, min_size=3, max_size=14))
async def test_the_cache_matches_the_database(
    database_url: str, planned: list[tuple[int, str, int]]
) -> None:
    session = Session("default", f"session-{next(numbers)}")
    known: list[str] = []
    async with replicas(database_url) as both:
        await both[0].put(session, "first")
        for replica in both:
            await replica.seen(session)
        for who, kind, place in planned:
            try:
                await take(both[who], session, kind, place, known)
            except MemorydError:
                continue  # such as an update of a deleted memory
        expected = await in_database(both[0], session)
        importance = [
            effective_importance(
                m.importance, m.created_at, m.access_count, now=NOW, half_life_days=30.0
            )
            for m in expected
        ]
        for replica in both:
            prepared = await replica.prepared(session)
            assert prepared is not None
            places = range(len(expected))
            assert [prepared.memory(place) for place in places] == expected
            assert [prepared.places[m.memory_id] for m in expected] == [*places]
            assert prepared.effective_importance(NOW, 30.0).tolist() == pytest.approx(importance)
            for place in places:
                _, _, lasting, accesses = prepared.encoded(place)
                message = convert.memory_message(expected[place], now=NOW, half_life_days=30.0)
                message.ClearField("effective_importance")
                assert pb.Memory.FromString(lasting + accesses) == message


async def test_a_session_read_in_parts_has_what_changed_between_them(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other processes store, change, delete and purge while the parts are read."""
    session = Session("default", "session")
    capacity = Capacity(max_entries=100, half_life_days=30.0)
    everything = MemoryFilter()
    async with replicas(database_url) as (ours, theirs):
        known = [await theirs.put(session, f"fact {n}", capacity=capacity) for n in range(9)]
        await theirs.store.delete(session, known[1], "")
        changes = iter(
            (
                lambda: theirs.put(session, "while it is read", capacity=capacity),
                lambda: theirs.store.delete(session, known[0], ""),
                lambda: theirs.store.undelete(session, known[1], capacity),
                lambda: theirs.access(session, 2),
                lambda: theirs.put(session, "fact 8", 0.9, capacity=capacity),
            )
        )
        reads = ours.store.cache._reads  # noqa: SLF001  between two of them others write
        reading = reads.read

        async def read(*arguments: Any, **named: Any) -> Any:
            found = await reading(*arguments, **named)
            if change := next(changes, None):
                await change()
            return found

        monkeypatch.setattr(cache, "PART", 2)
        monkeypatch.setattr(reads, "read", read)
        await ours.seen(session)
        assert next(changes, None) is None
        monkeypatch.setattr(reads, "read", reading)
        prepared = await ours.prepared(session)
        assert prepared is not None
        found = [prepared.memory(place) for place in range(len(prepared.memories))]
        assert found == await in_database(ours, session)
        await ours.store.purge(session, everything, half_life_days=30.0, now=NOW)
        assert await ours.seen(session) == []


async def test_rows_written_by_this_process_are_not_read_back(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session("default", "session")
    async with replicas(database_url) as (ours, theirs):
        first = await ours.put(session, "first")
        await ours.seen(session)

        def never(*_: object) -> None:
            raise AssertionError("read back")

        monkeypatch.setattr(cache, "_read_live", never)
        monkeypatch.setattr(cache, "_read_news", never)
        second = await ours.put(session, "second")
        await ours.access(session, 0)
        await ours.store.delete(session, first, "")
        assert [m.memory_id for m in await ours.seen(session)] == [second]
        await theirs.put(session, "of another process")
        with pytest.raises(AssertionError, match="read back"):
            await ours.seen(session)
