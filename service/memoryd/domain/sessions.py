"""Sessions as callers see them, and what callers may set for them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from memoryd.domain.records import Session

LAST_CHARACTER = "\U0010ffff"
"""Sorts behind every character of an id."""


class SessionRange(NamedTuple):
    """Ids from one on, up to another that is not among them; both by code point."""

    first: str
    end: str

    def within(self, other: SessionRange) -> SessionRange | None:
        """What both have in common, if anything."""
        first, end = max(self.first, other.first), min(self.end, other.end)
        return SessionRange(first, end) if first < end else None


class TenantRange(NamedTuple):
    """Some sessions of a tenant."""

    tenant: str
    sessions: Sequence[SessionRange]
    """In their order; no id is in two of them."""


EVERY_ID = SessionRange("", LAST_CHARACTER)


def ids_with_prefix(prefix: str) -> SessionRange:
    """Ids that begin with a text; with an empty one, all."""
    if not prefix:
        return EVERY_ID
    return SessionRange(prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))


def behind(session_id: str) -> str:
    """What sorts behind an id, and before every other id behind it; of an empty one, empty."""
    return f"{session_id}\x01" if session_id else ""


def only_id(session_id: str) -> SessionRange:
    return SessionRange(session_id, behind(session_id))


class SessionSettings(NamedTuple):
    """What a caller has set for a session."""

    display_name: str = ""
    labels: Mapping[str, str] = {}
    state: Mapping[str, Any] = {}
    memory_limit: int | None = None
    """None: `memory.max_entries` holds."""
    memory_ttl: int | None = None
    """In microseconds. None: `memory.ttl_hours` holds, unless memories never expire."""
    memories_never_expire: bool = False


def etag_of(settings_revision: int) -> str:
    """Opaque; 0 where nothing was ever set."""
    return f"s{settings_revision}"


class SessionRecord(NamedTuple):
    """A session as it is at one moment."""

    session: Session
    settings: SessionSettings
    memory_count: int
    """Live ones."""
    document_count: int
    conversation_count: int
    created_at: datetime | None
    """None: nothing that is kept tells."""
    updated_at: datetime | None
    revision: int
    settings_revision: int

    @property
    def etag(self) -> str:
        """Of what a caller has set."""
        return etag_of(self.settings_revision)


class SessionPage(NamedTuple):
    sessions: tuple[SessionRecord, ...]
    next_after: str | None
    """The id to go on after; None: this was the last page."""


@dataclass(frozen=True, slots=True)
class SessionEdit:
    """Which settings of a session change, and to what."""

    session: Session
    etag: str = ""
    allow_missing: bool = False
    """Whether a session that is not there is made."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """By the names of SessionSettings."""
