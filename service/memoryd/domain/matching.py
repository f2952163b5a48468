"""Which memories a filter selects: the same answer wherever a filter is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memoryd.domain.records import Memory, MemoryFilter


def narrows(wanted: MemoryFilter) -> bool:
    """Whether `matches` can be false."""
    return bool(
        wanted.content_types
        or wanted.conditions
        or wanted.created_after
        or wanted.created_before
        or wanted.tags_any
        or wanted.tags_all
        or wanted.key_prefix
    )


def matches(memory: Memory, wanted: MemoryFilter) -> bool:
    """All of a filter but importance, which depends on the time."""
    return (
        (not wanted.content_types or memory.content_type in wanted.content_types)
        and (wanted.created_after is None or memory.created_at >= wanted.created_after)
        and (wanted.created_before is None or memory.created_at < wanted.created_before)
        and (not wanted.key_prefix or (memory.key or "").startswith(wanted.key_prefix))
        and (not wanted.tags_any or not wanted.tags_any.isdisjoint(memory.tags))
        and (not wanted.tags_all or wanted.tags_all.issubset(memory.tags))
        and wanted.conditions.hold_for(memory.metadata)
    )
