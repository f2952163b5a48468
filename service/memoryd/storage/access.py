"""Access tracking behind the read."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING

from memoryd.errors import MemorydError
from memoryd.storage.writes import Touch

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from memoryd.model import Memory, Session
    from memoryd.storage.memories import MemoryStore

_log = logging.getLogger(__name__)


class AccessTracker:
    """Counts accesses in memory and writes them behind the reads."""

    def __init__(self, store: MemoryStore, *, flush_seconds: float = 0.5) -> None:
        self._store = store
        self._flush_seconds = flush_seconds
        self._counts: Counter[tuple[Session, str]] = Counter()
        self._last: dict[tuple[Session, str], datetime] = {}
        self._flusher: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    def record(self, accessed: Iterable[Memory], now: datetime) -> None:
        """Remember that these were returned; costs no input or output."""
        for memory in accessed:
            key = memory.session, memory.memory_id
            self._counts[key] += 1
            self._last[key] = now
        if self._counts and self._flusher is None:
            self._flusher = asyncio.create_task(self._flush_soon(), name="access tracking")

    async def close(self) -> None:
        """Write what has gathered."""
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)
        await self.flush()

    async def _flush_soon(self) -> None:
        await asyncio.sleep(self._flush_seconds)
        self._flusher = None
        await self.flush()

    async def flush(self) -> None:
        """Write what has been recorded before; return once it is committed, or given up."""
        async with self._writing:
            counts, last = self._counts, self._last
            self._counts, self._last = Counter(), {}
            accesses = [
                Touch(session, i, n, last[session, i]) for (session, i), n in counts.items()
            ]
            try:
                await self._store.touch(accesses)
            except MemorydError:
                # It is not known whether they were committed, and none may count twice.
                _log.warning("accesses lost", extra={"count": len(accesses)})
