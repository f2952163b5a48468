"""Memories as JSON: first answers to a `request_id`, and versions that were superseded."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from memoryd.database.tables import memories
from memoryd.database.types import UtcDateTime
from memoryd.domain.records import Memory, Stored, StoreOutcome
from memoryd.memories.rows import ENUMS, FIELDS

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


_STATE = [name for name in FIELDS if name != "memory_id"]
_TIMES = frozenset(name for name in _STATE if isinstance(memories.c[name].type, UtcDateTime))


def to_state(memory: Memory) -> dict[str, Any]:
    """All of a memory but its key, which the row has."""
    return {name: _as_json(getattr(memory, name)) for name in _STATE}


def from_state(session: Session, memory_id: str, state: dict[str, Any]) -> Memory:
    values = {name: _from_json(name, state[name]) for name in _STATE}
    return Memory(session, memory_id, **values)


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.value if isinstance(value, Enum) else value


def _from_json(name: str, value: Any) -> Any:
    if name in _TIMES:
        return None if value is None else datetime.fromisoformat(value)
    return ENUMS[name](value) if name in ENUMS else value
