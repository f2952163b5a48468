"""Writes in a shared transaction have the same result as in separate ones, one by one."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.patience import PATIENT_DATABASE

from memoryd.database.engine import Database
from memoryd.database.tables import (
    memories,
    memory_history,
    sessions,
    store_receipts,
    store_requests,
)
from memoryd.database.tenancy import EVERY_TENANT
from memoryd.domain.content import hashes_of
from memoryd.domain.errors import MemorydError
from memoryd.domain.records import Capacity, ContentType, Memory, MemoryEdit, NewMemory, Session
from memoryd.memories.rows import COLUMNS, memory_of
from memoryd.memories.unit_of_work import UnitOfWork
from memoryd.memories.writes import (
    Delete,
    Expire,
    Outcome,
    Retire,
    Store,
    Undelete,
    Update,
    Write,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BEGINNING = NOW - timedelta(days=2)
CAPACITY = Capacity(max_entries=4, half_life_days=30.0)
AT_FIRST = 6
"""Memories: two live, two deleted, two expired but not swept."""

numbers = itertools.count()


class Plan(NamedTuple):
    """A write; it names a memory by its place among the first."""

    kind: str
    place: int = 0
    contents: tuple[str, ...] = ("fact 0",)
    importance: float | None = None
    request_id: str = ""
    is_late: bool = False
    """Whether it names an outdated etag."""


REQUEST_IDS = [f"{'0' * 8}-0000-7000-8000-{number:012}" for number in range(2)]
places = st.integers(0, AT_FIRST - 1)
contents = st.sampled_from([f"fact {number}" for number in range(9)])
importances = st.sampled_from((None, 0.0, 0.5, 0.9))
plans = st.one_of(
    st.builds(
        Plan,
        st.just("store"),
        st.just(0),
        contents=st.lists(contents, min_size=1, max_size=3).map(tuple),
        importance=importances,
        request_id=st.sampled_from(("", "", *REQUEST_IDS)),
    ),
    st.builds(
        Plan,
        st.just("update"),
        places,
        st.lists(contents, max_size=1).map(tuple),
        importances,
        is_late=st.booleans(),
    ),
    st.builds(Plan, st.sampled_from(("delete", "undelete", "expire", "retire")), places),
)


def new(session: Session, content: str, **fields: Any) -> NewMemory:
    hashes = hashes_of(content)
    fields = {"importance": 0.5, "expires_at": None, **fields}
    return NewMemory(
        session=session,
        content=content,
        content_type=ContentType.FACT,
        metadata={},
        content_hash=hashes.content_hash,
        semantic_hash=hashes.semantic_hash,
        **fields,
    )


def write_of(plan: Plan, session: Session, first: Sequence[Memory]) -> Write:
    memory_id = first[plan.place].memory_id
    importance = 0.5 if plan.importance is None else plan.importance
    writes: dict[str, Callable[[], Write]] = {
        "store": lambda: store_of(plan, session, importance),
        "update": lambda: update_of(plan, session, memory_id),
        "delete": lambda: Delete(session, memory_id),
        "undelete": lambda: Undelete(session, memory_id, CAPACITY),
        "expire": lambda: Expire(session, memory_id),
        "retire": lambda: Retire(session, memory_id, NOW - timedelta(days=1)),
    }
    return writes[plan.kind]()


def store_of(plan: Plan, session: Session, importance: float) -> Store:
    items = []
    for content in plan.contents:
        item = new(session, content, importance=importance, request_id=plan.request_id)
        # As a request's, it tells all that a retry could say otherwise.
        said = hashes_of(f"{content} {importance}").content_hash
        items.append(item._replace(fingerprint=said))
    return Store(tuple(items), CAPACITY)


def update_of(plan: Plan, session: Session, memory_id: str) -> Update:
    values: dict[str, Any] = {}
    for content in plan.contents:
        hashes = hashes_of(content)
        values = {"content": content, **dataclasses.asdict(hashes)}
    if plan.importance is not None:
        values["importance"] = plan.importance
    return Update(MemoryEdit(session, memory_id, etag="r0" if plan.is_late else "", **values))


class Bench:
    """One session of a database."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self.session = Session("default", name)
        self.first: list[Memory] = []

    async def apply(self, *writes: Write, now: datetime = NOW) -> Sequence[Outcome | MemorydError]:
        return await self._database.write(
            lambda connection: UnitOfWork(connection, self._database.dialect, now).apply(writes),
            tenants=EVERY_TENANT,
        )

    async def begin(self) -> None:
        expiries = [None] * 4 + [BEGINNING + timedelta(days=1)] * 2
        items = [new(self.session, f"fact {n}", expires_at=e) for n, e in enumerate(expiries)]
        roomy = dataclasses.replace(CAPACITY, max_entries=AT_FIRST)
        (stored,) = await self.apply(Store(tuple(items), roomy), now=BEGINNING)
        assert isinstance(stored, tuple)
        self.first = [each.memory for each in stored]
        await self.apply(
            *(Delete(self.session, memory.memory_id) for memory in self.first[2:4]), now=BEGINNING
        )

    async def state(self) -> list[list[Any]]:
        """All rows of the session, without what differs between sessions."""

        def body(connection: sa.Connection) -> list[list[Any]]:
            found = []
            for table, order in (
                (sessions, "revision"),
                (memories, "created_revision"),
                (memory_history, "revision"),
                (store_requests, "request_id"),
                (store_receipts, "request_id"),
            ):
                of_session = table.c.session_id == self.session.session_id
                rows = connection.execute(sa.select(table).where(of_session).order_by(order))
                found.append([self._plain(row._asdict()) for row in rows])
            return found

        return await self._database.read(body, tenants=EVERY_TENANT)

    async def plain(self, outcomes: Sequence[Outcome | MemorydError]) -> list[str]:
        """Outcomes, without what differs between sessions."""

        def names(connection: sa.Connection) -> dict[str, str]:
            of_session = memories.c.session_id == self.session.session_id
            rows = connection.execute(sa.select(*COLUMNS).where(of_session)).all()
            return {m.memory_id: f"<{m.created_revision}>" for m in map(memory_of, rows)}

        known = await self._database.read(names, tenants=EVERY_TENANT)
        texts = []
        for outcome in outcomes:
            text = repr(outcome).replace(self.session.session_id, "…")
            for memory_id, name in known.items():
                text = text.replace(memory_id, name)
            texts.append(text)
        return texts

    @staticmethod
    def _plain(row: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value
            for name, value in row.items()
            if name not in ("session_id", "id", "memory_id", "answer")
        }


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, PATIENT_DATABASE)
    yield database
    await database.close()


@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(plans, min_size=2, max_size=10))
@example([*(Plan("update", place, (), 0.9) for place in (0, 1)), Plan("store", 0, ("a", "b", "c"))])
@example([*(Plan("undelete", place) for place in (2, 3)), Plan("store", 0, ("a", "b", "c"))])
@example([Plan("store", 0, ("a",), importance, REQUEST_IDS[0]) for importance in (0.5, 0.0)])
async def test_a_group_has_the_same_result_as_its_writes(
    database: Database, planned: list[Plan]
) -> None:
    together, apart = (Bench(database, f"bench-{next(numbers):06}") for _ in range(2))
    for bench in (together, apart):
        await bench.begin()
    grouped = [write_of(plan, together.session, together.first) for plan in planned]
    single = [write_of(plan, apart.session, apart.first) for plan in planned]
    try:
        outcomes = await together.apply(*grouped)
    except sa.exc.IntegrityError:
        return  # contents moved within the group: its writes are retried one by one
    expected = [outcome for write in single for outcome in await apart.apply(write)]
    assert await together.plain(outcomes) == await apart.plain(expected)
    assert await together.state() == await apart.state()
