"""Runs `scrub.py` in a process of its own, once for all who wait for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

from memoryd.database import scrub
from memoryd.domain.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable
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
        process = await asyncio.to_thread(self._begin)
        reading = asyncio.create_task(asyncio.to_thread(_last_line, process))
        try:
            await self._unless_stopped(asyncio.shield(reading))
        finally:
            if process.stdin is not None:
                process.stdin.close()
            last_line = await reading
        if process.returncode:
            cause = last_line or f"the process ended with code {process.returncode}"
            raise DatabaseUnavailable(f"erased contents are not yet overwritten: {cause}")

    def _begin(self) -> subprocess.Popen[bytes]:
        # Not by the event loop: uvloop forks, and gRPC's fork handlers crash some of the children.
        # Python itself uses vfork, which runs no handlers.
        return subprocess.Popen(  # noqa: S603  this program's own file
            self._command,
            stdin=subprocess.PIPE,  # whose end it ends with
            stderr=subprocess.PIPE,
            start_new_session=True,  # a terminal interrupts this process, which tells it
        )

    async def _unless_stopped(self, work: Awaitable[Any]) -> Any:
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


def _last_line(process: subprocess.Popen[bytes]) -> str:
    """Wait for its end, and give the last line that it has written."""
    with process:
        written = process.stderr.read() if process.stderr is not None else b""
    return written.decode(errors="replace").rstrip().rpartition("\n")[2]
