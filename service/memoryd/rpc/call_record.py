"""What the audit has of a call besides what every call has."""

from __future__ import annotations

from memoryd.domain.audit import MAX_SESSION_REFS, Audited
from memoryd.domain.ids import uuid7


class CallRecord:
    """What a call's lines say besides what every call has; handlers and parsers fill it."""

    __slots__ = (
        *("changes", "counts", "decision", "has_begun", "peer", "receipt_id", "session_count"),
        *("sessions", "target", "tenant"),
    )

    def __init__(self, decision: Audited, peer: str) -> None:
        self.decision = decision
        self.peer = peer
        self.receipt_id = uuid7()
        self.has_begun = False
        """Whether its request was accepted."""
        self.changes = decision is not Audited.IN_ALL
        """False where a call turns out to change nothing, as a trial."""
        self.tenant = ""
        """What the call is about; empty: the caller's own."""
        self.target = ""
        self.counts: dict[str, int] = {}
        self.sessions: list[str] = []
        """The first sessions that were named, without their tenant, which is the caller's."""
        self.session_count = 0

    def names(self, session_id: str) -> None:
        """Note that the call names a session."""
        self.session_count += 1
        if len(self.sessions) < MAX_SESSION_REFS and session_id not in self.sessions:
            self.sessions.append(session_id)
