"""Rows of `memories` as records, and back; and the conditions that queries share."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import Double, and_, bindparam, case, func, or_

from memoryd.database.moments import NOW, expired
from memoryd.database.tables import memories
from memoryd.domain.content import is_keyed_hash, keyed_hash
from memoryd.domain.importance import ACCESS_BOOST, MAX_ACCESS_BOOST
from memoryd.domain.records import Change, ContentType, Memory, Session
from memoryd.sessions.lock import SHARD_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement

    from memoryd.database.dialect import Dialect

FIELDS = Memory._fields[1:]
"""Of a record, but its session: what a row, a version in the history and an answer are made of."""

ENUMS: Mapping[str, type[Change | ContentType]] = {
    "content_type": ContentType,
    "change": Change,
}
"""Of the fields that are kept as text."""

PRIMARY_KEY = (*SHARD_KEY, "id")


def _column(field: str) -> str:
    return "id" if field == "memory_id" else field


COLUMNS = (
    *(memories.c[name] for name in SHARD_KEY),
    *(memories.c[_column(name)] for name in FIELDS),
)
"""What a record holds, in its order."""

_ENUM_PLACES = [(FIELDS.index(name), kind) for name, kind in ENUMS.items()]
_TAGS_PLACE = FIELDS.index("tags")

_ROW_OVERHEAD_BYTES = 768

_NEGLIGIBLE = 1e-150
_MAX_HALVINGS = 500.0
"""So that no product is smaller than a double can be: PostgreSQL makes an error of that."""


def memory_of(row: Sequence[Any]) -> Memory:
    """The record of a row that holds COLUMNS, in their order."""
    tenant, session_id, *values = row
    for place, kind in _ENUM_PLACES:
        values[place] = kind(values[place])
    values[_TAGS_PLACE] = tuple(values[_TAGS_PLACE])
    memory = Memory(Session(tenant, session_id), *values)
    return memory if memory.key is None else with_keyed_hash(memory)


def with_keyed_hash(memory: Memory) -> Memory:
    """The memory with the hash that one with its key has.

    A server of an earlier release that changes the content puts the content's own there.
    """
    if memory.key is None or is_keyed_hash(memory.content_hash):
        return memory
    return memory._replace(content_hash=keyed_hash(memory.key, memory.content_hash))


def size_on_page(memory: Memory) -> int:
    """About what it takes in an answer, in bytes."""
    content, metadata = len(memory.content.encode()), len(str(memory.metadata))
    return content + metadata + _ROW_OVERHEAD_BYTES + len(str(memory.tags))


class _Columns:
    """Makes a row's columns of a record."""

    def __init__(self, *fields: str) -> None:
        self._names = (*SHARD_KEY, *map(_column, fields))
        self._values = attrgetter(*fields)
        self._enums = [name for name in fields if name in ENUMS]

    def __call__(self, memory: Memory) -> dict[str, Any]:
        row = dict(zip(self._names, (*memory.session, *self._values(memory)), strict=True))
        for name in self._enums:
            row[name] = row[name].value
        return row


_OF_CALLERS = (
    *("memory_id", "content_type", "content", "metadata", "importance", "updated_at"),
    *("content_hash", "semantic_hash", "expires_at", "revision"),
)

changed_columns = _Columns(*_OF_CALLERS, "deleted_at", "change")
"""Key and every column that a caller's change may touch, but tags; access tracking has its own."""

changed_columns_and_tags = _Columns(*_OF_CALLERS, "deleted_at", "change", "tags")

_RARE = frozenset({"key", "tags"})
"""Fields that most memories do not have; the database's default is theirs too."""


def inserted(added: Sequence[Memory]) -> dict[str, Sequence[Any]]:
    """The columns of new rows, but for those that are at their defaults in all of them."""
    are_new = all(memory.change is Change.CREATED and not memory.access_count for memory in added)
    sessions, *values = zip(*added, strict=True)
    columns: dict[str, Sequence[Any]] = dict(
        zip(SHARD_KEY, zip(*sessions, strict=True), strict=True)
    )
    for field, of_all in zip(FIELDS, values, strict=True):
        is_default = not any(of_all) if field in _RARE else are_new
        if not (is_default and field in Memory._field_defaults):
            is_enum = field in ENUMS
            columns[_column(field)] = [v.value for v in of_all] if is_enum else of_all
    return columns


def unexpired() -> ColumnElement[bool]:
    return or_(memories.c.expires_at.is_(None), memories.c.expires_at > NOW)


def overdue() -> ColumnElement[bool]:
    """What has expired by NOW, and is not swept yet."""
    return and_(memories.c.deleted_at.is_(None), expired(memories.c.expires_at))


def live() -> ColumnElement[bool]:
    """What readers see at NOW."""
    return and_(memories.c.deleted_at.is_(None), unexpired())


def effective_importance(dialect: Dialect, columns: Any = memories.c) -> ColumnElement[float]:
    """`importance.effective_importance` in SQL, at NOW with the parameter `half_life_days`."""
    boost = dialect.least(MAX_ACCESS_BOOST, ACCESS_BOOST * columns.access_count)
    return dialect.least(1.0, decayed_importance(dialect, columns) + boost)


def decayed_importance(dialect: Dialect, columns: Any = memories.c) -> ColumnElement[float]:
    """What is left of the importance, without the boost; as `effective_importance`."""
    age = dialect.greatest(0.0, dialect.age_days(columns.created_at, NOW))
    halvings = dialect.least(_MAX_HALVINGS, age / bindparam("half_life_days", type_=Double))
    return case(
        (columns.importance > _NEGLIGIBLE, columns.importance * func.power(2.0, -halvings)),
        else_=0.0,
    )
