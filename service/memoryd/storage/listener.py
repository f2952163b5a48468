"""Hears what other processes tell of their commits, on one connection for all who want to know."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING

from memoryd.errors import MemorydError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from memoryd.storage.database import Database

BACK_OFF_SECONDS = 0.5
"""Before the first attempt to listen again; twice as long before each further one."""

MAX_BACK_OFF_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Listener:
    """Listens on a database that tells (PostgreSQL); on any other it does nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._heard: dict[str, Callable[[str], None]] = {}
        self._looks: list[Callable[[], Awaitable[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self.is_listening = False
        """Whether what is told arrives."""

    def subscribe(
        self, channel: str, heard: Callable[[str], None], look: Callable[[], Awaitable[None]]
    ) -> None:
        """Have `heard` called with each payload; to be called before `start`.

        `look` is awaited where something may have been missed: when listening begins, and when it
        is lost. It may raise MemorydError.
        """
        self._heard[channel] = heard
        self._looks.append(look)

    def start(self) -> None:
        """Begin to listen, now and whenever the connection was lost."""
        if self._database.can_listen:
            self._task = asyncio.create_task(self._listen(), name="listener")

    async def close(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self) -> None:
        back_off = BACK_OFF_SECONDS
        while True:
            try:
                async with self._database.listening(self._heard) as lost:
                    for look in self._looks:
                        await look()
                    self.is_listening, back_off = True, BACK_OFF_SECONDS
                    await lost.wait()
                _log.warning("the connection that listens for changes was lost")
            except MemorydError as error:
                if back_off == BACK_OFF_SECONDS:  # once, however long it lasts
                    _log.warning("not listening for changes: %s", error)
            except Exception:  # noqa: BLE001  without it nobody would hear again
                _log.exception("not listening for changes, by a defect")
            finally:
                self.is_listening = False
            for look in self._looks:
                with contextlib.suppress(MemorydError):  # health tells of it
                    await look()
            await asyncio.sleep(back_off * random.uniform(0.5, 1.5))  # noqa: S311  jitter
            back_off = min(2 * back_off, MAX_BACK_OFF_SECONDS)
