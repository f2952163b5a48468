"""What of a filter the database can look up, so that fewer rows of a session are read and judged.

`domain.matching` judges every row that is read. These conditions only leave out rows that it would
refuse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, select

from memoryd.database.tables import memories, memory_tags

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ColumnElement

    from memoryd.domain.records import MemoryFilter


def conditions(wanted: MemoryFilter) -> Iterator[ColumnElement[bool]]:
    """Conditions on rows of `memories`, in the session of the parameters."""
    m = memories.c
    if wanted.content_types:
        yield m.content_type.in_(sorted(t.value for t in wanted.content_types))
    if wanted.created_after is not None:
        yield m.created_at >= wanted.created_after
    if wanted.created_before is not None:
        yield m.created_at < wanted.created_before
    if wanted.key_prefix:
        yield m.key >= wanted.key_prefix
        yield m.key < _after_all_with(wanted.key_prefix)
    if wanted.tags_any:
        yield m.id.in_(_tagged(wanted.tags_any))
    if wanted.tags_all:
        every = func.count() == len(wanted.tags_all)
        yield m.id.in_(_tagged(wanted.tags_all).group_by(memory_tags.c.id).having(every))


def _tagged(tags: frozenset[str]) -> Any:
    t = memory_tags.c
    return select(t.id).where(
        t.tenant == bindparam("tenant"),
        t.session_id == bindparam("session_id"),
        t.tag.in_(sorted(tags)),
    )


def _after_all_with(prefix: str) -> str:
    """The first text after all that begin with the prefix, which is ASCII as keys are."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
