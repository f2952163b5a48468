"""The rows of `memory_tags`: what memories are found by their tags with.

They follow `memories.tags`, which is what counts: whatever is found by them is judged by that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memoryd.database import statements
from memoryd.database.dialect import Insertion
from memoryd.database.tables import memories, memory_tags

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect
    from memoryd.domain.records import Memory

_MEMORY_KEY = ("tenant", "session_id", "id")
_KEY = ("tenant", "session_id", "tag", "id")


def insertion(added: Iterable[tuple[Memory, Iterable[str]]]) -> Insertion | None:
    """What makes memories to be found by these tags; None where there is none."""
    found = [(*m.session, tag, m.memory_id) for m, tags in added for tag in tags]
    if not found:
        return None
    return Insertion(memory_tags, dict(zip(_KEY, zip(*found, strict=True), strict=True)), {})


def remove(
    connection: Connection, dialect: Dialect, gone: Iterable[tuple[Memory, Iterable[str]]]
) -> None:
    """Have memories no longer be found by these tags."""
    found = [(*m.session, tag, m.memory_id) for m, tags in gone for tag in tags]
    if found:
        keys = [dict(zip(_KEY, key, strict=True)) for key in found]
        dialect.delete_many(connection, memory_tags, _KEY, keys)


def make(connection: Connection, dialect: Dialect, imported: Sequence[dict[str, Any]]) -> None:
    """Make the rows of memories that were inserted as rows, as far as these are there."""
    tagged = [tuple(row[name] for name in _MEMORY_KEY) for row in imported if row.get("tags")]
    if not tagged:
        return
    key = tuple(memories.c[name] for name in _MEMORY_KEY)
    statement = dialect.look_up(key, (*key, memories.c.tags))
    found = statements.fetch_built(connection, statement, dialect.bind(key, sorted(tagged)))
    rows = [(row.tenant, row.session_id, tag, row.id) for row in found for tag in row.tags]
    if rows:
        columns = dict(zip(_KEY, zip(*rows, strict=True), strict=True))
        dialect.insert_many(connection, memory_tags, columns, ignore_existing=True)
