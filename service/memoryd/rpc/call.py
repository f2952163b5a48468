"""What is known of the call under way."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from memoryd.domain.errors import DeadlineExceeded
from memoryd.domain.records import DEFAULT_TENANT, Session

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

OFFLOAD_BYTES = 64 * 1024
"""A request over this size is validated in a thread, so that other calls go on meanwhile."""

VALIDATION_THREADS = 2
"""Apart from the threads of other work, and few: each takes turns with the event loop."""


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    """Full name, such as `/memoryd.v1.MemoryService/StoreMemory`."""
    request_id: str
    time_remaining: Callable[[], float | None]
    """Seconds until the caller's deadline; None without one."""
    client: str
    """The caller's address."""
    tenant: str = DEFAULT_TENANT

    def session(self, session_id: str) -> Session:
        """The shard key: the tenant is the caller's, whatever the request says."""
        return Session(self.tenant, session_id)


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


async def offloaded(size: int, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Do what grows with a request's size, in bytes: in a thread where it is large."""
    if size <= OFFLOAD_BYTES:
        return work(*arguments, **named)
    gone = threading.Event()
    before = _gone.set(gone)
    try:
        in_context = partial(copy_context().run, work, *arguments, **named)
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
