"""From a large session the same memories are evicted as from a small one: the least important."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Executable, delete, select, update
from tests.patience import PATIENT_DATABASE

from memoryd.database import statements
from memoryd.database.dialect import columns_of
from memoryd.database.dump import write_rows
from memoryd.database.engine import Database
from memoryd.database.tables import memories, memory_history, sessions
from memoryd.database.tenancy import EVERY_TENANT
from memoryd.domain.content import hashes_of
from memoryd.domain.ids import uuid7
from memoryd.domain.importance import effective_importance
from memoryd.domain.records import Capacity, ContentType, Memory, NewMemory, Session
from memoryd.memories import eviction, rows
from memoryd.memories.lookups import lookups_of
from memoryd.memories.ranker import rank_some
from memoryd.memories.store import MemoryStore
from memoryd.memories.unit_of_work import UnitOfWork
from memoryd.memories.writes import Store

pytestmark = pytest.mark.whole

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SESSION = Session("default", "crowded")
HALF_LIFE = 30.0
SAME = 1e-9
"""Effective importances that differ by less may come in any order."""


class Facts(NamedTuple):
    """What decides when a memory goes."""

    importance: float
    age: timedelta
    access_count: int = 0
    expires: bool = False
    """Whether it has expired, and is not swept yet."""


facts = st.builds(
    Facts,
    st.floats(0, 1) | st.sampled_from((0.0, 0.5, 1.0)),
    st.timedeltas(timedelta(0), timedelta(days=900)) | st.just(timedelta(days=3)),
    st.integers(0, 12),
    st.sampled_from((False, False, False, True)),
)


class Step(NamedTuple):
    """What happens to the session before a batch is stored."""

    stored: int
    """Memories in the batch."""
    capacity: int
    half_life: float = HALF_LIFE
    accessed: tuple[int, ...] = ()
    """Places of memories whose accesses a server counts that does not know of ranks."""
    ranked: int = 0
    """Transactions of the ranker that come first."""
    changed: tuple[int, ...] = ()
    """Places of memories that such a server changes."""


places = st.lists(st.integers(0, 39), max_size=4).map(tuple)
steps = st.builds(
    Step,
    st.integers(1, 6),
    st.integers(4, 40),
    st.sampled_from((HALF_LIFE, HALF_LIFE, 1.0)),
    places,
    st.integers(0, 6),
    places,
)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, PATIENT_DATABASE)
    yield database
    await database.close()


@pytest.fixture(autouse=True)
def small_sessions_have_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a session of a few memories be as a large one, which is ranked in several steps."""
    monkeypatch.setattr(eviction, "UNRANKED_MEMORIES", 3)
    monkeypatch.setattr(eviction, "RANKED_AT_ONCE", 12)


def put(database: Database, connection: Connection, wanted: Sequence[Facts]) -> None:
    connection.execute(delete(memory_history))
    connection.execute(delete(memories))
    connection.execute(delete(sessions))
    found = [
        Memory(
            session=SESSION,
            memory_id=uuid7(),
            content=f"memory {place}",
            content_type=ContentType.FACT,
            importance=each.importance,
            metadata={},
            content_hash=str(place),
            semantic_hash="0" * 16,
            created_at=NOON - each.age,
            updated_at=NOON,
            expires_at=NOON - timedelta(seconds=1) if each.expires else None,
            revision=place + 1,
            created_revision=place + 1,
            access_count=each.access_count,
        )
        for place, each in enumerate(wanted)
    ]
    row = {**SESSION._asdict(), "revision": len(found)}
    database.dialect.insert_many(connection, sessions, columns_of([row]))
    database.dialect.insert_many(connection, memories, rows.inserted(found))


def kept(connection: Connection) -> list[Memory]:
    statement = select(*rows.COLUMNS).where(memories.c.deleted_at.is_(None))
    return [rows.memory_of(row) for row in connection.execute(statement.order_by("revision"))]


def live(connection: Connection, now: datetime) -> dict[str, Memory]:
    return {m.memory_id: m for m in kept(connection) if m.is_live(now)}


def meddle(connection: Connection, step: Step) -> None:
    """Do what a server of an earlier release does."""
    there = kept(connection)
    for place in step.accessed:
        if place < len(there):
            memory = memories.c.id == there[place].memory_id
            connection.execute(update(memories).where(memory).values(access_count=7))
    revision = connection.execute(select(sessions.c.revision)).scalar_one()
    for place in step.changed:
        if place < len(there):
            revision += 1
            new = {"importance": place / 80, "revision": revision}
            connection.execute(
                update(memories).where(memories.c.id == there[place].memory_id).values(new)
            )
    connection.execute(update(sessions).values(revision=revision))


names = itertools.count()


def new_memory() -> NewMemory:
    content = f"new {next(names)}"
    hashes = hashes_of(content)
    return NewMemory(
        session=SESSION,
        content=content,
        content_type=ContentType.FACT,
        importance=0.6,
        metadata={},
        content_hash=hashes.content_hash,
        semantic_hash=hashes.semantic_hash,
        expires_at=None,
        request_id="",
        fingerprint="",
        field="",
    )


def score(memory: Memory, now: datetime, half_life: float) -> float:
    return effective_importance(
        memory.importance,
        memory.created_at,
        memory.access_count,
        now=now,
        half_life_days=half_life,
    )


@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(wanted=st.lists(facts, min_size=1, max_size=40), steps=st.lists(steps, max_size=5))
async def test_the_least_important_go(
    database: Database, wanted: list[Facts], steps: list[Step]
) -> None:
    def body(connection: Connection) -> None:
        put(database, connection, wanted)
        for number, step in enumerate(steps):
            now = NOON + timedelta(days=number)
            meddle(connection, step)
            for _ in range(step.ranked):
                rank_some(connection, database.dialect, SESSION, step.half_life, now)
            before = live(connection, now)
            capacity = Capacity(step.capacity, step.half_life)
            items = tuple(new_memory() for _ in range(step.stored))
            plan = UnitOfWork(connection, database.dialect, now)
            (outcome,) = plan.apply([Store(items, capacity)])
            assert isinstance(outcome, tuple)
            after = live(connection, now)
            evicted = {i for stored in outcome for i in stored.evicted_memory_ids}
            new = {stored.memory.memory_id: stored.memory for stored in outcome}
            assert before.keys() | new.keys() == after.keys() | evicted
            assert len(evicted) == max(0, len(before) + len(new) - step.capacity)
            # Whatever goes is the least of all at the time, but never what is stored just then.
            here = dict(before)
            for stored in outcome:
                for memory_id in stored.evicted_memory_ids:
                    gone = here.pop(memory_id)
                    least = min(score(m, now, step.half_life) for m in [gone, *here.values()])
                    assert score(gone, now, step.half_life) <= least + SAME
                here[stored.memory.memory_id] = stored.memory

    await database.write(body, tenants=EVERY_TENANT)


async def test_a_ranked_session_is_not_read_as_a_whole(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Executable] = []
    fetch = statements.fetch

    def caught(connection: Connection, statement: Executable, parameters: Any) -> Any:
        sent.append(statement)
        return fetch(connection, statement, parameters)

    def body(connection: Connection) -> None:
        put(database, connection, [Facts(0.5, timedelta(days=3))] * 8)
        for _ in range(2):
            sent.clear()
            plan = UnitOfWork(connection, database.dialect, NOON)
            ((stored,),) = plan.apply([Store((new_memory(),), Capacity(8, HALF_LIFE))])
            assert stored.evicted_memory_ids

    monkeypatch.setattr(statements, "fetch", caught)
    await database.write(body, tenants=EVERY_TENANT)
    lookups = lookups_of(database.dialect)
    assert not {lookups.least_important.select, lookups.kept_counts.select} & {*sent}


async def test_a_session_is_ranked_behind_the_stores(database: Database) -> None:
    """In several transactions, and again for another half-life."""
    store = MemoryStore(
        database,
        lambda: NOON,
        lambda _: None,
        standby=None,
        queue_limit=1000,
        batch_limit=1000,
        cache_bytes=1_000_000,
    )
    wanted = [Facts(0.5, timedelta(days=place)) for place in range(40)]
    await database.write(lambda c: put(database, c, wanted), tenants=EVERY_TENANT)
    s = sessions.c

    def ranked_for(connection: Connection) -> float | None:
        return connection.execute(
            select(s.ranked_half_life).where(s.ranked_revision == s.revision)
        ).scalar()

    try:
        for half_life in (HALF_LIFE, 1.0):
            await store.store([new_memory()], Capacity(50, half_life))
            for _ in range(100):
                found = await database.read(ranked_for, tenants=EVERY_TENANT)
                if found == half_life:
                    break
                await asyncio.sleep(0.1)
            assert found == half_life
    finally:
        await store.close()


async def test_an_imported_memory_is_evicted_like_others(database: Database) -> None:
    """It may stand below the revision up to which the session is ranked."""

    def body(connection: Connection) -> tuple[str, ...]:
        def store_one() -> tuple[str, ...]:
            plan = UnitOfWork(connection, database.dialect, NOON)
            ((stored,),) = plan.apply([Store((new_memory(),), Capacity(8, HALF_LIFE))])
            return stored.evicted_memory_ids

        put(database, connection, [Facts(0.5, timedelta(days=3))] * 8)
        (gone,) = store_one()
        row = connection.execute(select(memories).where(memories.c.id == gone)).mappings().one()
        connection.execute(delete(memory_history))  # whose row has the revision
        new = {"id": "imported", "importance": 0.0, "deleted_at": None, "content_hash": "imported"}
        revisions = {"revision": 1, "created_revision": 99}
        unranked = {"eviction_level": None, "eviction_rank": None}
        imported = {**row, **new, **revisions, **unranked}
        plain = {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in imported.items()
        }
        assert write_rows(connection, database.dialect, memories, [plain]) == (1, [])
        return store_one()

    assert "imported" in await database.write(body, tenants=EVERY_TENANT)


async def test_among_equals_the_longest_unchanged_goes(database: Database) -> None:
    def body(connection: Connection) -> list[str]:
        put(database, connection, [Facts(0.5, timedelta(days=3))] * 8)
        evicted = []
        for _ in range(4):
            plan = UnitOfWork(connection, database.dialect, NOON)
            ((stored,),) = plan.apply([Store((new_memory(),), Capacity(8, HALF_LIFE))])
            evicted += stored.evicted_memory_ids
        found = connection.execute(select(memories.c.id, memories.c.content))
        contents = {row.id: row.content for row in found}
        return [contents[memory_id] for memory_id in evicted]

    evicted = await database.write(body, tenants=EVERY_TENANT)
    assert evicted == [f"memory {place}" for place in range(4)]
