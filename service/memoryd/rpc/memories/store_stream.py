"""Stores that come over one stream: begun as they come, answered in order as they are committed."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from memoryd.domain.errors import Overloaded
from memoryd.rpc.call import stop_if_gone
from memoryd.rpc.methods import validated

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from contextlib import AbstractContextManager

    from memoryd.domain.principals import Principal
    from memoryd.domain.records import NewMemory, Stored
    from memoryd.rpc.call import Call
    from memoryd.rpc.methods import Method
    from memoryd.rpc.request_stream import RequestStream
    from memoryd.v1 import memory_pb2

    Commit: TypeAlias = asyncio.Future[tuple[Stored, ...]]

MAX_UNANSWERED = 1_000
"""Memories of one stream that are begun and not answered; until some are, no more are begun, and
once a message of them is read, nothing further is read."""

MAX_UNANSWERED_BYTES = 8 * 1024 * 1024
"""The same by the size of their messages; one message may always be begun."""


@dataclass(frozen=True, slots=True)
class StoreMessage:
    """One message of a stream."""

    items: Sequence[NewMemory | Exception]
    """What to store; in the place of what is refused, why."""
    nbytes: int


def parse_message(
    request: memory_pb2.StreamStoreMemoriesRequest,
    call: Call,
    store: Method[NewMemory],
    admitted: Callable[[str], AbstractContextManager[None]],
    charge: Callable[[Principal, int], None],
) -> StoreMessage:
    """Admit all items or none; count and validate each as the method `store` does its request."""
    items: list[NewMemory | Exception] = []
    try:
        with admitted(call.principal.tenant):
            for item in request.requests:
                stop_if_gone()
                try:
                    charge(call.principal, store.weight)
                    items.append(validated(store, item, call))
                except Exception as error:  # noqa: BLE001  whatever it is, it is that item's alone
                    items.append(error)
    except Overloaded as error:
        items = [error] * len(request.requests)
    return StoreMessage(items, request.ByteSize())


async def outcomes(
    messages: RequestStream[StoreMessage], begin: Callable[[NewMemory], Commit]
) -> AsyncGenerator[list[Stored | Exception], None]:
    """Give what has become of each message's items, one message after the other.

    A message counts as answered once the next one is asked for. What ends the messages is raised
    after the last one's outcomes. What is not begun when this is closed is not stored.
    """
    window = _Window()
    reading = asyncio.create_task(_begin_all(messages, begin, window), name="stream of stores")
    reading.add_done_callback(lambda _: window.arrived.set())
    try:
        while await window.has_next(reading):
            yield await _outcomes(window.next())
            window.drop_next()
        await reading
    finally:
        reading.cancel()
        del reading  # its error would hold this frame, and with it the call
        window.give_up()


async def _begin_all(
    messages: RequestStream[StoreMessage], begin: Callable[[NewMemory], Commit], window: _Window
) -> None:
    def begun(item: NewMemory | Exception) -> Commit | Exception:
        if isinstance(item, Exception):
            return item
        try:
            return begin(item)
        except Exception as error:  # noqa: BLE001  as above
            return error

    async for message in messages:
        await window.room_for(message)
        window.add([begun(item) for item in message.items], message.nbytes)


async def _outcomes(items: Sequence[Commit | Exception]) -> list[Stored | Exception]:
    found: list[Stored | Exception] = []
    for item in items:
        if isinstance(item, Exception):
            found.append(item)
            continue
        try:
            found += await item
        except Exception as error:  # noqa: BLE001  as above
            found.append(error)
    return found


class _Window:
    """The messages that are begun and not answered."""

    def __init__(self) -> None:
        self._messages: deque[tuple[list[Commit | Exception], int]] = deque()
        self._items = 0
        self._bytes = 0
        self._has_room = asyncio.Event()
        self.arrived = asyncio.Event()

    async def room_for(self, message: StoreMessage) -> None:
        while self._messages and (
            self._items + len(message.items) > MAX_UNANSWERED
            or self._bytes + message.nbytes > MAX_UNANSWERED_BYTES
        ):
            self._has_room.clear()
            await self._has_room.wait()

    def add(self, items: list[Commit | Exception], nbytes: int) -> None:
        self._messages.append((items, nbytes))
        self._items += len(items)
        self._bytes += nbytes
        self.arrived.set()

    async def has_next(self, reading: asyncio.Task[None]) -> bool:
        """Wait for a message; False where there is none and `reading` has ended."""
        while not self._messages:
            if reading.done():
                return False
            self.arrived.clear()
            await self.arrived.wait()
        return True

    def next(self) -> list[Commit | Exception]:
        return self._messages[0][0]

    def drop_next(self) -> None:
        items, nbytes = self._messages.popleft()
        self._items -= len(items)
        self._bytes -= nbytes
        self._has_room.set()

    def give_up(self) -> None:
        for items, _ in self._messages:
            for item in items:
                if isinstance(item, Exception) or item.cancel() or item.cancelled():
                    continue
                item.exception()  # no one else will see it
