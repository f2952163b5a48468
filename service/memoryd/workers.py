"""Worker processes that serve on one port: started, replaced when they die, drained together.

Each worker is a complete server that listens on the same port (`SO_REUSEPORT`): the kernel spreads
connections over them. They are new processes, not forks, since gRPC does not survive a fork. A pipe
ties them to their parent: a worker whose standard input ends has lost its parent, and stops.
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
"""The line that a worker prints once it serves."""

STEADY_SECONDS = 30.0
"""A worker that served for so long did not die because of its start."""

MOST_DEATHS = 5
"""How often in a row a worker may die within STEADY_SECONDS and be replaced."""

FIRST_PAUSE_SECONDS = 0.1
"""How long to wait before a worker is replaced; twice as long after each further death."""

_log = logging.getLogger(__name__)


class WorkersFailed(Exception):
    """The workers could not be kept running. The workers themselves have logged the cause."""


class Workers:
    """Keeps a number of workers running."""

    def __init__(
        self,
        command_of: Callable[[int], Sequence[str]],
        environ: Mapping[str, str],
        count: int,
        *,
        stop_timeout_seconds: float,
        ready: Callable[[], None],
    ) -> None:
        """Run the command of each number, and call `ready` once all are.

        Those that do not stop within `stop_timeout_seconds` are killed.
        """
        self._command_of = command_of
        self._environ = environ
        self._count = count
        self._stop_timeout_seconds = stop_timeout_seconds
        self._ready = ready
        self._waited_for = set(range(count))
        self._stopping = asyncio.Event()
        self._processes: set[asyncio.subprocess.Process] = set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Run the workers until `stopping` is set, then drain them. Raises WorkersFailed."""
        keepers = [
            asyncio.create_task(self._keep(n), name=f"worker {n}") for n in range(self._count)
        ]
        waiting = asyncio.create_task(stopping.wait())
        await asyncio.wait((*keepers, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        self._stopping.set()
        self._send(signal.SIGTERM)
        _, late = await asyncio.wait(keepers, timeout=self._stop_timeout_seconds)
        if late:
            self._send(signal.SIGKILL)
        for outcome in await asyncio.gather(*keepers, return_exceptions=True):
            if outcome is not None:
                raise outcome
        if late:
            raise WorkersFailed(
                f"{len(late)} workers did not end in time, within"
                f" {self._stop_timeout_seconds:g} seconds, and were killed"
            )

    async def _keep(self, number: int) -> None:
        """Run one worker, and replace it whenever it dies."""
        deaths = 0
        while not self._stopping.is_set():
            lived, code = await self._run_one(number)
            if self._stopping.is_set():
                return
            if number in self._waited_for and code > 0:  # it has printed why
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
        """Run a worker to its end. Returns how long it served, None if never, and its exit code."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command_of(number),
                env=self._environ,
                stdin=asyncio.subprocess.PIPE,  # only this process has the other end
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # a terminal interrupts this process, which stops them
            )
        except OSError as error:  # the machine may lack some resource for now
            _log.error("cannot start a worker: %s", error.strerror)
            return None, 1
        self._processes.add(process)
        if self._stopping.is_set():
            self._send(signal.SIGTERM)
        line = process.stdout and await process.stdout.readline()
        served = line == f"{READY}\n".encode()
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
    """Keep a port until the end of the block, for workers that listen on it with SO_REUSEPORT.

    0 is any free port. Raises OSError where another process has the port, also one that shares it:
    it would get some of our callers.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise OSError("processes cannot share a port on this system: set MEMORYD_WORKERS to 1")
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
