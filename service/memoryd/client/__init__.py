"""What callers import: clients for each service, and errors.

    async with MemoryClient("localhost:50051") as memory:
        stored = await memory.store("user-123", "prefers e-mail", content_type="preference")
        print(stored.memory.memory_id)

Arguments are plain Python: `metadata` is a mapping of JSON values, times are aware datetimes,
durations are timedeltas. An argument that is not given stays unset, and the service's default
applies. Methods return the messages of `memoryd.v1`; their type stubs document every field.

`api_key` or `token_provider` say who calls, `tls` how the connection is encrypted. Without
arguments the variables MEMORYD_TARGET and MEMORYD_API_KEY count.

A call that the service refuses raises a subclass of `MemorydError`; `memoryd.client.errors` lists
them. An argument that cannot be sent raises a ValueError or TypeError that names it, before
anything is sent. Calls that are safe to retry are retried, with back-off, while the service is
unavailable and their deadline allows.
"""

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
from memoryd.v1.condition_pb2 import ConditionOp
from memoryd.v1.conversation_pb2 import (
    Blob,
    Conversation,
    ConversationChange,
    File,
    Message,
    Part,
    Role,
    ToolCall,
    ToolResult,
)
from memoryd.v1.document_pb2 import Document, DocumentChange
from memoryd.v1.memory_pb2 import ContentType, Memory, MemoryChange, StoreOutcome
from memoryd.v1.session_pb2 import Session
from memoryd.v1.tool_config_pb2 import Provenance, ToolConfig, ToolConfigChange

__all__ = [
    "DEFAULT_TIMEOUT",
    "MAX_REQUEST_BYTES",
    "MAX_RESPONSE_BYTES",
    "TLS",
    "Aborted",
    "AlreadyExists",
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
    "Role",
    "Session",
    "SessionClient",
    "SettingValue",
    "StoreOutcome",
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
