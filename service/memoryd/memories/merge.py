"""What one session has becomes another's, in one transaction; the first is then erased."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, func, select

from memoryd.conversations.changes import ConversationChanges
from memoryd.conversations.merging import (
    expired_in,
    measure_conversations,
    move_conversations,
)
from memoryd.conversations.writes import ExpireConversation
from memoryd.database import statements
from memoryd.database.tables import memories, sessions
from memoryd.documents.merging import measure_documents, move_documents
from memoryd.domain.documents import DocumentName
from memoryd.domain.errors import RequestIdReused, SessionNotFound, SessionTooLarge
from memoryd.domain.ids import uuid7
from memoryd.domain.quotas import Usage
from memoryd.domain.records import Change, NewMemory
from memoryd.domain.sessions import SessionSettings
from memoryd.memories import deletion, receipts, rows
from memoryd.memories.lookups import lookups_of
from memoryd.memories.merged_versions import MergedVersions, measure_versions
from memoryd.memories.reader import Reader
from memoryd.memories.saving import save_memories
from memoryd.memories.session_changes import SessionWork
from memoryd.memories.storing import merge_into
from memoryd.sessions.accounts import open_known, save_accounts, size_of_memory
from memoryd.sessions.create import lock_or_create
from memoryd.sessions.lock import SHARD_KEY
from memoryd.sessions.revisions import notification, row_after

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Select

    from memoryd.conversations.merging import MovedConversations
    from memoryd.database.dialect import Dialect
    from memoryd.documents.merging import MovedDocuments
    from memoryd.domain.records import Memory, Session
    from memoryd.memories.merged_versions import Measured

MAX_MERGED = 10_000
"""Memories of the source that one merge takes, deleted ones and earlier versions included; and
documents likewise. Conversations and messages as many each."""

MAX_MERGED_BYTES = 64 * 1024 * 1024
"""What they may take together, by their contents and metadata, and by the bodies of documents and
messages."""

_SETTINGS = tuple(sessions.c[name] for name in SessionSettings._fields)


@dataclass(frozen=True, slots=True)
class Merge:
    source: Session
    target: Session
    request_id: str = ""
    fingerprint: str = ""
    """Of the request's arguments."""


class Merged(NamedTuple):
    """What became of what the source had."""

    moved: int = 0
    """Memories."""
    merged: int = 0
    """Memories."""
    documents: int = 0
    conflicts: Sequence[DocumentName] = ()
    """Names of documents that both had."""
    conversations: int = 0
    renamed: Sequence[str] = ()
    """Ids of conversations that both had."""


class MergeWork:
    """Both sessions, locked in the order of all writers; the decisions are those of a store."""

    def __init__(
        self, connection: Connection, dialect: Dialect, now: datetime, absent: set[Session]
    ) -> None:
        """`absent`: see `lock_or_create`."""
        self._absent = absent
        self._connection = connection
        self._dialect = dialect
        self._now = now
        self._works: dict[Session, SessionWork] = {}
        self._reader = Reader(connection, dialect, self._works)
        self._lookups = lookups_of(dialect)
        self._versions = MergedVersions()

    def merge(self, wanted: Merge) -> Merged:
        """Move what the source has into the target, and erase the source.

        Raises SessionNotFound, SessionTooLarge, RequestIdReused, and InvalidRequest where merged
        metadata is too large; then nothing may be committed.
        """
        source, target = wanted.source, wanted.target
        locked, new = lock_or_create(
            self._connection,
            self._dialect,
            [source, target],
            {target},
            self._now,
            absent=self._absent,
        )
        answered = self._answered(wanted)
        if answered is not None:
            return answered
        if source not in locked:
            raise SessionNotFound(source.session_id)
        versions = self._check_size(source)
        accounts = open_known(self._connection, self._dialect, [target.tenant])
        work = self._works[target] = SessionWork(
            target,
            locked[target],
            self._now,
            accounts.get(target.tenant),
            is_new=target in new,
        )
        source_work = SessionWork(source, locked[source], self._now, work.account)
        found = self._read(source)
        if versions.memories:
            self._versions.read(self._connection, source)
        self._load_meeting(target, found)
        merged = self._take(work, found)
        if work.account is not None and target in new and not work.added:
            work.account.add(Usage(sessions=1))
        moved = self._move_documents(work, source, has_versions=versions.documents > 0)
        conversations = self._move_conversations(work, source_work)
        settings = self._settings_of(source, target)
        self._save(work, moved.added, conversations.added, settings)
        save_accounts(self._connection, self._dialect, accounts.values())
        merged = merged._replace(
            documents=moved.moved,
            conflicts=moved.conflicts,
            conversations=conversations.moved,
            renamed=conversations.conflicts,
        )
        self._remember_answer(wanted, merged)
        deletion.erase(self._connection, self._dialect, source)
        return merged

    def _check_size(self, source: Session) -> Measured:
        """Measure the versions of the source. Raises SessionTooLarge."""
        size = func.coalesce(func.sum(size_of_memory(self._dialect)), 0)
        statement = _of_session(func.count(), size)
        count, size_found = self._connection.execute(statement, source._asdict()).one()
        documents, bodies = measure_documents(self._connection, source, self._now)
        talks = measure_conversations(self._connection, source)
        versions = measure_versions(self._connection, self._dialect, source)
        most = max(
            count + versions.memories,
            documents + versions.documents,
            talks.conversations,
            talks.messages,
        )
        size_in_all = size_found + bodies + talks.bytes + versions.size
        if most > MAX_MERGED or size_in_all > MAX_MERGED_BYTES:
            raise SessionTooLarge(MAX_MERGED, MAX_MERGED_BYTES)
        return versions

    def _read(self, source: Session) -> list[Memory]:
        """All rows of the source, in creation order."""
        statement = _of_session(*rows.COLUMNS).order_by(memories.c.created_revision)
        found = statements.fetch_built(self._connection, statement, source._asdict())
        return [*map(rows.memory_of, found)]

    def _load_meeting(self, target: Session, found: Sequence[Memory]) -> None:
        """Read the target's memories that the source's meet, by identity or by id."""
        lookups, reader = self._lookups, self._reader
        ids = {(*target, memory.memory_id) for memory in found}
        live = [memory for memory in found if memory.is_live(self._now)]
        contents = {
            (*target, memory.content_type.value, memory.content_hash)
            for memory in live
            if memory.key is None
        }
        reader.take_in(lookups.by_id, ids)
        reader.take_in(lookups.by_content, contents)
        reader.take_in(lookups.by_key, {(*target, m.key) for m in live if m.key is not None})
        reader.measure()

    def _take(self, work: SessionWork, found: Sequence[Memory]) -> Merged:
        moved = merged = 0
        for memory in found:
            is_live = memory.is_live(self._now)
            held = work.holder(memory.identity) if is_live else None
            if held is None:
                work.add(self._moved(work, memory, work.revision + 1), sys.maxsize)
                moved += is_live
            elif held.has_content_of(memory):
                merge_into(work, held, _as_new(memory))
                merged += 1
            else:  # after the revision of the deletion of what has the key
                work.replace(held, self._moved(work, memory, work.revision + 2), sys.maxsize)
                moved += 1
        return Merged(moved, merged)

    def _move_documents(
        self, work: SessionWork, source: Session, *, has_versions: bool
    ) -> MovedDocuments:
        moved = move_documents(
            self._connection,
            self._dialect,
            source,
            work.session,
            revision=work.revision,
            has_versions=has_versions,
            now=self._now,
        )
        if work.account is not None:
            work.account.add(Usage(0, 0, moved.added_bytes, moved.added))
        work.revision += moved.expired + moved.moved + moved.versions
        return moved

    def _move_conversations(self, work: SessionWork, source: SessionWork) -> MovedConversations:
        """Move those that have not expired; what has makes room in both sessions, and is told."""
        works = {of.session: of for of in (work, source)}
        changes = ConversationChanges(self._connection, self._dialect, self._now, works)
        expiring = [
            ExpireConversation(named)
            for session in works
            for named in expired_in(self._connection, session, self._now)
        ]
        changes.load(expiring)
        for write in expiring:
            changes.apply(write)
        self._dialect.write(self._connection, changes.save())
        if work.account is not None:
            work.account.add(measure_conversations(self._connection, source.session))
        moved = move_conversations(
            self._connection,
            self._dialect,
            source.session,
            work.session,
            revision=work.revision,
            now=self._now,
        )
        work.revision += source.revision if moved.moved else 0
        return moved._replace(added=moved.moved + changes.count_change(work.session))

    def _moved(self, work: SessionWork, memory: Memory, revision: int) -> Memory:
        """The memory as a new one of the target; its id is kept where it is free.

        Its earlier versions take the revisions from this one on, and it the one after them: so
        watchers of the target see what became of it in the order in which it did.
        """
        earlier = self._versions.count(memory)
        change, deleted_at = memory.change, memory.deleted_at
        if deleted_at is None and memory.is_expired(self._now):
            change, deleted_at = Change.EXPIRED, self._now
        elif deleted_at is None and not earlier:
            change = Change.CREATED
        is_free = memory.memory_id not in work.rows
        moved = memory._replace(
            session=work.session,
            memory_id=memory.memory_id if is_free else uuid7(self._now),
            revision=revision + earlier,
            created_revision=revision,
            change=change,
            deleted_at=deleted_at,
        )
        self._versions.move(memory, moved)
        return moved

    def _settings_of(self, source: Session, target: Session) -> dict[str, Any]:
        """What is set for the source alone, which becomes the target's."""
        statement = select(*_SETTINGS).where(
            sessions.c.tenant == bindparam("tenant"),
            sessions.c.session_id == bindparam("session_id"),
        )
        given, own = (
            self._connection.execute(statement, session._asdict()).mappings().one()
            for session in (source, target)
        )
        expires = ("memory_ttl", "memories_never_expire")
        keeps = {name for name in expires if any(own[other] is not None for other in expires)}
        return {
            str(name): value
            for name, value in given.items()
            if value is not None and own[name] is None and name not in keeps
        }

    def _save(
        self,
        work: SessionWork,
        added_documents: int,
        added_conversations: int,
        settings: Mapping[str, Any],
    ) -> None:
        """Write the target; the merge itself is a revision of it, whatever it moves."""
        inserted = save_memories(self._connection, self._dialect, self._works, self._now, {})
        inserted += self._versions.insertions
        totals = work.totals(documents=added_documents, conversations=added_conversations)
        totals = totals._replace(revision=work.revision + 1)
        row = row_after(work.session, totals, self._now)
        if settings:
            row |= {**settings, "settings_revision": totals.revision}
        news = notification([work.session])
        self._dialect.update_many(
            self._connection, sessions, SHARD_KEY, [row], notification=news, along=inserted
        )

    def _answered(self, wanted: Merge) -> Merged | None:
        """The first answer to the request, if it is a retry. Raises RequestIdReused."""
        if not wanted.request_id:
            return None
        key = [(*wanted.target, wanted.request_id)]
        for receipt in receipts.read(self._reader, self._dialect, key):
            answer = receipt.answer
            is_merge = "merged_sessions" in answer
            if not (is_merge and wanted.fingerprint.startswith(receipt.fingerprint)):
                raise RequestIdReused("request_id")
            # Earlier releases know no conversations.
            moved, merged, documents, conflicts, *talks = answer["merged_sessions"]
            names = [DocumentName(namespace, key) for namespace, key in conflicts]
            return Merged(moved, merged, documents, names, *talks)
        return None

    def _remember_answer(self, wanted: Merge, merged: Merged) -> None:
        if not wanted.request_id:
            return
        # With a revision, as stores have it that look a request up.
        answer = {"revision": 0, "merged_sessions": _as_json(merged)}
        row = receipts.row_of_merge(wanted.target, wanted.request_id, wanted.fingerprint, answer)
        insertion = receipts.insertion([row], self._now)
        self._dialect.insert_many(self._connection, *insertion)


def _as_json(merged: Merged) -> list[Any]:
    names = [list(name) for name in merged.conflicts]
    return [*merged[:3], names, merged.conversations, list(merged.renamed)]


def _of_session(*columns: Any) -> Select[Any]:
    m = memories.c
    return select(*columns).where(
        m.tenant == bindparam("tenant"), m.session_id == bindparam("session_id")
    )


def _as_new(memory: Memory) -> NewMemory:
    """A memory of the source as a store of it in the target."""
    return NewMemory(
        session=memory.session,
        content=memory.content,
        content_type=memory.content_type,
        importance=memory.importance,
        metadata=memory.metadata,
        content_hash=memory.content_hash,
        semantic_hash=memory.semantic_hash,
        expires_at=memory.expires_at,
        field="source_session_id",
        key=memory.key,
        tags=memory.tags,
    )
