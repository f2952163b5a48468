"""The body of a request, as it comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from memoryd.domain.errors import MessageTooLarge
from memoryd.http.frames import malformed
from memoryd.rpc.receiving import SLOW_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Receive = Callable[[], Awaitable[Any]]


MOST_BYTES = SLOW_BYTES
"""What bodies that are not complete may hold in all, but for what each begins with."""

FREE_BYTES = 64 * 1024
"""What every body may hold, so that small requests never wait for large ones."""


class Room:
    """Bytes that all bodies share: those that are slow to come hold up none but large ones."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Wait until others have given back enough."""
        while self._held > self._most:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn

    def take(self, count: int) -> None:
        self._held += count

    def give_back(self, count: int) -> None:
        self._held -= count
        if self._held <= self._most:
            for turn in self._waiting:
                if not turn.done():  # else its call has ended meanwhile
                    turn.set_result(None)
            self._waiting.clear()


ROOM = Room(MOST_BYTES)
"""What the bodies of all requests share."""


class Body:
    """Gives parts of the body, and says when the caller has gone."""

    def __init__(
        self, receive: Receive, gone: Callable[[], None], most: int, room: Room | None = None
    ) -> None:
        """`gone` is called once where the caller has gone; `most`: bytes of one message.

        `room`: shared with others; None: a body that is there already.
        """
        self._room = room
        self._receive = receive
        self._gone = gone
        self._most = most
        self._held = bytearray()
        self._is_complete = False
        self._watching: asyncio.Task[None] | None = None

    async def all_of_it(self, most: int | None = None) -> bytes:
        """`most`: bytes, where they are not those of one message. Raises MessageTooLarge."""
        while await self._more():
            self._check(len(self._held), most)
        self._check(len(self._held), most)
        return self._taken(len(self._held))

    async def exactly(self, count: int) -> bytes | None:
        """So many bytes; None where the body has ended before them.

        Raises MessageTooLarge, and MalformedMessage where it ends among them.
        """
        self._check(count)
        while len(self._held) < count:
            if not await self._more():
                if self._held:
                    raise malformed("ends within a message")
                return None
        return self._taken(count)

    def _taken(self, count: int) -> bytes:
        with memoryview(self._held) as held:
            found = bytes(held[:count])
        del self._held[:count]
        if self._room is not None:
            self._room.give_back(count)
        return found

    def close(self) -> None:
        if self._room is not None:
            self._room.give_back(len(self._held))
            self._room = None
        self._held = bytearray()
        if self._watching is not None:
            self._watching.cancel()

    def _check(self, size: int, most: int | None = None) -> None:
        if size > (most or self._most):
            raise MessageTooLarge(size, most or self._most)

    async def _more(self) -> bool:
        """Take what comes next; False: nothing more does."""
        if self._is_complete:
            return False
        if self._room is not None and len(self._held) > FREE_BYTES:
            await self._room.wait()
        event = await self._receive()
        if event["type"] == "http.disconnect":
            self._gone()
            await asyncio.get_running_loop().create_future()  # until the call is cancelled
        data = event.get("body", b"")
        self._held += data
        if self._room is not None:
            self._room.take(len(data))
        if not event.get("more_body", False):
            self._is_complete = True
            self._watching = asyncio.create_task(self._watch(), name="caller of HTTP")
        return True

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone()


class Held(Body):
    """A body that is there."""

    def __init__(self, data: bytes, most: int) -> None:
        super().__init__(_nothing_more, lambda: None, most)
        self._held += data
        self._is_complete = True


async def _nothing_more() -> Any:
    raise AssertionError("a body that is there is not received")
