"""The part of a call under way that is traced, if the call is; nearly all are not."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, copy_context
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from contextvars import Context
    from typing import TypeAlias

    Attributes: TypeAlias = Mapping[str, str | int]

P = ParamSpec("P")
T = TypeVar("T")

QUEUE = "write queue"
"""What a write waits in for its transaction."""
RETRIEVAL = "retrieval"
EMBEDDING = "embedding"


class Part(Protocol):
    """A part of a traced call, which may have parts of its own."""

    def part(
        self, name: str, attributes: Attributes, *, is_database: bool = False
    ) -> AbstractContextManager[object]:
        """Note what is done until the end of the block, as the part under way."""

    def note(
        self,
        name: str,
        attributes: Attributes,
        *,
        begun: int,
        ended: int,
        is_database: bool = False,
    ) -> None:
        """Note what was done for this part together with others; times are in ns since 1970."""


class TracedCall(Part, Protocol):
    @property
    def trace_id(self) -> str:
        """As lines of the log have it."""

    def end(self, code: str, reason: str) -> None:
        """The call has ended with a status, refused for a reason if that is not empty."""


class Tracer(Protocol):
    def begin(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> TracedCall | None:
        """Begin to trace a call, as its caller says, or by chance; None: it is not traced."""


_current: ContextVar[Part | None] = ContextVar("part of a traced call", default=None)
_NOTHING = nullcontext()


def current() -> Part | None:
    """The part under way; None: the call is not traced."""
    return _current.get()


def enter(part: Part | None) -> None:
    """Make it the part under way of this task, and of those that it begins."""
    _current.set(part)


def part(
    name: str, attributes: Attributes | None = None, *, is_database: bool = False
) -> AbstractContextManager[object]:
    """Note what is done until the end of the block, where the call is traced."""
    whole = _current.get()
    if whole is None:
        return _NOTHING
    return whole.part(name, attributes or {}, is_database=is_database)


def as_part(name: str) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """Note each time that a coroutine function is run."""

    def noted(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        @wraps(function)
        async def run(*arguments: P.args, **named: P.kwargs) -> T:
            with part(name):
                return await function(*arguments, **named)

        return run

    return noted


def detached() -> Context | None:
    """A context for a task that works for others too, or outlives the call; None: this one."""
    if _current.get() is None:
        return None
    context = copy_context()
    context.run(_current.set, None)
    return context


def now() -> int:
    """The time as parts have it."""
    return time.time_ns()
