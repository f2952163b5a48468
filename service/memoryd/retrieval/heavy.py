"""Heavy work: in threads, a little at a time, and given up with the call that asked for it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from memoryd.database.fair_places import FairPlaces
from memoryd.domain.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    Check = Callable[[], None]


class _HasContent(Protocol):
    @property
    def content(self) -> str: ...


T = TypeVar("T")
Text = TypeVar("Text", bound=_HasContent)


class GivenUp(Exception):
    """The caller no longer waits for the work. Only its thread sees this."""


async def in_thread(work: Callable[[Check], T]) -> T:
    """Do it in a thread. It calls what it is given now and then, which ends it with the caller."""
    given_up = threading.Event()

    def check() -> None:
        if given_up.is_set():
            raise GivenUp

    try:
        return await asyncio.to_thread(work, check)
    finally:
        given_up.set()


async def in_thread_to_its_end(work: Callable[[Check], T]) -> T:
    """As `in_thread`; what the work uses is left alone by the time that this returns or raises."""
    given_up = threading.Event()

    def check() -> None:
        if given_up.is_set():
            raise GivenUp

    running = asyncio.ensure_future(asyncio.to_thread(work, check))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        given_up.set()
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({running})
        running.exception()  # that it was given up is of no interest
        raise


def parts(texts: Sequence[Text], count: int, characters: int) -> Iterator[Sequence[Text]]:
    """So many texts at a time, less where they come to so many characters; nothing of nothing."""
    start = length = 0
    for place, text in enumerate(texts, 1):
        length += len(text.content)
        if place - start == count or length >= characters or place == len(texts):
            yield texts[start:place]
            start, length = place, 0


def no_check() -> None:
    """For work that is done at once."""


class Turns:
    """So much work of one kind at once; the rest waits in line, as far as the line is long.

    Tenants take turns.
    """

    def __init__(self, at_once: int, *, most_waiting: int, noun: str) -> None:
        """`most_waiting`: how much may be waiting in all, in whatever unit callers give."""
        self._places = FairPlaces(at_once)
        self._most_waiting = most_waiting
        self._noun = noun

    @asynccontextmanager
    async def turn(self, tenant: str, amount: int) -> AsyncIterator[None]:
        """Wait for a turn, and hold it. Raises Overloaded where too much is waiting.

        A tenant that has waiting less than its share is let in all the same.
        """
        line = self._places.line
        if self._places.are_taken and line.weight + amount > self._most_waiting:
            share = self._most_waiting // (line.tenants + 1)
            if line.weight_of(tenant) + amount > share:
                raise Overloaded(f"more {self._noun} wait than this server takes on; try again")
        async with self._places.place(tenant, amount):
            yield


def has_failed(task: asyncio.Task[Any]) -> bool:
    """Whether a task is over and has made nothing, such as for want of a file descriptor."""
    return task.done() and (task.cancelled() or task.exception() is not None)
