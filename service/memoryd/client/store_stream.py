"""Stores over one stream, which `MemoryClient.store` uses where several are under way.

A call costs client and server several times what a store in a message of many costs. There is no
timer: a message takes what has gathered while the one before it was written. What a stream does not
answer is sent again as a call of its own, which its `request_id` makes safe.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import grpc
import grpc.aio

from memoryd.client.errors import DeadlineExceeded, error_from
from memoryd.v1 import memory_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Call: TypeAlias = grpc.aio.StreamStreamCall[
        memory_pb2.StreamStoreMemoriesRequest, memory_pb2.StreamStoreMemoriesResponse
    ]
    Alone: TypeAlias = Callable[
        [memory_pb2.StoreMemoryRequest, float | None], Awaitable[memory_pb2.StoreMemoryResponse]
    ]
    Found: TypeAlias = memory_pb2.StoreMemoryResult | grpc.StatusCode
    """A result, or how the stream ended without one."""

MAX_ITEMS = 100
"""Stores in one message: as many as the service takes."""

MAX_MESSAGE_BYTES = 64 * 1024
"""Of the stores in one message. A larger store is a call of its own, and holds up no other; of any
message that a service takes, this is the half at most."""

IDLE_SECONDS = 10.0
"""A stream without a store for so long is closed; a later store opens another."""

REST_SECONDS = 5.0
"""How long stores are calls of their own after a stream has failed them without an answer, such as
by a proxy that does not let it pass. One that has answered may have ended as its next store came,
idle or with its server: the next stream is opened at once."""

SILENT_SECONDS = 4.0
"""A stream that has given no answer at all for so long is given up where a store's deadline passes:
a proxy may hold it back. A little less than the deadline that stores have by default."""

SILENT_REST_SECONDS = 300.0
"""How long stores are calls of their own after that."""

CLOSE_SECONDS = 1.0
"""What the service has to end a stream on which it owes no answer, before it is cancelled."""

_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class _Store(NamedTuple):
    """A store that waits for its result."""

    request: memory_pb2.StoreMemoryRequest
    nbytes: int
    found: asyncio.Future[Found]
    """Cancelled: no one waits any more."""


class Stores:
    """The stores of one client: those that come alone as calls, until several are under way.

    From then on all go over the stream, for as long as it is used.
    """

    def __init__(self, open_call: Callable[[], Call], alone: Alone, pause_seconds: float) -> None:
        """`alone` makes a call, and retries it; before it does so, `pause_seconds` pass."""
        self._open_call = open_call
        self._alone = alone
        self._pause_seconds = pause_seconds
        self._under_way = 0
        self._stream: _Stream | None = None
        self._is_unavailable = False
        """For good: the service is older than the stream, or the client is closed."""
        self._rests_until = 0.0

    async def store(
        self, request: memory_pb2.StoreMemoryRequest, timeout: float | None
    ) -> memory_pb2.StoreMemoryResponse:
        """Return once it is committed. Raises MemorydError."""
        is_alone = not self._under_way
        self._under_way += 1
        try:
            nbytes = request.ByteSize()
            stream = None
            if (self._stream or not is_alone) and nbytes <= MAX_MESSAGE_BYTES:
                stream = self._usable_stream()
            if stream is None:
                return await self._alone(request, timeout)
            store = _Store(request, nbytes, asyncio.get_running_loop().create_future())
            return await self._over_stream(stream, store, timeout)
        finally:
            self._under_way -= 1

    async def close(self, *, cancel: bool) -> None:
        """Open no stream again. `cancel`: also give up the stores under way."""
        self._is_unavailable = True
        stream = self._stream
        if stream is None:
            return
        if cancel:
            await stream.give_up()
        else:
            stream.close()

    def _usable_stream(self) -> _Stream | None:
        if self._is_unavailable or asyncio.get_running_loop().time() < self._rests_until:
            return None
        if self._stream is None:
            self._stream = _Stream(self._open_call(), self._ended)
        return self._stream

    async def _over_stream(
        self, stream: _Stream, store: _Store, timeout: float | None
    ) -> memory_pb2.StoreMemoryResponse:
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        stream.add(store)
        try:
            async with asyncio.timeout_at(end):
                found = await store.found
                if not isinstance(found, grpc.StatusCode):
                    if found.HasField("response"):
                        return found.response
                    error = error_from(found.status)
                    if error.code not in _RETRIED:
                        raise error
                    found = error.code
                if found in _RETRIED:
                    await asyncio.sleep(self._pause_seconds * random.uniform(0.8, 1.2))  # noqa: S311  no secret
        except TimeoutError as error:
            if stream.is_silent():
                self._rest(SILENT_REST_SECONDS)
                stream.cancel()
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            raise DeadlineExceeded(code, "Deadline Exceeded") from error
        return await self._alone(store.request, None if end is None else end - loop.time())

    def _ended(self, stream: _Stream, code: grpc.StatusCode, *, failed: bool) -> None:
        if self._stream is stream:
            self._stream = None
        if code is grpc.StatusCode.UNIMPLEMENTED:
            self._is_unavailable = True
        elif failed:
            self._rest(REST_SECONDS)

    def _rest(self, seconds: float) -> None:
        end = asyncio.get_running_loop().time() + seconds
        self._rests_until = max(self._rests_until, end)


class _Stream:
    """A stream, until it ends."""

    def __init__(self, call: Call, ended: Callable[..., None]) -> None:
        """`ended` is called with the stream, its code, and whether it `failed` its stores."""
        self._call = call
        self._ended = ended
        self._waiting: deque[_Store] = deque()
        self._sent: deque[list[_Store]] = deque()
        self._arrived = asyncio.Event()
        self._is_closing = False
        self._has_answered = False
        self._writer = asyncio.create_task(self._write(), name="stores to send")
        self._reader = asyncio.create_task(self._read(), name="results of stores")
        self._loop = asyncio.get_running_loop()
        self._opened = self._last_used = self._loop.time()
        self._timer = self._loop.call_later(IDLE_SECONDS, self._look)

    def add(self, store: _Store) -> None:
        self._last_used = self._loop.time()
        self._waiting.append(store)
        self._arrived.set()

    def is_silent(self) -> bool:
        return not self._has_answered and self._loop.time() - self._opened >= SILENT_SECONDS

    def cancel(self) -> None:
        """End it at once; what it has not answered is sent again."""
        self._call.cancel()

    def close(self) -> None:
        """Half-close once what has been added is sent."""
        self._is_closing = True
        self._arrived.set()

    async def give_up(self) -> None:
        """Cancel it, and what waits for it; before that it may end by itself if nothing does."""
        self.close()
        if not self._owed():
            await asyncio.wait((self._reader,), timeout=CLOSE_SECONDS)
        for store in self._owed():
            store.found.cancel()
        self._call.cancel()
        await asyncio.gather(self._writer, self._reader, return_exceptions=True)

    def _owed(self) -> list[_Store]:
        stores = [*(store for batch in self._sent for store in batch), *self._waiting]
        return [store for store in stores if not store.found.done()]

    def _look(self) -> None:
        due = self._last_used + IDLE_SECONDS
        if self._loop.time() >= due and not self._owed():
            self._ended(self, grpc.StatusCode.OK, failed=False)
            self.close()
        else:
            self._timer = self._loop.call_at(
                max(due, self._loop.time() + IDLE_SECONDS / 10), self._look
            )

    async def _write(self) -> None:
        try:
            await self._write_all()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the call has ended, as the reader learns
        except Exception:
            self._call.cancel()
            raise

    async def _write_all(self) -> None:
        # A service that refuses the stream does so now, and its reason is not lost to a write.
        await self._call.initial_metadata()
        while True:
            while not self._waiting:
                if self._is_closing:
                    await self._call.done_writing()
                    return
                self._arrived.clear()
                await self._arrived.wait()
            batch = self._next_batch()
            if batch:
                self._sent.append(batch)
                items = [store.request for store in batch]
                await self._call.write(memory_pb2.StreamStoreMemoriesRequest(requests=items))

    def _next_batch(self) -> list[_Store]:
        batch: list[_Store] = []
        nbytes = 0
        while self._waiting and len(batch) < MAX_ITEMS:
            store = self._waiting[0]
            nbytes += store.nbytes
            if batch and nbytes > MAX_MESSAGE_BYTES:
                break
            self._waiting.popleft()
            if not store.found.done():
                batch.append(store)
        return batch

    async def _read(self) -> None:
        code = grpc.StatusCode.CANCELLED
        try:
            while True:
                answer = await self._call.read()
                if isinstance(answer, memory_pb2.StreamStoreMemoriesResponse):
                    self._settle(answer)
                else:
                    break
            code = grpc.StatusCode.OK
        except grpc.aio.AioRpcError as error:
            code = error.code()
        finally:
            self._timer.cancel()
            self._writer.cancel()
            self._call.cancel()
            owed = self._owed()
            self._ended(self, code, failed=bool(owed) and not self._has_answered)
            for store in owed:
                store.found.set_result(code)

    def _settle(self, answer: memory_pb2.StreamStoreMemoriesResponse) -> None:
        self._has_answered = True
        if not self._sent or len(answer.results) != len(self._sent[0]):
            self._call.cancel()  # whose they are is not known
            return
        for store, result in zip(self._sent.popleft(), answer.results, strict=True):
            if store.found.done():
                continue
            is_outline = result.HasField("response") and not result.response.memory.content
            # Where this is all that the message had room for, a call gives the whole answer.
            whole = not (answer.truncated and is_outline)
            store.found.set_result(result if whole else grpc.StatusCode.OK)
