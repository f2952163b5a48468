"""Gathering what comes at about the same time, without a timer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

EMPTY_TURNS = 6
"""Turns in a row that bring nothing, after which waiting ends: gRPC hands over calls one by one,
not one each turn."""

MAX_TURNS = 64
"""So that a stream of arrivals without a gap does not delay the first."""


async def until_quiet(count: Callable[[], int]) -> None:
    """Let the event loop turn for as long as that raises the count.

    Work shared by all that waits costs each the less the more they are; one that waits alone is
    held up by a few turns, some microseconds each.
    """
    before = count()
    empty = 0
    for _ in range(MAX_TURNS):
        await asyncio.sleep(0)
        now = count()
        empty = 0 if now > before else empty + 1
        if empty == EMPTY_TURNS:
            return
        before = now
