"""What retrieval makes of a session and keeps: arrays for importance, an index for queries."""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from memoryd.domain.importance import Importances
from memoryd.recall.embedders.embedder import Embedding
from memoryd.recall.index import Document, SessionIndex
from memoryd.retrieval.importance_order import ORDER_BYTES, ImportanceOrder
from memoryd.retrieval.query import Encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from memoryd.domain.records import Accesses, Memory
    from memoryd.memories.cached_session import CachedSession
    from memoryd.retrieval.query import Encoding

    Floats = NDArray[np.float64]

NEVER = float("inf")

MAX_NAME_CHARACTERS = 255
"""Of a speaker: every query is compared with all names of a session."""

MAX_MOMENT_CHARACTERS = 64
"""Of a time as text; nanoseconds and a zone take 35."""

_LEAP_SECOND = re.compile(r"^(\d{4}-\d\d-\d\d[T ]\d\d:\d\d):60(?!\d)")

MOST_ORDERED_INLINE = 2_000
"""Memories that are put into the order of importance on the event loop; more are in a thread."""

ARRAY_BYTES = 5 * 8 + 8
"""Of a memory: its places in the arrays, and in the list of memories."""


_ROW = np.dtype(
    [
        ("importance", np.float64),
        ("access_count", np.float64),
        ("created_at", np.float64),
        ("expires_at", np.float64),
        ("semantic_hash", np.uint64),
    ]
)


class SessionView:
    """One session's memories as arrays, in creation order; and their index, once there is one."""

    def __init__(self, cached: CachedSession, encoding: Encoding) -> None:
        self._cached = cached
        self._encoding = encoding
        self._changed = set(cached.memories)
        """Ids of memories that came, went or changed since the last refresh."""
        self._accessed: set[str] = set()
        """Ids of memories whose accesses were counted since then."""
        self._order: ImportanceOrder | None = None
        """None: not asked for yet."""
        self._unordered: set[str] = set()
        """Ids of memories whose place in that order is not what it has to be."""
        self._unplaced: set[str] = set(cached.memories)
        self._uncounted: set[str] = set()
        """Ids of memories that the arrays do not have as they are, or their accesses."""
        self._memories: list[Memory] = []
        self._places: dict[str, int] = {}
        self._rows = np.zeros(0, _ROW)
        self._derive()
        self._encoded: dict[str, Encoded] = {}
        """By memory id; of records as they are."""
        self._encoded_bytes = 0
        self.index: SessionIndex | None = None
        self._unindexed: set[str] = set()
        """Ids of memories whose place in the index is not what it has to be."""
        self.is_being_indexed = False
        """Whether an index is made of all memories, to be adopted."""
        self._readers = 0
        """How many threads read the index."""
        self._embedded: dict[str, str] = {}
        """Of which content hash each vector in the index was made, by memory id."""
        self._arrived: dict[str, tuple[str, Embedding]] = {}
        """Vectors with their content hashes that are not in the index yet, by memory id."""
        self._wanted: dict[str, str] = {}
        """Content hashes of the vectors that are being made, by memory id."""

    def note_change(self, memory_id: str) -> None:
        """Note that a memory came, went or changed."""
        self._changed.add(memory_id)

    def note_accesses(self, memory_id: str) -> None:
        """Note that accesses of a memory were counted."""
        self._accessed.add(memory_id)

    def refresh(self) -> None:
        """Take over what has changed in the session."""
        if self._changed:
            self._unindexed |= self._changed
            self._unplaced |= self._changed
            for memory_id in self._changed & self._encoded.keys():
                self._forget_encoded(memory_id)
        if self._order is not None:
            self._unordered |= self._changed
            self._unordered |= self._accessed
        self._uncounted |= self._accessed
        self._changed, self._accessed = set(), set()

    def by_importance(self, now: datetime, half_life_days: float) -> Iterator[tuple[float, Memory]]:
        """The memories with their effective importance, as `ImportanceOrder.descending` has them.

        Costs what has changed and what is taken from it, not what the session has.
        """
        if self._order is None or self._order.half_life_days != half_life_days:
            self.adopt_order(self.new_order(half_life_days)())
            assert self._order is not None  # noqa: S101  for the type checker
        if self._unordered:
            found = {i: self._cached.memories.get(i) for i in self._unordered}
            self._order.update(
                {i: None if m is None else (m, self.accesses(m).times) for i, m in found.items()}
            )
            self._unordered = set()
        return self._order.descending(now)

    def new_order(self, half_life_days: float) -> Callable[[], ImportanceOrder]:
        """Give what makes an order of all memories as they are now, in any thread."""
        memories = [*self._cached.memories.values()]

        def make() -> ImportanceOrder:
            order = ImportanceOrder(half_life_days)
            order.update({m.memory_id: (m, self.accesses(m).times) for m in memories})
            return order

        return make

    def adopt_order(self, order: ImportanceOrder) -> None:
        """Let an order of all memories be the one."""
        self._order, self._unordered = order, set()

    @property
    def has_much_to_order(self) -> bool:
        """Whether `by_importance` has to take over more than it may on the event loop."""
        unordered = self._cached.memories if self._order is None else self._unordered
        return len(unordered) > MOST_ORDERED_INLINE

    @property
    def memories(self) -> list[Memory]:
        """In creation order, as are all arrays."""
        self._place()
        return self._memories

    @property
    def places(self) -> dict[str, int]:
        """Where each memory stands, by its id."""
        self._place()
        return self._places

    def _place(self) -> None:
        """Have the arrays as the session was at the last refresh, which takes all of them."""
        if self._unplaced:
            if not self._replace(self._unplaced):
                self._arrange([*self._cached.memories.values()])
            self._unplaced = set()
        if self._uncounted:
            places = [self._places[i] for i in self._uncounted if i in self._places]
            counts = [self.accesses(self._memories[place]).times for place in places]
            self._rows["access_count"][places] = counts
            self._importances.clear()
            self._uncounted = set()

    def _replace(self, changed: set[str]) -> bool:
        """Put what has changed in its place, unless something new belongs before others."""
        memories = self._cached.memories
        self._drop({i for i in changed & self._places.keys() if i not in memories})
        known = changed & self._places.keys()
        last = self._memories[-1].created_revision if self._memories else -1
        new = [memories[i] for i in changed - known if i in memories]
        if any(memory.created_revision <= last for memory in new):
            return False
        new.sort(key=lambda memory: memory.created_revision)
        for memory_id in known:
            place = self._places[memory_id]
            self._memories[place] = memories[memory_id]
            self._rows[place] = self._row(self._memories[place])
        for memory in new:
            self._places[memory.memory_id] = len(self._memories)
            self._memories.append(memory)
        self._rows = np.append(self._rows, np.array([*map(self._row, new)], _ROW))
        self._derive()
        return True

    def _drop(self, memory_ids: set[str]) -> None:
        if not memory_ids:
            return
        self._rows = np.delete(self._rows, [self._places[i] for i in memory_ids])
        self._memories = [m for m in self._memories if m.memory_id not in memory_ids]
        self._places = {memory.memory_id: place for place, memory in enumerate(self._memories)}

    def _arrange(self, memories: list[Memory]) -> None:
        self._memories = memories
        self._places = {memory.memory_id: place for place, memory in enumerate(memories)}
        self._rows = np.array([*map(self._row, memories)], _ROW)
        self._derive()

    def _row(self, memory: Memory) -> tuple[float, int, float, float, int]:
        return (
            memory.importance,
            self.accesses(memory).times,
            memory.created_at.timestamp(),
            NEVER if memory.expires_at is None else memory.expires_at.timestamp(),
            int(memory.semantic_hash, 16),
        )

    def _derive(self) -> None:
        self._importances: dict[float, Importances] = {}
        self._first_expiry = self._rows["expires_at"].min(initial=NEVER).item()

    @property
    def nbytes(self) -> int:
        """About what it takes in bytes, without the memories themselves."""
        index = 0 if self.index is None else self.index.nbytes
        order = 0 if self._order is None else ORDER_BYTES
        return (ARRAY_BYTES + order) * len(self._cached.memories) + self._encoded_bytes + index

    def distances(self, semantic_hash: str) -> NDArray[np.uint8]:
        """Hamming distances of the memories' semantic hashes to this one, in bits."""
        self._place()
        unlike = self._rows["semantic_hash"] ^ np.uint64(int(semantic_hash, 16))
        distances: NDArray[np.uint8] = np.bitwise_count(unlike)
        return distances

    def is_live(self, now: datetime) -> NDArray[np.bool_] | None:
        """Which memories have not expired; None: all of them."""
        self._place()
        moment = now.timestamp()
        if self._first_expiry > moment:
            return None
        live: NDArray[np.bool_] = self._rows["expires_at"] > moment
        return live

    def effective_importance(self, now: datetime, half_life_days: float) -> Floats:
        """`importance.effective_importance` of each memory."""
        self._place()
        known = self._importances.get(half_life_days)
        if known is None:
            rows = self._rows
            known = self._importances[half_life_days] = Importances(
                rows["importance"], rows["created_at"], rows["access_count"], half_life_days
            )
        return known.at(now)

    def accesses(self, memory: Memory) -> Accesses:
        """How often a memory was accessed, and when last."""
        return self._cached.accesses.get(memory.memory_id) or memory.accesses

    def memory(self, place: int) -> Memory:
        """The memory that stands there, with its accesses."""
        memory = self.memories[place]
        times, last = self.accesses(memory)
        return memory._replace(access_count=times, last_accessed=last)

    def encoded(self, place: int) -> Encoded:
        """What a caller is sent of the memory that stands there."""
        return self.encoded_memory(self.memories[place])

    def encoded_memory(self, memory: Memory) -> Encoded:
        """What a caller is sent of a memory, but for what the time bears on."""
        memory_id = memory.memory_id
        known = self._encoded.get(memory_id)
        accessed = self._cached.accesses.get(memory_id)
        if known is not None:
            if known.accessed is accessed:
                return known
            self._encoded_bytes -= known.nbytes
        made = self._encoded[memory_id] = Encoded(
            memory,
            accessed,
            self._encoding.lasting(memory) if known is None else known.lasting,
            self._encoding.accesses(accessed or memory.accesses),
        )
        self._encoded_bytes += made.nbytes
        return made

    def _forget_encoded(self, memory_id: str) -> None:
        self._encoded_bytes -= self._encoded.pop(memory_id).nbytes

    # The index

    @property
    def unindexed(self) -> tuple[int, int]:
        """How many memories the index has to take over, and how many characters they have."""
        unknown = self.memories if self.index is None else map(self._found, self._unindexed)
        lengths = [0 if memory is None else len(memory.content) for memory in unknown]
        return len(lengths), sum(lengths)

    def without_vector(self) -> list[Memory]:
        """The memories whose vectors are neither there nor being made."""
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

    def take_vectors(self, vectors: Mapping[str, tuple[str, Embedding]]) -> None:
        """Have vectors, with their contents' hashes, come into the index with the next update."""
        for memory_id, (content_hash, embedding) in vectors.items():
            self._wanted.pop(memory_id, None)
            memory = self._found(memory_id)
            if (
                self.index is not None
                and not self.is_being_indexed
                and not self._readers
                and memory_id not in self._unindexed
                and memory is not None
                and memory.content_hash == content_hash
            ):
                self.index.set_vector(memory_id, *embedding)
                self._embedded[memory_id] = content_hash
            else:
                self._arrived[memory_id] = content_hash, embedding
                if not self._readers:
                    self._unindexed |= {memory_id} & self.places.keys()

    def documents(self) -> list[Document]:
        """All memories, with the vectors that are there."""
        return [self._document(memory) for memory in self.memories]

    def adopt(self, index: SessionIndex, documents: Iterable[Document]) -> None:
        """Let an index of all memories be the one, built of these documents."""
        self.index, self.is_being_indexed = index, False
        self._embedded = {}
        self._take_over(documents)
        # Vectors that have come meanwhile are next.
        self._unindexed = self._arrived.keys() & self.places.keys()

    def up_to_date_index(self) -> SessionIndex:
        """The index, with all that has changed taken over."""
        assert self.index is not None  # noqa: S101  for the type checker: it has been adopted
        if self._unindexed:
            changed = [memory for memory in map(self._found, self._unindexed) if memory is not None]
            documents = [self._document(memory) for memory in changed]
            removed = [i for i in self._unindexed if i not in self.places]
            self.index.update(documents, removed)
            for memory_id in removed:
                self._embedded.pop(memory_id, None)
                self._arrived.pop(memory_id, None)
            self._unindexed = set()
            self._take_over(documents)
        return self.index

    @contextmanager
    def steady(self) -> Iterator[None]:
        """Let the index be for a thread to read; vectors that come meanwhile are taken over after.

        Memories stay as they are while the session's `refreshing` is held.
        """
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers:
                self._unindexed |= self._arrived.keys() & self.places.keys()

    def _take_over(self, documents: Iterable[Document]) -> None:
        """Note whose vectors the index has by now."""
        for document in documents:
            memory_id = document.memory_id
            if document.vector is None:
                self._embedded.pop(memory_id, None)
                continue
            content_hash = self.memories[self.places[memory_id]].content_hash
            self._embedded[memory_id] = content_hash
            if self._arrived.get(memory_id, ("",))[0] == content_hash:
                del self._arrived[memory_id]

    def _found(self, memory_id: str) -> Memory | None:
        place = self.places.get(memory_id)
        return None if place is None else self.memories[place]

    def _has_vector(self, memory: Memory) -> bool:
        arrived = self._arrived.get(memory.memory_id)
        return memory.content_hash in (
            self._embedded.get(memory.memory_id),
            None if arrived is None else arrived[0],
        )

    def _embedding(self, memory: Memory) -> Embedding | None:
        memory_id = memory.memory_id
        arrived = self._arrived.get(memory_id)
        if arrived is not None and arrived[0] == memory.content_hash:
            return arrived[1]
        if self.index is not None and self._embedded.get(memory_id) == memory.content_hash:
            vector = self.index.vectors[self.index.place(memory_id)].copy()
            return Embedding(vector, self.index.token_vectors(memory_id))
        return None

    def _document(self, memory: Memory) -> Document:
        speaker, episode = memory.metadata.get("speaker"), memory.metadata.get("episode")
        vector, tokens = self._embedding(memory) or (None, None)
        return Document(
            memory.memory_id,
            memory.content,
            memory.created_revision,
            memory.created_at,
            speaker=speaker if _is_name(speaker) else "",
            occurred_at=_moment(memory.metadata.get("occurred_at")),
            episode=episode if isinstance(episode, str) else "",
            vector=vector,
            token_vectors=tokens,
        )


def _is_name(value: object) -> TypeGuard[str]:
    """Whether it is a text as short as names are; others are not ranked by."""
    return isinstance(value, str) and len(value) <= MAX_NAME_CHARACTERS


def _moment(value: object) -> datetime | None:
    """An RFC 3339 time, in UTC where it names no zone; None for what is none, and not ranked by.

    "T" and "Z" may be in lower case, and a second may be 60 (RFC 3339, 5.6): a leap second, which
    ends where the next minute begins.
    """
    if not isinstance(value, str) or len(value) > MAX_MOMENT_CHARACTERS:
        return None
    text, leaps = _LEAP_SECOND.subn(r"\1:59", value.upper())
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return moment + timedelta(seconds=leaps)
    except (ValueError, OverflowError):
        return None
