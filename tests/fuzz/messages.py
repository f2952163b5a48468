"""Hostile requests: strategies made from the descriptors, and valid requests to start from.

Requests contain placeholders of equal length: `filled` replaces each of `MEMORY_IDS` by a stored
memory's identifier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from google.protobuf import descriptor_pool, struct_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import strategies as st
from tests import flags

from memoryd.rpc import page_token, reflection
from memoryd.v1 import memory_pb2, session_pb2, tool_config_pb2

from . import conversation_messages, document_messages

SERVICES = (
    "memoryd.v1.MemoryService",
    "memoryd.v1.SessionService",
    "memoryd.v1.DocumentService",
    "memoryd.v1.ConversationService",
    "memoryd.v1.ToolConfigService",
    *(version.DESCRIPTOR.services_by_name["Service"].full_name for version in (flags.v1, flags.v2)),
    "grpc.health.v1.Health",
    *(service.full_name for service in reflection.SERVICES),
)
METHODS: tuple[MethodDescriptor, ...] = tuple(
    method
    for service in SERVICES
    for method in descriptor_pool.Default().FindServiceByName(service).methods
)

ALLOWED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
}
"""The codes with which any call may end."""

SESSION = "fuzz-1"
MEMORY_IDS = tuple(f"00000000-0000-7000-8000-00000000000{place}" for place in range(3))
REQUEST_ID = "0197d3e2-7a44-4e2a-b2f0-3c1d5e6f7a8b"
MERGE_ID = "0197d3e2-7a44-4e2a-b2f0-3c1d5e6f7a8c"
SURROGATE_HERE = "\ufffe"
"""As long in UTF-8 as the lone surrogate, which is not valid text, that may replace it."""


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def is_endless(method: MethodDescriptor) -> bool:
    """Whether its answers end only when the caller leaves."""
    return bool(method.server_streaming) and method.name.startswith(("Watch", "EventStream"))


def filled(data: bytes, memory_ids: Sequence[str]) -> bytes:
    """Replace the placeholders by stored memories, as far as there are any."""
    for placeholder, memory_id in zip(MEMORY_IDS, memory_ids, strict=False):
        data = data.replace(placeholder.encode(), memory_id.encode())
    return data


# Valid requests


def _store(**fields: Any) -> memory_pb2.StoreMemoryRequest:
    return memory_pb2.StoreMemoryRequest(
        **{"session_id": SESSION, "content": "Prefers tea over coffee", **fields}
    )


def _config(tool: str, **fields: Any) -> tool_config_pb2.ToolConfig:
    return tool_config_pb2.ToolConfig(tool=tool, **fields)


_FILTER = memory_pb2.MemoryFilter(
    content_types=[memory_pb2.CONTENT_TYPE_FACT, memory_pb2.CONTENT_TYPE_CONTEXT],
    min_importance=0.1,
    metadata={"speaker": "Ada"},
    created_after=datetime(2026, 1, 1, tzinfo=UTC),
    created_before=datetime(2027, 1, 1, tzinfo=UTC),
    tags_any=["a", "b"],
    tags_all=["a"],
    key_prefix="a/",
)
_CONTEXT = {"targetingKey": "ada", "roles": ["a", {"b": None}]}
_ONE = {"session_id": SESSION, "memory_id": MEMORY_IDS[0]}
_TOOL_CONFIGS = (
    _config("rag", enabled=True, rag={"chunk_size": 400, "similarity_threshold": 0.5}),
    _config("memory", memory={"max_entries": 20, "ttl_hours": 48}),
    _config("escalation", escalation={"keywords": {"fire": 1.0}, "notification_email": "a@b.c"}),
    _config("attachment", attachment={"allowed_extensions": [".txt"], "max_file_size": 2048}),
    _config("crm", crm={"api_endpoint": "https://crm.example", "api_key": "env://CRM_NO_KEY"}),
    _config("billing", enabled=False, billing={"api_key": "a literal"}),
    _config("inventory", inventory={"api_endpoint": "https://stock.example"}),
)

VALID: Mapping[str, tuple[Message, ...]] = {
    **document_messages.VALID,
    **conversation_messages.VALID,
    "ListSessions": (
        session_pb2.ListSessionsRequest(),
        session_pb2.ListSessionsRequest(session_id_prefix="fuzz-", page_size=1),
        session_pb2.ListSessionsRequest(labels={"team": "x"}),
    ),
    "MergeSessions": (
        session_pb2.MergeSessionsRequest(
            source_session_id="fuzz-4", target_session_id=SESSION, request_id=MERGE_ID
        ),
        session_pb2.MergeSessionsRequest(source_session_id="fuzz-5", target_session_id="fuzz-2"),
    ),
    "GetSession": (session_pb2.GetSessionRequest(session_id=SESSION),),
    "UpdateSession": (
        session_pb2.UpdateSessionRequest(
            session=session_pb2.Session(
                session_id=SESSION,
                display_name="Ada",
                labels={"team": "x"},
                state={"a": [1, {"b": None}]},
                memory_limit=10,
                memory_ttl=timedelta(hours=1),
            ),
            allow_missing=True,
        ),
        *(
            session_pb2.UpdateSessionRequest(
                session=session_pb2.Session(session_id=name, display_name="Bo"), allow_missing=True
            )
            for name in ("fuzz-4", "fuzz-5")  # which are merged into others
        ),
        session_pb2.UpdateSessionRequest(
            session=session_pb2.Session(session_id=SESSION, memories_never_expire=True),
            update_mask={"paths": ["*"]},
        ),
    ),
    "StoreMemory": (
        _store(),
        _store(importance=0.9, metadata={"a": [1, {"b": None}]}, ttl=timedelta(hours=1)),
        _store(content="x < 5 && y > 3", never_expires=True, request_id=REQUEST_ID),
        _store(content="Likes hail", key="a/key", tags=["b", "a", "ü"]),
        _store(content="<b>bold</b> text", expire_time=datetime(2030, 1, 1, tzinfo=UTC)),
    ),
    "BatchStoreMemories": (
        memory_pb2.BatchStoreMemoriesRequest(requests=[_store(), _store(content="Likes rain")]),
    ),
    "StreamStoreMemories": (
        memory_pb2.StreamStoreMemoriesRequest(
            requests=[_store(), _store(content="Likes snow", request_id=REQUEST_ID), _store()]
        ),
        memory_pb2.StreamStoreMemoriesRequest(),
    ),
    "GetMemory": (
        memory_pb2.GetMemoryRequest(**_ONE),
        memory_pb2.GetMemoryRequest(session_id=SESSION, key="a/key"),
    ),
    "ListMemories": (
        memory_pb2.ListMemoriesRequest(session_id=SESSION, page_size=2, show_deleted=True),
        memory_pb2.ListMemoriesRequest(session_id=SESSION, filter=_FILTER),
    ),
    "RetrieveMemories": (
        memory_pb2.RetrieveMemoriesRequest(session_id=SESSION),
        memory_pb2.RetrieveMemoriesRequest(session_id=SESSION, query="tea", filter=_FILTER),
    ),
    "FindSimilarMemories": (
        memory_pb2.FindSimilarMemoriesRequest(session_id=SESSION, content="tea", max_distance=64),
        memory_pb2.FindSimilarMemoriesRequest(**_ONE, limit=3),
    ),
    "UpdateMemory": (
        memory_pb2.UpdateMemoryRequest(
            memory=memory_pb2.Memory(**_ONE, content="Drinks tea", importance=0.2),
            update_mask=FieldMask(paths=["content", "importance"]),
            ttl=timedelta(days=2),
        ),
        memory_pb2.UpdateMemoryRequest(memory=memory_pb2.Memory(**_ONE, metadata={"a": 1})),
        memory_pb2.UpdateMemoryRequest(memory=memory_pb2.Memory(**_ONE, tags=["c"])),
    ),
    "DeleteMemory": (
        memory_pb2.DeleteMemoryRequest(**_ONE),
        memory_pb2.DeleteMemoryRequest(session_id=SESSION, key="a/key"),
    ),
    "ListMemoryRevisions": (memory_pb2.ListMemoryRevisionsRequest(**_ONE, page_size=1),),
    "RollbackMemory": (memory_pb2.RollbackMemoryRequest(**_ONE, revision=3),),
    "UndeleteMemory": (memory_pb2.UndeleteMemoryRequest(**_ONE),),
    "PurgeMemories": (
        memory_pb2.PurgeMemoriesRequest(session_id=SESSION),
        memory_pb2.PurgeMemoriesRequest(session_id=SESSION, filter=_FILTER, force=True),
    ),
    "EraseSession": (memory_pb2.EraseSessionRequest(session_id="fuzz-2"),),
    "WatchMemories": (memory_pb2.WatchMemoriesRequest(session_id=SESSION),),
    "ExportMemories": (memory_pb2.ExportMemoriesRequest(session_id=SESSION, filter=_FILTER),),
    "ListTools": (tool_config_pb2.ListToolsRequest(),),
    "GetToolConfig": (tool_config_pb2.GetToolConfigRequest(tool="rag"),),
    "UpdateToolConfig": tuple(
        tool_config_pb2.UpdateToolConfigRequest(tool_config=config, reason="because")
        for config in _TOOL_CONFIGS
    ),
    "ResetToolConfig": (
        tool_config_pb2.ResetToolConfigRequest(tool="rag", paths=["enabled", "rag.chunk_size"]),
    ),
    "ValidateToolConfig": tuple(
        tool_config_pb2.ValidateToolConfigRequest(tool_config=config) for config in _TOOL_CONFIGS
    ),
    "ListToolConfigRevisions": (
        tool_config_pb2.ListToolConfigRevisionsRequest(tool="rag", page_size=1),
    ),
    "RollbackToolConfig": (tool_config_pb2.RollbackToolConfigRequest(tool="rag", revision=1),),
    "WatchToolConfigs": (tool_config_pb2.WatchToolConfigsRequest(),),
    "ResolveAll": (flags.v1.ResolveAllRequest(context=_CONTEXT),),
    "ResolveBoolean": (
        flags.v1.ResolveBooleanRequest(flag_key="rag.enabled", context=_CONTEXT),
        flags.v1.ResolveBooleanRequest(flag_key="escalation.notification_enabled"),
    ),
    "ResolveString": (flags.v1.ResolveStringRequest(flag_key="crm.api_endpoint"),),
    "ResolveInt": (flags.v1.ResolveIntRequest(flag_key="attachment.max_file_size"),),
    "ResolveFloat": (
        flags.v1.ResolveFloatRequest(flag_key="rag.similarity_threshold"),
        flags.v1.ResolveFloatRequest(flag_key="rag.chunk_size"),
    ),
    "ResolveObject": tuple(
        flags.v1.ResolveObjectRequest(flag_key=key, context=_CONTEXT)
        for key in ("crm", "escalation.keywords", "attachment.allowed_extensions")
    ),
    "EventStream": (flags.v1.EventStreamRequest(),),
    "Check": (health_pb2.HealthCheckRequest(service="memoryd.v1.MemoryService"),),
    "List": (GetMessageClass(health_pb2.DESCRIPTOR.message_types_by_name["HealthListRequest"])(),),
    "Watch": (health_pb2.HealthCheckRequest(),),
    "ServerReflectionInfo": (
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="memoryd.v1.Memory"),
    ),
}
"""Valid requests by the method's name."""


# Hostile values

_TEXTS = (
    "",
    " ",
    "\0",
    "a\0b",
    SURROGATE_HERE,
    "\x1b[31m\r\nforged=line",
    "'; DROP TABLE memories; --",
    "1'OR'1'='1",
    "%00%2e%2e%2f",
    "../../etc/passwd",
    "%s%n{0}${jndi:ldap://x}:name",
    "<script>alert(1)</script>",
    "<svg><p><style><!--</style><img src=x onerror=alert(1)>--></style>",
    "&lt;script&gt;&amp;#106;avascript:alert(1)",
    "java\tscript:alert(1) data:text/html,<p>",
    "us\u0435r \uff55ser",
    "\u202eabc\u200b\ufeff\u2028",
    "e\u0301\u0301\u0301 \U0010ffff 🏳️‍🌈",
    "\\u0000 \\ud800 \"'`",
    "İ" * 50,
    "<a" * 2000,
    "&" * 2000,
    "x" * 16_385,
    "null",
    "NaN",
)
texts = st.one_of(
    st.sampled_from(_TEXTS),
    st.text(max_size=40),
    st.lists(st.sampled_from(_TEXTS), max_size=4).map("".join),
)
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (0, 1, -1, 2, 50, 1001, 2**31 - 1, -(2**31)),
    FieldDescriptor.CPPTYPE_INT64: (0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)),
    FieldDescriptor.CPPTYPE_UINT32: (0, 1, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 1, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (0, 1, 4, 5, -1, 99, 2**31 - 1, -(2**31)),
}
_DOUBLES = (
    *(0.0, -0.0, 0.3, 0.5, 1.0, 1.5, -1e-300, 5e-324, 1.7976931348623157e308, 1e19),
    *(2.0**53, 2.0**53 + 2, -(2.0**63), float("nan"), float("inf"), float("-inf")),
)
doubles = st.sampled_from(_DOUBLES) | st.floats()
_NANOS = st.sampled_from((0, 1, -1, 999, 999_999_999, 10**9, -999_999_999, 2**31 - 1, -(2**31)))
_MOMENTS = (
    *(0, -1, -62_135_596_800, -62_135_596_801, 253_402_300_799, 253_402_300_800),
    *(1_772_366_400, 2**63 - 1, -(2**63)),
)
_SPANS = (0, 1, -1, 60, 315_576_000_000, 315_576_000_001, -315_576_000_001, *_MOMENTS[4:])
_PATHS = (
    *(field.name for field in memory_pb2.Memory.DESCRIPTOR.fields),
    *("*", "", ".", "enabled", "rag.chunk_size", "crm.api_key", "metadata.a", "content.", "..."),
    *("tags", "key"),
)
_TOOLS = ("rag", "memory", "escalation", "attachment", "crm", "billing", "inventory")


def _nested(depth: int) -> dict[str, Any]:
    value: Any = "core"
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return {"a": value}


_KEYS = st.sampled_from(("a", "", "speaker", "occurred_at", "__proto__", "\0", "$.a", "'")) | texts
_json = st.one_of(
    st.dictionaries(
        _KEYS,
        st.recursive(
            st.none() | st.booleans() | doubles | texts,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
            max_leaves=8,
        ),
        max_size=4,
    ),
    st.sampled_from((7, 8, 9, 30)).map(_nested),
    st.just({f"key {number}": number for number in range(3_000)}),
)


def _struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(values)
    return struct


_WELL_KNOWN: Mapping[str, Callable[[type[Message]], st.SearchStrategy[Any]]] = {
    "google.protobuf.Timestamp": lambda kind: st.builds(
        kind, seconds=st.sampled_from(_MOMENTS), nanos=_NANOS
    ),
    "google.protobuf.Duration": lambda kind: st.builds(
        kind, seconds=st.sampled_from(_SPANS), nanos=_NANOS
    ),
    "google.protobuf.FieldMask": lambda kind: st.builds(
        kind,
        paths=st.lists(st.sampled_from(_PATHS) | texts, max_size=6) | st.just(["content"] * 5_000),
    ),
    "google.protobuf.Struct": lambda _: _json.map(_struct),
    # A null value has no number but 0; fuzzing the bytes covers other numbers.
    "google.protobuf.Value": lambda _: _json.map(
        lambda v: struct_pb2.Value(struct_value=_struct(v))
    ),
}
_NAMED: Mapping[str, st.SearchStrategy[Any]] = {
    "session_id": st.sampled_from((SESSION, "fuzz-2", "u" * 255)) | texts,
    "memory_id": st.sampled_from(MEMORY_IDS) | texts,
    "key": st.sampled_from(("", "a/key", "k" * 255, "k" * 256)) | texts,
    "key_prefix": st.sampled_from(("", "a/", "a")) | texts,
    **dict.fromkeys(("tags", "tags_any", "tags_all"), st.sampled_from(("a", "b", "ü")) | texts),
    "request_id": st.sampled_from(("", REQUEST_ID, REQUEST_ID.upper())) | texts,
    "tool": st.sampled_from(_TOOLS) | texts,
    "flag_key": st.sampled_from(("rag", "rag.enabled", "crm.api_key", "rag.search_k")) | texts,
    "api_key": st.sampled_from(
        ("env://NO_KEY", "env://CRM_NO_KEY", "env://", "vault://x", "secretsmanager://")
    )
    | texts,
    "service": st.sampled_from(("", *SERVICES)) | texts,
    "page_token": st.sampled_from(("", "A", "====", "A" * 32, "A" * 1025, "-_-_")) | texts,
}
_MAX_REPEATED = 4


def of_field(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Values for one element of a field."""
    if field.message_type is not None:
        return of_type(field.message_type)
    if field.name in _NAMED and field.type == field.TYPE_STRING:
        return _NAMED[field.name]
    if field.cpp_type in _INTEGERS:
        return st.sampled_from(_INTEGERS[field.cpp_type])
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return doubles
        case _:
            return st.binary(max_size=40) if field.type == field.TYPE_BYTES else texts


@st.composite
def _of_fields(draw: st.DrawFn, descriptor: Descriptor) -> Message:
    message = GetMessageClass(descriptor)()
    fields = list(descriptor.fields)
    chosen = draw(st.lists(st.sampled_from(fields), max_size=5, unique=True)) if fields else []
    for field in chosen:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = (field.message_type.fields_by_name[n] for n in ("key", "value"))
            entries = st.dictionaries(of_field(key), of_field(value), max_size=_MAX_REPEATED)
            getattr(message, field.name).update(draw(entries))
        elif field.is_repeated:
            values = draw(st.lists(of_field(field), max_size=_MAX_REPEATED))
            getattr(message, field.name).extend(values)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(draw(of_field(field)))
        else:
            setattr(message, field.name, draw(of_field(field)))
    return message


_known: dict[str, st.SearchStrategy[Any]] = {}


def of_type(descriptor: Descriptor) -> st.SearchStrategy[Any]:
    """Messages of a type: any of its fields, each with any value of its type."""
    name = descriptor.full_name
    if name not in _known:
        well_known = _WELL_KNOWN.get(name)
        kind = GetMessageClass(descriptor)
        _known[name] = (
            well_known(kind) if well_known else st.deferred(lambda: _of_fields(descriptor))
        )
    return _known[name]


@st.composite
def requests(draw: st.DrawFn, method: MethodDescriptor) -> Message:
    """Requests of a method: arbitrary ones, or valid ones that are usually changed."""
    anything = of_type(method.input_type)
    if draw(st.integers(0, 4)) == 0:
        message = draw(anything)
    else:
        valid = draw(st.sampled_from(VALID[method.name]))
        # Reflection's and flagd's have one form in two packages.
        message = GetMessageClass(method.input_type).FromString(valid.SerializeToString())
        fields = list(message.DESCRIPTOR.fields)
        for field in draw(st.lists(st.sampled_from(fields), max_size=2)) if fields else ():
            message.ClearField(field.name)
            if not field.is_repeated and field.message_type is None:
                setattr(message, field.name, draw(of_field(field)))
        if draw(st.booleans()):
            message.MergeFrom(draw(anything))
    if "page_token" in message.DESCRIPTOR.fields_by_name and draw(st.booleans()):
        position = draw(st.sampled_from((0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1)))
        name = draw(st.sampled_from((SESSION, "\U0010ffff", "a\x00b")))
        message.page_token = draw(
            st.sampled_from(
                (
                    page_token.encode(position, message, "default"),
                    page_token.encode_name(name, message, "default"),
                )
            )
        )
    return message


@st.composite
def wires(draw: st.DrawFn, method: MethodDescriptor) -> bytes:
    """Requests as bytes, sometimes with an error that no encoder makes."""
    data = draw(requests(method)).SerializeToString()
    match draw(st.integers(0, 15)):
        case 0:  # keys of maps twice, several of a oneof, messages in two parts
            data += draw(requests(method)).SerializeToString()
        case 1:
            data = data[: draw(st.integers(0, len(data)))]
        case 2:
            data = data.replace(SURROGATE_HERE.encode(), b"\xed\xa0\x80")
        case 3:
            place = draw(st.integers(0, len(data)))
            data = data[:place] + draw(st.binary(min_size=1, max_size=4)) + data[place + 1 :]
        case 4:  # a field that this release does not know
            data += b"\xfa\x3f\x05hello"
    return data
