"""What is known of the call under way."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, Protocol, TypeVar

from memoryd.domain.errors import DeadlineExceeded
from memoryd.domain.records import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    import grpc

    from memoryd.domain.principals import Principal
    from memoryd.domain.sessions import SessionRange
    from memoryd.rpc.call_record import CallRecord

P = ParamSpec("P")
T = TypeVar("T")

OFFLOAD_BYTES = 64 * 1024
"""A request over this size is validated in a thread, so that other calls go on meanwhile."""

VALIDATION_THREADS = 2
"""Apart from the threads of other work, and few: each takes turns with the event loop."""


class Caller(Protocol):
    """Who calls, as far as the call itself shows it."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...

    def peer(self) -> str: ...

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What TLS says of the connection, such as names in a client's certificate."""


class WireCall(Caller, Protocol):
    """A call as gRPC has it: of `grpc.aio.ServicerContext`, what is used."""

    def time_remaining(self) -> float | None: ...

    def set_trailing_metadata(self, metadata: Any, /) -> None: ...

    def code(self) -> grpc.StatusCode | None: ...

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = (), /
    ) -> None:
        """End the call with an error. Raises AbortError."""

    async def read(self) -> Any:
        """The next message, or `grpc.aio.EOF`. Raises AbortError where the call is aborted."""

    async def send_initial_metadata(self, metadata: Any, /) -> None:
        """Tell the caller that the stream is there. Raises InternalError where it has gone."""

    async def write(self, message: bytes, /) -> None:
        """Send a message once there is room. Raises InternalError where the caller has gone."""


class Call(NamedTuple):
    method: str
    """Full name, such as `/memoryd.v1.MemoryService/StoreMemory`."""
    request_id: str
    time_remaining: Callable[[], float | None]
    """Seconds until the caller's deadline; None without one."""
    client: str
    """Whose share it takes of what the service can do: the tenant, or the caller's address."""
    principal: Principal
    record: CallRecord | None = None
    """What is to be said of it in the audit; None: nothing."""

    @property
    def receipt_id(self) -> str:
        """What the audit names the call by; empty where that has no line of it."""
        return "" if self.record is None else self.record.receipt_id

    def session(self, session_id: str) -> Session:
        """The shard key: the tenant is the caller's, whatever the request says.

        The one maker of it for requests. Raises SessionNotAllowed.
        """
        principal = self.principal
        principal.require_session(session_id)
        if self.record is not None:
            self.record.names(session_id)
        return Session(principal.tenant, session_id)

    def sessions_beginning_with(self, prefix: str) -> list[SessionRange]:
        """The ids of sessions that begin with a prefix, as far as the caller may name them.

        In their order; no id is in two of them.
        """
        return self.principal.sessions.beginning_with(prefix)

    def is_about(self, target: str, tenant: str = "") -> None:
        """Note for the audit what is changed, and whose it is; empty: the caller's tenant's."""
        if self.record is not None:
            self.record.target, self.record.tenant = target, tenant

    def counts(self, name: str, number: int) -> None:
        """Add to a number that the audit has of the call."""
        if self.record is not None:
            self.record.counts[name] = self.record.counts.get(name, 0) + number

    def changes_nothing(self) -> None:
        """Note that the call is a trial, of which the audit of changes has no line."""
        if self.record is not None:
            self.record.changes = False


_current: ContextVar[Call] = ContextVar("call")
_validation = ThreadPoolExecutor(VALIDATION_THREADS, "validation")
_gone: ContextVar[threading.Event | None] = ContextVar("gone", default=None)
"""Where work is in a thread: set once its call has ended without it."""


def current_call() -> Call:
    """The call that this task serves."""
    return _current.get()


def enter(call: Call) -> None:
    """Make it the current call of this task, which gRPC made for it."""
    _current.set(call)


async def offloaded(
    place: AbstractAsyncContextManager[None],
    work: Callable[P, T],
    *arguments: P.args,
    **named: P.kwargs,
) -> T:
    """Do what grows with a request's size in a thread, for a request over OFFLOAD_BYTES.

    `place`: one of VALIDATION_THREADS, which is taken meanwhile.
    """
    gone = threading.Event()
    before = _gone.set(gone)
    try:
        in_context = partial(copy_context().run, work, *arguments, **named)
        async with place:
            return await asyncio.get_running_loop().run_in_executor(_validation, in_context)
    except asyncio.CancelledError:
        gone.set()
        raise
    finally:
        _gone.reset(before)


def stop_if_gone() -> None:
    """Raise DeadlineExceeded where the call has ended, by its caller or its deadline.

    Nothing else ends work in a thread: what takes long asks between its parts.
    """
    gone = _gone.get()
    if gone is not None and gone.is_set():
        raise DeadlineExceeded
