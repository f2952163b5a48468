"""Runs `scrub.py` in a process of its own, once for all who wait for it."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from memoryd.errors import DatabaseUnavailable
from memoryd.storage import scrub

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

MOST_PATIENCE_SECONDS = 30.0
"""How long a reader of an old state may hinder it, where a command's limits are longer."""


class Scrubbing:
    """Scrubs an embedded database; who asks while it does shares the next run.

    A run begins no sooner after the last one than that one took: however many erasures there are,
    it reads the file for half of the time at most.
    """

    def __init__(self, database: str, *, patience_seconds: float) -> None:
        """`database` is what SQLite is to open, a path or a `file:` URI."""
        self._command = (
            *(sys.executable, "-I", "-S", scrub.__file__),
            *(database, str(min(patience_seconds, MOST_PATIENCE_SECONDS))),
        )
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._not_before = 0.0
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Return once a run that began from here on has ended. Raises DatabaseUnavailable."""
        if self._next is None:
            self._next = asyncio.create_task(self._run_next(), name="scrubbing")
            self._tasks.add(self._next)
            self._next.add_done_callback(self._done)
        await asyncio.shield(self._next)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its callers may be gone

    async def _run_next(self) -> None:
        now = asyncio.get_running_loop().time
        async with self._turn:
            await self._unless_stopped(asyncio.sleep(self._not_before - now()))
            self._next = None  # who asks from here on has erased since
            began = now()
            try:
                await self._scrub()
            finally:
                self._not_before = 2 * now() - began

    async def _scrub(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,  # whose end it ends with
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a terminal interrupts this process, which tells it
        )
        try:
            told = process.stderr and await self._unless_stopped(process.stderr.read())
        finally:
            if process.stdin is not None:
                process.stdin.close()
            code = await process.wait()
        if code:
            lines = (told or b"").decode(errors="replace").splitlines()
            cause = lines[-1] if lines else f"the process ended with code {code}"
            raise DatabaseUnavailable(f"erased contents are not yet overwritten: {cause}")

    async def _unless_stopped(self, work: Coroutine[Any, Any, Any]) -> Any:
        working = asyncio.ensure_future(work)
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise DatabaseUnavailable(
                    "erased contents are not yet overwritten: this server stops, the next goes on"
                )
            return working.result()
        finally:
            working.cancel()
            stopped.cancel()

    async def stop(self) -> None:
        """End a run; what is owed is done by the next server."""
        self._stopping.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
