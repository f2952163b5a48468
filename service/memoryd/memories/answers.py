"""Memories as JSON: first answers to a `request_id`, and versions that were superseded."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import TYPE_CHECKING, Any

from memoryd.domain.records import Change, ContentType, Memory, Stored, StoreOutcome

if TYPE_CHECKING:
    from memoryd.domain.records import NewMemory, Session


def to_answer(stored: Stored) -> dict[str, Any]:
    return {
        "outcome": stored.outcome.value,
        "evicted": list(stored.evicted_memory_ids),
        "memory": to_state(stored.memory),
    }


def from_answer(session: Session, memory_id: str, answer: dict[str, Any]) -> Stored:
    return Stored(
        memory=from_state(session, memory_id, answer["memory"]),
        outcome=StoreOutcome(answer["outcome"]),
        evicted_memory_ids=tuple(answer["evicted"]),
    )


def blanked(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer without its text, and what could be made of its text."""
    nothing = {"content": "", "metadata": {}, "content_hash": "", "semantic_hash": ""}
    return {**answer, "memory": {**answer["memory"], **nothing}}


def filled(stored: Stored, item: NewMemory) -> Stored:
    """The answer with what was taken out of it, as the caller sends it again."""
    if stored.memory.content:
        return stored
    memory = dataclasses.replace(
        stored.memory,
        content=item.content,
        metadata=item.metadata,
        content_hash=item.content_hash,
        semantic_hash=item.semantic_hash,
    )
    return dataclasses.replace(stored, memory=memory)


def to_state(memory: Memory) -> dict[str, Any]:
    """All of a memory but its key, which the row has."""
    return {
        "content": memory.content,
        "content_type": memory.content_type.value,
        "importance": memory.importance,
        "metadata": memory.metadata,
        "content_hash": memory.content_hash,
        "semantic_hash": memory.semantic_hash,
        "created_at": _text(memory.created_at),
        "updated_at": _text(memory.updated_at),
        "expires_at": _text(memory.expires_at),
        "deleted_at": _text(memory.deleted_at),
        "revision": memory.revision,
        "created_revision": memory.created_revision,
        "change": memory.change.value,
        "access_count": memory.access_count,
        "last_accessed": _text(memory.last_accessed),
    }


def from_state(session: Session, memory_id: str, state: dict[str, Any]) -> Memory:
    return Memory(
        session=session,
        memory_id=memory_id,
        content=state["content"],
        content_type=ContentType(state["content_type"]),
        importance=state["importance"],
        metadata=state["metadata"],
        content_hash=state["content_hash"],
        semantic_hash=state["semantic_hash"],
        created_at=datetime.fromisoformat(state["created_at"]),
        updated_at=datetime.fromisoformat(state["updated_at"]),
        expires_at=_time(state["expires_at"]),
        deleted_at=_time(state["deleted_at"]),
        revision=state["revision"],
        created_revision=state["created_revision"],
        change=Change(state["change"]),
        access_count=state["access_count"],
        last_accessed=_time(state["last_accessed"]),
    )


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
