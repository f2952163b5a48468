"""The body of a request, as it comes."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from memoryd.domain.errors import MessageTooLarge
from memoryd.http.frames import decompress, malformed
from memoryd.http.request import client_of, header
from memoryd.rpc.receiving import SLOW_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from memoryd.http.request import Receive


FREE_BYTES = 64 * 1024
"""What every message may hold, so that small requests never wait for large ones."""


class _Waiting(NamedTuple):
    client: str
    size: int
    turn: asyncio.Future[None]


class Room:
    """Bytes that large messages share, from before they come until they are answered.

    One client may have half of them. Who finds no room waits in line.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()
        self._line: list[_Waiting] = []

    async def take(self, client: str, count: int) -> None:
        """Wait for so many bytes. Who holds some already must not ask for more."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(client, count, turn)
        self._line.append(waiting)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._line.remove(waiting)
                self._admit()
            else:
                self.give_back(client, count)
            raise

    def give_back(self, client: str, count: int) -> None:
        self._taken[client] -= count
        if not self._taken[client]:
            del self._taken[client]
        self._admit()

    def _admit(self) -> None:
        """Let in who is next, past those whose client has its half and those who have left."""
        for waiting in tuple(self._line):
            client, count, turn = waiting
            held, all_held = self._taken[client], self._taken.total()
            if turn.done() or (held and held + count > self._most // 2):
                continue
            if all_held and all_held + count > self._most:
                return
            self._line.remove(waiting)
            self._taken[client] += count
            turn.set_result(None)


ROOM = Room(SLOW_BYTES)
"""What the bodies of all requests share."""


class Body:
    """Gives messages of the body, and says when the caller has gone."""

    def __init__(
        self,
        scope: Mapping[str, Any],
        receive: Receive,
        gone: Callable[[], None],
        most: int,
        *,
        room: Room | None = ROOM,
    ) -> None:
        """`gone` is called once where the caller has gone; `most`: bytes of one message.

        `room`: None for a body that is there already.
        """
        self._client = client_of(scope)
        self._length = header(scope, b"content-length")
        self._room = room
        self._reserved = 0
        self._receive = receive
        self._gone = gone
        self._most = most
        self._held = bytearray()
        self._is_complete = False
        self._watching: asyncio.Task[None] | None = None

    async def all_of_it(self, most: int | None = None, *, is_packed: bool = False) -> bytes:
        """`most`: bytes, where they are not those of one message. Raises MessageTooLarge.

        `is_packed`: compressed, and to be given to `unpacked`.
        """
        most = most or self._most
        size = most
        if self._length:  # nobody sends what is refused for what its head says
            size = int(self._length)
            self._check(size, most)
        await self._make_room(size if self._length else 0, is_packed=is_packed)
        while await self._more():
            self._check(len(self._held), most)
            await self._make_room(size if len(self._held) > FREE_BYTES else 0, is_packed=is_packed)
        self._check(len(self._held), most)
        return self._taken(len(self._held))

    async def exactly(self, count: int, *, is_packed: bool = False) -> bytes | None:
        """So many bytes; None where the body has ended before them.

        Raises MessageTooLarge, and MalformedMessage where it ends among them.
        """
        self._check(count, self._most)
        await self._make_room(count, is_packed=is_packed)
        while len(self._held) < count:
            if not await self._more():
                if self._held:
                    raise malformed("ends within a message")
                return None
        return self._taken(count)

    async def unpacked(self, data: bytes) -> bytes:
        """What was compressed. Raises MessageTooLarge and MalformedMessage."""
        if not self._reserved:
            with suppress(MessageTooLarge):
                return decompress(data, min(FREE_BYTES, self._most))
            await self._make_room(self._most)
        return decompress(data, self._most)

    def forget(self) -> None:
        """The messages that were taken are held no longer."""
        if self._room is not None and self._reserved:
            self._room.give_back(self._client, self._reserved)
            self._reserved = 0

    def close(self) -> None:
        self.forget()
        self._held = bytearray()
        self.stop_watching()

    def stop_watching(self) -> None:
        """Take nothing more of what comes: no longer say when the caller has gone."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None  # it has this body

    async def _make_room(self, count: int, *, is_packed: bool = False) -> None:
        """For a message of so many bytes, and at once for what it becomes if it is packed."""
        if count <= FREE_BYTES or self._reserved or self._room is None:
            return
        count += self._most if is_packed else 0
        await self._room.take(self._client, count)
        self._reserved = count

    def _taken(self, count: int) -> bytes:
        with memoryview(self._held) as held:
            found = bytes(held[:count])
        del self._held[:count]
        return found

    def _check(self, size: int, most: int) -> None:
        if size > most:
            raise MessageTooLarge(size, most)

    async def _more(self) -> bool:
        """Take what comes next; False: nothing more does."""
        if self._is_complete:
            return False
        event = await self._receive()
        if event["type"] == "http.disconnect":
            self._gone()
            await asyncio.get_running_loop().create_future()  # until the call is cancelled
        self._held += event.get("body", b"")
        if not event.get("more_body", False):
            self._is_complete = True
            self._watching = asyncio.create_task(self._watch(), name="caller of HTTP")
        return True

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone()


class Held(Body):
    """What was the body of another in base64."""

    def __init__(self, data: bytes, most: int, source: Body) -> None:
        super().__init__({"headers": ()}, _nothing_more, lambda: None, most, room=None)
        self.unpacked = source.unpacked  # type: ignore[method-assign]  # the source has the room
        self._held += data
        self._is_complete = True


async def _nothing_more() -> Any:
    raise AssertionError("a body that is there is not received")
