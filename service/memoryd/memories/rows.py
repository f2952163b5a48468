"""Rows of `memories` as records, and back; and the conditions that queries share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Double, and_, bindparam, case, func, or_

from memoryd.database.tables import memories
from memoryd.database.types import UtcDateTime
from memoryd.domain.importance import ACCESS_BOOST, MAX_ACCESS_BOOST
from memoryd.domain.records import Change, ContentType, Memory, Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement

    from memoryd.database.dialect import Dialect

COLUMNS = tuple(c for c in memories.c if c is not memories.c.access_revision)
"""What a record holds."""
SHARD_KEY = ("tenant", "session_id")
PRIMARY_KEY = (*SHARD_KEY, "id")

NOW = bindparam("now", type_=UtcDateTime)
"""The read's own time."""

_NEGLIGIBLE = 1e-150
_MAX_HALVINGS = 500.0
"""So that no product is smaller than a double can be: PostgreSQL makes an error of that."""


def memory_of(row: Sequence[Any]) -> Memory:
    """The record of a row that holds COLUMNS, in their order."""
    (
        tenant,
        session_id,
        memory_id,
        content_type,
        content,
        metadata,
        importance,
        access_count,
        last_accessed,
        created_at,
        updated_at,
        content_hash,
        semantic_hash,
        expires_at,
        deleted_at,
        revision,
        created_revision,
        change,
    ) = row
    return Memory(
        session=Session(tenant, session_id),
        memory_id=memory_id,
        content=content,
        content_type=ContentType(content_type),
        importance=importance,
        metadata=metadata,
        content_hash=content_hash,
        semantic_hash=semantic_hash,
        created_at=created_at,
        updated_at=updated_at,
        expires_at=expires_at,
        revision=revision,
        created_revision=created_revision,
        change=Change(change),
        access_count=access_count,
        last_accessed=last_accessed,
        deleted_at=deleted_at,
    )


def changed_columns(memory: Memory) -> dict[str, Any]:
    """Key and every column that a caller's change may touch; access tracking has its own."""
    return {
        **_told_columns(memory),
        "deleted_at": memory.deleted_at,
        "change": memory.change.value,
    }


def all_columns(memory: Memory) -> dict[str, Any]:
    return {
        **_new_columns(memory),
        "deleted_at": memory.deleted_at,
        "change": memory.change.value,
        "access_count": memory.access_count,
        "last_accessed": memory.last_accessed,
    }


def inserted(added: Sequence[Memory]) -> list[dict[str, Any]]:
    """The columns of new rows, but for those that are at their defaults in each of them."""
    if any(memory.change is not Change.CREATED or memory.access_count for memory in added):
        return [all_columns(memory) for memory in added]
    return [_new_columns(memory) for memory in added]


def _new_columns(memory: Memory) -> dict[str, Any]:
    return {
        **_told_columns(memory),
        "created_at": memory.created_at,
        "created_revision": memory.created_revision,
    }


def _told_columns(memory: Memory) -> dict[str, Any]:
    """Key and what a caller tells of a memory, or the service of what it was told."""
    return {
        "tenant": memory.session.tenant,
        "session_id": memory.session.session_id,
        "id": memory.memory_id,
        "content_type": memory.content_type.value,
        "content": memory.content,
        "metadata": memory.metadata,
        "importance": memory.importance,
        "updated_at": memory.updated_at,
        "content_hash": memory.content_hash,
        "semantic_hash": memory.semantic_hash,
        "expires_at": memory.expires_at,
        "revision": memory.revision,
    }


def unexpired() -> ColumnElement[bool]:
    return or_(memories.c.expires_at.is_(None), memories.c.expires_at > NOW)


def live() -> ColumnElement[bool]:
    """What readers see at NOW."""
    return and_(memories.c.deleted_at.is_(None), unexpired())


def effective_importance(dialect: Dialect, columns: Any = memories.c) -> ColumnElement[float]:
    """`ranking.effective_importance` in SQL, at NOW with the parameter `half_life_days`."""
    age = dialect.greatest(0.0, dialect.age_days(columns.created_at, NOW))
    halvings = dialect.least(_MAX_HALVINGS, age / bindparam("half_life_days", type_=Double))
    decayed = case(
        (columns.importance > _NEGLIGIBLE, columns.importance * func.power(2.0, -halvings)),
        else_=0.0,
    )
    boost = dialect.least(MAX_ACCESS_BOOST, ACCESS_BOOST * columns.access_count)
    return dialect.least(1.0, decayed + boost)
