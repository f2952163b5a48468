"""Protos to records, and back. Requests are validated in `requests`; here nothing is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from memoryd.domain.content import content_hash, is_keyed_hash, normalise
from memoryd.domain.importance import effective_importance
from memoryd.domain.records import Change, ContentType, StoreOutcome
from memoryd.rpc.answer_size import RESPONSE_FRAMING_BYTES
from memoryd.rpc.structs import fill_struct
from memoryd.v1 import memory_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from google.protobuf.duration_pb2 import Duration

    from memoryd.domain.records import Memory, MemoryEvent, Session, Stored
    from memoryd.rpc.status import Status

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

CONTENT_TYPE_OF: Mapping[memory_pb2.ContentType.ValueType, ContentType] = {
    memory_pb2.CONTENT_TYPE_UNSPECIFIED: ContentType.CONTEXT,
    memory_pb2.CONTENT_TYPE_USER_INFO: ContentType.USER_INFO,
    memory_pb2.CONTENT_TYPE_PREFERENCE: ContentType.PREFERENCE,
    memory_pb2.CONTENT_TYPE_FACT: ContentType.FACT,
    memory_pb2.CONTENT_TYPE_CONTEXT: ContentType.CONTEXT,
}
_PROTO_CONTENT_TYPE = {record: number for number, record in CONTENT_TYPE_OF.items() if number}
_PROTO_OUTCOME = {
    StoreOutcome.CREATED: memory_pb2.STORE_OUTCOME_CREATED,
    StoreOutcome.MERGED: memory_pb2.STORE_OUTCOME_MERGED,
    StoreOutcome.REPLACED: memory_pb2.STORE_OUTCOME_REPLACED,
}

PROTO_CHANGE = {
    Change.CREATED: memory_pb2.MEMORY_CHANGE_CREATED,
    Change.UPDATED: memory_pb2.MEMORY_CHANGE_UPDATED,
    Change.DELETED: memory_pb2.MEMORY_CHANGE_DELETED,
    Change.RESTORED: memory_pb2.MEMORY_CHANGE_RESTORED,
    Change.EXPIRED: memory_pb2.MEMORY_CHANGE_EXPIRED,
    Change.PURGED: memory_pb2.MEMORY_CHANGE_PURGED,
}


def memory_message(memory: Memory, *, now: datetime, half_life_days: float) -> memory_pb2.Memory:
    """The memory as callers see it at `now`."""
    message = memory_pb2.Memory()
    _fill_memory(message, memory, now, half_life_days)
    return message


def lasting_message(memory: Memory) -> memory_pb2.Memory:
    """The part that stays the same until the memory's next revision."""
    message = memory_pb2.Memory()
    _fill_lasting(message, memory)
    return message


def _fill_memory(
    message: memory_pb2.Memory, memory: Memory, now: datetime, half_life_days: float
) -> None:
    _fill_lasting(message, memory)
    _fill_accesses(message, memory)
    message.effective_importance = effective_importance(
        memory.importance,
        memory.created_at,
        memory.access_count,
        now=now,
        half_life_days=half_life_days,
    )


def _fill_accesses(message: memory_pb2.Memory, memory: Memory) -> None:
    message.access_count = memory.access_count
    if memory.last_accessed is not None:
        fill_time(message.last_access_time, memory.last_accessed)


def _fill_lasting(message: memory_pb2.Memory, memory: Memory) -> None:
    message.session_id = memory.session.session_id
    message.memory_id = memory.memory_id
    message.content = memory.content
    message.content_type = _PROTO_CONTENT_TYPE[memory.content_type]
    message.importance = memory.importance
    if is_keyed_hash(memory.content_hash):
        message.content_hash = content_hash(normalise(memory.content))
    else:
        message.content_hash = memory.content_hash
    if memory.key is not None:
        message.key = memory.key
    if memory.tags:
        message.tags.extend(memory.tags)
    message.semantic_hash = memory.semantic_hash
    # In place: messages of their own would be copied, which takes as long as all the rest.
    fill_time(message.create_time, memory.created_at)
    fill_time(message.update_time, memory.updated_at)
    if memory.deleted_at is not None:
        fill_time(message.delete_time, memory.deleted_at)
    if memory.expires_at is not None:
        fill_time(message.expire_time, memory.expires_at)
    message.revision = memory.revision
    message.etag = memory.etag
    if memory.metadata:
        fill_struct(message.metadata, memory.metadata)


def store_response(stored: Stored, *, half_life_days: float) -> memory_pb2.StoreMemoryResponse:
    """The answer, as of the time when it was stored: a replay says the same."""
    response = memory_pb2.StoreMemoryResponse()
    _fill_store_response(response, stored, half_life_days)
    return response


def batch_response(
    stored: Sequence[Stored], *, half_life_days: float, max_bytes: int
) -> memory_pb2.BatchStoreMemoriesResponse:
    """The answers together; where they are too large, the last ones without what makes them so."""
    answer = memory_pb2.BatchStoreMemoriesResponse()
    responses = ((answer.responses.add(), one) for one in stored)
    answer.truncated = _fill_store_responses(responses, half_life_days, max_bytes)
    return answer


def stream_response(
    outcomes: Sequence[Stored | Exception],
    status_of: Callable[[Exception], Status],
    *,
    half_life_days: float,
    max_bytes: int,
) -> memory_pb2.StreamStoreMemoriesResponse:
    """What became of each; as `batch_response` where that is too large."""
    answer = memory_pb2.StreamStoreMemoriesResponse()
    responses, room = [], max_bytes
    for outcome in outcomes:
        result = answer.results.add()
        if isinstance(outcome, Exception):
            result.status.ParseFromString(status_of(outcome).details)
            room -= result.ByteSize() + RESPONSE_FRAMING_BYTES
        else:
            responses.append((result.response, outcome))
            room -= RESPONSE_FRAMING_BYTES
    answer.truncated = _fill_store_responses(responses, half_life_days, room)
    return answer


def _fill_store_responses(
    responses: Iterable[tuple[memory_pb2.StoreMemoryResponse, Stored]],
    half_life_days: float,
    max_bytes: int,
) -> bool:
    """Fill in all; where they are too large together, strip the last ones.

    Answers whether they are.
    """
    size, filled = 0, []
    for response, one in responses:
        _fill_store_response(response, one, half_life_days)
        if size > max_bytes:
            _strip(response)
        size += response.ByteSize() + RESPONSE_FRAMING_BYTES
        filled.append(response)
    truncated = size > max_bytes
    for response in reversed(filled):
        if size <= max_bytes:
            break
        size -= response.ByteSize()
        _strip(response)
        size += response.ByteSize()
    return truncated


def _strip(response: memory_pb2.StoreMemoryResponse) -> None:
    """Leave out what may be large."""
    for name in ("content", "metadata", "tags"):
        response.memory.ClearField(name)


def _fill_store_response(
    response: memory_pb2.StoreMemoryResponse, stored: Stored, half_life_days: float
) -> None:
    _fill_memory(response.memory, stored.memory, stored.memory.updated_at, half_life_days)
    response.outcome = _PROTO_OUTCOME[stored.outcome]
    if stored.evicted_memory_ids:
        response.evicted_memory_ids.extend(stored.evicted_memory_ids)
    if stored.replaced_memory_id:
        response.replaced_memory_id = stored.replaced_memory_id


def event_message(
    session: Session, event: MemoryEvent, *, now: datetime, half_life_days: float
) -> memory_pb2.WatchMemoriesResponse:
    if event.memory is None:
        memory = memory_pb2.Memory(
            session_id=session.session_id, memory_id=event.memory_id, revision=event.revision
        )
    else:
        memory = memory_message(event.memory, now=now, half_life_days=half_life_days)
    return memory_pb2.WatchMemoriesResponse(
        change=PROTO_CHANGE[event.change], memory=memory, revision=event.revision
    )


def timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    fill_time(message, moment)
    return message


def fill_time(message: Timestamp, moment: datetime) -> None:
    since = moment - EPOCH
    message.seconds = since.days * 86_400 + since.seconds
    message.nanos = since.microseconds * 1000


def moment_of(message: Timestamp) -> datetime:
    """To the microsecond, rounded down. Raises OverflowError outside the years 1 to 9999."""
    return EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def span_of(message: Duration) -> timedelta:
    """To the microsecond, rounded up, so that more than nothing stays so. Raises OverflowError."""
    return timedelta(seconds=message.seconds, microseconds=-(-message.nanos // 1000))
