"""Conversations and their messages: records and limits. Pure.

The messages of a conversation form a tree. They are kept in branches: runs of messages, each with
its depth, the number of messages from the first one to it. A branch goes on from a message of
another branch, or begins with the first message. Conversations that were forked share a tree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from memoryd.domain.records import Change, Session

MAX_MESSAGES = 1_000
"""Messages of one call, as the contract has it."""

MAX_PROMOTED = 1_000
"""Messages that one call goes over to make memories of them, as the contract has it."""

MAX_MESSAGE_BYTES = 1_048_576
"""Of a message as it is kept: of the proto that holds what the caller set."""

MAX_SUMMARY_CHARACTERS = 65_536

MAX_BRANCHES = 1_000
"""Branches of one conversation besides that of its head. Every change of it writes their ends."""

BYTES_A_TOKEN = 4
"""Of text in UTF-8, where nobody has counted the tokens."""


def estimated_tokens(size: int) -> int:
    """Estimate the tokens of a text by its bytes, rounded up."""
    return -(-size // BYTES_A_TOKEN)


class Place(NamedTuple):
    """Where a message stands in its tree."""

    branch: int
    depth: int
    """How many messages there are up to it, itself included."""


NOWHERE = Place(0, 0)
"""Before the first message. No branch has this number."""


class Tip(NamedTuple):
    """The last message of a branch of a conversation."""

    branch: int
    depth: int
    message_id: str

    @property
    def place(self) -> Place:
        return Place(self.branch, self.depth)


class Head(NamedTuple):
    """The message that an append follows, with what the next one depends on."""

    place: Place = NOWHERE
    first_depth: int = 1
    """Of the first message of its branch; 1: the branch is the way to the first message."""
    message_id: str = ""
    tokens: int = 0
    """Of the messages up to it."""
    turn_id: str = ""
    turn_depth: int = 0
    """Of the message that its turn begins with."""
    created_at: datetime | None = None
    is_end: bool = False
    """Whether the next message goes on its branch: it is the last one there, and the branch is of
    this conversation. Else that begins a branch."""

    @property
    def depth(self) -> int:
        return self.place.depth

    @property
    def tip(self) -> Tip:
        return Tip(*self.place, self.message_id)


class Summary(NamedTuple):
    """What was said up to a message."""

    text: str | None
    """None where it was not read."""
    through_message_id: str
    tokens: int
    updated_at: datetime


class Conversation(NamedTuple):
    """One row of `conversations`."""

    session: Session
    conversation_id: str
    number: int
    """Tells it from others in the session: what the revision was when it was made."""
    tree: int
    """That of the conversation whose forks share the tree."""
    revision: int
    change: Change
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    ttl: timedelta | None = None
    """How long after an append it expires; None: `expires_at` is fixed, or it never does."""
    head: Head = Head()
    head_is_tip: bool = False
    """Whether there is a head, and no other branch of the conversation goes on from it."""
    tips: Sequence[Tip] = ()
    """Of the branches besides that of the head, the oldest first."""
    promoted: Sequence[Place] = ()
    """How far its messages were gone over to be promoted: the last message on each way. All before
    one was gone over as well; none of them lies before another."""
    forked_from: str | None = None
    forked_at: str = ""
    display_name: str = ""
    labels: Mapping[str, str] = {}
    state: Mapping[str, Any] = {}
    summary: Summary | None = None

    @property
    def etag(self) -> str:
        """Opaque; the revision rises with every change that a caller can see."""
        return f"r{self.revision}"

    @property
    def branch_heads(self) -> list[str]:
        """The last message of each branch, that of the head's first if it ends with it."""
        ends = [tip.message_id for tip in self.tips]
        return [self.head.message_id, *ends] if self.head_is_tip else ends

    def is_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class NewMessage(NamedTuple):
    """A message to append, checked and hashed."""

    message_id: str
    """Empty: the service gives one."""
    body: bytes
    """What the caller set but the id, in a form that those who answer it can read."""
    sha256: str
    tokens: int
    is_estimated: bool
    turn_id: str = ""
    is_result: bool = False
    """Whether it has the result of a call that is not in it."""
    field: str = ""
    """Where in the call it stands (`messages[3]`)."""


class Message(NamedTuple):
    """One row of `messages`."""

    place: Place
    message_id: str
    parent_id: str
    """Empty: it is the first."""
    tokens: int
    is_estimated: bool
    tokens_through: int
    """Of the messages up to it, itself included."""
    turn_id: str
    turn_depth: int
    """Of the message that its turn begins with: its own, or that of one before it."""
    created_at: datetime
    """Never before that of the message before it."""
    revision: int
    size: int
    sha256: str
    body: bytes | None = None
    """None where it was not read."""

    def head(self, first_depth: int, *, is_end: bool) -> Head:
        """It as the head of a conversation; `first_depth`: of its branch."""
        return Head(
            self.place,
            first_depth,
            self.message_id,
            self.tokens_through,
            self.turn_id,
            self.turn_depth,
            self.created_at,
            is_end,
        )


class ConversationEvent(NamedTuple):
    """One change of a session's conversations."""

    revision: int
    change: Change
    conversation_id: str
    conversation: Conversation | None
    """As it is when the event is read; None where it is gone."""
    messages: Sequence[Message] = ()
    """That the change appended."""


class ConversationPage(NamedTuple):
    conversations: Sequence[Conversation]
    next_after: str | None
    """Where to go on; None: this was the last page."""


def patched(state: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Apply a merge patch (RFC 7386): null removes, objects merge, anything else replaces."""
    result = dict(state)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            before = result.get(key)
            result[key] = patched(before if isinstance(before, dict) else {}, value)
        else:
            result[key] = value
    return result
