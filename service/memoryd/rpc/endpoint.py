"""The address that the service listens on, and gRPC's server behind it.

A server may end where it meets what it does not expect. Then another takes its place, on the same
port and with the same handlers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

MOST_ENDS = 5
"""At so many unexpected ends within ENDS_SECONDS the endpoint fails."""
ENDS_SECONDS = 10.0

LOOK_SECONDS = 0.25
"""Between two looks whether the server has ended: gRPC tells it to those who ask only."""

RETIRE_SECONDS = 20.0
"""What calls of a server that has ended may take to end, before they are cancelled."""

LISTEN_SECONDS = 5.0
"""How long a new server tries to get the port of the one that has ended."""
_LISTEN_PAUSE_SECONDS = 0.01

_log = logging.getLogger(__name__)


class GrpcServer(Protocol):
    """A server of gRPC, as `grpc.aio.Server` has it."""

    def add_insecure_port(self, address: str) -> int:
        """Listen on HOST:PORT and give the port. Raises RuntimeError where that cannot be."""

    def add_secure_port(self, address: str, credentials: grpc.ServerCredentials) -> int:
        """As `add_insecure_port`, with TLS."""

    async def start(self) -> None: ...

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until it has ended; True where it has not within `timeout` seconds.

        Raises what has ended it, where that is a fault.
        """

    async def stop(self, grace: float | None) -> None:
        """Take no new calls; give those under way `grace` seconds to end, then cancel them."""


class EndpointFailed(Exception):
    """The endpoint serves no more. The message says why."""


class Endpoint:
    """Listens on an address until it is stopped, or fails."""

    def __init__(
        self,
        make_server: Callable[[], GrpcServer],
        host: str,
        address_of: Callable[[int], str],
        credentials: Callable[[], grpc.ServerCredentials] | None = None,
    ) -> None:
        """`make_server` gives a server that has its handlers and is not started.

        `address_of` gives the host with a port, as HOST:PORT. `credentials` makes those of one
        server; None: it speaks plaintext.
        """
        self._credentials = credentials
        self._make_server = make_server
        self._host = host
        self._address_of = address_of
        self._address = ""
        self._server: GrpcServer | None = None
        self._guarding: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._ending: deque[asyncio.Task[None]] = deque(maxlen=MOST_ENDS)

    async def start(self, port: int) -> str:
        """Listen on a port, 0 for any, and give HOST:PORT. Raises OSError if there is none."""
        address = self._address_of(port)
        server = self._make_server()
        try:
            port = self._listen(server, address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {_obstacle(self._host, port)}") from error
        self._address = self._address_of(port)
        await server.start()
        self._server = server
        self._guarding = asyncio.create_task(self._guard(server), name="endpoint")
        return self._address

    def _listen(self, server: GrpcServer, address: str) -> int:
        if self._credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, self._credentials())

    async def failed(self) -> None:
        """Wait until it fails, and raise EndpointFailed."""
        if self._guarding is not None:
            await asyncio.shield(self._guarding)

    async def stop(self, grace_seconds: float) -> None:
        """Take no new calls, and give those under way `grace_seconds` to end."""
        self._is_stopping = True
        if self._server is not None:
            await self._server.stop(grace_seconds)
        if self._guarding is not None:
            await asyncio.gather(self._guarding, return_exceptions=True)
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _guard(self, server: GrpcServer) -> None:
        """Put a new server in the place of one that ends by itself."""
        ends: deque[float] = deque(maxlen=MOST_ENDS)
        clock = asyncio.get_running_loop().time
        while True:
            cause = await _end_of(server)
            if self._is_stopping:
                return
            ends.append(clock())
            if len(ends) == MOST_ENDS and ends[-1] - ends[0] < ENDS_SECONDS:
                raise EndpointFailed(
                    f"gRPC's server has ended {MOST_ENDS} times within {ENDS_SECONDS:g} s,"
                    f" at last by {cause}"
                )
            # Calls under way end as they would have; how long that takes is no matter here.
            self._ending.append(asyncio.create_task(server.stop(RETIRE_SECONDS)))
            server = self._server = await self._replacement(cause)
            if self._is_stopping:
                await server.stop(None)
                return
            took = round((clock() - ends[-1]) * 1000)
            _log.error(
                "gRPC's server ended unexpectedly; another listens in its place",
                extra={"cause": cause, "address": self._address, "ms": took},
            )

    async def _replacement(self, cause: str) -> GrpcServer:
        end = asyncio.get_running_loop().time() + LISTEN_SECONDS
        while True:
            server = self._make_server()
            try:
                self._listen(server, self._address)
            except RuntimeError as error:
                if asyncio.get_running_loop().time() > end:
                    raise EndpointFailed(
                        f"gRPC's server has ended by {cause}, and {self._address} cannot be"
                        " listened on again"
                    ) from error
                await asyncio.sleep(_LISTEN_PAUSE_SECONDS)
                continue
            await server.start()
            return server


async def _end_of(server: GrpcServer) -> str:
    """Wait until a server ends, and say by what."""
    try:
        while await server.wait_for_termination(LOOK_SECONDS):
            pass
    except Exception as error:  # noqa: BLE001  whatever ends it, another takes its place
        return f"{type(error).__name__}: {error}"
    return "nothing that gRPC names"


def _obstacle(host: str, port: int) -> str:
    """Why an address cannot be had, which gRPC does not tell."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address, family=family).close()
    except OSError as error:
        return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)
    return "it was in use just now"
