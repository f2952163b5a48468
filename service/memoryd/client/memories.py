"""The client for memories."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from google.protobuf.field_mask_pb2 import FieldMask

from memoryd.client import arguments as args
from memoryd.client.answers import (
    BatchStoreMemoriesResponse,
    EraseSessionResponse,
    FindSimilarMemoriesResponse,
    ListMemoriesResponse,
    Memory,
    MemoryRevision,
    PurgeMemoriesResponse,
    RetrieveMemoriesResponse,
    StoreMemoryResponse,
    WatchMemoriesResponse,
)
from memoryd.client.channel import FIRST_PAUSE_SECONDS, Client
from memoryd.client.messages import (
    NewMemory,
    list_request,
    memory_filter,
    new_request_id,
    store_request,
)
from memoryd.client.store_stream import Stores
from memoryd.v1 import memory_pb2
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
    from datetime import datetime, timedelta
    from typing import Unpack

    import grpc.aio

    from memoryd.client.answers import ContentTypeName
    from memoryd.client.messages import Filter, JsonValue
    from memoryd.v1.memory_pb2_grpc import MemoryServiceAsyncStub


class MemoryClient(Client["MemoryServiceAsyncStub"]):
    """Memories, by session. The caller names a session, and it belongs to the caller's tenant.

    Every method may raise any `MemorydError`; its docstring names the ones to expect.
    """

    def _stub_over(self, channel: grpc.aio.Channel) -> MemoryServiceAsyncStub:
        return MemoryServiceStub(channel)

    async def store(
        self,
        session_id: str,
        content: str,
        *,
        content_type: ContentTypeName | None = None,
        importance: float | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
        ttl: timedelta | None = None,
        expire_time: datetime | None = None,
        never_expires: bool = False,
        key: str = "",
        tags: Collection[str] = (),
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> StoreMemoryResponse:
        """Store one memory; it is committed when this returns. The arguments are NewMemory's.

        The response's `outcome` says whether the memory is new, was merged into an existing one or
        has replaced the one that had its key (`replaced_memory_id`), `evicted_memory_ids` which
        memories it evicted. Without a `request_id` the call gets its
        own, so that it is safe to retry. Stores that are under way at once share a stream, which
        costs them a fraction of a call each.

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
            key=key,
            tags=tags,
            request_id=new_request_id() if request_id in (None, "") else request_id,
        )
        request = store_request(new)
        # A stream shows the credential that is there when it opens.
        left = await self._tries(self._limit(timeout)).next()
        return StoreMemoryResponse.from_proto(await self._stores.store(request, left))

    @cached_property
    def _stores(self) -> Stores:
        return Stores(
            lambda: self._stub.StreamStoreMemories(metadata=self._metadata),
            lambda request, limit: self._call_within(self._stub.StoreMemory, request, limit),
            FIRST_PAUSE_SECONDS,
        )

    async def close(self) -> None:
        """Close the channel unless it is shared; this cancels calls under way."""
        await self._stores.close(cancel=self._closes_channel)
        await super().close()

    async def store_many(
        self, memories: Iterable[NewMemory], *, timeout: float | None = None
    ) -> BatchStoreMemoriesResponse:
        """Store up to 1,000 memories of any sessions: all or none. Results have the same order.

        Raises InvalidArgument, whose violations name `requests[i].field`, and ResourceExhausted,
        also where together they exceed MAX_REQUEST_BYTES.
        """
        requests = [
            store_request(
                args.instance(f"memories[{index}]", new, NewMemory), f"memories[{index}]."
            )
            for index, new in enumerate(args.items("memories", memories))
        ]
        batch = memory_pb2.BatchStoreMemoriesRequest(requests=requests)
        return await self._answer(
            self._stub.BatchStoreMemories, batch, BatchStoreMemoriesResponse, timeout
        )

    async def get(
        self,
        session_id: str,
        memory_id: str | None = None,
        *,
        key: str | None = None,
        timeout: float | None = None,
    ) -> Memory:
        """Read one memory, by its id or its key.

        Raises NotFound for a memory that is absent, deleted, expired or another tenant's.
        """
        request = memory_pb2.GetMemoryRequest(
            session_id=args.text("session_id", session_id),
            **args.one_text(memory_id=memory_id, key=key),
        )
        return await self._answer(self._stub.GetMemory, request, Memory, timeout)

    def list(
        self,
        session_id: str,
        *,
        show_deleted: bool = False,
        page_size: int = 0,
        timeout: float | None = None,
        **which: Unpack[Filter],
    ) -> AsyncGenerator[Memory, None]:
        """Iterate over all matching memories, in creation order, each once and none skipped.

        Pages are fetched as they are read; `timeout` applies to each page.
        """
        request = list_request(
            session_id, show_deleted=show_deleted, page_size=page_size, which=which
        )
        return self._pages(self._stub.ListMemories, request, _memories_of, timeout)

    async def list_page(
        self,
        session_id: str,
        *,
        show_deleted: bool = False,
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
        **which: Unpack[Filter],
    ) -> ListMemoriesResponse:
        """Read one page, in creation order: the first, or the one that `page_token` names.

        `page_size`: 0 is 50, at most 1,000. The response's `next_page_token` is empty on the last
        page; it survives restarts of the service, and is valid for the same other arguments only.
        """
        request = list_request(
            session_id,
            show_deleted=show_deleted,
            page_size=page_size,
            page_token=page_token,
            which=which,
        )
        return await self._answer(self._stub.ListMemories, request, ListMemoriesResponse, timeout)

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
        min_relevance: float | None = None,
        max_chars: int = 0,
        exclude_memory_ids: Iterable[str] = (),
        timeout: float | None = None,
        **which: Unpack[Filter],
    ) -> RetrieveMemoriesResponse:
        """Find the memories that an agent should see now, best first.

        With a `query` they are ranked by relevance to it. Without one they are ranked by effective
        importance, which must be at least the tool configuration's `memory.importance_threshold`
        unless `min_importance` is given. `session_ids`: up to 16 further sessions to rank along
        with the first. `limit`: 0 is 10, at most 100. Accesses are counted unless `peek`.
        `importance_weight` (0.0-1.0; None: 0.2) is the share of importance in the ranking by
        relevance. Near duplicates rank lower unless `diversify` is False. `min_relevance` (0.0-1.0;
        only with a query) leaves out memories that recall is less sure of: without results, it
        knows nothing of the query. Results end before their contents together exceed `max_chars`
        characters, but the best one always comes; 0 is no limit. `exclude_memory_ids`: up to 1,000
        memories to leave out.
        """
        request = memory_pb2.RetrieveMemoriesRequest(
            session_id=args.text("session_id", session_id),
            query=args.text("query", query),
            filter=memory_filter(which),
            limit=args.int32("limit", limit),
            peek=args.flag("peek", peek),
            importance_weight=args.optional_double("importance_weight", importance_weight),
            session_ids=args.texts("session_ids", session_ids),
            diversify=args.optional_flag("diversify", diversify),
            min_relevance=args.optional_double("min_relevance", min_relevance),
            max_chars=args.int32("max_chars", max_chars),
            exclude_memory_ids=args.texts("exclude_memory_ids", exclude_memory_ids),
        )
        return await self._answer(
            self._stub.RetrieveMemories, request, RetrieveMemoriesResponse, timeout
        )

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
    ) -> FindSimilarMemoriesResponse:
        """Find near duplicates of a text or a memory, nearest first.

        `max_distance`: how many bits of the semantic hashes may differ, 0-64; None: 10, unless
        `min_similarity` (0.0-1.0) is given. `limit`: 0 is 10, at most 100.

        Raises NotFound for a `memory_id` that the session does not have.
        """
        request = memory_pb2.FindSimilarMemoriesRequest(
            session_id=args.text("session_id", session_id),
            max_distance=args.optional_int32("max_distance", max_distance),
            min_similarity=args.optional_double("min_similarity", min_similarity),
            limit=args.int32("limit", limit),
            **args.one_text(content=content, memory_id=memory_id),
        )
        return await self._answer(
            self._stub.FindSimilarMemories, request, FindSimilarMemoriesResponse, timeout
        )

    async def update(
        self,
        session_id: str,
        memory_id: str,
        *,
        content: str | None = None,
        content_type: ContentTypeName | None = None,
        importance: float | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
        tags: Iterable[str] | None = None,
        ttl: timedelta | None = None,
        expire_time: datetime | None = None,
        never_expires: bool = False,
        etag: str = "",
        timeout: float | None = None,
    ) -> Memory:
        """Change the given fields and no others; returns the changed memory.

        `metadata` and `tags` are replaced as a whole. `etag`: of the memory as it was read; the
        change is refused if the memory has changed since.

        Raises InvalidArgument, NotFound, EtagMismatch, and AlreadyExists where another memory has
        the content; the error's `resource` names it.
        """
        args.flag("never_expires", never_expires)
        args.at_most_one(ttl=ttl, expire_time=expire_time, never_expires=never_expires)
        changes = {
            "content": content,
            "content_type": content_type,
            "importance": importance,
            "metadata": metadata,
            "tags": tags,
            # In the mask but unset, it means never.
            "expire_time": expire_time or never_expires or None,
        }
        request = memory_pb2.UpdateMemoryRequest(
            memory=memory_pb2.Memory(
                session_id=args.text("session_id", session_id),
                memory_id=args.text("memory_id", memory_id),
                content=args.optional_text("content", content) or "",
                content_type=args.content_type("content_type", content_type),
                importance=args.optional_double("importance", importance),
                metadata=args.struct("metadata", metadata),
                tags=args.texts("tags", () if tags is None else tags),
                expire_time=args.timestamp("expire_time", expire_time),
                etag=args.text("etag", etag),
            ),
            update_mask=FieldMask(paths=[path for path, to in changes.items() if to is not None]),
            ttl=args.duration("ttl", ttl),
        )
        return await self._answer(self._stub.UpdateMemory, request, Memory, timeout)

    async def delete(
        self,
        session_id: str,
        memory_id: str | None = None,
        *,
        key: str | None = None,
        etag: str = "",
        timeout: float | None = None,
    ) -> Memory:
        """Soft-delete a memory, named by its id or its key: readers no longer see it.

        Until a purge `undelete` restores it.

        Raises NotFound, and EtagMismatch where `etag` is given and is not the current one.
        """
        request = memory_pb2.DeleteMemoryRequest(
            session_id=args.text("session_id", session_id),
            etag=args.text("etag", etag),
            **args.one_text(memory_id=memory_id, key=key),
        )
        return await self._answer(self._stub.DeleteMemory, request, Memory, timeout)

    async def undelete(
        self, session_id: str, memory_id: str, *, timeout: float | None = None
    ) -> Memory:
        """Restore a soft-deleted memory.

        Raises NotFound if it is purged or has expired, AlreadyExists if it is not deleted, its key
        is taken or its content has been stored again, ResourceExhausted if the session is full.
        """
        request = memory_pb2.UndeleteMemoryRequest(
            session_id=args.text("session_id", session_id),
            memory_id=args.text("memory_id", memory_id),
        )
        return await self._answer(self._stub.UndeleteMemory, request, Memory, timeout)

    def revisions(
        self,
        session_id: str,
        memory_id: str,
        *,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncGenerator[MemoryRevision, None]:
        """Iterate over the versions of a memory that are kept, newest first.

        Pages are fetched as they are read; `timeout` applies to each page.

        Raises NotFound if the memory never existed, has expired or was purged.
        """
        request = memory_pb2.ListMemoryRevisionsRequest(
            session_id=args.text("session_id", session_id),
            memory_id=args.text("memory_id", memory_id),
            page_size=args.int32("page_size", page_size),
        )
        return self._pages(self._stub.ListMemoryRevisions, request, _revisions_of, timeout)

    async def rollback(
        self, session_id: str, memory_id: str, revision: int, *, timeout: float | None = None
    ) -> Memory:
        """Give a live memory what one of its versions had; `revisions` has them.

        Raises NotFound, OutOfRange if the memory never had the revision or it is no longer kept,
        FailedPrecondition if the version has expired, and AlreadyExists where another memory has
        its content.
        """
        request = memory_pb2.RollbackMemoryRequest(
            session_id=args.text("session_id", session_id),
            memory_id=args.text("memory_id", memory_id),
            revision=args.int64("revision", revision),
        )
        return await self._answer(self._stub.RollbackMemory, request, Memory, timeout)

    async def purge(
        self,
        session_id: str,
        *,
        force: bool = False,
        timeout: float | None = None,
        **which: Unpack[Filter],
    ) -> PurgeMemoriesResponse:
        """Delete all matching memories for good, also soft-deleted and expired ones.

        Without a condition every memory of the session matches. Without `force` nothing is
        deleted: the response has the number of matches and a sample.
        """
        request = memory_pb2.PurgeMemoriesRequest(
            session_id=args.text("session_id", session_id),
            filter=memory_filter(which),
            force=args.flag("force", force),
        )
        return await self._answer(self._stub.PurgeMemories, request, PurgeMemoriesResponse, timeout)

    async def erase(self, session_id: str, *, timeout: float | None = None) -> EraseSessionResponse:
        """Erase the session at once: its rows in every table. Returns a receipt."""
        request = memory_pb2.EraseSessionRequest(session_id=args.text("session_id", session_id))
        return await self._answer(self._stub.EraseSession, request, EraseSessionResponse, timeout)

    def watch(
        self, session_id: str, start_revision: int = 0, *, timeout: float | None = None
    ) -> AsyncGenerator[WatchMemoriesResponse, None]:
        """Iterate over the changes after a revision, then over every change as it commits.

        A watch that breaks off, because the server stops or the caller reads too slowly, resumes by
        itself: no change is missed, and none comes twice. Only an error ends it: OutOfRange when
        changes since the last one read are no longer kept (list again), Unavailable when no server
        takes it in the first place. `timeout`: seconds to watch in all; None: no limit.
        """
        request = memory_pb2.WatchMemoriesRequest(
            session_id=args.text("session_id", session_id),
            start_revision=args.int64("start_revision", start_revision),
        )
        return self._watch(self._stub.WatchMemories, request, WatchMemoriesResponse, timeout)

    def export(
        self,
        session_id: str,
        *,
        show_deleted: bool = False,
        timeout: float | None = None,
        **which: Unpack[Filter],
    ) -> AsyncGenerator[Memory, None]:
        """Iterate over all matching memories, in creation order, as one stream.

        `timeout`: seconds for the whole stream; None: no limit.
        """
        request = memory_pb2.ExportMemoriesRequest(
            session_id=args.text("session_id", session_id),
            filter=memory_filter(which),
            show_deleted=args.flag("show_deleted", show_deleted),
        )
        return self._stream(self._stub.ExportMemories, request, Memory, timeout)


def _memories_of(page: memory_pb2.ListMemoriesResponse) -> Iterable[Memory]:
    return map(Memory.from_proto, page.memories)


def _revisions_of(page: memory_pb2.ListMemoryRevisionsResponse) -> Iterable[MemoryRevision]:
    return map(MemoryRevision.from_proto, page.revisions)
