"""Checkpoints of LangGraph as documents of memoryd.

A thread is a session. A checkpoint, a channel's value at a version, and a pending write are a
document each; values that checkpoints share are stored once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
)

from memoryd.client import AlreadyExists, Put, Remove
from memoryd.integrations.batches import MAX_BATCH, batches, whole
from memoryd.integrations.names import labels_of, session_id

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
    from typing import TypeVar

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
    from langgraph.checkpoint.serde.base import SerializerProtocol

    from memoryd.client import Document, DocumentClient, SessionClient

    _R = TypeVar("_R")
    _Place = tuple[tuple[str, ...], str]
    """A namespace and a key."""

BLOBS, CHECKPOINTS, WRITES, PARTS = "blobs", "checkpoints", "writes", "parts"
"""The first label of a document's namespace."""

LAST = "$"
"""The label after those of a checkpoint's namespace, below which there is none of another."""

RUN = "run"
"""The label of a checkpoint's document that names its run."""

PARTS_LABEL = "parts"
"""The label that says of how many further documents a body consists."""

MAX_PART = 1_000_000
"""Bytes of one document's body."""

MAX_LABEL = 255
"""Characters of a label's value."""

MAX_INLINE = 1_024
"""Characters of a text that stands in the checkpoint itself, as numbers and truths do."""

LARGE = 65_536
"""Bytes of a body beyond which it is read in a thread."""

PAGE = 20
"""Checkpoints that a list reads at once."""

RACES = 3
"""How often writes are put again where others were put meanwhile."""

_INVERTED = str.maketrans("0123456789abcdef", "fedcba9876543210")
_AFTER_DIGITS = "g"


class _Name(NamedTuple):
    """Where checkpoints of one kind are: a session of memoryd, and labels of its namespaces."""

    thread_id: str
    session: str
    checkpoint_ns: str

    def namespace(self, kind: str, *more: str) -> tuple[str, ...]:
        # A dot first, since a part may be empty.
        parts = [f".{part}" for part in self.checkpoint_ns.split("|")] if self.checkpoint_ns else []
        return (kind, *parts, LAST, *more)

    def at(self, namespace: Sequence[str]) -> _Name:
        """The one of the same thread whose checkpoints are in a namespace of documents."""
        return self._replace(checkpoint_ns="|".join(label[1:] for label in namespace[1:-1]))

    def config(self, checkpoint_id: str) -> RunnableConfig:
        return {
            "configurable": {
                "thread_id": self.thread_id,
                "checkpoint_ns": self.checkpoint_ns,
                "checkpoint_id": checkpoint_id,
            }
        }


class _Stored(NamedTuple):
    """A checkpoint as its document has it, without values that have documents of their own."""

    name: _Name
    checkpoint: Checkpoint
    metadata: CheckpointMetadata
    parent: str | None
    blobs: dict[str, Any]
    """The version of each channel whose value is a document."""


class Checkpoints:
    """The checkpoints of all threads, in the loop of the clients."""

    def __init__(
        self,
        documents: DocumentClient,
        sessions: SessionClient,
        prefix: str,
        serde: SerializerProtocol,
    ) -> None:
        """`prefix`: what the ids of threads' sessions begin with."""
        self._documents = documents
        self._sessions = sessions
        self._prefix = prefix
        self._serde = serde

    async def close(self) -> None:
        await self._documents.close()
        await self._sessions.close()

    def _name(self, config: RunnableConfig) -> _Name:
        given = config["configurable"]
        return self._of_thread(str(given["thread_id"]), given.get("checkpoint_ns", ""))

    def _of_thread(self, thread_id: str, checkpoint_ns: str = "") -> _Name:
        return _Name(thread_id, session_id(self._prefix, [thread_id]), checkpoint_ns)

    async def get(self, config: RunnableConfig) -> CheckpointTuple | None:
        name = self._name(config)
        namespace = name.namespace(CHECKPOINTS)
        checkpoint_id = get_checkpoint_id(config)
        if checkpoint_id:
            stored = await self._at(name, _key(checkpoint_id))
        else:
            listed = self._documents.list(name.session, namespace, page_size=1)
            newest = await anext(listed, None)
            await listed.aclose()
            stored = None if newest is None else await self._stored(name, newest)
        return None if stored is None else await self._tuple(stored)

    async def listed(
        self,
        config: RunnableConfig | None,
        wanted: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> AsyncGenerator[CheckpointTuple, None]:
        left = sys.maxsize if limit is None else limit
        checkpoint_id = get_checkpoint_id(config) if config else None
        before_id = get_checkpoint_id(before) if before else None
        async for page in _in_pages(self._names(config, checkpoint_id, before_id)):
            matching = [
                stored
                for stored in await asyncio.gather(*(self._at(*place) for place in page))
                if stored is not None and _has(stored.metadata, wanted or {})
            ]
            for found in await asyncio.gather(*map(self._tuple, matching[:left])):
                yield found
            left -= len(matching)
            if left <= 0:
                return

    async def _names(
        self, config: RunnableConfig | None, checkpoint_id: str | None, before_id: str | None
    ) -> AsyncGenerator[tuple[_Name, str], None]:
        """Give the keys of the checkpoints that a list looks at, in its order."""
        first = "" if before_id is None else _key(before_id)
        key = checkpoint_id and _key(checkpoint_id)
        if config is not None and "checkpoint_ns" in config["configurable"]:
            name = self._name(config)
            size = PAGE if before_id is None else MAX_BATCH
            listed = self._outlines(name.session, name.namespace(CHECKPOINTS), size)
            async for document in listed:
                if document.key > first and key in {None, document.key}:
                    yield name, document.key
            return
        found: list[tuple[str, _Name]] = []
        async for thread in self._threads(config):
            found += [
                (document.key, thread.at(document.namespace))
                async for document in self._outlines(thread.session, (CHECKPOINTS,))
                if document.key > first and key in {None, document.key}
            ]
        for each, name in sorted(found):
            yield name, each

    async def _threads(self, config: RunnableConfig | None) -> AsyncGenerator[_Name, None]:
        if config is not None:
            yield self._name(config)
            return
        async for session in self._sessions.list(f"{self._prefix}:", page_size=MAX_BATCH):
            (thread_id,) = labels_of(self._prefix, session.session_id)
            yield self._of_thread(thread_id)

    def _outlines(
        self,
        session: str,
        namespace: tuple[str, ...],
        page_size: int = MAX_BATCH,
        labels: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Document, None]:
        return self._documents.list(
            session, namespace, labels=labels, with_bodies=False, page_size=page_size
        )

    async def _read(self, name: _Name, names: Sequence[_Place]) -> list[Document | None]:
        """Give documents by namespace and key, each with its whole body."""
        found: list[Document | None] = []
        while len(found) < len(names):
            some = names[len(found) :][:MAX_BATCH]
            entries = whole(await self._documents.get_many(name.session, some))
            found += [entry.document for entry in entries]
        return found

    async def _body(self, name: _Name, document: Document) -> bytes:
        rest = await self._read(name, _parts_of(document))
        return b"".join([document.data or b"", *(part.data or b"" for part in rest if part)])

    async def _at(self, name: _Name, key: str) -> _Stored | None:
        """The checkpoint with the key of a document; None: there is none."""
        (document,) = await self._read(name, [(name.namespace(CHECKPOINTS), key)])
        return None if document is None else await self._stored(name, document)

    async def _stored(self, name: _Name, document: Document) -> _Stored:
        header, values = await self._loaded(await self._body(name, document))
        checkpoint, metadata = values
        return _Stored(name, checkpoint, metadata, header["parent"], header["blobs"])

    async def _tuple(self, stored: _Stored) -> CheckpointTuple:
        name, checkpoint = stored.name, stored.checkpoint
        values, writes = await asyncio.gather(
            self._values(name, stored.blobs), self._writes(name, checkpoint["id"])
        )
        whole_checkpoint: Checkpoint = {
            **checkpoint,
            "channel_values": checkpoint["channel_values"] | values,
        }
        return CheckpointTuple(
            config=name.config(checkpoint["id"]),
            checkpoint=whole_checkpoint,
            metadata=stored.metadata,
            parent_config=name.config(stored.parent) if stored.parent else None,
            pending_writes=writes,
        )

    async def _values(self, name: _Name, versions: Mapping[str, Any]) -> dict[str, Any]:
        namespace = name.namespace(BLOBS)
        names = [(namespace, _blob_key(*each)) for each in versions.items()]
        found: dict[str, Any] = {}
        for channel, document in zip(versions, await self._read(name, names), strict=True):
            if document is not None:
                _, (found[channel],) = await self._loaded(await self._body(name, document))
        return found

    async def _writes(self, name: _Name, checkpoint_id: str) -> list[tuple[str, str, Any]]:
        found: list[tuple[tuple[str, str, int], tuple[str, str, Any]]] = []
        namespace = name.namespace(WRITES, checkpoint_id)
        async for document in self._documents.list(name.session, namespace):
            header, (value,) = await self._loaded(await self._body(name, document))
            # As a step applies them: https://github.com/langchain-ai/langgraph, writes_sort_key.
            order = header["path"], header["task"], header["place"]
            found.append((order, (header["task"], header["channel"], value)))
        return [write for _, write in sorted(found, key=lambda each: each[0])]

    async def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        name = self._name(config)
        # In a thread, since values may be large.
        writes = await asyncio.to_thread(
            self._puts_of, name, config, checkpoint, metadata, new_versions
        )
        for some in batches(writes):
            await self._documents.write_many(name.session, some)
        return name.config(checkpoint["id"])

    def _puts_of(
        self,
        name: _Name,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> list[Put]:
        """The documents of new values and, last, of the checkpoint."""
        metadata = get_checkpoint_metadata(config, metadata)
        values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
        inline = {channel: value for channel, value in values.items() if _is_inline(value)}
        blobs = {
            channel: versions[channel]
            for channel in values
            if channel not in inline and channel in versions
        }
        puts: list[Put] = []
        for channel, version in new_versions.items():
            if channel in blobs:
                body = self._dumped({}, values[channel])
                puts += _puts(name.namespace(BLOBS), _blob_key(channel, version), body, {})
        header = {"parent": config["configurable"].get("checkpoint_id"), "blobs": blobs}
        body = self._dumped(header, {**checkpoint, "channel_values": inline}, metadata)
        run = metadata.get("run_id")
        labels = {RUN: run[:MAX_LABEL]} if isinstance(run, str) else {}
        return [*puts, *_puts(name.namespace(CHECKPOINTS), _key(checkpoint["id"]), body, labels)]

    async def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
    ) -> None:
        name = self._name(config)
        namespace = name.namespace(WRITES, config["configurable"]["checkpoint_id"])

        def made() -> dict[str, list[Put]]:
            found: dict[str, list[Put]] = {}
            for index, (channel, value) in enumerate(writes):
                place = WRITES_IDX_MAP.get(channel, index)
                header = {"task": task_id, "path": task_path, "place": place, "channel": channel}
                key, body = f"{task_id}:{place:+d}", self._dumped(header, value)
                found[key] = _puts(namespace, key, body, {}, if_absent=place >= 0)
            return found

        puts = await asyncio.to_thread(made)
        for race in range(RACES + 1):
            try:
                for some in batches(put for each in puts.values() for put in each):
                    await self._documents.write_many(name.session, some)
            except AlreadyExists:
                if race == RACES:
                    raise
                keys = [key for key, each in puts.items() if each[-1].if_absent]
                found = await self._read(name, [(namespace, key) for key in keys])
                for key, document in zip(keys, found, strict=True):
                    if document is not None:
                        del puts[key]
            else:
                return

    async def delete_thread(self, thread_id: str) -> None:
        await self._documents.delete_all(self._of_thread(str(thread_id)).session, force=True)

    async def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        if not run_ids:
            return
        async for thread in self._threads(None):
            doomed = [
                document
                for run_id in run_ids
                async for document in self._outlines(
                    thread.session, (CHECKPOINTS,), labels={RUN: run_id[:MAX_LABEL]}
                )
            ]
            for namespace in dict.fromkeys(document.namespace for document in doomed):
                keys = [document.key for document in doomed if document.namespace == namespace]
                await self._delete(thread.at(namespace), keys)

    async def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        source = self._of_thread(str(source_thread_id)).session
        target = self._of_thread(str(target_thread_id)).session
        # Checkpoints last, so that none is there without what it refers to.
        for kind in (PARTS, BLOBS, WRITES, CHECKPOINTS):
            async for page in _in_pages(self._documents.export(source, (kind,))):
                copies = [
                    Put(one.key, one.namespace, data=one.data, labels=one.labels) for one in page
                ]
                for some in batches(copies):
                    await self._documents.write_many(target, some)

    async def prune(self, thread_ids: Sequence[str], strategy: str) -> None:
        if isinstance(thread_ids, str):
            raise TypeError("thread_ids: expected several names, not one as a str")
        if strategy not in {"keep_latest", "delete"}:
            raise ValueError(f"strategy: expected keep_latest or delete, not {strategy!r}")
        for thread_id in thread_ids:
            if strategy == "delete":
                await self.delete_thread(thread_id)
            else:
                await self._keep_latest(self._of_thread(str(thread_id)))

    async def _keep_latest(self, thread: _Name) -> None:
        keys: dict[_Name, list[str]] = {}
        async for document in self._outlines(thread.session, (CHECKPOINTS,)):
            keys.setdefault(thread.at(document.namespace), []).append(document.key)
        for name, (newest, *others) in keys.items():
            kept = await self._made_of(name, newest)
            await self._delete(name, [key for key in others if key not in kept])

    async def _made_of(self, name: _Name, key: str) -> set[str]:
        """The keys of a checkpoint and of those before it that its channels' values are made of."""
        stored = await self._at(name, key)
        kept = {key}
        missing = set(stored.metadata.get("counters_since_delta_snapshot", ())) if stored else set()
        while stored is not None and stored.parent is not None:
            missing -= stored.blobs.keys() | stored.checkpoint["channel_values"].keys()
            if not missing:
                break
            key = _key(stored.parent)
            kept.add(key)
            stored = await self._at(name, key)
        return kept

    async def _delete(self, name: _Name, keys: Sequence[str]) -> None:
        """Delete checkpoints, their writes, and the values that no other checkpoint has."""
        namespace = name.namespace(CHECKPOINTS)
        found = await self._read(name, [(namespace, key) for key in keys])
        doomed = [document for document in found if document is not None]
        for document in doomed:
            writes = name.namespace(WRITES, _id_of(document.key))
            await self._documents.delete_all(name.session, writes, force=True)
            await self._documents.delete_all(name.session, (PARTS, *writes), force=True)
        await self._remove(name, doomed)
        freed = {blob for document in doomed for blob in _blobs_of(document)}
        async for document in self._documents.list(name.session, namespace):
            freed -= _blobs_of(document)
        blobs = await self._read(name, [(name.namespace(BLOBS), key) for key in freed])
        await self._remove(name, [document for document in blobs if document is not None])

    async def _remove(self, name: _Name, documents: Iterable[Document]) -> None:
        for some in batches(
            Remove(key, namespace, allow_missing=True)
            for document in documents
            for namespace, key in [(document.namespace, document.key), *_parts_of(document)]
        ):
            await self._documents.write_many(name.session, some)

    def _dumped(self, header: Mapping[str, Any], *values: Any) -> bytes:
        """Bytes of some values after a header, which is a line of JSON."""
        return _frame(self._serde.dumps_typed, header, values)

    async def _loaded(self, body: bytes) -> tuple[dict[str, Any], list[Any]]:
        if len(body) <= LARGE:
            return _unframed(self._serde.loads_typed, body)
        return await asyncio.to_thread(_unframed, self._serde.loads_typed, body)


def _frame(
    dump: Callable[[Any], tuple[str, bytes]], header: Mapping[str, Any], values: Iterable[Any]
) -> bytes:
    dumped = [dump(value) for value in values]
    whole_header = {**header, "values": [(kind, len(data)) for kind, data in dumped]}
    return b"\n".join([json.dumps(whole_header).encode(), b"".join(data for _, data in dumped)])


def _unframed(
    load: Callable[[tuple[str, bytes]], Any], body: bytes
) -> tuple[dict[str, Any], list[Any]]:
    line, _, data = body.partition(b"\n")
    header = json.loads(line)
    values: list[Any] = []
    for kind, size in header.pop("values"):
        values.append(load((kind, data[:size])))
        data = data[size:]
    return header, values


def _puts(
    namespace: tuple[str, ...],
    key: str,
    body: bytes,
    labels: Mapping[str, str],
    *,
    if_absent: bool = False,
) -> list[Put]:
    """Documents of a body, its first part last."""
    first, *rest = [body[at : at + MAX_PART] for at in range(0, len(body), MAX_PART)]
    if rest:  # the names of parts tell one body from another that takes its place
        labels = {**labels, PARTS_LABEL: f"{len(rest)}:{hashlib.sha256(body).hexdigest()}"}
    names = _part_names(namespace, key, labels)
    parts = [
        Put(part, labels_of_part, data=data)
        for (labels_of_part, part), data in zip(names, rest, strict=True)
    ]
    return [*parts, Put(key, namespace, data=first, labels=labels, if_absent=if_absent)]


def _parts_of(document: Document) -> list[_Place]:
    """Where the rest of a document's body is."""
    return _part_names(document.namespace, document.key, document.labels)


def _part_names(namespace: Sequence[str], key: str, labels: Mapping[str, str]) -> list[_Place]:
    count, _, digest = labels.get(PARTS_LABEL, "0").partition(":")
    return [((PARTS, *namespace), f"{digest}:{number}:{key}") for number in range(int(count))]


def _blobs_of(document: Document) -> set[str]:
    """The keys of the values that a checkpoint's document refers to."""
    header = json.loads((document.data or b"{}").partition(b"\n")[0])
    return {_blob_key(*each) for each in header["blobs"].items()}


def _has(metadata: CheckpointMetadata, wanted: Mapping[str, Any]) -> bool:
    return all(metadata.get(key) == value for key, value in wanted.items())


def _is_inline(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_INLINE
    return value is None or type(value) in {int, float, bool}


def _key(checkpoint_id: str) -> str:
    """A key that sorts the newest first, where LangGraph's ids sort the newest last."""
    return checkpoint_id.encode().hex().translate(_INVERTED) + _AFTER_DIGITS


def _id_of(key: str) -> str:
    return bytes.fromhex(key.removesuffix(_AFTER_DIGITS).translate(_INVERTED)).decode()


def _blob_key(channel: str, version: Any) -> str:
    return f"{version}:{channel}"


async def _in_pages(found: AsyncGenerator[_R, None]) -> AsyncGenerator[list[_R], None]:
    page: list[_R] = []
    async for one in found:
        page.append(one)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page
