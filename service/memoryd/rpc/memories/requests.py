"""Parses requests of MemoryService into records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from memoryd.domain.content import (
    MAX_CONTENT_CHARS,
    ContentRefused,
    NothingLeft,
    clean,
    hashes_of,
    keyed_hash,
)
from memoryd.domain.errors import Violation
from memoryd.domain.principals import Scope
from memoryd.domain.records import (
    DEFAULT_IMPORTANCE,
    LATEST,
    ContentPolicy,
    ContentType,
    MemoryEdit,
    MemoryFilter,
    NewMemory,
    Session,
)
from memoryd.domain.tags import as_tags, problem_with_tags
from memoryd.recall.weights import DEFAULT_IMPORTANCE_WEIGHT
from memoryd.retrieval.query import RetrievalQuery
from memoryd.rpc import page_token, sizes
from memoryd.rpc.call import stop_if_gone
from memoryd.rpc.conditions import parse_conditions
from memoryd.rpc.fingerprint import fingerprint_of
from memoryd.rpc.masks import changed_paths
from memoryd.rpc.memories import messages as convert
from memoryd.rpc.structs import parse_struct
from memoryd.rpc.violations import NO_TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

    from memoryd.rpc.call import Call
    from memoryd.rpc.violations import Violations
    from memoryd.tools.settings import MemorySettings
    from memoryd.v1 import conversation_pb2, memory_pb2

    StoredAs = memory_pb2.StoreMemoryRequest | conversation_pb2.PromoteMessagesRequest
    """What says how something is stored."""

DEFAULT_RESULTS = 10
MAX_RESULTS = 100

DEFAULT_DISTANCE = 10
"""Bits of the semantic hash."""

EVERYTHING = MemoryFilter()

IN_THE_PAST = "must lie in the future; to remove a memory now, delete it"

RELEVANCE_OF_NOTHING = "needs a query; without one, leave it out or set filter.min_importance"

END_OF_TIME = datetime.max.replace(tzinfo=UTC)

CHANGEABLE_PATHS = ("content", "content_type", "importance", "metadata", "tags", "expire_time")
"""Of Memory, in UpdateMemory."""


NANOS_A_MICROSECOND = 1_000


@dataclass(frozen=True, slots=True)
class MemoryName:
    session: Session
    memory_id: str
    etag: str = ""
    """Of the memory as it has to be still; empty for any."""
    key: str = ""
    """In place of the id; empty: that names it."""


@dataclass(frozen=True, slots=True)
class Listing:
    session: Session
    filter: MemoryFilter
    after: int
    """The position after which the page begins."""
    size: int
    show_deleted: bool
    token_at: Callable[[int], str]
    """Gives the page token of a position."""


@dataclass(frozen=True, slots=True)
class RetrievalRequest:
    sessions: Sequence[Session]
    """Each once; the first is the one whose revision the answer has."""
    query: str
    """Empty: the most important ones are wanted."""
    wanted: RetrievalQuery
    peek: bool
    max_chars: int
    """Of the contents answered, together; 0: any."""


@dataclass(frozen=True, slots=True)
class SimilarityRequest:
    session: Session
    memory_id: str
    """Empty where a text is given."""
    content: str
    semantic_hash: str
    max_distance: int | None
    """In bits; None: any."""
    min_similarity: float | None
    """None: any, and the order is by distance."""
    limit: int


@dataclass(frozen=True, slots=True)
class Purge:
    session: Session
    filter: MemoryFilter
    force: bool


@dataclass(frozen=True, slots=True)
class Export:
    session: Session
    filter: MemoryFilter
    show_deleted: bool


@dataclass(frozen=True, slots=True)
class Watch:
    session: Session
    start_revision: int


class RequestParser:
    """Turns requests into records, and adds what is wrong with them."""

    def __init__(
        self,
        policy: ContentPolicy,
        clock: Callable[[], datetime],
        settings: Callable[[str], MemorySettings],
        *,
        max_batch: int,
    ) -> None:
        """`settings` gives those of a tenant's `memory` tool.

        A batch has `max_batch` items at most.
        """
        self._policy = policy
        self._clock = clock
        self._settings = settings
        self._max_batch = max_batch

    def check_batch_size(
        self, request: memory_pb2.BatchStoreMemoriesRequest, violations: Violations
    ) -> None:
        """Add what is too large to be validated."""
        sizes.check_batch(request, self._max_batch, violations)

    def new_memory(
        self, request: memory_pb2.StoreMemoryRequest, call: Call, violations: Violations
    ) -> NewMemory:
        return self._new_memory(request, call, "", violations)

    def new_memories(
        self, request: memory_pb2.BatchStoreMemoriesRequest, call: Call, violations: Violations
    ) -> list[NewMemory]:
        memories = []
        for place, item in enumerate(request.requests):
            stop_if_gone()
            memories.append(self._new_memory(item, call, f"requests[{place}]", violations))
        return memories

    @staticmethod
    def name(
        request: memory_pb2.UndeleteMemoryRequest, call: Call, violations: Violations
    ) -> MemoryName:
        del violations
        return MemoryName(call.session(request.session_id), request.memory_id)

    @staticmethod
    def name_or_key(
        request: memory_pb2.GetMemoryRequest, call: Call, violations: Violations
    ) -> MemoryName:
        _check_one_name(request, violations)
        return MemoryName(call.session(request.session_id), request.memory_id, key=request.key)

    @staticmethod
    def deletion(
        request: memory_pb2.DeleteMemoryRequest, call: Call, violations: Violations
    ) -> MemoryName:
        _check_one_name(request, violations)
        session = call.session(request.session_id)
        return MemoryName(session, request.memory_id, request.etag, request.key)

    def listing(
        self, request: memory_pb2.ListMemoriesRequest, call: Call, violations: Violations
    ) -> Listing:
        return Listing(
            call.session(request.session_id),
            self._filter(request.filter, violations),
            page_token.decode(request, call.principal.tenant, violations),
            page_token.size(request),
            request.show_deleted,
            partial(page_token.encode, request=request, tenant=call.principal.tenant),
        )

    def retrieval(
        self, request: memory_pb2.RetrieveMemoriesRequest, call: Call, violations: Violations
    ) -> RetrievalRequest:
        query = request.query.strip()
        given = EVERYTHING
        if request.HasField("filter"):
            given = self._filter(request.filter, violations)
        min_importance = given.min_importance
        if min_importance is None and not query:
            min_importance = self._settings(call.principal.tenant).importance_threshold
        min_relevance = request.min_relevance if request.HasField("min_relevance") else None
        if min_relevance is not None and not query:
            violations.add("min_relevance", RELEVANCE_OF_NOTHING)
        wanted = RetrievalQuery(
            given,
            min_importance,
            limit=min(request.limit or DEFAULT_RESULTS, MAX_RESULTS),
            importance_weight=request.importance_weight
            if request.HasField("importance_weight")
            else DEFAULT_IMPORTANCE_WEIGHT,
            diverse=request.diversify or not request.HasField("diversify"),
            min_relevance=min_relevance,
            excluded=frozenset(request.exclude_memory_ids),
        )
        names = dict.fromkeys((request.session_id, *request.session_ids))
        sessions = [*map(call.session, names)]
        return RetrievalRequest(sessions, query, wanted, request.peek, request.max_chars)

    def similarity(
        self, request: memory_pb2.FindSimilarMemoriesRequest, call: Call, violations: Violations
    ) -> SimilarityRequest:
        content = semantic_hash = ""
        if request.HasField("content"):
            content = self._content(request.content, "content", violations)
            semantic_hash = hashes_of(content).semantic_hash
        min_similarity = request.min_similarity if request.HasField("min_similarity") else None
        max_distance = DEFAULT_DISTANCE if min_similarity is None else None
        if request.HasField("max_distance"):
            max_distance = request.max_distance
        return SimilarityRequest(
            call.session(request.session_id),
            request.memory_id,
            content,
            semantic_hash,
            max_distance,
            min_similarity,
            min(request.limit or DEFAULT_RESULTS, MAX_RESULTS),
        )

    def purge(
        self, request: memory_pb2.PurgeMemoriesRequest, call: Call, violations: Violations
    ) -> Purge:
        if request.force:
            call.principal.require(Scope.MEMORIES_ERASE)
        wanted = self._filter(request.filter, violations)
        return Purge(call.session(request.session_id), wanted, request.force)

    def export(
        self, request: memory_pb2.ExportMemoriesRequest, call: Call, violations: Violations
    ) -> Export:
        wanted = self._filter(request.filter, violations)
        return Export(call.session(request.session_id), wanted, request.show_deleted)

    @staticmethod
    def session(
        request: memory_pb2.EraseSessionRequest, call: Call, violations: Violations
    ) -> Session:
        del violations
        return call.session(request.session_id)

    @staticmethod
    def watch(
        request: memory_pb2.WatchMemoriesRequest, call: Call, violations: Violations
    ) -> Watch:
        del violations
        return Watch(call.session(request.session_id), request.start_revision)

    def _new_memory(
        self,
        request: memory_pb2.StoreMemoryRequest,
        call: Call,
        field: str,
        violations: Violations,
    ) -> NewMemory:
        prefix = f"{field}." if field else ""
        content = self._content(request.content, f"{prefix}content", violations)
        hashes = hashes_of(content)
        of_content, key = hashes.content_hash, request.key or None
        memory = self._without_content(request, call, prefix, violations)
        if memory.late is not None:
            if request.request_id:  # it may be a retry, which the store knows
                violations.add_conditional(memory.late)
            else:
                violations.add(*memory.late)
        return memory._replace(
            content=content,
            metadata=parse_struct(request.metadata, f"{prefix}metadata", violations),
            content_hash=of_content if key is None else keyed_hash(key, of_content),
            semantic_hash=hashes.semantic_hash,
            request_id=request.request_id.lower(),  # a UUID is the same in either case
            fingerprint=fingerprint_of(request) if request.request_id else "",
            field=field,
            key=key,
            tags=_tags(request.tags, f"{prefix}tags", violations) if request.tags else (),
        )

    def _without_content(
        self, request: StoredAs, call: Call, prefix: str, violations: Violations
    ) -> NewMemory:
        expires_at = self._expiration(request, call, prefix, violations)
        late = None
        if request.HasField("expire_time") and expires_at and expires_at <= self._clock():
            late = Violation(f"{prefix}expire_time", IN_THE_PAST)
        return NewMemory(
            session=call.session(request.session_id),
            content="",
            content_type=convert.CONTENT_TYPE_OF.get(request.content_type, ContentType.CONTEXT),
            importance=_importance(request),
            metadata={},
            content_hash="",
            semantic_hash="",
            expires_at=expires_at,
            expires_by_default=not _has_expiration(request),
            late=late,
        )

    def common_to_promoted(
        self,
        request: conversation_pb2.PromoteMessagesRequest,
        call: Call,
        violations: Violations,
    ) -> NewMemory:
        """What memories of messages have in common."""
        memory = self._without_content(request, call, "", violations)
        if memory.late is not None:
            violations.add(*memory.late)
        return memory

    def promoted(
        self,
        common: NewMemory,
        text: str,
        metadata: dict[str, Any],
        field: str,
        violations: Violations,
    ) -> NewMemory | None:
        """The memory of a message; None where there is no text, or nothing is left of it."""
        try:
            content = self._content_or_nothing(text, field, violations)
        except NothingLeft:
            return None
        hashes = hashes_of(content)
        return common._replace(
            content=content,
            metadata=metadata,
            content_hash=hashes.content_hash,
            semantic_hash=hashes.semantic_hash,
            field=field,
        )

    def edit(
        self, request: memory_pb2.UpdateMemoryRequest, call: Call, violations: Violations
    ) -> MemoryEdit:
        memory = request.memory
        values: dict[str, Any] = {}
        paths = changed_paths(memory, request.update_mask, CHANGEABLE_PATHS, violations)
        for path in paths:
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
                    values["importance"] = _importance(memory)
                case "metadata":
                    values["metadata"] = parse_struct(
                        memory.metadata, "memory.metadata", violations
                    )
                case "tags":
                    values["tags"] = _tags(memory.tags, "memory.tags", violations)
                case "expire_time":
                    values["expires_at"] = None
                    if memory.HasField("expire_time"):
                        values["expires_at"] = self._future(
                            memory.expire_time, "memory.expire_time", violations
                        )
        if request.HasField("ttl"):
            values["expires_at"] = self._from_now(request.ttl, "ttl", violations)
        values |= _expected_key(request)
        session = call.session(memory.session_id)
        return MemoryEdit(session, memory.memory_id, memory.etag, **values)

    def _filter(self, message: memory_pb2.MemoryFilter, violations: Violations) -> MemoryFilter:
        return MemoryFilter(
            content_types=frozenset(
                convert.CONTENT_TYPE_OF.get(kind, ContentType.CONTEXT)
                for kind in message.content_types
            ),
            min_importance=message.min_importance if message.HasField("min_importance") else None,
            conditions=parse_conditions(
                message.conditions,
                "filter.conditions",
                violations,
                equal=parse_struct(message.metadata, "filter.metadata", violations),
            ),
            created_after=_optional_moment(message, "created_after", violations),
            created_before=_optional_moment(message, "created_before", violations),
            tags_any=frozenset(message.tags_any),
            tags_all=frozenset(message.tags_all),
            key_prefix=message.key_prefix,
        )

    def _content(self, text: str, field: str, violations: Violations) -> str:
        try:
            return self._content_or_nothing(text, field, violations)
        except NothingLeft as refusal:
            violations.add(field, str(refusal))
            return ""

    def _content_or_nothing(self, text: str, field: str, violations: Violations) -> str:
        """Raises NothingLeft."""
        try:
            content = clean(text, self._policy)
        except NothingLeft:
            raise
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

    def _expiration(
        self,
        request: StoredAs,
        call: Call,
        prefix: str,
        violations: Violations,
    ) -> datetime | None:
        match request.WhichOneof("expiration"):
            case "ttl":
                return self._from_now(request.ttl, f"{prefix}ttl", violations)
            case "expire_time":
                return _moment(request.expire_time, f"{prefix}expire_time", violations)
            case "never_expires" if request.never_expires:
                return None
            case _:
                settings = self._settings(call.principal.tenant)
                return self._clock() + timedelta(hours=settings.ttl_hours)

    def _from_now(self, ttl: Duration, field: str, violations: Violations) -> datetime:
        try:
            return min(self._clock() + convert.span_of(ttl), LATEST)
        except OverflowError:
            violations.add(
                field, "must end before the year 10000; to keep it forever, set never_expires"
            )
            return LATEST

    def _future(self, message: Timestamp, field: str, violations: Violations) -> datetime:
        moment = _moment(message, field, violations)
        if moment <= self._clock():
            violations.add(field, IN_THE_PAST)
        return moment


def _importance(given: StoredAs | memory_pb2.Memory) -> float:
    if not given.HasField("importance"):
        return DEFAULT_IMPORTANCE
    return given.importance + 0.0  # SQLite keeps no negative zero


def _has_expiration(request: StoredAs) -> bool:
    kind = request.WhichOneof("expiration")
    return kind is not None and (kind != "never_expires" or request.never_expires)


def _expected_key(request: memory_pb2.UpdateMemoryRequest) -> dict[str, str]:
    """The key that the memory must have; none where the mask leaves it out."""
    paths, key = request.update_mask.paths, request.memory.key
    # `*` names what can change, which the key cannot.
    is_named = "key" in paths or (bool(key) and (not paths or "*" in paths))
    return {"key": key} if is_named else {}


def _check_one_name(
    request: memory_pb2.GetMemoryRequest | memory_pb2.DeleteMemoryRequest, violations: Violations
) -> None:
    if request.memory_id and request.key:
        violations.add("key", "names a memory that memory_id names already; give one of them")
    elif not request.memory_id and not request.key:
        violations.add("memory_id", "must be given, or key in its place")


def _tags(given: Sequence[str], field: str, violations: Violations) -> tuple[str, ...]:
    tags = as_tags(given)
    problem = problem_with_tags(tags)
    if problem is not None:
        violations.add(field, problem)
    return tags


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
        violations.add(field, NO_TIMESTAMP)
        return LATEST
