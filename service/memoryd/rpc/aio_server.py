"""gRPC's own server for asyncio, and what it takes to live with it.

It ends where it meets what it does not expect, such as a method's name that is no UTF-8.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc

from memoryd.rpc.call import current_call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from memoryd.rpc.pipeline import Handler

_WRITTEN_BY_CORE = frozenset({"AioServer._request_call", "AioServer._request_registered_call"})
"""Coroutines that hold the memory into which gRPC's core writes the next call."""

_grpc_log = logging.getLogger("grpc._cython.cygrpc")


def aio_server(
    all_handlers: Mapping[bytes, Handler],
    unknown: Handler,
    options: Sequence[tuple[str, int]],
    *,
    apart: str,
) -> grpc.aio.Server:
    """Make a server of methods by their paths, and with `unknown` of any other path.

    Those of the service `apart` have a queue of their own. Methods that are registered
    one by one, as those are, cost every call a task for each of them.
    """
    asyncio.get_running_loop().set_task_factory(_task_factory)
    _grpc_log.addFilter(_as_callers_doing)
    handlers = {path.decode(): _handler(handler) for path, handler in all_handlers.items()}
    server = grpc.aio.server(handlers=(_Handlers(handlers, _handler(unknown)),), options=options)
    prefix = f"/{apart}/"
    server.add_registered_method_handlers(
        apart,
        {
            path.removeprefix(prefix): handler
            for path, handler in handlers.items()
            if path.startswith(prefix)
        },
    )
    return server


def _handler(handler: Handler) -> grpc.RpcMethodHandler[Any, Any]:
    """To gRPC every method takes a stream, which its handler reads itself."""

    async def serve(_: object, context: Any) -> Any:
        return await handler.serve(context)

    if handler.answers_once:
        return grpc.stream_unary_rpc_method_handler(serve, None, None)
    return grpc.stream_stream_rpc_method_handler(serve, None, None)


class _Handlers(grpc.GenericRpcHandler):
    def __init__(
        self,
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]],
        unknown: grpc.RpcMethodHandler[Any, Any],
    ) -> None:
        self._handlers = handlers
        self._unknown = unknown

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any]:
        return self._handlers.get(handler_call_details.method, self._unknown)


def _as_callers_doing(record: logging.LogRecord) -> bool:
    """Log an answer that its caller does not take, such as for its size, as no error of ours."""
    if record.exc_info and type(record.exc_info[1]).__name__ == "ExecuteBatchError":
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        record.msg, record.args, record.exc_info = "the caller did not take the answer", (), None
        with suppress(LookupError):
            call = current_call()
            record.__dict__ |= {"method": call.method, "request_id": call.request_id}
    return True


class _CallRequest(asyncio.Task[Any]):
    """A task that waits for gRPC's core to write to what it holds: to cancel it is to let it be.

    A server that ends unexpectedly cancels its requests for calls, which frees their memory, and
    the core writes to that when it shuts down: the process crashed some frames later. Here the
    server sees a request that is cancelled, and the request ends with the core.
    """

    _is_given_up = False

    def cancel(self, msg: Any = None) -> bool:
        self._is_given_up = True
        self._log_destroy_pending = False
        _given_up.add(self)
        super().add_done_callback(_let_go)
        return True

    def cancelled(self) -> bool:
        return self._is_given_up or super().cancelled()

    def done(self) -> bool:
        return self._is_given_up or super().done()

    def add_done_callback(self, fn: Callable[[Any], object], /, **named: Any) -> None:
        if self._is_given_up:
            self.get_loop().call_soon(fn, self, **named)
        else:
            super().add_done_callback(fn, **named)


_given_up: set[_CallRequest] = set()


def _let_go(request: Any) -> None:
    """Its error is seen: the core has ended."""
    _given_up.discard(request)
    if not asyncio.Task.cancelled(request):
        asyncio.Task.exception(request)


def _task_factory(loop: asyncio.AbstractEventLoop, work: Any, **named: Any) -> asyncio.Task[Any]:
    is_request = getattr(work, "__qualname__", None) in _WRITTEN_BY_CORE
    return (_CallRequest if is_request else asyncio.Task)(work, loop=loop, **named)
