"""Hears what other processes commit, on one connection for all that subscribe."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

from memoryd.database.backoff import BackOff
from memoryd.domain.errors import MemorydError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from memoryd.database.engine import Database

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 5.0
"""Before attempts to listen again."""

_log = logging.getLogger(__name__)


class Listener:
    """Listens on a database that notifies (PostgreSQL); on any other it does nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._heard: defaultdict[str, list[Callable[[str], None]]] = defaultdict(list)
        self._looks: list[Callable[[], Awaitable[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self.is_listening = False
        """Whether notifications arrive."""

    def subscribe(
        self, channel: str, heard: Callable[[str], None], look: Callable[[], Awaitable[None]]
    ) -> None:
        """Have `heard` called with each payload, as others may; to be called before `start`.

        `look` is awaited where something may have been missed: when listening begins, and when it
        is lost. It may raise MemorydError.
        """
        self._heard[channel].append(heard)
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
        back_off = BackOff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        while True:
            try:
                heard = {
                    channel: partial(_tell, several) for channel, several in self._heard.items()
                }
                async with self._database.listening(heard) as lost:
                    for look in self._looks:
                        await look()
                    self.is_listening = True
                    back_off.reset()
                    await lost.wait()
                _log.warning("the connection that listens for changes was lost")
            except MemorydError as error:
                if back_off.is_fresh:  # once, however long it lasts
                    _log.warning("not listening for changes: %s", error)
            except Exception:  # noqa: BLE001  without it listening would end for good
                _log.exception("unhandled exception while listening for changes; it is tried again")
            finally:
                self.is_listening = False
            for look in self._looks:
                with contextlib.suppress(MemorydError):  # health tells of it
                    await look()
            await asyncio.sleep(back_off.pause())


def _tell(several: Sequence[Callable[[str], None]], payload: str) -> None:
    for heard in several:
        heard(payload)
