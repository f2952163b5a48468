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


class Quotas(NamedTuple):
    """Of one tenant; 0 is no limit."""

    calls_per_second: int = 0
    """By weight: a method that costs more counts several times."""
    streams: int = 0
    """Under way at once on one server."""
    keys: int = 0
    """API keys that have not ended."""

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
