"""A session's order of importance is that of the formula, whatever came, went and changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoryd.domain.importance import effective_importance
from memoryd.domain.records import ContentType, Memory, Session
from memoryd.retrieval import importance_order
from memoryd.retrieval.importance_order import ImportanceOrder

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SESSION = Session("default", "ordered")

memories = st.builds(
    lambda place, importance, age: Memory(
        session=SESSION,
        memory_id=f"{place:02}",
        content="",
        content_type=ContentType.FACT,
        importance=importance,
        metadata={},
        content_hash="",
        semantic_hash="",
        created_at=NOON - age,
        updated_at=NOON,
        expires_at=None,
        revision=place,
        created_revision=place,
    ),
    st.integers(0, 30),
    st.floats(0, 1) | st.sampled_from((0.0, 5e-324, 0.5, 1.0)),
    st.timedeltas(timedelta(days=-400), timedelta(days=9_000)) | st.just(timedelta(days=3)),
)
accessed = st.tuples(memories, st.integers(0, 12))
gone = st.integers(0, 30)
changes = st.lists(st.lists(accessed | gone, max_size=20), max_size=6)


@pytest.mark.parametrize("sorted_from", [0, 5, 1_000])
@settings(max_examples=100, derandomize=True, deadline=None)
@given(changes=changes, moved=st.timedeltas(timedelta(days=-500), timedelta(days=500)))
def test_it_is_the_order_of_the_formula(
    sorted_from: int, changes: list[list[tuple[Memory, int] | int]], moved: timedelta
) -> None:
    now = NOON + moved
    order = ImportanceOrder(30.0)
    there: dict[str, tuple[Memory, int]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importance_order, "SORTED_FROM", sorted_from)
        for some in changes:
            changed = {
                f"{one:02}" if isinstance(one, int) else one[0].memory_id: (
                    None if isinstance(one, int) else one
                )
                for one in some
            }
            order.update(changed)
            for memory_id, one in changed.items():
                there.pop(memory_id, None)
                if one is not None:
                    there[memory_id] = one
    expected = {
        memory_id: effective_importance(
            memory.importance, memory.created_at, times, now=now, half_life_days=30.0
        )
        for memory_id, (memory, times) in there.items()
    }
    found = [*order.descending(now)]
    assert {memory.memory_id: importance for importance, memory in found} == expected
    values = [importance for importance, _ in found]
    assert values == pytest.approx(sorted(values, reverse=True), rel=0, abs=1e-9)


def test_among_equals_the_older_come_first() -> None:
    order = ImportanceOrder(30.0)
    made = [
        Memory(
            session=SESSION,
            memory_id=str(place),
            content="",
            content_type=ContentType.FACT,
            importance=0.5,
            metadata={},
            content_hash="",
            semantic_hash="",
            created_at=NOON,
            updated_at=NOON,
            expires_at=None,
            revision=place,
            created_revision=place,
        )
        for place in (2, 1, 3)
    ]
    order.update({memory.memory_id: (memory, 0) for memory in made})
    assert [memory.memory_id for _, memory in order.descending(NOON)] == ["1", "2", "3"]
