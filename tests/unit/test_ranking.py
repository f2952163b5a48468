"""Importances computed together equal those computed one by one, at any time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoryd.domain.importance import Importances, effective_importance

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

facts = st.tuples(
    st.floats(0, 1), st.floats(-(10**9), 10**8).map(lambda s: NOW + timedelta(seconds=s)),
    st.integers(0, 30),
)  # fmt: skip


@given(
    st.lists(facts, max_size=20),
    st.lists(st.floats(-(10**9), 10**10), min_size=1, max_size=3),
    st.floats(0.1, 1000),
)
def test_many_at_once_equal_one_after_the_other(
    found: list[tuple[float, datetime, int]], moments: list[float], half_life_days: float
) -> None:
    kept = Importances(
        np.array([importance for importance, _, _ in found], np.float64),
        np.array([created_at.timestamp() for _, created_at, _ in found], np.float64),
        np.array([count for _, _, count in found], np.float64),
        half_life_days,
    )
    for seconds in moments:
        now = NOW + timedelta(seconds=seconds)
        expected = [
            effective_importance(*fact, now=now, half_life_days=half_life_days) for fact in found
        ]
        assert kept.at(now).tolist() == pytest.approx(expected, rel=1e-6, abs=1e-12)
