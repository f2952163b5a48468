"""LangChain's key-value store over memoryd's documents.

    from memoryd.integrations.langchain import MemorydByteStore

    store = MemorydByteStore("localhost:50051", session_id="embeddings")
    embeddings = CacheBackedEmbeddings.from_bytes_store(model, store)

A value is a document of bytes under its key. It never expires.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.stores import BaseStore

from memoryd.client import Put, Remove
from memoryd.client.background import Closing
from memoryd.client.sync import DocumentClient
from memoryd.integrations.batches import MAX_BATCH, batches, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class MemorydByteStore(Closing, BaseStore[str, bytes]):
    """A store of bytes by key, for any number of threads. Its async methods run in threads.

    Every method may raise what the clients of memoryd raise: `memoryd.client.MemorydError`.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        session_id: str,
        namespace: Sequence[str] = (),
        **connection: Any,
    ) -> None:
        """Prepare the store; the first call connects.

        `target`: `host:port`; None: the variable MEMORYD_TARGET. `session_id` and `namespace`:
        where the documents are. `connection`: `api_key`, `tls`, `timeout` and the other arguments
        of `memoryd.client.sync.DocumentClient`.
        """
        self._documents = DocumentClient(target, **connection)
        self._session_id = session_id
        self._namespace = tuple(namespace)

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """Read values, in the order of the keys; None where there is none."""
        found: list[bytes | None] = []
        while len(found) < len(keys):
            some = keys[len(found) : len(found) + MAX_BATCH]
            names = [(self._namespace, key) for key in some]
            entries = whole(self._documents.get_many(self._session_id, names))
            found += [entry.document.data if entry.document else None for entry in entries]
        return found

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """Write values; of a key that is given twice the last."""
        self._write(Put(key, self._namespace, data=bytes(value)) for key, value in key_value_pairs)

    def mdelete(self, keys: Sequence[str]) -> None:
        """Delete values; those that are not there are no error."""
        self._write(Remove(key, self._namespace, allow_missing=True) for key in keys)

    def _write(self, writes: Iterable[Put | Remove]) -> None:
        for some in batches(writes):
            self._documents.write_many(self._session_id, some)

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """Iterate over the keys, sorted, or over those that begin with a prefix."""
        documents = self._documents.list(self._session_id, self._namespace, with_bodies=False)
        for document in documents:
            if document.namespace == self._namespace and document.key.startswith(prefix or ""):
                yield document.key

    def close(self) -> None:
        """Close the connection; this ends calls under way."""
        self._documents.close()
