"""What is known of the call under way."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from memoryd.model import DEFAULT_TENANT, Session

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

OFFLOAD_BYTES = 64 * 1024
"""A request over this size is judged in a thread, so that other calls go on meanwhile."""


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    """Full name, such as `/memoryd.v1.MemoryService/StoreMemory`."""
    request_id: str
    time_remaining: Callable[[], float | None]
    """Seconds until the caller's deadline; None without one."""
    tenant: str = DEFAULT_TENANT

    def session(self, session_id: str) -> Session:
        """The shard key: the tenant is the caller's, whatever the request says."""
        return Session(self.tenant, session_id)


_current: ContextVar[Call] = ContextVar("call")


def current_call() -> Call:
    """The call that this task serves."""
    return _current.get()


def enter(call: Call) -> None:
    """Make it the current call of this task, which gRPC made for it."""
    _current.set(call)


async def offloaded(size: int, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Do what grows with a request's size, in bytes: in a thread where it is large."""
    if size > OFFLOAD_BYTES:
        return await asyncio.to_thread(work, *arguments, **named)
    return work(*arguments, **named)
