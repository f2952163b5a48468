"""The requests of a call that sends several, as they come."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from memoryd.domain.errors import NoMessage, ShuttingDown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator
    from typing import Any

    from memoryd.rpc.receiving import Refuse
    from memoryd.rpc.status import Status

    Receive = Callable[[Refuse], Coroutine[Any, Any, bytes]]

T = TypeVar("T")


class RequestStream(Generic[T]):
    """Iterates over the records of requests, until the caller half-closes.

    What ends it otherwise, it raises in place of a further request: so a handler can still answer
    those before.
    """

    def __init__(
        self,
        receive: Receive,
        parse: Callable[[bytes], Awaitable[T]],
        status_of: Callable[[Exception], Status],
    ) -> None:
        self._receive = receive
        self._parse = parse
        self.status_of = status_of
        """Gives what the caller gets to see of an error in one of the requests."""
        self._end: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Raises what a request is refused for, and what `end` was given."""
        self._check()
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        # A task, since a read is never cancelled: it ends with its call.
        receiving = asyncio.create_task(self._receive(self._refuse))
        receiving.add_done_callback(self._received)
        await waiter
        try:
            if not receiving.done():
                self._check()
            data = receiving.result()
        except NoMessage:
            raise StopAsyncIteration from None
        finally:
            del receiving  # its error would hold this frame, and with it the call
        return await self._parse(data)

    def _check(self) -> None:
        if self._end is None:
            return
        error, self._end = self._end, None  # or the error would hold what holds it
        try:
            raise error
        finally:
            del error

    def end(self, error: Exception) -> None:
        """Take no further request, and raise the error instead."""
        self._end = error
        self._wake()

    async def _refuse(self, error: Exception) -> None:
        self.end(error)

    def _received(self, receiving: asyncio.Task[bytes]) -> None:
        if not receiving.cancelled():
            receiving.exception()  # no one may be left to see it
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class RequestStreams:
    """Those under way, which end when the server stops."""

    def __init__(self) -> None:
        self._open: set[RequestStream[Any]] = set()

    @contextmanager
    def opened(
        self,
        receive: Receive,
        parse: Callable[[bytes], Awaitable[T]],
        status_of: Callable[[Exception], Status],
    ) -> Iterator[RequestStream[T]]:
        stream = RequestStream(receive, parse, status_of)
        self._open.add(stream)
        try:
            yield stream
        finally:
            self._open.discard(stream)

    def close(self) -> None:
        for stream in self._open:
            stream.end(ShuttingDown())
