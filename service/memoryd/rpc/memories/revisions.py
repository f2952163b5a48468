"""ListMemoryRevisions and RollbackMemory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from memoryd.domain.audit import Audited
from memoryd.domain.principals import Scope
from memoryd.rpc import page_token
from memoryd.rpc.answer_size import fill_page
from memoryd.rpc.memories import messages as convert
from memoryd.rpc.methods import SEARCH_WEIGHT, WRITE_WEIGHT, Method
from memoryd.v1 import memory_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from memoryd.domain.records import Memory, Session
    from memoryd.memories.store import MemoryStore
    from memoryd.rpc.call import Call
    from memoryd.rpc.violations import Violations


@dataclass(frozen=True, slots=True)
class RevisionListing:
    session: Session
    memory_id: str
    before: int | None
    """The revision before which the page begins; None: the first page."""
    size: int
    token_at: Callable[[int], str]
    """Gives the page token of a revision."""


@dataclass(frozen=True, slots=True)
class RollbackTarget:
    session: Session
    memory_id: str
    revision: int


class Revisions:
    """The versions of a memory."""

    def __init__(
        self,
        store: MemoryStore,
        message: Callable[[Memory], memory_pb2.Memory],
        *,
        clock: Callable[[], datetime],
    ) -> None:
        """`message` makes what callers see of a memory."""
        self._store = store
        self._message = message
        self._clock = clock

    def methods(self) -> Mapping[str, Method[Any]]:
        """Their rows in the table of the service."""
        return {
            "ListMemoryRevisions": Method(
                parse_listing,
                self.list_page,
                Scope.MEMORIES_READ,
                Audited.IN_ALL,
                weight=SEARCH_WEIGHT,
            ),
            "RollbackMemory": Method(
                parse_rollback,
                self.rollback,
                Scope.MEMORIES_WRITE,
                Audited.IN_ALL,
                weight=WRITE_WEIGHT,
                waits_for_commit=True,
            ),
        }

    async def list_page(
        self, listing: RevisionListing, call: Call
    ) -> memory_pb2.ListMemoryRevisionsResponse:
        page = await self._store.revisions(
            listing.session,
            listing.memory_id,
            before=listing.before,
            size=listing.size,
            now=self._clock(),
            timeout=call.time_remaining(),
        )
        answer = memory_pb2.ListMemoryRevisionsResponse()
        next_before = fill_page(
            answer.revisions,
            page.versions,
            self._revision,
            position_of=lambda version: version.revision,
            after_all=page.next_before,
        )
        if next_before is not None:
            answer.next_page_token = listing.token_at(next_before)
        return answer

    def _revision(self, version: Memory) -> memory_pb2.MemoryRevision:
        return memory_pb2.MemoryRevision(
            memory=self._message(version),
            change=convert.PROTO_CHANGE[version.change],
            revision=version.revision,
            record_time=convert.timestamp(version.deleted_at or version.updated_at),
        )

    async def rollback(self, target: RollbackTarget, call: Call) -> memory_pb2.Memory:
        del call
        memory = await self._store.rollback(target.session, target.memory_id, target.revision)
        return self._message(memory)


def parse_listing(
    request: memory_pb2.ListMemoryRevisionsRequest, call: Call, violations: Violations
) -> RevisionListing:
    tenant = call.principal.tenant
    return RevisionListing(
        call.session(request.session_id),
        request.memory_id,
        page_token.decode(request, tenant, violations) or None,
        page_token.size(request),
        partial(page_token.encode, request=request, tenant=tenant),
    )


def parse_rollback(
    request: memory_pb2.RollbackMemoryRequest, call: Call, violations: Violations
) -> RollbackTarget:
    del violations
    return RollbackTarget(call.session(request.session_id), request.memory_id, request.revision)
