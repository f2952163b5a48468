"""Makes the vectors that memories lack, and keeps them in the database, in the background."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from memoryd.database.tenancy import EVERY_TENANT
from memoryd.domain.errors import MemorydError
from memoryd.memories.vectors import (
    Unembedded,
    Vector,
    count_unembedded,
    read_unembedded,
    read_vectors,
    write_vectors,
)
from memoryd.recall.embedders.embedder import adds_up_words
from memoryd.retrieval.heavy import parts
from memoryd.retrieval.query_vectors import QueryVectors
from memoryd.telemetry import spans

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from contextvars import Context

    from numpy.typing import NDArray

    from memoryd.database.engine import Database
    from memoryd.memories.deletion import MemoryKey
    from memoryd.recall.embedders.embedder import Embedder

    Floats16 = NDArray[np.float16]
    Vectors = Mapping[MemoryKey, tuple[str, Floats16]]
    """By memory, with the hash of the content that each was made of."""

AT_ONCE = 16
AT_ONCE_CHARACTERS = 65_536
"""Texts that are embedded at once: a query gets its turn between two batches."""

BATCH = 64
"""Vectors that are kept in the database at once."""

QUERY_BYTES = 1_048_576
"""What vectors of queries are kept in memory: about a thousand."""

INLINE = 4
INLINE_CHARACTERS = 4_096
"""Texts that an embedder of words is given on the event loop: a thread would cost more."""

KEEP_SECONDS = 0.5
"""For so long vectors gather that are to be kept in the database, unless they are a batch."""

MAX_PENDING = 20_000_000
"""In characters, of texts that wait; a session of the largest has less. Those beyond are ranked
without a vector, and come again when next retrieved."""

STORED = np.dtype("<f2")

FAILED = "the embedder failed; memories are ranked by their words"

_log = logging.getLogger(__name__)


class EmbeddingWorker:
    """One embedder, in a thread of its own."""

    def __init__(self, database: Database, embedder: Embedder) -> None:
        self.embedder = embedder
        self._database = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self._queries = QueryVectors(QUERY_BYTES)
        self._pending = 0
        """In characters."""
        self.backlog = 0
        """How many memories wait for their vector."""
        self._making = asyncio.Lock()
        """Held for a batch, so that a query waits for one at most."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._unkept: dict[MemoryKey, Vector] = {}
        self._keep_now = asyncio.Event()
        self._closed = False

    def try_out(self) -> None:
        """Have the embedder load what it needs; blocks."""
        self._attempt("word")

    async def of(self, tenant: str, text: str) -> NDArray[np.float32] | None:
        """The vector of a text that a tenant asks for; None where the embedder fails."""
        vector = self._queries.get(tenant, text)
        if vector is None:
            loop = asyncio.get_running_loop()
            with spans.part(spans.EMBEDDING):
                vector = await loop.run_in_executor(self._thread, self._attempt, text)
            if vector is not None:
                self._queries.keep(tenant, text, vector)
        return vector

    def _attempt(self, text: str) -> NDArray[np.float32] | None:
        try:
            vector: NDArray[np.float32] = self.embedder.embed([text])[0]
        except Exception:  # noqa: BLE001  it may be anybody's class
            _log.exception(FAILED)
            return None
        return vector

    async def stored(self, wanted: Mapping[MemoryKey, str]) -> Vectors:
        """The vectors kept of memories, given with their content hashes; not of other contents.

        Raises what Database raises.
        """
        name, dialect = self.embedder.name, self._database.dialect
        found = await self._database.read(
            lambda c: read_vectors(c, dialect, name, wanted.keys()),
            tenants={key[0] for key in wanted},
        )
        size = self.embedder.dimensions * STORED.itemsize
        return {
            key: (vector.content_hash, np.frombuffer(vector.data, STORED))
            for key, vector in found.items()
            if vector.content_hash == wanted[key] and len(vector.data) == size
        }

    def make(
        self, wanted: Sequence[Unembedded], made: Callable[[Vectors], None]
    ) -> asyncio.Task[None] | None:
        """Begin to make vectors; `made` is given each batch of them.

        None: they are made already, or too many are waiting.
        """
        characters = sum(len(item.content) for item in wanted)
        is_little = len(wanted) <= INLINE and characters <= INLINE_CHARACTERS
        if is_little and not self._pending and adds_up_words(self.embedder):
            try:
                with spans.part(spans.EMBEDDING):
                    vectors = self._embedded(wanted)
                self._made(wanted, vectors, made)
            except Exception:  # noqa: BLE001  it may be anybody's class
                _log.exception(FAILED)
            return None
        if self._pending + characters > MAX_PENDING:
            return None
        self._pending += characters
        self.backlog += len(wanted)
        return self._begin(self._make(wanted, characters, made), "vectors")

    async def lacking(self) -> int:
        """How many live memories lack a vector. Raises what Database raises."""
        return await self._database.read(
            lambda c: count_unembedded(c, self.embedder.name), tenants=EVERY_TENANT
        )

    async def reindex(self, progress: Callable[[int], None]) -> int:
        """Make every vector that is lacking in the database; answer how many.

        `progress` is given how many more are done. Raises what Database raises.
        """
        total, after = 0, None
        while True:
            batch = await self._database.read(
                lambda c, a=after: read_unembedded(c, self.embedder.name, a, BATCH),  # type: ignore[misc]
                tenants=EVERY_TENANT,
            )
            if not batch:
                return total
            after = batch[-1].key
            vectors = await self._embed(batch)
            total += await self._keep(_as_kept(batch, vectors))
            progress(len(batch))

    async def aclose(self) -> None:
        """Give up what is not begun, and keep what is made."""
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._keep_now.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(
        self, work: Coroutine[None, None, None], name: str, context: Context | None = None
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _make(
        self, wanted: Sequence[Unembedded], characters: int, made: Callable[[Vectors], None]
    ) -> None:
        left = len(wanted)
        try:
            for batch in parts(wanted, AT_ONCE, AT_ONCE_CHARACTERS):
                async with self._making:
                    vectors = await self._embed(batch)
                self._made(batch, vectors, made)
                left -= len(batch)
                self.backlog -= len(batch)
        except Exception:  # noqa: BLE001  whatever it is, it has no caller
            if not self._closed:
                _log.exception(FAILED)
        finally:
            self._pending -= characters
            self.backlog -= left

    def _made(
        self,
        batch: Sequence[Unembedded],
        vectors: Floats16,
        made: Callable[[Vectors], None],
    ) -> None:
        made(
            {
                item.key: (item.content_hash, vector)
                for item, vector in zip(batch, vectors, strict=True)
            }
        )
        if not self._unkept:
            self._keep_now.clear()
            self._begin(self._keep_behind(), "keep vectors", spans.detached())
        self._unkept |= _as_kept(batch, vectors)
        if len(self._unkept) >= BATCH or self._closed:
            self._keep_now.set()

    def _embedded(self, batch: Sequence[Unembedded]) -> Floats16:
        return self.embedder.embed([item.content for item in batch]).astype(np.float16)

    async def _embed(self, batch: Sequence[Unembedded]) -> Floats16:
        loop = asyncio.get_running_loop()
        with spans.part(spans.EMBEDDING):
            return await loop.run_in_executor(self._thread, self._embedded, batch)

    async def _keep(self, kept: Mapping[MemoryKey, Vector]) -> int:
        name, dialect = self.embedder.name, self._database.dialect
        return await self._database.write(
            lambda c: write_vectors(c, dialect, name, kept), tenants={key[0] for key in kept}
        )

    async def _keep_behind(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._keep_now.wait(), KEEP_SECONDS)
        kept, self._unkept = self._unkept, {}
        try:
            await self._keep(kept)
        except MemorydError:
            _log.warning("vectors lost; they are made again", extra={"count": len(kept)})


def _as_kept(batch: Sequence[Unembedded], vectors: Floats16) -> dict[MemoryKey, Vector]:
    return {
        item.key: Vector(item.content_hash, vector.astype(STORED).tobytes())
        for item, vector in zip(batch, vectors, strict=True)
    }
