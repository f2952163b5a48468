"""SessionService: a row for each method; each handler takes a record and answers a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memoryd.domain.audit import Audited
from memoryd.domain.documents import labels_of
from memoryd.domain.principals import Scope
from memoryd.rpc.answer_size import fill_page
from memoryd.rpc.methods import BULK_WEIGHT, SEARCH_WEIGHT, WRITE_WEIGHT, Method
from memoryd.rpc.sessions import requests
from memoryd.rpc.sessions.messages import session_message
from memoryd.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from memoryd.domain.records import Session
    from memoryd.domain.sessions import SessionEdit
    from memoryd.memories.merge import Merge
    from memoryd.memories.store import MemoryStore
    from memoryd.rpc.call import Call
    from memoryd.rpc.sessions.requests import SessionListing
    from memoryd.sessions.store import SessionStore


class SessionService:
    def __init__(
        self, store: SessionStore, memories: MemoryStore, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._memories = memories
        self._clock = clock

    def methods(self) -> Mapping[str, Method[Any]]:
        """The table of this service."""
        read, write, in_all = Scope.MEMORIES_READ, Scope.MEMORIES_WRITE, Audited.IN_ALL
        return {
            "ListSessions": Method(
                requests.listing,
                self.list_page,
                read,
                in_all,
                weight=SEARCH_WEIGHT,
                check_size=requests.check_labels,
            ),
            "GetSession": Method(requests.name, self.get, read, in_all),
            "UpdateSession": Method(
                requests.edit,
                self.update,
                write,
                in_all,
                weight=WRITE_WEIGHT,
                check_size=requests.check_session,
                waits_for_commit=True,
            ),
            "MergeSessions": Method(
                requests.merge,
                self.merge,
                Scope.MEMORIES_ERASE,
                Audited.BEFORE,
                weight=BULK_WEIGHT,
            ),
        }

    async def list_page(
        self, wanted: SessionListing, call: Call
    ) -> session_pb2.ListSessionsResponse:
        page = await self._store.page(wanted.listing, timeout=call.time_remaining())
        answer = session_pb2.ListSessionsResponse()
        next_after = fill_page(
            answer.sessions,
            page.sessions,
            session_message,
            position_of=lambda record: record.session.session_id,
            after_all=page.next_after,
        )
        if next_after is not None:
            answer.next_page_token = wanted.token_at(next_after)
        return answer

    async def get(self, session: Session, call: Call) -> session_pb2.Session:
        return session_message(await self._store.get(session, timeout=call.time_remaining()))

    async def update(self, edit: SessionEdit, call: Call) -> session_pb2.Session:
        return session_message(await self._store.update(edit, timeout=call.time_remaining()))

    async def merge(self, wanted: Merge, call: Call) -> session_pb2.MergeSessionsResponse:
        merged = await self._memories.merge(wanted, now=self._clock())
        call.counts("moved_memories", merged.moved)
        call.counts("merged_memories", merged.merged)
        call.counts("moved_documents", merged.documents)
        return session_pb2.MergeSessionsResponse(
            moved_memories=merged.moved,
            merged_memories=merged.merged,
            moved_documents=merged.documents,
            conflicts=[
                session_pb2.MergeConflict(namespace=labels_of(name.namespace), key=name.key)
                for name in merged.conflicts
            ],
        )
