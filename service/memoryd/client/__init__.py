"""What callers import: clients for each service, and errors.

    async with MemoryClient("localhost:50051") as memory:
        stored = await memory.store("user-123", "prefers e-mail", content_type="preference")
        print(stored.memory.memory_id)

Arguments are plain Python: `metadata` is a mapping of JSON values, times are aware datetimes,
durations are timedeltas. An argument that is not given stays unset, and the service's default
applies. Methods return the frozen dataclasses of `memoryd.client.answers`, in the same terms; the
`proto` of each is the message of `memoryd.v1` that it was made from.

`api_key` or `token_provider` say who calls, `tls` how the connection is encrypted. Without
arguments the variables MEMORYD_TARGET and MEMORYD_API_KEY count.

`memoryd.client.sync` has the same clients for programs without an event loop.

A call that the service refuses raises a subclass of `MemorydError`; `memoryd.client.errors` lists
them. An argument that cannot be sent raises a ValueError or TypeError that names it, before
anything is sent. Calls that are safe to retry are retried, with back-off, while the service is
unavailable and their deadline allows.
"""

from memoryd.client.access import AccessClient
from memoryd.client.answers import (
    ApiKey,
    AuditEvent,
    Blob,
    ConditionOp,
    ContentType,
    Conversation,
    ConversationChange,
    Document,
    DocumentChange,
    File,
    Memory,
    MemoryChange,
    Message,
    Part,
    Provenance,
    RetrievedMemory,
    Role,
    Session,
    StoreOutcome,
    Tenant,
    ToolCall,
    ToolConfig,
    ToolConfigChange,
    ToolResult,
)
from memoryd.client.channel import (
    DEFAULT_TIMEOUT,
    MAX_REQUEST_BYTES,
    MAX_RESPONSE_BYTES,
    open_channel,
)
from memoryd.client.context import Context
from memoryd.client.conversations import ConversationClient, ConversationHandle
from memoryd.client.documents import DocumentClient, Put, Remove
from memoryd.client.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    EtagMismatch,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    MemorydError,
    NotFound,
    OutOfRange,
    PermissionDenied,
    Quota,
    Resource,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Violation,
)
from memoryd.client.memories import MemoryClient
from memoryd.client.messages import Condition, Filter, JsonValue, NewMemory, SettingValue
from memoryd.client.new_messages import NewMessage, NewPart
from memoryd.client.sessions import SessionClient
from memoryd.client.tls import TLS
from memoryd.client.tools import ToolConfigClient
from memoryd.client.windows import Window

__all__ = [
    "DEFAULT_TIMEOUT",
    "MAX_REQUEST_BYTES",
    "MAX_RESPONSE_BYTES",
    "TLS",
    "Aborted",
    "AccessClient",
    "AlreadyExists",
    "ApiKey",
    "AuditEvent",
    "Blob",
    "Cancelled",
    "Condition",
    "ConditionOp",
    "ContentType",
    "Context",
    "Conversation",
    "ConversationChange",
    "ConversationClient",
    "ConversationHandle",
    "DeadlineExceeded",
    "Document",
    "DocumentChange",
    "DocumentClient",
    "EtagMismatch",
    "FailedPrecondition",
    "File",
    "Filter",
    "Internal",
    "InvalidArgument",
    "JsonValue",
    "Memory",
    "MemoryChange",
    "MemoryClient",
    "MemorydError",
    "Message",
    "NewMemory",
    "NewMessage",
    "NewPart",
    "NotFound",
    "OutOfRange",
    "Part",
    "PermissionDenied",
    "Provenance",
    "Put",
    "Quota",
    "Remove",
    "Resource",
    "ResourceExhausted",
    "RetrievedMemory",
    "Role",
    "Session",
    "SessionClient",
    "SettingValue",
    "StoreOutcome",
    "Tenant",
    "ToolCall",
    "ToolConfig",
    "ToolConfigChange",
    "ToolConfigClient",
    "ToolResult",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
    "Window",
    "open_channel",
]
