"""Several processes that serve as one: started, replaced when they die, drained together.

Each worker is a server of its own that listens on the same port (`SO_REUSEPORT`): the kernel
spreads connections over them. They are started anew, never forked, since gRPC does not survive a
fork. What ties them to their parent is a pipe: a worker whose standard input ends has lost it, and
stops.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

READY = "ready"
"""The line that a worker writes on its standard output once it serves."""

STEADY_SECONDS = 30.0
"""A worker that lived so long, ready, died of something else than its start."""

MOST_DEATHS = 5
"""Deaths in one place in a row, each within STEADY_SECONDS; at one more nothing is tried again."""

FIRST_PAUSE_SECONDS = 0.1
"""Before a worker is replaced; twice as long after each further death."""

_log = logging.getLogger(__name__)


class WorkersFailed(Exception):
    """They could not be kept running. The message says what happened, not why: they did."""


class Workers:
    """Keeps a number of workers running."""

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        count: int,
        *,
        stop_timeout_seconds: float,
        ready: Callable[[], None],
    ) -> None:
        """Call `ready` once all are; kill those that do not stop within `stop_timeout_seconds`."""
        self._command = command
        self._environ = environ
        self._count = count
        self._stop_timeout_seconds = stop_timeout_seconds
        self._ready = ready
        self._waited_for = set(range(count))
        self._stopping = asyncio.Event()
        self._processes: set[asyncio.subprocess.Process] = set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Run them until told to stop, then let them end. Raises WorkersFailed."""
        keepers = [
            asyncio.create_task(self._keep(n), name=f"worker {n}") for n in range(self._count)
        ]
        told = asyncio.create_task(stopping.wait())
        await asyncio.wait((*keepers, told), return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        self._stopping.set()
        self._send(signal.SIGTERM)
        _, late = await asyncio.wait(keepers, timeout=self._stop_timeout_seconds)
        if late:
            self._send(signal.SIGKILL)
        for outcome in await asyncio.gather(*keepers, return_exceptions=True):
            if outcome is not None:
                raise outcome
        if late:
            raise WorkersFailed(f"{len(late)} workers did not end in time and were killed")

    async def _keep(self, number: int) -> None:
        """Run one worker after the other in a place."""
        deaths = 0
        while not self._stopping.is_set():
            lived, code = await self._run_one(number)
            if self._stopping.is_set():
                return
            if number in self._waited_for and code > 0:  # it has said why, as a lone server would
                raise WorkersFailed("a worker could not start")
            deaths = deaths + 1 if lived is None or lived < STEADY_SECONDS else 1
            if deaths > MOST_DEATHS:
                raise WorkersFailed(f"a worker died {deaths} times in a row")
            try:
                async with asyncio.timeout(FIRST_PAUSE_SECONDS * 2 ** (deaths - 1)):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    async def _run_one(self, number: int) -> tuple[float | None, int]:
        """Run a worker to its end: for how many seconds it served, None if never; its exit code."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environ,
                stdin=asyncio.subprocess.PIPE,  # whose other end only this process has
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # a terminal interrupts this process, which tells them
            )
        except OSError as error:  # the machine may be short of something, for now
            _log.error("no worker can be started: %s", error.strerror)
            return None, 1
        self._processes.add(process)
        if self._stopping.is_set():
            self._send(signal.SIGTERM)
        told = process.stdout and await process.stdout.readline()
        served = told == f"{READY}\n".encode()
        since = asyncio.get_running_loop().time()
        if served:
            self._count_ready(number)
        code = await process.wait()
        self._processes.discard(process)
        if not self._stopping.is_set():
            _log.error("a worker died", extra={"pid": process.pid, "code": code})
        return (asyncio.get_running_loop().time() - since if served else None), code

    def _send(self, number: signal.Signals) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):  # it has just ended
                process.send_signal(number)

    def _count_ready(self, number: int) -> None:
        if self._waited_for:
            self._waited_for.discard(number)
            if not self._waited_for:
                self._ready()


@contextmanager
def reserved_port(host: str, port: int) -> Iterator[int]:
    """Keep a port until the end of the block, for those who listen on it with SO_REUSEPORT.

    0 is any free one. Raises OSError where it cannot be had: also where others share it already,
    who would get some of our callers.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise OSError("several processes cannot share a port on this system: set workers to 1")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.create_server(address, family=family, backlog=1) as alone:
            port = alone.getsockname()[1]
        keeper = socket.socket(family)
    except OSError as error:
        bracketed = f"[{host}]" if ":" in host else host
        raise OSError(f"cannot listen on {bracketed}:{port}: {error.strerror}") from error
    with keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        keeper.bind((address[0], port, *address[2:]))
        yield port
