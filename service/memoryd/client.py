"""What callers import: a client for memories, a client for tool configuration, and their errors.

    async with MemoryClient("localhost:50051") as memory:
        stored = await memory.store("user-123", "prefers e-mail", content_type="preference")
        print(stored.memory.memory_id)

Arguments are plain Python: `metadata` a mapping as JSON knows it, times aware datetimes, spans
timedeltas. What is not given stays unset, and the service's own default holds. Answers are the
messages of `memoryd.v1`, documented field by field in their type stubs.

A refusal is raised as a subclass of `MemorydError`; `memoryd.client_errors` draws them. Arguments
that make no request at all are a ValueError or TypeError that names the argument, before anything
is sent. Calls that are safe to repeat are repeated, with back-off, while nobody answers and their
deadline lasts.
"""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypedDict, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from memoryd.client_errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    EtagMismatch,
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
    error_from,
)
from memoryd.v1 import memory_pb2, tool_config_pb2
from memoryd.v1.memory_pb2 import ContentType, Memory, MemoryChange, MemoryFilter, StoreOutcome
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub
from memoryd.v1.tool_config_pb2 import Provenance, ToolConfig, ToolConfigChange
from memoryd.v1.tool_config_pb2_grpc import ToolConfigServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
    from datetime import datetime, timedelta
    from types import TracebackType
    from typing import Self, Unpack

    from memoryd.v1.memory_pb2_grpc import MemoryServiceAsyncStub
    from memoryd.v1.tool_config_pb2_grpc import ToolConfigServiceAsyncStub

__all__ = [
    "DEFAULT_TIMEOUT",
    "MAX_REQUEST_BYTES",
    "MAX_RESPONSE_BYTES",
    "Aborted",
    "AlreadyExists",
    "Cancelled",
    "ContentType",
    "DeadlineExceeded",
    "EtagMismatch",
    "Filter",
    "Internal",
    "InvalidArgument",
    "JsonValue",
    "Memory",
    "MemoryChange",
    "MemoryClient",
    "MemorydError",
    "NewMemory",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "Provenance",
    "Quota",
    "Resource",
    "ResourceExhausted",
    "SettingValue",
    "StoreOutcome",
    "ToolConfig",
    "ToolConfigChange",
    "ToolConfigClient",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
    "open_channel",
]

DEFAULT_TIMEOUT = 5.0
"""Seconds a call may take, retries included, unless the client or the call says otherwise."""

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""What the service receives; a larger request fails here, before it is sent."""

MAX_RESPONSE_BYTES = 256 * 1024 * 1024
"""More than the largest answer: a page of 1,000 memories, each with 16,384 characters of up to four
bytes and 16 KiB of JSON, which take up to 90 KiB as a Struct."""

JsonValue: TypeAlias = (
    "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
)
"""A value as JSON knows it. Numbers are doubles, so an int must be one that a double holds."""

SettingValue: TypeAlias = "bool | int | float | str | Sequence[str] | Mapping[str, float]"
"""A setting of a tool. Lists and maps are replaced as a whole."""

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Stub = TypeVar("_Stub")


def _new_request_id() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class NewMemory:
    """A memory to be stored."""

    session_id: str
    """1-255 characters of `A-Z a-z 0-9 . _ : @ -`, a letter or digit first, no `..`."""
    content: str
    """1-16,384 characters after sanitising."""
    content_type: ContentType.ValueType | str | None = None
    """`user_info`, `preference`, `fact` or `context`, or the enum's value. None: `context`."""
    importance: float | None = None
    """0.0-1.0. None: 0.5."""
    metadata: Mapping[str, JsonValue] | None = None
    """At most 16 KiB as JSON, nesting at most 8."""
    ttl: timedelta | None = None
    """How long it lives from now. At most one of `ttl`, `expire_time` and `never_expires` is given;
    none: as long as the tool configuration's `memory.ttl_hours` says."""
    expire_time: datetime | None = None
    """When it ends; aware, and in the future."""
    never_expires: bool = False
    request_id: str = field(default_factory=_new_request_id)
    """A UUID. The same NewMemory stored once more, after a lost answer, changes nothing and gets
    the first answer again."""


class Filter(TypedDict, total=False):
    """Which memories of a session: keyword arguments, of which all that are given must hold."""

    content_types: Iterable[ContentType.ValueType | str]
    """Any of these; at least one."""
    min_importance: float
    """Effective importance, at least this. 0.0-1.0."""
    metadata: Mapping[str, JsonValue]
    """Every key must be there with an equal value."""
    created_after: datetime
    """Created then or later. Aware."""
    created_before: datetime
    """Created earlier. Aware."""


class _Client(ABC, Generic[_Stub]):
    """A channel, and how calls are made over it."""

    def __init__(
        self,
        target: str | None = None,
        *,
        channel: grpc.aio.Channel | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        options: Mapping[str, str | int] | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        metadata: Mapping[str, str | bytes] | None = None,
    ) -> None:
        """Prepare the client, within a running event loop; the first call connects.

        `target`: `host:port`, or any name that gRPC resolves (`dns:///memoryd:50051`: all of its
        addresses are used). Or `channel`: one of `open_channel`, which the caller closes.
        `credentials`: for TLS; without them the channel is plaintext.
        `options`: gRPC channel arguments, over those of this module.
        `timeout`: seconds a call may take, repetitions included, where the call does not say
        otherwise; None: as long as it takes. Streams last as long as they are read.
        `metadata`: sent with every call: {"authorization": "Bearer ..."}.
        """
        if target is not None and channel is None:
            self._channel = open_channel(target, credentials=credentials, options=options)
        elif channel is not None and target is None and not credentials and not options:
            self._channel = channel
        else:
            raise ValueError("give a target, with credentials and options, or a channel alone")
        # gRPC itself does not look: stubs made over a closed channel may end the process.
        if self._channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN:
            raise ValueError("the channel is closed")
        self._closes_channel = channel is None
        self._stub = self._stub_over(self._channel)
        self._timeout = timeout
        self._metadata = tuple((key.lower(), each) for key, each in (metadata or {}).items())

    @abstractmethod
    def _stub_over(self, channel: grpc.aio.Channel) -> _Stub:
        """Return the service's methods."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel, unless it is shared; calls under way are cancelled."""
        if self._closes_channel:
            await self._channel.close()

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        timeout: float | None,
    ) -> _Response:
        deadline = self._timeout if timeout is None else timeout
        try:
            return await method(request, timeout=deadline, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise error_from(error) from error

    async def _stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[_Request, _Response],
        request: _Request,
        timeout: float | None,
    ) -> AsyncGenerator[_Response, None]:
        call = method(request, timeout=timeout, metadata=self._metadata)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise error_from(error) from error
        finally:
            call.cancel()


class MemoryClient(_Client["MemoryServiceAsyncStub"]):
    """Memories, by session. A session is named by the caller and belongs to its tenant.

    Every method may raise any `MemorydError`; those named beside a method are the ones to expect.
    """

    def _stub_over(self, channel: grpc.aio.Channel) -> MemoryServiceAsyncStub:
        return MemoryServiceStub(channel)

    async def store(
        self,
        session_id: str,
        content: str,
        *,
        content_type: ContentType.ValueType | str | None = None,
        importance: float | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
        ttl: timedelta | None = None,
        expire_time: datetime | None = None,
        never_expires: bool = False,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> memory_pb2.StoreMemoryResponse:
        """Store one memory; committed once it answers. The arguments are those of NewMemory.

        `outcome` of the answer says whether it is new or was merged into one that the session held
        already, `evicted_memory_ids` what had to go for it. Without a `request_id` the call gets
        one of its own, so that repeating it is safe.

        Raises InvalidArgument, ResourceExhausted.
        """
        new = NewMemory(
            session_id=session_id,
            content=content,
            content_type=content_type,
            importance=importance,
            metadata=metadata,
            ttl=ttl,
            expire_time=expire_time,
            never_expires=never_expires,
            request_id=request_id or _new_request_id(),
        )
        return await self._call(self._stub.StoreMemory, _store_request(new), timeout)

    async def store_many(
        self, memories: Iterable[NewMemory], *, timeout: float | None = None
    ) -> memory_pb2.BatchStoreMemoriesResponse:
        """Store up to 1,000 memories of any sessions: all or none. Answers in the same order.

        Raises InvalidArgument, whose violations name `requests[i].field`, and ResourceExhausted,
        also where all of them together take more than MAX_REQUEST_BYTES.
        """
        requests = [_store_request(new) for new in memories]
        batch = memory_pb2.BatchStoreMemoriesRequest(requests=requests)
        return await self._call(self._stub.BatchStoreMemories, batch, timeout)

    async def get(self, session_id: str, memory_id: str, *, timeout: float | None = None) -> Memory:
        """Read one memory.

        Raises NotFound for one that is absent, deleted, expired, or another tenant's, all alike.
        """
        request = memory_pb2.GetMemoryRequest(session_id=session_id, memory_id=memory_id)
        return await self._call(self._stub.GetMemory, request, timeout)

    def list(
        self,
        session_id: str,
        *,
        show_deleted: bool = False,
        page_size: int = 0,
        timeout: float | None = None,
        **which: Unpack[Filter],
    ) -> AsyncGenerator[Memory, None]:
        """Iterate over all memories that match, in creation order; nothing twice, nothing skipped.

        They are fetched page by page, as they are read; `timeout` holds for each page.
        """
        request = _list_request(
            session_id, show_deleted=show_deleted, page_size=page_size, which=which
        )
        return self._all_pages(request, timeout)

    async def _all_pages(
        self, request: memory_pb2.ListMemoriesRequest, timeout: float | None
    ) -> AsyncGenerator[Memory, None]:
        while True:
            page = await self._call(self._stub.ListMemories, request, timeout)
            for memory in page.memories:
                yield memory
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def list_page(
        self,
        session_id: str,
        *,
        show_deleted: bool = False,
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
        **which: Unpack[Filter],
    ) -> memory_pb2.ListMemoriesResponse:
        """Read one page, in creation order: the first, or the one that `page_token` stands for.

        `page_size`: 0 is 50, at most 1,000. `next_page_token` of the answer is empty on the last
        page; it outlives the service's restart, and is bound to the other arguments.
        """
        request = _list_request(
            session_id,
            show_deleted=show_deleted,
            page_size=page_size,
            page_token=page_token,
            which=which,
        )
        return await self._call(self._stub.ListMemories, request, timeout)

    async def retrieve(
        self,
        session_id: str,
        query: str = "",
        *,
        session_ids: Iterable[str] = (),
        limit: int = 0,
        peek: bool = False,
        importance_weight: float | None = None,
        diversify: bool | None = None,
        timeout: float | None = None,
        **which: Unpack[Filter],
    ) -> memory_pb2.RetrieveMemoriesResponse:
        """Find the memories that an agent should see now, best first.

        Without a `query` by effective importance, of which the tool configuration asks at least
        `memory.importance_threshold` unless `min_importance` is given; with one by relevance to it.
        `session_ids`: up to 16 further sessions to rank across. `limit`: 0 is 10, at most 100.
        Accesses are counted, unless `peek`. `importance_weight` (0.0-1.0; None: 0.2) tempers
        relevance; near duplicates give way unless `diversify` is False.
        """
        request = memory_pb2.RetrieveMemoriesRequest(
            session_id=session_id,
            query=query,
            filter=_filter(which),
            limit=limit,
            peek=peek,
            importance_weight=importance_weight,
            session_ids=session_ids,
            diversify=diversify,
        )
        return await self._call(self._stub.RetrieveMemories, request, timeout)

    async def find_similar(
        self,
        session_id: str,
        content: str | None = None,
        *,
        memory_id: str | None = None,
        max_distance: int | None = None,
        min_similarity: float | None = None,
        limit: int = 0,
        timeout: float | None = None,
    ) -> memory_pb2.FindSimilarMemoriesResponse:
        """Find near duplicates of a text or of a memory, nearest first.

        `max_distance`: bits by which the semantic hashes differ, 0-64; None: 10, unless
        `min_similarity` (0.0-1.0) is given. `limit`: 0 is 10, at most 100.

        Raises NotFound for a `memory_id` that the session does not have.
        """
        if (content is None) == (memory_id is None):
            raise ValueError("give content or memory_id: one of them")
        request = memory_pb2.FindSimilarMemoriesRequest(
            session_id=session_id,
            max_distance=max_distance,
            min_similarity=min_similarity,
            limit=limit,
        )
        if content is not None:
            request.content = content
        if memory_id is not None:
            request.memory_id = memory_id
        return await self._call(self._stub.FindSimilarMemories, request, timeout)

    async def update(
        self,
        session_id: str,
        memory_id: str,
        *,
        content: str | None = None,
        content_type: ContentType.ValueType | str | None = None,
        importance: float | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
        ttl: timedelta | None = None,
        expire_time: datetime | None = None,
        never_expires: bool = False,
        etag: str = "",
        timeout: float | None = None,
    ) -> Memory:
        """Change what is given, and nothing else; answers the memory as it is then.

        `metadata` is replaced as a whole. `etag`: of the memory as it was read; the change is
        refused if somebody else has changed it since.

        Raises InvalidArgument, NotFound, EtagMismatch, and AlreadyExists where the content would
        double another memory, which its `resource` names.
        """
        _at_most_one(ttl=ttl, expire_time=expire_time, never_expires=never_expires)
        changes = {
            "content": content,
            "content_type": content_type,
            "importance": importance,
            "metadata": metadata,
            # Named by the mask and left unset, it means never.
            "expire_time": expire_time or never_expires or None,
        }
        request = memory_pb2.UpdateMemoryRequest(
            memory=Memory(
                session_id=session_id,
                memory_id=memory_id,
                content=content or "",
                content_type=_content_type(content_type),
                importance=importance,
                metadata=_struct("metadata", metadata),
                expire_time=_timestamp("expire_time", expire_time),
                etag=etag,
            ),
            update_mask=FieldMask(paths=[path for path, to in changes.items() if to is not None]),
            ttl=_duration(ttl),
        )
        return await self._call(self._stub.UpdateMemory, request, timeout)

    async def delete(
        self, session_id: str, memory_id: str, *, etag: str = "", timeout: float | None = None
    ) -> Memory:
        """Soft-delete a memory: gone for readers, kept for `undelete` until it is purged.

        Raises NotFound, and EtagMismatch where `etag` is given and not the current one.
        """
        request = memory_pb2.DeleteMemoryRequest(
            session_id=session_id, memory_id=memory_id, etag=etag
        )
        return await self._call(self._stub.DeleteMemory, request, timeout)

    async def undelete(
        self, session_id: str, memory_id: str, *, timeout: float | None = None
    ) -> Memory:
        """Restore a soft-deleted memory.

        Raises NotFound if it is purged or has expired, AlreadyExists if it is not deleted or its
        content has been stored anew, ResourceExhausted if the session is full.
        """
        request = memory_pb2.UndeleteMemoryRequest(session_id=session_id, memory_id=memory_id)
        return await self._call(self._stub.UndeleteMemory, request, timeout)

    async def purge(
        self,
        session_id: str,
        *,
        force: bool = False,
        timeout: float | None = None,
        **which: Unpack[Filter],
    ) -> memory_pb2.PurgeMemoriesResponse:
        """Delete for good what matches, deleted and expired memories included.

        Without a condition that is every memory of the session. Without `force` it only counts, and
        shows a sample.
        """
        request = memory_pb2.PurgeMemoriesRequest(
            session_id=session_id, filter=_filter(which), force=force
        )
        return await self._call(self._stub.PurgeMemories, request, timeout)

    async def erase(
        self, session_id: str, *, timeout: float | None = None
    ) -> memory_pb2.EraseSessionResponse:
        """Forget the session: every row of it in every table, at once. Answers a receipt."""
        request = memory_pb2.EraseSessionRequest(session_id=session_id)
        return await self._call(self._stub.EraseSession, request, timeout)

    def watch(
        self, session_id: str, start_revision: int = 0, *, timeout: float | None = None
    ) -> AsyncGenerator[memory_pb2.WatchMemoriesResponse, None]:
        """Iterate over the changes after a revision, then over every change as it commits.

        It ends by an error only: Unavailable when the server stops (watch again from the last
        `revision` read), OutOfRange when changes since then are no longer kept (list anew),
        ResourceExhausted when the changes are read too slowly. `timeout`: seconds to watch for at
        all; None: without end.
        """
        request = memory_pb2.WatchMemoriesRequest(
            session_id=session_id, start_revision=start_revision
        )
        return self._stream(self._stub.WatchMemories, request, timeout)

    def export(
        self,
        session_id: str,
        *,
        show_deleted: bool = False,
        timeout: float | None = None,
        **which: Unpack[Filter],
    ) -> AsyncGenerator[Memory, None]:
        """Iterate over all memories that match, in creation order, as one stream.

        `timeout`: seconds for the whole of it; None: as long as it is read.
        """
        request = memory_pb2.ExportMemoriesRequest(
            session_id=session_id, filter=_filter(which), show_deleted=show_deleted
        )
        return self._stream(self._stub.ExportMemories, request, timeout)


class ToolConfigClient(_Client["ToolConfigServiceAsyncStub"]):
    """How the agents' tools are set: rag, memory, escalation, attachment, crm, billing, inventory.

    Every method may raise any `MemorydError`; those named beside a method are the ones to expect.
    """

    def _stub_over(self, channel: grpc.aio.Channel) -> ToolConfigServiceAsyncStub:
        return ToolConfigServiceStub(channel)

    async def list_tools(
        self, *, timeout: float | None = None
    ) -> tool_config_pb2.ListToolsResponse:
        """List the seven tools: whether they are enabled, and what is doubtful about them."""
        return await self._call(self._stub.ListTools, tool_config_pb2.ListToolsRequest(), timeout)

    async def get(self, tool: str, *, timeout: float | None = None) -> ToolConfig:
        """Read a tool's effective configuration; its settings lie under its name: `.rag.search_k`.

        Raises InvalidArgument for a tool that there is not.
        """
        request = tool_config_pb2.GetToolConfigRequest(tool=tool)
        return await self._call(self._stub.GetToolConfig, request, timeout)

    async def update(
        self,
        tool: str,
        settings: Mapping[str, SettingValue] | None = None,
        *,
        enabled: bool | None = None,
        etag: str = "",
        reason: str = "",
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> ToolConfig:
        """Override what is given, on every replica within a second: `{"chunk_size": 400}`.

        `etag`: of the configuration as it was read; refused if it has changed since. `reason`: for
        the revision's record. `validate_only`: answer what would be, write nothing.

        Raises InvalidArgument, EtagMismatch.
        """
        config, mask = _tool_config(tool, settings, enabled=enabled, etag=etag)
        request = tool_config_pb2.UpdateToolConfigRequest(
            tool_config=config, update_mask=mask, validate_only=validate_only, reason=reason
        )
        return await self._call(self._stub.UpdateToolConfig, request, timeout)

    async def reset(
        self, tool: str, *paths: str, reason: str = "", timeout: float | None = None
    ) -> ToolConfig:
        """Drop overrides: those of `paths` (`enabled`, `rag.chunk_size`), or without any all."""
        request = tool_config_pb2.ResetToolConfigRequest(tool=tool, paths=paths, reason=reason)
        return await self._call(self._stub.ResetToolConfig, request, timeout)

    async def validate(
        self,
        tool: str,
        settings: Mapping[str, SettingValue] | None = None,
        *,
        enabled: bool | None = None,
        timeout: float | None = None,
    ) -> tool_config_pb2.ValidateToolConfigResponse:
        """Say what would be wrong (`violations`) or doubtful (`warnings`) with these values.

        Those not given are as they are now. Changes nothing.
        """
        config, _ = _tool_config(tool, settings, enabled=enabled)
        request = tool_config_pb2.ValidateToolConfigRequest(tool_config=config)
        return await self._call(self._stub.ValidateToolConfig, request, timeout)

    async def revisions(
        self, tool: str, *, page_size: int = 0, timeout: float | None = None
    ) -> AsyncGenerator[tool_config_pb2.ToolConfigRevision, None]:
        """Iterate over a tool's changes, newest first; `timeout` holds for each page."""
        request = tool_config_pb2.ListToolConfigRevisionsRequest(tool=tool, page_size=page_size)
        while True:
            page = await self._call(self._stub.ListToolConfigRevisions, request, timeout)
            for revision in page.revisions:
                yield revision
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def rollback(
        self, tool: str, revision: int, *, reason: str = "", timeout: float | None = None
    ) -> ToolConfig:
        """Bring back the overrides as they were after a revision; a revision of its own.

        Raises NotFound for a revision that the tool does not have.
        """
        request = tool_config_pb2.RollbackToolConfigRequest(
            tool=tool, revision=revision, reason=reason
        )
        return await self._call(self._stub.RollbackToolConfig, request, timeout)

    def watch(
        self, start_revision: int = 0, *, timeout: float | None = None
    ) -> AsyncGenerator[tool_config_pb2.WatchToolConfigsResponse, None]:
        """Iterate over a snapshot of all tools, then over every change as it commits.

        A `start_revision` asks for the changes after it, without a snapshot. It ends by an error
        only: Unavailable when the server stops (watch again from the last `revision` read),
        OutOfRange when changes since then are no longer kept. `timeout`: seconds to watch for at
        all; None: without end.
        """
        request = tool_config_pb2.WatchToolConfigsRequest(start_revision=start_revision)
        return self._stream(self._stub.WatchToolConfigs, request, timeout)


def open_channel(
    target: str,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    options: Mapping[str, str | int] | None = None,
) -> grpc.aio.Channel:
    """Open a channel for both clients to share; within a running event loop.

        async with open_channel("localhost:50051") as channel:
            memory, tools = MemoryClient(channel=channel), ToolConfigClient(channel=channel)

    `credentials`: for TLS; without them the channel is plaintext. `options`: gRPC channel
    arguments, over ours.
    """
    # Without one gRPC binds the channel to a loop of its own choice, and calls fail much later.
    asyncio.get_running_loop()
    arguments = list((_channel_options() | dict(options or {})).items())
    if credentials is None:
        return grpc.aio.insecure_channel(target, arguments)
    return grpc.aio.secure_channel(target, credentials, arguments)


# How a channel is set up

_SAFE_TO_REPEAT = {
    "StoreMemory",  # carries a request_id, and so gets the first answer again
    "BatchStoreMemories",  # as StoreMemory, for each of its items
    "RetrieveMemories",  # an access counted twice moves an importance by 0.02 at most
}
"""Beside the methods that the protos declare to be without side effects. Not among them: updates,
deletions and their like, which may have happened already; who repeats those has to look first."""


def _repeated_methods() -> Iterator[dict[str, str]]:
    for file in (memory_pb2.DESCRIPTOR, tool_config_pb2.DESCRIPTOR):
        for service in file.services_by_name.values():
            for method in service.methods:
                level = method.GetOptions().idempotency_level
                if level == MethodOptions.NO_SIDE_EFFECTS or method.name in _SAFE_TO_REPEAT:
                    yield {"service": service.full_name, "method": method.name}


def _service_config() -> str:
    """Return the JSON by which gRPC itself balances and repeats."""
    return json.dumps(
        {
            # Every address behind a name is used, not only the first.
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [
                {
                    "name": list(_repeated_methods()),
                    # Four pauses, three seconds in all: a server restarts in less.
                    "retryPolicy": {
                        "maxAttempts": 5,
                        "initialBackoff": "0.2s",
                        "maxBackoff": "2s",
                        "backoffMultiplier": 2,
                        # A server that stops cancels what had arrived and was not begun. What the
                        # caller cancels is not repeated.
                        "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                    },
                }
            ],
            # A server that keeps failing is spared the repetitions, from 500 failures on that ten
            # times as many successes have not made up for. With fewer, a burst of calls during a
            # restart would go unrepeated.
            "retryThrottling": {"maxTokens": 1000, "tokenRatio": 0.1},
        }
    )


def _channel_options() -> dict[str, str | int]:
    return {
        "grpc.service_config": _service_config(),
        # A request that does not fit into this buffer would not be repeated; 256 KiB by default.
        "grpc.per_rpc_retry_buffer_size": 2 * MAX_REQUEST_BYTES,
        "grpc.max_send_message_length": MAX_REQUEST_BYTES,
        "grpc.max_receive_message_length": MAX_RESPONSE_BYTES,
        # A server that is back is found at once, not after up to two minutes, so that a repetition
        # finds it too.
        "grpc.initial_reconnect_backoff_ms": 200,
        "grpc.max_reconnect_backoff_ms": 500,
        # A watch that is silent for hours must notice a dead peer, and must not be dropped as idle
        # by what lies between: that happens after four minutes at the earliest, usually. A ping a
        # minute is the most that gRPC's guidance (A8) allows; one while no call is open would count
        # as abuse with many servers; and gRPC would stop after two pings without data.
        "grpc.keepalive_time_ms": 60_000,
        "grpc.keepalive_timeout_ms": 20_000,
        "grpc.keepalive_permit_without_calls": 0,
        "grpc.http2.max_pings_without_data": 0,
    }


# Requests from plain Python


def _store_request(new: NewMemory) -> memory_pb2.StoreMemoryRequest:
    _at_most_one(ttl=new.ttl, expire_time=new.expire_time, never_expires=new.never_expires)
    request = memory_pb2.StoreMemoryRequest(
        session_id=new.session_id,
        content=new.content,
        content_type=_content_type(new.content_type),
        importance=new.importance,
        metadata=_struct("metadata", new.metadata),
        ttl=_duration(new.ttl),
        expire_time=_timestamp("expire_time", new.expire_time),
        request_id=new.request_id,
    )
    if new.never_expires:
        request.never_expires = True
    return request


def _filter(which: Filter) -> MemoryFilter:
    unknown = which.keys() - Filter.__annotations__.keys()
    if unknown:
        raise TypeError(f"no such condition: {', '.join(sorted(unknown))}")
    conditions = MemoryFilter(
        content_types=[_content_type(each) for each in which.get("content_types") or ()],
        min_importance=which.get("min_importance"),
        metadata=_struct("metadata", which.get("metadata") or None),
        created_after=_timestamp("created_after", which.get("created_after")),
        created_before=_timestamp("created_before", which.get("created_before")),
    )
    # Sent as nothing, a condition would match all, and a purge remove more than was meant.
    empty = which.keys() - {descriptor.name for descriptor, _ in conditions.ListFields()}
    if empty:
        raise ValueError(f"{', '.join(sorted(empty))}: empty; leave it out where all are meant")
    return conditions


def _list_request(
    session_id: str, *, show_deleted: bool, page_size: int, which: Filter, page_token: str = ""
) -> memory_pb2.ListMemoriesRequest:
    return memory_pb2.ListMemoriesRequest(
        session_id=session_id,
        filter=_filter(which),
        page_size=page_size,
        page_token=page_token,
        show_deleted=show_deleted,
    )


def _tool_config(
    tool: str, settings: Mapping[str, SettingValue] | None, *, enabled: bool | None, etag: str = ""
) -> tuple[ToolConfig, FieldMask]:
    """Return a ToolConfig with these values, and the paths that name them."""
    config = ToolConfig(tool=tool, enabled=enabled, etag=etag)
    paths = [] if enabled is None else ["enabled"]
    for name, value in (settings or {}).items():
        path = f"{tool}.{name}"
        if value is None:
            raise ValueError(f"{path}: None is no value; reset() drops an override")
        setting: dict[str, Any] = {tool: {name: value}}
        try:
            config.MergeFrom(ToolConfig(**setting))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
        paths.append(path)
    return config, FieldMask(paths=paths)


_CONTENT_TYPES = {
    name.removeprefix("CONTENT_TYPE_").lower(): value
    for name, value in ContentType.items()
    if value
}


def _content_type(given: ContentType.ValueType | str | None) -> ContentType.ValueType:
    if given is None:
        return ContentType.CONTENT_TYPE_UNSPECIFIED
    if not isinstance(given, str):
        return given
    try:
        return _CONTENT_TYPES[given]
    except KeyError:
        raise ValueError(
            f"content_type: {given!r} is none of {', '.join(_CONTENT_TYPES)}"
        ) from None


def _at_most_one(**arguments: object) -> None:
    given = [name for name, value in arguments.items() if value is not None and value is not False]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} exclude each other; give one of them")


def _timestamp(argument: str, moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    if moment.utcoffset() is None:
        raise ValueError(
            f"{argument}: {moment!r} has no time zone; give an aware one: datetime.now(UTC)"
        )
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def _duration(span: timedelta | None) -> Duration | None:
    if span is None:
        return None
    duration = Duration()
    duration.FromTimedelta(span)
    return duration


def _struct(path: str, fields: Mapping[str, JsonValue] | None) -> Struct | None:
    if fields is None:
        return None
    struct = Struct()
    for key, each in fields.items():
        if not isinstance(key, str):
            raise TypeError(f"{path}: {key!r} is no string, and only strings are keys in JSON")
        struct.fields[key].CopyFrom(_value(f"{path}.{key}", each))
    return struct


def _value(path: str, given: JsonValue) -> Value:
    match given:
        case None:
            value = Value(null_value=NULL_VALUE)
        case bool():
            value = Value(bool_value=given)
        case str():
            value = Value(string_value=given)
        case int() | float():
            value = Value(number_value=_double(path, given))
        case Mapping():
            value = Value(struct_value=_struct(path, given))
        case list() | tuple():
            items = [_value(f"{path}[{index}]", each) for index, each in enumerate(given)]
            value = Value(list_value=ListValue(values=items))
        case _:
            raise TypeError(f"{path}: {type(given).__name__} is nothing that JSON knows")
    return value


def _double(path: str, number: float) -> float:
    """Return the number as a double; refuse an int that would lose digits in silence."""
    try:
        double = float(number)
    except OverflowError:
        double = math.inf
    if isinstance(number, int) and double != number:
        raise ValueError(f"{path}: {number} loses digits as a JSON number; give it as a string")
    return double
