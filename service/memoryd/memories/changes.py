"""The memories of one transaction.

It reads what matters, applies writes in their order, and writes what came out in a constant number
of statements. The unit of work holds the locks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from memoryd.domain.content import keyed_hash
from memoryd.domain.errors import (
    EtagMismatch,
    InvalidRequest,
    MemoryAlreadyExists,
    MemoryNotDeleted,
    MemoryNotFound,
    RequestIdReused,
    SessionFull,
    Violation,
)
from memoryd.domain.records import (
    Capacity,
    Change,
    Memory,
    MemoryEdit,
    NewMemory,
    Session,
    Stored,
    StoreOutcome,
    Unset,
)
from memoryd.memories import answers, receipts
from memoryd.memories.crowding import Crowding
from memoryd.memories.lookups import lookups_of
from memoryd.memories.reader import Reader
from memoryd.memories.saving import correct_hashes, save_memories
from memoryd.memories.storing import merge_into, new_memory, path_of
from memoryd.memories.versions import restored_values
from memoryd.memories.wanted import Wanted
from memoryd.memories.writes import (
    Delete,
    Expire,
    Outcome,
    Retire,
    Rollback,
    Store,
    Undelete,
    Update,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect, Insertion
    from memoryd.memories.known_sessions import KnownSession
    from memoryd.memories.session_changes import SessionWork
    from memoryd.memories.writes import MemoryWrite, Write

_EDITED = ("content", "content_type", "importance", "metadata", "tags", "expires_at")
"""What a caller may change of a memory."""

KEY_STAYS = (
    "is not the memory's key, which never changes; leave it out of the mask, or store the content"
    " under this key"
)


class _Answered(NamedTuple):
    """A `request_id` with its first answer."""

    fingerprint: str
    """As much of it as is kept."""
    stored: Stored
    is_new: bool

    def is_of(self, item: NewMemory) -> bool:
        """Whether a store is a retry of the one that was answered."""
        return item.fingerprint.startswith(self.fingerprint)


class MemoryChanges:
    """Memories in one transaction."""

    def __init__(
        self,
        connection: Connection,
        dialect: Dialect,
        now: datetime,
        works: Mapping[Session, SessionWork],
        *,
        known: Mapping[Session, KnownSession | None],
        on_unranked: Callable[[Mapping[Session, float]], None],
    ) -> None:
        """`works`: the sessions that are locked. `known`: what they may have; None: unknown.

        `on_unranked` is that of Crowding.
        """
        self._connection = connection
        self._dialect = dialect
        self._now = now
        self._works = works
        self._known = known
        self._lookups = lookups_of(dialect)
        self._reader = Reader(connection, dialect, works)
        self._crowding = Crowding(connection, dialect, now, self._reader, on_unranked=on_unranked)
        self._requests: dict[tuple[Session, str], _Answered] = {}
        self._versions: dict[tuple[Session, str, int], Memory] = {}
        """Earlier ones that were read, by id and revision."""
        self._void: set[tuple[Session, str]] = set()
        """Requests with a receipt that names nothing."""
        self._wrongly_hashed: list[Memory] = []
        """Memories with a key to which an earlier release has given the hash of their content."""

    def open(self, work: SessionWork) -> None:
        """Begin with a session as it was found."""
        self._crowding.open(work)

    def remember(self) -> None:
        """Add to what is known of the sessions; to be called when the transaction is committed."""
        for session, request_id in self._requests:
            if (known := self._known[session]) is not None:
                known.add_request(request_id)
        for session, work in self._works.items():
            if (known := self._known[session]) is not None:
                known.add_held(work.held)

    # Reading

    def load(self, writes: Sequence[Write]) -> None:
        """Read what writes are about. Their sessions are locked."""
        wanted = Wanted(writes, self._known)
        self._reader.take_in(self._lookups.by_id, wanted.ids)
        for tenant, session_id, revision, memory_id, state in self._reader.fetch(
            self._lookups.versions, wanted.versions
        ):
            version = answers.from_state(Session(tenant, session_id), memory_id, state)
            self._versions[version.session, memory_id, revision] = version
        for memory in self._memories_in_question(writes):
            wanted.add_holder(memory)
        self._reader.take_in(self._lookups.by_key, wanted.keys)
        found = self._reader.take_in(self._lookups.by_content, wanted.contents)
        self._wrongly_hashed = [memory for memory in found if memory.key is not None]
        for receipt in receipts.read(self._reader, self._dialect, wanted.requests):
            session, request_id, fingerprint, memory_id, answer, created_at = receipt
            if memory_id is None:
                self._void.add((session, request_id))
                continue
            stored = answers.from_answer(session, memory_id, answer, created_at)
            self._requests[session, request_id] = _Answered(fingerprint, stored, is_new=False)
        self._crowding.read(writes)
        self._reader.measure()

    def _memories_in_question(self, writes: Sequence[Write]) -> Iterator[Memory]:
        """What the rows read may come to be, so that those who hold the same are read too."""
        for write in writes:
            match write:
                case Update(edit):
                    row = self._row(edit.session, edit.memory_id)
                    if row is not None and row.key is None:
                        kind, text_hash = edit.content_type, edit.content_hash
                        yield row._replace(
                            content_type=row.content_type if isinstance(kind, Unset) else kind,
                            content_hash=row.content_hash
                            if isinstance(edit.content, Unset)
                            else text_hash,
                        )
                case Undelete(session, memory_id):
                    row = self._row(session, memory_id)
                    if row is not None:
                        yield row
                case Rollback(session, memory_id, revision):
                    version = self._versions.get((session, memory_id, revision))
                    if version is not None and version.key is None:
                        yield version

    def _row(self, session: Session, memory_id: str) -> Memory | None:
        work = self._works.get(session)
        return None if work is None else work.rows.get(memory_id)

    # Deciding

    def state(self, write: MemoryWrite) -> dict[tuple[Session, str], _Answered] | None:
        """Give what `go_back` needs; None where the write cannot be refused in its middle."""
        if isinstance(write, Store) and len(write.items) > 1:
            return dict(self._requests)
        return None

    def go_back(self, state: dict[tuple[Session, str], _Answered]) -> None:
        """Undo what a refused write has done, but for what its sessions have."""
        self._requests = state

    def apply(self, write: MemoryWrite) -> Outcome:
        """Raises MemorydError where it is refused; a write of several may be half done then."""
        match write:
            case Store(items, capacity):
                self._check_times(items)
                return tuple(self._store(item, capacity) for item in items)
            case Update(edit):
                return self._update(edit)
            case Delete(session, memory_id, etag, key):
                work, memory = (
                    self._live_with(session, key) if key else self._live(session, memory_id)
                )
                _check_etag(memory, etag)
                return work.change(memory, Change.DELETED, deleted_at=self._now)
            case Undelete(session, memory_id, capacity):
                return self._undelete(session, memory_id, capacity)
            case Rollback(session, memory_id, revision):
                return self._rollback(session, memory_id, revision)
            case Expire() | Retire():
                self._tend(write)
                return None

    def _tend(self, write: Expire | Retire) -> None:
        """Do what no caller waits for, if there still is something to do."""
        memory = self._row(write.session, write.memory_id)
        if memory is None:
            return
        work = self._works[write.session]
        match write:
            case Expire() if memory.deleted_at is None:
                work.expire(memory)
            case Retire(_, _, unused_since) if memory.is_unused_since(unused_since, self._now):
                work.change(memory, Change.DELETED, deleted_at=self._now)

    def _check_times(self, items: Sequence[NewMemory]) -> None:
        """Refuse what has expired before it came; a retry is answered all the same."""
        late = [item.late for item in items if item.late is not None and not self._is_retry(item)]
        if late:
            raise InvalidRequest(*late)

    def _is_retry(self, item: NewMemory) -> bool:
        answered = self._requests.get((item.session, item.request_id))
        return answered is not None and answered.is_of(item)

    def _store(self, item: NewMemory, capacity: Capacity) -> Stored:
        if item.request_id:
            answered = self._requests.get((item.session, item.request_id))
            if answered is not None:
                if not answered.is_of(item):
                    raise RequestIdReused(path_of(item, "request_id"))
                return answers.filled(answered.stored, item)._replace(is_again=True)
        work = self._works[item.session]
        item, max_entries = work.with_expiration(item), work.own(capacity).max_entries
        held = work.holder(item.identity)
        replaced = ""
        if held is None:
            memory, outcome = new_memory(work, item, work.revision + 1), StoreOutcome.CREATED
            work.add(memory, max_entries)
        elif held.has_content_of(item):
            memory, outcome = merge_into(work, held, item), StoreOutcome.MERGED
        else:
            # After the revision of its deletion.
            memory, outcome = new_memory(work, item, work.revision + 2), StoreOutcome.REPLACED
            work.replace(held, memory, max_entries)
            replaced = held.memory_id
        evicted = work.evict(max_entries, keep=memory.memory_id)
        stored = Stored(memory, outcome, evicted, replaced)
        if item.request_id:
            self._requests[item.session, item.request_id] = _Answered(
                item.fingerprint, stored, is_new=True
            )
        return stored

    def _update(self, edit: MemoryEdit) -> Memory:
        work, memory = self._live(edit.session, edit.memory_id)
        _check_etag(memory, edit.etag)
        values: dict[str, Any] = {
            name: value for name in _EDITED if not isinstance(value := getattr(edit, name), Unset)
        }
        if not isinstance(edit.key, Unset) and edit.key != (memory.key or ""):
            raise InvalidRequest(Violation("memory.key", KEY_STAYS))
        if not values:
            return memory
        if "content" in values:
            of_content = edit.content_hash
            if memory.key is not None:
                of_content = keyed_hash(memory.key, of_content)
            values |= {"content_hash": of_content, "semantic_hash": edit.semantic_hash}
        return self._changed(work, memory, values)

    def _rollback(self, session: Session, memory_id: str, revision: int) -> Memory:
        work, memory = self._live(session, memory_id)
        version = self._versions.get((session, memory_id, revision))
        # It may be the current one, or have been superseded within this transaction.
        for own in (memory, *work.superseded):
            if (own.memory_id, own.revision) == (memory_id, revision):
                version = own
        values = restored_values(memory, version, revision, self._now)
        return self._changed(work, memory, values)

    def _changed(self, work: SessionWork, memory: Memory, values: dict[str, Any]) -> Memory:
        """Change a memory, unless another one holds what it would be."""
        holder = work.holder(memory._replace(**values).identity)
        if holder is not None and holder.memory_id != memory.memory_id:
            raise MemoryAlreadyExists(holder.memory_id)
        return work.change(memory, Change.UPDATED, updated_at=self._now, **values)

    def _undelete(self, session: Session, memory_id: str, capacity: Capacity) -> Memory:
        memory = self._row(session, memory_id)
        if memory is None or memory.is_expired(self._now):
            raise MemoryNotFound(memory_id)
        if memory.deleted_at is None:
            raise MemoryNotDeleted(memory_id)
        work = self._works[session]
        holder = work.holder(memory.identity)
        if holder is not None:
            raise MemoryAlreadyExists(holder.memory_id, key=memory.key)
        max_entries = work.own(capacity).max_entries
        if work.live_count >= max_entries:
            raise SessionFull(max_entries)
        return work.change(memory, Change.RESTORED, deleted_at=None, updated_at=self._now)

    def _live(self, session: Session, memory_id: str) -> tuple[SessionWork, Memory]:
        work = self._works.get(session)
        memory = None if work is None else work.live(memory_id)
        if work is None or memory is None:
            raise MemoryNotFound(memory_id)
        return work, memory

    def _live_with(self, session: Session, key: str) -> tuple[SessionWork, Memory]:
        work = self._works.get(session)
        memory = None if work is None else work.holder(key)
        if work is None or memory is None:
            raise MemoryNotFound(key, is_key=True)
        return work, memory

    # Writing

    def save(self) -> list[Insertion]:
        """Write what has changed; give the rows that are still to be inserted."""
        correct_hashes(self._connection, self._dialect, self._wrongly_hashed)
        common = {"created_at": self._now, "updated_at": self._now}
        inserted = save_memories(self._connection, self._dialect, self._works, self._now, common)
        new = [
            receipts.row_of_store(*place, answered.fingerprint, answered.stored)
            for place, answered in self._requests.items()
            if answered.is_new
        ]
        if new:
            receipts.void(self._connection, self._dialect, self._void)
            inserted.append(receipts.insertion(new, self._now))
        return inserted

    def save_ranks(self) -> None:
        """Note how far the ranks of sessions are kept by now."""
        self._crowding.save()


def _check_etag(memory: Memory, etag: str) -> None:
    if etag and etag != memory.etag:
        raise EtagMismatch(f"memory {memory.memory_id}")
