"""The curve of a memory, for the times and settings that a page may be asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from memoryd.client import Memory
from memoryd.console.decay import Decay

STORED = datetime(2026, 3, 1, 12, tzinfo=UTC)


def decay(
    days: float,
    *,
    importance: float = 0.8,
    half_life: float = 30.0,
    ttl: float = 0,
    accesses: int = 0,
) -> Decay:
    """Of a memory that was stored so many days ago, and lives so many; 0: for ever."""
    memory = Memory(
        importance=importance,
        access_count=accesses,
        create_time=STORED,
        expire_time=STORED + timedelta(days=ttl) if ttl else None,
    )
    now = STORED + timedelta(days=days)
    return Decay(memory, now=now, half_life_days=half_life, threshold=0.3)


def test_the_crossing_is_where_the_formula_gives_the_threshold():
    found = decay(1, importance=0.6)
    assert found.crossing == pytest.approx(30 * 86_400, abs=2)
    assert found.at(found.crossing) < 0.3 <= found.at(found.crossing - 2)


@pytest.mark.parametrize(("importance", "accesses"), [(0.1, 0), (0.0, 0), (0.9, 15)])
def test_what_starts_below_or_stays_above_crosses_nothing(importance: float, accesses: int):
    found = decay(1, importance=importance, accesses=accesses)
    found.threshold = 0.2
    assert found.crossing is None
    assert found.is_below is (importance < 0.2)


@pytest.mark.parametrize("days", [-5, 0, 0.001, 40, 4000])
@pytest.mark.parametrize("half_life", [0.01, 30, 1e6])
@pytest.mark.parametrize("ttl", [0, 0.01, 30, 20_000])
def test_every_point_is_within_the_drawing(days: float, half_life: float, ttl: float):
    found = decay(days, half_life=half_life, ttl=ttl)
    assert found.end >= found.age
    for width in (340, 1060):
        drawing = found.drawn(width, 240)
        points = f"{drawing.past} {drawing.future} {drawing.given_area} {drawing.boost_area}"
        for point in points.split():
            x, y = map(float, point.split(","))
            assert drawing.left <= x <= drawing.right
            assert drawing.top <= y <= drawing.bottom
        assert 1 <= len(drawing.times) <= drawing.width / 60
        assert drawing.marks[0].text == f"now {found.value:.2f}"
