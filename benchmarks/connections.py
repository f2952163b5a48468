"""Callers' connections to one server."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc.aio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

CONNECTIONS = 4
TIMEOUT_SECONDS = 30.0
_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),  # otherwise channels share a connection
    ("grpc.max_receive_message_length", -1),
]


class Connections:
    """Channels to one server; calls take and return bytes, so that decoding costs nothing."""

    def __init__(self, channels: list[grpc.aio.Channel], api_key: str = "") -> None:
        self._channels = channels
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else None

    def calls(self, service: str, method: str) -> list[Callable[[bytes], Awaitable[bytes]]]:
        """One function for each connection."""
        path = f"/{service}/{method}"
        return [_call(channel.unary_unary(path), self._metadata) for channel in self._channels]


def _call(multicallable: Any, metadata: Any) -> Callable[[bytes], Awaitable[bytes]]:
    async def call(request: bytes) -> bytes:
        answer: bytes = await multicallable(request, timeout=TIMEOUT_SECONDS, metadata=metadata)
        return answer

    return call


@asynccontextmanager
async def connected(address: str, api_key: str = "") -> AsyncIterator[Connections]:
    """`api_key`: what every call shows, if any."""
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, _OPTIONS))
            for _ in range(CONNECTIONS)
        ]
        yield Connections(channels, api_key)
