"""What retrieval makes of a session and keeps: arrays for importance, an index for queries."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from memoryd.ranking import effective_importances
from memoryd.recall.index import Document, SessionIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from memoryd.model import Memory
    from memoryd.storage.snapshots import Snapshot

    Floats = NDArray[np.float64]
    Vector = NDArray[np.float16]

NEVER = float("inf")

ARRAY_BYTES = 5 * 8 + 8
"""Of a memory: its places in the arrays, and in the list of memories."""


class Prepared:
    """One session's memories as arrays, in creation order; and their index, once there is one."""

    def __init__(self) -> None:
        self._arrange([])
        self.index: SessionIndex | None = None
        self._unindexed: set[str] = set()
        """Ids of memories whose place in the index is not what it has to be."""
        self._embedded: dict[str, str] = {}
        """Of which content hash each vector in the index was made, by memory id."""
        self._arrived: dict[str, tuple[str, Vector]] = {}
        """Vectors with their content hashes that are not in the index yet, by memory id."""
        self._wanted: dict[str, str] = {}
        """Content hashes of the vectors that are being made, by memory id."""

    def refresh(self, snapshot: Snapshot) -> None:
        """Take over what has changed in the session."""
        if snapshot.changed:
            self._unindexed |= snapshot.changed
            snapshot.changed.clear()
            snapshot.accessed.clear()
            self._arrange([*snapshot.memories.values()])
        elif snapshot.accessed:
            for memory_id in snapshot.accessed & self._places.keys():
                place = self._places[memory_id]
                self.memories[place] = snapshot.memories[memory_id]
                self._access_count[place] = self.memories[place].access_count
                if self.index is not None and memory_id in self.index:
                    self.index.count_accesses(memory_id, self.memories[place].access_count)
            snapshot.accessed.clear()

    def _arrange(self, memories: list[Memory]) -> None:
        self.memories = memories
        """In creation order, as are all arrays."""
        self._places = {memory.memory_id: place for place, memory in enumerate(memories)}
        self._importance = np.array([m.importance for m in memories], np.float64)
        self._access_count = np.array([m.access_count for m in memories], np.float64)
        self._created_at = np.array([m.created_at.timestamp() for m in memories], np.float64)
        self._semantic_hash = np.array([int(m.semantic_hash, 16) for m in memories], np.uint64)
        self._expires_at = np.array(
            [NEVER if m.expires_at is None else m.expires_at.timestamp() for m in memories],
            np.float64,
        )

    @property
    def nbytes(self) -> int:
        """About what it takes beside the memories themselves."""
        index = 0 if self.index is None else self.index.nbytes
        return ARRAY_BYTES * len(self.memories) + index

    def place(self, memory_id: str) -> int | None:
        """Where a memory stands, if it is there."""
        return self._places.get(memory_id)

    def memory(self, memory_id: str) -> Memory:
        """A memory that is there."""
        return self.memories[self._places[memory_id]]

    def distances(self, semantic_hash: str) -> NDArray[np.uint8]:
        """Hamming distances of the memories' semantic hashes to this one, in bits."""
        unlike = self._semantic_hash ^ np.uint64(int(semantic_hash, 16))
        distances: NDArray[np.uint8] = np.bitwise_count(unlike)
        return distances

    def is_live(self, now: datetime) -> NDArray[np.bool_]:
        """Which memories have not expired."""
        return self._expires_at > now.timestamp()

    def effective_importance(self, now: datetime, half_life_days: float) -> Floats:
        """`ranking.effective_importance` of each memory."""
        return effective_importances(
            self._importance,
            self._created_at,
            self._access_count,
            now=now,
            half_life_days=half_life_days,
        )

    # The index

    @property
    def unindexed(self) -> int:
        """How many memories the index has to take over."""
        return len(self.memories) if self.index is None else len(self._unindexed)

    def without_vector(self) -> list[Memory]:
        """The memories whose vectors nobody has, and nobody is making."""
        unknown = self.memories if self.index is None else map(self._found, self._unindexed)
        return [
            memory
            for memory in unknown
            if memory is not None
            and not self._has_vector(memory)
            and self._wanted.get(memory.memory_id) != memory.content_hash
        ]

    def expect(self, memories: Iterable[Memory]) -> None:
        """Note that vectors of these are being made."""
        self._wanted |= {memory.memory_id: memory.content_hash for memory in memories}

    def take_vectors(self, vectors: Mapping[str, tuple[str, Vector]]) -> None:
        """Have vectors, with their contents' hashes, come into the index with the next update."""
        self._arrived |= vectors
        self._unindexed |= vectors.keys() & self._places.keys()
        for memory_id in vectors:
            self._wanted.pop(memory_id, None)

    def documents(self) -> list[Document]:
        """All memories, with the vectors that are there."""
        return [self._document(memory) for memory in self.memories]

    def adopt(self, index: SessionIndex, documents: Iterable[Document]) -> None:
        """Let an index of all memories be the one, built of these documents."""
        self.index = index
        self._embedded = {}
        self._take_over(documents)
        # Vectors that have come meanwhile are next.
        self._unindexed = self._arrived.keys() & self._places.keys()

    def up_to_date_index(self) -> SessionIndex:
        """The index, with all that has changed taken over."""
        assert self.index is not None  # noqa: S101  for the type checker: it has been adopted
        if self._unindexed:
            changed = [memory for memory in map(self._found, self._unindexed) if memory is not None]
            documents = [self._document(memory) for memory in changed]
            removed = [i for i in self._unindexed if i not in self._places]
            self.index.update(documents, removed)
            for memory_id in removed:
                self._embedded.pop(memory_id, None)
                self._arrived.pop(memory_id, None)
            self._unindexed = set()
            self._take_over(documents)
        return self.index

    def _take_over(self, documents: Iterable[Document]) -> None:
        """Note whose vectors the index has by now."""
        for document in documents:
            memory_id = document.memory_id
            if document.vector is None:
                self._embedded.pop(memory_id, None)
                continue
            content_hash = self.memories[self._places[memory_id]].content_hash
            self._embedded[memory_id] = content_hash
            if self._arrived.get(memory_id, ("",))[0] == content_hash:
                del self._arrived[memory_id]

    def _found(self, memory_id: str) -> Memory | None:
        place = self._places.get(memory_id)
        return None if place is None else self.memories[place]

    def _has_vector(self, memory: Memory) -> bool:
        arrived = self._arrived.get(memory.memory_id)
        return memory.content_hash in (
            self._embedded.get(memory.memory_id),
            None if arrived is None else arrived[0],
        )

    def _vector(self, memory: Memory) -> Vector | None:
        memory_id = memory.memory_id
        arrived = self._arrived.get(memory_id)
        if arrived is not None and arrived[0] == memory.content_hash:
            return arrived[1]
        if self.index is not None and self._embedded.get(memory_id) == memory.content_hash:
            vector: Vector = self.index.vectors[self.index.place(memory_id)].copy()
            return vector
        return None

    def _document(self, memory: Memory) -> Document:
        speaker, episode = memory.metadata.get("speaker"), memory.metadata.get("episode")
        return Document(
            memory.memory_id,
            memory.content,
            memory.created_revision,
            memory.created_at,
            memory.importance,
            memory.access_count,
            speaker=speaker if isinstance(speaker, str) else "",
            occurred_at=_moment(memory.metadata.get("occurred_at")),
            episode=episode if isinstance(episode, str) else "",
            vector=self._vector(memory),
        )


def _moment(value: object) -> datetime | None:
    """An RFC 3339 time, in UTC where it names no zone; None for what is none, and not ranked by."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
