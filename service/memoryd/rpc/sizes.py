"""What is refused unread: judging it would take long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memoryd.domain.content import MAX_RAW_CHARS
from memoryd.v1 import memory_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from memoryd.rpc.violations import Violations

MAX_FILTER_TYPES = 16
"""As the protos have it."""

MAX_FURTHER_SESSIONS = 16
"""The same of sessions to rank across."""


def check_sizes(message: Message, max_batch: int, violations: Violations) -> None:
    """Judge what is refused unread, since judging it takes long; at most `max_batch` of a batch."""
    match message:
        case memory_pb2.StoreMemoryRequest():
            _check_raw(message.content, "content", violations)
        case memory_pb2.BatchStoreMemoriesRequest() if len(message.requests) > max_batch:
            violations.add(
                "requests",
                f"must be at most {max_batch:,}, these are {len(message.requests):,};"
                " send them in several calls",
            )
        case memory_pb2.BatchStoreMemoriesRequest():
            for place, item in enumerate(message.requests):
                _check_raw(item.content, f"requests[{place}].content", violations)
        case memory_pb2.UpdateMemoryRequest():
            _check_raw(message.memory.content, "memory.content", violations)
        case memory_pb2.FindSimilarMemoriesRequest():
            _check_raw(message.content, "content", violations)
        case memory_pb2.RetrieveMemoriesRequest() if (
            len(message.session_ids) > MAX_FURTHER_SESSIONS
        ):
            violations.add(
                "session_ids",
                f"must be at most {MAX_FURTHER_SESSIONS}, these are"
                f" {len(message.session_ids):,}; ask for them in several calls",
            )
        case (
            memory_pb2.ListMemoriesRequest()
            | memory_pb2.RetrieveMemoriesRequest()
            | memory_pb2.PurgeMemoriesRequest()
            | memory_pb2.ExportMemoriesRequest()
        ) if len(message.filter.content_types) > MAX_FILTER_TYPES:
            violations.add("filter.content_types", "has more types than there are; give each once")


def _check_raw(content: str, field: str, violations: Violations) -> None:
    if len(content) > MAX_RAW_CHARS:
        violations.add(
            field,
            f"must be at most {MAX_RAW_CHARS:,} characters, its markup counted; this is"
            f" {len(content):,}: store it as several memories",
        )
