"""What the service answers, as frozen dataclasses. Made from protos/ by `make generate`.

Times are aware datetimes, JSON objects are dicts, enums are StrEnums. `proto` gives the message of
`memoryd.v1`; a name that a later release of the service adds reads `unspecified`, and has its
number there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Literal, TypeAlias

from memoryd.client.answering import Answer, names_of
from memoryd.client.errors import Violation
from memoryd.client.prompts import AsPrompt
from memoryd.v1 import (
    access_pb2,
    condition_pb2,
    conversation_pb2,
    document_pb2,
    memory_pb2,
    session_pb2,
    tool_config_pb2,
)


ToolName: TypeAlias = Literal["rag", "memory", "escalation", "attachment", "crm", "billing", "inventory"]


@names_of(condition_pb2.ConditionOp)
class ConditionOp(StrEnum):
    """How a condition compares."""

    UNSPECIFIED = "unspecified"
    """Refused."""
    EQ = "eq"
    """Equal to `value`."""
    NE = "ne"
    """Not equal to `value`, of another type, or not there."""
    GT = "gt"
    """Greater. Only numbers and texts have an order."""
    GTE = "gte"
    """Greater or equal."""
    LT = "lt"
    """Less."""
    LTE = "lte"
    """Less or equal."""
    IN = "in"
    """Equal to one of `value`, which is a list."""
    NOT_IN = "not_in"
    """Equal to none of `value`, which is a list; or not there."""
    CONTAINS = "contains"
    """A list with an element that is equal to `value`, or a text of which `value`, a text, is a
    part."""
    EXISTS = "exists"
    """There, be it null, if `value` is true; not there if it is false."""


ConditionOpName: TypeAlias = ConditionOp | Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "not_in", "contains", "exists"]


@names_of(memory_pb2.ContentType)
class ContentType(StrEnum):
    """What kind of memory it is."""

    UNSPECIFIED = "unspecified"
    """Stored as CONTENT_TYPE_CONTEXT."""
    USER_INFO = "user_info"
    """Who the user is: name, role, address."""
    PREFERENCE = "preference"
    """What the user likes or wants."""
    FACT = "fact"
    """What is true: an order's state, an agreement."""
    CONTEXT = "context"
    """What was going on; the default."""


ContentTypeName: TypeAlias = ContentType | Literal["user_info", "preference", "fact", "context"]


@names_of(conversation_pb2.Role)
class Role(StrEnum):
    """Who speaks."""

    UNSPECIFIED = "unspecified"
    """Not said."""
    USER = "user"
    """The person."""
    ASSISTANT = "assistant"
    """The model."""
    SYSTEM = "system"
    """Instructions."""
    DEVELOPER = "developer"
    """Instructions of the application's developer."""
    TOOL = "tool"
    """A tool that the model called."""


RoleName: TypeAlias = Role | Literal["user", "assistant", "system", "developer", "tool"]


@names_of(memory_pb2.StoreOutcome)
class StoreOutcome(StrEnum):
    """What storing did."""

    UNSPECIFIED = "unspecified"
    """Never sent."""
    CREATED = "created"
    """A new memory."""
    MERGED = "merged"
    """The session already had it; the answer is that memory."""
    REPLACED = "replaced"
    """A new memory, which has taken the key of another one. That one is soft-deleted."""


@names_of(memory_pb2.MemoryChange)
class MemoryChange(StrEnum):
    """What happened to a memory."""

    UNSPECIFIED = "unspecified"
    """Never sent."""
    CREATED = "created"
    """Stored."""
    UPDATED = "updated"
    """Updated, or merged because its content was stored again."""
    DELETED = "deleted"
    """Soft-deleted by a caller, or evicted to make room."""
    RESTORED = "restored"
    """Undeleted."""
    EXPIRED = "expired"
    """Removed because it expired; reported within a minute."""
    PURGED = "purged"
    """Permanently deleted; the memory carries only its identifiers. Without a memory_id it is
    the whole session, which was erased or merged into another: the watch then ends with
    OUT_OF_RANGE."""


@names_of(conversation_pb2.ConversationChange)
class ConversationChange(StrEnum):
    """What has happened to a conversation."""

    UNSPECIFIED = "unspecified"
    """Never sent."""
    CREATED = "created"
    """It was made."""
    UPDATED = "updated"
    """It, or what it has of messages, changed."""
    DELETED = "deleted"
    """It was deleted."""
    EXPIRED = "expired"
    """It expired."""
    PURGED = "purged"
    """The whole session was erased or merged into another; the conversation carries only its id.
    The watch then ends with OUT_OF_RANGE."""


@names_of(document_pb2.DocumentChange)
class DocumentChange(StrEnum):
    """What happened to a document."""

    UNSPECIFIED = "unspecified"
    """Never sent."""
    CREATED = "created"
    """Put where there was none."""
    UPDATED = "updated"
    """Put in place of what was there."""
    DELETED = "deleted"
    """Deleted, or moved to another name; the document carries only its identifiers."""
    EXPIRED = "expired"
    """Removed because it expired; reported within a minute. The document carries only its
    identifiers."""
    PURGED = "purged"
    """The whole session was erased or merged into another; the document carries only its id. The
    watch then ends with OUT_OF_RANGE."""


@names_of(tool_config_pb2.Provenance)
class Provenance(StrEnum):
    """Where a setting's value comes from."""

    UNSPECIFIED = "unspecified"
    """Never sent."""
    DEFAULT = "default"
    """The default of this release."""
    ENVIRONMENT = "environment"
    """The service's environment or its `.env` file."""
    OVERRIDE = "override"
    """A runtime override of the tenant's."""
    INSTANCE = "instance"
    """A runtime override of the instance's, for every tenant. It beats the environment; the
    tenant's beats it."""


@names_of(tool_config_pb2.ToolConfigChange)
class ToolConfigChange(StrEnum):
    """What an event of WatchToolConfigs reports."""

    UNSPECIFIED = "unspecified"
    """Never sent."""
    SNAPSHOT = "snapshot"
    """A tool's configuration when the watch starts; one event for each of the seven tools."""
    UPDATED = "updated"
    """The tool's configuration has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhoAmIResponse(Answer[access_pb2.WhoAmIResponse]):
    """Response of WhoAmI."""

    _message: ClassVar[type[Any]] = access_pb2.WhoAmIResponse
    tenant: str = ""
    """The caller's tenant."""
    principal: str = ""
    """The name of the key, the subject of the token, or the name in the certificate."""
    method: str = ""
    """How the caller has shown who it is: `off`, `api_key`, `jwt` or `certificate`."""
    scopes: tuple[str, ...] = ()
    """What it may do."""
    sessions: tuple[str, ...] = ()
    """Rules for the sessions that it may name. None: every session of the tenant."""
    expire_time: datetime | None = None
    """When the credential ends. Absent: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey(Answer[access_pb2.ApiKey]):
    """An API key, but the key itself."""

    _message: ClassVar[type[Any]] = access_pb2.ApiKey
    key_id: str = ""
    """The part of the key that is not secret."""
    tenant: str = ""
    """Whose key it is."""
    name: str = ""
    """What its makers call it."""
    scopes: tuple[str, ...] = ()
    """What it gives."""
    sessions: tuple[str, ...] = ()
    """Rules for the sessions that it may name. None: every session of the tenant."""
    create_time: datetime | None = None
    """When it was made."""
    expire_time: datetime | None = None
    """When it ends. Absent: never."""
    revoke_time: datetime | None = None
    """When it was revoked. Absent: it is not."""
    last_used_time: datetime | None = None
    """When it was last used, to ten minutes. Absent: not yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateApiKeyResponse(Answer[access_pb2.CreateApiKeyResponse]):
    """Response of CreateApiKey and RotateApiKey."""

    _message: ClassVar[type[Any]] = access_pb2.CreateApiKeyResponse
    key: str = field(default="", repr=False)
    """The key itself, shown this once."""
    key_id: str = ""
    """The part of it that is not secret."""
    api_key: ApiKey = field(default_factory=ApiKey)
    """What it gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas(Answer[access_pb2.Quotas]):
    """How much of the service a tenant may use. 0 is no limit; what is unset is the service's
    own."""

    _message: ClassVar[type[Any]] = access_pb2.Quotas
    calls_per_second: int | None = None
    """Calls a second on one server, by weight: reading one memory counts 1, a store 2, a
    retrieval or a list 5, a batch, a purge, an erasure or an export 20. Two seconds' worth
    may come at once."""
    streams: int | None = None
    """Streams under way at once on one server."""
    keys: int | None = None
    """API keys that have not ended."""
    memories: int | None = None
    """Memories that are not deleted. Expired ones count until they are swept, within a minute."""
    sessions: int | None = None
    """Sessions that exist: from the first write until they are erased, whether or not they hold
    anything."""
    bytes: int | None = None
    """Bytes of the contents and of the metadata (as compact JSON) of memories that are not
    deleted, in UTF-8, of the bodies of documents, and of messages."""
    documents: int | None = None
    """Documents. Expired ones count until they are swept, within a minute."""
    conversations: int | None = None
    """Conversations. Expired ones count until they are swept, within a minute."""
    messages: int | None = None
    """Messages of conversations. One that several conversations share counts once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant(Answer[access_pb2.Tenant]):
    """Whose memories they are."""

    _message: ClassVar[type[Any]] = access_pb2.Tenant
    tenant: str = ""
    """Its name: 1–64 of `a–z 0–9 . _ -`, starting with a letter or digit."""
    create_time: datetime | None = None
    """When it was first known."""
    disabled: bool = False
    """Whether every credential of it is refused."""
    tokens_not_before: datetime | None = None
    """Tokens that were issued earlier are refused as revoked. Absent: none for that."""
    quotas: Quotas = field(default_factory=Quotas)
    """Those that are not the service's own (`MEMORYD_QUOTA_…`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent(Answer[access_pb2.AuditEvent]):
    """A line of the audit. It has no contents, no session ids and no credentials."""

    _message: ClassVar[type[Any]] = access_pb2.AuditEvent
    seq: int = 0
    """Its place among the lines of the database, without gaps from 1 on."""
    time: datetime | None = None
    """When it was made. Of lines of several servers the later one may have the earlier time."""
    kind: str = ""
    """`begun`: a call that is about to be done. `ended`: one that has ended. `refused`: calls
    that were refused for who the caller is, gathered for a minute. `would_refuse`: calls that
    would have been, were credentials required."""
    tenant: str = ""
    """Whose data, keys or settings the call was about. Empty where the caller is not known."""
    principal: str = ""
    """Who called: the name of the key, the subject of the token, or the name in the certificate."""
    principal_tenant: str = ""
    """The caller's tenant, where it is another one."""
    key_id: str = ""
    """The id of the API key that the caller showed."""
    peer: str = ""
    """Where the call came from, as gRPC names it. Of gathered calls without the port, and of
    IPv6 the network."""
    method: str = ""
    """The full name of the method."""
    code: str = ""
    """How the call ended: the name of its status code, `OK` for one that succeeded."""
    reason: str = ""
    """Why it was refused, as in `google.rpc.ErrorInfo`."""
    request_id: str = ""
    """The id that the log has of the call."""
    receipt_id: str = ""
    """The same in all lines of a call."""
    target: str = ""
    """What was changed, such as `api_keys/0123456789AB` or `tools/rag`."""
    session_refs: tuple[str, ...] = ()
    """The sessions that the call named, the first 16, each as HMAC-SHA-256 of its id under a key
    of the tenant."""
    counts: dict[str, int] = field(default_factory=dict)
    """How many, such as `erased_memories`, `purged_memories`, `exported_memories`; `sessions`
    where there are several, `calls` where they are gathered."""
    previous_hash: str = ""
    """The hash of the line before it."""
    hash: str = ""
    """SHA-256 of the line itself, the hash of the line before it included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(Answer[access_pb2.Usage]):
    """How much of the service a tenant uses; the fields are those of Quotas."""

    _message: ClassVar[type[Any]] = access_pb2.Usage
    streams: int = 0
    """Streams under way on the server that answers."""
    keys: int = 0
    """API keys that have not ended."""
    memories: int = 0
    """Memories that are not deleted."""
    sessions: int = 0
    """Sessions that exist."""
    bytes: int = 0
    """Bytes of the contents and of the metadata of those memories, of the bodies of documents,
    and of messages."""
    documents: int = 0
    """Documents."""
    conversations: int = 0
    """Conversations."""
    messages: int = 0
    """Messages of conversations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GetUsageResponse(Answer[access_pb2.GetUsageResponse]):
    """Response of GetUsage."""

    _message: ClassVar[type[Any]] = access_pb2.GetUsageResponse
    tenant: str = ""
    """Whose usage it is."""
    quotas: Quotas = field(default_factory=Quotas)
    """What the tenant may use: every quota, also where it is the service's own. 0 is no limit."""
    usage: Usage = field(default_factory=Usage)
    """What it uses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory(Answer[memory_pb2.Memory]):
    """One remembered sentence or paragraph of one session."""

    _message: ClassVar[type[Any]] = memory_pb2.Memory
    session_id: str = ""
    """The session that the memory belongs to. 1–255 characters of `A–Z a–z 0–9 . _ : @ -`,
    starting with a letter or digit, without `..`. Set by the caller; never changes."""
    memory_id: str = ""
    """UUID in lower case, version 7 if this service made it. Set by the service."""
    content: str = ""
    """The sanitised text, 1–16,384 characters."""
    content_type: ContentType = ContentType.UNSPECIFIED
    """What kind of memory it is. Unset becomes CONTENT_TYPE_CONTEXT."""
    importance: float | None = None
    """How important the caller considers it, 0.0–1.0, as stored."""
    effective_importance: float = 0.0
    """Importance after decay and access boost, at the time of the answer: importance · 2^(−age /
    half-life) + min(0.2, 0.02 · access_count), clamped to 0–1. Age is the fractional number
    of days since create_time."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """The caller's own JSON: at most 16 KiB as compact JSON, at most 8 nested containers
    including the outermost. Recall uses `speaker` (string: who said it), `occurred_at` (RFC
    3339: when it happened, if not when it was stored) and `episode` (string: which
    conversation of the session)."""
    content_hash: str = ""
    """Hex SHA-256 of the normalised content: in lower case, each run of white space replaced by
    one space, trimmed, trailing `.,!?;:` removed."""
    semantic_hash: str = ""
    """64-bit SimHash of the normalised content, 16 hex digits."""
    access_count: int = 0
    """How often retrieval has returned it."""
    last_access_time: datetime | None = None
    """When retrieval last returned it. Absent if never."""
    create_time: datetime | None = None
    """When it was stored."""
    update_time: datetime | None = None
    """When a caller last changed it; initially create_time."""
    delete_time: datetime | None = None
    """When it was soft-deleted. Absent if it is not deleted."""
    expire_time: datetime | None = None
    """When it expires. Absent if never."""
    revision: int = 0
    """Session revision of the last change."""
    etag: str = ""
    """Opaque. Changes whenever anything that callers see of the memory changes, except access
    tracking. A request that carries an outdated value is refused with ABORTED."""
    key: str = ""
    """The caller's name for it, such as `home_address`: 1–255 characters of `A–Z a–z 0–9 . _ : @
    / -`. Empty: none. At most one live memory of a session has a key. Set when it is stored;
    never changes."""
    tags: tuple[str, ...] = ()
    """At most 32, each 1–64 characters without control characters. Sorted by code point, each
    once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMemoryResponse(Answer[memory_pb2.StoreMemoryResponse]):
    """Response of StoreMemory."""

    _message: ClassVar[type[Any]] = memory_pb2.StoreMemoryResponse
    memory: Memory = field(default_factory=Memory)
    """The memory as committed."""
    outcome: StoreOutcome = StoreOutcome.UNSPECIFIED
    """Whether it is new, merged, or has replaced another."""
    evicted_memory_ids: tuple[str, ...] = ()
    """The memories that were soft-deleted to make room for this one. Each eviction is listed
    once; a replaced memory is not among them."""
    replaced_memory_id: str = ""
    """The memory that had the key before, if the outcome is STORE_OUTCOME_REPLACED."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStoreMemoriesResponse(Answer[memory_pb2.BatchStoreMemoriesResponse]):
    """Response of BatchStoreMemories."""

    _message: ClassVar[type[Any]] = memory_pb2.BatchStoreMemoriesResponse
    responses: tuple[StoreMemoryResponse, ...] = ()
    """One for each request, in the same order."""
    truncated: bool = False
    """True if the answer reached the size that a client receives by default, and its last
    memories lack content, metadata and tags. All are stored; read the rest with GetMemory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListMemoriesResponse(Answer[memory_pb2.ListMemoriesResponse]):
    """Response of ListMemories."""

    _message: ClassVar[type[Any]] = memory_pb2.ListMemoriesResponse
    memories: tuple[Memory, ...] = ()
    """In creation order."""
    next_page_token: str = ""
    """For the next page. Empty on the last page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreBreakdown(Answer[memory_pb2.ScoreBreakdown]):
    """The parts of a score, which add up to it."""

    _message: ClassVar[type[Any]] = memory_pb2.ScoreBreakdown
    lexical: float = 0.0
    """From the words that the query and the content share. This and all other parts except
    importance are 0 without a query."""
    importance: float = 0.0
    """From the effective importance."""
    semantic: float = 0.0
    """From its meaning. 0 without an embedder, and until the memory is embedded."""
    context: float = 0.0
    """From how relevant its neighbours in its episode are."""
    speaker: float = 0.0
    """From being said by a speaker that the query names."""
    temporal: float = 0.0
    """From when it happened, if the query names or asks for a time."""
    form: float = 0.0
    """From how much it says, whether it is a question, and whether it has the kind of thing that
    the query asks for."""
    diversity: float = 0.0
    """Below 0 if it repeats a better result."""
    recency: float = 0.0
    """Above 0 if it passes an older memory that it may correct: both are of no episode and mean
    much the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievedMemory(Answer[memory_pb2.RetrievedMemory]):
    """One result of RetrieveMemories."""

    _message: ClassVar[type[Any]] = memory_pb2.RetrievedMemory
    memory: Memory = field(default_factory=Memory)
    """The memory, before this access is counted."""
    score: float = 0.0
    """Higher is better; the results are ordered by it. Comparable only within one answer."""
    breakdown: ScoreBreakdown = field(default_factory=ScoreBreakdown)
    """The parts of the score."""
    relevance: float | None = None
    """How sure recall is that the memory bears on the query at all, 0.0 to 1.0. Unlike the score
    it is comparable between queries and sessions, and importance does not affect it. Unset
    without a query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieveMemoriesResponse(AsPrompt, Answer[memory_pb2.RetrieveMemoriesResponse]):
    """Response of RetrieveMemories."""

    _message: ClassVar[type[Any]] = memory_pb2.RetrieveMemoriesResponse
    results: tuple[RetrievedMemory, ...] = ()
    """Best first."""
    revision: int = 0
    """The session's revision that the answer reflects; 0 for a session without memories."""
    revisions: dict[str, int] = field(default_factory=dict)
    """If several sessions were asked for, the revision of each by its id."""
    truncated: bool = False
    """True if there are more results within `limit`, but their contents would exceed `max_chars`
    or the answer the size that a client receives by default (4 MB). Only returned results
    count as accessed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarMemory(Answer[memory_pb2.SimilarMemory]):
    """One result of FindSimilarMemories."""

    _message: ClassVar[type[Any]] = memory_pb2.SimilarMemory
    memory: Memory = field(default_factory=Memory)
    """The memory."""
    distance: int | None = None
    """Hamming distance of the semantic hashes, 0–64 bits."""
    similarity: float | None = None
    """The recall engine's similarity, 0.0–1.0: of meaning if the memory has a vector, else of
    words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindSimilarMemoriesResponse(Answer[memory_pb2.FindSimilarMemoriesResponse]):
    """Response of FindSimilarMemories."""

    _message: ClassVar[type[Any]] = memory_pb2.FindSimilarMemoriesResponse
    results: tuple[SimilarMemory, ...] = ()
    """Nearest first."""
    truncated: bool = False
    """As in RetrieveMemoriesResponse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeMemoriesResponse(Answer[memory_pb2.PurgeMemoriesResponse]):
    """Response of PurgeMemories."""

    _message: ClassVar[type[Any]] = memory_pb2.PurgeMemoriesResponse
    purge_count: int = 0
    """How many were permanently deleted, or would be."""
    sample: tuple[Memory, ...] = ()
    """Without `force`, the first (at most 20) of the memories that would be deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseSessionResponse(Answer[memory_pb2.EraseSessionResponse]):
    """Response of EraseSession: the receipt."""

    _message: ClassVar[type[Any]] = memory_pb2.EraseSessionResponse
    erased_memories: int = 0
    """How many memories were removed, including deleted and expired ones."""
    erased_rows: dict[str, int] = field(default_factory=dict)
    """Rows removed, by table."""
    erase_time: datetime | None = None
    """When it was committed."""
    receipt_id: str = ""
    """What the audit's lines of this call have as `receipt_id`. Empty where the server writes no
    audit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchMemoriesResponse(Answer[memory_pb2.WatchMemoriesResponse]):
    """One change, as WatchMemories reports it."""

    _message: ClassVar[type[Any]] = memory_pb2.WatchMemoriesResponse
    change: MemoryChange = MemoryChange.UNSPECIFIED
    """What happened."""
    memory: Memory = field(default_factory=Memory)
    """The memory after the change. While catching up this may be its latest state."""
    revision: int = 0
    """The session's revision after the change; resume from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRevision(Answer[memory_pb2.MemoryRevision]):
    """One version of a memory."""

    _message: ClassVar[type[Any]] = memory_pb2.MemoryRevision
    memory: Memory = field(default_factory=Memory)
    """The memory as that change left it. Its effective importance is that at the time of the
    answer."""
    change: MemoryChange = MemoryChange.UNSPECIFIED
    """What made this version."""
    revision: int = 0
    """The session's revision of that change; what RollbackMemory takes."""
    record_time: datetime | None = None
    """When that change was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary(Answer[conversation_pb2.Summary]):
    """What was said in a conversation up to a message."""

    _message: ClassVar[type[Any]] = conversation_pb2.Summary
    text: str = ""
    """At most 65,536 characters."""
    through_message_id: str = ""
    """The last message that it covers. Empty once that was removed by PopMessages: then the
    summary is not applied."""
    token_count: int | None = None
    """Tokens of the text. If unset, estimated as a quarter of its bytes in UTF-8, rounded up."""
    update_time: datetime | None = None
    """When it was set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkPoint(Answer[conversation_pb2.ForkPoint]):
    """Where a fork comes from."""

    _message: ClassVar[type[Any]] = conversation_pb2.ForkPoint
    conversation_id: str = ""
    """The source, which may be deleted by now."""
    message_id: str = ""
    """The last message that both have. Empty: the source had none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation(Answer[conversation_pb2.Conversation]):
    """One dialogue of a session: what recall calls an episode."""

    _message: ClassVar[type[Any]] = conversation_pb2.Conversation
    session_id: str = ""
    """See Memory.session_id."""
    conversation_id: str = ""
    """Names it within the session: 1–255 characters of `A–Z a–z 0–9 . _ : @ -`, starting with a
    letter or digit, without `..`. Where it is left out on creation, the service gives a
    UUIDv7."""
    display_name: str = ""
    """What people call it. At most 255 characters."""
    labels: dict[str, str] = field(default_factory=dict)
    """See Session.labels."""
    state: dict[str, Any] = field(default_factory=dict)
    """What an agent keeps of the conversation besides its messages. At most 16,384 bytes as
    JSON, 8 levels deep."""
    summary: Summary | None = None
    """Of what was said up to a message. Set by SetSummary."""
    head_message_id: str = ""
    """The message that an append follows. Empty: there is none."""
    branch_heads: tuple[str, ...] = ()
    """The last message of each branch."""
    forked_from: ForkPoint | None = None
    """Where it comes from, if it is a fork."""
    message_count: int = 0
    """Messages of the head's branch."""
    token_count: int = 0
    """Tokens of these messages."""
    ttl: timedelta | None = None
    """This long after the last append, or after this was set. More than zero."""
    never_expires: bool = False
    """If true, never. False means unset."""
    expire_time: datetime | None = None
    """When it expires, also where that follows from `ttl`. Set without `expiration`, it expires
    at this time, which must be in the future; with `expiration` it is ignored."""
    create_time: datetime | None = None
    """When it was made."""
    update_time: datetime | None = None
    """When it last changed."""
    revision: int = 0
    """Session revision of the last change; memories, documents and conversations share the
    numbers."""
    etag: str = ""
    """Opaque. Changes with every change of the conversation and of its messages. A request that
    carries an outdated value is refused with ABORTED."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall(Answer[conversation_pb2.ToolCall]):
    """A call of a tool."""

    _message: ClassVar[type[Any]] = conversation_pb2.ToolCall
    call_id: str = ""
    """Names the call for its result."""
    name: str = ""
    """The tool's name."""
    arguments_json: str = ""
    """Its arguments. Unless empty, it must be JSON, and is kept verbatim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult(Answer[conversation_pb2.ToolResult]):
    """The result of a call."""

    _message: ClassVar[type[Any]] = conversation_pb2.ToolResult
    call_id: str = ""
    """See ToolCall.call_id."""
    text: str = ""
    """As text."""
    json: str = ""
    """As JSON. Unless empty, it must parse, and is kept verbatim."""
    is_error: bool = False
    """Whether the call failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob(Answer[conversation_pb2.Blob]):
    """Bytes with their type."""

    _message: ClassVar[type[Any]] = conversation_pb2.Blob
    mime_type: str = ""
    """Such as `image/png`."""
    data: bytes = b""
    """The bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File(Answer[conversation_pb2.File]):
    """A reference to a file."""

    _message: ClassVar[type[Any]] = conversation_pb2.File
    mime_type: str = ""
    """Such as `application/pdf`."""
    uri: str = ""
    """Where it lies."""
    name: str = ""
    """What people call it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(Answer[conversation_pb2.Part]):
    """A part of a message."""

    _message: ClassVar[type[Any]] = conversation_pb2.Part
    text: str | None = None
    """Text."""
    tool_call: ToolCall | None = None
    """The model calls a tool."""
    tool_result: ToolResult | None = None
    """What a tool answers."""
    blob: Blob | None = None
    """Bytes."""
    file: File | None = None
    """A file that lies elsewhere."""
    thinking: str | None = None
    """What the model thinks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(Answer[conversation_pb2.Message]):
    """One message. It has at least one part, or `raw_json`, and at most 1 MiB. Texts are kept as
    they came; NUL is refused."""

    _message: ClassVar[type[Any]] = conversation_pb2.Message
    message_id: str = ""
    """Names it within its conversation, over all branches: 1–255 characters of `A–Z a–z 0–9 . _
    : @ -`. Where it is left out, the service gives a UUIDv7."""
    parent_message_id: str = ""
    """The message before. Empty: it is the first."""
    role: Role = Role.UNSPECIFIED
    """Who speaks."""
    author: str = ""
    """The name of who speaks. At most 255 characters."""
    turn_id: str = ""
    """Messages in a row with the same one belong together: a window with `complete_turns` does
    not begin within them. At most 255 characters."""
    parts: tuple[Part, ...] = ()
    """What is said."""
    raw_json: str = ""
    """The message as another format has it. It must be JSON, and is kept verbatim."""
    raw_format: str = ""
    """Which format that is, such as `openai.item` or `adk.event`. At most 255 characters."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """See Memory.metadata."""
    token_count: int | None = None
    """Tokens of the message. If unset, estimated as a quarter of the bytes in UTF-8 of all its
    texts and JSON, rounded up; of `raw_json` only where there are no parts. With
    `token_count_estimated`, as it was read, it counts as unset."""
    token_count_estimated: bool = False
    """Whether `token_count` is estimated."""
    occur_time: datetime | None = None
    """When it was said, if not when it was appended."""
    create_time: datetime | None = None
    """When it was appended."""
    revision: int = 0
    """Session revision of its append; the messages of one call share it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendMessagesResponse(Answer[conversation_pb2.AppendMessagesResponse]):
    """Response of AppendMessages and RewriteMessages."""

    _message: ClassVar[type[Any]] = conversation_pb2.AppendMessagesResponse
    messages: tuple[Message, ...] = ()
    """One for each message of the request, in the same order, as it is kept."""
    conversation: Conversation = field(default_factory=Conversation)
    """The conversation as of this commit, without the text of its summary."""
    truncated: bool = False
    """True if the answer reached the size that a client receives by default, and its last
    messages lack parts, `raw_json` and metadata. All are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConversationsResponse(Answer[conversation_pb2.WatchConversationsResponse]):
    """One change of a session's conversations."""

    _message: ClassVar[type[Any]] = conversation_pb2.WatchConversationsResponse
    change: ConversationChange = ConversationChange.UNSPECIFIED
    """What has happened."""
    conversation: Conversation = field(default_factory=Conversation)
    """The conversation, without the text of its summary. Where it is gone, only its ids and the
    revision."""
    messages: tuple[Message, ...] = ()
    """The messages that the call appended, as far as they are still there."""
    revision: int = 0
    """Session revision of the change. Resume with it as `start_revision`."""
    truncated: bool = False
    """True if the event reached the size that a client receives by default, and its last
    messages lack parts, `raw_json` and metadata. ListMessages has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportMessagesResponse(Answer[conversation_pb2.ExportMessagesResponse]):
    """Some messages of a conversation."""

    _message: ClassVar[type[Any]] = conversation_pb2.ExportMessagesResponse
    conversation: Conversation = field(default_factory=Conversation)
    """The conversation. After the first message of the stream on it, only `session_id` and
    `conversation_id` are set."""
    messages: tuple[Message, ...] = ()
    """The next of its messages. None: it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromoteMessagesResponse(Answer[conversation_pb2.PromoteMessagesResponse]):
    """Response of PromoteMessages."""

    _message: ClassVar[type[Any]] = conversation_pb2.PromoteMessagesResponse
    memories: tuple[Memory, ...] = ()
    """One for each message that was promoted, in order. Messages of the same text have the same
    memory."""
    outcomes: tuple[StoreOutcome, ...] = ()
    """What became of each, in the same order."""
    evicted_memory_ids: tuple[str, ...] = ()
    """Memories that were soft-deleted to keep the session's limit."""
    truncated: bool = False
    """True if the answer reached the size that a client receives by default, and its last
    memories lack content and metadata. All are stored."""
    has_more: bool = False
    """With `since_last`: whether the head's branch has further messages to go over. A call goes
    over 1,000 messages, or as many as have 3 MiB together; call again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document(Answer[document_pb2.Document]):
    """What an agent keeps under a name."""

    _message: ClassVar[type[Any]] = document_pb2.Document
    session_id: str = ""
    """The session that it belongs to. See Memory.session_id. Within BatchWriteDocuments it may
    be left out."""
    namespace: tuple[str, ...] = ()
    """0–19 labels of 1–255 characters each, without control characters. None: the document lies
    in no namespace."""
    key: str = ""
    """1–512 characters without control characters. The labels and the key together have at most
    1,024 bytes in UTF-8."""
    json: str | None = None
    """JSON text (RFC 8259). It is checked and never parsed into anything else: numbers come back
    as they were."""
    text: str | None = None
    """Text without NUL."""
    data: bytes | None = None
    """Bytes."""
    labels: dict[str, str] = field(default_factory=dict)
    """The caller's own labels: at most 64; keys of 1–63 characters of `a–z 0–9 . _ / -`, values
    of at most 255 characters."""
    ttl: timedelta | None = None
    """How long it lives from the last put, or from the last read with `refresh_ttl`. If unset,
    it never expires."""
    create_time: datetime | None = None
    """When it was first put."""
    update_time: datetime | None = None
    """When it was last put."""
    expire_time: datetime | None = None
    """When it expires. Absent if never."""
    revision: int = 0
    """Session revision of the last change; memories and documents share the numbers."""
    etag: str = ""
    """Opaque. Changes with every change of the document. A put that carries another value than
    the current one, or any where there is no document, is refused with ABORTED."""
    size_bytes: int = 0
    """Bytes of the body."""
    body_sha256: str = ""
    """Hex SHA-256 of the body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchWriteDocumentsResponse(Answer[document_pb2.BatchWriteDocumentsResponse]):
    """Response of BatchWriteDocuments."""

    _message: ClassVar[type[Any]] = document_pb2.BatchWriteDocumentsResponse
    documents: tuple[Document, ...] = ()
    """One for each write, in the same order: the document as committed, an empty one for a
    delete."""
    truncated: bool = False
    """True if the answer reached the size that a client receives by default, and its last
    documents lack their bodies. All are written; read the rest with GetDocument."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentName(Answer[document_pb2.DocumentName]):
    """Names a document within its session."""

    _message: ClassVar[type[Any]] = document_pb2.DocumentName
    namespace: tuple[str, ...] = ()
    """See Document.namespace."""
    key: str = ""
    """See Document.key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentEntry(Answer[document_pb2.DocumentEntry]):
    """What there is under one name."""

    _message: ClassVar[type[Any]] = document_pb2.DocumentEntry
    name: DocumentName = field(default_factory=DocumentName)
    """The name that was asked for."""
    document: Document | None = None
    """Unset where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchGetDocumentsResponse(Answer[document_pb2.BatchGetDocumentsResponse]):
    """Response of BatchGetDocuments."""

    _message: ClassVar[type[Any]] = document_pb2.BatchGetDocumentsResponse
    entries: tuple[DocumentEntry, ...] = ()
    """One for each name, in the same order."""
    truncated: bool = False
    """True if the answer reached the size that a client receives by default, and its last
    documents lack their bodies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveDocumentsResponse(Answer[document_pb2.MoveDocumentsResponse]):
    """Response of MoveDocuments."""

    _message: ClassVar[type[Any]] = document_pb2.MoveDocumentsResponse
    moved_count: int = 0
    """How many documents were moved."""
    documents: tuple[Document, ...] = ()
    """The first 100 of them by their new names, without bodies; fewer where these would be over
    4 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentResult(Answer[document_pb2.DocumentResult]):
    """One document that was found."""

    _message: ClassVar[type[Any]] = document_pb2.DocumentResult
    document: Document = field(default_factory=Document)
    """The document."""
    score: float | None = None
    """How well the best of its search texts fits the query: the higher the better, comparable
    within one answer only. Absent without a query, and for a document without search texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchDocumentsResponse(Answer[document_pb2.SearchDocumentsResponse]):
    """Response of SearchDocuments."""

    _message: ClassVar[type[Any]] = document_pb2.SearchDocumentsResponse
    results: tuple[DocumentResult, ...] = ()
    """Best first."""
    truncated: bool = False
    """True if there may be more results that `limit` has room for: they would make the answer
    larger than a client receives by default, or the search has looked at as much as it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRevision(Answer[document_pb2.DocumentRevision]):
    """One version of a document."""

    _message: ClassVar[type[Any]] = document_pb2.DocumentRevision
    document: Document = field(default_factory=Document)
    """As it was after the change."""
    change: DocumentChange = DocumentChange.UNSPECIFIED
    """What happened."""
    revision: int = 0
    """The session's revision after the change."""
    record_time: datetime | None = None
    """When it happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchDocumentsResponse(Answer[document_pb2.WatchDocumentsResponse]):
    """One change, as WatchDocuments reports it."""

    _message: ClassVar[type[Any]] = document_pb2.WatchDocumentsResponse
    change: DocumentChange = DocumentChange.UNSPECIFIED
    """What happened."""
    document: Document = field(default_factory=Document)
    """The document after the change. While catching up this may be its latest state."""
    revision: int = 0
    """The session's revision after the change; resume from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Answer[session_pb2.Session]):
    """A session: what one user, or one conversation, has of memories and documents."""

    _message: ClassVar[type[Any]] = session_pb2.Session
    session_id: str = ""
    """See Memory.session_id."""
    display_name: str = ""
    """What people call it. At most 255 characters."""
    labels: dict[str, str] = field(default_factory=dict)
    """At most 64 labels. Keys have 1–63 characters of `a–z 0–9 . _ / -`, values at most 255
    characters."""
    state: dict[str, Any] = field(default_factory=dict)
    """The caller's own JSON, with the limits of Memory.metadata."""
    memory_limit: int | None = None
    """How many live memories the session may hold, 10–100,000. If unset, `memory.max_entries` of
    the tool configuration. A lower limit takes effect at the next store, which evicts what is
    over it: up to 10,000 memories more than it stores, and the following stores evict the
    rest."""
    memory_ttl: timedelta | None = None
    """This long after they are stored. More than zero; kept to the microsecond, rounded up."""
    memories_never_expire: bool = False
    """If true, never. False means unset. `memory.cleanup_days` of the tool configuration still
    retires memories that are not used."""
    memory_count: int = 0
    """Live memories: neither deleted nor expired."""
    document_count: int = 0
    """Documents."""
    conversation_count: int = 0
    """Conversations."""
    create_time: datetime | None = None
    """When it came into being. Absent where an earlier release made it and nothing that is kept
    tells."""
    update_time: datetime | None = None
    """When anything in it or of its settings last changed. An access is no change."""
    revision: int = 0
    """Of the last change of anything in it or of its settings."""
    etag: str = ""
    """Opaque. Changes whenever a caller changes what is set for the session, and with nothing
    else. A request that carries an outdated value is refused with ABORTED."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeConflict(Answer[session_pb2.MergeConflict]):
    """A name that both sessions of a merge had."""

    _message: ClassVar[type[Any]] = session_pb2.MergeConflict
    namespace: tuple[str, ...] = ()
    """Of a document: the target's stays."""
    key: str = ""
    """Of a document."""
    conversation_id: str = ""
    """Of a conversation: the source's has another id now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSessionsResponse(Answer[session_pb2.MergeSessionsResponse]):
    """Response of MergeSessions."""

    _message: ClassVar[type[Any]] = session_pb2.MergeSessionsResponse
    moved_memories: int = 0
    """Live memories that the target has now as memories of its own."""
    merged_memories: int = 0
    """Live memories that were merged with those of the target."""
    moved_documents: int = 0
    """Documents that the target has now."""
    moved_conversations: int = 0
    """Conversations that the target has now."""
    conflicts: tuple[MergeConflict, ...] = ()
    """Names that both had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolConfigWarning(Answer[tool_config_pb2.ToolConfigWarning]):
    """Something questionable in a configuration, with its remedy."""

    _message: ClassVar[type[Any]] = tool_config_pb2.ToolConfigWarning
    field: str = ""
    """The path of the setting: `crm.api_key`."""
    description: str = ""
    """What is questionable and what to do about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSummary(Answer[tool_config_pb2.ToolSummary]):
    """One tool in a list."""

    _message: ClassVar[type[Any]] = tool_config_pb2.ToolSummary
    tool: str = ""
    """See ToolConfig.tool."""
    enabled: bool | None = None
    """Whether agents may use it."""
    warnings: tuple[ToolConfigWarning, ...] = ()
    """See ToolConfig.warnings."""
    revision: int = 0
    """See ToolConfig.revision."""
    stale: bool = False
    """See ToolConfig.stale."""
    stale_since: datetime | None = None
    """See ToolConfig.stale_since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListToolsResponse(Answer[tool_config_pb2.ListToolsResponse]):
    """Response of ListTools."""

    _message: ClassVar[type[Any]] = tool_config_pb2.ListToolsResponse
    tools: tuple[ToolSummary, ...] = ()
    """All seven."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RagSettings(Answer[tool_config_pb2.RagSettings]):
    """Retrieval-augmented generation. Environment: `RAG_…`."""

    _message: ClassVar[type[Any]] = tool_config_pb2.RagSettings
    chunk_size: int | None = None
    """Words per chunk, 100–2000. Default 500."""
    chunk_overlap: int | None = None
    """Words that neighbouring chunks share, 0–500, below chunk_size. Default 50."""
    search_k: int | None = None
    """Chunks that a search returns, 1–20. Default 5."""
    similarity_threshold: float | None = None
    """Minimum similarity of a chunk, 0.0–1.0. Default 0.7."""
    cache_enabled: bool | None = None
    """Whether search results are cached. Default true."""
    cache_ttl: int | None = None
    """How long results are cached, in seconds; at least 60. Default 3600."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySettings(Answer[tool_config_pb2.MemorySettings]):
    """The memory tool; MemoryService obeys these. Environment: `MEMORY_…`."""

    _message: ClassVar[type[Any]] = tool_config_pb2.MemorySettings
    max_entries: int | None = None
    """Live memories per session, 10–1000. Default 100."""
    ttl_hours: int | None = None
    """Time to live of a memory stored without an expiration, in hours; 1–720. Default 24."""
    cleanup_days: int | None = None
    """Days after which a memory that is not retrieved is soft-deleted; 1–365. Default 30."""
    importance_threshold: float | None = None
    """Minimum effective importance of what RetrieveMemories returns without a query, 0.0–1.0.
    Default 0.3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EscalationSettings(Answer[tool_config_pb2.EscalationSettings]):
    """Handing over to a human. Environment: `ESCALATION_…`."""

    _message: ClassVar[type[Any]] = tool_config_pb2.EscalationSettings
    confidence_threshold: float | None = None
    """Confidence below which the agent hands over, 0.0–1.0. Default 0.7."""
    keywords: dict[str, float] = field(default_factory=dict)
    """Words that suggest handing over, with weights 0.0–1.0. An update that names it replaces
    the whole map. Default: urgent 1.0, emergency 1.0, complaint 0.9, legal 0.9, lawsuit 1.0,
    manager 0.8, supervisor 0.8."""
    notification_enabled: bool | None = None
    """Whether a notification is sent. Default false."""
    notification_email: str | None = None
    """The e-mail address to notify. Default none."""
    notification_webhook: str | None = None
    """The URL to notify. Default none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentSettings(Answer[tool_config_pb2.AttachmentSettings]):
    """Files that users attach. Environment: `ATTACHMENT_…`."""

    _message: ClassVar[type[Any]] = tool_config_pb2.AttachmentSettings
    max_file_size: int | None = None
    """Maximum size in bytes, at least 1024. Default 10,485,760."""
    allowed_extensions: tuple[str, ...] = ()
    """Accepted file name extensions, with their dot. An update that names it replaces the whole
    list. Default .pdf .docx .doc .txt .md .csv .xlsx .xls .json .xml .jpg .jpeg .png."""
    chunk_for_rag: bool | None = None
    """Whether contents are chunked for retrieval. Default true."""
    temp_cleanup_hours: int | None = None
    """How long temporary files are kept, in hours; at least 1. Default 24."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrmSettings(Answer[tool_config_pb2.CrmSettings]):
    """Customer relations. Environment: `CRM_…`."""

    _message: ClassVar[type[Any]] = tool_config_pb2.CrmSettings
    api_endpoint: str | None = None
    """Base URL. Default none."""
    api_key: str | None = field(default=None, repr=False)
    """Never returned. `env://NAME` or `secretsmanager://aws/NAME`; a literal only outside
    production."""
    has_api_key: bool = False
    """Whether a key is set."""
    api_key_source: str = ""
    """Where the key comes from: its reference, or `literal`. Empty if none is set."""
    timeout: int | None = None
    """Seconds a call may take, at least 1. Default 10."""
    max_retries: int | None = None
    """How often a failed call is retried, at least 0. Default 3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BillingSettings(Answer[tool_config_pb2.BillingSettings]):
    """Invoices and payments. Environment: `BILLING_…`."""

    _message: ClassVar[type[Any]] = tool_config_pb2.BillingSettings
    api_endpoint: str | None = None
    """Base URL. Default none."""
    api_key: str | None = field(default=None, repr=False)
    """See CrmSettings.api_key."""
    has_api_key: bool = False
    """Whether a key is set."""
    api_key_source: str = ""
    """See CrmSettings.api_key_source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InventorySettings(Answer[tool_config_pb2.InventorySettings]):
    """Stock. Environment: `INVENTORY_…`."""

    _message: ClassVar[type[Any]] = tool_config_pb2.InventorySettings
    api_endpoint: str | None = None
    """Base URL. Default none."""
    api_key: str | None = field(default=None, repr=False)
    """See CrmSettings.api_key."""
    has_api_key: bool = False
    """Whether a key is set."""
    api_key_source: str = ""
    """See CrmSettings.api_key_source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolConfig(Answer[tool_config_pb2.ToolConfig]):
    """The effective configuration of one tool."""

    _message: ClassVar[type[Any]] = tool_config_pb2.ToolConfig
    tool: str = ""
    """`rag`, `memory`, `escalation`, `attachment`, `crm`, `billing` or `inventory`."""
    enabled: bool | None = None
    """Whether agents may use it."""
    rag: RagSettings | None = None
    """For `rag`."""
    memory: MemorySettings | None = None
    """For `memory`."""
    escalation: EscalationSettings | None = None
    """For `escalation`."""
    attachment: AttachmentSettings | None = None
    """For `attachment`."""
    crm: CrmSettings | None = None
    """For `crm`."""
    billing: BillingSettings | None = None
    """For `billing`."""
    inventory: InventorySettings | None = None
    """For `inventory`."""
    provenance: dict[str, Provenance] = field(default_factory=dict)
    """Where each value comes from, by its path: `enabled`, `rag.chunk_size`."""
    warnings: tuple[ToolConfigWarning, ...] = ()
    """What is questionable about it; the configuration is in use nonetheless."""
    revision: int = 0
    """The revision of the last runtime change of this tool, by the tenant or of the instance; 0
    if there is none yet."""
    etag: str = ""
    """Opaque. Changes with the configuration. A request that carries an outdated value is
    refused with ABORTED. Absent in an answer to `validate_only`."""
    stale: bool = False
    """True while the service cannot reach its database, so that recent overrides may be missing.
    It serves what it last read, or, if it started without the database, the environment and
    the defaults."""
    stale_since: datetime | None = None
    """If stale, when it was last known to be current."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateToolConfigResponse(Answer[tool_config_pb2.ValidateToolConfigResponse]):
    """Response of ValidateToolConfig."""

    _message: ClassVar[type[Any]] = tool_config_pb2.ValidateToolConfigResponse
    warnings: tuple[ToolConfigWarning, ...] = ()
    """What is questionable in a valid configuration."""
    violations: tuple[Violation, ...] = ()
    """What would be refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolConfigRevision(Answer[tool_config_pb2.ToolConfigRevision]):
    """One change of a tool's configuration."""

    _message: ClassVar[type[Any]] = tool_config_pb2.ToolConfigRevision
    revision: int = 0
    """Increases with every change of any tool. Each tenant has revisions of its own, and the
    instance."""
    tool: str = ""
    """See ToolConfig.tool."""
    change_time: datetime | None = None
    """When it was committed."""
    actor: str = ""
    """Who made it: the name of the caller's credential, or its tenant while none is required;
    `instance` where an admin of the instance changed the layer of the instance."""
    reason: str = ""
    """Why, as the caller gave it."""
    before: ToolConfig = field(default_factory=ToolConfig)
    """The configuration before it."""
    after: ToolConfig = field(default_factory=ToolConfig)
    """The configuration after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchToolConfigsResponse(Answer[tool_config_pb2.WatchToolConfigsResponse]):
    """One event of WatchToolConfigs."""

    _message: ClassVar[type[Any]] = tool_config_pb2.WatchToolConfigsResponse
    change: ToolConfigChange = ToolConfigChange.UNSPECIFIED
    """What it reports."""
    tool_config: ToolConfig = field(default_factory=ToolConfig)
    """The whole configuration after the change."""
    revision: int = 0
    """Resume from it. Only the last event of a snapshot has it; if the snapshot was cut off,
    start again from 0."""
