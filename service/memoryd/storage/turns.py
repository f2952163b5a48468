"""Gathering what comes at about the same time, without a timer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TURNS = 8
"""So that a stream of arrivals without a gap holds nobody up."""


async def while_more_come(count: Callable[[], int]) -> None:
    """Let the event loop turn for as long as each turn raises the count.

    Work shared by all that waits costs each the less the more they are; one that waits alone is
    held up by a single turn.
    """
    before = count()
    for _ in range(MAX_TURNS):
        await asyncio.sleep(0)
        now = count()
        if now <= before:
            return
        before = now
