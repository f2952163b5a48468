"""Parses requests of SessionService into records."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from memoryd.domain.sessions import SessionEdit
from memoryd.memories.merge import Merge
from memoryd.rpc import page_token
from memoryd.rpc.fingerprint import fingerprint_of
from memoryd.rpc.masks import changed_paths
from memoryd.rpc.sessions.messages import microseconds_of
from memoryd.rpc.structs import parse_struct
from memoryd.rpc.violations import NO_DURATION
from memoryd.sessions.store import Listing

if TYPE_CHECKING:
    from collections.abc import Callable

    from memoryd.domain.records import Session
    from memoryd.rpc.call import Call
    from memoryd.rpc.violations import Violations
    from memoryd.v1 import session_pb2

CHANGEABLE_PATHS = (
    *("display_name", "labels", "state", "memory_limit"),
    *("memory_ttl", "memories_never_expire"),
)
"""Of Session, in UpdateSession."""

MAX_LABELS = 64
"""As the proto has it."""


@dataclass(frozen=True, slots=True)
class SessionListing:
    listing: Listing
    token_at: Callable[[str], str]
    """Gives the page token of a position."""


def check_labels(request: session_pb2.ListSessionsRequest, violations: Violations) -> None:
    """Add what is too large to be validated."""
    _check_labels(len(request.labels), "labels", violations)


def check_session(request: session_pb2.UpdateSessionRequest, violations: Violations) -> None:
    """Add what is too large to be validated."""
    _check_labels(len(request.session.labels), "session.labels", violations)


def _check_labels(count: int, field: str, violations: Violations) -> None:
    if count > MAX_LABELS:
        violations.add(field, f"must be at most {MAX_LABELS} labels; these are {count:,}")


def listing(
    request: session_pb2.ListSessionsRequest, call: Call, violations: Violations
) -> SessionListing:
    tenant = call.principal.tenant
    return SessionListing(
        Listing(
            tenant,
            call.sessions_beginning_with(request.session_id_prefix),
            dict(request.labels),
            page_token.decode_name(request, tenant, violations),
            page_token.size(request),
        ),
        partial(page_token.encode_name, request=request, tenant=tenant),
    )


def name(request: session_pb2.GetSessionRequest, call: Call, violations: Violations) -> Session:
    del violations
    return call.session(request.session_id)


def edit(
    request: session_pb2.UpdateSessionRequest, call: Call, violations: Violations
) -> SessionEdit:
    given = request.session
    values: dict[str, Any] = {}
    for path in changed_paths(given, request.update_mask, CHANGEABLE_PATHS, violations):
        match path:
            case "display_name":
                values[path] = given.display_name or None
            case "labels":
                values[path] = dict(given.labels) or None
            case "state":
                values[path] = parse_struct(given.state, "session.state", violations) or None
            case "memory_limit":
                values[path] = given.memory_limit if given.HasField(path) else None
            case "memory_ttl" | "memories_never_expire":
                values[path] = None
    if {"memory_ttl", "memories_never_expire"} & values.keys():
        values |= _expiration(given, values.keys(), violations)
    session = call.session(given.session_id)
    return SessionEdit(session, given.etag, allow_missing=request.allow_missing, values=values)


def merge(request: session_pb2.MergeSessionsRequest, call: Call, violations: Violations) -> Merge:
    source, target = (
        call.session(request.source_session_id),
        call.session(request.target_session_id),
    )
    if source == target:
        violations.add("target_session_id", "must be another session than source_session_id")
    request_id = request.request_id.lower()  # a UUID is the same in either case
    return Merge(source, target, request_id, fingerprint_of(request) if request_id else "")


def _expiration(
    given: session_pb2.Session, named: Any, violations: Violations
) -> dict[str, int | bool | None]:
    """Give what is set of the two that exclude each other, among those that are named."""
    kind = given.WhichOneof("memory_expiration")
    if kind is None or kind not in named:
        return {}
    if kind == "memories_never_expire":
        if not given.memories_never_expire:
            return {}
        return {"memory_ttl": None, "memories_never_expire": True}
    try:
        return {
            "memory_ttl": microseconds_of(given.memory_ttl),
            "memories_never_expire": None,
        }
    except OverflowError:
        violations.add("session.memory_ttl", NO_DURATION)
        return {}
