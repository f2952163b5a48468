"""Effective importance is the same number in SQL and in Python."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, select
from tests.patience import PATIENT_DATABASE

from memoryd.database.dialect import columns_of
from memoryd.database.engine import Database
from memoryd.database.tables import memories, sessions
from memoryd.database.tenancy import EVERY_TENANT
from memoryd.domain.ids import uuid7
from memoryd.domain.importance import effective_importance
from memoryd.domain.records import ContentType, Memory, Session
from memoryd.memories import rows

pytestmark = pytest.mark.whole

SESSION = Session("default", "formula")
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SMALLEST = 5e-324


class Facts(NamedTuple):
    """The inputs of the formula."""

    importance: float
    age: timedelta
    """Negative if created in the future."""
    access_count: int


ages = st.one_of(
    st.timedeltas(timedelta(days=-400), timedelta(days=20_000)),
    st.timedeltas(timedelta(seconds=-2), timedelta(seconds=2)),
    st.builds(timedelta, days=st.integers(-1, 1000)),
)
facts = st.builds(
    Facts,
    st.floats(0, 1) | st.sampled_from((0.0, SMALLEST, 0.5, 1.0)),
    ages,
    st.integers(0, 12) | st.integers(0, 2**31 - 1),
)
moments = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  hypothesis adds the zone
half_lives = st.floats(0.5, 365) | st.sampled_from((0.5, 1.0, 30.0, 365.0))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, PATIENT_DATABASE)
    yield database
    await database.close()


async def in_sql(
    database: Database, wanted: list[Facts], now: datetime, half_life: float
) -> list[float]:
    """Store rows, have the database evaluate the formula over them, and remove them."""
    stored = [
        Memory(
            session=SESSION,
            memory_id=uuid7(),
            content="",
            content_type=ContentType.FACT,
            importance=each.importance,
            metadata={},
            content_hash=str(place),
            semantic_hash="",
            created_at=now - each.age,
            updated_at=now,
            expires_at=None,
            revision=place,
            created_revision=place,
            access_count=each.access_count,
        )
        for place, each in enumerate(wanted)
    ]
    statement = select(rows.effective_importance(database.dialect)).order_by(memories.c.revision)

    def body(connection: Connection) -> list[float]:
        row = {**SESSION._asdict(), "revision": len(stored)}
        database.dialect.insert_many(connection, sessions, columns_of([row]))
        database.dialect.insert_many(connection, memories, rows.inserted(stored))
        found = connection.scalars(statement, {"now": now, "half_life_days": half_life}).all()
        connection.execute(delete(memories))
        connection.execute(delete(sessions))
        return list(found)

    return await database.write(body, tenants=EVERY_TENANT)


@settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(wanted=st.lists(facts, min_size=1, max_size=30), now=moments, half_life=half_lives)
@example(wanted=[Facts(1.0, timedelta(days=20_000), 0)], now=NOON, half_life=0.5)
@example(wanted=[Facts(SMALLEST, timedelta(days=1), 0)], now=NOON, half_life=1.0)
@example(wanted=[Facts(1e-160, timedelta(days=600), 1)], now=NOON, half_life=1.0)
async def test_sql_and_python_say_the_same(
    database: Database, wanted: list[Facts], now: datetime, half_life: float
) -> None:
    found = await in_sql(database, wanted, now, half_life)
    expected = [
        effective_importance(
            each.importance,
            now - each.age,
            each.access_count,
            now=now,
            half_life_days=half_life,
        )
        for each in wanted
    ]
    assert found == pytest.approx(expected, rel=0, abs=1e-9)
    assert all(0 <= number <= 1 for number in (*found, *expected))
