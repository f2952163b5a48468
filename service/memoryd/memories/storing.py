"""What a store makes of a session: a new memory, or one that is merged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memoryd.domain.errors import InvalidRequest, Violation
from memoryd.domain.ids import uuid7
from memoryd.domain.metadata import MAX_METADATA_BYTES, json_bytes
from memoryd.domain.records import Change, Memory
from memoryd.domain.tags import MAX_TAGS, as_tags

if TYPE_CHECKING:
    from memoryd.domain.records import NewMemory
    from memoryd.memories.session_changes import SessionWork


def new_memory(work: SessionWork, item: NewMemory, revision: int) -> Memory:
    """Give the row of what is stored."""
    return Memory(
        session=item.session,
        memory_id=uuid7(work.now),
        content=item.content,
        content_type=item.content_type,
        importance=item.importance,
        metadata=item.metadata,
        content_hash=item.content_hash,
        semantic_hash=item.semantic_hash,
        created_at=work.now,
        updated_at=work.now,
        expires_at=item.expires_at,
        revision=revision,
        created_revision=revision,
        key=item.key,
        tags=item.tags,
    )


def merge_into(work: SessionWork, held: Memory, item: NewMemory) -> Memory:
    """Merge what is stored into a live memory of its identity and content.

    Raises InvalidRequest where it would be too large.
    """
    metadata = {**held.metadata, **item.metadata}
    size = json_bytes(metadata)
    if size > MAX_METADATA_BYTES:
        raise InvalidRequest(
            Violation(
                path_of(item, "metadata"),
                f"merged with what memory {held.memory_id} has it would be {size:,} bytes as"
                f" JSON, over {MAX_METADATA_BYTES:,}; send fewer keys, or update that memory",
            )
        )
    tags = held.tags
    if item.tags:
        tags = as_tags((*held.tags, *item.tags))
        if len(tags) > MAX_TAGS:
            raise InvalidRequest(
                Violation(
                    path_of(item, "tags"),
                    f"merged with what memory {held.memory_id} has they would be {len(tags)},"
                    f" over {MAX_TAGS}; send fewer, or update that memory",
                )
            )
    expirations = (held.expires_at, item.expires_at)
    return work.change(
        held,
        Change.UPDATED,
        importance=max(held.importance, item.importance),
        metadata=metadata,
        tags=tags,
        expires_at=None if None in expirations else max(filter(None, expirations)),
        updated_at=work.now,
    )


def path_of(item: NewMemory, field: str) -> str:
    """Where a field of what is stored stands in its request."""
    return f"{item.field}.{field}" if item.field else field
