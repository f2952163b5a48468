"""Many writes in one transaction: lock the sessions, read what matters, decide in Python, write.

Deciding is the same code for both databases, and sees one session's changes one after the other:
the lock on the session's row keeps other writers out until the commit. Revisions are therefore
given out in commit order. The unique index on live contents stands behind it all the same.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from memoryd.database import tag_rows
from memoryd.database.dialect import Insertion, columns_of
from memoryd.database.tables import (
    memories,
    memory_history,
    store_requests,
)
from memoryd.documents.changes import DocumentChanges
from memoryd.documents.writes import (
    ExpireDocument,
    MoveDocuments,
    RefreshDocuments,
    WriteDocuments,
)
from memoryd.domain.content import keyed_hash
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
from memoryd.domain.tags import MAX_TAGS, as_tags
from memoryd.memories import answers, eviction, lookups, rows
from memoryd.memories.cached_session import SessionNews
from memoryd.memories.eviction import Ranking
from memoryd.memories.known_sessions import KnownSession, KnownSessions
from memoryd.memories.lookups import Lookup, lookups_of
from memoryd.memories.rows import PRIMARY_KEY
from memoryd.memories.session_changes import SessionWork
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
    Write,
    sessions_of,
    tenant_of,
)
from memoryd.sessions.accounts import open_accounts, open_known, save_accounts
from memoryd.sessions.create import drop_unused, lock_or_create
from memoryd.sessions.lock import SHARD_KEY, LockedSession
from memoryd.sessions.revisions import raise_revisions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect
    from memoryd.documents.writes import DocumentWrite
    from memoryd.domain.quotas import Account, Quotas
    from memoryd.memories.writes import MemoryWrite


MAX_SHRINK = 10_000
"""Memories that one transaction evicts of a session because its limit was lowered, beyond what it
adds. What is over the limit still goes with the next stores."""

_VERSION = (*SHARD_KEY, "revision", "id", "change", "state")
"""Columns of a version in the history."""
_EDITED = ("content", "content_type", "importance", "metadata", "tags", "expires_at")
"""What a caller may change of a memory."""

KEY_STAYS = (
    "is not the memory's key, which never changes; leave it out of the mask, or store the content"
    " under this key"
)

_ANSWER = (*SHARD_KEY, "request_id", "memory_id", "fingerprint", "answer")
"""Columns of an answer kept."""

_OF_DOCUMENTS = (WriteDocuments, ExpireDocument, RefreshDocuments, MoveDocuments)


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
        on_unranked: Callable[[Mapping[Session, float]], None] = lambda _: None,
    ) -> None:
        """`quotas_of` gives those of a tenant; None: what is done needs none of a quota.

        `on_unranked` is called with sessions that many memories have no rank of, and with the
        half-life of their ranks; what comes of this transaction does not matter to it.
        """
        self._on_unranked = on_unranked
        self._quotas_of = quotas_of
        self._accounts: Mapping[str, Account] = {}
        self._connection = connection
        self._known_sessions = known or KnownSessions()
        self._dialect = dialect
        self._lookups = lookups_of(dialect)
        self._now = now
        self._work: dict[Session, SessionWork] = {}
        self._requests: dict[tuple[Session, str], _Answered] = {}
        self._versions: dict[tuple[Session, str, int], Memory] = {}
        """Earlier ones that were read, by id and revision."""
        self._wrongly_hashed: list[Memory] = []
        """Memories with a key to which an earlier release has given the hash of their content."""
        self._known: dict[Session, KnownSession | None] = {}
        """What the sessions may have; None where that is unknown."""
        self._ranking = Ranking(connection, dialect, now)
        self._new: set[Session] = set()
        """Sessions that have had no change before."""
        self._documents: DocumentChanges | None = None
        """None where no write is about documents."""

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
                known.add_held(work.held)
                self._known_sessions.put(session, work.revision, known)

    @property
    def changed(self) -> list[Session]:
        """The sessions that have a new revision."""
        return [work.session for work in self._work.values() if work.has_changed]

    @property
    def news(self) -> Iterator[SessionNews]:
        """What has become of each of those sessions."""
        for work in self._work.values():
            if work.has_changed:
                yield SessionNews(
                    work.session,
                    before=work.found.revision,
                    revision=work.revision,
                    access_revision=work.found.access_revision,
                    changed=[work.rows[i] for i in work.added | work.changed],
                )

    @property
    def inserted(self) -> int:
        """How many memories and documents are new."""
        of_documents = 0 if self._documents is None else self._documents.inserted
        return of_documents + sum(len(work.added) for work in self._work.values())

    # Reading

    def _lock(self, writes: Sequence[Write]) -> None:
        """Lock the sessions, in one order for all, and make those that stores need."""
        wanted = (session for write in writes for session in sessions_of(write))
        storing = {item.session for w in writes if isinstance(w, Store) for item in w.items}
        of_documents = [write for write in writes if isinstance(write, _OF_DOCUMENTS)]
        storing |= {write.session for write in of_documents if write.makes_session}
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
            self._ranking.open(self._work[session])
            self._known[session] = (
                KnownSession()
                if session in self._new
                else self._known_sessions.get(session, row.revision)
            )
        if of_documents := [write for write in of_documents if write.session in locked]:
            self._begin_documents(of_documents)

    def _begin_documents(self, writes: Sequence[DocumentWrite]) -> None:
        self._documents = DocumentChanges(self._connection, self._dialect, self._now)
        self._documents.load(writes)

    def _open_accounts(self, tenants: Iterable[str]) -> Mapping[str, Account]:
        if self._quotas_of is None:
            return open_known(self._connection, self._dialect, tenants)
        limits = {t: limit for t in tenants if any(limit := self._quotas_of(t).stored)}
        return open_accounts(self._connection, self._dialect, limits, self._new, self._now)

    def _load(self, writes: Sequence[Write]) -> None:
        wanted = Wanted(writes, self._known)
        self._take_in(self._lookups.by_id, wanted.ids)
        for tenant, session_id, revision, memory_id, state in self._execute(
            self._lookups.versions, sorted(wanted.versions)
        ):
            version = answers.from_state(Session(tenant, session_id), memory_id, state)
            self._versions[version.session, memory_id, revision] = version
        for memory in self._memories_in_question(writes):
            wanted.add_holder(memory)
        self._take_in(self._lookups.by_key, wanted.keys)
        found = self._take_in(self._lookups.by_content, wanted.contents)
        self._wrongly_hashed = [memory for memory in found if memory.key is not None]
        for row in self._execute(self._lookups.requests, sorted(wanted.requests)):
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
        capacities = {s: self._work[s].own(capacity) for s, capacity in capacities.items()}
        works = [self._work[session] for session in adding]
        self._on_unranked(self._ranking.catch_up(works, capacities, adding))
        crowded = self._crowded(adding, capacities)
        unranked: defaultdict[float, list[tuple[str, str, int]]] = defaultdict(list)
        for session, least in sorted(crowded.items()):
            work = self._work[session]
            if work.is_ranked:
                work.load(self._ranking.least(work, least))
            else:
                unranked[capacities[session].half_life_days].append((*session, least))
        for half_life_days, keys in unranked.items():
            self._take_in(
                self._lookups.least_important, keys, now=self._now, half_life_days=half_life_days
            )
        for session in crowded:
            self._work[session].rank_for_eviction(capacities[session].half_life_days)

    def _crowded(
        self, adding: Mapping[Session, int], capacities: Mapping[Session, Capacity]
    ) -> dict[Session, int]:
        """How many memories have to be looked at in sessions out of which some may have to go."""
        full = {
            session
            for session, count in adding.items()
            if self._work[session].live_count + count > capacities[session].max_entries
        }
        # Of what is kept, some may have expired.
        for tenant, session_id, count in self._execute(
            self._lookups.overdue_counts, sorted(full), now=self._now
        ):
            self._work[Session(tenant, session_id)].live_count -= count
        crowded: dict[Session, int] = {}
        for session in full:
            work = self._work[session]
            over = work.live_count + adding[session] - capacities[session].max_entries
            over = min(over, adding[session] + MAX_SHRINK)
            if over > 0:
                # Rows read before may be changed and so outrank what they were; read as many more.
                crowded[session] = over + adding[session] + len(work.rows)
        return crowded

    def _count(self, sessions: Iterable[Session]) -> None:
        """Count what is kept where the row does not say; of what is live, it is an upper bound."""
        unknown = [session for session in sessions if self._work[session].kept_count is None]
        for tenant, session_id, count in self._execute(self._lookups.kept_counts, sorted(unknown)):
            work = self._work[Session(tenant, session_id)]
            work.live_count = work.kept_count = count

    def _take_in(
        self, statement: Lookup, keys: Iterable[tuple[Any, ...]], **parameters: Any
    ) -> list[Memory]:
        found = [*map(rows.memory_of, self._execute(statement, sorted(keys), **parameters))]
        loaded: defaultdict[Session, list[Memory]] = defaultdict(list)
        for memory in found:
            loaded[memory.session].append(memory)
        for session, of_session in loaded.items():
            self._work[session].load(of_session)
        return found

    def _execute(
        self, statement: Lookup, keys: Sequence[tuple[Any, ...]], **parameters: Any
    ) -> Any:
        return lookups.fetch(self._connection, self._dialect, statement, keys, **parameters)

    def _row(self, session: Session, memory_id: str) -> Memory | None:
        work = self._work.get(session)
        return None if work is None else work.rows.get(memory_id)

    # Deciding

    def _attempt(self, write: Write) -> Outcome | MemorydError:
        if isinstance(write, _OF_DOCUMENTS):
            return self._attempt_documents(write)
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

    def _attempt_documents(self, write: DocumentWrite) -> Outcome | MemorydError:
        work = self._work.get(write.session)
        changes = self._documents
        if work is None or changes is None:
            changes, work = _nothing_there(self._connection, self._dialect, self._now, write)
        account = work.account
        used = None if account is None else account.used
        before = changes.state(write)
        twin = None if before is None else work.copy()
        try:
            return changes.apply(write, work)
        except MemorydError as error:
            if before is not None and twin is not None:
                changes.go_back(before)
                self._work[write.session] = twin
                if account is not None and used is not None:
                    account.used = used
            return error

    def _decide(self, write: MemoryWrite) -> Outcome:
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
        item, max_entries = work.with_expiration(item), work.own(capacity).max_entries
        held = work.holder(item.identity)
        replaced = ""
        if held is None:
            memory, outcome = self._new_row(item, work.revision + 1), StoreOutcome.CREATED
            work.add(memory, max_entries)
        elif held.has_content_of(item):
            memory, outcome = self._merge(work, held, item), StoreOutcome.MERGED
        else:
            # After the revision of its deletion.
            memory, outcome = self._new_row(item, work.revision + 2), StoreOutcome.REPLACED
            work.replace(held, memory, max_entries)
            replaced = held.memory_id
        evicted = work.evict(max_entries, keep=memory.memory_id)
        stored = Stored(memory, outcome, evicted, replaced)
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
            key=item.key,
            tags=item.tags,
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
        tags = held.tags
        if item.tags:
            tags = as_tags((*held.tags, *item.tags))
            if len(tags) > MAX_TAGS:
                raise InvalidRequest(
                    Violation(
                        _path(item, "tags"),
                        f"merged with what memory {held.memory_id} has they would be {len(tags)},"
                        f" over {MAX_TAGS}; send fewer, or update that memory",
                    )
                )
        expirations = (held.expires_at, item.expires_at)
        return work.change(
            held,
            Change.UPDATED,
            importance=max(held.importance, item.importance),
            metadata=metadata,
            tags=tags,
            expires_at=None if None in expirations else max(filter(None, expirations)),
            updated_at=self._now,
        )

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
        work = self._work[session]
        holder = work.holder(memory.identity)
        if holder is not None:
            raise MemoryAlreadyExists(holder.memory_id, key=memory.key)
        max_entries = work.own(capacity).max_entries
        if work.live_count >= max_entries:
            raise SessionFull(max_entries)
        return work.change(memory, Change.RESTORED, deleted_at=None, updated_at=self._now)

    def _live(self, session: Session, memory_id: str) -> tuple[SessionWork, Memory]:
        work = self._work.get(session)
        memory = None if work is None else work.live(memory_id)
        if work is None or memory is None:
            raise MemoryNotFound(memory_id)
        return work, memory

    def _live_with(self, session: Session, key: str) -> tuple[SessionWork, Memory]:
        work = self._work.get(session)
        memory = None if work is None else work.holder(key)
        if work is None or memory is None:
            raise MemoryNotFound(key, is_key=True)
        return work, memory

    # Writing

    def _save(self) -> None:
        changed: list[Memory] = []
        added: list[Memory] = []
        for work in self._work.values():
            changed += [work.rows[i] for i in work.changed]
            added += [work.rows[i] for i in work.added]
        self._correct_hashes()
        retagged = self._retagged()
        as_row = rows.changed_columns_and_tags if retagged else rows.changed_columns
        updated = [as_row(memory) for memory in changed]
        ranks_of = eviction.rank_columns(self._work)
        if ranks_of is not None:
            updated = [{**row, **ranks_of(m)} for row, m in zip(updated, changed, strict=True)]
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
            if ranks_of is not None:
                varying |= columns_of([*map(ranks_of, added)])
            inserted.append(Insertion(memories, varying, common))
        tagged: list[tuple[Memory, Iterable[str]]] = [(m, m.tags) for m in added if m.tags]
        tagged += [(after, {*after.tags} - {*before.tags}) for before, after in retagged]
        if (tag_insertion := tag_rows.insertion(tagged)) is not None:
            inserted.append(tag_insertion)
        if requests:
            answered = _columns(_ANSWER, requests)
            inserted.append(Insertion(store_requests, answered, {"created_at": self._now}))
        if self._documents is not None:
            inserted += self._documents.save()
        self._save_sessions(inserted)

    def _correct_hashes(self) -> None:
        """Give memories with a key the hash that blocks no content of others."""
        if self._wrongly_hashed:
            right = [
                {**m.session._asdict(), "id": m.memory_id, "content_hash": m.content_hash}
                for m in self._wrongly_hashed
            ]
            self._dialect.update_many(self._connection, memories, PRIMARY_KEY, right)

    def _retagged(self) -> list[tuple[Memory, Memory]]:
        """Memories that were there and have other tags now, as they were and are; without rows."""
        retagged: list[tuple[Memory, Memory]] = []
        for work in self._work.values():
            # Of those with several versions the first is the one that the database has.
            found = {m.memory_id: m for m in reversed(work.superseded)}
            retagged += [
                (found[i], work.rows[i])
                for i in work.changed
                if [*found[i].tags] != [*work.rows[i].tags]
            ]
        gone = [(before, {*before.tags} - {*after.tags}) for before, after in retagged]
        tag_rows.remove(self._connection, self._dialect, gone)
        return retagged

    def _common(self) -> dict[str, Any]:
        """What all rows have that are added."""
        return {"created_at": self._now, "updated_at": self._now}

    def _save_sessions(self, inserted: Sequence[Insertion]) -> None:
        documents = self._documents
        changed = {
            session: self._work[session].totals(
                0 if documents is None else documents.count_change(session)
            )
            for session in self.changed
        }
        if changed:
            raise_revisions(self._connection, self._dialect, changed, self._now, inserted)
        else:  # such as the request id of a batch that found nothing to delete
            for insertion in inserted:
                self._dialect.insert_many(self._connection, *insertion)
        self._ranking.save(self._work.values())
        save_accounts(self._connection, self._dialect, self._accounts.values())
        unused = self._new - changed.keys()
        drop_unused(self._connection, self._dialect, unused)


def _nothing_there(
    connection: Connection, dialect: Dialect, now: datetime, write: DocumentWrite
) -> tuple[DocumentChanges, SessionWork]:
    """What a write finds in a session that does not exist."""
    changes = DocumentChanges(connection, dialect, now)
    changes.load([write])
    return changes, SessionWork(write.session, LockedSession(0, 0, 0), now)


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
