"""Strands Agents' long-term memory over memoryd's memories.

    from memoryd.integrations.strands import MemorydMemoryStore

    store = MemorydMemoryStore(
        "notes", "localhost:50051", store_scope="ada", search_scopes=["ada"]
    )
    agent = Agent(model=model, memory_manager=MemoryManager(stores=[store], add_tool_config=True))

What is stored in a scope is one session of memoryd, and never expires.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strands.memory import MemoryEntry, MemoryStore

from memoryd.client.connection import ClosedOnExit
from memoryd.integrations.scopes import ScopedMemories, has_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from strands.memory import AddMessagesContext, ExtractionConfig, SearchOptions
    from strands.types.content import Message

DEFAULT_RESULTS = 10
"""Of a search, where neither the call nor the store says how many."""

RELEVANCE_KEY, ID_KEY = "_relevance_score", "_memory_id"
"""What a result's metadata has besides what was stored."""


class MemorydMemoryStore(ClosedOnExit, MemoryStore):
    """A memory store of an agent, for any event loop.

    Where it stores and where it searches are given apart, and neither stands for the other. Its
    name keeps it apart from other stores of the same scope.

    Every method may raise what the clients of memoryd raise: `memoryd.client.MemorydError`.
    """

    def __init__(
        self,
        name: str,
        target: str | None = None,
        *,
        store_scope: str | None = None,
        search_scopes: Iterable[str] = (),
        description: str | None = None,
        max_search_results: int | None = None,
        min_relevance: float | None = None,
        extraction: ExtractionConfig | bool | None = None,
        prefix: str = "strands",
        **connection: Any,
    ) -> None:
        """Prepare the store; the first call connects.

        `name`: 1-64 characters; of the store among those of an agent. `target`: `host:port`; None:
        the variable MEMORYD_TARGET. `store_scope`: whose memories it adds to, such as a user; None:
        the store is not writable. `search_scopes`: whose it finds, up to 17; none: it finds
        nothing. A scope with `prefix` is a session of memoryd: `strands:ada`. `max_search_results`:
        of a search that does not say; None: 10. `min_relevance`: from 0 to 1; what recall is less
        sure of is left out. `description` and `extraction` are for the MemoryManager. `connection`:
        `api_key`, `tls`, `timeout` and the other arguments of `memoryd.client.MemoryClient`.

        Raises ValueError for names that are empty or too long, for `max_search_results` below 1,
        and where there is no scope at all.
        """
        _at_least_one(max_search_results)
        if not name.strip():
            raise ValueError("name: give at least one character")
        self.name = name
        self.description = description
        self.max_search_results = max_search_results
        self.extraction = extraction
        self._min_relevance = min_relevance
        self._memories = ScopedMemories(
            target,
            prefix=prefix,
            source=name,
            store_scope=store_scope,
            search_scopes=search_scopes,
            connection=connection,
        )
        self.writable = self._memories.stores

    async def search(self, query: str, options: SearchOptions | None = None) -> list[MemoryEntry]:
        """Find what bears on a query, the best first: at most `max_search_results`, and 100.

        The metadata of an entry has `_relevance_score`, from 0 to 1, and `_memory_id` besides what
        was stored. A query without a word finds nothing.

        Raises ValueError for `max_search_results` below 1.
        """
        wanted = options.get("max_search_results") if options is not None else None
        _at_least_one(wanted)
        if not has_words(query):
            return []
        found = await self._memories.search(
            query,
            limit=wanted or self.max_search_results or DEFAULT_RESULTS,
            min_relevance=self._min_relevance,
        )
        return [
            MemoryEntry(
                content=result.memory.content,
                metadata=result.memory.metadata
                | {RELEVANCE_KEY: result.relevance, ID_KEY: result.memory.memory_id},
            )
            for result in found
        ]

    async def add(self, content: str, metadata: dict[str, Any] | None = None) -> str:
        """Store a memory, and give its id.

        What the scope has already is not stored again: the answer is that memory's id, and its
        metadata gets what is new.

        Raises ValueError where the store is not writable or there is no content.
        """
        self._require_writable()
        if not content.strip():
            raise ValueError("content: give at least one character")
        return await self._memories.store(content, metadata)

    async def add_messages(
        self,
        messages: list[Message],
        context: AddMessagesContext | None = None,  # noqa: ARG002  a text is stored once without
    ) -> None:
        """Store the texts of messages word for word, with the role as `speaker`.

        Raises ValueError where the store is not writable.
        """
        self._require_writable()
        await self._memories.store_said(
            (_text(message), {"speaker": message["role"]}) for message in messages
        )

    async def close(self) -> None:
        """Close the connections; this ends calls under way."""
        await self._memories.close()

    def _require_writable(self) -> None:
        if not self.writable:
            raise ValueError(f"{self.name}: the store is not writable; give it a store_scope")


def _at_least_one(results: int | None) -> None:
    if results is not None and results < 1:
        raise ValueError(f"max_search_results must be at least 1, not {results}")


def _text(message: Message) -> str:
    return "\n".join(block["text"] for block in message["content"] if "text" in block)
