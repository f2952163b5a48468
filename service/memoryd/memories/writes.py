"""What a transaction may be asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from memoryd.conversations.writes import (
    AppendMessages,
    ConversationOutcome,
    ConversationWrite,
    OnConversation,
)
from memoryd.documents.writes import (
    DocumentsOutcome,
    DocumentWrite,
    ExpireDocument,
    MoveDocuments,
    OnNames,
    WriteDocuments,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from memoryd.domain.records import Capacity, Memory, MemoryEdit, NewMemory, Session, Stored

LARGE_WEIGHT = 8
"""What is heavier than so many small writes is large: a body of 64 KiB."""


@dataclass(frozen=True, slots=True)
class Store:
    """Store all of them, or none."""

    items: tuple[NewMemory, ...]
    capacity: Capacity


@dataclass(frozen=True, slots=True)
class Update:
    edit: MemoryEdit


@dataclass(frozen=True, slots=True)
class Delete:
    session: Session
    memory_id: str
    etag: str = ""
    key: str = ""
    """In place of the id."""


@dataclass(frozen=True, slots=True)
class Undelete:
    session: Session
    memory_id: str
    capacity: Capacity


@dataclass(frozen=True, slots=True)
class Rollback:
    """Give a memory again what it had at a revision."""

    session: Session
    memory_id: str
    revision: int


@dataclass(frozen=True, slots=True)
class Expire:
    """Remove a memory whose time has come, if it has."""

    session: Session
    memory_id: str


@dataclass(frozen=True, slots=True)
class Retire:
    """Soft-delete a memory that was not used since `unused_since`."""

    session: Session
    memory_id: str
    unused_since: datetime


MemoryWrite = Store | Update | Delete | Undelete | Rollback | Expire | Retire
Write = MemoryWrite | DocumentWrite | ConversationWrite
Outcome: TypeAlias = "tuple[Stored, ...] | Memory | DocumentsOutcome | ConversationOutcome | None"
"""Of Store; of Update, Delete, Undelete and Rollback; of writes to documents and to conversations;
of the others, which may find nothing to do."""


def tenant_of(write: Write) -> str:
    """Whose write it is; all sessions of one are of one tenant."""
    return next(iter(sessions_of(write))).tenant


def sessions_of(write: Write) -> Iterable[Session]:
    match write:
        case Store(items):
            return (item.session for item in items)
        case Update(edit):
            return (edit.session,)
        case (
            Delete(session)
            | Undelete(session)
            | Rollback(session)
            | Expire(session)
            | Retire(session)
        ):
            return (session,)
        case (
            WriteDocuments(session)
            | ExpireDocument(session)
            | OnNames(session)
            | MoveDocuments(session)
            | OnConversation(session=session)
        ):
            return (session,)


def weight_of(write: Write) -> int:
    """How much of a transaction it takes; a small write is one."""
    match write:
        case Store(items):
            return len(items)
        case WriteDocuments() | ExpireDocument() | OnNames() | MoveDocuments() | OnConversation():
            return write.weight
        case _:
            return 1


def is_large(write: Write) -> bool:
    """Whether something in it is so large that few such writes are to be under way at once."""
    match write:
        case WriteDocuments() | AppendMessages():
            return write.heaviest > LARGE_WEIGHT
        case _:
            return False
