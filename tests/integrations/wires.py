"""A wire to a server that tests can hold and cut."""

from __future__ import annotations

import asyncio
from typing import Self


class Wire:
    """Forwards connections; what the server answers can be held back, and connections be cut.

    It lives in the event loop of the test, so that nothing passes while the test does not await.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._server_address = host, int(port)
        self._passing = asyncio.Event()
        self._passing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._hold_from: bytes | None = None
        self._refuse_from: bytes | None = None

    def hold(self) -> None:
        """Keep back what the server answers."""
        self._passing.clear()

    def hold_from(self, sent: bytes) -> None:
        """Keep back what the server answers once this is sent to it, within one message."""
        self._hold_from = sent

    def refuse_from(self, sent: bytes) -> None:
        """Let nothing reach the server from when this is sent to it."""
        self._refuse_from = sent

    def accept(self) -> None:
        """End all connections, and let new ones reach the server."""
        self._refuse_from = None
        self.cut()

    def release(self) -> None:
        """Let pass what was kept back."""
        self._passing.set()

    def cut(self) -> None:
        """End all connections, and lose what was kept back; new ones are as ever."""
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        self._passing.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(*self._server_address)
        self._writers |= {writer, to_server}
        for work in (self._forward(reader, to_server), self._answer(from_server, writer)):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self._refuse_from is not None and self._refuse_from in data:
                return
            if self._hold_from is not None and self._hold_from in data:
                self._hold_from = None
                self.hold()
            writer.write(data)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._passing.wait()
            writer.write(data)
        writer.close()
