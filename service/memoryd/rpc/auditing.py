"""What a call leaves in the audit, by the decision in its method's row."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc

from memoryd.audit.refusals import Refusal, Refusals
from memoryd.domain.audit import Audited, AuditMode, Event, Kind
from memoryd.rpc.access import ObservedPrincipal
from memoryd.rpc.limits import client_of
from memoryd.rpc.status import code_of, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from memoryd.audit.writer import AuditWriter
    from memoryd.domain.errors import MemorydError
    from memoryd.domain.principals import Principal
    from memoryd.rpc.call import Call
    from memoryd.rpc.call_record import CallRecord

LOOK_SECONDS = 1.0
"""Between two looks whether a minute of refusals is over."""

_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


class Auditor:
    """Makes the lines of a server's calls, and has them written."""

    def __init__(self, mode: AuditMode, writer: AuditWriter, clock: Callable[[], datetime]) -> None:
        self._every = mode is AuditMode.ALL
        self._clock = clock
        self._refusals = Refusals(clock)
        self._writer = writer
        self._gathering: asyncio.Task[None] | None = None

    @property
    def lag_seconds(self) -> float:
        """The age of the oldest line that is not written; 0: all are."""
        oldest = self._writer.oldest
        return 0.0 if oldest is None else max((self._clock() - oldest).total_seconds(), 0.0)

    def start(self) -> None:
        """Write refusals when their minute is over."""
        self._gathering = asyncio.create_task(self._gather(), name="refusals")

    async def aclose(self) -> None:
        """Write what is left."""
        if self._gathering is not None:
            self._gathering.cancel()
            await asyncio.gather(self._gathering, return_exceptions=True)
        for event in self._refusals.take():
            self._writer.add(event)
        await self._writer.close()

    def decision_for(self, row: Audited) -> Audited | None:
        """Give what is to be done for a method's calls, by its row; None: nothing."""
        if row is Audited.NEVER or (row is Audited.IN_ALL and not self._every):
            return None
        return row

    async def begin(self, call: Call, record: CallRecord) -> None:
        """Note that a call's request is accepted. Raises AuditUnavailable where a line is due."""
        record.has_begun = True
        if record.decision is Audited.BEFORE:
            await self._writer.write(self._event(Kind.BEGUN, call, record))

    def end(self, call: Call, record: CallRecord, code: grpc.StatusCode, reason: str) -> None:
        """Write that a call has ended."""
        if self._every:
            is_due = record.has_begun or code not in _REFUSED  # which are gathered
        else:
            is_due = record.has_begun and record.changes
        if is_due:
            if record.session_count > 1:
                record.counts["sessions"] = record.session_count
            self._writer.add(self._event(Kind.ENDED, call, record, code.name, reason))

    def refuse(self, call: Call, peer: str, error: MemorydError) -> None:
        """Count a call, or an item of a stream, that is refused for who its caller is."""
        self._count(Kind.REFUSED, call, peer, error)

    def would_refuse(self, call: Call, peer: str, error: MemorydError) -> None:
        """Count a call that would be refused were credentials required."""
        self._count(Kind.WOULD_REFUSE, call, peer, error)

    def _count(self, kind: Kind, call: Call, peer: str, error: MemorydError) -> None:
        code = code_of(error)
        if code not in _REFUSED:
            return
        tenant, name, key_id = error.caller or _who(call.principal)
        self._refusals.add(
            Refusal(
                *(kind, tenant, name, key_id, client_of(peer), call.method, code.name),
                reason_of(error),
            )
        )

    def _event(
        self, kind: Kind, call: Call, record: CallRecord, code: str = "", reason: str = ""
    ) -> Event:
        own, name, key_id = _who(call.principal)
        # What a request says that was not accepted may be anything, a credential too.
        is_known = record.has_begun
        tenant = (is_known and record.tenant) or call.principal.tenant
        return Event(
            self._clock(),
            kind,
            tenant=tenant,
            principal=name,
            principal_tenant=own if own != tenant else "",
            key_id=key_id,
            peer=record.peer,
            method=call.method,
            code=code,
            reason=reason,
            request_id=call.request_id,
            receipt_id=record.receipt_id,
            target=record.target if is_known else "",
            sessions=tuple(record.sessions),
            counts=dict(record.counts),
        )

    async def _gather(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for event in self._refusals.take_due():
                self._writer.add(event)


def _who(principal: Principal) -> tuple[str, str, str]:
    """Tenant, name and key id of a caller; while credentials are observed, of the one it shows."""
    if isinstance(principal, ObservedPrincipal) and principal.real is not None:
        principal = principal.real
    return principal.tenant, principal.name, principal.credential_id
