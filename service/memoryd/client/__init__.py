"""What callers import: a client for memories, a client for tool configuration, and their errors.

    async with MemoryClient("localhost:50051") as memory:
        stored = await memory.store("user-123", "prefers e-mail", content_type="preference")
        print(stored.memory.memory_id)

Arguments are plain Python: `metadata` a mapping as JSON knows it, times aware datetimes, spans
timedeltas. What is not given stays unset, and the service's own default holds. Answers are the
messages of `memoryd.v1`, documented field by field in their type stubs.

A refusal is raised as a subclass of `MemorydError`; `memoryd.client.errors` draws them. Arguments
that make no request at all are a ValueError or TypeError that names the argument, before anything
is sent. Calls that are safe to repeat are repeated, with back-off, while nobody answers and their
deadline lasts.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypedDict, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.field_mask_pb2 import FieldMask

from memoryd.client import arguments as args
from memoryd.client.errors import (
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
        if channel is not None and not isinstance(channel, grpc.aio.Channel):
            raise TypeError(f"channel: expected one of open_channel, not {args.shown(channel)}")
        if target is not None and channel is None:
            self._channel = open_channel(target, credentials=credentials, options=options)
        elif channel is not None and target is None and not credentials and not options:
            self._channel = channel
        else:
            raise ValueError(
                "target or channel: give a target, with credentials and options, or a channel alone"
            )
        # gRPC itself does not look: stubs made over a closed channel may end the process.
        if self._channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN:
            raise ValueError("channel: the channel is closed; open another")
        self._closes_channel = channel is None
        self._stub = self._stub_over(self._channel)
        self._timeout = args.seconds("timeout", timeout)
        self._metadata = args.headers("metadata", metadata)

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
        deadline = self._timeout if timeout is None else args.seconds("timeout", timeout)
        try:
            return await method(request, timeout=deadline, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise error_from(error) from error

    def _stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[_Request, _Response],
        request: _Request,
        timeout: float | None,
    ) -> AsyncGenerator[_Response, None]:
        return self._responses(method, request, args.seconds("timeout", timeout))

    async def _responses(
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
            request_id=_new_request_id() if request_id in (None, "") else request_id,
        )
        return await self._call(self._stub.StoreMemory, _store_request(new), timeout)

    async def store_many(
        self, memories: Iterable[NewMemory], *, timeout: float | None = None
    ) -> memory_pb2.BatchStoreMemoriesResponse:
        """Store up to 1,000 memories of any sessions: all or none. Answers in the same order.

        Raises InvalidArgument, whose violations name `requests[i].field`, and ResourceExhausted,
        also where all of them together take more than MAX_REQUEST_BYTES.
        """
        requests = [
            _store_request(
                args.instance(f"memories[{index}]", new, NewMemory), f"memories[{index}]."
            )
            for index, new in enumerate(args.items("memories", memories))
        ]
        batch = memory_pb2.BatchStoreMemoriesRequest(requests=requests)
        return await self._call(self._stub.BatchStoreMemories, batch, timeout)

    async def get(self, session_id: str, memory_id: str, *, timeout: float | None = None) -> Memory:
        """Read one memory.

        Raises NotFound for one that is absent, deleted, expired, or another tenant's, all alike.
        """
        request = memory_pb2.GetMemoryRequest(
            session_id=args.text("session_id", session_id),
            memory_id=args.text("memory_id", memory_id),
        )
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
        return self._all_pages(request, args.seconds("timeout", timeout))

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
            session_id=args.text("session_id", session_id),
            query=args.text("query", query),
            filter=_filter(which),
            limit=args.int32("limit", limit),
            peek=args.flag("peek", peek),
            importance_weight=args.optional_double("importance_weight", importance_weight),
            session_ids=args.texts("session_ids", session_ids),
            diversify=args.optional_flag("diversify", diversify),
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
            raise ValueError("content or memory_id: give one of them")
        request = memory_pb2.FindSimilarMemoriesRequest(
            session_id=args.text("session_id", session_id),
            max_distance=args.optional_int32("max_distance", max_distance),
            min_similarity=args.optional_double("min_similarity", min_similarity),
            limit=args.int32("limit", limit),
        )
        if content is not None:
            request.content = args.text("content", content)
        if memory_id is not None:
            request.memory_id = args.text("memory_id", memory_id)
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
        args.flag("never_expires", never_expires)
        args.at_most_one(ttl=ttl, expire_time=expire_time, never_expires=never_expires)
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
                session_id=args.text("session_id", session_id),
                memory_id=args.text("memory_id", memory_id),
                content=args.optional_text("content", content) or "",
                content_type=args.content_type("content_type", content_type),
                importance=args.optional_double("importance", importance),
                metadata=args.struct("metadata", metadata),
                expire_time=args.timestamp("expire_time", expire_time),
                etag=args.text("etag", etag),
            ),
            update_mask=FieldMask(paths=[path for path, to in changes.items() if to is not None]),
            ttl=args.duration("ttl", ttl),
        )
        return await self._call(self._stub.UpdateMemory, request, timeout)

    async def delete(
        self, session_id: str, memory_id: str, *, etag: str = "", timeout: float | None = None
    ) -> Memory:
        """Soft-delete a memory: gone for readers, kept for `undelete` until it is purged.

        Raises NotFound, and EtagMismatch where `etag` is given and not the current one.
        """
        request = memory_pb2.DeleteMemoryRequest(
            session_id=args.text("session_id", session_id),
            memory_id=args.text("memory_id", memory_id),
            etag=args.text("etag", etag),
        )
        return await self._call(self._stub.DeleteMemory, request, timeout)

    async def undelete(
        self, session_id: str, memory_id: str, *, timeout: float | None = None
    ) -> Memory:
        """Restore a soft-deleted memory.

        Raises NotFound if it is purged or has expired, AlreadyExists if it is not deleted or its
        content has been stored anew, ResourceExhausted if the session is full.
        """
        request = memory_pb2.UndeleteMemoryRequest(
            session_id=args.text("session_id", session_id),
            memory_id=args.text("memory_id", memory_id),
        )
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
            session_id=args.text("session_id", session_id),
            filter=_filter(which),
            force=args.flag("force", force),
        )
        return await self._call(self._stub.PurgeMemories, request, timeout)

    async def erase(
        self, session_id: str, *, timeout: float | None = None
    ) -> memory_pb2.EraseSessionResponse:
        """Forget the session: every row of it in every table, at once. Answers a receipt."""
        request = memory_pb2.EraseSessionRequest(session_id=args.text("session_id", session_id))
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
            session_id=args.text("session_id", session_id),
            start_revision=args.int64("start_revision", start_revision),
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
            session_id=args.text("session_id", session_id),
            filter=_filter(which),
            show_deleted=args.flag("show_deleted", show_deleted),
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
        request = tool_config_pb2.GetToolConfigRequest(tool=args.text("tool", tool))
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
            tool_config=config,
            update_mask=mask,
            validate_only=args.flag("validate_only", validate_only),
            reason=args.text("reason", reason),
        )
        return await self._call(self._stub.UpdateToolConfig, request, timeout)

    async def reset(
        self, tool: str, *paths: str, reason: str = "", timeout: float | None = None
    ) -> ToolConfig:
        """Drop overrides: those of `paths` (`enabled`, `rag.chunk_size`), or without any all."""
        request = tool_config_pb2.ResetToolConfigRequest(
            tool=args.text("tool", tool),
            paths=args.texts("paths", paths),
            reason=args.text("reason", reason),
        )
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

    def revisions(
        self, tool: str, *, page_size: int = 0, timeout: float | None = None
    ) -> AsyncGenerator[tool_config_pb2.ToolConfigRevision, None]:
        """Iterate over a tool's changes, newest first; `timeout` holds for each page."""
        request = tool_config_pb2.ListToolConfigRevisionsRequest(
            tool=args.text("tool", tool), page_size=args.int32("page_size", page_size)
        )
        return self._all_revisions(request, args.seconds("timeout", timeout))

    async def _all_revisions(
        self, request: tool_config_pb2.ListToolConfigRevisionsRequest, timeout: float | None
    ) -> AsyncGenerator[tool_config_pb2.ToolConfigRevision, None]:
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
            tool=args.text("tool", tool),
            revision=args.int64("revision", revision),
            reason=args.text("reason", reason),
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
        request = tool_config_pb2.WatchToolConfigsRequest(
            start_revision=args.int64("start_revision", start_revision)
        )
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
    args.text("target", target)
    if credentials is not None and not isinstance(credentials, grpc.ChannelCredentials):
        raise TypeError(f"credentials: expected ChannelCredentials, not {args.shown(credentials)}")
    given = args.channel_options("options", options)
    arguments = list((_channel_options() | given).items())
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


def _store_request(new: NewMemory, place: str = "") -> memory_pb2.StoreMemoryRequest:
    """`place`: what stands before the names of arguments in errors."""
    never_expires = args.flag(f"{place}never_expires", new.never_expires)
    args.at_most_one(
        **{
            f"{place}ttl": new.ttl,
            f"{place}expire_time": new.expire_time,
            f"{place}never_expires": never_expires,
        }
    )
    request = memory_pb2.StoreMemoryRequest(
        session_id=args.text(f"{place}session_id", new.session_id),
        content=args.text(f"{place}content", new.content),
        content_type=args.content_type(f"{place}content_type", new.content_type),
        importance=args.optional_double(f"{place}importance", new.importance),
        metadata=args.struct(f"{place}metadata", new.metadata),
        ttl=args.duration(f"{place}ttl", new.ttl),
        expire_time=args.timestamp(f"{place}expire_time", new.expire_time),
        request_id=args.text(f"{place}request_id", new.request_id),
    )
    if never_expires:
        request.never_expires = True
    return request


def _filter(which: Filter) -> MemoryFilter:
    unknown = which.keys() - Filter.__annotations__.keys()
    if unknown:
        raise TypeError(f"{', '.join(sorted(unknown))}: no such condition")
    types = args.items("content_types", which.get("content_types") or ())
    conditions = MemoryFilter(
        content_types=[
            args.content_type(f"content_types[{index}]", each) for index, each in enumerate(types)
        ],
        min_importance=args.optional_double("min_importance", which.get("min_importance")),
        metadata=args.struct("metadata", which.get("metadata")),
        created_after=args.timestamp("created_after", which.get("created_after")),
        created_before=args.timestamp("created_before", which.get("created_before")),
    )
    if not conditions.metadata.fields:
        conditions.ClearField("metadata")
    # Sent as nothing, a condition would match all, and a purge remove more than was meant.
    empty = which.keys() - {descriptor.name for descriptor, _ in conditions.ListFields()}
    if empty:
        raise ValueError(f"{', '.join(sorted(empty))}: empty; leave it out where all are meant")
    return conditions


def _list_request(
    session_id: str, *, show_deleted: bool, page_size: int, which: Filter, page_token: str = ""
) -> memory_pb2.ListMemoriesRequest:
    return memory_pb2.ListMemoriesRequest(
        session_id=args.text("session_id", session_id),
        filter=_filter(which),
        page_size=args.int32("page_size", page_size),
        page_token=args.text("page_token", page_token),
        show_deleted=args.flag("show_deleted", show_deleted),
    )


def _tool_config(
    tool: str, settings: Mapping[str, SettingValue] | None, *, enabled: bool | None, etag: str = ""
) -> tuple[ToolConfig, FieldMask]:
    """Return a ToolConfig with these values, and the paths that name them."""
    config = ToolConfig(
        tool=args.text("tool", tool),
        enabled=args.optional_flag("enabled", enabled),
        etag=args.text("etag", etag),
    )
    if settings is not None and not isinstance(settings, Mapping):
        raise TypeError(f"settings: expected a dict, not {args.shown(settings)}")
    paths = [] if enabled is None else ["enabled"]
    for name, value in (settings or {}).items():
        path = f"{tool}.{args.text('settings: a key', name)}"
        if value is None:
            raise ValueError(f"settings: {path}: None is no value; reset() drops an override")
        setting: dict[str, Any] = {tool: {name: value}}
        try:
            config.MergeFrom(ToolConfig(**setting))
        # A UnicodeEncodeError is a ValueError; what protobuf says of a list is an AttributeError.
        except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"settings: {path}: {ascii(str(error))[1:-1]}") from error
        paths.append(path)
    return config, FieldMask(paths=paths)
