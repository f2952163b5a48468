"""What became of the memories of a transaction, as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memoryd.database import tag_rows
from memoryd.database.dialect import Insertion, columns_of
from memoryd.database.tables import memories, memory_history
from memoryd.memories import answers, eviction, rows
from memoryd.memories.rows import PRIMARY_KEY
from memoryd.sessions.lock import SHARD_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect
    from memoryd.domain.records import Memory, Session
    from memoryd.memories.session_changes import SessionWork

_VERSION = (*SHARD_KEY, "revision", "id", "change", "state")
"""Columns of a version in the history."""


def save_memories(
    connection: Connection,
    dialect: Dialect,
    works: Mapping[Session, SessionWork],
    now: datetime,
    common: dict[str, Any],
) -> list[Insertion]:
    """Write what has changed; give the rows that are still to be inserted.

    `common`: columns that all memories have the same of that are added.
    """
    changed = [work.rows[i] for work in works.values() for i in work.changed]
    added = [work.rows[i] for work in works.values() for i in work.added]
    ranks_of = eviction.rank_columns(works)
    retagged = _retagged(works.values())
    gone = [(before, {*before.tags} - {*after.tags}) for before, after in retagged]
    tag_rows.remove(connection, dialect, gone)
    if changed:
        as_row = rows.changed_columns_and_tags if retagged else rows.changed_columns
        updated = [as_row(memory) for memory in changed]
        if ranks_of is not None:
            updated = [{**row, **ranks_of(m)} for row, m in zip(updated, changed, strict=True)]
        # What leaves the live rows does so before what takes its place.
        updated.sort(key=lambda row: row["deleted_at"] is None)
        dialect.update_many(connection, memories, PRIMARY_KEY, updated)
    inserted = _versions(works.values(), now)
    if added:
        columns = rows.inserted(added)
        varying = {name: columns[name] for name in columns if name not in common}
        if ranks_of is not None:
            varying |= columns_of([*map(ranks_of, added)])
        inserted.append(Insertion(memories, varying, common))
    tagged: list[tuple[Memory, Iterable[str]]] = [(m, m.tags) for m in added if m.tags]
    tagged += [(after, {*after.tags} - {*before.tags}) for before, after in retagged]
    if (tag_insertion := tag_rows.insertion(tagged)) is not None:
        inserted.append(tag_insertion)
    return inserted


def correct_hashes(connection: Connection, dialect: Dialect, wrong: Sequence[Memory]) -> None:
    """Give memories with a key the hash that blocks no content of others."""
    if wrong:
        right = [
            {**m.session._asdict(), "id": m.memory_id, "content_hash": m.content_hash}
            for m in wrong
        ]
        dialect.update_many(connection, memories, PRIMARY_KEY, right)


def as_columns(names: Sequence[str], records: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    """Give the columns of an insertion from the records of its rows."""
    return dict(zip(names, zip(*records, strict=True), strict=True))


def _versions(works: Iterable[SessionWork], now: datetime) -> list[Insertion]:
    superseded = [
        (
            *(*memory.session, memory.revision, memory.memory_id, memory.change.value),
            answers.to_state(memory),
        )
        for work in works
        for memory in work.superseded
    ]
    if not superseded:
        return []
    versions = as_columns(_VERSION, superseded)
    return [Insertion(memory_history, versions, {"recorded_at": now})]


def _retagged(works: Iterable[SessionWork]) -> list[tuple[Memory, Memory]]:
    """Memories that were there and have other tags now, as they were and are."""
    retagged: list[tuple[Memory, Memory]] = []
    for work in works:
        # Of those with several versions the first is the one that the database has.
        found = {m.memory_id: m for m in reversed(work.superseded)}
        retagged += [
            (found[i], work.rows[i])
            for i in work.changed
            if [*found[i].tags] != [*work.rows[i].tags]
        ]
    return retagged
