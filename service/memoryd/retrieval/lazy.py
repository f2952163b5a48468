"""Retrieval once it is asked for: arrays and ranking are a sixth of an idle server in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memoryd.database.engine import Database
    from memoryd.memories.cache import Snapshots
    from memoryd.recall.embedders.embedder import Embedder
    from memoryd.retrieval.embedding_worker import VectorMaker
    from memoryd.retrieval.engine import Retrieval
    from memoryd.retrieval.query import Encoding


def has_failed(task: asyncio.Task[Any]) -> bool:
    """Whether a task is over and has made nothing, such as for want of a file descriptor."""
    return task.done() and (task.cancelled() or task.exception() is not None)


class DeferredRetrieval:
    """Builds one `Retrieval`, in a thread, so that other calls go on."""

    def __init__(
        self,
        database: Database,
        snapshots: Snapshots,
        embedder: Embedder | None,
        *,
        encoding: Encoding,
        language: str,
        half_life_days: float,
    ) -> None:
        self._database = database
        self._snapshots = snapshots
        self._embedder = embedder
        self._encoding = encoding
        self._language = language
        self._half_life_days = half_life_days
        self._vectors: VectorMaker | None = None
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

    async def aclose(self) -> None:
        """Give up what is not begun, and keep what is made."""
        if self._loading is not None:
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._vectors is not None:
            await self._vectors.aclose()

    def _load(self) -> Retrieval:
        from memoryd.retrieval.embedding_worker import VectorMaker  # noqa: PLC0415  likewise
        from memoryd.retrieval.engine import Retrieval  # noqa: PLC0415  as the module says

        if self._embedder is not None:
            self._vectors = VectorMaker(self._database, self._embedder)
        return Retrieval(
            self._snapshots,
            self._vectors,
            encoding=self._encoding,
            language=self._language,
            half_life_days=self._half_life_days,
        )
