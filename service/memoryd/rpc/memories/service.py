"""MemoryService: a row for each method; each handler takes a record, makes one call and answers."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memoryd.domain.audit import Audited
from memoryd.domain.principals import Scope
from memoryd.domain.records import Capacity
from memoryd.rpc import page_token, sizes
from memoryd.rpc.answer_size import MAX_ANSWER_BYTES, fill, fill_page
from memoryd.rpc.memories import messages as convert
from memoryd.rpc.memories import plain
from memoryd.rpc.memories.results import encoded_response, fitting
from memoryd.rpc.memories.revisions import Revisions
from memoryd.rpc.memories.store_stream import outcomes, parse_message
from memoryd.rpc.methods import BULK_WEIGHT, SEARCH_WEIGHT, WRITE_WEIGHT, Method, is_any
from memoryd.v1 import memory_pb2

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from memoryd.domain.principals import Principal
    from memoryd.domain.records import (
        Memory,
        MemoryEdit,
        MemoryEvent,
        NewMemory,
        Session,
        Stored,
    )
    from memoryd.memories.access import AccessTracker
    from memoryd.memories.store import MemoryStore
    from memoryd.retrieval.engine import Retrieval
    from memoryd.rpc.call import Call
    from memoryd.rpc.memories.requests import (
        Export,
        Listing,
        MemoryName,
        Purge,
        RequestParser,
        RetrievalRequest,
        SimilarityRequest,
        Watch,
    )
    from memoryd.rpc.memories.store_stream import StoreMessage
    from memoryd.rpc.request_stream import RequestStream
    from memoryd.rpc.violations import Violations
    from memoryd.sessions.feed import ChangeFeed
    from memoryd.tools.settings import MemorySettings

PURGE_SAMPLE = 20
"""So many of the largest memories there are fit into one answer."""


@dataclass(frozen=True, slots=True)
class MemoryServiceOptions:
    half_life_days: float
    settings: Callable[[str], MemorySettings]
    """Those of a tenant's `memory` tool, as they are now."""
    holds: Callable[[Call], AbstractAsyncContextManager[None]]
    """Has them in memory for a call. It raises DatabaseUnavailable where they are not known: by
    others, memories could be evicted that its own would keep."""

    def capacity(self, session: Session) -> Capacity:
        """What a session may hold."""
        return Capacity(self.settings(session.tenant).max_entries, self.half_life_days)


class MemoryService:
    def __init__(
        self,
        store: MemoryStore,
        accesses: AccessTracker,
        feed: ChangeFeed[MemoryEvent],
        retrieval: Callable[[], Awaitable[Retrieval]],  # which may have to be loaded first
        *,
        clock: Callable[[], datetime],
        options: MemoryServiceOptions,
        charge: Callable[[Principal, int], None],
    ) -> None:
        """`charge` counts what comes over a stream as calls. It raises QuotaExceeded."""
        self._charge = charge
        self._store = store
        self._accesses = accesses
        self._feed = feed
        self._retrieval = retrieval
        self._clock = clock
        self._options = options

    def methods(self, parser: RequestParser) -> Mapping[str, Method[Any]]:
        """The table of this service."""
        read, write = Scope.MEMORIES_READ, Scope.MEMORIES_WRITE
        in_all, holds = Audited.IN_ALL, self._options.holds
        store = Method(
            parser.new_memory,
            self.store,
            write,
            in_all,
            weight=WRITE_WEIGHT,
            check_size=sizes.check_store,
            is_plain=plain.is_plain_store,
            holds=holds,
            waits_for_commit=True,
        )

        def store_message(
            request: memory_pb2.StreamStoreMemoriesRequest, call: Call, violations: Violations
        ) -> StoreMessage:
            del violations  # each item has its own
            return parse_message(request, call, store, self._store.admitted_write, self._charge)

        return {
            "StoreMemory": store,
            "BatchStoreMemories": Method(
                parser.new_memories,
                self.store_batch,
                write,
                in_all,
                weight=BULK_WEIGHT,
                check_size=parser.check_batch_size,
                is_plain=plain.is_plain_batch,
                holds=holds,
                waits_for_commit=True,
            ),
            "StreamStoreMemories": Method(
                store_message,
                self.store_stream,
                write,
                in_all,
                check_size=sizes.check_stream,
                is_plain=is_any,
                holds=holds,
            ),
            "GetMemory": Method(
                parser.name_or_key, self.get, read, in_all, is_plain=plain.is_plain_name
            ),
            "ListMemories": Method(
                parser.listing,
                self.list_page,
                read,
                in_all,
                weight=SEARCH_WEIGHT,
                check_size=sizes.check_filter,
            ),
            "RetrieveMemories": Method(
                parser.retrieval,
                self.retrieve,
                read,
                in_all,
                weight=SEARCH_WEIGHT,
                check_size=sizes.check_retrieval,
                is_plain=plain.is_plain_retrieval,
                holds=holds,
            ),
            "UpdateMemory": Method(
                parser.edit,
                self.update,
                write,
                in_all,
                weight=WRITE_WEIGHT,
                check_size=sizes.check_update,
                waits_for_commit=True,
            ),
            "DeleteMemory": Method(
                parser.deletion,
                self.delete,
                write,
                in_all,
                weight=WRITE_WEIGHT,
                waits_for_commit=True,
            ),
            "UndeleteMemory": Method(
                parser.name,
                self.undelete,
                write,
                in_all,
                weight=WRITE_WEIGHT,
                holds=holds,
                waits_for_commit=True,
            ),
            "FindSimilarMemories": Method(
                parser.similarity,
                self.find_similar,
                read,
                in_all,
                weight=SEARCH_WEIGHT,
                check_size=sizes.check_similar,
            ),
            "PurgeMemories": Method(
                parser.purge,
                self.purge,
                read,
                Audited.AFTER,
                weight=BULK_WEIGHT,
                check_size=sizes.check_filter,
            ),
            "EraseSession": Method(
                parser.session,
                self.erase,
                Scope.MEMORIES_ERASE,
                Audited.BEFORE,
                weight=BULK_WEIGHT,
            ),
            "WatchMemories": Method(parser.watch, self.watch, read, in_all),
            "ExportMemories": Method(
                parser.export,
                self.export,
                Scope.MEMORIES_EXPORT,
                Audited.BEFORE,
                weight=BULK_WEIGHT,
                check_size=sizes.check_filter,
            ),
            **Revisions(self._store, self._message, clock=self._clock).methods(),
        }

    async def store(self, memory: NewMemory, call: Call) -> memory_pb2.StoreMemoryResponse:
        del call
        (stored,) = await self._store.store((memory,), self._options.capacity(memory.session))
        return convert.store_response(stored, half_life_days=self._options.half_life_days)

    async def store_batch(
        self, memories: Sequence[NewMemory], call: Call
    ) -> memory_pb2.BatchStoreMemoriesResponse:
        del call
        stored: Sequence[Stored] = ()
        if memories:
            stored = await self._store.store(memories, self._options.capacity(memories[0].session))
        return convert.batch_response(
            stored, half_life_days=self._options.half_life_days, max_bytes=MAX_ANSWER_BYTES
        )

    async def store_stream(
        self, messages: RequestStream[StoreMessage], call: Call
    ) -> AsyncIterator[memory_pb2.StreamStoreMemoriesResponse]:
        del call
        async with aclosing(outcomes(messages, self._begin_store)) as answers:
            async for answer in answers:
                yield convert.stream_response(
                    answer,
                    messages.status_of,
                    half_life_days=self._options.half_life_days,
                    max_bytes=MAX_ANSWER_BYTES,
                )

    def _begin_store(self, memory: NewMemory) -> asyncio.Future[tuple[Stored, ...]]:
        return self._store.begin_store(memory, self._options.capacity(memory.session))

    async def get(self, name: MemoryName, call: Call) -> memory_pb2.Memory:
        now, timeout = self._clock(), call.time_remaining()
        if name.key:
            found = self._store.get_by_key(name.session, name.key, now=now, timeout=timeout)
        else:
            found = self._store.get(name.session, name.memory_id, now=now, timeout=timeout)
        return self._message(await found)

    async def list_page(self, listing: Listing, call: Call) -> memory_pb2.ListMemoriesResponse:
        page = await self._store.page(
            listing.session,
            listing.filter,
            after=listing.after,
            size=listing.size,
            show_deleted=listing.show_deleted,
            half_life_days=self._options.half_life_days,
            now=self._clock(),
            timeout=call.time_remaining(),
        )
        answer = memory_pb2.ListMemoriesResponse()
        next_after = fill_page(
            answer.memories,
            page.memories,
            self._message,
            position_of=lambda memory: memory.created_revision,
            after_all=page.next_after,
        )
        if next_after is not None:
            answer.next_page_token = listing.token_at(next_after)
        return answer

    async def retrieve(self, request: RetrievalRequest, call: Call) -> bytes:
        """Answer a RetrieveMemoriesResponse, encoded."""
        now, sessions = self._clock(), request.sessions
        retrieval = await self._retrieval()
        timeout, caller = call.time_remaining(), call.client
        if request.query:
            found = await retrieval.relevant(
                sessions, request.query, request.wanted, now=now, timeout=timeout, caller=caller
            )
        else:
            found = await retrieval.important(
                sessions, request.wanted, now=now, timeout=timeout, caller=caller
            )
        results = fitting(found.results, request.max_chars)
        # What is asked for by those who may only read changes nothing.
        if not request.peek and Scope.MEMORIES_WRITE in call.principal.scopes:
            self._accesses.record((result.encoded.memory for result in results), now)
        several = len(sessions) > 1
        return encoded_response(
            results,
            found.revisions[sessions[0]],
            {s.session_id: n for s, n in found.revisions.items()} if several else None,
            truncated=len(results) < len(found.results),
        )

    async def update(self, edit: MemoryEdit, call: Call) -> memory_pb2.Memory:
        del call
        return self._message(await self._store.update(edit))

    async def delete(self, name: MemoryName, call: Call) -> memory_pb2.Memory:
        del call
        if name.key:
            deleted = self._store.delete_by_key(name.session, name.key, name.etag)
        else:
            deleted = self._store.delete(name.session, name.memory_id, name.etag)
        return self._message(await deleted)

    async def undelete(self, name: MemoryName, call: Call) -> memory_pb2.Memory:
        del call
        return self._message(
            await self._store.undelete(
                name.session, name.memory_id, self._options.capacity(name.session)
            )
        )

    async def find_similar(
        self, request: SimilarityRequest, call: Call
    ) -> memory_pb2.FindSimilarMemoriesResponse:
        now = self._clock()
        retrieval = await self._retrieval()
        found = await retrieval.similar(
            request.session,
            content=request.content,
            semantic_hash=request.semantic_hash,
            memory_id=request.memory_id,
            now=now,
            timeout=call.time_remaining(),
            caller=call.client,
        )
        least, most = request.min_similarity, request.max_distance
        if least is not None:
            found = [one for one in found if one.similarity >= least]
        if most is not None:
            found = [one for one in found if one.distance <= most]
        found.sort(key=lambda one: one.distance if least is None else -one.similarity)
        answer, found = memory_pb2.FindSimilarMemoriesResponse(), found[: request.limit]
        results = (
            memory_pb2.SimilarMemory(
                memory=self._message(one.memory, now),
                distance=one.distance,
                similarity=one.similarity,
            )
            for one in found
        )
        answer.truncated = fill(answer.results, results) < len(found)
        return answer

    async def purge(self, purge: Purge, call: Call) -> memory_pb2.PurgeMemoriesResponse:
        now, half_life_days = self._clock(), self._options.half_life_days
        if purge.force:
            count = await self._store.purge(
                purge.session, purge.filter, half_life_days=half_life_days, now=now
            )
            call.counts("purged_memories", count)
            return memory_pb2.PurgeMemoriesResponse(purge_count=count)
        call.changes_nothing()
        count, sample = await self._store.matching(
            purge.session,
            purge.filter,
            sample_size=PURGE_SAMPLE,
            half_life_days=half_life_days,
            now=now,
            timeout=call.time_remaining(),
        )
        return memory_pb2.PurgeMemoriesResponse(
            purge_count=count, sample=[self._message(memory, now) for memory in sample]
        )

    async def erase(self, session: Session, call: Call) -> memory_pb2.EraseSessionResponse:
        rows = await self._store.erase(session)
        call.counts("erased_memories", rows["memories"])
        return memory_pb2.EraseSessionResponse(
            erased_memories=rows["memories"],
            erased_rows=rows,
            erase_time=convert.timestamp(self._clock()),
            receipt_id=call.receipt_id,
        )

    async def watch(
        self, watch: Watch, call: Call
    ) -> AsyncIterator[memory_pb2.WatchMemoriesResponse]:
        del call
        async with aclosing(self._feed.events(watch.session, watch.start_revision)) as events:
            async for event in events:
                yield convert.event_message(
                    watch.session,
                    event,
                    now=self._clock(),
                    half_life_days=self._options.half_life_days,
                )

    async def export(self, export: Export, call: Call) -> AsyncIterator[memory_pb2.Memory]:
        after: int | None = -1
        while after is not None:
            page = await self._store.page(
                export.session,
                export.filter,
                after=after,
                size=page_token.DEFAULT_SIZE,
                show_deleted=export.show_deleted,
                half_life_days=self._options.half_life_days,
                now=self._clock(),
                timeout=call.time_remaining(),
            )
            for memory in page.memories:
                call.counts("exported_memories", 1)
                yield self._message(memory)
            after = page.next_after

    def _message(self, memory: Memory, now: datetime | None = None) -> memory_pb2.Memory:
        return convert.memory_message(
            memory, now=now or self._clock(), half_life_days=self._options.half_life_days
        )
