"""What is remembered of a user of an app of Google's ADK."""

from __future__ import annotations

import contextlib
import logging
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from google.adk.memory.memory_entry import MemoryEntry
from google.genai import types

from memoryd.client import InvalidArgument, NewMemory, NotFound
from memoryd.integrations.batches import MAX_BATCH, chunks
from memoryd.integrations.names import escaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from google.adk.events.event import Event

    from memoryd.client import Memory, MemoryClient, SessionClient

MAX_CHARACTERS = 16_384
"""Of a memory, or a query. What is more of a text is left out."""

MEMORY_LIMIT = 100_000
"""Of a session with memories, so that none is evicted: the most that one may hold."""

MAX_BATCH_CHARACTERS = 256 * 1024
"""Of memories in one call, which takes 4 MiB with their metadata."""


_log = logging.getLogger(__name__)

_REFUSED_CONTENT = re.compile(r"requests\[(\d+)\]\.content")


class Memories:
    """Of all apps and users. `place`: a session of memoryd."""

    def __init__(self, memories: MemoryClient, sessions: SessionClient) -> None:
        self.client = memories
        self._sessions = sessions

    async def add(self, place: str, new: Sequence[NewMemory]) -> None:
        """Store memories."""
        if new:
            await self._require_session(place)
        for some in _batches(new):
            await self.client.store_many(some)

    async def add_unknown(self, place: str, new: Sequence[NewMemory], prefix: str) -> None:
        """Store those whose keys, which begin with a prefix, no memory has, nor a deleted one.

        Without those whose texts the service refuses, such as markup alone.
        """
        unknown = {each.key: each for each in new}
        if len(unknown) == 1:
            (prefix,) = unknown
        known = self.client.list(place, show_deleted=True, key_prefix=prefix, page_size=MAX_BATCH)
        async for memory in known:
            unknown.pop(memory.key, None)
        if unknown:
            await self._require_session(place)
        for some in _batches(unknown.values()):
            await self._store_what_can_be(some)

    async def _store_what_can_be(self, some: list[NewMemory]) -> None:
        try:
            await self.client.store_many(some)
        except InvalidArgument as error:
            refused = {
                int(match[1]): each.description
                for each in error.violations
                if (match := _REFUSED_CONTENT.fullmatch(each.field))
            }
            if not refused:
                raise
            for place, why in refused.items():
                _log.warning("event %s is not remembered: %s", some[place].key, why)
            rest = [each for place, each in enumerate(some) if place not in refused]
            if rest:
                await self._store_what_can_be(rest)

    async def delete(self, place: str, memory_id: str) -> None:
        # No memory has an id that is none.
        with contextlib.suppress(NotFound, InvalidArgument):
            await self.client.delete(place, memory_id)

    async def close(self) -> None:
        await self.client.close()

    async def _require_session(self, place: str) -> None:
        """Have nothing expire or be evicted, unless something else is set for the session."""
        has_limit = has_end = False
        with contextlib.suppress(NotFound):
            session = await self._sessions.get(place)
            has_limit = session.memory_limit is not None
            has_end = session.memories_never_expire or session.memory_ttl is not None
        if not (has_limit and has_end):
            await self._sessions.update(
                place,
                memory_limit=None if has_limit else MEMORY_LIMIT,
                memories_never_expire=None if has_end else True,
                allow_missing=True,
            )


def _batches(new: Iterable[NewMemory]) -> Iterator[list[NewMemory]]:
    return chunks(new, lambda memory: len(memory.content), room=MAX_BATCH_CHARACTERS)


# What is in one


def text_of(content: types.Content | None) -> str:
    """What is said, without what is thought; empty: nothing."""
    parts = (content.parts if content is not None else None) or ()
    texts = (part.text.strip() for part in parts if part.text and not part.thought)
    return within_limit("\n".join(filter(None, texts)))


def within_limit(text: str) -> str:
    # JSON may have half a surrogate pair, which no text can be found by.
    return text[:MAX_CHARACTERS].encode(errors="replace").decode().strip()


def key_of_event(session_id: str, event_id: str) -> str:
    return f"{escaped(session_id)}/{escaped(event_id)}"


def of_events(
    place: str,
    events: Iterable[Event],
    *,
    session_id: str,
    episode: str,
    custom_metadata: Mapping[str, Any],
) -> list[NewMemory]:
    """One of each event that has a text. `episode`: the conversation that has the events."""
    found = []
    for event in events:
        known = {
            "speaker": event.author,
            "occurred_at": datetime.fromtimestamp(event.timestamp, UTC).isoformat(),
            "episode": episode,
            "session_id": session_id,
            "event_id": event.id,
        }
        key = key_of_event(session_id, event.id)
        found.append(_memory(place, event.content, key, custom_metadata, known))
    return [each for each in found if each.content]


def of_entries(
    place: str, entries: Iterable[MemoryEntry], custom_metadata: Mapping[str, Any]
) -> list[NewMemory]:
    """One of each entry that has a text."""
    found = []
    for entry in entries:
        custom = {**custom_metadata, **entry.custom_metadata}
        known = {"speaker": entry.author, "occurred_at": entry.timestamp}
        # No key of an event has a colon.
        key = f"memory:{escaped(entry.id)}" if entry.id else ""
        found.append(_memory(place, entry.content, key, custom, known))
    return [each for each in found if each.content]


def _memory(
    place: str,
    content: types.Content | None,
    key: str,
    custom: Mapping[str, Any],
    known: Mapping[str, str | None],
) -> NewMemory:
    known = {name: value for name, value in known.items() if value}
    return NewMemory(place, text_of(content), metadata={**custom, **known}, key=key)


def entry_of(memory: Memory) -> MemoryEntry:
    speaker = memory.metadata.get("speaker")
    occurred_at = memory.metadata.get("occurred_at")
    if not occurred_at and memory.create_time is not None:
        occurred_at = memory.create_time.isoformat()
    role = "user" if speaker == "user" else "model"
    return MemoryEntry(
        id=memory.memory_id,
        content=types.Content(role=role, parts=[types.Part(text=memory.content)]),
        author=speaker,
        timestamp=occurred_at,
        custom_metadata=memory.metadata,
    )
