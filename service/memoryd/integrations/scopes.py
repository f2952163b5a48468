"""Memories that are stored in one scope and found in others."""

from __future__ import annotations

import asyncio
import logging
import re
import textwrap
from typing import TYPE_CHECKING, Any

from memoryd.client import InvalidArgument, MemoryClient, SessionClient
from memoryd.client.background import background
from memoryd.client.connection import ClosedOnExit
from memoryd.integrations.names import prefix_of, session_id
from memoryd.integrations.sessions import require_session

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from memoryd.client import RetrievedMemory

MAX_SCOPES = 17
"""That one search ranks together."""

MAX_SOURCE_CHARACTERS = 64
"""Of a tag."""

MAX_TEXT_CHARACTERS = 16_384
"""Of a memory, and of a query."""

logger = logging.getLogger(__name__)


class ScopedMemories(ClosedOnExit):
    """The memories of one source, for any event loop.

    A scope is a session of memoryd, `prefix:scope`. The source is a tag of its memories, and finds
    no others. A text is one memory of its scope, however often it is stored.

    Every method may raise what the clients of memoryd raise: `memoryd.client.MemorydError`.
    """

    def __init__(
        self,
        target: str | None,
        *,
        prefix: str,
        source: str,
        store_scope: str | None,
        search_scopes: Iterable[str],
        connection: Mapping[str, Any],
    ) -> None:
        """Prepare; the first call connects.

        Raises ValueError for a source or a scope that has no name or too long a one, for more than
        17 scopes to search, and where there is no scope at all; TypeError for one text as scopes to
        search.
        """
        if isinstance(search_scopes, str):
            raise TypeError(f"search_scopes: give a list, [{search_scopes!r}]")
        searched = list(dict.fromkeys(search_scopes))
        if store_scope is None and not searched:
            raise ValueError("give a store_scope, search_scopes or both: there is no scope")
        if not all([store_scope is None or store_scope, *searched]):
            raise ValueError("store_scope, search_scopes: give names of at least one character")
        if len(searched) > MAX_SCOPES:
            raise ValueError(f"search_scopes: there are {len(searched)}, more than {MAX_SCOPES}")
        if not 1 <= len(source) <= MAX_SOURCE_CHARACTERS or not source.isprintable():
            raise ValueError(
                f"{source[:MAX_SOURCE_CHARACTERS]!r} is no name of a source: give"
                f" 1-{MAX_SOURCE_CHARACTERS} printable characters"
            )
        prefix_of(prefix)
        self._source = source
        self._stored = None if store_scope is None else session_id(prefix, [store_scope])
        self._searched = [session_id(prefix, [scope]) for scope in searched]
        self._has_warned = False
        self._loop = background()

        async def made() -> tuple[MemoryClient, SessionClient]:
            return MemoryClient(target, **connection), SessionClient(target, **connection)

        self._memories, self._sessions = self._loop.run(made())

    @property
    def stores(self) -> bool:
        """Whether there is a scope to store in."""
        return self._stored is not None

    async def store(self, text: str, metadata: Mapping[str, Any] | None = None) -> str:
        """Store a memory, and give its id: of the one that is there, where the scope has it.

        Raises ValueError where there is no scope to store in, and InvalidArgument.
        """
        return await self._loop.wait(self._store(text, metadata))

    async def store_said(self, said: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Store what was said, each text with its metadata: a long one in pieces.

        A text without a word is left out, and so is one that has nothing but markup, with a
        warning.
        """
        await self._loop.wait(self._store_said([each for each in said if has_words(each[0])]))

    async def search(
        self, query: str, *, limit: int, min_relevance: float | None = None
    ) -> Sequence[RetrievedMemory]:
        """Find memories that bear on a query, the best first: at most 100.

        Of a longer query the last 16,384 characters count. Where there is no scope to search, it
        finds nothing, and warns once.
        """
        if not self._searched:
            if not self._has_warned:
                self._has_warned = True
                logger.warning("%s: no search_scopes, so that it finds nothing", self._source)
            return ()
        first, *rest = self._searched
        answer = await self._loop.wait(
            self._memories.retrieve(
                first,
                _storable(query[-MAX_TEXT_CHARACTERS:]),
                session_ids=rest,
                tags_all=[self._source],
                limit=limit,
                min_relevance=min_relevance,
            )
        )
        return answer.results

    async def close(self) -> None:
        """Close the connections; this ends calls under way."""
        await self._loop.wait(self._memories.close())
        await self._loop.wait(self._sessions.close())

    # What follows runs in the one loop of the clients.

    async def _store(self, text: str, metadata: Mapping[str, Any] | None) -> str:
        answer = await self._memories.store(
            await self._required_session(),
            _storable(text),
            metadata=metadata,
            tags=[self._source],
        )
        return answer.memory.memory_id

    async def _store_said(self, said: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        session = await self._required_session()
        await asyncio.gather(
            *(
                self._store_piece(session, piece, given)
                for text, given in said
                for piece in _pieces(text)
            )
        )

    async def _store_piece(self, session: str, text: str, metadata: Mapping[str, Any]) -> None:
        try:
            await self._memories.store(
                session, _storable(text), metadata=metadata, tags=[self._source]
            )
        except InvalidArgument as error:
            if {violation.field for violation in error.violations} != {"content"}:
                raise
            logger.warning("%s: a message is no memory: %s", self._source, error)

    async def _required_session(self) -> str:
        if self._stored is None:
            raise ValueError(f"{self._source}: there is no store_scope to store in")
        await require_session(self._sessions, self._stored)
        return self._stored


def has_words(text: str) -> bool:
    return re.search(r"\w", text) is not None


def _pieces(text: str) -> list[str]:
    """A text as so many as it takes, cut at white space where there is some."""
    if len(text) <= MAX_TEXT_CHARACTERS:
        return [text]
    return textwrap.wrap(
        text,
        MAX_TEXT_CHARACTERS,
        expand_tabs=False,
        replace_whitespace=False,
        break_on_hyphens=False,
    )


def _storable(text: str) -> str:
    """A text without half surrogate pairs, which are no Unicode."""
    return text.encode(errors="replace").decode()
