"""The event loop that calls of clients without one are made by, in a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from memoryd.client.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType
    from typing import Self

_R = TypeVar("_R")

STOP_SECONDS = 1.0
"""How long the end of the process waits for calls that are given up."""


class Background:
    """A thread with an event loop."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_report)
        self._thread = threading.Thread(target=self._turn, name="memoryd client", daemon=True)
        self._thread.start()
        atexit.register(self._stop)

    def run(self, work: Coroutine[Any, Any, _R]) -> _R:
        """Do some work in the loop, and wait for its result.

        Raises Cancelled where a client was closed meanwhile, and RuntimeError in a process that was
        forked since, or within the loop itself.
        """
        problem = self._problem()
        if problem:
            work.close()
            raise RuntimeError(problem)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise Cancelled(grpc.StatusCode.CANCELLED, "the client is closed") from None
        finally:
            future.cancel()  # where the wait itself was interrupted

    async def wait(self, work: Coroutine[Any, Any, _R]) -> _R:
        """Do some work in the loop, and wait for its result in the loop of the caller.

        Raises what `run` raises. A caller that is cancelled cancels the work.
        """
        problem = self._problem()
        if problem:
            work.close()
            raise RuntimeError(problem)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def finish(self, work: Coroutine[Any, Any, _R]) -> _R:
        """Do some work in the loop, and wait for its end, however often the caller is cancelled.

        Raises what `wait` raises; CancelledError, where the caller was cancelled, in the end.
        """
        task = asyncio.ensure_future(self.wait(work))
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled from task.exception()
        return task.result()

    def _problem(self) -> str:
        if self._process != os.getpid():
            return "the client was made before the process forked: make one in the child"
        if self._thread is threading.current_thread():
            return "the client would wait for itself: do not call it in an async token_provider"
        return ""

    def _turn(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _stop(self) -> None:
        if self._process == os.getpid():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(STOP_SECONDS)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Leave out what gRPC says where several loops turn: another one has read its event."""
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)


class Closing:
    """A context manager that is closed in the end."""

    __slots__ = ()

    def close(self) -> None:
        """Give up what is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


_lock = threading.Lock()
_shared: Background | None = None


def background() -> Background:
    """The one of this process."""
    global _shared  # noqa: PLW0603  one loop for all clients
    with _lock:
        if _shared is None:
            _shared = Background()
        return _shared


def _forget() -> None:
    """The thread is not there in a forked process, nor whoever held the lock."""
    global _shared, _lock
    _shared, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
