"""The address that HTTP is served on, by uvicorn's protocol on the service's own event loop.

uvicorn's own server takes the process's signals, and wakes ten times a second.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from memoryd.http.app import App

HEAD_SECONDS = 10.0
"""How long the head of a request may take to arrive, on a new connection too."""

IDLE_SECONDS = 20.0
"""A connection without a request for so long is closed."""

MOST_HEAD_BYTES = 64 * 1024
"""The longest head of a request."""

BACKLOG = 2048
"""Connections that the kernel holds until they are taken."""


class _Flow(FlowControl):
    """Reads no further requests while there are some already.

    Else each that is answered would let in more of them than it takes out.
    """

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        super().__init__(transport)
        self._connection = connection

    def resume_reading(self) -> None:
        if self.read_paused and self._connection.has_next_request():
            return
        super().resume_reading()


class Connection(H11Protocol):
    """One connection of a caller, which may not idle."""

    _timer: asyncio.TimerHandle | None = None
    is_full: Callable[[], bool]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.flow = _Flow(transport, self)
        # What a call has to know of its connection.
        self.app_state = {
            "tls": transport.get_extra_info("ssl_object"),
            "abort": transport.abort,
            "drain": self.flow.drain,
        }
        if self.is_full():
            transport.abort()
            return
        self._end_after(HEAD_SECONDS)

    def has_next_request(self) -> bool:
        """Whether one is there, in part at least, while another is answered."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        return is_answering and not self.cycle.more_body and bool(self.conn.trailing_data[0])

    def data_received(self, data: bytes) -> None:
        is_new = self.cycle is None or self.cycle.response_complete
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._keep()
        elif is_new:
            self._end_after(HEAD_SECONDS, from_now=False)

    def on_response_complete(self) -> None:
        self._end_after(IDLE_SECONDS)
        super().on_response_complete()
        if not self.cycle.response_complete:  # it has begun the next one
            self._keep()

    def connection_lost(self, exc: Exception | None) -> None:
        self._keep()
        super().connection_lost(exc)

    def _end_after(self, seconds: float, *, from_now: bool = True) -> None:
        """Close it then; where that is set already, `from_now` sets it again."""
        if self._timer is not None and not from_now:
            return
        self._keep()
        self._timer = self.loop.call_later(seconds, self._end)

    def _keep(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        # Also where an answer waits for a caller that does not read it.
        self.transport.abort()


class HttpEndpoint:
    """Listens on an address until it is stopped."""

    def __init__(
        self,
        app: App,
        host: str,
        address_of: Callable[[int], str],
        *,
        tls: ssl.SSLContext | None,
        most_connections: int,
        shares_port: bool,
    ) -> None:
        """`address_of` gives the host with a port, as HOST:PORT."""
        self._host = host
        self._address_of = address_of
        self._tls = tls
        self._shares_port = shares_port
        self._state = ServerState()
        # What uvicorn has to say is of strangers' doing.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._config = Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,  # whoever sends them could take any address
            h11_max_incomplete_event_size=MOST_HEAD_BYTES,
            timeout_keep_alive=2 * int(IDLE_SECONDS) + 1,  # a connection's own timer comes first
        )
        self._config.load()
        self._server: asyncio.Server | None = None
        self._most_connections = most_connections

    async def start(self, port: int) -> str:
        """Listen on a port, 0 for any, and give HOST:PORT. Raises OSError if there is none."""
        host = self._host
        if port == 0:  # else each address of the host would get a port of its own
            host = str(socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][4][0])
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._connection,
                host,
                port,
                ssl=self._tls,
                ssl_handshake_timeout=HEAD_SECONDS if self._tls is not None else None,
                reuse_port=self._shares_port or None,
                backlog=BACKLOG,
            )
        except OSError as error:
            address = self._address_of(port)
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise OSError(f"cannot listen on {address} for HTTP: {why}") from error
        return self._address_of(self._server.sockets[0].getsockname()[1])

    def _connection(self) -> Connection:
        connection = Connection(self._config, self._state, {})
        connection.is_full = self._is_full
        return connection

    def _is_full(self) -> bool:
        return len(self._state.connections) > self._most_connections

    async def stop(self, grace_seconds: float) -> None:
        """Take no new calls, and give those under way `grace_seconds` to end."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=grace_seconds)
        for task in list(self._state.tasks):
            task.cancel()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks)
        for one in list(self._state.connections):
            transport: Any = one.transport
            transport.abort() if transport.get_write_buffer_size() == 0 else transport.close()
        await self._server.wait_closed()
