"""Retrieval once it is asked for: arrays and ranking are a sixth of an idle server in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from memoryd.retrieval.heavy import has_failed

if TYPE_CHECKING:
    from memoryd.database.engine import Database
    from memoryd.memories.cache import SessionCache
    from memoryd.recall.embedders.embedder import Embedder
    from memoryd.retrieval.embedding_worker import EmbeddingWorker
    from memoryd.retrieval.engine import Retrieval
    from memoryd.retrieval.query import Encoding


class LazyRetrieval:
    """Builds one `Retrieval`, in a thread, so that other calls go on."""

    def __init__(
        self,
        database: Database,
        cache: SessionCache,
        embedder: Embedder | None,
        *,
        encoding: Encoding,
        language: str,
        half_life_days: float,
    ) -> None:
        self._database = database
        self._cache = cache
        self._embedder = embedder
        self._encoding = encoding
        self._language = language
        self._half_life_days = half_life_days
        self._vectors: EmbeddingWorker | None = None
        self._loading: asyncio.Task[Retrieval] | None = None
        self._retrieval: Retrieval | None = None

    async def __call__(self) -> Retrieval:
        """The one there is."""
        if self._retrieval is None:
            if self._loading is None or has_failed(self._loading):
                loading = asyncio.to_thread(self._load)
                self._loading = asyncio.create_task(loading, name="load retrieval")
            self._retrieval = await asyncio.shield(self._loading)  # it is others' too
        return self._retrieval

    @property
    def backlog(self) -> int:
        """How many memories wait for their vector."""
        return 0 if self._vectors is None else self._vectors.backlog

    async def aclose(self) -> None:
        """Give up what is not begun, and keep what is made."""
        if self._loading is not None:
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._vectors is not None:
            await self._vectors.aclose()

    def _load(self) -> Retrieval:
        from memoryd.retrieval.embedding_worker import EmbeddingWorker  # noqa: PLC0415  likewise
        from memoryd.retrieval.engine import Retrieval  # noqa: PLC0415  as the module says
        from memoryd.retrieval.loading import SessionLoader  # noqa: PLC0415  likewise

        if self._embedder is not None:
            self._vectors = EmbeddingWorker(self._database, self._embedder)
        sessions = SessionLoader(
            self._cache, self._vectors, encoding=self._encoding, language=self._language
        )
        return Retrieval(
            sessions,
            self._vectors,
            language=self._language,
            half_life_days=self._half_life_days,
        )
