"""The versions of one memory that are kept, and what going back to one gives it.

A memory's row is its newest version; `memory_history` has those before it, until they were
superseded for longer than history is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, select

from memoryd.database import statements
from memoryd.database.tables import memories, memory_history
from memoryd.domain.content import content_hash, keyed_hash, normalise
from memoryd.domain.errors import MemoryNotFound, RevisionOutOfRange, VersionExpired
from memoryd.memories import answers
from memoryd.memories.rows import COLUMNS, memory_of, size_on_page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.domain.records import Memory, Session

READ_LIMIT = 50
"""Versions that one statement reads at the most; as large as may be, 2 MB."""

_PLACE = ("tenant", "session_id", "id")

_CURRENT = select(*COLUMNS).where(*(memories.c[name] == bindparam(name) for name in _PLACE))
_BEFORE = (
    select(memory_history.c.revision, memory_history.c.state)
    .where(
        *(memory_history.c[name] == bindparam(name) for name in _PLACE),
        memory_history.c.revision < bindparam("before"),
        memory_history.c.state.is_not(None),
    )
    .order_by(memory_history.c.revision.desc())
    .limit(READ_LIMIT)
)


class Versions(NamedTuple):
    """A page of them."""

    versions: tuple[Memory, ...]
    """Newest first."""
    next_before: int | None
    """The revision before which the next page begins; None: this was the last page."""


def read_versions(
    connection: Connection,
    session: Session,
    memory_id: str,
    *,
    before: int | None,
    size: int,
    now: datetime,
    max_bytes: int,
) -> Versions:
    """At most `size` versions from before a revision, the first page also with the newest.

    Raises MemoryNotFound where the memory has no row, or has expired.
    """
    key = {**session._asdict(), "id": memory_id}
    # The current one first: what is superseded from here on is newer than what is read below.
    found = statements.fetch(connection, _CURRENT, key)
    current = memory_of(found[0]) if found else None
    if current is None or current.is_expired(now):
        raise MemoryNotFound(memory_id)
    page: list[Memory] = []
    room = max_bytes
    for version in _newest_first(connection, key, current, before):
        room -= size_on_page(version)
        if page and (len(page) == size or room < 0):
            return Versions(tuple(page), page[-1].revision)
        page.append(version)
    return Versions(tuple(page), None)


def _newest_first(
    connection: Connection, key: dict[str, Any], current: Memory, before: int | None
) -> Iterator[Memory]:
    if before is None:
        yield current
        before = current.revision
    while True:
        found = statements.fetch(connection, _BEFORE, {**key, "before": before})
        for revision, state in found:
            version = answers.from_state(current.session, current.memory_id, state)
            # A server that knows no keys has left it out.
            yield version._replace(key=current.key)
            before = revision
        if len(found) < READ_LIMIT:
            return


def restored_values(
    memory: Memory, version: Memory | None, revision: int, now: datetime
) -> dict[str, Any]:
    """What a memory gets of its version at a revision; None: there is none.

    Raises RevisionOutOfRange, VersionExpired.
    """
    if version is None:
        raise RevisionOutOfRange(
            f"memory {memory.memory_id} had no revision {revision}, or it is no longer kept; list"
            " its revisions"
        )
    if version.is_expired(now):
        raise VersionExpired(revision)
    of_content = version.content_hash
    if memory.key is not None:
        of_content = keyed_hash(memory.key, content_hash(normalise(version.content)))
    return {
        "content": version.content,
        "content_type": version.content_type,
        "importance": version.importance,
        "metadata": version.metadata,
        "tags": version.tags,
        "expires_at": version.expires_at,
        "content_hash": of_content,
        "semantic_hash": version.semantic_hash,
    }
