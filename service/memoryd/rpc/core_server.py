"""gRPC's server, its completion queue drained on the event loop.

`grpc.aio` wakes a thread, and that the event loop, for each of a call's four to five events. Here a
thread waits only while nothing comes. Whatever has come by then, the event loop takes itself,
many events in one turn, and goes on without the thread until nothing more comes. It stands on what
gRPC's own synchronous server stands on, `grpc._cython.cygrpc`, which is not public: this module
alone touches it, for the one version that it is written for.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from memoryd.rpc.pipeline import Handler

GRPC_VERSION = "1.85.1"
"""What this module is written for; with another, `unavailable` says so."""

CALLS_AHEAD = 128
"""Calls that gRPC's core hands over before it is asked for more."""

EVENTS_A_TURN = 256
TURN_SECONDS = 0.001
"""Events taken in one turn of the event loop, and for how long, so that neither a flood nor large
messages hold up other work."""
EVENTS_A_LOOK = 4
"""Between two looks at the clock."""

IDLE_TURNS = 3
"""Turns of the event loop that bring no event, after which the thread waits for the next one."""

MOST_FAULTS = 20
"""At so many events within FAULT_SECONDS that cannot be handled the server ends."""
FAULT_SECONDS = 10.0

SILENT_SECONDS = 5.0
"""A queue that the event loop has not looked at for so long, though it is to, is not drained."""
LOOK_SECONDS = 1.0
"""Between two looks whether it is."""

_NO_DEADLINE = 1e11
"""Seconds since 1970 that are later than any deadline of a caller: there is none."""

_log = logging.getLogger(__name__)

try:
    from grpc._cython import cygrpc  # type: ignore[attr-defined]  # without types

    _TIMEOUT = cygrpc.CompletionType.queue_timeout
    _SHUTDOWN = cygrpc.CompletionType.queue_shutdown
    _CallEvent = cygrpc.RequestCallEvent
    _Message = cygrpc.SendMessageOperation
    _Metadata = cygrpc.SendInitialMetadataOperation
    _Status = cygrpc.SendStatusFromServerOperation
    _RECEIVE_CLOSE = cygrpc.ReceiveCloseOnServerOperation
    _RECEIVE_MESSAGE = cygrpc.ReceiveMessageOperation
    _NEEDED = (cygrpc.CompletionQueue, cygrpc.Server, cygrpc.ServerShutdownEvent)
    _missing = ""
except (ImportError, AttributeError) as error:  # pragma: no cover  another version of gRPC
    _missing = str(error)


def unavailable() -> str:
    """Why this server cannot serve with the gRPC that is installed; empty where it can."""
    if _missing:
        return _missing
    found = version("grpcio")
    return "" if found == GRPC_VERSION else f"grpcio is {found}, not {GRPC_VERSION}"


class CoreServer:
    """Offers what `grpc.aio.Server` offers, as far as the endpoint needs it."""

    def __init__(
        self,
        handlers: Mapping[bytes, Handler],
        unknown: Handler,
        options: Sequence[tuple[str, int]],
    ) -> None:
        """Serve methods by their paths, and with `unknown` any other: a path is any bytes."""
        self._handlers = handlers
        self._unknown = unknown
        self._queue = cygrpc.CompletionQueue()
        self._server = cygrpc.Server(tuple(options), False)  # noqa: FBT003  no xDS
        self._server.register_completion_queue(self._queue)
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._wait, name="gRPC events", daemon=True)
        self._turn_of_thread = threading.Lock()
        """Free once the event loop leaves the queue to the thread."""
        self._turn_of_thread.acquire()
        self._is_with_loop = False
        self._looked_at = self._loop.time()
        self._idle_turns = 0
        self._is_over = False
        self._stopping: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._faults: list[float] = []
        self._watchdog: asyncio.TimerHandle | None = None

    def add_insecure_port(self, address: str) -> int:
        """Listen on HOST:PORT and give the port. Raises RuntimeError where that cannot be."""
        port: int = self._server.add_http2_port(address.encode())
        if not port:
            raise RuntimeError(f"cannot listen on {address}")
        return port

    def add_secure_port(self, address: str, credentials: grpc.ServerCredentials) -> int:
        """Listen on HOST:PORT with TLS, and give the port. Raises as `add_insecure_port`."""
        port: int = self._server.add_http2_port(address.encode(), credentials._credentials)  # type: ignore[attr-defined]  # noqa: SLF001  as grpc itself
        if not port:
            raise RuntimeError(f"cannot listen on {address} with TLS")
        return port

    async def start(self) -> None:
        self._server.start()
        for _ in range(CALLS_AHEAD):
            self._request_call()
        self._thread.start()
        self._look()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until the server has ended; True where it has not within `timeout` seconds.

        Raises what has ended it, where that is a fault.
        """
        done, _ = await asyncio.wait((self._ended,), timeout=timeout)
        if done:
            self._ended.result()
        return not done

    async def stop(self, grace: float | None) -> None:
        """Take no new calls; give those under way `grace` seconds to end, then cancel them."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(grace), name="stop gRPC")
        await asyncio.shield(self._stopping)

    async def _stop(self, grace: float | None) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        calls_ended = asyncio.Event()
        self._server.shutdown(self._queue, lambda _: calls_ended.set())
        try:
            async with asyncio.timeout(grace or 0.0):
                await calls_ended.wait()
        except TimeoutError:
            self._server.cancel_all_calls()
            await calls_ended.wait()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._queue.shutdown()
        await asyncio.to_thread(self._thread.join)
        self._server.destroy()
        if not self._ended.done():
            self._ended.set_result(None)

    # In the thread

    def _wait(self) -> None:
        """Wait for an event, and leave the queue to the event loop until nothing more comes."""
        while not self._is_over:
            try:
                event = self._queue.poll()
            except Exception as error:  # noqa: BLE001  the next event is waited for all the same
                self._loop.call_soon_threadsafe(self._note_fault, error)
                continue
            try:
                self._loop.call_soon_threadsafe(self._take, event)
            except RuntimeError:  # the event loop is closed
                return
            del event  # it keeps its call alive
            self._turn_of_thread.acquire()

    # On the event loop

    def _take(self, event: Any) -> None:
        """Handle the event that the thread has waited for, and all that have come since."""
        self._is_with_loop = True
        self._handle(event)
        self._drain()

    def _drain(self) -> None:
        """Handle what has come, and come back for as long as there may be more."""
        self._looked_at = self._loop.time()
        poll, handle = self._queue.poll, self._handle
        count, end = 0, self._looked_at + TURN_SECONDS
        while count < EVENTS_A_TURN and not self._is_over:
            try:
                event = poll(0)
            except Exception as error:  # noqa: BLE001  one event's fault is no other's
                self._note_fault(error)
                count += 1
                continue
            if event.completion_type == _TIMEOUT:
                break
            handle(event)
            count += 1
            if not count % EVENTS_A_LOOK and self._loop.time() > end:
                break
        self._idle_turns = 0 if count else self._idle_turns + 1
        if self._is_over or self._idle_turns > IDLE_TURNS:
            self._idle_turns = 0
            self._is_with_loop = False
            self._turn_of_thread.release()
        else:
            self._loop.call_soon(self._drain)

    def _handle(self, event: Any) -> None:
        try:
            if type(event) is _CallEvent:
                if event.success:
                    self._request_call()
                    self._begin(event)
            elif event.completion_type == _SHUTDOWN:
                self._is_over = True
            elif event.tag is not None:
                event.tag(event)
        except Exception as error:  # noqa: BLE001  one event's fault is no other's
            self._note_fault(error)
            with suppress(Exception):  # there may be no call, or nothing more to do for it
                status = _Status((), grpc.StatusCode.INTERNAL.value[0], b"unhandled exception", 0)
                event.call.start_server_batch((_Metadata((), 0), status), None)

    def _request_call(self) -> None:
        if self._stopping is None:
            self._server.request_call(self._queue, self._queue, None)

    def _begin(self, event: Any) -> None:
        call = CoreCall(self._loop, event)
        handler = self._handlers.get(event.call_details.method, self._unknown)
        task = call.task = self._loop.create_task(_serve(handler, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _note_fault(self, error: Exception) -> None:
        """Log what one event has met; end where that goes on."""
        _log.error("unhandled exception in gRPC's events", exc_info=error)
        now = self._loop.time()
        self._faults = [*(at for at in self._faults if now - at < FAULT_SECONDS), now]
        if len(self._faults) >= MOST_FAULTS:
            self._end(f"{MOST_FAULTS} of its events failed within {FAULT_SECONDS:g} s")

    def _look(self) -> None:
        """End where the event loop has the queue, and does not come to it."""
        now = self._loop.time()
        if self._is_with_loop and now - self._looked_at > SILENT_SECONDS:
            self._end(f"its events were not taken for {SILENT_SECONDS:g} s")
            return
        self._watchdog = self._loop.call_later(LOOK_SECONDS, self._look)

    def _end(self, cause: str) -> None:
        if not self._ended.done():
            self._ended.set_exception(RuntimeError(cause))


async def _serve(handler: Handler, call: CoreCall) -> None:
    try:
        answer = await handler.serve(call)
        call.finish(grpc.StatusCode.OK, message=answer if handler.answers_once else None)
    except grpc.aio.AbortError:
        pass  # its status is sent
    except asyncio.CancelledError:
        call.finish(grpc.StatusCode.CANCELLED)
    except Exception:
        call.finish(grpc.StatusCode.UNKNOWN, "unhandled exception")
        raise
    finally:
        call.let_go()


class CoreCall:
    """What a handler knows of its call: of `grpc.aio.ServicerContext`, what handlers use."""

    __slots__ = (
        "_call", "_code", "_deadline", "_has_begun", "_is_done", "_loop", "_metadata", "_trailing",
        "task",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, event: Any) -> None:
        """Take a call over from the event that brings it, and learn at once if it is cancelled."""
        self._loop = loop
        self._call = event.call
        self._deadline: float = event.call_details.deadline
        self._metadata = event.invocation_metadata
        self._trailing: Any = ()
        self._code: grpc.StatusCode | None = None
        self._has_begun = False
        self._is_done = False
        self.task: asyncio.Task[None] | None = None
        self._call.start_server_batch((_RECEIVE_CLOSE(0),), self._on_close)

    def invocation_metadata(self) -> Any:
        return self._metadata

    def peer(self) -> str:
        peer: bytes | str = self._call.peer()
        return peer.decode() if isinstance(peer, bytes) else peer

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What TLS says of the connection; empty without TLS."""
        found: dict[bytes, Iterable[bytes]] | None = cygrpc.auth_context(self._call)
        return {key.decode(): values for key, values in (found or {}).items()}

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None without one."""
        if self._deadline > _NO_DEADLINE:
            return None
        return max(self._deadline - time.time(), 0.0)

    def set_trailing_metadata(self, metadata: Any) -> None:
        self._trailing = metadata

    def code(self) -> grpc.StatusCode | None:
        return self._code

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> None:
        """End the call with an error. Raises AbortError."""
        if trailing_metadata:
            self._trailing = trailing_metadata
        self.finish(code, details)
        raise grpc.aio.AbortError("the call is aborted")

    async def read(self) -> Any:
        """The next message, or `grpc.aio.EOF`. Raises AbortError where the call is aborted."""
        operation = _RECEIVE_MESSAGE(0)
        await self._batch(operation)
        message = operation.message()
        if message is not None:
            return message
        if self._is_done:
            raise grpc.aio.AbortError("the call is aborted")
        return grpc.aio.EOF

    async def send_initial_metadata(self, metadata: Any) -> None:
        """Tell the caller that the stream is there. Raises InternalError where it has gone."""
        self._has_begun = True
        await self._sent(_Metadata(tuple(metadata), 0))

    async def write(self, message: bytes) -> None:
        """Send a message once there is room. Raises InternalError where the caller has gone."""
        await self._sent(_Message(message, 0))

    def finish(
        self, code: grpc.StatusCode, details: str = "", *, message: bytes | None = None
    ) -> None:
        """End the call; nothing happens where it has ended."""
        if self._is_done:
            return
        self._is_done = True
        self._code = code
        operations = [] if self._has_begun else [_Metadata((), 0)]
        if message is not None:
            operations.append(_Message(message, 0))
        operations.append(_Status(self._trailing, code.value[0], details.encode(), 0))
        self._call.start_server_batch(operations, None)

    def let_go(self) -> None:
        """Keep nothing of gRPC's call, nor of its task; afterwards there is none to ask.

        gRPC's core refuses new calls of a connection on which too many are alive. Whatever was set
        up within the call, a timer that is cancelled for one, keeps this object in its context.
        """
        self._call = self.task = None

    async def _sent(self, operation: Any) -> None:
        if not await self._batch(operation):
            raise grpc.aio.InternalError("the caller has gone")

    def _batch(self, operation: Any) -> asyncio.Future[bool]:
        """Whether it has succeeded; the event, which refers to `settle`, would keep the call."""
        future: asyncio.Future[bool] = self._loop.create_future()

        def settle(event: Any) -> None:
            if not future.done():
                future.set_result(event.success)

        self._call.start_server_batch((operation,), settle)
        return future

    def _on_close(self, event: Any) -> None:
        """Cancel the handler where the caller has gone, or its deadline has passed."""
        if not self._is_done and event.batch_operations[0].cancelled() and self.task is not None:
            self.task.cancel()
