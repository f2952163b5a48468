"""How the console says how far a time is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from memoryd.console.rendering import relative

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"),
        (-59, "just now"),
        (-60, "1 min ago"),
        (-3599, "59 min ago"),
        (-3600, "1 hour ago"),
        (-2 * 86_400, "2 days ago"),
        (-90 * 86_400, "3 months ago"),
        (-800 * 86_400, "2 years ago"),
        (1, "in 1 min"),
        (86_399, "in 1 day"),
        (86_400, "in 1 day"),
        (86_340, "in 23 hours"),
        (30 * 86_400, "in 1 month"),
    ],
)
def test_a_time_is_said_by_its_largest_unit(seconds: int, text: str):
    assert relative(NOW + timedelta(seconds=seconds), NOW) == text
