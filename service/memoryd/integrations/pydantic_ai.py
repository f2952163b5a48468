"""Pydantic AI's conversation store over memoryd's documents.

    from memoryd.integrations.pydantic_ai import MemorydConversationStore

    store = MemorydConversationStore("localhost:50051", user="ada")
    conversation = await store.load("support-1") or Conversation(conversation_id="support-1")
    await store.save(await agent.run("Where is my order?", conversation=conversation))

A record and an entry are a document each, which never expires. The conversations of a store are one
session of memoryd, so that forks share entries, and erasing it removes all of them.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ConfigDict, TypeAdapter
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
)

from memoryd.client import AlreadyExists, Condition, DocumentClient, EtagMismatch, Put, Remove
from memoryd.client.background import background
from memoryd.client.connection import ClosedOnExit
from memoryd.integrations.batches import MAX_BATCH, batches, whole
from memoryd.integrations.names import prefix_of, session_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from memoryd.client import Document

RECORDS, ENTRIES = ("records",), ("entries",)

FORKS = ((), "forks")
"""The document that whoever points into entries of others, or deletes entries, rewrites."""

PARENT = "parent"
"""The label of an entry's document that names the entry before."""

MAX_BEFORE = 32
"""Entries before one whose ids its document has, so that a history takes few calls."""

# With bytes as Pydantic AI's own adapter of messages has them.
_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
_RECORD = TypeAdapter(list[ConversationRecord], config=_CONFIG)
_ENTRY = TypeAdapter(tuple[ConversationEntry, list[str]], config=_CONFIG)


class _Stored(NamedTuple):
    """An entry, and the ids of entries before it: the nearest first, `MAX_BEFORE` at most."""

    entry: ConversationEntry
    before: list[str]


class MemorydConversationStore(ClosedOnExit, ConversationStore):
    """The conversations of a user, for any event loop.

    Every method may raise what the clients of memoryd raise: `memoryd.client.MemorydError`.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        user: str,
        prefix: str = "pydantic_ai",
        **connection: Any,
    ) -> None:
        """Prepare the store; the first call connects.

        `target`: `host:port`; None: the variable MEMORYD_TARGET. `user`: whose conversations they
        are; with `prefix` it names the session of memoryd: `pydantic_ai:ada`. `connection`:
        `api_key`, `tls`, `timeout` and the other arguments of `memoryd.client.DocumentClient`.

        Raises ValueError for a user without a name, or whose session's id is too long.
        """
        if not user:
            raise ValueError("user: give a name of at least one character")
        self._session = session_id(prefix_of(prefix), [user])
        self._loop = background()

        async def made() -> DocumentClient:
            return DocumentClient(target, **connection)

        self._client = self._loop.run(made())

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """Read a record; None where there is none."""
        document, *_ = await self._loop.wait(self._documents([(RECORDS, conversation_id)]))
        return None if document is None else _record(document)

    async def read_records(
        self, *, scope: str | None = None, limit: int | None = None
    ) -> Sequence[ConversationRecord]:
        """Read all records, or those of a scope: the last updated first, at most `limit`."""
        return (await self._loop.wait(self._records(scope)))[:limit]

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Write a record with its new entries: all or none.

        More than 1,000 entries or 2 MiB take several calls, of which the last has the record.

        Raises ConversationConflict where the record that is there is not of that revision, or an
        entry is gone that the history goes on from.
        """
        await self._loop.wait(self._write(record, list(new_entries), expected_revision))

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Delete a record, and the entries that no history or branch of another one reaches.

        More than 1,000 entries take several calls, of which the first has the record.

        Raises ConversationConflict where there is no record of that revision.
        """
        await self._loop.wait(self._delete(conversation_id, expected_revision))

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """Read an entry. Raises LookupError where there is none."""
        return (await self._loop.wait(self._entries([entry_id])))[0].entry

    async def read_history(
        self, head_id: str | None, *, limit: int | None = None
    ) -> list[ConversationEntry]:
        """Read the entries up to one, the first of them first, or only the last `limit` of these.

        Raises LookupError where one is missing.
        """
        return await self._loop.wait(self._history(head_id, limit))

    async def close(self) -> None:
        """Close the connection; this ends calls under way."""
        await self._loop.wait(self._client.close())

    # What follows runs in the one loop of the clients.

    async def _documents(
        self, names: Sequence[tuple[tuple[str, ...], str]]
    ) -> list[Document | None]:
        found: list[Document | None] = []
        while len(found) < len(names):
            some = names[len(found) : len(found) + MAX_BATCH]
            entries = whole(await self._client.get_many(self._session, some))
            found += [entry.document for entry in entries]
        return found

    async def _records(self, scope: str | None) -> list[ConversationRecord]:
        conditions = [] if scope is None else [Condition(("scope",), "eq", scope)]
        found = self._client.list(self._session, RECORDS, conditions=conditions)
        records = [_record(document) async for document in found]
        return sorted(records, key=lambda record: record.updated_at, reverse=True)

    async def _entries(self, ids: Sequence[str]) -> list[_Stored]:
        documents = await self._documents([(ENTRIES, each) for each in ids])
        return [_stored(entry_id, found) for entry_id, found in zip(ids, documents, strict=True)]

    async def _history(self, head_id: str | None, limit: int | None) -> list[ConversationEntry]:
        history: list[ConversationEntry] = []
        ids = [] if head_id is None else [head_id]
        while ids := ids[: None if limit is None else limit - len(history)]:
            found = await self._entries(ids)
            history += [stored.entry for stored in found]
            ids = found[-1].before
        return history[::-1]

    async def _write(
        self,
        record: ConversationRecord,
        new_entries: list[ConversationEntry],
        expected_revision: str | None,
    ) -> None:
        new_ids = {entry.id for entry in new_entries}
        pointed = {record.head_id, *(entry.parent_id for entry in new_entries)}
        needed = sorted(each for each in pointed - new_ids if each is not None)
        place = RECORDS, record.conversation_id
        early: list[Put | Remove] = []
        while True:  # where another is faster, the next look sees what it did
            names = [place, FORKS, *((ENTRIES, each) for each in needed)]
            before, forks, *found = await self._documents(names)
            old = None if before is None else _record(before)
            if (old and old.revision) != expected_revision or None in found:
                break
            known = {
                each: _stored(each, one).before for each, one in zip(needed, found, strict=True)
            }
            chunks = list(batches(_puts(new_entries, known)))
            last = chunks.pop() if chunks and len(chunks[-1]) + 2 <= MAX_BATCH else []
            if set(needed) - {old.head_id if old else None}:
                # Not where its history ends: another conversation's, perhaps, and deleted with it.
                last.append(_anew(FORKS, forks, json.dumps(uuid.uuid4().hex)))
            last.append(_anew(place, before, _RECORD.dump_json([record])[1:-1].decode()))
            early = [write for chunk in chunks for write in chunk]
            try:
                for chunk in (*chunks, last):
                    await self._client.write_many(self._session, chunk)
            except (AlreadyExists, EtagMismatch):
                continue
            return
        await self._remove(write.key for write in early)
        raise ConversationConflict(record.conversation_id)

    async def _delete(self, conversation_id: str, expected_revision: str) -> None:
        place = RECORDS, conversation_id
        while True:  # where another is faster, the next look sees what it did
            before, forks = await self._documents([place, FORKS])
            if before is None or _record(before).revision != expected_revision:
                break
            gone = await self._only_of(conversation_id)
            first, rest = gone[: MAX_BATCH - 2], gone[MAX_BATCH - 2 :]
            writes: list[Put | Remove] = [
                Remove(conversation_id, RECORDS, etag=before.etag),
                _anew(FORKS, forks, json.dumps(uuid.uuid4().hex)),
                *(Remove(each, ENTRIES, allow_missing=True) for each in first),
            ]
            try:
                await self._client.write_many(self._session, writes)
            except (AlreadyExists, EtagMismatch):
                continue
            await self._remove(rest)
            return
        raise ConversationConflict(conversation_id)

    async def _only_of(self, conversation_id: str) -> list[str]:
        """The entries that only this conversation reaches."""
        records = await self._records(None)
        # After the records, so that it has all entries which these reach.
        found = self._client.list(self._session, ENTRIES, with_bodies=False)
        parents = {document.key: document.labels.get(PARENT) async for document in found}
        own: dict[str, None] = {}
        others: dict[str, None] = {}
        for record in records:
            reached = own if record.conversation_id == conversation_id else others
            for tip in (record.head_id, *record.branches):
                entry_id = tip
                while entry_id is not None and entry_id not in reached:
                    reached[entry_id] = None
                    entry_id = parents.get(entry_id)
        return [entry_id for entry_id in own if entry_id not in others]

    async def _remove(self, entry_ids: Iterable[str]) -> None:
        for some in batches(Remove(each, ENTRIES, allow_missing=True) for each in entry_ids):
            await self._client.write_many(self._session, some)


def _record(document: Document) -> ConversationRecord:
    return _RECORD.validate_json(f"[{document.json}]")[0]


def _stored(entry_id: str, document: Document | None) -> _Stored:
    if document is None:
        raise LookupError(f"there is no entry {entry_id!r} in the store")
    return _Stored(*_ENTRY.validate_json(document.json or ""))


def _puts(new_entries: Iterable[ConversationEntry], known: Mapping[str, list[str]]) -> list[Put]:
    """`known`: the ids before each entry that is there and that new ones point at."""
    before = dict(known)
    puts = []
    for entry in new_entries:
        parent: str | None = entry.parent_id
        before[entry.id] = [] if parent is None else [parent, *before[parent]][:MAX_BEFORE]
        text = _ENTRY.dump_json((entry, before[entry.id])).decode()
        labels = {} if parent is None else {PARENT: parent}
        puts.append(Put(entry.id, ENTRIES, json=text, labels=labels))
    return puts


def _anew(place: tuple[tuple[str, ...], str], before: Document | None, text: str) -> Put:
    """A document in place of one as it was read, or of none."""
    namespace, key = place
    if before is None:
        return Put(key, namespace, json=text, if_absent=True)
    return Put(key, namespace, json=text, etag=before.etag)
