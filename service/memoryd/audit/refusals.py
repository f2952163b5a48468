"""Refused calls, gathered by the minute: a line for those that are alike. Pure."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from memoryd.domain.audit import Event, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GATHERED_FOR = timedelta(minutes=1)

DISTINCT = 100
"""Kinds of refusals that are told apart in one minute; of the others only the code and the reason
are kept, and how many there were."""


class Refusal(NamedTuple):
    """What refusals of one line have in common."""

    kind: Kind
    tenant: str
    principal: str
    key_id: str
    peer: str
    method: str
    code: str
    reason: str


class Refusals:
    """Those of this process since the last line."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._counts: Counter[Refusal] = Counter()
        self._due: datetime | None = None

    def add(self, refusal: Refusal) -> None:
        if self._due is None:
            self._due = self._clock() + GATHERED_FOR
        if refusal not in self._counts and len(self._counts) >= DISTINCT:
            refusal = Refusal(refusal.kind, "", "", "", "", "", refusal.code, refusal.reason)
        self._counts[refusal] += 1

    def take_due(self) -> Iterator[Event]:
        """Give the lines of a minute that is over."""
        if self._due is not None and self._clock() >= self._due:
            yield from self.take()

    def take(self) -> Iterator[Event]:
        """Give the lines of what was gathered so far."""
        now, counts = self._clock(), self._counts
        self._counts, self._due = Counter(), None
        for refusal, count in counts.items():
            kind, tenant, principal, key_id, peer, method, code, reason = refusal
            yield Event(
                now,
                kind,
                tenant=tenant,
                principal=principal,
                key_id=key_id,
                peer=peer,
                method=method,
                code=code,
                reason=reason,
                counts={"calls": count},
            )
