"""How much of the service a tenant may use. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from memoryd.domain.errors import QuotaExceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BURST_SECONDS = 2.0
"""What a tenant may save up of its calls a second."""

MAX_BUCKETS = 100_000
"""Tenants whose calls are counted; beyond it the one that is idle for longest begins with a full
bucket."""


class Usage(NamedTuple):
    """What a tenant has stored, by how much that changes, or a quota of it each."""

    memories: int = 0
    """Rows that are not deleted: expired ones until they are swept."""
    sessions: int = 0
    """Sessions that exist: until they are erased, whether or not they hold anything."""
    bytes: int = 0
    """Of the contents and the metadata of those memories, as they are stored, of the bodies of
    documents, and of messages."""
    documents: int = 0
    """Rows: expired ones until they are swept."""
    conversations: int = 0
    """Rows: expired ones until they are swept."""
    messages: int = 0
    """Rows: one that several conversations share is one."""

    # Field by field, since every write comes here.

    def plus(self, other: Usage) -> Usage:
        memories, sessions, size, documents, conversations, messages = other
        return Usage(
            self.memories + memories,
            self.sessions + sessions,
            self.bytes + size,
            self.documents + documents,
            self.conversations + conversations,
            self.messages + messages,
        )

    def minus(self, other: Usage) -> Usage:
        memories, sessions, size, documents, conversations, messages = other
        return Usage(
            self.memories - memories,
            self.sessions - sessions,
            self.bytes - size,
            self.documents - documents,
            self.conversations - conversations,
            self.messages - messages,
        )


NOTHING = Usage()


class Account:
    """What one tenant has stored, while it is known and nobody else changes it."""

    __slots__ = ("_found", "_limits", "tenant", "used")

    def __init__(self, tenant: str, used: Usage, limits: Usage) -> None:
        """`limits` with a 0 for what has none."""
        self.tenant = tenant
        self.used = self._found = used
        self._limits = limits

    @property
    def is_changed(self) -> bool:
        return self.used != self._found

    def add(self, change: Usage, room: Usage = NOTHING) -> None:
        """Count a change.

        Raises QuotaExceeded, and counts nothing, where it adds to what has a quota more than that
        allows. `room`: what will be taken away right after it.
        """
        limits, after = self._limits, self.used.plus(change)
        if limits.memories and after.memories - room.memories > limits.memories:
            self._refuse("memories", change.memories - room.memories)
        if limits.sessions and after.sessions - room.sessions > limits.sessions:
            self._refuse("sessions", change.sessions - room.sessions)
        if limits.bytes and after.bytes - room.bytes > limits.bytes:
            self._refuse("bytes", change.bytes - room.bytes)
        if limits.documents and after.documents > limits.documents:
            self._refuse("documents", change.documents)
        if limits.conversations and after.conversations > limits.conversations:
            self._refuse("conversations", change.conversations)
        if limits.messages and after.messages > limits.messages:
            self._refuse("messages", change.messages)
        self.used = after

    def _refuse(self, quota: str, added: int) -> None:
        if added > 0:
            raise QuotaExceeded(self.tenant, quota, getattr(self._limits, quota))


class Quotas(NamedTuple):
    """Of one tenant; 0 is no limit."""

    calls_per_second: int = 0
    """By weight: a method that costs more counts several times."""
    streams: int = 0
    """Under way at once on one server."""
    keys: int = 0
    """API keys that have not ended."""
    memories: int = 0
    sessions: int = 0
    bytes: int = 0
    documents: int = 0
    conversations: int = 0
    messages: int = 0

    @property
    def stored(self) -> Usage:
        """Of what is stored; see there."""
        return Usage(*(getattr(self, name) for name in Usage._fields))

    @classmethod
    def known(cls, values: Mapping[str, int]) -> dict[str, int]:
        """Those that this release knows."""
        return {name: value for name, value in values.items() if name in cls._fields}

    def changed(self, values: Mapping[str, int]) -> Quotas:
        """These with others of the same names in their place."""
        return self._replace(**self.known(values))


class CallBuckets:
    """A token bucket a tenant: it fills by the quota, up to what BURST_SECONDS bring."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that only rise."""
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        """What was left, and when."""

    def take(self, tenant: str, rate: int, weight: int) -> None:
        """Take what a call weighs. Raises QuotaExceeded, with when to come back."""
        now = self._clock()
        most = rate * BURST_SECONDS
        left, at = self._buckets.pop(tenant, (most, now))
        left = min(most, left + (now - at) * rate)
        # What weighs more than a full bucket has its turn when that is full.
        missing = min(weight, most) - left
        if missing <= 0:
            left -= weight
        self._buckets[tenant] = (left, now)
        if len(self._buckets) > MAX_BUCKETS:
            del self._buckets[next(iter(self._buckets))]
        if missing > 0:
            raise QuotaExceeded(tenant, "calls_per_second", rate, retry_after=missing / rate)
