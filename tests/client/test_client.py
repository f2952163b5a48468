"""The client against a scripted server: what is sent, retried, raised and cleaned up.

These tests need what a real server does not do: outages between attempts, garbage in the details,
a stream that breaks in the middle.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import json
import pickle
import re
import socket
import subprocess
import sys
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2, duration_pb2, json_format, message_factory
from google.rpc import error_details_pb2, status_pb2

from memoryd import client
from memoryd.client import (
    ContentType,
    MemoryClient,
    MemorydError,
    NewMemory,
    ToolConfigClient,
    open_channel,
)
from memoryd.client import channel as client_channel
from memoryd.client import errors as client_errors
from memoryd.client import memories as client_memories
from memoryd.client import tools as client_tools
from memoryd.v1 import (
    access_pb2,
    conversation_pb2,
    document_pb2,
    memory_pb2,
    session_pb2,
    tool_config_pb2,
)
from memoryd.v1.memory_pb2 import Memory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator

    from google.protobuf.message import Message

MEMORY_ID = "0197d3e2-7a44-7e2a-b2f0-3c1d5e6f7a8b"
PAGE_2, PAGE_3 = "page-2", "page-3"
NOON = datetime(2030, 1, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))
CONVERSATION = {"session_id": "s", "conversation_id": "c"}
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in (
        *(memory_pb2.DESCRIPTOR, session_pb2.DESCRIPTOR),
        *(document_pb2.DESCRIPTOR, conversation_pb2.DESCRIPTOR, tool_config_pb2.DESCRIPTOR),
        access_pb2.DESCRIPTOR,
    )
    for service in file.services_by_name.values()
    for method in service.methods
}


@dataclass(frozen=True)
class Refusal:
    """An error as an answer."""

    code: grpc.StatusCode
    message: str = "no"
    details: tuple[Message, ...] = ()
    raw_details: bytes | None = None
    pushback_ms: int | None = None

    async def raise_in(self, context: grpc.aio.ServicerContext) -> None:
        trailers: list[tuple[str, str | bytes]] = []
        if self.details:
            status = status_pb2.Status(code=self.code.value[0], message=self.message)
            for detail in self.details:
                status.details.add().Pack(detail)
            trailers.append(("grpc-status-details-bin", status.SerializeToString()))
        if self.raw_details is not None:
            trailers.append(("grpc-status-details-bin", self.raw_details))
        if self.pushback_ms is not None:
            trailers.append(("grpc-retry-pushback-ms", str(self.pushback_ms)))
        await context.abort(self.code, self.message, tuple(trailers))


AWAY = Refusal(grpc.StatusCode.UNAVAILABLE, "the database is away", pushback_ms=1)


@dataclass(frozen=True)
class Call:
    """A call that the server received."""

    method: str
    request: Any
    metadata: dict[str, str | bytes]
    seconds_left: float | None


class ScriptedServer(grpc.GenericRpcHandler):
    """Answers every method of both services as scripted, else with an empty message."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.held = asyncio.Event()
        self.cancelled = asyncio.Event()
        self._scripts: dict[str, list[tuple[Message | Refusal | None, ...]]] = defaultdict(list)

    def will_answer(self, method: str, *parts: Message | Refusal | None) -> None:
        """Add the answer to one call: messages, then perhaps a refusal; None never ends.

        The last answer added also answers all later calls.
        """
        self._scripts[method].append(parts)

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = METHODS[handler_call_details.method]
        if method.client_streaming:
            return None  # a release before it; tests of its own have the stream of stores
        request_class = message_factory.GetMessageClass(method.input_type)
        response_class = message_factory.GetMessageClass(method.output_type)

        async def stream(request: Message, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            metadata = dict(context.invocation_metadata() or ())
            self.calls.append(Call(method.name, request, metadata, context.time_remaining()))
            script = self._scripts[method.name]
            for part in (script.pop(0) if len(script) > 1 else script[0]) if script else ():
                if part is None:
                    self.held.set()
                    try:
                        await asyncio.Event().wait()
                    finally:
                        self.cancelled.set()
                elif isinstance(part, Refusal):
                    await part.raise_in(context)
                else:
                    yield part

        async def unary(request: Message, context: grpc.aio.ServicerContext) -> Message:
            async with contextlib.aclosing(stream(request, context)) as parts:
                async for part in parts:
                    return part
            return response_class()

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(
                stream, request_class.FromString, response_class.SerializeToString
            )
        return grpc.unary_unary_rpc_method_handler(
            unary, request_class.FromString, response_class.SerializeToString
        )


@contextlib.asynccontextmanager
async def serving(handler: ScriptedServer) -> AsyncIterator[str]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 4 * 1024 * 1024)])
    server.add_generic_rpc_handlers([handler])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@dataclass(frozen=True)
class Rig:
    server: ScriptedServer
    address: str
    memory: MemoryClient
    tools: ToolConfigClient
    sessions: client.SessionClient
    documents: client.DocumentClient
    conversations: client.ConversationClient
    access: client.AccessClient

    @property
    def conversation(self) -> client.ConversationHandle:
        return self.conversations.conversation("s", "c")


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    scripted = ScriptedServer()
    async with serving(scripted) as address, open_channel(address) as channel:
        kinds = (
            *(MemoryClient, ToolConfigClient),
            *(client.SessionClient, client.DocumentClient, client.ConversationClient),
            client.AccessClient,
        )
        yield Rig(scripted, address, *(kind(channel=channel) for kind in kinds))


async def drain(answer: Awaitable[Any] | AsyncGenerator[Any, None]) -> Any:
    if inspect.isasyncgen(answer):
        return [each async for each in answer]
    return await answer


# What is sent

SENT: list[tuple[Callable[[Rig], Any], str, dict[str, Any]]] = [
    (
        lambda rig: rig.memory.store("s", "likes tea", request_id=MEMORY_ID),
        "StoreMemory",
        {"session_id": "s", "content": "likes tea", "request_id": MEMORY_ID},
    ),
    (
        lambda rig: rig.memory.store(
            "s",
            "likes tea",
            content_type="preference",
            importance=0,
            metadata={"n": 3, "x": 0.5, "deep": {"list": [None, True, "a", (1,)]}},
            ttl=timedelta(hours=1, microseconds=1),
            request_id=MEMORY_ID,
        ),
        "StoreMemory",
        {
            "session_id": "s",
            "content": "likes tea",
            "content_type": "CONTENT_TYPE_PREFERENCE",
            "importance": 0.0,
            "metadata": {"n": 3.0, "x": 0.5, "deep": {"list": [None, True, "a", [1.0]]}},
            "ttl": "3600.000001s",
            "request_id": MEMORY_ID,
        },
    ),
    (
        lambda rig: rig.memory.store("s", "c", expire_time=NOON, request_id=MEMORY_ID),
        "StoreMemory",
        {
            "session_id": "s",
            "content": "c",
            "expire_time": "2030-01-01T10:30:00Z",
            "request_id": MEMORY_ID,
        },
    ),
    (
        lambda rig: rig.memory.store_many(
            [
                NewMemory("s", "a", never_expires=True, request_id=MEMORY_ID),
                NewMemory(
                    "t",
                    "b",
                    content_type=ContentType.FACT,
                    metadata={},
                    request_id=MEMORY_ID,
                ),
            ]
        ),
        "BatchStoreMemories",
        {
            "requests": [
                {
                    "session_id": "s",
                    "content": "a",
                    "never_expires": True,
                    "request_id": MEMORY_ID,
                },
                {
                    "session_id": "t",
                    "content": "b",
                    "content_type": "CONTENT_TYPE_FACT",
                    "metadata": {},
                    "request_id": MEMORY_ID,
                },
            ]
        },
    ),
    (
        lambda rig: rig.memory.get("s", MEMORY_ID),
        "GetMemory",
        {"session_id": "s", "memory_id": MEMORY_ID},
    ),
    (
        lambda rig: rig.memory.list_page(
            "s",
            page_size=7,
            page_token=PAGE_2,
            show_deleted=True,
            content_types=["fact", ContentType.USER_INFO],
            min_importance=0,
            metadata={"speaker": "Ann"},
            created_after=NOON,
            created_before=NOON + timedelta(days=1),
        ),
        "ListMemories",
        {
            "session_id": "s",
            "page_size": 7,
            "page_token": PAGE_2,
            "show_deleted": True,
            "filter": {
                "content_types": ["CONTENT_TYPE_FACT", "CONTENT_TYPE_USER_INFO"],
                "min_importance": 0.0,
                "metadata": {"speaker": "Ann"},
                "created_after": "2030-01-01T10:30:00Z",
                "created_before": "2030-01-02T10:30:00Z",
            },
        },
    ),
    (
        lambda rig: rig.memory.retrieve("s", "tea?", limit=3, peek=True, content_types=["fact"]),
        "RetrieveMemories",
        {
            "session_id": "s",
            "query": "tea?",
            "limit": 3,
            "peek": True,
            "filter": {"content_types": ["CONTENT_TYPE_FACT"]},
        },
    ),
    (
        lambda rig: rig.memory.retrieve(
            "s", "tea?", session_ids=["t", "u"], importance_weight=0.0, diversify=False
        ),
        "RetrieveMemories",
        {
            "session_id": "s",
            "query": "tea?",
            "filter": {},
            "session_ids": ["t", "u"],
            "importance_weight": 0.0,
            "diversify": False,
        },
    ),
    (
        lambda rig: rig.memory.retrieve(
            "s", "tea?", min_relevance=0.0, max_chars=4000, exclude_memory_ids=iter(["m", "n"])
        ),
        "RetrieveMemories",
        {
            "session_id": "s",
            "query": "tea?",
            "filter": {},
            "min_relevance": 0.0,
            "max_chars": 4000,
            "exclude_memory_ids": ["m", "n"],
        },
    ),
    (
        lambda rig: rig.memory.find_similar("s", "tea", max_distance=0, limit=2),
        "FindSimilarMemories",
        {"session_id": "s", "content": "tea", "max_distance": 0, "limit": 2},
    ),
    (
        lambda rig: rig.memory.find_similar("s", memory_id=MEMORY_ID, min_similarity=0),
        "FindSimilarMemories",
        {"session_id": "s", "memory_id": MEMORY_ID, "min_similarity": 0.0},
    ),
    (
        lambda rig: rig.memory.update(
            "s", MEMORY_ID, content="new", importance=0, metadata={}, etag="r7"
        ),
        "UpdateMemory",
        {
            "memory": {
                "session_id": "s",
                "memory_id": MEMORY_ID,
                "content": "new",
                "importance": 0.0,
                "metadata": {},
                "etag": "r7",
            },
            "update_mask": "content,importance,metadata",
        },
    ),
    (
        lambda rig: rig.memory.update("s", MEMORY_ID, content_type="fact", expire_time=NOON),
        "UpdateMemory",
        {
            "memory": {
                "session_id": "s",
                "memory_id": MEMORY_ID,
                "content_type": "CONTENT_TYPE_FACT",
                "expire_time": "2030-01-01T10:30:00Z",
            },
            "update_mask": "contentType,expireTime",
        },
    ),
    (
        lambda rig: rig.memory.update("s", MEMORY_ID, never_expires=True),
        "UpdateMemory",
        {"memory": {"session_id": "s", "memory_id": MEMORY_ID}, "update_mask": "expireTime"},
    ),
    (
        lambda rig: rig.memory.update("s", MEMORY_ID, ttl=timedelta(days=2)),
        "UpdateMemory",
        {
            "memory": {"session_id": "s", "memory_id": MEMORY_ID},
            "update_mask": "",
            "ttl": "172800s",
        },
    ),
    (
        lambda rig: rig.memory.delete("s", MEMORY_ID, etag="r7"),
        "DeleteMemory",
        {"session_id": "s", "memory_id": MEMORY_ID, "etag": "r7"},
    ),
    (
        lambda rig: rig.memory.store("s", "tea", key="a/b", tags=("y", "x"), request_id=MEMORY_ID),
        "StoreMemory",
        {
            "session_id": "s",
            "content": "tea",
            "key": "a/b",
            "tags": ["y", "x"],
            "request_id": MEMORY_ID,
        },
    ),
    (
        lambda rig: rig.memory.get("s", key="a/b"),
        "GetMemory",
        {"session_id": "s", "key": "a/b"},
    ),
    (
        lambda rig: rig.memory.delete("s", key="a/b", etag="r7"),
        "DeleteMemory",
        {"session_id": "s", "key": "a/b", "etag": "r7"},
    ),
    (
        lambda rig: rig.memory.update("s", MEMORY_ID, tags=[]),
        "UpdateMemory",
        {"memory": {"session_id": "s", "memory_id": MEMORY_ID}, "update_mask": "tags"},
    ),
    (
        lambda rig: rig.memory.list("s", tags_any=["x"], tags_all=("y", "z"), key_prefix="a/"),
        "ListMemories",
        {
            "session_id": "s",
            "filter": {"tags_any": ["x"], "tags_all": ["y", "z"], "key_prefix": "a/"},
        },
    ),
    (
        lambda rig: rig.memory.revisions("s", MEMORY_ID, page_size=9),
        "ListMemoryRevisions",
        {"session_id": "s", "memory_id": MEMORY_ID, "page_size": 9},
    ),
    (
        lambda rig: rig.memory.rollback("s", MEMORY_ID, 4),
        "RollbackMemory",
        {"session_id": "s", "memory_id": MEMORY_ID, "revision": "4"},
    ),
    (
        lambda rig: rig.memory.undelete("s", MEMORY_ID),
        "UndeleteMemory",
        {"session_id": "s", "memory_id": MEMORY_ID},
    ),
    (
        lambda rig: rig.memory.purge("s", force=True, created_before=NOON),
        "PurgeMemories",
        {
            "session_id": "s",
            "force": True,
            "filter": {"created_before": "2030-01-01T10:30:00Z"},
        },
    ),
    (lambda rig: rig.memory.erase("s"), "EraseSession", {"session_id": "s"}),
    (
        lambda rig: rig.memory.watch("s", 12),
        "WatchMemories",
        {"session_id": "s", "start_revision": "12"},
    ),
    (
        lambda rig: rig.memory.export("s", show_deleted=True, min_importance=0.5),
        "ExportMemories",
        {"session_id": "s", "show_deleted": True, "filter": {"min_importance": 0.5}},
    ),
    (lambda rig: rig.tools.list_tools(), "ListTools", {}),
    (lambda rig: rig.tools.get("rag"), "GetToolConfig", {"tool": "rag"}),
    (
        lambda rig: rig.tools.update(
            "rag",
            {"chunk_size": 400, "similarity_threshold": 0, "cache_enabled": False},
            enabled=False,
            etag="r3",
            reason="shorter",
            validate_only=True,
        ),
        "UpdateToolConfig",
        {
            "tool_config": {
                "tool": "rag",
                "enabled": False,
                "rag": {"chunk_size": 400, "similarity_threshold": 0.0, "cache_enabled": False},
                "etag": "r3",
            },
            "update_mask": "enabled,rag.chunkSize,rag.similarityThreshold,rag.cacheEnabled",
            "validate_only": True,
            "reason": "shorter",
        },
    ),
    (
        lambda rig: rig.tools.update("escalation", {"keywords": {}}),
        "UpdateToolConfig",
        {
            "tool_config": {"tool": "escalation", "escalation": {}},
            "update_mask": "escalation.keywords",
        },
    ),
    (
        lambda rig: rig.tools.update(
            "attachment", {"allowed_extensions": [".pdf"], "max_file_size": 2**40}
        ),
        "UpdateToolConfig",
        {
            "tool_config": {
                "tool": "attachment",
                "attachment": {"allowed_extensions": [".pdf"], "max_file_size": str(2**40)},
            },
            "update_mask": "attachment.allowedExtensions,attachment.maxFileSize",
        },
    ),
    (
        lambda rig: rig.tools.reset("rag", "enabled", "rag.chunk_size", reason="back"),
        "ResetToolConfig",
        {"tool": "rag", "paths": ["enabled", "rag.chunk_size"], "reason": "back"},
    ),
    (
        lambda rig: rig.tools.validate("crm", {"timeout": 5}, enabled=True),
        "ValidateToolConfig",
        {"tool_config": {"tool": "crm", "enabled": True, "crm": {"timeout": 5}}},
    ),
    (
        lambda rig: rig.tools.revisions("rag", page_size=9),
        "ListToolConfigRevisions",
        {"tool": "rag", "page_size": 9},
    ),
    (
        lambda rig: rig.tools.rollback("rag", 4, reason="undo"),
        "RollbackToolConfig",
        {"tool": "rag", "revision": "4", "reason": "undo"},
    ),
    (lambda rig: rig.tools.watch(5), "WatchToolConfigs", {"start_revision": "5"}),
    *(
        (call, method, {**named, "layer": "LAYER_INSTANCE"})
        for call, method, named in (
            (
                lambda rig: rig.tools.get("rag", instance=True),
                "GetToolConfig",
                {"tool": "rag"},
            ),
            (
                lambda rig: rig.tools.update("rag", {"search_k": 8}, instance=True),
                "UpdateToolConfig",
                {
                    "tool_config": {"tool": "rag", "rag": {"search_k": 8}},
                    "update_mask": "rag.searchK",
                },
            ),
            (
                lambda rig: rig.tools.reset("rag", instance=True),
                "ResetToolConfig",
                {"tool": "rag"},
            ),
            (
                lambda rig: rig.tools.validate("rag", {"search_k": 8}, instance=True),
                "ValidateToolConfig",
                {"tool_config": {"tool": "rag", "rag": {"search_k": 8}}},
            ),
            (
                lambda rig: rig.tools.revisions("rag", instance=True),
                "ListToolConfigRevisions",
                {"tool": "rag"},
            ),
            (
                lambda rig: rig.tools.rollback("rag", 4, instance=True),
                "RollbackToolConfig",
                {"tool": "rag", "revision": "4"},
            ),
        )
    ),
    (
        lambda rig: rig.sessions.list("s", labels={"a": "b"}, page_size=5),
        "ListSessions",
        {"session_id_prefix": "s", "labels": {"a": "b"}, "page_size": 5},
    ),
    (lambda rig: rig.sessions.get("s"), "GetSession", {"session_id": "s"}),
    (
        lambda rig: rig.sessions.update("s", display_name="S", etag="s1", allow_missing=True),
        "UpdateSession",
        {
            "session": {"session_id": "s", "display_name": "S", "etag": "s1"},
            "update_mask": "displayName",
            "allow_missing": True,
        },
    ),
    (
        lambda rig: rig.sessions.merge("v", "s", request_id=MEMORY_ID),
        "MergeSessions",
        {"source_session_id": "v", "target_session_id": "s", "request_id": MEMORY_ID},
    ),
    (
        lambda rig: rig.documents.put("s", client.Put("k", text="t"), request_id=MEMORY_ID),
        "PutDocument",
        {"document": {"session_id": "s", "key": "k", "text": "t"}, "request_id": MEMORY_ID},
    ),
    (
        lambda rig: rig.documents.write_many(
            "s", [client.Put("k", text="t"), client.Remove("l")], request_id=MEMORY_ID
        ),
        "BatchWriteDocuments",
        {
            "session_id": "s",
            "writes": [
                {"put": {"document": {"key": "k", "text": "t"}}},
                {"delete": {"key": "l"}},
            ],
            "request_id": MEMORY_ID,
        },
    ),
    (
        lambda rig: rig.documents.get("s", "k", namespace=["n"], refresh_ttl=True),
        "GetDocument",
        {"session_id": "s", "namespace": ["n"], "key": "k", "refresh_ttl": True},
    ),
    (
        lambda rig: rig.documents.get_many("s", [(["n"], "k")]),
        "BatchGetDocuments",
        {"session_id": "s", "names": [{"namespace": ["n"], "key": "k"}]},
    ),
    (
        lambda rig: rig.documents.delete("s", "k", etag="r1", allow_missing=True),
        "DeleteDocument",
        {"session_id": "s", "key": "k", "etag": "r1", "allow_missing": True},
    ),
    (
        lambda rig: rig.documents.delete_all("s", ["n"], force=True),
        "DeleteDocuments",
        {"session_id": "s", "namespace_prefix": ["n"], "force": True},
    ),
    (
        lambda rig: rig.documents.list("s", ["n"], labels={"a": "b"}),
        "ListDocuments",
        {
            "session_id": "s",
            "namespace_prefix": ["n"],
            "filter": {"labels": {"a": "b"}},
            "view": "DOCUMENT_VIEW_FULL",
        },
    ),
    (
        lambda rig: rig.documents.namespaces("s", prefix=["*"], max_depth=2),
        "ListNamespaces",
        {"session_id": "s", "prefix": ["*"], "max_depth": 2},
    ),
    (
        lambda rig: rig.documents.revisions("s", "k"),
        "ListDocumentRevisions",
        {"session_id": "s", "key": "k"},
    ),
    (
        lambda rig: rig.documents.watch("s", 4, namespace_prefix=["n"]),
        "WatchDocuments",
        {"session_id": "s", "start_revision": "4", "namespace_prefix": ["n"]},
    ),
    (
        lambda rig: rig.documents.move("s", (["n"], "k"), (["m"], "l")),
        "MoveDocuments",
        {
            "session_id": "s",
            "from": {"namespace": ["n"], "key": "k"},
            "to": {"namespace": ["m"], "key": "l"},
        },
    ),
    (
        lambda rig: rig.documents.move_all("s", ["n"], ["m"]),
        "MoveDocuments",
        {"session_id": "s", "from": {"namespace": ["n"]}, "to": {"namespace": ["m"]}},
    ),
    (
        lambda rig: rig.documents.search("s", query="q", limit=5, skip=2, refresh_ttl=True),
        "SearchDocuments",
        {"session_id": "s", "query": "q", "limit": 5, "skip": 2, "refresh_ttl": True},
    ),
    (
        lambda rig: rig.documents.export("s", ["n"]),
        "ExportDocuments",
        {"session_id": "s", "namespace_prefix": ["n"]},
    ),
    (
        lambda rig: rig.conversations.create(
            "s", "c", display_name="C", labels={"a": "b"}, state={"n": 1}, never_expires=True
        ),
        "CreateConversation",
        {
            "conversation": CONVERSATION
            | {"display_name": "C", "labels": {"a": "b"}, "state": {"n": 1.0}}
            | {"never_expires": True}
        },
    ),
    (
        lambda rig: rig.conversations.list(session_id_prefix="", labels={"a": "b"}, page_size=5),
        "ListConversations",
        {"session_id_prefix": "", "labels": {"a": "b"}, "page_size": 5},
    ),
    (
        lambda rig: rig.conversation.rewrite("m1", user="Or?", request_id=MEMORY_ID, etag="r1"),
        "RewriteMessages",
        CONVERSATION
        | {"after_message_id": "m1", "expected_etag": "r1", "request_id": MEMORY_ID}
        | {"messages": [{"role": "ROLE_USER", "parts": [{"text": "Or?"}]}]},
    ),
    *(
        (call, method, CONVERSATION | values)
        for call, method, values in (
            (lambda rig: rig.conversation.get(), "GetConversation", {}),
            (lambda rig: rig.conversation.export(), "ExportMessages", {}),
            (lambda rig: rig.conversation.watch(4), "WatchConversations", {"start_revision": "4"}),
            (
                lambda rig: rig.conversation.promote(
                    ["m1"],
                    roles=["user", client.Role.TOOL],
                    exclude_message_ids=["m2"],
                    content_type="fact",
                    importance=0,
                    never_expires=True,
                ),
                "PromoteMessages",
                {
                    "message_ids": ["m1"],
                    "roles": ["ROLE_USER", "ROLE_TOOL"],
                    "exclude_message_ids": ["m2"],
                    "content_type": "CONTENT_TYPE_FACT",
                    "importance": 0.0,
                    "never_expires": True,
                },
            ),
            (
                lambda rig: rig.conversation.promote(since_last=True, ttl=timedelta(days=1)),
                "PromoteMessages",
                {"since_last": True, "ttl": "86400s"},
            ),
            (
                lambda rig: rig.conversation.delete(allow_missing=True, etag="r1"),
                "DeleteConversation",
                {"allow_missing": True, "etag": "r1"},
            ),
            (
                lambda rig: rig.conversation.append(
                    assistant="Yes.",
                    user="",
                    state_patch={"step": None},
                    etag="r1",
                    request_id=MEMORY_ID,
                ),
                "AppendMessages",
                {
                    "messages": [
                        {"role": "ROLE_ASSISTANT", "parts": [{"text": "Yes."}]},
                        {"role": "ROLE_USER", "parts": [{"text": ""}]},
                    ],
                    "state_patch": {"step": None},
                    "expected_etag": "r1",
                    "request_id": MEMORY_ID,
                },
            ),
            (
                lambda rig: rig.conversation.messages(
                    last=3, branch_head="m1", complete_turns=True, with_summary=True, page_size=2
                ),
                "ListMessages",
                {
                    "last": 3,
                    "branch_head": "m1",
                    "complete_turns": True,
                    "with_summary": True,
                    "page_size": 2,
                },
            ),
            (
                lambda rig: rig.conversation.window(max_tokens=4000),
                "ListMessages",
                {"max_tokens": "4000"},
            ),
            (
                lambda rig: rig.conversation.window(since=NOON),
                "ListMessages",
                {"since": "2030-01-01T10:30:00Z"},
            ),
            (
                lambda rig: rig.conversation.window(after_message_id="m1"),
                "ListMessages",
                {"after_message_id": "m1"},
            ),
            (
                lambda rig: rig.conversation.pop(2, etag="r1", request_id=MEMORY_ID),
                "PopMessages",
                {"count": 2, "expected_etag": "r1", "request_id": MEMORY_ID},
            ),
            (
                lambda rig: rig.conversation.fork("d", at_message_id="m1", etag="r1"),
                "ForkConversation",
                {"new_conversation_id": "d", "at_message_id": "m1", "expected_etag": "r1"},
            ),
            (
                lambda rig: rig.conversation.set_head("m1", etag="r1"),
                "SetHead",
                {"message_id": "m1", "expected_etag": "r1"},
            ),
            (
                lambda rig: rig.conversation.set_summary("Tea.", "m1", token_count=0, etag="r1"),
                "SetSummary",
                {
                    "summary": {"text": "Tea.", "through_message_id": "m1", "token_count": 0},
                    "expected_etag": "r1",
                },
            ),
        )
    ),
    (
        lambda rig: rig.conversation.update(labels={}, ttl=timedelta(days=1), etag="r1"),
        "UpdateConversation",
        {
            "conversation": CONVERSATION | {"ttl": "86400s", "etag": "r1"},
            "update_mask": "labels,ttl",
        },
    ),
    (lambda rig: rig.access.who_am_i(), "WhoAmI", {}),
    (
        lambda rig: rig.access.create_key(
            "bot", ["agent"], tenant="t", sessions=["user-*"], ttl=timedelta(days=1)
        ),
        "CreateApiKey",
        {
            "tenant": "t",
            "name": "bot",
            "scopes": ["agent"],
            "sessions": ["user-*"],
            "ttl": "86400s",
        },
    ),
    (
        lambda rig: rig.access.create_key("bot", ["agent"], never_expires=True),
        "CreateApiKey",
        {"name": "bot", "scopes": ["agent"], "never_expires": True},
    ),
    (
        lambda rig: rig.access.keys(tenant="t", page_size=7),
        "ListApiKeys",
        {"tenant": "t", "page_size": 7},
    ),
    (
        lambda rig: rig.access.revoke_key("k", tenant="t"),
        "RevokeApiKey",
        {"tenant": "t", "key_id": "k"},
    ),
    (
        lambda rig: rig.access.rotate_key("k", overlap=timedelta(hours=1)),
        "RotateApiKey",
        {"key_id": "k", "overlap": "3600s"},
    ),
    (lambda rig: rig.access.tenants(page_size=7), "ListTenants", {"page_size": 7}),
    (
        lambda rig: rig.access.update_tenant(
            "t", disabled=False, tokens_not_before=NOON, quotas={"memories": 5, "streams": 0}
        ),
        "UpdateTenant",
        {
            "tenant": "t",
            "disabled": False,
            "tokens_not_before": "2030-01-01T10:30:00Z",
            "quotas": {"memories": "5", "streams": 0},
        },
    ),
    (
        lambda rig: rig.access.audit_events(all_tenants=True, since=NOON, page_size=7),
        "ListAuditEvents",
        {"all_tenants": True, "since": "2030-01-01T10:30:00Z", "page_size": 7},
    ),
    (lambda rig: rig.access.usage(tenant="t"), "GetUsage", {"tenant": "t"}),
]


@pytest.mark.parametrize(("call", "method", "request_json"), SENT)
async def test_arguments_become_the_request(
    rig: Rig, call: Callable[[Rig], Any], method: str, request_json: dict[str, Any]
) -> None:
    await drain(call(rig))
    assert [each.method for each in rig.server.calls] == [method]
    sent = json_format.MessageToDict(rig.server.calls[0].request, preserving_proto_field_name=True)
    if "filter" not in request_json:
        assert sent.pop("filter", {}) == {}
    assert sent == request_json


def test_every_rpc_has_its_method() -> None:
    # `store` uses the stream of stores where several are under way.
    sent = {method for _, method, _ in SENT} | {"StreamStoreMemories"}
    assert sent == {method.name for method in METHODS.values()}


async def test_answers_are_the_messages_that_the_server_sent(rig: Rig) -> None:
    answer = memory_pb2.StoreMemoryResponse(
        memory=Memory(memory_id=MEMORY_ID), outcome=memory_pb2.STORE_OUTCOME_MERGED
    )
    rig.server.will_answer("StoreMemory", answer)
    stored = await rig.memory.store("s", "c")
    assert stored.proto == answer
    assert (stored.memory.memory_id, stored.outcome) == (MEMORY_ID, "merged")


async def test_each_store_gets_its_own_request_id(rig: Rig) -> None:
    await rig.memory.store("s", "c")
    await rig.memory.store("s", "c")
    ids = [uuid.UUID(call.request.request_id) for call in rig.server.calls]
    assert len(set(ids)) == 2


async def test_the_same_new_memory_sent_again_is_the_same_request(rig: Rig) -> None:
    memories = [NewMemory("s", "a"), NewMemory("s", "a")]
    await rig.memory.store_many(memories)
    await rig.memory.store_many(memories)
    first, second = (call.request for call in rig.server.calls)
    assert first == second
    assert len({request.request_id for request in first.requests}) == 2


async def test_list_reads_page_after_page(rig: Rig) -> None:
    page = memory_pb2.ListMemoriesResponse
    rig.server.will_answer(
        "ListMemories",
        page(memories=[Memory(content="a"), Memory(content="b")], next_page_token=PAGE_2),
    )
    rig.server.will_answer("ListMemories", page(next_page_token=PAGE_3))
    rig.server.will_answer("ListMemories", page(memories=[Memory(content="c")]))
    # An iterable that can be read once only serves every page.
    found = rig.memory.list("s", page_size=2, content_types=iter(["fact"]))
    assert [memory.content async for memory in found] == ["a", "b", "c"]
    requests = [call.request for call in rig.server.calls]
    assert [request.page_token for request in requests] == ["", PAGE_2, PAGE_3]
    assert {len(request.filter.content_types) for request in requests} == {1}


async def test_revisions_reads_page_after_page(rig: Rig) -> None:
    page = tool_config_pb2.ListToolConfigRevisionsResponse
    revision = tool_config_pb2.ToolConfigRevision
    rig.server.will_answer(
        "ListToolConfigRevisions", page(revisions=[revision(revision=2)], next_page_token=PAGE_2)
    )
    rig.server.will_answer("ListToolConfigRevisions", page(revisions=[revision(revision=1)]))
    assert [each.revision async for each in rig.tools.revisions("rag")] == [2, 1]
    assert [call.request.page_token for call in rig.server.calls] == ["", PAGE_2]


async def test_revisions_of_a_memory_read_page_after_page(rig: Rig) -> None:
    page, revision = memory_pb2.ListMemoryRevisionsResponse, memory_pb2.MemoryRevision
    rig.server.will_answer(
        "ListMemoryRevisions", page(revisions=[revision(revision=2)], next_page_token=PAGE_2)
    )
    rig.server.will_answer("ListMemoryRevisions", page(revisions=[revision(revision=1)]))
    assert [each.revision async for each in rig.memory.revisions("s", MEMORY_ID)] == [2, 1]
    assert [call.request.page_token for call in rig.server.calls] == ["", PAGE_2]


REFUSED: list[tuple[Callable[[Rig], Any], type[Exception], str]] = [
    (
        lambda rig: rig.memory.store("s", "c", expire_time=datetime(2030, 1, 1)),  # noqa: DTZ001 -- naive on purpose
        ValueError,
        "expire_time: .* no time zone",
    ),
    (
        lambda rig: rig.memory.update("s", MEMORY_ID, expire_time=datetime(2030, 1, 1)),  # noqa: DTZ001 -- naive on purpose
        ValueError,
        "expire_time: .* no time zone",
    ),
    (
        lambda rig: rig.memory.list("s", created_after=datetime(2030, 1, 1)),  # noqa: DTZ001 -- naive on purpose
        ValueError,
        "created_after: .* no time zone",
    ),
    (
        lambda rig: rig.memory.store("s", "c", ttl=timedelta(0), never_expires=True),
        ValueError,
        "ttl and never_expires exclude each other",
    ),
    (
        lambda rig: rig.memory.update("s", MEMORY_ID, ttl=timedelta(1), expire_time=NOON),
        ValueError,
        "ttl and expire_time exclude each other",
    ),
    (
        lambda rig: rig.memory.store("s", "c", content_type="wish"),
        ValueError,
        "content_type: 'wish' is not one of user_info, preference, fact, context",
    ),
    (
        lambda rig: rig.memory.store("s", "c", metadata={"order": {"ids": [1, 2**53 + 1]}}),
        ValueError,
        r"metadata\.order\.ids\[1\]: 9007199254740993 loses digits",
    ),
    (
        lambda rig: rig.memory.store("s", "c", metadata={"n": 10**400}),
        ValueError,
        r"metadata\.n: .* loses digits",
    ),
    (
        lambda rig: rig.memory.store("s", "c", metadata={"when": NOON}),
        TypeError,
        r"metadata\.when: datetime is not a JSON type",
    ),
    (
        lambda rig: rig.memory.store("s", "c", metadata={"a": {1: 2}}),
        TypeError,
        r"metadata\.a: the key 1 is not a string",
    ),
    (lambda rig: rig.memory.find_similar("s"), ValueError, "content or memory_id"),
    (lambda rig: rig.memory.get("s"), ValueError, "memory_id or key: give one"),
    (lambda rig: rig.memory.get("s", MEMORY_ID, key="k"), ValueError, "memory_id or key: give one"),
    (lambda rig: rig.memory.delete("s"), ValueError, "memory_id or key: give one"),
    (lambda rig: rig.memory.store("s", "c", tags="ab"), TypeError, "tags: expected a list"),
    (
        lambda rig: rig.memory.find_similar("s", "c", memory_id=MEMORY_ID),
        ValueError,
        "content or memory_id",
    ),
    (
        lambda rig: rig.memory.purge("s", force=True, created_before=None),
        ValueError,
        "created_before: empty",
    ),
    (
        lambda rig: rig.memory.purge("s", force=True, content_types=[], metadata={}),
        ValueError,
        "content_types, metadata: empty",
    ),
    (
        lambda rig: rig.memory.purge("s", force=True, content_type=["fact"]),
        TypeError,
        "content_type: no such condition",
    ),
    (
        lambda rig: rig.tools.update("rag", {"chunk_sze": 400}),
        ValueError,
        r"rag\.chunk_sze: .*no \"chunk_sze\" field",
    ),
    (lambda rig: rig.tools.update("rag", {"chunk_size": "x"}), ValueError, r"rag\.chunk_size: "),
    (
        lambda rig: rig.tools.validate("rag", {"chunk_size": None}),
        ValueError,
        r"rag\.chunk_size: None is not a value",
    ),
    (lambda rig: rig.tools.update("fax", {"speed": 9}), ValueError, r"fax\.speed: "),
]


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED)
async def test_invalid_arguments_are_refused_before_sending(
    rig: Rig, call: Callable[[Rig], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        await drain(call(rig))
    assert rig.server.calls == []


# Deadlines, metadata, channels


async def test_a_call_takes_the_clients_timeout_unless_it_has_its_own(rig: Rig) -> None:
    await rig.memory.erase("s")
    await rig.memory.erase("s", timeout=60)
    async with MemoryClient(rig.address, timeout=None) as patient:
        await patient.erase("s")
    await drain(rig.memory.watch("s"))
    await drain(rig.memory.export("s", timeout=30))
    default, own, endless, watch, export = (call.seconds_left for call in rig.server.calls)
    assert default is not None
    assert 3 < default < 6
    assert own is not None
    assert 50 < own < 61
    assert endless is None
    assert watch is None
    assert export is not None
    assert 20 < export < 31


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_that_passes_is_raised(rig: Rig, *, stream: bool) -> None:
    rig.server.will_answer("ExportMemories" if stream else "EraseSession", None)
    call = rig.memory.export if stream else rig.memory.erase
    with pytest.raises(client.DeadlineExceeded) as raised:
        await drain(call("s", timeout=0.05))
    assert (raised.value.reason, raised.value.request_id) == ("", "")


async def test_metadata_goes_with_every_call(rig: Rig) -> None:
    async with MemoryClient(rig.address, metadata={"Authorization": "Bearer abc"}) as memory:
        await memory.erase("s")
        await drain(memory.export("s"))
    assert [call.metadata["authorization"] for call in rig.server.calls] == ["Bearer abc"] * 2


async def test_a_shared_channel_outlives_its_clients(rig: Rig) -> None:
    async with open_channel(rig.address) as channel:
        async with MemoryClient(channel=channel) as memory:
            await memory.erase("s")
        async with ToolConfigClient(channel=channel) as tools:
            await tools.list_tools()
    assert [call.method for call in rig.server.calls] == ["EraseSession", "ListTools"]


async def test_closing_closes_the_clients_own_channel(rig: Rig) -> None:
    memory = MemoryClient(rig.address)
    await memory.close()
    await memory.close()
    with pytest.raises(grpc.aio.UsageError):
        await memory.erase("s")


async def test_a_client_has_a_target_or_a_channel(rig: Rig) -> None:
    async with open_channel(rig.address) as channel:
        for arguments in (
            {},
            {"target": rig.address, "channel": channel},
            {"channel": channel, "options": {"grpc.keepalive_time_ms": 1}},
            {"channel": channel, "credentials": grpc.ssl_channel_credentials()},
        ):
            with pytest.raises(ValueError, match="or a channel alone"):
                MemoryClient(**arguments)


async def test_a_closed_channel_makes_no_client() -> None:
    async with open_channel("localhost:50051") as channel:
        pass
    with pytest.raises(ValueError, match="the channel is closed"):
        MemoryClient(channel=channel)


def test_outside_an_event_loop_no_channel_is_opened() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        MemoryClient("localhost:50051")


async def test_credentials_make_the_channel_secure(rig: Rig) -> None:
    async with MemoryClient(rig.address, credentials=grpc.ssl_channel_credentials()) as memory:
        with pytest.raises(client.Unavailable):
            await memory.erase("s")
    assert rig.server.calls == []


async def test_options_go_over_the_clients_own(rig: Rig) -> None:
    async with MemoryClient(rig.address, options={"grpc.max_send_message_length": 10}) as memory:
        with pytest.raises(client.ResourceExhausted):
            await memory.store("s", "more than ten bytes")


async def test_calls_are_spread_over_all_addresses(rig: Rig) -> None:
    other = ScriptedServer()
    async with serving(other) as address:
        target = f"ipv4:{rig.address},{address}"
        async with open_channel(target) as channel:
            memory = MemoryClient(channel=channel)
            # Either may connect first; once both are connected, they take turns.
            async with asyncio.timeout(10):
                while not (rig.server.calls and other.calls):
                    await memory.erase("s")
            before = Counter(first=len(rig.server.calls), other=len(other.calls))
            for _ in range(10):
                await memory.erase("s")
    assert len(rig.server.calls) - before["first"] == 5
    assert len(other.calls) - before["other"] == 5


# Sizes

LARGE = "x" * 16_000


async def test_a_request_beyond_the_limit_fails_before_it_is_sent(rig: Rig) -> None:
    with pytest.raises(client.ResourceExhausted, match="Sent message larger than max"):
        await rig.memory.store_many([NewMemory("s", LARGE)] * 300)
    assert rig.server.calls == []


async def test_an_answer_may_be_larger_than_a_request(rig: Rig) -> None:
    page = memory_pb2.ListMemoriesResponse(memories=[Memory(content=LARGE)] * 1_000)
    assert page.ByteSize() > client.MAX_REQUEST_BYTES
    rig.server.will_answer("ListMemories", page)
    assert (await rig.memory.list_page("s")).proto == page


# Retries

REPEATED = {
    "StoreMemory",
    "BatchStoreMemories",
    "GetMemory",
    "ListMemories",
    "ListMemoryRevisions",
    "RetrieveMemories",
    "FindSimilarMemories",
    "WatchMemories",
    "ExportMemories",
    "ListTools",
    "GetToolConfig",
    "ValidateToolConfig",
    "ListToolConfigRevisions",
    "WatchToolConfigs",
    *("ListSessions", "GetSession", "MergeSessions"),
    *("PutDocument", "BatchWriteDocuments", "GetDocument", "BatchGetDocuments"),
    *("ListDocuments", "ListNamespaces", "ListDocumentRevisions", "SearchDocuments"),
    *("WatchDocuments", "ExportDocuments"),
    *("GetConversation", "ListConversations", "ListMessages", "ExportMessages"),
    "WatchConversations",
    *("AppendMessages", "RewriteMessages", "PopMessages"),
    *("WhoAmI", "ListApiKeys", "ListTenants", "ListAuditEvents", "GetUsage"),
}
ONE_CALL_EACH = {method: call for call, method, _ in SENT}


@pytest.mark.parametrize("method", sorted(ONE_CALL_EACH))
async def test_calls_that_are_safe_to_repeat_are_repeated(rig: Rig, method: str) -> None:
    rig.server.will_answer(method, AWAY)
    rig.server.will_answer(method, AWAY)
    rig.server.will_answer(method)
    call = drain(ONE_CALL_EACH[method](rig))
    if method in REPEATED:
        await call
        assert len(rig.server.calls) == 3
    else:
        with pytest.raises(client.Unavailable, match="the database is away"):
            await call
        assert len(rig.server.calls) == 1


async def test_a_repeated_store_is_the_same_request(rig: Rig) -> None:
    rig.server.will_answer("StoreMemory", AWAY)
    rig.server.will_answer("StoreMemory")
    await rig.memory.store("s", "c")
    first, second = (call.request for call in rig.server.calls)
    assert first == second
    assert first.request_id


async def test_a_batch_of_any_size_is_repeated(rig: Rig) -> None:
    rig.server.will_answer("BatchStoreMemories", AWAY)
    rig.server.will_answer("BatchStoreMemories")
    await rig.memory.store_many(NewMemory("s", LARGE) for _ in range(250))
    assert len(rig.server.calls) == 2


async def test_only_unavailability_is_repeated(rig: Rig) -> None:
    rig.server.will_answer("GetMemory", Refusal(grpc.StatusCode.INTERNAL))
    with pytest.raises(client.Internal):
        await rig.memory.get("s", MEMORY_ID)
    assert len(rig.server.calls) == 1


async def test_retries_end(rig: Rig) -> None:
    rig.server.will_answer("GetMemory", AWAY)
    with pytest.raises(client.Unavailable):
        await rig.memory.get("s", MEMORY_ID)
    assert len(rig.server.calls) == 5


async def test_between_attempts_the_client_backs_off(rig: Rig) -> None:
    outage = Refusal(grpc.StatusCode.UNAVAILABLE)
    rig.server.will_answer("GetMemory", outage)
    rig.server.will_answer("GetMemory")
    begin = asyncio.get_running_loop().time()
    await rig.memory.get("s", MEMORY_ID)
    assert asyncio.get_running_loop().time() - begin > 0.05


async def test_a_deadline_without_a_connection_says_so() -> None:
    with socket.socket() as free:  # bound, and nobody listens
        free.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{free.getsockname()[1]}"
        message = re.escape(f"no connection to {target} in time: nothing listens there")
        async with client.MemoryClient(target, timeout=0.5) as memory:
            with pytest.raises(client.DeadlineExceeded, match=message):
                await memory.get("s", MEMORY_ID)
            with pytest.raises(client.DeadlineExceeded, match=message):
                await memory.watch("s", timeout=0.5).__anext__()
        async with client.open_channel(target) as channel:
            tools = client.ToolConfigClient(channel=channel, timeout=0.5)
            with pytest.raises(client.DeadlineExceeded, match="no connection to the service"):
                await tools.get("rag")


async def test_the_port_of_http_is_said_to_speak_no_grpc(running: Any) -> None:
    async with client.MemoryClient(running.server.http_address, timeout=0.5) as memory:
        with pytest.raises(client.DeadlineExceeded, match="speaks no gRPC"):
            await memory.get("s", MEMORY_ID)


async def test_a_deadline_on_a_connection_is_no_lack_of_one(running: Any) -> None:
    async with client.MemoryClient(running.address) as memory:
        await memory.store("s", "fact")
        # Whether or not a change arrives in time.
        with pytest.raises(client.DeadlineExceeded) as raised:
            async for _ in memory.watch("s", timeout=0.2):
                pass
    assert "no connection" not in raised.value.message


async def test_a_refusal_has_the_id_of_its_call(running: Any, caplog: Any) -> None:
    caplog.set_level("INFO")
    async with client.MemoryClient(running.address) as memory:
        for call in (memory.get("s", MEMORY_ID), memory.get("s", "no id"), memory.erase("../s")):
            with pytest.raises(MemorydError) as raised:
                await call
            logged = [getattr(record, "request_id", "") for record in caplog.records]
            assert raised.value.request_id in logged
            assert raised.value.request_id in str(raised.value)


async def test_an_unreachable_server_is_unavailable() -> None:
    async with serving(ScriptedServer()) as address:
        pass
    async with MemoryClient(address) as memory:
        with pytest.raises(client.Unavailable) as raised:
            await memory.erase("s")
    assert raised.value.reason == ""


def test_the_service_config_names_methods_that_exist() -> None:
    config = json.loads(client_channel._channel_options()["grpc.service_config"])  # noqa: SLF001 -- not visible otherwise
    (method_config,) = config["methodConfig"]
    named = [f"/{name['service']}/{name['method']}" for name in method_config["name"]]
    assert len(named) == len(set(named))
    assert {METHODS[name].name for name in named} == REPEATED


# Streams


async def test_a_broken_stream_yields_what_came_then_the_error(rig: Rig) -> None:
    memories = [Memory(content="a"), Memory(content="b")]
    rig.server.will_answer("ExportMemories", *memories, AWAY)
    export = rig.memory.export("s")
    assert [(await anext(export)).proto, (await anext(export)).proto] == memories
    with pytest.raises(client.Unavailable):
        await anext(export)
    assert len(rig.server.calls) == 1


@pytest.mark.parametrize("service", ["memory", "tools"])
async def test_leaving_a_watch_ends_it_at_the_server(rig: Rig, service: str) -> None:
    if service == "memory":
        rig.server.will_answer("WatchMemories", memory_pb2.WatchMemoriesResponse(revision=1), None)
        watch: AsyncGenerator[Any, None] = rig.memory.watch("s")
    else:
        event = tool_config_pb2.WatchToolConfigsResponse(revision=1)
        rig.server.will_answer("WatchToolConfigs", event, None)
        watch = rig.tools.watch()
    async with contextlib.aclosing(watch):
        async for change in watch:
            assert change.revision == 1
            async with asyncio.timeout(10):
                await rig.server.held.wait()  # the server has sent the event
            break
    async with asyncio.timeout(10):
        await rig.server.cancelled.wait()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_task_that_is_cancelled_cancels_its_call(rig: Rig, *, stream: bool) -> None:
    rig.server.will_answer("ExportMemories" if stream else "EraseSession", None)
    call = rig.memory.export if stream else rig.memory.erase
    task = asyncio.create_task(drain(call("s")))
    async with asyncio.timeout(10):
        await rig.server.held.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await rig.server.cancelled.wait()


# Errors

OURS = error_details_pb2.ErrorInfo(
    reason="ERROR_REASON_WATCHER_TOO_SLOW", domain="memoryd", metadata={"last_revision": "41"}
)


async def refused(rig: Rig, refusal: Refusal) -> MemorydError:
    rig.server.will_answer("EraseSession", refusal)
    with pytest.raises(MemorydError) as raised:
        await rig.memory.erase("s")
    return raised.value


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.ABORTED, client.Aborted),
        (grpc.StatusCode.ALREADY_EXISTS, client.AlreadyExists),
        (grpc.StatusCode.CANCELLED, client.Cancelled),
        (grpc.StatusCode.DATA_LOSS, MemorydError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, client.DeadlineExceeded),
        (grpc.StatusCode.FAILED_PRECONDITION, client.FailedPrecondition),
        (grpc.StatusCode.INTERNAL, client.Internal),
        (grpc.StatusCode.INVALID_ARGUMENT, client.InvalidArgument),
        (grpc.StatusCode.NOT_FOUND, client.NotFound),
        (grpc.StatusCode.OUT_OF_RANGE, client.OutOfRange),
        (grpc.StatusCode.PERMISSION_DENIED, client.PermissionDenied),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, client.ResourceExhausted),
        (grpc.StatusCode.UNAUTHENTICATED, client.Unauthenticated),
        (grpc.StatusCode.UNAVAILABLE, client.Unavailable),
        (grpc.StatusCode.UNIMPLEMENTED, client.Unimplemented),
        (grpc.StatusCode.UNKNOWN, MemorydError),
    ],
)
async def test_each_code_has_its_class(
    rig: Rig, code: grpc.StatusCode, kind: type[MemorydError]
) -> None:
    error = await refused(rig, Refusal(code, "for no reason"))
    assert type(error) is kind
    assert error.code is code
    assert error.message == "for no reason"
    assert str(error) == f"{code.name}: for no reason"
    assert (error.reason, error.metadata, error.request_id) == ("", {}, "")
    assert error.retry_after is None
    assert error.details == ()
    assert isinstance(error.__cause__, grpc.aio.AioRpcError)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("two are wrong", "two are wrong\n  content: is empty\n  importance: is above 1.0"),
        ("content: is empty; importance: is above 1.0", None),
    ],
)
async def test_violations_are_named_with_their_remedies(
    rig: Rig, message: str, text: str | None
) -> None:
    bad_request = error_details_pb2.BadRequest()
    bad_request.field_violations.add(field="content", description="is empty")
    bad_request.field_violations.add(field="importance", description="is above 1.0")
    error = await refused(rig, Refusal(grpc.StatusCode.INVALID_ARGUMENT, message, (bad_request,)))
    assert isinstance(error, client.InvalidArgument)
    assert error.violations == (
        client.Violation("content", "is empty"),
        client.Violation("importance", "is above 1.0"),
    )
    assert str(error) == f"INVALID_ARGUMENT: {text or message}"


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS])
async def test_the_resource_is_named(rig: Rig, code: grpc.StatusCode) -> None:
    info = error_details_pb2.ResourceInfo(
        resource_type="memory", resource_name=MEMORY_ID, description="not there"
    )
    error = await refused(rig, Refusal(code, "no", (info,)))
    assert isinstance(error, client.NotFound | client.AlreadyExists)
    assert error.resource == client.Resource("memory", MEMORY_ID, "not there")


async def test_every_detail_is_read(rig: Rig) -> None:
    quota = error_details_pb2.QuotaFailure()
    quota.violations.add(subject="session:s", description="at most 100 memories")
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1, nanos=500_000))
    details = (OURS, quota, retry, error_details_pb2.RequestInfo(request_id="req-7"))
    error = await refused(rig, Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", details))
    assert isinstance(error, client.ResourceExhausted)
    assert error.reason == "ERROR_REASON_WATCHER_TOO_SLOW"
    assert error.metadata == {"last_revision": "41"}
    assert error.quotas == (client.Quota("session:s", "at most 100 memories"),)
    assert error.retry_after == timedelta(seconds=1, microseconds=500)
    assert error.request_id == "req-7"
    assert error.details == details
    assert str(error) == "RESOURCE_EXHAUSTED: full (request req-7)"


async def test_an_etag_mismatch_differs_from_other_aborts(rig: Rig) -> None:
    mismatch = error_details_pb2.ErrorInfo(reason="ERROR_REASON_ETAG_MISMATCH", domain="memoryd")
    error = await refused(rig, Refusal(grpc.StatusCode.ABORTED, "changed", (mismatch,)))
    assert type(error) is client.EtagMismatch
    assert isinstance(error, client.Aborted)


THEIRS = error_details_pb2.ErrorInfo(reason="RATE_LIMITED", domain="proxy.example")


@pytest.mark.parametrize(
    ("details", "reason"), [((THEIRS,), ""), ((THEIRS, OURS), OURS.reason), ((OURS,), OURS.reason)]
)
async def test_only_our_reasons_count(rig: Rig, details: tuple[Message, ...], reason: str) -> None:
    error = await refused(rig, Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "no", details))
    assert error.reason == reason
    assert error.details == details


def packed(*details: tuple[str, bytes]) -> bytes:
    anys = [any_pb2.Any(type_url=url, value=value) for url, value in details]
    return status_pb2.Status(details=anys).SerializeToString()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xff\xff",
        b"garbage",
        packed(("", b"")),
        packed(("no/such.Type", b"\x00")),
        packed(("type.googleapis.com/google.rpc.BadRequest", b"\xff\xff")),
        packed(("type.googleapis.com/google.rpc.BadRequest", b"\x0a\x04\x0a\x02\xc3\x28")),
        packed(
            (
                "type.googleapis.com/google.rpc.RetryInfo",
                error_details_pb2.RetryInfo(
                    retry_delay=duration_pb2.Duration(seconds=2**62)
                ).SerializeToString(),
            )
        ),
    ],
)
async def test_garbage_in_the_details_leaves_the_error(rig: Rig, raw: bytes) -> None:
    refusal = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "wrong", raw_details=raw)
    error = await refused(rig, refusal)
    assert isinstance(error, client.InvalidArgument)
    assert str(error) == "INVALID_ARGUMENT: wrong"
    assert error.violations == ()
    assert error.retry_after is None


async def test_garbage_next_to_a_detail_leaves_the_detail(rig: Rig) -> None:
    raw = packed(
        ("type.googleapis.com/google.rpc.BadRequest", b"\xff\xff"),
        ("type.googleapis.com/google.rpc.ErrorInfo", OURS.SerializeToString()),
    )
    error = await refused(rig, Refusal(grpc.StatusCode.INVALID_ARGUMENT, raw_details=raw))
    assert error.reason == OURS.reason


async def test_errors_survive_pickling(rig: Rig) -> None:
    bad_request = error_details_pb2.BadRequest()
    bad_request.field_violations.add(field="content", description="must not be empty")
    details = (OURS, bad_request)
    error = await refused(rig, Refusal(grpc.StatusCode.INVALID_ARGUMENT, "wrong", details))
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own bytes
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.violations == error.violations
    assert copy.reason == error.reason


# Against the service itself


@pytest.fixture
def address(running: Any) -> str:
    """The address of the service, on either database."""
    return str(running.address)


async def test_the_life_of_a_memory(address: str) -> None:
    async with MemoryClient(address) as memory:
        stored = await memory.store("user-123", "prefers e-mail", content_type="preference")
        memory_id = stored.memory.memory_id
        assert stored.outcome == client.StoreOutcome.CREATED
        assert await memory.get("user-123", memory_id) == stored.memory

        updated = await memory.update(
            "user-123", memory_id, importance=0.9, metadata={"by": "Ann"}, etag=stored.memory.etag
        )
        assert updated.content == "prefers e-mail"
        assert updated.importance == 0.9
        assert dict(updated.metadata) == {"by": "Ann"}
        with pytest.raises(client.EtagMismatch):
            await memory.update("user-123", memory_id, importance=0.1, etag=stored.memory.etag)

        found = await memory.retrieve("user-123", "e-mail", metadata={"by": "Ann"})
        assert [result.memory.memory_id for result in found.results] == [memory_id]

        await memory.delete("user-123", memory_id, etag=updated.etag)
        with pytest.raises(client.NotFound) as raised:
            await memory.get("user-123", memory_id)
        assert raised.value.reason == "ERROR_REASON_MEMORY_NOT_FOUND"
        assert raised.value.resource is not None
        assert raised.value.resource.name == memory_id
        assert (await memory.undelete("user-123", memory_id)).content == "prefers e-mail"


async def test_a_batch_sent_again_changes_nothing(address: str) -> None:
    new = [NewMemory("s", f"memory {number}") for number in range(5)]
    async with MemoryClient(address) as memory:
        first = await memory.store_many(new)
        assert await memory.store_many(new) == first
        listed = [each.content async for each in memory.list("s", page_size=2)]
    assert listed == [each.content for each in new]


async def test_every_violation_is_listed_at_once(address: str) -> None:
    async with MemoryClient(address) as memory:
        with pytest.raises(client.InvalidArgument) as raised:
            await memory.store_many([NewMemory("s", "c"), NewMemory("..", "", importance=7)])
    assert [violation.field for violation in raised.value.violations] == [
        "requests[1].session_id",
        "requests[1].importance",
        "requests[1].content",
    ]
    for violation in raised.value.violations:
        assert f"{violation.field}: {violation.description}" in str(raised.value)


async def test_tools_are_read(address: str) -> None:
    async with ToolConfigClient(address) as tools:
        listed = await tools.list_tools()
        assert [each.tool for each in listed.tools][:2] == ["rag", "memory"]
        config = await tools.get("memory")
        assert config.memory.max_entries == 100
        validation = await tools.validate("rag", {"chunk_size": 1})
        assert [violation.field for violation in validation.violations] == ["rag.chunk_size"]
        with pytest.raises(client.InvalidArgument, match="tool: must be one of rag"):
            await tools.get("fax")


# The module itself


def public_names(module: Any) -> Iterator[str]:
    """Yield the names without underscore that the module defines or imports from memoryd."""
    for statement in ast.parse(inspect.getsource(module)).body:
        match statement:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name


@pytest.mark.parametrize("module", [client, client_errors])
def test_all_names_every_public_name(module: Any) -> None:
    defined = {name for name in public_names(module) if not name.startswith("_")}
    assert defined <= set(module.__all__)
    assert len(module.__all__) == len(set(module.__all__))
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("module", [client_memories, client_tools, client_errors])
def test_what_callers_need_is_exported(module: Any) -> None:
    defined = {name for name in public_names(module) if not name.startswith("_")}
    assert defined - {"error_from"} <= set(client.__all__)


def test_the_public_names() -> None:
    errors = set(client_errors.__all__) - {"error_from"}
    assert errors <= set(client.__all__)
    assert set(client.__all__) - errors == {
        *("Blob", "Context", "Conversation", "ConversationClient", "ConversationHandle", "File"),
        *("ConversationChange", "Message", "NewMessage", "NewPart", "Part", "Role"),
        *("ToolCall", "ToolResult", "Window"),
        *("AccessClient", "ApiKey", "AuditEvent", "RetrievedMemory", "Tenant"),
        "DEFAULT_TIMEOUT",
        "MAX_REQUEST_BYTES",
        "MAX_RESPONSE_BYTES",
        "Condition",
        "ConditionOp",
        "ContentType",
        "Document",
        "DocumentChange",
        "DocumentClient",
        "Filter",
        "JsonValue",
        "Memory",
        "MemoryChange",
        "MemoryClient",
        "NewMemory",
        "Provenance",
        "Put",
        "Remove",
        "Session",
        "SessionClient",
        "SettingValue",
        "StoreOutcome",
        "ToolConfig",
        "ToolConfigChange",
        "ToolConfigClient",
        "TLS",
        "open_channel",
    }


def test_the_client_imports_no_other_module_of_memoryd() -> None:
    script = (
        "import sys, memoryd.client\n"
        "print(*sorted(n for n in sys.modules if n.partition('.')[0] == 'memoryd'))"
    )
    done = subprocess.run(  # noqa: S603 -- this interpreter, a constant script
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    ours = [name for name in done.stdout.split() if not name.startswith("memoryd.v1")]
    parts = (
        *("arguments", "channel", "connection", "credentials", "errors", "memories", "messages"),
        *("documents", "sessions", "store_stream", "tls", "tools"),
        *("context", "conversation_calls", "conversations", "new_messages", "promotion"),
        *("windows", "access", "answering", "answers", "prompts", "resumption"),
    )
    assert set(ours) == {"memoryd", "memoryd.client", *(f"memoryd.client.{part}" for part in parts)}
