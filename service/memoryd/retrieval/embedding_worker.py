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
from memoryd.recall.embedders.embedder import (
    Embedding,
    TokenEmbedder,
    adds_up_words,
    embed_contents,
)
from memoryd.recall.signals import meaning_of_text
from memoryd.retrieval.heavy import parts
from memoryd.retrieval.query_vectors import QueryVectors
from memoryd.telemetry import spans

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from contextvars import Context

    from memoryd.database.engine import Database
    from memoryd.memories.deletion import MemoryKey
    from memoryd.recall.embedders.embedder import Embedder
    from memoryd.recall.signals import Meaning

    Vectors = Mapping[MemoryKey, tuple[str, Embedding]]
    """By memory, with the hash of the content that each was made of."""

AT_ONCE = 16
AT_ONCE_CHARACTERS = 65_536
"""Texts that are embedded at once: a query gets its turn between two batches."""

BATCH = 64
"""Vectors that are kept in the database at once."""

QUERY_BYTES = 1_048_576
"""What vectors of queries are kept in memory: about a thousand, or a hundred with their tokens'."""

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
        self._token_dimensions = (
            embedder.token_dimensions if isinstance(embedder, TokenEmbedder) else 0
        )
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

    async def of(self, tenant: str, text: str) -> Meaning | None:
        """The meaning of a text that a tenant asks for; None where the embedder fails."""
        meaning = self._queries.get(tenant, text)
        if meaning is None:
            loop = asyncio.get_running_loop()
            with spans.part(spans.EMBEDDING):
                meaning = await loop.run_in_executor(self._thread, self._attempt, text)
            if meaning is not None:
                self._queries.keep(tenant, text, meaning)
        return meaning

    def _attempt(self, text: str) -> Meaning | None:
        try:
            return meaning_of_text(text, self.embedder)
        except Exception:  # noqa: BLE001  it may be anybody's class
            _log.exception(FAILED)
            return None

    async def stored(self, wanted: Mapping[MemoryKey, str]) -> Vectors:
        """The vectors kept of memories, given with their content hashes; not of other contents.

        Raises what Database raises.
        """
        name, dialect = self.embedder.name, self._database.dialect
        found = await self._database.read(
            lambda c: read_vectors(c, dialect, name, wanted.keys()),
            tenants={key[0] for key in wanted},
        )
        embeddings = {
            key: (vector.content_hash, self._as_read(vector.data))
            for key, vector in found.items()
            if vector.content_hash == wanted[key]
        }
        return {key: (of, one) for key, (of, one) in embeddings.items() if one is not None}

    def _as_read(self, data: bytes) -> Embedding | None:
        """What `_as_kept` has made bytes of; None where they are something else's."""
        size = self.embedder.dimensions * STORED.itemsize
        width = self._token_dimensions
        if not width:
            return Embedding(np.frombuffer(data, STORED)) if len(data) == size else None
        if len(data) < size or (len(data) - size) % width:
            return None
        tokens = np.frombuffer(data, np.int8, offset=size).reshape(-1, width)
        return Embedding(np.frombuffer(data, STORED, self.embedder.dimensions), tokens.copy())

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
        vectors: Sequence[Embedding],
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

    def _embedded(self, batch: Sequence[Unembedded]) -> list[Embedding]:
        return embed_contents(self.embedder, [item.content for item in batch])

    async def _embed(self, batch: Sequence[Unembedded]) -> list[Embedding]:
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


def _as_kept(batch: Sequence[Unembedded], vectors: Sequence[Embedding]) -> dict[MemoryKey, Vector]:
    return {
        item.key: Vector(item.content_hash, _as_bytes(embedding))
        for item, embedding in zip(batch, vectors, strict=True)
    }


def _as_bytes(embedding: Embedding) -> bytes:
    tokens = b"" if embedding.tokens is None else embedding.tokens.tobytes()
    return embedding.vector.astype(STORED).tobytes() + tokens
