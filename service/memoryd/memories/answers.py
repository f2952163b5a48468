"""Memories as JSON: first answers to a `request_id`, and versions that were superseded.

Of an answer that made a memory only what the request does not say is kept: a retry has the same
arguments, or is refused. So there is no second copy of the text, and none to take out.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from memoryd.database.tables import memories
from memoryd.database.types import UtcDateTime
from memoryd.domain.records import Change, ContentType, Memory, Stored, StoreOutcome
from memoryd.memories.rows import ENUMS, FIELDS

if TYPE_CHECKING:
    from memoryd.domain.records import NewMemory, Session


def to_answer(stored: Stored) -> dict[str, Any]:
    memory = stored.memory
    if stored.outcome is not StoreOutcome.MERGED:
        answer = plain(memory.revision, memory.expires_at)
        if stored.replaced_memory_id:
            answer["replaced"] = stored.replaced_memory_id
    else:
        answer = {"outcome": stored.outcome.value, "memory": to_state(memory)}
    if stored.evicted_memory_ids:
        answer["evicted"] = list(stored.evicted_memory_ids)
    return answer


def plain(revision: int, expires_at: datetime | None) -> dict[str, Any]:
    """The answer of a store that made a memory, and did nothing else."""
    answer: dict[str, Any] = {"revision": revision}
    if expires_at is not None:
        answer["expires_at"] = expires_at.isoformat()
    return answer


def from_answer(
    session: Session, memory_id: str, answer: dict[str, Any], created_at: datetime
) -> Stored:
    """The first answer, for `filled` to complete."""
    if "memory" in answer:
        memory = from_state(session, memory_id, answer["memory"])
        outcome = StoreOutcome(answer["outcome"])
    else:
        memory = Memory(
            session=session,
            memory_id=memory_id,
            content="",
            content_type=ContentType.CONTEXT,
            importance=0.0,
            metadata={},
            content_hash="",
            semantic_hash="",
            created_at=created_at,
            updated_at=created_at,
            expires_at=_from_json("expires_at", answer.get("expires_at")),
            revision=answer["revision"],
            created_revision=answer["revision"],
        )
        outcome = StoreOutcome.REPLACED if "replaced" in answer else StoreOutcome.CREATED
    evicted = tuple(answer.get("evicted", ()))
    return Stored(memory, outcome, evicted, answer.get("replaced", ""))


def blanked(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer without its text, and what could be made of its text."""
    if "memory" not in answer:
        return answer
    nothing = {"content": "", "metadata": {}, "content_hash": "", "semantic_hash": ""}
    kept = {name: value for name, value in answer["memory"].items() if name not in _RARE}
    return {**answer, "memory": {**kept, **nothing}}


def filled(stored: Stored, item: NewMemory) -> Stored:
    """The answer with what is not kept of it, as the caller sends it again."""
    memory = stored.memory
    if memory.content:
        return stored
    is_new = stored.outcome is not StoreOutcome.MERGED
    memory = memory._replace(
        content=item.content,
        content_type=item.content_type if is_new else memory.content_type,
        importance=item.importance if is_new else memory.importance,
        metadata=item.metadata,
        content_hash=item.content_hash,
        semantic_hash=item.semantic_hash,
        key=item.key,
        tags=item.tags,
    )
    return stored._replace(memory=memory)


_RARE = ("key", "tags")
"""Fields that are left out where they say nothing, as earlier releases leave them out."""
_STATE = [name for name in FIELDS if name != "memory_id" and name not in _RARE]
_TIMES = frozenset(name for name in _STATE if isinstance(memories.c[name].type, UtcDateTime))


def to_state(memory: Memory) -> dict[str, Any]:
    """All of a memory but its session and id, which the row has."""
    state = {name: _as_json(getattr(memory, name)) for name in _STATE}
    for name in _RARE:
        value = getattr(memory, name)
        if value:
            state[name] = value
    return state


def from_state(session: Session, memory_id: str, state: dict[str, Any]) -> Memory:
    values = {name: _from_json(name, state[name]) for name in _STATE}
    tags = tuple(state.get("tags", ()))
    return Memory(session, memory_id, **values, key=state.get("key"), tags=tags)


def moved_state(
    state: dict[str, Any], *, revision: int, created_revision: int, is_first: bool
) -> dict[str, Any]:
    """The version in another session; the first one of a memory makes it there."""
    moved = {**state, "revision": revision, "created_revision": created_revision}
    if is_first and state["deleted_at"] is None:
        moved["change"] = Change.CREATED.value
    return moved


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.value if isinstance(value, Enum) else value


def _from_json(name: str, value: Any) -> Any:
    if name in _TIMES:
        return None if value is None else datetime.fromisoformat(value)
    return ENUMS[name](value) if name in ENUMS else value
