from __future__ import annotations

import re
import time
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from memoryd.domain.ids import uuid7

if TYPE_CHECKING:
    from collections.abc import Callable

CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
NOON = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)


def milliseconds(memory_id: str) -> int:
    return uuid.UUID(memory_id).int >> 80


def test_ids_are_version_7_in_lower_case() -> None:
    assert CANONICAL.fullmatch(uuid7())
    assert CANONICAL.fullmatch(uuid7(NOON))


def test_ids_contain_their_time() -> None:
    before = time.time_ns() // 1_000_000
    made = milliseconds(uuid7())
    assert before <= made <= time.time_ns() // 1_000_000 + 1
    there = timezone(timedelta(hours=5))
    time_there = NOON.astimezone(there) + timedelta(microseconds=1_999)
    assert milliseconds(uuid7(time_there)) == NOON.timestamp() * 1000 + 1


@pytest.mark.parametrize("make", [uuid7, lambda: uuid7(NOON)])
def test_ids_increase_within_a_millisecond(make: Callable[[], str]) -> None:
    ids = [make() for _ in range(10_000)]
    assert ids == sorted(set(ids))


def test_ids_increase_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    first = uuid7()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3_600 * 10**9)
    assert uuid7() > first


def test_given_times_do_not_move_the_clock() -> None:
    uuid7(datetime(2200, 1, 1, tzinfo=UTC))
    assert milliseconds(uuid7()) < datetime(2200, 1, 1, tzinfo=UTC).timestamp() * 1000


def test_times_that_no_id_can_contain_become_the_nearest() -> None:
    assert milliseconds(uuid7(datetime(1969, 7, 20, tzinfo=UTC))) == 0


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        uuid7(datetime(2025, 6, 1))  # noqa: DTZ001 - the point of the test
