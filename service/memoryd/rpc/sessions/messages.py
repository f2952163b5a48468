"""Protos of sessions to records, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from memoryd.rpc.memories.messages import span_of, timestamp
from memoryd.rpc.structs import fill_struct
from memoryd.v1 import session_pb2

if TYPE_CHECKING:
    from memoryd.domain.sessions import SessionRecord

_MICROSECONDS = 1_000_000


def microseconds_of(message: Duration) -> int:
    """Rounded up, so that more than nothing stays so. Raises OverflowError."""
    span = span_of(message)
    return (span.days * 86_400 + span.seconds) * _MICROSECONDS + span.microseconds


def session_message(record: SessionRecord) -> session_pb2.Session:
    settings = record.settings
    message = session_pb2.Session(
        session_id=record.session.session_id,
        display_name=settings.display_name,
        labels=settings.labels,
        memory_limit=settings.memory_limit,
        memory_count=record.memory_count,
        document_count=record.document_count,
        conversation_count=record.conversation_count,
        revision=record.revision,
        etag=record.etag,
    )
    if settings.state:
        fill_struct(message.state, settings.state)
    if settings.memories_never_expire:
        message.memories_never_expire = True
    elif settings.memory_ttl is not None:
        seconds, micros = divmod(settings.memory_ttl, _MICROSECONDS)
        message.memory_ttl.CopyFrom(Duration(seconds=seconds, nanos=micros * 1000))
    if record.created_at is not None:
        message.create_time.CopyFrom(timestamp(record.created_at))
    if record.updated_at is not None:
        message.update_time.CopyFrom(timestamp(record.updated_at))
    return message
