"""Records that travel between rooms and do not change. All times are aware, in UTC.

Those that every call makes are named tuples: a frozen dataclass takes twice as long to make.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from memoryd.domain.conditions import NO_CONDITIONS, Conditions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from memoryd.domain.errors import Violation

DEFAULT_TENANT = "default"
"""Whose data it is while authentication is off."""

DEFAULT_IMPORTANCE = 0.5

LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""What a timestamp can say at the latest."""


def expiry(now: datetime, ttl: timedelta | None) -> datetime | None:
    """When what lives from now on expires; None: never."""
    if ttl is None:
        return None
    try:
        return min(now + ttl, LATEST)
    except OverflowError:
        return LATEST


MAX_BATCH = 1000
"""Memories that one call may store, as the contract has it."""


class Session(NamedTuple):
    """The shard key: every statement on memories names it, and no query crosses it."""

    tenant: str
    session_id: str


class ContentPolicy(enum.StrEnum):
    """How contents are received; the values are those of `MEMORYD_CONTENT_POLICY`."""

    SANITIZE = "sanitize"
    STRICT = "strict"
    VERBATIM = "verbatim"


class ContentType(enum.StrEnum):
    """What kind of memory it is, as the database spells it."""

    USER_INFO = "user_info"
    PREFERENCE = "preference"
    FACT = "fact"
    CONTEXT = "context"


class Change(enum.StrEnum):
    """What last happened to a memory, as the database spells it."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    RESTORED = "restored"
    EXPIRED = "expired"
    PURGED = "purged"
    """Of no row: there is none any more."""


@dataclass(frozen=True, slots=True)
class MemoryEvent:
    """One change of a session."""

    revision: int
    change: Change
    memory_id: str
    memory: Memory | None
    """As it was after the change; None where it was purged."""


class Accesses(NamedTuple):
    """How often a memory was accessed, and when last."""

    times: int
    last: datetime | None

    def and_later(self, others: Accesses) -> Accesses:
        """Give these and others that were counted since."""
        known = [moment for moment in (self.last, others.last) if moment is not None]
        return Accesses(self.times + others.times, max(known, default=None))


class StoreOutcome(enum.StrEnum):
    CREATED = "created"
    MERGED = "merged"
    REPLACED = "replaced"
    """New, in the place of another that had its key."""


Identity: TypeAlias = "str | tuple[ContentType, str]"
"""Of a memory within its session: its key, or where it has none its type and content hash."""


class Memory(NamedTuple):
    """One row of `memories`."""

    session: Session
    memory_id: str
    content: str
    content_type: ContentType
    importance: float
    metadata: Mapping[str, Any]
    content_hash: str
    """As its row has it: that of the content, or of a memory with a key `keyed_hash` of it."""
    semantic_hash: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    revision: int
    created_revision: int
    change: Change = Change.CREATED
    access_count: int = 0
    last_accessed: datetime | None = None
    deleted_at: datetime | None = None
    key: str | None = None
    """The caller's name for it; None: none."""
    tags: Sequence[str] = ()
    """Sorted by code point, each once."""

    @property
    def identity(self) -> Identity:
        """What no two live memories of a session share."""
        return self.key or (self.content_type, self.content_hash)

    def has_content_of(self, other: Memory | NewMemory) -> bool:
        """Whether type and content are the same."""
        return (self.content_type, self.content_hash) == (other.content_type, other.content_hash)

    @property
    def etag(self) -> str:
        """Opaque; the revision rises with every change that a caller can see."""
        return f"r{self.revision}"

    @property
    def accesses(self) -> Accesses:
        """As they were when the row was read."""
        return Accesses(self.access_count, self.last_accessed)

    def is_live(self, now: datetime) -> bool:
        """Whether readers see it at `now`."""
        return self.deleted_at is None and not self.is_expired(now)

    def is_unused_since(self, moment: datetime, now: datetime) -> bool:
        """Whether it is live, and was not stored, changed or retrieved since."""
        last_use = max(self.updated_at, self.last_accessed or self.updated_at)
        return self.is_live(now) and last_use <= moment

    def is_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class Unset(enum.Enum):
    """Tells "not given" from None where None means something."""

    UNSET = enum.auto()


UNSET = Unset.UNSET


class NewMemory(NamedTuple):
    """What a caller wants stored, checked, sanitised and hashed."""

    session: Session
    content: str
    content_type: ContentType
    importance: float
    metadata: Mapping[str, Any]
    content_hash: str
    semantic_hash: str
    expires_at: datetime | None
    """None: never."""
    request_id: str = ""
    fingerprint: str = ""
    """Of the request's arguments; tells a retry from another use of the same request_id."""
    field: str = ""
    """Where in the call it stands (`requests[3]`), for violations that only the store can see."""
    expires_by_default: bool = False
    """Whether the caller gave no expiration: what is set for the session goes before."""
    late: Violation | None = None
    """What is wrong with it by now, unless it is a retry: its time has passed."""
    key: str | None = None
    tags: Sequence[str] = ()

    @property
    def identity(self) -> Identity:
        """Of the memory that it becomes."""
        return self.key or (self.content_type, self.content_hash)


class Stored(NamedTuple):
    memory: Memory
    outcome: StoreOutcome
    evicted_memory_ids: tuple[str, ...] = ()
    replaced_memory_id: str = ""
    is_again: bool = False
    """Whether it answers a retry: it was stored before, and nothing is now."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The tool configuration's limits on a session, as values."""

    max_entries: int
    half_life_days: float


@dataclass(frozen=True, slots=True)
class MemoryEdit:
    """Which fields of a memory change, and to what."""

    session: Session
    memory_id: str
    etag: str = ""
    content: str | Unset = UNSET
    content_hash: str = ""
    semantic_hash: str = ""
    content_type: ContentType | Unset = UNSET
    importance: float | Unset = UNSET
    metadata: Mapping[str, Any] | Unset = UNSET
    tags: Sequence[str] | Unset = UNSET
    expires_at: datetime | Unset | None = UNSET
    key: str | Unset = UNSET
    """What the memory's key has to be; empty: none. It never changes."""


@dataclass(frozen=True, slots=True)
class MemoryFilter:
    """All conditions given must hold."""

    content_types: frozenset[ContentType] = frozenset()
    min_importance: float | None = None
    conditions: Conditions = NO_CONDITIONS
    """On the metadata."""
    created_after: datetime | None = None
    created_before: datetime | None = None
    tags_any: frozenset[str] = frozenset()
    """At least one of these."""
    tags_all: frozenset[str] = frozenset()
    """All of these."""
    key_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    memories: tuple[Memory, ...]
    next_after: int | None
    """`created_revision` to go on after; None: this was the last page."""
