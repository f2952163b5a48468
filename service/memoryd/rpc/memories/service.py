"""MemoryService: each handler checks, converts, makes one call, and converts back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memoryd.domain.records import Capacity, MemoryFilter
from memoryd.recall.weights import DEFAULT_IMPORTANCE_WEIGHT
from memoryd.retrieval.query import Wanted
from memoryd.rpc import page_token
from memoryd.rpc.call import current_call, offloaded
from memoryd.rpc.limits import client_of
from memoryd.rpc.memories import messages as convert
from memoryd.rpc.memories.results import MAX_ANSWER_BYTES, encoded_response, fitting
from memoryd.v1 import memory_pb2, memory_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from datetime import datetime

    import grpc

    from memoryd.domain.records import Memory
    from memoryd.memories.access import AccessTracker
    from memoryd.memories.feed import ChangeHub
    from memoryd.memories.store import MemoryStore
    from memoryd.retrieval.engine import Retrieval
    from memoryd.rpc.memories.requests import Requests
    from memoryd.tools.settings import MemorySettings

    Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
DEFAULT_RESULTS = 10
MAX_RESULTS = 100
DEFAULT_DISTANCE = 10
EVERYTHING = MemoryFilter()
PURGE_SAMPLE = 20
"""So many of the largest memories there are fit into one answer."""


@dataclass(frozen=True, slots=True)
class MemoryServiceOptions:
    half_life_days: float
    settings: Callable[[], MemorySettings]
    """Those of the `memory` tool, as they are now."""


class MemoryService(memory_pb2_grpc.MemoryServiceServicer):
    def __init__(
        self,
        store: MemoryStore,
        accesses: AccessTracker,
        hub: ChangeHub,
        retrieval: Callable[[], Awaitable[Retrieval]],  # which may have to be loaded first
        requests: Requests,
        *,
        clock: Callable[[], datetime],
        options: MemoryServiceOptions,
    ) -> None:
        self._store = store
        self._accesses = accesses
        self._hub = hub
        self._retrieval = retrieval
        self._requests = requests
        self._clock = clock
        self._options = options

    async def StoreMemory(
        self, request: memory_pb2.StoreMemoryRequest, context: Context
    ) -> memory_pb2.StoreMemoryResponse:
        session_of = current_call().session
        item = await offloaded(request.ByteSize(), self._requests.new_memory, request, session_of)
        (stored,) = await self._store.store((item,), self._capacity())
        return convert.store_response(stored, half_life_days=self._options.half_life_days)

    async def BatchStoreMemories(
        self, request: memory_pb2.BatchStoreMemoriesRequest, context: Context
    ) -> memory_pb2.BatchStoreMemoriesResponse:
        session_of = current_call().session
        items = await offloaded(
            request.ByteSize(), self._requests.new_memories, request, session_of
        )
        stored = await self._store.store(items, self._capacity()) if items else ()
        return convert.batch_response(
            stored, half_life_days=self._options.half_life_days, max_bytes=MAX_ANSWER_BYTES
        )

    async def GetMemory(
        self, request: memory_pb2.GetMemoryRequest, context: Context
    ) -> memory_pb2.Memory:
        call = current_call()
        memory = await self._store.get(
            call.session(request.session_id),
            request.memory_id,
            now=self._clock(),
            timeout=call.time_remaining(),
        )
        return self._message(memory)

    async def ListMemories(
        self, request: memory_pb2.ListMemoriesRequest, context: Context
    ) -> memory_pb2.ListMemoriesResponse:
        call = current_call()
        wanted, after = self._requests.listing(request)
        page = await self._store.page(
            call.session(request.session_id),
            wanted,
            after=after,
            size=min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE),
            show_deleted=request.show_deleted,
            half_life_days=self._options.half_life_days,
            now=self._clock(),
            timeout=call.time_remaining(),
        )
        answer = memory_pb2.ListMemoriesResponse()
        next_after, room = page.next_after, MAX_ANSWER_BYTES
        for place, memory in enumerate(page.memories):
            message = self._message(memory)
            room -= message.ByteSize()
            if place and room < 0:
                next_after = page.memories[place - 1].created_revision
                break
            answer.memories.append(message)
        if next_after is not None:
            answer.next_page_token = page_token.encode(next_after, request)
        return answer

    async def RetrieveMemories(  # type: ignore[override]  # encoded already
        self, request: memory_pb2.RetrieveMemoriesRequest, context: Context
    ) -> bytes:
        call, now = current_call(), self._clock()
        query = request.query.strip()
        sessions = [
            call.session(name) for name in dict.fromkeys((request.session_id, *request.session_ids))
        ]
        given = self._requests.filter(request.filter) if request.HasField("filter") else EVERYTHING
        min_importance = given.min_importance
        if min_importance is None and not query:
            min_importance = self._options.settings().importance_threshold
        wanted = Wanted(
            given,
            min_importance,
            limit=min(request.limit or DEFAULT_RESULTS, MAX_RESULTS),
            importance_weight=request.importance_weight
            if request.HasField("importance_weight")
            else DEFAULT_IMPORTANCE_WEIGHT,
            diverse=request.diversify or not request.HasField("diversify"),
        )
        retrieval = await self._retrieval()
        timeout, client = call.time_remaining(), client_of(context.peer())
        if query:
            found = await retrieval.relevant(
                sessions, query, wanted, now=now, timeout=timeout, caller=client
            )
        else:
            found = await retrieval.important(
                sessions, wanted, now=now, timeout=timeout, caller=client
            )
        results = fitting(found.results)
        if not request.peek:
            self._accesses.record((result.encoded.memory for result in results), now)
        several = len(sessions) > 1
        return encoded_response(
            results,
            found.revisions[sessions[0]],
            {s.session_id: n for s, n in found.revisions.items()} if several else None,
            truncated=len(results) < len(found.results),
        )

    async def UpdateMemory(
        self, request: memory_pb2.UpdateMemoryRequest, context: Context
    ) -> memory_pb2.Memory:
        session = current_call().session(request.memory.session_id)
        edit = await offloaded(request.ByteSize(), self._requests.edit, request, session)
        return self._message(await self._store.update(edit))

    async def DeleteMemory(
        self, request: memory_pb2.DeleteMemoryRequest, context: Context
    ) -> memory_pb2.Memory:
        session = current_call().session(request.session_id)
        return self._message(await self._store.delete(session, request.memory_id, request.etag))

    async def UndeleteMemory(
        self, request: memory_pb2.UndeleteMemoryRequest, context: Context
    ) -> memory_pb2.Memory:
        session = current_call().session(request.session_id)
        return self._message(
            await self._store.undelete(session, request.memory_id, self._capacity())
        )

    async def FindSimilarMemories(
        self, request: memory_pb2.FindSimilarMemoriesRequest, context: Context
    ) -> memory_pb2.FindSimilarMemoriesResponse:
        call, now = current_call(), self._clock()
        content, semantic_hash = await offloaded(request.ByteSize(), self._requests.target, request)
        retrieval = await self._retrieval()
        found = await retrieval.similar(
            call.session(request.session_id),
            content=content,
            semantic_hash=semantic_hash,
            memory_id=request.memory_id,
            now=now,
            timeout=call.time_remaining(),
            caller=client_of(context.peer()),
        )
        by_similarity = request.HasField("min_similarity")
        if by_similarity:
            found = [one for one in found if one.similarity >= request.min_similarity]
        if request.HasField("max_distance") or not by_similarity:
            given = request.HasField("max_distance")
            most = request.max_distance if given else DEFAULT_DISTANCE
            found = [one for one in found if one.distance <= most]
        found.sort(key=lambda one: -one.similarity if by_similarity else one.distance)
        answer, room = memory_pb2.FindSimilarMemoriesResponse(), MAX_ANSWER_BYTES
        for one in found[: min(request.limit or DEFAULT_RESULTS, MAX_RESULTS)]:
            result = memory_pb2.SimilarMemory(
                memory=self._message(one.memory, now),
                distance=one.distance,
                similarity=one.similarity,
            )
            room -= result.ByteSize()
            if room < 0 and answer.results:
                answer.truncated = True
                break
            answer.results.append(result)
        return answer

    async def PurgeMemories(
        self, request: memory_pb2.PurgeMemoriesRequest, context: Context
    ) -> memory_pb2.PurgeMemoriesResponse:
        call = current_call()
        session, wanted = call.session(request.session_id), self._requests.filter(request.filter)
        now, half_life_days = self._clock(), self._options.half_life_days
        if request.force:
            count = await self._store.purge(session, wanted, half_life_days=half_life_days, now=now)
            return memory_pb2.PurgeMemoriesResponse(purge_count=count)
        count, sample = await self._store.matching(
            session,
            wanted,
            sample_size=PURGE_SAMPLE,
            half_life_days=half_life_days,
            now=now,
            timeout=call.time_remaining(),
        )
        return memory_pb2.PurgeMemoriesResponse(
            purge_count=count, sample=[self._message(memory, now) for memory in sample]
        )

    async def EraseSession(
        self, request: memory_pb2.EraseSessionRequest, context: Context
    ) -> memory_pb2.EraseSessionResponse:
        rows = await self._store.erase(current_call().session(request.session_id))
        return memory_pb2.EraseSessionResponse(
            erased_memories=rows["memories"],
            erased_rows=rows,
            erase_time=convert.timestamp(self._clock()),
        )

    async def WatchMemories(
        self, request: memory_pb2.WatchMemoriesRequest, context: Context
    ) -> AsyncIterator[memory_pb2.WatchMemoriesResponse]:
        session = current_call().session(request.session_id)
        position = request.start_revision
        with self._hub.following(session) as follower:
            while True:
                for event in await follower.after(position):
                    yield convert.event_message(
                        session,
                        event,
                        now=self._clock(),
                        half_life_days=self._options.half_life_days,
                    )
                    position = event.revision

    async def ExportMemories(
        self, request: memory_pb2.ExportMemoriesRequest, context: Context
    ) -> AsyncIterator[memory_pb2.Memory]:
        call = current_call()
        session, wanted = call.session(request.session_id), self._requests.filter(request.filter)
        after: int | None = -1
        while after is not None:
            page = await self._store.page(
                session,
                wanted,
                after=after,
                size=DEFAULT_PAGE_SIZE,
                show_deleted=request.show_deleted,
                half_life_days=self._options.half_life_days,
                now=self._clock(),
                timeout=call.time_remaining(),
            )
            for memory in page.memories:
                yield self._message(memory)
            after = page.next_after

    def _capacity(self) -> Capacity:
        return Capacity(self._options.settings().max_entries, self._options.half_life_days)

    def _message(self, memory: Memory, now: datetime | None = None) -> memory_pb2.Memory:
        return convert.memory_message(
            memory, now=now or self._clock(), half_life_days=self._options.half_life_days
        )
