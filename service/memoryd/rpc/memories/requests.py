"""Judges requests: every violation at once, of the protos' rules and of what no rule can say."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from memoryd.domain.content import MAX_CONTENT_CHARS, ContentRefused, clean, hashes_of
from memoryd.domain.errors import InvalidRequest, Violation
from memoryd.domain.metadata import MAX_METADATA_BYTES, problem_with
from memoryd.domain.records import (
    DEFAULT_IMPORTANCE,
    ContentPolicy,
    ContentType,
    MemoryEdit,
    MemoryFilter,
    NewMemory,
    Session,
)
from memoryd.rpc import page_token, time_ranges
from memoryd.rpc.call import stop_if_gone
from memoryd.rpc.memories import messages as convert
from memoryd.rpc.sizes import check_sizes
from memoryd.rpc.violations import Violations
from memoryd.v1 import memory_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message
    from google.protobuf.struct_pb2 import Struct
    from google.protobuf.timestamp_pb2 import Timestamp

LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""What a timestamp can say at the latest."""

IN_THE_PAST = "must lie in the future; to remove a memory now, delete it"

END_OF_TIME = datetime.max.replace(tzinfo=UTC)

CHANGEABLE_PATHS = ("content", "content_type", "importance", "metadata", "expire_time")
"""Of Memory, in UpdateMemory."""

MAX_MASK_PATHS = 64

MAX_METADATA_WIRE_BYTES = 6 * MAX_METADATA_BYTES
"""No metadata within its limit is larger as a message: a digit and its comma take eleven bytes."""

NANOS_A_MICROSECOND = 1_000


class Requests:
    """Turns requests into records. Every method raises InvalidRequest with all violations."""

    def __init__(
        self,
        policy: ContentPolicy,
        clock: Callable[[], datetime],
        default_ttl: Callable[[], timedelta],
        *,
        max_batch: int,
        judge_other: Callable[[Message], Iterable[Violation]],
    ) -> None:
        """Take at most `max_batch` memories at once.

        `judge_other` tells what is wrong with requests of other services than MemoryService.
        """
        self._policy = policy
        self._clock = clock
        self._default_ttl = default_ttl
        self._max_batch = max_batch
        self._judge_other = judge_other

    def check(self, message: Message) -> None:
        """Judge a message by its proto's rules; if it breaks one, by all that is known."""
        violations = Violations()
        check_sizes(message, self._max_batch, violations)
        violations.check()
        violations.add_rules(message)
        if not violations:
            return  # whatever else there is, the handler finds on its way
        nobody = Session("", "")
        match message:
            case memory_pb2.StoreMemoryRequest():
                self._new_memory(message, nobody, "", violations)
            case memory_pb2.BatchStoreMemoriesRequest():
                self._new_memories(message, lambda _: nobody, violations)
            case memory_pb2.UpdateMemoryRequest():
                self._edit(message, nobody, violations)
            case memory_pb2.FindSimilarMemoriesRequest() if message.HasField("content"):
                self._content(message.content, "content", violations)
            case memory_pb2.ListMemoriesRequest():
                self._listing(message, violations)
            case (
                memory_pb2.RetrieveMemoriesRequest()
                | memory_pb2.PurgeMemoriesRequest()
                | memory_pb2.ExportMemoriesRequest()
            ):
                self._filter(message.filter, violations)
            case _:
                for violation in self._judge_other(message):
                    violations.add(*violation)
        violations.check()

    def new_memory(
        self, request: memory_pb2.StoreMemoryRequest, session_of: Callable[[str], Session]
    ) -> NewMemory:
        violations = Violations()
        memory = self._new_memory(request, session_of(request.session_id), "", violations)
        violations.check()
        return memory

    def new_memories(
        self, request: memory_pb2.BatchStoreMemoriesRequest, session_of: Callable[[str], Session]
    ) -> list[NewMemory]:
        violations = Violations()
        memories = self._new_memories(request, session_of, violations)
        violations.check()
        return memories

    def edit(self, request: memory_pb2.UpdateMemoryRequest, session: Session) -> MemoryEdit:
        violations = Violations()
        edit = self._edit(request, session, violations)
        violations.check()
        return edit

    def listing(self, request: memory_pb2.ListMemoriesRequest) -> tuple[MemoryFilter, int]:
        """Give the filter, and the position after which the page begins."""
        violations = Violations()
        wanted = self._listing(request, violations)
        violations.check()
        return wanted

    def filter(self, message: memory_pb2.MemoryFilter) -> MemoryFilter:
        violations = Violations()
        wanted = self._filter(message, violations)
        violations.check()
        return wanted

    def target(self, request: memory_pb2.FindSimilarMemoriesRequest) -> tuple[str, str]:
        """Give the text to compare with and its semantic hash; empty where a memory is named."""
        if not request.HasField("content"):
            return "", ""
        violations = Violations()
        content = self._content(request.content, "content", violations)
        violations.check()
        return content, hashes_of(content).semantic_hash

    def _new_memories(
        self,
        request: memory_pb2.BatchStoreMemoriesRequest,
        session_of: Callable[[str], Session],
        violations: Violations,
    ) -> list[NewMemory]:
        memories = []
        for place, item in enumerate(request.requests):
            stop_if_gone()
            session = session_of(item.session_id)
            memories.append(self._new_memory(item, session, f"requests[{place}]", violations))
        return memories

    def _new_memory(
        self,
        request: memory_pb2.StoreMemoryRequest,
        session: Session,
        field: str,
        violations: Violations,
    ) -> NewMemory:
        prefix = f"{field}." if field else ""
        content = self._content(request.content, f"{prefix}content", violations)
        hashes = hashes_of(content)
        expires_at = self._expiration(request, prefix, violations)
        late = None
        if request.HasField("expire_time") and expires_at and expires_at <= self._clock():
            late = Violation(f"{prefix}expire_time", IN_THE_PAST)
            if request.request_id:  # it may be a retry, which the store knows
                violations.add_beside(late)
            else:
                violations.add(*late)
        return NewMemory(
            session=session,
            content=content,
            content_type=convert.CONTENT_TYPE_OF.get(request.content_type, ContentType.CONTEXT),
            importance=request.importance if request.HasField("importance") else DEFAULT_IMPORTANCE,
            metadata=self._metadata(request.metadata, f"{prefix}metadata", violations),
            content_hash=hashes.content_hash,
            semantic_hash=hashes.semantic_hash,
            expires_at=expires_at,
            request_id=request.request_id.lower(),  # a UUID is the same in either case
            fingerprint=_fingerprint(request) if request.request_id else "",
            field=field,
            late=late,
        )

    def _edit(
        self, request: memory_pb2.UpdateMemoryRequest, session: Session, violations: Violations
    ) -> MemoryEdit:
        memory = request.memory
        values: dict[str, Any] = {}
        for path in _paths(request, violations):
            match path:
                case "content":
                    content = self._content(memory.content, "memory.content", violations)
                    hashes = hashes_of(content)
                    values |= {
                        "content": content,
                        "content_hash": hashes.content_hash,
                        "semantic_hash": hashes.semantic_hash,
                    }
                case "content_type":
                    kind = convert.CONTENT_TYPE_OF.get(memory.content_type, ContentType.CONTEXT)
                    values["content_type"] = kind
                case "importance":
                    given = memory.HasField("importance")
                    values["importance"] = memory.importance if given else DEFAULT_IMPORTANCE
                case "metadata":
                    values["metadata"] = self._metadata(
                        memory.metadata, "memory.metadata", violations
                    )
                case "expire_time":
                    values["expires_at"] = None
                    if memory.HasField("expire_time"):
                        values["expires_at"] = self._future(
                            memory.expire_time, "memory.expire_time", violations
                        )
        if request.HasField("ttl"):
            values["expires_at"] = self._from_now(request.ttl, "ttl", violations)
        return MemoryEdit(session, memory.memory_id, memory.etag, **values)

    def _listing(
        self, request: memory_pb2.ListMemoriesRequest, violations: Violations
    ) -> tuple[MemoryFilter, int]:
        after = 0
        try:
            after = page_token.decode(request)
        except InvalidRequest as refusal:
            for violation in refusal.violations:
                violations.add(*violation)
        return self._filter(request.filter, violations), after

    def _filter(self, message: memory_pb2.MemoryFilter, violations: Violations) -> MemoryFilter:
        return MemoryFilter(
            content_types=frozenset(
                convert.CONTENT_TYPE_OF.get(kind, ContentType.CONTEXT)
                for kind in message.content_types
            ),
            min_importance=message.min_importance if message.HasField("min_importance") else None,
            metadata=self._metadata(message.metadata, "filter.metadata", violations),
            created_after=_optional_moment(message, "created_after", violations),
            created_before=_optional_moment(message, "created_before", violations),
        )

    def _content(self, text: str, field: str, violations: Violations) -> str:
        try:
            content = clean(text, self._policy)
        except ContentRefused as refusal:
            violations.add(field, str(refusal))
            return ""
        if len(content) > MAX_CONTENT_CHARS:
            violations.add(
                field,
                f"must be at most {MAX_CONTENT_CHARS:,} characters; this is {len(content):,}:"
                " store it as several memories",
            )
            return ""
        return content

    def _metadata(self, struct: Struct, field: str, violations: Violations) -> dict[str, Any]:
        if struct.ByteSize() > MAX_METADATA_WIRE_BYTES:
            violations.add(field, f"must be at most {MAX_METADATA_BYTES:,} bytes as JSON")
            return {}
        metadata = convert.struct_value(struct)
        problem = problem_with(metadata)
        if problem is not None:
            violations.add(field, problem)
        return metadata

    def _expiration(
        self, request: memory_pb2.StoreMemoryRequest, prefix: str, violations: Violations
    ) -> datetime | None:
        match request.WhichOneof("expiration"):
            case "ttl":
                return self._from_now(request.ttl, f"{prefix}ttl", violations)
            case "expire_time":
                return _moment(request.expire_time, f"{prefix}expire_time", violations)
            case "never_expires" if request.never_expires:
                return None
            case _:
                return self._clock() + self._default_ttl()

    def _from_now(self, ttl: Duration, field: str, violations: Violations) -> datetime:
        try:
            return min(self._clock() + convert.span_of(ttl), LATEST)
        except OverflowError:
            violations.add(
                field, "must end before the year 10000; to keep it for good, let it never expire"
            )
            return LATEST

    def _future(self, message: Timestamp, field: str, violations: Violations) -> datetime:
        moment = _moment(message, field, violations)
        if moment <= self._clock():
            violations.add(field, IN_THE_PAST)
        return moment


def _paths(request: memory_pb2.UpdateMemoryRequest, violations: Violations) -> Iterable[str]:
    """The changeable paths of a mask, or of the populated fields where there is none."""
    memory = request.memory
    if not request.update_mask.paths:
        populated = {field.name for field, _ in memory.ListFields()}
        return [path for path in CHANGEABLE_PATHS if path in populated]
    if len(request.update_mask.paths) > MAX_MASK_PATHS:
        violations.add("update_mask", f"must have at most {MAX_MASK_PATHS} paths")
        return []
    if "*" in request.update_mask.paths:
        return CHANGEABLE_PATHS
    known = memory.DESCRIPTOR.fields_by_name
    for path in request.update_mask.paths:
        if path not in known:
            violations.add(
                "update_mask",
                "has a path that is no field of Memory; use"
                f" {', '.join(CHANGEABLE_PATHS)}, each as a whole",
            )
    return [path for path in CHANGEABLE_PATHS if path in request.update_mask.paths]


def _optional_moment(
    message: memory_pb2.MemoryFilter,
    name: Literal["created_after", "created_before"],
    violations: Violations,
) -> datetime | None:
    """Rounded up to the microsecond: no memory lies between, so either bound stays exact."""
    if not message.HasField(name):
        return None
    given: Timestamp = getattr(message, name)
    moment = _moment(given, f"filter.{name}", violations)
    rounded_down = given.nanos % NANOS_A_MICROSECOND and moment < END_OF_TIME
    return moment + timedelta(microseconds=1) if rounded_down else moment


def _moment(message: Timestamp, field: str, violations: Violations) -> datetime:
    try:
        return convert.moment_of(message)
    except OverflowError:
        violations.add(field, time_ranges.NO_TIMESTAMP)
        return LATEST


def _fingerprint(request: memory_pb2.StoreMemoryRequest) -> str:
    """SHA-256 of all arguments but the request_id."""
    arguments = memory_pb2.StoreMemoryRequest()
    arguments.CopyFrom(request)
    arguments.ClearField("request_id")
    return hashlib.sha256(arguments.SerializeToString(deterministic=True)).hexdigest()
