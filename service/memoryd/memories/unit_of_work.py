"""Many writes in one transaction: lock the sessions, read what matters, decide in Python, write.

Deciding is the same code for both databases, and sees one session's changes one after the other:
the lock on the session's row keeps other writers out until the commit. Revisions are therefore
given out in commit order. The unique index on live contents stands behind it all the same.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from memoryd.database import statements
from memoryd.database.dialect import Insertion
from memoryd.database.tables import (
    memories,
    memory_history,
    store_requests,
)
from memoryd.domain.errors import (
    EtagMismatch,
    InvalidRequest,
    MemoryAlreadyExists,
    MemorydError,
    MemoryNotDeleted,
    MemoryNotFound,
    RequestIdReused,
    SessionFull,
    Violation,
)
from memoryd.domain.ids import uuid7
from memoryd.domain.metadata import MAX_METADATA_BYTES, json_bytes
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
from memoryd.memories import answers, rows
from memoryd.memories.cached_session import SessionNews
from memoryd.memories.known_sessions import KnownSession, KnownSessions
from memoryd.memories.lookups import Lookup, lookups_of
from memoryd.memories.rows import PRIMARY_KEY
from memoryd.memories.session_changes import SessionWork
from memoryd.memories.writes import (
    Delete,
    Expire,
    Outcome,
    Retire,
    Store,
    Undelete,
    Update,
    Write,
    sessions_of,
    tenant_of,
)
from memoryd.sessions.accounts import open_accounts, open_known, save_accounts
from memoryd.sessions.create import drop_unused, lock_or_create
from memoryd.sessions.lock import SHARD_KEY
from memoryd.sessions.revisions import raise_revisions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect
    from memoryd.domain.quotas import Account, Quotas


MAX_SHRINK = 10_000
"""Memories that one transaction evicts of a session because its limit was lowered, beyond what it
adds. What is over the limit still goes with the next stores."""

_VERSION = (*SHARD_KEY, "revision", "id", "change", "state")
"""Columns of a version in the history."""
_ANSWER = (*SHARD_KEY, "request_id", "memory_id", "fingerprint", "answer")
"""Columns of an answer kept."""


class UnitOfWork:
    """Some writes, applied in their order within one transaction."""

    def __init__(
        self,
        connection: Connection,
        dialect: Dialect,
        now: datetime,
        known: KnownSessions | None = None,
        *,
        quotas_of: Callable[[str], Quotas] | None = None,
    ) -> None:
        """`quotas_of` gives those of a tenant; None: what is done needs none of a quota."""
        self._quotas_of = quotas_of
        self._accounts: Mapping[str, Account] = {}
        self._connection = connection
        self._known_sessions = known or KnownSessions()
        self._dialect = dialect
        self._lookups = lookups_of(dialect)
        self._now = now
        self._work: dict[Session, SessionWork] = {}
        self._requests: dict[tuple[Session, str], _Answered] = {}
        self._known: dict[Session, KnownSession | None] = {}
        """What the sessions may have; None where that is unknown."""
        self._new: set[Session] = set()
        """Sessions that have had no change before."""

    def apply(self, writes: Sequence[Write]) -> list[Outcome | MemorydError]:
        """Apply each write or none of it; answer in their order, an error for what was refused."""
        self._lock(writes)
        self._load(writes)
        outcomes = [self._attempt(write) for write in writes]
        self._save()
        return outcomes

    def remember(self) -> None:
        """Keep what the next plan can use; to be called when this one is committed."""
        for session, request_id in self._requests:
            known = self._known[session]
            if known is not None:
                known.add_request(request_id)
        for session, work in self._work.items():
            known = self._known[session]
            if known is not None:
                known.add_contents(work.live_contents)
                self._known_sessions.put(session, work.revision, known)

    @property
    def changed(self) -> list[Session]:
        """The sessions that have a new revision."""
        return [work.session for work in self._work.values() if work.changed or work.added]

    @property
    def news(self) -> Iterator[SessionNews]:
        """What has become of each of those sessions."""
        for work in self._work.values():
            if work.changed or work.added:
                yield SessionNews(
                    work.session,
                    before=work.revision - len(work.superseded) - len(work.added),
                    revision=work.revision,
                    access_revision=work.found.access_revision,
                    changed=[work.rows[i] for i in work.added | work.changed],
                )

    @property
    def inserted(self) -> int:
        """How many memories are new."""
        return sum(len(work.added) for work in self._work.values())

    # Reading

    def _lock(self, writes: Sequence[Write]) -> None:
        """Lock the sessions, in one order for all, and make those that stores need."""
        wanted = (session for write in writes for session in sessions_of(write))
        storing = {item.session for w in writes if isinstance(w, Store) for item in w.items}
        locked, self._new = lock_or_create(
            self._connection, self._dialect, wanted, storing, self._now
        )
        self._accounts = self._open_accounts({session.tenant for session in locked})
        for session, row in locked.items():
            self._work[session] = SessionWork(
                session,
                row,
                self._now,
                self._accounts.get(session.tenant),
                is_new=session in self._new,
            )
            self._known[session] = (
                KnownSession()
                if session in self._new
                else self._known_sessions.get(session, row.revision)
            )

    def _open_accounts(self, tenants: Iterable[str]) -> Mapping[str, Account]:
        if self._quotas_of is None:
            return open_known(self._connection, self._dialect, tenants)
        limits = {t: limit for t in tenants if any(limit := self._quotas_of(t).stored)}
        return open_accounts(self._connection, self._dialect, limits, self._new, self._now)

    def _load(self, writes: Sequence[Write]) -> None:
        ids: set[tuple[str, str, str]] = set()
        contents: set[tuple[str, str, str, str]] = set()
        requests: set[tuple[str, str, str]] = set()
        for write in writes:
            match write:
                case Store(items):
                    for item in items:
                        known = self._known[item.session]
                        if known is None or known.may_hold(item.content_type, item.content_hash):
                            kind = item.content_type.value
                            contents.add((*item.session, kind, item.content_hash))
                        request_id = item.request_id
                        if request_id and (known is None or known.may_have_answered(request_id)):
                            requests.add((*item.session, request_id))
                case Update(edit):
                    ids.add((*edit.session, edit.memory_id))
                case Delete() | Undelete() | Expire() | Retire():
                    ids.add((*write.session, write.memory_id))
        self._take_in(self._lookups.by_id, ids)
        contents |= self._contents_in_question(writes)
        self._take_in(self._lookups.by_content, contents)
        for row in self._execute(self._lookups.requests, sorted(requests)):
            tenant, session_id, request_id, memory_id, fingerprint, answer, created_at = row
            session = Session(tenant, session_id)
            stored = answers.from_answer(session, memory_id, answer, created_at)
            self._requests[session, request_id] = _Answered(fingerprint, stored, is_new=False)
        self._count_and_rank(writes)
        self._measure()

    def _measure(self) -> None:
        """Learn what the rows that were read take of the accounts of their tenants."""
        ids = [
            (*session, memory_id)
            for session, work in self._work.items()
            if work.account is not None
            for memory_id in work.rows
        ]
        for tenant, session_id, memory_id, size in self._execute(self._lookups.sizes, sorted(ids)):
            self._work[Session(tenant, session_id)].sizes[memory_id] = size

    def _contents_in_question(self, writes: Sequence[Write]) -> set[tuple[str, str, str, str]]:
        """Contents that the rows read may come to hold, so that their holders are read too."""
        contents: set[tuple[str, str, str, str]] = set()
        for write in writes:
            match write:
                case Update(edit):
                    row = self._row(edit.session, edit.memory_id)
                    if row is not None:
                        kind = (
                            row.content_type
                            if isinstance(edit.content_type, Unset)
                            else edit.content_type
                        )
                        text_hash = (
                            row.content_hash
                            if isinstance(edit.content, Unset)
                            else edit.content_hash
                        )
                        contents.add((*edit.session, kind.value, text_hash))
                case Undelete(session, memory_id):
                    row = self._row(session, memory_id)
                    if row is not None:
                        contents.add((*session, row.content_type.value, row.content_hash))
        return contents

    def _count_and_rank(self, writes: Sequence[Write]) -> None:
        """Count live memories where a write adds some, and read those that may have to go."""
        adding: defaultdict[Session, int] = defaultdict(int)
        capacities: dict[Session, Capacity] = {}
        for write in writes:
            match write:
                case Store(items, capacity):
                    for item in items:
                        adding[item.session] += 1
                        capacities[item.session] = _tighter(capacities.get(item.session), capacity)
                case Undelete(session, _, capacity) if session in self._work:
                    adding[session] += 1
                    capacities[session] = _tighter(capacities.get(session), capacity)
        self._count(adding)
        limits = {s: self._work[s].max_entries(capacity) for s, capacity in capacities.items()}
        full = {
            session
            for session, count in adding.items()
            if self._work[session].live_count + count > limits[session]
        }
        # Of what is kept, some may have expired.
        for tenant, session_id, count in self._execute(
            self._lookups.overdue_counts, sorted(full), now=self._now
        ):
            self._work[Session(tenant, session_id)].live_count -= count
        crowded: dict[Session, int] = {}
        for session in full:
            over = self._work[session].live_count + adding[session] - limits[session]
            over = min(over, adding[session] + MAX_SHRINK)
            if over > 0:
                # Rows read before may be changed and so outrank what they were; read as many more.
                crowded[session] = over + adding[session] + len(self._work[session].rows)
        half_lives = {capacity.half_life_days for capacity in capacities.values()}
        for half_life_days in half_lives:
            keys = [
                (*s, n)
                for s, n in sorted(crowded.items())
                if capacities[s].half_life_days == half_life_days
            ]
            self._take_in(
                self._lookups.least_important, keys, now=self._now, half_life_days=half_life_days
            )
        for session in crowded:
            self._work[session].rank_for_eviction(capacities[session].half_life_days)

    def _count(self, sessions: Iterable[Session]) -> None:
        """Count what is kept where the row does not say; of what is live, it is an upper bound."""
        unknown = [session for session in sessions if self._work[session].kept_count is None]
        for tenant, session_id, count in self._execute(self._lookups.kept_counts, sorted(unknown)):
            work = self._work[Session(tenant, session_id)]
            work.live_count = work.kept_count = count

    def _take_in(
        self, statement: Lookup, keys: Iterable[tuple[Any, ...]], **parameters: Any
    ) -> None:
        loaded: defaultdict[Session, list[Memory]] = defaultdict(list)
        for row in self._execute(statement, sorted(keys), **parameters):
            memory = rows.memory_of(row)
            loaded[memory.session].append(memory)
        for session, found in loaded.items():
            self._work[session].load(found)

    def _execute(
        self, statement: Lookup, keys: Sequence[tuple[Any, ...]], **parameters: Any
    ) -> Any:
        if not keys:
            return ()
        bound = self._dialect.bind(statement.columns, keys)
        return statements.fetch(self._connection, statement.select, {**bound, **parameters})

    def _row(self, session: Session, memory_id: str) -> Memory | None:
        work = self._work.get(session)
        return None if work is None else work.rows.get(memory_id)

    # Deciding

    def _attempt(self, write: Write) -> Outcome | MemorydError:
        before = None
        if isinstance(write, Store) and len(write.items) > 1:
            account = self._accounts.get(tenant_of(write))
            before = (
                {session: self._work[session].copy() for session in set(sessions_of(write))},
                dict(self._requests),
                None if account is None else account.used,
            )
        try:
            return self._decide(write)
        except MemorydError as error:
            if before is not None:
                self._work.update(before[0])
                self._requests = before[1]
                if account is not None and before[2] is not None:
                    account.used = before[2]
            return error

    def _decide(self, write: Write) -> Outcome:
        match write:
            case Store(items, capacity):
                self._check_times(items)
                return tuple(self._store(item, capacity) for item in items)
            case Update(edit):
                return self._update(edit)
            case Delete(session, memory_id, etag):
                work, memory = self._live(session, memory_id)
                _check_etag(memory, etag)
                return work.change(memory, Change.DELETED, deleted_at=self._now)
            case Undelete(session, memory_id, capacity):
                return self._undelete(session, memory_id, capacity)
            case Expire() | Retire():
                self._tend(write)
                return None

    def _tend(self, write: Expire | Retire) -> None:
        """Do what no caller waits for, if there still is something to do."""
        memory = self._row(write.session, write.memory_id)
        if memory is None:
            return
        work = self._work[write.session]
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
        return answered is not None and answered.fingerprint == item.fingerprint

    def _store(self, item: NewMemory, capacity: Capacity) -> Stored:
        if item.request_id:
            answered = self._requests.get((item.session, item.request_id))
            if answered is not None:
                if answered.fingerprint != item.fingerprint:
                    raise RequestIdReused(_path(item, "request_id"))
                return answers.filled(answered.stored, item)
        work = self._work[item.session]
        item, max_entries = work.with_expiration(item), work.max_entries(capacity)
        held = work.holder(item.content_type, item.content_hash)
        if held is None:
            memory, outcome = self._new_row(item, work.revision + 1), StoreOutcome.CREATED
            work.add(memory, max_entries)
        else:
            memory, outcome = self._merge(work, held, item), StoreOutcome.MERGED
        stored = Stored(memory, outcome, work.evict(max_entries, keep=memory.memory_id))
        if item.request_id:
            self._requests[item.session, item.request_id] = _Answered(
                item.fingerprint, stored, is_new=True
            )
        return stored

    def _new_row(self, item: NewMemory, revision: int) -> Memory:
        return Memory(
            session=item.session,
            memory_id=uuid7(self._now),
            content=item.content,
            content_type=item.content_type,
            importance=item.importance,
            metadata=item.metadata,
            content_hash=item.content_hash,
            semantic_hash=item.semantic_hash,
            created_at=self._now,
            updated_at=self._now,
            expires_at=item.expires_at,
            revision=revision,
            created_revision=revision,
        )

    def _merge(self, work: SessionWork, held: Memory, item: NewMemory) -> Memory:
        metadata = {**held.metadata, **item.metadata}
        size = json_bytes(metadata)
        if size > MAX_METADATA_BYTES:
            raise InvalidRequest(
                Violation(
                    _path(item, "metadata"),
                    f"merged with what memory {held.memory_id} has it would be {size:,} bytes as"
                    f" JSON, over {MAX_METADATA_BYTES:,}; send fewer keys, or update that memory",
                )
            )
        expirations = (held.expires_at, item.expires_at)
        return work.change(
            held,
            Change.UPDATED,
            importance=max(held.importance, item.importance),
            metadata=metadata,
            expires_at=None if None in expirations else max(filter(None, expirations)),
            updated_at=self._now,
        )

    def _update(self, edit: MemoryEdit) -> Memory:
        work, memory = self._live(edit.session, edit.memory_id)
        _check_etag(memory, edit.etag)
        values: dict[str, Any] = {
            name: value
            for name in ("content", "content_type", "importance", "metadata", "expires_at")
            if not isinstance(value := getattr(edit, name), Unset)
        }
        if not values:
            return memory
        if "content" in values:
            values |= {"content_hash": edit.content_hash, "semantic_hash": edit.semantic_hash}
        holder = work.holder(
            values.get("content_type", memory.content_type),
            values.get("content_hash", memory.content_hash),
        )
        if holder is not None and holder.memory_id != memory.memory_id:
            raise MemoryAlreadyExists(holder.memory_id)
        return work.change(memory, Change.UPDATED, updated_at=self._now, **values)

    def _undelete(self, session: Session, memory_id: str, capacity: Capacity) -> Memory:
        memory = self._row(session, memory_id)
        if memory is None or memory.is_expired(self._now):
            raise MemoryNotFound(memory_id)
        if memory.deleted_at is None:
            raise MemoryNotDeleted(memory_id)
        work = self._work[session]
        holder = work.holder(memory.content_type, memory.content_hash)
        if holder is not None:
            raise MemoryAlreadyExists(holder.memory_id)
        max_entries = work.max_entries(capacity)
        if work.live_count >= max_entries:
            raise SessionFull(max_entries)
        return work.change(memory, Change.RESTORED, deleted_at=None, updated_at=self._now)

    def _live(self, session: Session, memory_id: str) -> tuple[SessionWork, Memory]:
        work = self._work.get(session)
        memory = None if work is None else work.live(memory_id)
        if work is None or memory is None:
            raise MemoryNotFound(memory_id)
        return work, memory

    # Writing

    def _save(self) -> None:
        updated: list[dict[str, Any]] = []
        added: list[Memory] = []
        for work in self._work.values():
            updated += [rows.changed_columns(work.rows[i]) for i in work.changed]
            added += [work.rows[i] for i in work.added]
        # What leaves the live rows does so before what takes its place.
        updated.sort(key=lambda row: row["deleted_at"] is None)
        requests = [
            (
                *(*session, request_id),
                answered.stored.memory.memory_id,
                answered.fingerprint,
                answers.to_answer(answered.stored),
            )
            for (session, request_id), answered in self._requests.items()
            if answered.is_new
        ]
        superseded = [
            (
                *(*memory.session, memory.revision, memory.memory_id, memory.change.value),
                answers.to_state(memory),
            )
            for work in self._work.values()
            for memory in work.superseded
        ]
        if updated:
            self._dialect.update_many(self._connection, memories, PRIMARY_KEY, updated)
        inserted: list[Insertion] = []
        if superseded:
            versions = _columns(_VERSION, superseded)
            inserted.append(Insertion(memory_history, versions, {"recorded_at": self._now}))
        if added:
            common, columns = self._common(), rows.inserted(added)
            varying = {name: columns[name] for name in columns if name not in common}
            inserted.append(Insertion(memories, varying, common))
        if requests:
            answered = _columns(_ANSWER, requests)
            inserted.append(Insertion(store_requests, answered, {"created_at": self._now}))
        self._save_sessions(inserted)

    def _common(self) -> dict[str, Any]:
        """What all rows have that are added."""
        return {"created_at": self._now, "updated_at": self._now}

    def _save_sessions(self, inserted: Sequence[Insertion]) -> None:
        changed = {session: self._work[session].totals for session in self.changed}
        raise_revisions(self._connection, self._dialect, changed, self._now, inserted)
        save_accounts(self._connection, self._dialect, self._accounts.values())
        unused = self._new - changed.keys()
        drop_unused(self._connection, self._dialect, unused)


class _Answered(NamedTuple):
    """A `request_id` with its first answer."""

    fingerprint: str
    stored: Stored
    is_new: bool


def _columns(names: tuple[str, ...], records: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    return dict(zip(names, zip(*records, strict=True), strict=True))


def _tighter(one: Capacity | None, other: Capacity) -> Capacity:
    """The settings may change between two writes; the lower limit says how many may have to go."""
    return one if one is not None and one.max_entries < other.max_entries else other


def _check_etag(memory: Memory, etag: str) -> None:
    if etag and etag != memory.etag:
        raise EtagMismatch(f"memory {memory.memory_id}")


def _path(item: NewMemory, field: str) -> str:
    return f"{item.field}.{field}" if item.field else field
