"""How many calls are under way, in all and for each client; more are refused at once."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address
from typing import TYPE_CHECKING
from urllib.parse import unquote

from memoryd.domain.errors import ClientLimitReached, Overloaded, ShuttingDown

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes on. Counts are at one moment, times in seconds."""

    calls: int
    calls_per_client: int
    streams: int
    streams_per_client: int
    message_bytes: int
    request_seconds: float
    """How long a request may take to arrive, from when its call has a place."""
    stream_stall_seconds: float
    """How long a stream may go unread."""
    stream_idle_seconds: float
    """How long a stream may have nothing to send."""


RETURNS_A_SECOND = 200
"""How many refused callers are asked back in a second. To refuse one again costs a part of a call's
work."""

FIRST_RETURN_SECONDS = 0.5
LAST_RETURN_SECONDS = 10.0


class RetryDelays:
    """When callers that were refused may come back: one after the other."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = 0.0

    def give(self) -> float:
        """Seconds from now, for one more caller."""
        now = self._clock()
        last = now + LAST_RETURN_SECONDS
        self._next = max(self._next + 1 / RETURNS_A_SECOND, now + FIRST_RETURN_SECONDS)
        if self._next > last:
            # Too many to give each a place of its own.
            self._next = last
            return random.uniform(LAST_RETURN_SECONDS / 2, LAST_RETURN_SECONDS)  # noqa: S311  no secret
        return self._next - now


IPV6_CLIENT_BITS = 64
"""Of an address: who has one has all of its network, which is never smaller."""


def client_of(peer: str) -> str:
    """Which client that is: an IPv4 address, or an IPv6 network, whatever its connections.

    `peer` is as gRPC names it (`ipv4:10.0.0.7:40112`, `ipv6:%5B2001:db8::7%5D:40112`).
    """
    host = peer.rpartition(":")[0]
    return _ipv6_client(host) if host.startswith("ipv6:") else host


@lru_cache(maxsize=4096)
def _ipv6_client(host: str) -> str:
    text = unquote(host.removeprefix("ipv6:")).strip("[]").partition("%")[0]
    try:
        address = IPv6Address(text)
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return f"ipv4:{address.ipv4_mapped}"
    network = int(address) >> (128 - IPV6_CLIENT_BITS) << (128 - IPV6_CLIENT_BITS)
    return f"ipv6:{IPv6Address(network)}/{IPV6_CLIENT_BITS}"


def tenants_share(tenant: str) -> str:
    """A known tenant, in the place of a client."""
    return f"tenant:{tenant}"


class ConcurrencyLimiter:
    """Places for calls of one kind."""

    def __init__(self, noun: str, limit: int, limit_per_client: int) -> None:
        self._noun = noun
        self._limit = limit
        self._limit_per_client = limit_per_client
        self._taken: Counter[str] = Counter()
        self._total = 0
        self._closed = False
        self.last_asked = -math.inf
        """When a place was last asked for, by `time.monotonic`."""

    def close(self) -> None:
        """Give no more places away; those that are taken stay so."""
        self._closed = True

    def take(self, client: str) -> None:
        """Hold a place for a call of a client (see `client_of`), until `give_back`.

        Raises Overloaded, and ClientLimitReached, where there is none, and ShuttingDown once there
        will be none again.
        """
        self.last_asked = time.monotonic()
        if self._closed:
            raise ShuttingDown
        if self._taken[client] >= self._limit_per_client:
            raise ClientLimitReached(
                f"this client has {self._limit_per_client:,} {self._noun} under way, the most that"
                " one may have; try again"
            )
        if self._total >= self._limit:
            raise Overloaded(f"{self._total:,} {self._noun} are under way, the limit; try again")
        self._total += 1
        self._taken[client] += 1

    def give_back(self, client: str) -> None:
        self._total -= 1
        self._taken[client] -= 1
        if not self._taken[client]:
            del self._taken[client]
