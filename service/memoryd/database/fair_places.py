"""Places for a few at once, which tenants take in turns."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from memoryd.database.fair_queue import FairQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class FairPlaces:
    """Who finds no place waits in line. One that becomes free goes to the next tenant's first."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._line: FairQueue[asyncio.Future[None]] = FairQueue(quantum=1)

    @property
    def are_taken(self) -> bool:
        return not self._free

    @property
    def line(self) -> FairQueue[asyncio.Future[None]]:
        """Who waits, by how much they bring."""
        return self._line

    @asynccontextmanager
    async def place(self, tenant: str, amount: int = 1) -> AsyncIterator[None]:
        """Wait for a place, and hold it. `amount` is what `line` counts of it meanwhile."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(tenant, amount)
        try:
            yield
        finally:
            self._give_back()

    async def _wait(self, tenant: str, amount: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.add(tenant, turn, amount)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._line.remove(tenant, turn)
            elif turn.exception() is None:
                self._give_back()
            raise

    def turn_away(self, error: Exception) -> None:
        """Have those in line fail."""
        for turn in self._line.take(sys.maxsize, most_tenants=sys.maxsize):
            if not turn.done():
                turn.set_exception(error)

    def _give_back(self) -> None:
        for turn in self._line.take(1, most_tenants=1):
            turn.set_result(None)
            return
        self._free += 1
