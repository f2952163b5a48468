"""What the tables hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from tests.roles import as_superuser

from memoryd.database.tables import (
    document_history,
    documents,
    memories,
    memory_history,
    sessions,
)
from memoryd.domain.documents import labels_of
from memoryd.domain.records import Change

from .stored_conversations import Conversations, read_conversations

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

Name = tuple[tuple[str, ...], str]
"""The namespace and the key of a document."""


class Version(NamedTuple):
    """A memory at one of its revisions."""

    session_id: str
    revision: int
    memory_id: str
    change: Change
    content: str
    key: str | None = None


class Body(NamedTuple):
    """What a document holds."""

    kind: str
    content: bytes


class DocumentVersion(NamedTuple):
    """A document at one of its revisions."""

    session_id: str
    revision: int
    name: Name
    body: Body | None
    """None: it is gone."""
    is_current: bool


@dataclass(frozen=True)
class Stored:
    """The content of a database."""

    revisions: Mapping[str, int]
    """The revision of each session."""
    versions: Sequence[Version]
    """Every version of every memory, including superseded ones."""
    counts: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Of each session whose row says how many memories it holds: that number, and the true one."""
    documents: Sequence[DocumentVersion] = ()
    """Every version of every document, in the order of revisions. A deletion leaves none of the
    versions before it, but a last one that says so."""
    document_counts: Mapping[str, int] = field(default_factory=dict)
    """How many documents each session has by its row."""
    conversations: Conversations = field(default_factory=Conversations)

    def only(self, session_ids: Collection[str]) -> Stored:
        """The part of some sessions."""
        return Stored(
            {name: self.revisions[name] for name in session_ids if name in self.revisions},
            [version for version in self.versions if version.session_id in session_ids],
            {name: counts for name, counts in self.counts.items() if name in session_ids},
            [version for version in self.documents if version.session_id in session_ids],
            {name: count for name, count in self.document_counts.items() if name in session_ids},
            self.conversations.only(session_ids),
        )

    def with_every_key(self) -> Stored:
        """With keys also in superseded versions that an earlier release wrote, which has no keys.

        A memory's key never changes.
        """
        keys = {
            (version.session_id, version.memory_id): version.key
            for version in self.versions
            if version.key is not None
        }
        versions = [
            version._replace(key=keys.get((version.session_id, version.memory_id)))
            for version in self.versions
        ]
        return replace(self, versions=versions)

    @cached_property
    def of_memories(self) -> Mapping[str, Sequence[int]]:
        """The revisions of each session that are of memories, in order."""
        found: dict[str, list[int]] = defaultdict(list)
        for version in sorted(self.versions):
            found[version.session_id].append(version.revision)
        return found

    @cached_property
    def of_documents(self) -> Mapping[str, Sequence[int]]:
        """The revisions of each session that are of documents, in order."""
        found: dict[str, list[int]] = defaultdict(list)
        for version in self.documents:
            found[version.session_id].append(version.revision)
        return found

    def current_documents(self, session_id: str) -> dict[Name, Body]:
        """The documents of a session as they are now."""
        return {
            version.name: version.body
            for version in self.documents
            if version.session_id == session_id and version.is_current and version.body
        }


async def read_stored(database_url: str) -> Stored:
    """Read the tables directly."""
    engine = create_async_engine(as_superuser(database_url))
    try:
        async with engine.connect() as connection:
            rows = await _sessions(connection)
            return Stored(
                {row.session_id: row.revision for row in rows},
                await _memories(connection),
                {
                    row.session_id: (row.memory_count, row.kept)
                    for row in rows
                    if row.counted_revision == row.revision
                },
                await _documents(connection),
                {row.session_id: row.document_count for row in rows},
                await read_conversations(
                    connection, {row.session_id: row.conversation_count for row in rows}
                ),
            )
    finally:
        await engine.dispose()


async def _sessions(connection: AsyncConnection) -> Sequence[Any]:
    m, s = memories.c, sessions.c
    kept = sa.select(sa.func.count()).where(
        m.tenant == s.tenant,
        m.session_id == s.session_id,
        m.deleted_at.is_(None),
    )
    found = await connection.execute(
        sa.select(
            *(s.session_id, s.revision, s.counted_revision),
            *(s.memory_count, s.document_count, s.conversation_count),
            kept.correlate(sessions).scalar_subquery().label("kept"),
        )
    )
    return found.all()


async def _memories(connection: AsyncConnection) -> list[Version]:
    m, h = memories.c, memory_history.c
    current = await connection.execute(
        sa.select(m.session_id, m.revision, m.id, m.change, m.content, m.key)
    )
    versions = [Version(s, r, i, Change(c), text, key) for s, r, i, c, text, key in current]
    superseded = await connection.execute(
        sa.select(h.session_id, h.revision, h.id, h.change, h.state)
    )
    versions += [
        Version(
            *(s, r, i, Change(c)),
            was["content"] if was else "",
            was.get("key") if was else None,
        )
        for s, r, i, c, was in superseded
    ]
    return versions


async def _documents(connection: AsyncConnection) -> list[DocumentVersion]:
    versions = []
    for table in (documents, document_history):
        t = table.c
        found = await connection.execute(
            sa.select(t.session_id, t.revision, t.namespace, t.key, t.kind, t.body)
        )
        versions += [
            DocumentVersion(
                *(session_id, revision, (tuple(labels_of(namespace)), key)),
                None if kind is None else Body(kind, body),
                is_current=table is documents,
            )
            for session_id, revision, namespace, key, kind, body in found
        ]
    return sorted(versions, key=lambda version: (version.session_id, version.revision))
