"""MemoryService as dicts and lists: what each call must answer, written from the contract.

Nothing here depends on the implementation. What the service is free to choose (ids, etags, which of
equally important memories it evicts, the order of a sweep) is taken from its answers, after a check
that the choice is allowed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from tests.plain_conditions import message_matches

from memoryd.v1 import memory_pb2 as pb

NEAR = 1e-9
"""The difference up to which effective importances count as equal."""

MAX_METADATA_BYTES = 16_384
DEFAULT_PAGE, MAX_PAGE = 50, 1000
DEFAULT_RESULTS, MAX_RESULTS = 10, 100
DEFAULT_DISTANCE = 10
MAX_SAMPLE = 20

CREATED, UPDATED, DELETED, RESTORED, EXPIRED, PURGED = (
    pb.MEMORY_CHANGE_CREATED,
    pb.MEMORY_CHANGE_UPDATED,
    pb.MEMORY_CHANGE_DELETED,
    pb.MEMORY_CHANGE_RESTORED,
    pb.MEMORY_CHANGE_EXPIRED,
    pb.MEMORY_CHANGE_PURGED,
)

ALWAYS = datetime.min.replace(tzinfo=UTC)

Metadata = Mapping[str, Any]
Identity = str | tuple[int, str]
"""A key, or a type and the hash of a content."""


@dataclass(frozen=True)
class Limits:
    """The configured limits."""

    max_entries: int
    default_ttl: timedelta
    cleanup: timedelta
    importance_threshold: float
    half_life_days: float
    deleted_retention: timedelta
    kept_for_retries: timedelta
    kept_history: timedelta


@dataclass(frozen=True)
class Refusal:
    """The error of a refused call."""

    code: str
    reason: str
    resource: str = ""
    """The memory's id in ResourceInfo."""
    fields: tuple[str, ...] = ()
    """The fields in BadRequest, sorted."""


@dataclass(frozen=True)
class Row:
    """One memory, live or not."""

    session_id: str
    memory_id: str
    content: str
    content_type: int
    importance: float
    metadata: Metadata
    create_time: datetime
    update_time: datetime
    expire_time: datetime | None
    revision: int
    created_revision: int
    delete_time: datetime | None = None
    access_count: int = 0
    last_access_time: datetime | None = None
    key: str = ""
    tags: tuple[str, ...] = ()

    @property
    def identity(self) -> Identity:
        """What no two live memories of a session share."""
        return identity(self.key, self.content_type, self.content)

    def is_expired(self, now: datetime) -> bool:
        return self.expire_time is not None and self.expire_time <= now

    def is_live(self, now: datetime) -> bool:
        return self.delete_time is None and not self.is_expired(now)

    def message(self) -> pb.Memory:
        """The memory without etag and effective importance, which only the service knows."""
        message = pb.Memory(
            session_id=self.session_id,
            memory_id=self.memory_id,
            content=self.content,
            content_type=pb.ContentType.ValueType(self.content_type),
            importance=self.importance,
            content_hash=content_hash(self.content),
            semantic_hash=f"{simhash(self.content):016x}",
            access_count=self.access_count,
            create_time=self.create_time,
            update_time=self.update_time,
            delete_time=self.delete_time,
            expire_time=self.expire_time,
            last_access_time=self.last_access_time,
            revision=self.revision,
            key=self.key,
            tags=self.tags,
        )
        if self.metadata:
            message.metadata.update(self.metadata)
        return message


@dataclass(frozen=True)
class Event:
    """One change, as a watcher receives it."""

    revision: int
    change: int
    memory_id: str
    row: Row | None
    """The memory after the change."""
    at: datetime


@dataclass(frozen=True)
class FirstAnswer:
    """The first answer to a `request_id`."""

    arguments: bytes
    answer: Any
    """Of a store, or of a merge of sessions."""
    at: datetime


@dataclass(frozen=True)
class Settings:
    """What is set for a session; None: nothing."""

    display_name: str | None = None
    memory_limit: int | None = None
    memory_ttl: timedelta | None = None
    never_expire: bool | None = None


@dataclass
class Session:
    """One session from its first memory to its erasure."""

    revision: int = 0
    rows: dict[str, Row] = field(default_factory=dict)
    """In creation order."""
    requests: dict[str, FirstAnswer] = field(default_factory=dict)
    settings: Settings = Settings()
    events: list[Event] = field(default_factory=list)
    purged: set[str] = field(default_factory=set)
    horizon: int = 0
    """Purges up to this revision may be gone from the history."""
    history_from: datetime = ALWAYS
    """Versions superseded before this time are gone from the history."""

    def versions(self, memory_id: str) -> list[tuple[int, Row]]:
        """The versions of a memory that are kept, newest first, each with its change."""
        found: list[tuple[int, Row]] = []
        superseded_at: datetime | None = None
        for event in reversed(self.events):
            if event.memory_id == memory_id and event.row is not None:
                if superseded_at is None or superseded_at >= self.history_from:
                    found.append((event.change, event.row))
                superseded_at = event.at
        return found

    def present(self, until: int | None = None) -> dict[str, Row]:
        """The memories that a watcher knows after all changes, or those up to a revision."""
        found: dict[str, Row] = {}
        for event in self.events:
            if until is not None and event.revision > until:
                break
            if event.change in (DELETED, EXPIRED, PURGED):
                found.pop(event.memory_id, None)
            else:
                assert event.row is not None
                found[event.memory_id] = event.row
        return found


# Pure functions of the contract


def sanitise(text: str) -> str:
    """Sanitise a text without markup."""
    return re.sub(r"[ \t]+", " ", text).strip()


def normalise(content: str) -> str:
    words = re.sub(r"\s+", " ", content.lower()).strip()
    return re.sub(r"[.,!?;:]+\Z", "", words)


def content_hash(content: str) -> str:
    return hashlib.sha256(normalise(content).encode()).hexdigest()


def identity(key: str, content_type: int, content: str) -> Identity:
    return key or (content_type, content_hash(content))


def simhash(content: str) -> int:
    sums = [0] * 64
    for token in filter(None, normalise(content).split(" ")):
        digest = hashlib.sha256(token.encode()).digest()
        for bit in range(64):
            sums[bit] += 1 if digest[bit // 8] >> bit % 8 & 1 else -1
    return sum(2**bit for bit in range(64) if sums[bit] > 0)


def json_of(value: object) -> str:
    """The same text for equal JSON values; numbers are those of a Struct."""
    struct = Struct()
    struct.update({"": value})
    return json.dumps(MessageToDict(struct), sort_keys=True)


def json_bytes(metadata: Metadata) -> int:
    return len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode())


def arguments_of(request: pb.StoreMemoryRequest) -> bytes:
    arguments = pb.StoreMemoryRequest()
    arguments.CopyFrom(request)
    arguments.ClearField("request_id")
    return arguments.SerializeToString(deterministic=True)


def plain(struct: Struct) -> dict[str, Any]:
    return MessageToDict(struct)


class Model:
    """All sessions. Each method takes a request and the service's answer, and checks it.

    Call `refusal` first: it says whether a request must be refused.
    """

    def __init__(self, limits: Limits, clock: Callable[[], datetime]) -> None:
        self.limits = limits
        self._clock = clock
        self.sessions: dict[str, Session] = {}
        self.erased: dict[str, int] = {}
        """The last revision of each erased session."""
        self._etags: dict[str, dict[int, str]] = {}
        """The etags seen so far, by memory and revision."""

    @property
    def now(self) -> datetime:
        return self._clock()

    def rows(self, session_id: str) -> list[Row]:
        session = self.sessions.get(session_id)
        return [] if session is None else list(session.rows.values())

    def live(self, session_id: str) -> list[Row]:
        return [row for row in self.rows(session_id) if row.is_live(self.now)]

    def settings(self, session_id: str) -> Settings:
        return self.sessions.get(session_id, Session()).settings

    def max_entries(self, session_id: str) -> int:
        return self.settings(session_id).memory_limit or self.limits.max_entries

    def revision(self, session_id: str) -> int:
        session = self.sessions.get(session_id)
        return 0 if session is None else session.revision

    def effective(self, row: Row) -> float:
        age = max(0.0, (self.now - row.create_time) / timedelta(days=1))
        decayed = row.importance * math.pow(2, -age / self.limits.half_life_days)
        return max(0.0, min(1.0, decayed + min(0.2, 0.02 * row.access_count)))

    def has_past(self, changes: int) -> bool:
        """Whether a session has had at least this many changes."""
        return any(len(session.events) >= changes for session in self.sessions.values())

    def etags(self, memory_id: str) -> dict[int, str]:
        """The etags seen of a memory, by revision."""
        return self._etags.get(memory_id, {})

    # What is refused

    def refusal(self, request: Any) -> Refusal | None:
        """The error that a call must end with; None if it must succeed."""
        refusal = None
        match request:
            case pb.StoreMemoryRequest():
                refusal = self._store_refusal(request)
            case pb.BatchStoreMemoriesRequest():
                refusal = self._batch_refusal(request)
            case pb.GetMemoryRequest() | pb.DeleteMemoryRequest():
                refusal = self._named_refusal(request)
            case pb.ListMemoryRevisionsRequest() | pb.RollbackMemoryRequest():
                refusal = self._version_refusal(request)
            case pb.FindSimilarMemoriesRequest() if request.memory_id:
                refusal = self._unless_live(request.session_id, request.memory_id)
            case pb.UpdateMemoryRequest():
                refusal = self._update_refusal(request)
            case pb.UndeleteMemoryRequest():
                refusal = self._undelete_refusal(request)
        return refusal

    def _store_refusal(self, request: pb.StoreMemoryRequest) -> Refusal | None:
        session = self.sessions.get(request.session_id, Session())
        first = session.requests.get(request.request_id.lower())
        if first is not None and first.arguments == arguments_of(request):
            return None  # a retry is answered even if its arguments would be refused by now
        bad = self._bad_fields(request)
        if bad:
            return invalid(bad)
        if first is not None:
            return id_reused("request_id")
        holder = self.holder(request)
        if holder is not None and _is_same(holder, request):
            merged = {**holder.metadata, **plain(request.metadata)}
            if json_bytes(merged) > MAX_METADATA_BYTES:
                return invalid(["metadata"])
        return None

    def _bad_fields(self, request: pb.StoreMemoryRequest) -> list[str]:
        bad = []
        if not sanitise(request.content):
            bad.append("content")
        if request.HasField("importance") and not 0 <= request.importance <= 1:
            bad.append("importance")
        if request.HasField("ttl") and request.ttl.ToTimedelta() <= timedelta(0):
            bad.append("ttl")
        if request.HasField("expire_time") and _time(request.expire_time) <= self.now:
            bad.append("expire_time")
        return bad

    def _batch_refusal(self, request: pb.BatchStoreMemoriesRequest) -> Refusal | None:
        bad: list[str] = []
        is_bad = False  # a retry must not be refused, even if its fields are invalid by now
        reused: list[str] = []
        used: dict[tuple[str, str], bytes] = {}
        for place, item in enumerate(request.requests):
            arguments = arguments_of(item)
            session = self.sessions.get(item.session_id, Session())
            request_id = item.request_id.lower()
            first = session.requests.get(request_id)
            if first is not None:
                used.setdefault((item.session_id, request_id), first.arguments)
            is_retry = first is not None and first.arguments == arguments
            fields = [f"requests[{place}].{name}" for name in self._bad_fields(item)]
            bad += fields
            is_bad |= bool(fields) and not is_retry
            if request_id:
                before = used.setdefault((item.session_id, request_id), arguments)
                if before != arguments:
                    reused.append(f"requests[{place}].request_id")
        if is_bad:
            return invalid(bad)
        return id_reused(reused[0]) if reused else None

    def _unless_live(self, session_id: str, memory_id: str) -> Refusal | None:
        found = any(row.memory_id == memory_id for row in self.live(session_id))
        return None if found else Refusal("NOT_FOUND", "MEMORY_NOT_FOUND", memory_id)

    def _unless_current(self, session_id: str, memory_id: str, etag: str) -> Refusal | None:
        absent = self._unless_live(session_id, memory_id)
        if absent is not None:
            return absent
        row = self.sessions[session_id].rows[memory_id]
        if etag and etag != self._etags[memory_id].get(row.revision):
            return Refusal("ABORTED", "ETAG_MISMATCH")
        return None

    def _update_refusal(self, request: pb.UpdateMemoryRequest) -> Refusal | None:
        memory = request.memory
        bad = []
        paths = _paths(request)
        if "content" in paths and not sanitise(memory.content):
            bad.append("memory.content")
        has_end = "expire_time" in paths and memory.HasField("expire_time")
        if has_end and _time(memory.expire_time) <= self.now:
            bad.append("memory.expire_time")
        if request.HasField("ttl") and request.ttl.ToTimedelta() <= timedelta(0):
            bad.append("ttl")
        if bad:
            return invalid(bad)
        refusal = self._unless_current(memory.session_id, memory.memory_id, memory.etag)
        if refusal is not None:
            return refusal
        row = self.sessions[memory.session_id].rows[memory.memory_id]
        if _names_key(request) and memory.key != row.key:
            return invalid(["memory.key"])
        if not (paths or request.HasField("ttl")):
            return None
        holder = self.holder_of(
            memory.session_id,
            identity(
                row.key,
                _type(memory.content_type) if "content_type" in paths else row.content_type,
                sanitise(memory.content) if "content" in paths else row.content,
            ),
        )
        if holder is not None and holder.memory_id != row.memory_id:
            return Refusal("ALREADY_EXISTS", "MEMORY_ALREADY_EXISTS", holder.memory_id)
        return None

    def _undelete_refusal(self, request: pb.UndeleteMemoryRequest) -> Refusal | None:
        session = self.sessions.get(request.session_id, Session())
        row = session.rows.get(request.memory_id)
        if row is None or row.is_expired(self.now):
            return Refusal("NOT_FOUND", "MEMORY_NOT_FOUND", request.memory_id)
        if row.delete_time is None:
            return Refusal("ALREADY_EXISTS", "MEMORY_NOT_DELETED", request.memory_id)
        holder = self.holder_of(request.session_id, row.identity)
        if holder is not None:
            return Refusal("ALREADY_EXISTS", "MEMORY_ALREADY_EXISTS", holder.memory_id)
        if len(self.live(request.session_id)) >= self.max_entries(request.session_id):
            return Refusal("RESOURCE_EXHAUSTED", "SESSION_FULL")
        return None

    def _version_refusal(
        self, request: pb.ListMemoryRevisionsRequest | pb.RollbackMemoryRequest
    ) -> Refusal | None:
        if isinstance(request, pb.RollbackMemoryRequest):
            return self._rollback_refusal(request)
        row = self.sessions.get(request.session_id, Session()).rows.get(request.memory_id)
        if row is None or row.is_expired(self.now):
            return Refusal("NOT_FOUND", "MEMORY_NOT_FOUND", request.memory_id)
        return None

    def _rollback_refusal(self, request: pb.RollbackMemoryRequest) -> Refusal | None:
        absent = self._unless_live(request.session_id, request.memory_id)
        if absent is not None:
            return absent
        version = self.version(request)
        if version is None:
            return Refusal("OUT_OF_RANGE", "REVISION_OUT_OF_RANGE")
        if version.is_expired(self.now):
            return Refusal("FAILED_PRECONDITION", "VERSION_EXPIRED")
        holder = self.holder_of(request.session_id, version.identity)
        if holder is not None and holder.memory_id != request.memory_id:
            return Refusal("ALREADY_EXISTS", "MEMORY_ALREADY_EXISTS", holder.memory_id)
        return None

    def _named_refusal(
        self, request: pb.GetMemoryRequest | pb.DeleteMemoryRequest
    ) -> Refusal | None:
        memory_id = request.memory_id
        if request.key:
            row = self.holder_of(request.session_id, request.key)
            if row is None:
                return Refusal("NOT_FOUND", "MEMORY_NOT_FOUND", request.key)
            memory_id = row.memory_id
        etag = request.etag if isinstance(request, pb.DeleteMemoryRequest) else ""
        return self._unless_current(request.session_id, memory_id, etag)

    def version(self, request: pb.RollbackMemoryRequest) -> Row | None:
        """The version of a memory at a revision, if it is kept."""
        session = self.sessions[request.session_id]
        versions = {row.revision: row for _, row in session.versions(request.memory_id)}
        return versions.get(request.revision)

    def named(self, request: pb.GetMemoryRequest | pb.DeleteMemoryRequest) -> Row:
        """The memory that a request names by its id or its key."""
        held = self.holder_of(request.session_id, request.key) if request.key else None
        return held or self.sessions[request.session_id].rows[request.memory_id]

    def holder(self, request: pb.StoreMemoryRequest) -> Row | None:
        """Find the live memory that a store meets."""
        kind, content = _type(request.content_type), sanitise(request.content)
        return self.holder_of(request.session_id, identity(request.key, kind, content))

    def holder_of(self, session_id: str, held: Identity) -> Row | None:
        return next((row for row in self.live(session_id) if row.identity == held), None)

    # What is changed

    def store(self, request: pb.StoreMemoryRequest, answer: pb.StoreMemoryResponse) -> None:
        session = self.sessions.get(request.session_id)
        first = session and session.requests.get(request.request_id.lower())
        if session is not None and first is not None:
            return self._check_replay(session, first, answer)
        if session is None:
            session = self.begin(request.session_id, answer.memory.revision)
        self._store(session, request, answer)
        if request.request_id:
            kept = pb.StoreMemoryResponse()
            kept.CopyFrom(answer)
            session.requests[request.request_id.lower()] = FirstAnswer(
                arguments_of(request), kept, self.now
            )
        return None

    def _check_replay(
        self, session: Session, first: FirstAnswer, answer: pb.StoreMemoryResponse
    ) -> None:
        if first.answer.memory.memory_id in session.purged:
            # The text is gone; a retry that sends it again may get it back.
            for name in ("content", "metadata", "tags"):
                for message in (first.answer.memory, answer.memory):
                    message.ClearField(name)
        assert answer == first.answer

    def _store(
        self, session: Session, request: pb.StoreMemoryRequest, answer: pb.StoreMemoryResponse
    ) -> None:
        content, kind = sanitise(request.content), _type(request.content_type)
        importance = request.importance if request.HasField("importance") else 0.5
        expire_time = self._expire_time(request)
        held = self.holder(request)
        if held is None or not _is_same(held, request):
            if held is None:
                assert answer.outcome == pb.STORE_OUTCOME_CREATED
                assert not answer.replaced_memory_id
            else:
                assert answer.outcome == pb.STORE_OUTCOME_REPLACED
                assert answer.replaced_memory_id == held.memory_id
                self.put(session, DELETED, replace(held, delete_time=self.now))
            memory_id = answer.memory.memory_id
            assert uuid.UUID(memory_id).version == 7
            assert memory_id not in session.rows
            assert memory_id not in session.purged
            self.make_room(session, identity(request.key, kind, content))
            self.put(
                session,
                CREATED,
                Row(
                    session_id=request.session_id,
                    memory_id=memory_id,
                    content=content,
                    content_type=kind,
                    importance=importance,
                    metadata=plain(request.metadata),
                    create_time=self.now,
                    update_time=self.now,
                    expire_time=expire_time,
                    revision=0,
                    created_revision=session.revision + 1,
                    key=request.key,
                    tags=_tags(request.tags),
                ),
            )
        else:
            assert answer.outcome == pb.STORE_OUTCOME_MERGED
            assert not answer.replaced_memory_id
            memory_id = held.memory_id
            latest = None
            if held.expire_time is not None and expire_time is not None:
                latest = max(held.expire_time, expire_time)
            self.put(
                session,
                UPDATED,
                replace(
                    held,
                    importance=max(held.importance, importance),
                    metadata={**held.metadata, **plain(request.metadata)},
                    tags=_tags([*held.tags, *request.tags]),
                    expire_time=latest,
                    update_time=self.now,
                ),
            )
        self._evict(session, request.session_id, memory_id, answer.evicted_memory_ids)
        self.check_memory(answer.memory, session.rows[memory_id])

    def _expire_time(self, request: pb.StoreMemoryRequest) -> datetime | None:
        match request.WhichOneof("expiration"):
            case "ttl":
                return self.now + request.ttl.ToTimedelta()
            case "expire_time":
                return _time(request.expire_time)
            case "never_expires" if request.never_expires:
                return None
        settings = self.settings(request.session_id)
        if settings.never_expire:
            return None
        return self.now + (settings.memory_ttl or self.limits.default_ttl)

    def _evict(
        self, session: Session, session_id: str, stored: str, evicted: Sequence[str]
    ) -> None:
        """Check the evictions: exactly as many as needed, and the least important."""
        live = {row.memory_id: row for row in self.live(session_id)}
        assert len(evicted) == max(0, len(live) - self.max_entries(session_id))
        assert len(set(evicted)) == len(evicted)
        assert set(evicted) <= live.keys() - {stored}
        kept = [self.effective(live[i]) for i in live.keys() - {stored, *evicted}]
        for memory_id in evicted:
            assert self.effective(live[memory_id]) <= min(kept, default=1.0) + NEAR
            self.put(session, DELETED, replace(live[memory_id], delete_time=self.now))

    def batch(
        self, request: pb.BatchStoreMemoriesRequest, answer: pb.BatchStoreMemoriesResponse
    ) -> None:
        # An answer shows the memory as its own item left it, although the batch commits as one.
        for item, response in zip(request.requests, answer.responses, strict=True):
            self.store(item, response)

    def update(self, request: pb.UpdateMemoryRequest, answer: pb.Memory) -> None:
        memory = request.memory
        session = self.sessions[memory.session_id]
        row = session.rows[memory.memory_id]
        values: dict[str, Any] = {}
        for path in _paths(request):
            match path:
                case "content":
                    values["content"] = sanitise(memory.content)
                case "content_type":
                    values["content_type"] = _type(memory.content_type)
                case "importance":
                    given = memory.HasField("importance")
                    values["importance"] = memory.importance if given else 0.5
                case "metadata":
                    values["metadata"] = plain(memory.metadata)
                case "tags":
                    values["tags"] = _tags(memory.tags)
                case "expire_time":
                    given = memory.HasField("expire_time")
                    values["expire_time"] = _time(memory.expire_time) if given else None
        if request.HasField("ttl"):
            values["expire_time"] = self.now + request.ttl.ToTimedelta()
        if values:
            changed = replace(row, **values, update_time=self.now)
            self.make_room(session, changed.identity)
            self.put(session, UPDATED, changed)
        self.check_memory(answer, session.rows[row.memory_id])

    def rollback(self, request: pb.RollbackMemoryRequest, answer: pb.Memory) -> None:
        session = self.sessions[request.session_id]
        row, version = session.rows[request.memory_id], self.version(request)
        assert version is not None
        self.make_room(session, version.identity)
        back = replace(
            row,
            content=version.content,
            content_type=version.content_type,
            importance=version.importance,
            metadata=version.metadata,
            tags=version.tags,
            expire_time=version.expire_time,
            update_time=self.now,
        )
        self.put(session, UPDATED, back)
        self.check_memory(answer, session.rows[row.memory_id])

    def check_revisions(
        self,
        request: pb.ListMemoryRevisionsRequest,
        answers: Sequence[pb.MemoryRevision],
    ) -> None:
        """Check all versions of a memory, from all pages."""
        expected = self.sessions[request.session_id].versions(request.memory_id)
        assert [(one.change, one.revision) for one in answers] == [
            (change, row.revision) for change, row in expected
        ]
        for one, (_, row) in zip(answers, expected, strict=True):
            assert _time(one.record_time) == (row.delete_time or row.update_time)
            self.check_version(one.memory, row)

    def delete(self, request: pb.DeleteMemoryRequest, answer: pb.Memory) -> None:
        session = self.sessions[request.session_id]
        row = self.named(request)
        self.put(session, DELETED, replace(row, delete_time=self.now))
        self.check_memory(answer, session.rows[row.memory_id])

    def undelete(self, request: pb.UndeleteMemoryRequest, answer: pb.Memory) -> None:
        session = self.sessions[request.session_id]
        row = session.rows[request.memory_id]
        self.make_room(session, row.identity)
        self.put(session, RESTORED, replace(row, delete_time=None, update_time=self.now))
        self.check_memory(answer, session.rows[row.memory_id])

    def purge(self, request: pb.PurgeMemoriesRequest, answer: pb.PurgeMemoriesResponse) -> None:
        victims = list(self.matching(self.rows(request.session_id), request.filter))
        assert answer.purge_count == len(victims)
        if not request.force:
            self.check_memories(answer.sample, victims[:MAX_SAMPLE])
            return
        assert not answer.sample
        for row in victims:
            self._purge(self.sessions[request.session_id], row)

    def _purge(self, session: Session, row: Row) -> None:
        session.revision += 1
        del session.rows[row.memory_id]
        session.purged.add(row.memory_id)
        session.events.append(Event(session.revision, PURGED, row.memory_id, None, self.now))

    def erase(self, request: pb.EraseSessionRequest, answer: pb.EraseSessionResponse) -> None:
        session = self.sessions.pop(request.session_id, None)
        assert _time(answer.erase_time) == self.now
        assert answer.erased_memories == answer.erased_rows["memories"]
        if session is None:
            assert not any(answer.erased_rows.values())
            return
        assert answer.erased_memories == len(session.rows)
        assert answer.erased_rows["store_receipts"] == len(session.requests)
        assert answer.erased_rows["sessions"] == 1
        self.erased[request.session_id] = session.revision

    def access(self, session_id: str, memory_ids: Iterable[str]) -> None:
        """Count accesses, which the service writes behind the read."""
        rows = self.sessions[session_id].rows
        for memory_id in memory_ids:
            row = rows[memory_id]
            latest = max(self.now, row.last_access_time or self.now)
            rows[memory_id] = replace(
                row, access_count=row.access_count + 1, last_access_time=latest
            )

    def sweep(self, next_events: Callable[[str, int], Sequence[tuple[int, str]]]) -> None:
        """Do what a run of the sweeper does.

        `next_events` gives the next changes that a session's watcher received: kind and memory.
        """
        for session_id, session in self.sessions.items():
            for change, due in self._steps(session):
                order = next_events(session_id, len(due))
                assert sorted(order) == sorted((change, row.memory_id) for row in due)
                for _, memory_id in order:
                    row = session.rows[memory_id]
                    if change == PURGED:
                        self._purge(session, row)
                    else:
                        self.put(session, change, replace(row, delete_time=self.now))
            requests = session.requests
            for request_id, first in list(requests.items()):
                if first.at < self.now - self.limits.kept_for_retries:
                    del requests[request_id]
            forgotten = [
                event.revision
                for event in session.events
                if event.change == PURGED and event.at < self.now - self.limits.kept_history
            ]
            session.horizon = max([session.horizon, *forgotten])
            oldest = self.now - self.limits.kept_history
            session.history_from = max(session.history_from, oldest)

    def _steps(self, session: Session) -> Iterator[tuple[int, list[Row]]]:
        """The memories that each step of a sweep takes; a step sees what the previous one left."""
        now, limits = self.now, self.limits
        rows = session.rows
        yield (
            EXPIRED,
            [r for r in rows.values() if r.delete_time is None and r.is_expired(now)],
        )
        since = now - limits.cleanup
        yield (
            DELETED,
            [
                r
                for r in rows.values()
                if r.is_live(now)
                and max(r.update_time, r.last_access_time or r.update_time) <= since
            ],
        )
        before = now - limits.deleted_retention
        yield (
            PURGED,
            [r for r in rows.values() if r.delete_time is not None and r.delete_time <= before],
        )

    def begin(self, session_id: str, first_revision: int) -> Session:
        """Make a session; after an erasure its revisions start beyond the erased ones."""
        assert first_revision > self.erased.get(session_id, 0)
        session = self.sessions[session_id] = Session(revision=first_revision - 1)
        return session

    def make_room(self, session: Session, held: Identity) -> None:
        """Remove an expired memory not yet swept whose key or content is stored again."""
        for row in list(session.rows.values()):
            if row.identity == held and row.delete_time is None and row.is_expired(self.now):
                self.put(session, EXPIRED, replace(row, delete_time=self.now))

    def put(self, session: Session, change: int, row: Row) -> None:
        session.revision += 1
        row = replace(row, revision=session.revision)
        if change == CREATED:
            row = replace(row, created_revision=session.revision)
        session.rows[row.memory_id] = row
        session.events.append(Event(session.revision, change, row.memory_id, row, self.now))

    # What is read

    def matching(self, rows: Iterable[Row], wanted: pb.MemoryFilter) -> Iterator[Row]:
        given, metadata = wanted.HasField, plain(wanted.metadata)
        for row in rows:
            if (
                (not wanted.content_types or row.content_type in wanted.content_types)
                and (not given("min_importance") or self.effective(row) >= wanted.min_importance)
                and (not given("created_after") or row.create_time >= _time(wanted.created_after))
                and (not given("created_before") or row.create_time < _time(wanted.created_before))
                and (not wanted.tags_any or set(wanted.tags_any) & set(row.tags))
                and set(wanted.tags_all) <= set(row.tags)
                and row.key.startswith(wanted.key_prefix)
                and all(
                    key in row.metadata and json_of(row.metadata[key]) == json_of(value)
                    for key, value in metadata.items()
                )
                and all(message_matches(row.metadata, each) for each in wanted.conditions)
            ):
                yield row

    def listed(
        self, session_id: str, wanted: pb.MemoryFilter, *, show_deleted: bool, after: int = 0
    ) -> list[Row]:
        """In creation order, starting after the memory created at revision `after`."""
        now = self.now
        rows = [
            row
            for row in self.rows(session_id)
            if (not row.is_expired(now) if show_deleted else row.is_live(now))
        ]
        return [row for row in self.matching(rows, wanted) if row.created_revision > after]

    def retrieved(
        self, request: pb.RetrieveMemoriesRequest, answer: pb.RetrieveMemoriesResponse
    ) -> list[str]:
        """Check a retrieval without a query; return the ids in the answer."""
        assert answer.revision == self.revision(request.session_id)
        wanted = pb.MemoryFilter()
        wanted.CopyFrom(request.filter)
        if not wanted.HasField("min_importance"):
            wanted.min_importance = self.limits.importance_threshold
        found = {
            row.memory_id: row
            for row in self.matching(self.live(request.session_id), wanted)
            if row.memory_id not in request.exclude_memory_ids
        }
        limit = min(request.limit or DEFAULT_RESULTS, MAX_RESULTS)
        ids = [result.memory.memory_id for result in answer.results]
        assert len(ids) == len(set(ids))
        assert answer.truncated == (len(ids) < min(limit, len(found)))
        if request.max_chars:
            sizes = [len(found[memory_id].content) for memory_id in ids]
            assert sum(sizes) <= request.max_chars or len(ids) == 1
        else:
            assert not answer.truncated
        best = sorted((self.effective(row) for row in found.values()), reverse=True)
        for result, expected in zip(answer.results, best, strict=False):
            row = found[result.memory.memory_id]
            assert abs(self.effective(row) - expected) <= NEAR
            assert abs(result.score - expected) <= NEAR
            self.check_memory(result.memory, row)
        return ids

    def similar(
        self, request: pb.FindSimilarMemoriesRequest, answer: pb.FindSimilarMemoriesResponse
    ) -> None:
        live = {row.memory_id: row for row in self.live(request.session_id)}
        if request.memory_id:
            target = simhash(live.pop(request.memory_id).content)
        else:
            target = simhash(sanitise(request.content))
        distances = {i: (simhash(row.content) ^ target).bit_count() for i, row in live.items()}
        limit = min(request.limit or DEFAULT_RESULTS, MAX_RESULTS)
        most = request.max_distance if request.HasField("max_distance") else DEFAULT_DISTANCE
        nearest = sorted(distance for distance in distances.values() if distance <= most)
        assert [result.distance for result in answer.results] == nearest[:limit]
        assert len({result.memory.memory_id for result in answer.results}) == len(answer.results)
        for result in answer.results:
            assert result.distance == distances[result.memory.memory_id]
            self.check_memory(result.memory, live[result.memory.memory_id])

    def check_memories(self, answered: Iterable[pb.Memory], expected: Iterable[Row]) -> None:
        for memory, row in itertools.zip_longest(answered, expected):
            assert memory is not None, f"missing: {row}"
            assert row is not None, f"too much: {memory}"
            self.check_memory(memory, row)

    def check_memory(self, answered: pb.Memory, row: Row) -> None:
        """Check a memory in an answer, field by field."""
        self.check_version(answered, row)
        assert (answered.access_count, answered.last_access_time) == (
            row.access_count,
            row.message().last_access_time,
        )
        assert abs(answered.effective_importance - self.effective(row)) <= NEAR

    def check_version(self, answered: pb.Memory, row: Row) -> None:
        """Check everything that accesses and time do not change."""
        expected, actual = row.message(), pb.Memory()
        actual.CopyFrom(answered)
        for message in (expected, actual):
            for name in ("access_count", "last_access_time", "effective_importance", "etag"):
                message.ClearField(name)
        assert actual == expected
        etags = self._etags.setdefault(row.memory_id, {})
        assert answered.etag
        assert etags.setdefault(row.revision, answered.etag) == answered.etag
        assert len(set(etags.values())) == len(etags), "an etag is repeated after a change"


def _type(kind: int) -> int:
    return kind or pb.CONTENT_TYPE_CONTEXT


def _time(message: Any) -> datetime:
    moment: datetime = message.ToDatetime(UTC)
    return moment


def _tags(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(given)))


def _is_same(held: Row, request: pb.StoreMemoryRequest) -> bool:
    """Whether a store brings what a memory has already."""
    same_type = held.content_type == _type(request.content_type)
    return same_type and content_hash(held.content) == content_hash(sanitise(request.content))


def _names_key(request: pb.UpdateMemoryRequest) -> bool:
    paths = set(request.update_mask.paths)
    return "key" in paths or (bool(request.memory.key) and (not paths or "*" in paths))


def _paths(request: pb.UpdateMemoryRequest) -> set[str]:
    changeable = {"content", "content_type", "importance", "metadata", "tags", "expire_time"}
    paths = set(request.update_mask.paths)
    if not paths:
        paths = {descriptor.name for descriptor, _ in request.memory.ListFields()}
    return changeable if "*" in paths else changeable & paths


def invalid(fields: Iterable[str]) -> Refusal:
    return Refusal("INVALID_ARGUMENT", "INVALID_REQUEST", fields=tuple(sorted(fields)))


def id_reused(path: str) -> Refusal:
    return Refusal("INVALID_ARGUMENT", "REQUEST_ID_REUSED", fields=(path,))
