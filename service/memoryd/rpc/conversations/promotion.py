"""PromoteMessages: texts of messages become memories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memoryd.conversations.writes import Candidate, Named, PromoteMessages
from memoryd.database.fair_places import FairPlaces
from memoryd.domain.audit import Audited
from memoryd.domain.conversations import MAX_PROMOTED
from memoryd.domain.errors import InvalidRequest
from memoryd.domain.principals import Scope
from memoryd.rpc import sizes
from memoryd.rpc.answer_size import MAX_ANSWER_BYTES
from memoryd.rpc.call import OFFLOAD_BYTES, offloaded, stop_if_gone
from memoryd.rpc.memories import messages as convert
from memoryd.rpc.memories.messages import moment_of
from memoryd.rpc.methods import BULK_WEIGHT, Method
from memoryd.rpc.violations import Violations
from memoryd.v1 import conversation_pb2
from memoryd.v1.conversation_pb2 import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from memoryd.conversations.store import ConversationStore
    from memoryd.conversations.writes import Promoted
    from memoryd.domain.conversations import Message
    from memoryd.domain.records import NewMemory
    from memoryd.rpc.call import Call
    from memoryd.rpc.memories.requests import RequestParser
    from memoryd.rpc.memories.service import MemoryServiceOptions

MAX_ROLES = 16
"""In one request, as the proto has it."""

_ROLE_PREFIX = "ROLE_"


@dataclass(frozen=True, slots=True)
class Promotion:
    of: Named
    message_ids: Sequence[str]
    """Each once; none: what was not gone over yet."""
    excluded: frozenset[str]
    roles: frozenset[int]
    """None: any."""
    common: NewMemory
    """What the memories have in common."""

    def takes(self, message: conversation_pb2.Message, message_id: str) -> bool:
        return message_id not in self.excluded and (not self.roles or message.role in self.roles)


class Promotions:
    def __init__(
        self,
        store: ConversationStore,
        parser: RequestParser,
        options: MemoryServiceOptions,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        """`parser` makes memories as it does for MemoryService, `options` are those of it."""
        self._store = store
        self._parser = parser
        self._options = options
        self._clock = clock
        self._places = FairPlaces(1)
        """For making memories in a thread."""

    def methods(self) -> Mapping[str, Method[Any]]:
        return {
            "PromoteMessages": Method(
                self.parse,
                self.promote,
                Scope.CONVERSATIONS_WRITE,
                Audited.IN_ALL,
                weight=BULK_WEIGHT,
                check_size=check_size,
                holds=self._options.holds,
                waits_for_commit=True,
            )
        }

    def parse(
        self,
        request: conversation_pb2.PromoteMessagesRequest,
        call: Call,
        violations: Violations,
    ) -> Promotion:
        call.principal.require(Scope.MEMORIES_WRITE)
        if request.message_ids and request.since_last:
            violations.add("since_last", "must be left out where message_ids are given")
        elif not request.message_ids and not request.since_last:
            violations.add("message_ids", "must be given, or since_last in their place")
        return Promotion(
            Named(call.session(request.session_id), request.conversation_id),
            tuple(dict.fromkeys(request.message_ids)),
            frozenset(request.exclude_message_ids),
            frozenset(request.roles),
            self._parser.common_to_promoted(request, call, violations),
        )

    async def promote(
        self, promotion: Promotion, call: Call
    ) -> conversation_pb2.PromoteMessagesResponse:
        session = promotion.of.session
        found = await self._store.to_promote(
            session,
            promotion.of.conversation_id,
            promotion.message_ids,
            now=self._clock(),
            timeout=call.time_remaining(),
        )
        if sum(message.size for message in found) > OFFLOAD_BYTES:
            place = self._places.place(session.tenant)
            candidates = await offloaded(place, self._candidates, promotion, found)
        else:
            candidates = self._candidates(promotion, found)
        write = PromoteMessages(
            promotion.of,
            candidates,
            since_last=not promotion.message_ids,
            capacity=self._options.capacity(session),
        )
        promoted = await self._store.promote(write)
        return response(promoted, half_life_days=self._options.half_life_days)

    def _candidates(self, promotion: Promotion, found: Sequence[Message]) -> tuple[Candidate, ...]:
        """Make the memories. Raises InvalidRequest with every text that cannot be stored."""
        violations = Violations()
        candidates = []
        for message in found:
            stop_if_gone()
            memory = self._memory(promotion, message, violations)
            candidates.append(
                Candidate(message.message_id, message.place, message.revision, memory)
            )
        violations.check()
        return tuple(candidates)

    def _memory(
        self, promotion: Promotion, message: Message, violations: Violations
    ) -> NewMemory | None:
        body = conversation_pb2.Message.FromString(message.body or b"")
        if not promotion.takes(body, message.message_id):
            return None
        text = text_of(body)
        chosen_by = "message_ids" if promotion.message_ids else "since_last"
        field = f'{chosen_by}["{message.message_id}"]'
        of_message = Violations()
        sizes.check_raw(text, field, of_message)
        memory = None
        if not of_message:
            metadata = metadata_of(body, message, promotion.of.conversation_id)
            memory = self._parser.promoted(promotion.common, text, metadata, field, of_message)
        try:
            of_message.check()
        except InvalidRequest as error:
            for path, description in error.violations:
                violations.add(path, f"{description}; {LEAVE_OUT}")
        return memory


LEAVE_OUT = "name the message in exclude_message_ids to promote the others"


def check_size(request: conversation_pb2.PromoteMessagesRequest, violations: Violations) -> None:
    """Add what is too large to be validated."""
    for field, limit in (
        ("message_ids", MAX_PROMOTED),
        ("exclude_message_ids", MAX_PROMOTED),
        ("roles", MAX_ROLES),
    ):
        given = len(getattr(request, field))
        if given > limit:
            violations.add(
                field, f"must be at most {limit:,}, these are {given:,}; send several calls"
            )


def text_of(body: conversation_pb2.Message) -> str:
    """What is said in a message; empty: nothing."""
    texts = (part.text for part in body.parts if part.HasField("text"))
    return "\n".join(filter(None, texts))


def metadata_of(
    body: conversation_pb2.Message, message: Message, conversation_id: str
) -> dict[str, Any]:
    """What recall ranks the memory of a message by, and where it comes from."""
    speaker = body.author
    if not speaker and body.role:
        speaker = Role.Name(body.role).removeprefix(_ROLE_PREFIX).lower()
    occurred_at = message.created_at
    if body.HasField("occur_time"):
        occurred_at = moment_of(body.occur_time)
    metadata = {
        "occurred_at": occurred_at.isoformat(),
        "episode": conversation_id,
        "message_id": message.message_id,
    }
    return {"speaker": speaker, **metadata} if speaker else metadata


def response(
    promoted: Promoted, *, half_life_days: float
) -> conversation_pb2.PromoteMessagesResponse:
    batch = convert.batch_response(
        promoted.stored, half_life_days=half_life_days, max_bytes=MAX_ANSWER_BYTES
    )
    return conversation_pb2.PromoteMessagesResponse(
        memories=[one.memory for one in batch.responses],
        outcomes=[one.outcome for one in batch.responses],
        evicted_memory_ids=[i for one in batch.responses for i in one.evicted_memory_ids],
        truncated=batch.truncated,
        has_more=promoted.has_more,
    )
