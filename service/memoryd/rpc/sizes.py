"""What is too large to be validated at all, since validating it takes long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memoryd.domain.content import MAX_RAW_CHARS
from memoryd.domain.tags import MAX_GIVEN_TAGS, MAX_TAGS
from memoryd.rpc import conditions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memoryd.rpc.violations import Violations
    from memoryd.v1 import memory_pb2

MAX_FILTER_TYPES = 16
"""As the protos have it."""

MAX_FURTHER_SESSIONS = 16
"""The same of sessions to rank across."""

MAX_EXCLUDED = 1_000
"""The same of memories that a retrieval leaves out."""

MAX_STREAM_MESSAGE = 100
"""The same of memories in one message of a stream."""


MAX_FILTER_TAGS = 100
"""The same of tags in one condition of a filter."""


def check_store(request: memory_pb2.StoreMemoryRequest, violations: Violations) -> None:
    check_raw(request.content, "content", violations)
    _check_tags(request.tags, "tags", violations)


def check_batch(
    request: memory_pb2.BatchStoreMemoriesRequest, max_batch: int, violations: Violations
) -> None:
    if len(request.requests) > max_batch:
        violations.add(
            "requests",
            f"must be at most {max_batch:,}, these are {len(request.requests):,};"
            " send them in several calls",
        )
        return
    for place, item in enumerate(request.requests):
        check_raw(item.content, f"requests[{place}].content", violations)
        _check_tags(item.tags, f"requests[{place}].tags", violations)


def check_stream(request: memory_pb2.StreamStoreMemoriesRequest, violations: Violations) -> None:
    """Check a message of a stream; its items are validated one by one."""
    if len(request.requests) > MAX_STREAM_MESSAGE:
        violations.add(
            "requests",
            f"must be at most {MAX_STREAM_MESSAGE}, these are {len(request.requests):,};"
            " send them in several messages",
        )


def check_update(request: memory_pb2.UpdateMemoryRequest, violations: Violations) -> None:
    check_raw(request.memory.content, "memory.content", violations)
    _check_tags(request.memory.tags, "memory.tags", violations)


def check_similar(request: memory_pb2.FindSimilarMemoriesRequest, violations: Violations) -> None:
    check_raw(request.content, "content", violations)


def check_retrieval(request: memory_pb2.RetrieveMemoriesRequest, violations: Violations) -> None:
    if len(request.session_ids) > MAX_FURTHER_SESSIONS:
        violations.add(
            "session_ids",
            f"must be at most {MAX_FURTHER_SESSIONS}, these are"
            f" {len(request.session_ids):,}; ask for them in several calls",
        )
    if len(request.exclude_memory_ids) > MAX_EXCLUDED:
        violations.add(
            "exclude_memory_ids",
            f"must be at most {MAX_EXCLUDED:,}, these are {len(request.exclude_memory_ids):,};"
            " leave out those that are least likely to be found",
        )
    check_filter(request, violations)


def check_filter(
    request: memory_pb2.ListMemoriesRequest
    | memory_pb2.RetrieveMemoriesRequest
    | memory_pb2.PurgeMemoriesRequest
    | memory_pb2.ExportMemoriesRequest,
    violations: Violations,
) -> None:
    if len(request.filter.content_types) > MAX_FILTER_TYPES:
        violations.add("filter.content_types", "has more types than there are; give each once")
    conditions.check_size(request.filter.conditions, "filter.conditions", violations)
    for name in ("tags_any", "tags_all"):
        count = len(getattr(request.filter, name))
        if count > MAX_FILTER_TAGS:
            violations.add(
                f"filter.{name}",
                f"must be at most {MAX_FILTER_TAGS}, these are {count:,}; ask in several calls",
            )


def _check_tags(tags: Sequence[str], field: str, violations: Violations) -> None:
    if len(tags) > MAX_GIVEN_TAGS:
        violations.add(
            field,
            f"must be at most {MAX_TAGS} different tags, {MAX_GIVEN_TAGS:,} with repeated ones;"
            f" these are {len(tags):,}: send each once",
        )


def check_raw(content: str, field: str, violations: Violations) -> None:
    if len(content) > MAX_RAW_CHARS:
        violations.add(
            field,
            f"must be at most {MAX_RAW_CHARS:,} characters, its markup counted; this is"
            f" {len(content):,}: store it as several memories",
        )
