"""How many calls are under way, in all and for each client; more are refused at once."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memoryd.errors import ClientLimitReached, Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes on. Counts are at one moment, times in seconds."""

    calls: int
    calls_per_client: int
    streams: int
    streams_per_client: int
    message_bytes: int
    stream_stall_seconds: float
    """How long a stream may go unread."""
    stream_idle_seconds: float
    """How long a stream may have nothing to tell."""


class Slots:
    """Places for calls of one kind. A client is an address, whatever its connections."""

    def __init__(self, noun: str, limit: int, limit_per_client: int) -> None:
        self._noun = noun
        self._limit = limit
        self._limit_per_client = limit_per_client
        self._taken: Counter[str] = Counter()
        self._total = 0

    @contextmanager
    def taken(self, peer: str) -> Iterator[None]:
        """Hold a place for a call of `peer`, as gRPC names it (`ipv4:10.0.0.7:40112`).

        Raises Overloaded, and ClientLimitReached, where there is none.
        """
        client = peer.rpartition(":")[0]
        if self._taken[client] >= self._limit_per_client:
            raise ClientLimitReached(
                f"this client has {self._limit_per_client:,} {self._noun} under way, the most that"
                " one may have; try again"
            )
        if self._total >= self._limit:
            raise Overloaded(f"{self._total:,} {self._noun} are under way, the limit; try again")
        self._total += 1
        self._taken[client] += 1
        try:
            yield
        finally:
            self._total -= 1
            self._taken[client] -= 1
            if not self._taken[client]:
                del self._taken[client]
