"""The state that sessions of Google's ADK share: a document for each key of a user, or of an app.

An event is appended first and its state set after, so that no refused append sets anything. Whoever
reads the event later can tell whether it was: a value says when the event that set it was appended.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from memoryd.client import AlreadyExists, EtagMismatch, MemorydError, Put
from memoryd.integrations.adk_history import SHARED_PREFIXES, json_of
from memoryd.integrations.batches import MAX_BATCH, batches, whole
from memoryd.integrations.names import escaped, unescaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from memoryd.client import Document, DocumentClient
    from memoryd.integrations.adk_history import Step

NAMESPACE = ("state",)

Stored: TypeAlias = "dict[str, Document]"
"""The documents of values, by their keys."""

MOMENT = "moment"
"""The label with the moment of the event that set a value, or of a later one where another event
was faster: in microseconds since 1970."""


MAX_KEY = 512
"""Characters of a document's key."""


class Value(NamedTuple):
    """What an event sets."""

    json: str
    moment: int
    """When the event was appended."""


def values_of(steps: Iterable[Step], prefix: str) -> dict[str, Value]:
    """What steps set, the last one each, by keys that begin with the prefix."""
    return {
        key: Value(json_of(value), step.moment)
        for step in steps
        for key, value in step.shared.items()
        if key.startswith(prefix)
    }


def values_in(stored: Stored) -> dict[str, Any]:
    return {key: json.loads(document.json or "null") for key, document in stored.items()}


def check_keys(delta: Iterable[str]) -> None:
    """Raises ValueError for a key of shared state that is too long for a document."""
    for key in delta:
        if key.startswith(SHARED_PREFIXES) and len(escaped(key)) > MAX_KEY:
            raise ValueError(
                f"the key {key[:40]}… of the state is too long: {MAX_KEY} characters at most, of"
                " which each byte other than A-Z a-z 0-9 _ - counts three"
            )


class SharedState:
    """The values that one session of memoryd has."""

    def __init__(self, documents: DocumentClient, session_id: str, prefix: str) -> None:
        """`prefix`: what its keys begin with."""
        self._documents = documents
        self._session_id = session_id
        self._prefix = prefix

    async def read(self) -> Stored:
        """Read what is stored."""
        found = self._documents.list(self._session_id, NAMESPACE, page_size=MAX_BATCH)
        return {unescaped(document.key): document async for document in found}

    async def complete(self, stored: Stored, steps: Iterable[Step]) -> dict[str, Any]:
        """The values. What steps set and no one has stored is stored too."""
        late = {
            key: value
            for key, value in values_of(steps, self._prefix).items()
            if _moment_of(stored.get(key)) < value.moment
        }
        # Who may not write, or finds no room, reads all the same.
        with contextlib.suppress(MemorydError):
            await self._write(late, is_late=True)
        return values_in(stored) | {key: json.loads(value.json) for key, value in late.items()}

    async def set(self, steps: Iterable[Step], *, is_late: bool = False) -> None:
        """Store what steps set that were appended just now.

        `is_late`: or before, so that what others have set since stays.
        """
        await self._write(values_of(steps, self._prefix), is_late=is_late)

    async def _write(self, values: Mapping[str, Value], *, is_late: bool) -> None:
        while values:  # where another is faster, the next look sees what it did
            found = await self._documents_of(list(values))
            writes = [
                _put(key, value, found.get(key))
                for key, value in values.items()
                if not is_late or _moment_of(found.get(key)) < value.moment
            ]
            try:
                for some in batches(writes):
                    await self._documents.write_many(self._session_id, some)
            except (AlreadyExists, EtagMismatch):
                continue
            return

    async def _documents_of(self, keys: list[str]) -> dict[str, Document]:
        found: dict[str, Document] = {}
        while keys:
            names = [(NAMESPACE, escaped(key)) for key in keys[:MAX_BATCH]]
            entries = whole(await self._documents.get_many(self._session_id, names))
            for key, entry in zip(keys, entries, strict=False):
                if entry.document is not None:
                    found[key] = entry.document
            keys = keys[len(entries) :]
        return found


def _moment_of(document: Document | None) -> int:
    return -1 if document is None else int(document.labels.get(MOMENT, 0))


def _put(key: str, value: Value, before: Document | None) -> Put:
    """Never with an earlier moment than before, so that no event before it is taken for a late one.

    Clocks may differ; of events under way at once any order is right.
    """
    moment = max(value.moment, _moment_of(before) + 1)
    return Put(
        escaped(key),
        NAMESPACE,
        json=value.json,
        labels={MOMENT: str(moment)},
        etag="" if before is None else before.etag,
        if_absent=before is None,
    )
