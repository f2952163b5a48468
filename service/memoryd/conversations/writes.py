"""What a transaction may be asked to do with conversations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime, timedelta

    from memoryd.domain.conversations import Conversation, Message, NewMessage, Place
    from memoryd.domain.records import Capacity, NewMemory, Session, Stored

BYTES_A_WEIGHT = 8_192
"""Of bodies, what counts as much of a transaction as one small write."""

REMOVAL_WEIGHT = 100
"""What a removal counts as, whose messages are not counted before."""


class Named(NamedTuple):
    """Names a conversation, and the state that it has to be in."""

    session: Session
    conversation_id: str
    etag: str = ""
    """Its current one; empty: any."""


class Expiration(NamedTuple):
    """When a conversation expires; without either: never."""

    ttl: timedelta | None = None
    """So long after each append."""
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Tells a retry of a call."""

    request_id: str = ""
    """Empty: it is never retried."""
    fingerprint: str = ""


class OnConversation:
    """What is about one conversation."""

    __slots__ = ()

    of: Named

    @property
    def session(self) -> Session:
        return self.of.session


@dataclass(frozen=True, slots=True)
class CreateConversation(OnConversation):
    """Make a conversation."""

    of: Named
    values: Mapping[str, Any]
    """By the names of Conversation: `display_name`, `labels`, `state`."""
    expiration: Expiration

    makes_session = True
    weight = 1


@dataclass(frozen=True, slots=True)
class ChangeConversation(OnConversation):
    """Change what a caller set for a conversation."""

    of: Named
    values: Mapping[str, Any]
    """As those of CreateConversation."""
    expiration: Expiration | None = None
    """None: it stays, unless it is cleared."""
    cleared: frozenset[str] = frozenset()
    """Which of `ttl`, `expire_time` and `never_expires` are unset. What has one of these never
    expires from then on."""

    makes_session = False
    weight = 1


@dataclass(frozen=True, slots=True)
class AppendMessages(OnConversation):
    """Append messages after the head: all of them, or none."""

    of: Named
    items: tuple[NewMessage, ...]
    patch: Mapping[str, Any] = field(default_factory=dict)
    """Of the state (RFC 7386)."""
    retry: Retry = Retry()
    after: str | None = None
    """The message that they follow in place of the head, of a conversation that has to be there;
    empty: they begin it. None: the head."""

    @property
    def makes_session(self) -> bool:
        return self.after is None

    @property
    def weight(self) -> int:
        return 1 + sum(map(_weight, self.items))

    @property
    def heaviest(self) -> int:
        """The weight of the heaviest message."""
        return max(map(_weight, self.items), default=0)


@dataclass(frozen=True, slots=True)
class PopMessages(OnConversation):
    """Remove the newest messages from the head's branch."""

    of: Named
    count: int
    retry: Retry = Retry()

    makes_session = False

    @property
    def weight(self) -> int:
        return self.count


@dataclass(frozen=True, slots=True)
class ForkConversation(OnConversation):
    """Make a conversation that shares the messages of another one up to a message."""

    of: Named
    at: str
    """Empty: the head."""
    new_id: str

    makes_session = False
    weight = 1


@dataclass(frozen=True, slots=True)
class MoveHead(OnConversation):
    """Move the head to a message of any branch."""

    of: Named
    message_id: str

    makes_session = False
    weight = 1


@dataclass(frozen=True, slots=True)
class SetSummary(OnConversation):
    """Set the summary of a conversation; without a text and a message there is none."""

    of: Named
    text: str
    through: str
    tokens: int

    makes_session = False
    weight = 1


@dataclass(frozen=True, slots=True)
class DeleteConversation(OnConversation):
    """Delete a conversation, with the messages that no other one needs."""

    of: Named
    allow_missing: bool = False

    makes_session = False
    weight = REMOVAL_WEIGHT


@dataclass(frozen=True, slots=True)
class ExpireConversation(OnConversation):
    """Delete a conversation whose time has come, if it has."""

    of: Named

    makes_session = False
    weight = REMOVAL_WEIGHT


def _weight(item: NewMessage) -> int:
    return 1 + len(item.body) // BYTES_A_WEIGHT


class Candidate(NamedTuple):
    """A message that was read, and what is to be stored of it."""

    message_id: str
    place: Place
    revision: int
    """Of its append."""
    memory: NewMemory | None
    """None: it is only gone over."""


def memories_of(candidates: Iterable[Candidate]) -> tuple[NewMemory, ...]:
    return tuple(c.memory for c in candidates if c.memory is not None)


@dataclass(frozen=True, slots=True)
class PromoteMessages(OnConversation):
    """Store memories of messages, all or none."""

    of: Named
    candidates: tuple[Candidate, ...]
    since_last: bool
    """Whether only those are stored that follow what was gone over, which they then belong to."""
    capacity: Capacity

    makes_session = False

    @property
    def weight(self) -> int:
        return 1 + len(self.candidates)


class Appended(NamedTuple):
    messages: Sequence[Message]
    """One for each that was given; with the bodies that were given."""
    conversation: Conversation


class Promoted(NamedTuple):
    stored: Sequence[Stored]
    has_more: bool
    """Whether there is something that was not gone over yet."""


ConversationWrite = (
    CreateConversation
    | ChangeConversation
    | AppendMessages
    | PopMessages
    | ForkConversation
    | MoveHead
    | SetSummary
    | PromoteMessages
    | DeleteConversation
    | ExpireConversation
)
KINDS = (
    CreateConversation,
    ChangeConversation,
    AppendMessages,
    PopMessages,
    ForkConversation,
    MoveHead,
    SetSummary,
    PromoteMessages,
    DeleteConversation,
    ExpireConversation,
)
ConversationOutcome: TypeAlias = "Conversation | Appended | tuple[Message, ...] | Promoted | None"
"""Of AppendMessages; of PopMessages, the oldest first; of PromoteMessages; nothing of what removes;
of the others the conversation."""
