"""Scrapes of this process, or of all workers; the library is loaded by the first one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from memoryd.telemetry.cells import Cells
from memoryd.telemetry.gauges import Siblings, reading
from memoryd.telemetry.instruments import SILENT, Instruments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memoryd.telemetry.gauges import Gauge, Place, Reading


class Telemetry:
    """What a process measures, and how it is told."""

    def __init__(self, place: Place | None = None, *, is_on: bool = True) -> None:
        """`place` is that of a worker among others. Raises OSError where it cannot be used."""
        self._place = place
        self.instruments = (
            Instruments(Cells(None if place is None else place.counts)) if is_on else SILENT
        )
        self._gauges: Callable[[], Sequence[Gauge]] = tuple
        self._siblings = None if place is None or not is_on else Siblings(place, self._read)
        self._scraping = asyncio.Lock()

    async def start(self, gauges: Callable[[], Sequence[Gauge]]) -> None:
        """Tell of `gauges`, to other workers too. Raises OSError where these cannot be reached."""
        self._gauges = gauges
        if self._siblings is not None:
            await self._siblings.start()

    async def stop(self) -> None:
        if self._siblings is not None:
            await self._siblings.stop()

    async def scrape(self, accept: str, *, with_tenants: bool) -> tuple[bytes, str]:
        """Give the body and the content type, one scrape after the other."""
        async with self._scraping:
            siblings = self._siblings
            if siblings is None:
                counts, readings = [self.instruments.counts()], [self._read()]
            else:
                readings = await siblings.readings()
                counts = await asyncio.to_thread(siblings.counts)

            def work() -> tuple[bytes, str]:
                # A tenth of what an idle server may take.
                from memoryd.telemetry.exposition import exposed  # noqa: PLC0415  as above

                return exposed(accept, counts, readings, with_tenants=with_tenants)

            return await asyncio.to_thread(work)

    def _read(self) -> Reading:
        return reading("" if self._place is None else self._place.worker, self._gauges())
