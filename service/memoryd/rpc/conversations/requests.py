"""Parses requests of ConversationService into records."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memoryd.conversations.listing import is_position
from memoryd.conversations.windows import Position, Window
from memoryd.conversations.writes import (
    AppendMessages,
    ChangeConversation,
    CreateConversation,
    DeleteConversation,
    Expiration,
    ForkConversation,
    MoveHead,
    Named,
    PopMessages,
    Retry,
    SetSummary,
)
from memoryd.domain.conversations import (
    MAX_MESSAGE_BYTES,
    MAX_MESSAGES,
    NewMessage,
    estimated_tokens,
)
from memoryd.domain.documents import problem_with_labels
from memoryd.domain.ids import uuid7
from memoryd.domain.json_text import problem_with_json
from memoryd.rpc import page_token
from memoryd.rpc.call import stop_if_gone
from memoryd.rpc.conversations import messages as convert
from memoryd.rpc.fingerprint import fingerprint_of
from memoryd.rpc.masks import changed_paths
from memoryd.rpc.memories.messages import moment_of, span_of
from memoryd.rpc.scopes import scope_of
from memoryd.rpc.structs import parse_struct
from memoryd.rpc.violations import NO_DURATION, NO_TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from memoryd.domain.records import Session
    from memoryd.domain.sessions import TenantRange
    from memoryd.rpc.call import Call
    from memoryd.rpc.violations import Violations
    from memoryd.v1 import conversation_pb2

_EXPIRATION = ("ttl", "expire_time", "never_expires")
CHANGEABLE_PATHS = ("display_name", "labels", "state", *_EXPIRATION)
"""Of Conversation, in UpdateConversation."""

_NUL = "must not hold NUL characters, which cannot be stored"


@dataclass(frozen=True, slots=True)
class Listing:
    whose: Session | TenantRange
    labels: Mapping[str, str]
    after: str
    size: int
    token_at: Callable[[str], str]
    """Gives the page token of a position."""


@dataclass(frozen=True, slots=True)
class Watch:
    of: Named
    """Without a conversation's id: all of the session."""
    start_revision: int


@dataclass(frozen=True, slots=True)
class MessageListing:
    of: Named
    window: Window
    position: Position | None
    size: int
    token_at: Callable[[Position], str]


def name(
    request: conversation_pb2.GetConversationRequest | conversation_pb2.ExportMessagesRequest,
    call: Call,
    violations: Violations,
) -> Named:
    del violations
    return Named(call.session(request.session_id), request.conversation_id)


def watch(
    request: conversation_pb2.WatchConversationsRequest, call: Call, violations: Violations
) -> Watch:
    del violations
    of = Named(call.session(request.session_id), request.conversation_id)
    return Watch(of, request.start_revision)


def delete(
    request: conversation_pb2.DeleteConversationRequest, call: Call, violations: Violations
) -> DeleteConversation:
    del violations
    of = Named(call.session(request.session_id), request.conversation_id, request.etag)
    return DeleteConversation(of, allow_missing=request.allow_missing)


def listing(
    request: conversation_pb2.ListConversationsRequest, call: Call, violations: Violations
) -> Listing:
    tenant = call.principal.tenant
    whose = scope_of(request, call, violations)
    after = page_token.decode_name(request, tenant, violations)
    if not is_position(after, whose):
        violations.add("page_token", page_token.NOT_OURS)
    if problem := problem_with_labels(request.labels):
        violations.add("labels", problem)

    def token_at(position: str) -> str:
        return page_token.encode_name(position, request, tenant)

    return Listing(whose, dict(request.labels), after, page_token.size(request), token_at)


def messages(
    request: conversation_pb2.ListMessagesRequest, call: Call, violations: Violations
) -> MessageListing:
    tenant = call.principal.tenant
    kind = request.WhichOneof("window")
    window = Window(
        last=request.last if kind == "last" else None,
        max_tokens=request.max_tokens if kind == "max_tokens" else None,
        since=_since(request, violations) if kind == "since" else None,
        after_message_id=request.after_message_id,
        branch_head=request.branch_head,
        complete_turns=request.complete_turns,
        with_summary=request.with_summary,
    )
    token = page_token.decode_name(request, tenant, violations)
    default = page_token.DEFAULT_SIZE if kind is None else page_token.MAX_SIZE

    def token_at(position: Position) -> str:
        return page_token.encode_name("/".join(map(str, position)), request, tenant)

    return MessageListing(
        Named(call.session(request.session_id), request.conversation_id),
        window,
        _position(token, violations),
        min(request.page_size or default, page_token.MAX_SIZE),
        token_at,
    )


def append(
    request: conversation_pb2.AppendMessagesRequest, call: Call, violations: Violations
) -> AppendMessages:
    patch: dict[str, Any] = {}
    if request.HasField("state_patch"):
        patch = parse_struct(request.state_patch, "state_patch", violations)
    elif not request.messages:
        violations.add("messages", "must be given, unless there is a state_patch")
    of = Named(call.session(request.session_id), request.conversation_id, request.expected_etag)
    return AppendMessages(of, _new_messages(request.messages, violations), patch, _retry(request))


def rewrite(
    request: conversation_pb2.RewriteMessagesRequest, call: Call, violations: Violations
) -> AppendMessages:
    of = Named(call.session(request.session_id), request.conversation_id, request.expected_etag)
    return AppendMessages(
        of,
        _new_messages(request.messages, violations),
        retry=_retry(request),
        after=request.after_message_id,
    )


def pop(
    request: conversation_pb2.PopMessagesRequest, call: Call, violations: Violations
) -> PopMessages:
    del violations
    of = Named(call.session(request.session_id), request.conversation_id, request.expected_etag)
    return PopMessages(of, request.count or 1, _retry(request))


def fork(
    request: conversation_pb2.ForkConversationRequest, call: Call, violations: Violations
) -> ForkConversation:
    of = Named(call.session(request.session_id), request.conversation_id, request.expected_etag)
    if request.new_conversation_id == request.conversation_id:
        violations.add("new_conversation_id", "must be another id than conversation_id")
    return ForkConversation(of, request.at_message_id, request.new_conversation_id or uuid7())


def move_head(
    request: conversation_pb2.SetHeadRequest, call: Call, violations: Violations
) -> MoveHead:
    del violations
    of = Named(call.session(request.session_id), request.conversation_id, request.expected_etag)
    return MoveHead(of, request.message_id)


def summarise(
    request: conversation_pb2.SetSummaryRequest, call: Call, violations: Violations
) -> SetSummary:
    summary = request.summary
    if summary.text and not summary.through_message_id:
        violations.add("summary.through_message_id", "must be given with a text")
    tokens = summary.token_count
    if not summary.HasField("token_count"):
        tokens = estimated_tokens(len(summary.text.encode()))
    of = Named(call.session(request.session_id), request.conversation_id, request.expected_etag)
    return SetSummary(of, summary.text, summary.through_message_id, tokens)


def check_messages(request: Any, violations: Violations) -> None:
    """Add what is too large to be validated."""
    if len(request.messages) > MAX_MESSAGES:
        violations.add(
            "messages",
            f"must be at most {MAX_MESSAGES:,}, these are {len(request.messages):,}; send them in"
            " several calls",
        )


class ConversationParser:
    """Parses what depends on the time."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock

    def create(
        self,
        request: conversation_pb2.CreateConversationRequest,
        call: Call,
        violations: Violations,
    ) -> CreateConversation:
        given = request.conversation
        values = _values(given, ("display_name", "labels", "state"), violations)
        expiration = self._expiration(given, _EXPIRATION, violations)
        of = Named(call.session(given.session_id), given.conversation_id or uuid7())
        return CreateConversation(of, values, expiration or Expiration())

    def change(
        self,
        request: conversation_pb2.UpdateConversationRequest,
        call: Call,
        violations: Violations,
    ) -> ChangeConversation:
        given = request.conversation
        if not given.conversation_id:
            violations.add("conversation.conversation_id", "must be given")
        paths = changed_paths(given, request.update_mask, CHANGEABLE_PATHS, violations)
        expiration = self._expiration(given, paths, violations)
        cleared = frozenset(_EXPIRATION).intersection(paths if expiration is None else ())
        of = Named(call.session(given.session_id), given.conversation_id, given.etag)
        return ChangeConversation(of, _values(given, paths, violations), expiration, cleared)

    def _expiration(
        self,
        given: conversation_pb2.Conversation,
        paths: Sequence[str],
        violations: Violations,
    ) -> Expiration | None:
        """What is set among some fields; None: nothing."""
        kind = given.WhichOneof("expiration")
        if kind == "ttl" and kind in paths:
            try:
                return Expiration(ttl=span_of(given.ttl))
            except OverflowError:
                violations.add("conversation.ttl", NO_DURATION)
        elif kind == "never_expires" and kind in paths and given.never_expires:
            return Expiration()
        elif "expire_time" in paths and given.HasField("expire_time"):
            field = "conversation.expire_time"
            try:
                expires_at = moment_of(given.expire_time)
            except (OverflowError, ValueError):
                violations.add(field, NO_TIMESTAMP)
                return None
            if expires_at <= self._clock():
                violations.add(field, "must be in the future")
            return Expiration(expires_at=expires_at)
        return None


def _values(
    given: conversation_pb2.Conversation, paths: Iterable[str], violations: Violations
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for path in paths:
        match path:
            case "display_name":
                values[path] = given.display_name
            case "labels":
                if problem := problem_with_labels(given.labels):
                    violations.add("conversation.labels", problem)
                values[path] = dict(given.labels)
            case "state":
                values[path] = parse_struct(given.state, "conversation.state", violations)
    return values


def _new_messages(
    given: Sequence[conversation_pb2.Message], violations: Violations
) -> tuple[NewMessage, ...]:
    return tuple(
        _new_message(message, f"messages[{place}]", violations)
        for place, message in enumerate(given)
    )


def _new_message(
    message: conversation_pb2.Message, field: str, violations: Violations
) -> NewMessage:
    stop_if_gone()
    body = convert.body_of(message)
    if len(body) > MAX_MESSAGE_BYTES:
        violations.add(
            field, f"must be at most {MAX_MESSAGE_BYTES:,} bytes; this is {len(body):,}: split it"
        )
    else:
        _check_message(message, field, violations)
    is_estimated = convert.has_estimate(message)
    return NewMessage(
        message.message_id,
        body,
        hashlib.sha256(body).hexdigest(),
        convert.tokens_of(message) if is_estimated else message.token_count,
        is_estimated,
        message.turn_id,
        convert.is_result(message),
        field,
    )


def _check_message(message: conversation_pb2.Message, field: str, violations: Violations) -> None:
    if not message.parts and not message.raw_json:
        violations.add(field, "must have parts, or raw_json")
    for name_ in ("author", "turn_id", "raw_format"):
        _check_text(getattr(message, name_), f"{field}.{name_}", violations)
    _check_json(message.raw_json, f"{field}.raw_json", violations)
    if message.HasField("metadata"):
        parse_struct(message.metadata, f"{field}.metadata", violations)
    for place, part in enumerate(message.parts):
        kind = part.WhichOneof("part")
        path = f"{field}.parts[{place}].{kind}"
        if kind in ("text", "thinking"):
            _check_text(getattr(part, kind), path, violations)
        elif kind is not None:
            of_kind = getattr(part, kind)
            for text in _TEXTS_OF[kind]:
                _check_text(getattr(of_kind, text), f"{path}.{text}", violations)
            for text in _JSON_OF.get(kind, ()):
                _check_json(getattr(of_kind, text), f"{path}.{text}", violations)


_TEXTS_OF = {
    "tool_call": ("call_id", "name"),
    "tool_result": ("call_id", "text"),
    "blob": ("mime_type",),
    "file": ("mime_type", "uri", "name"),
}
_JSON_OF = {"tool_call": ("arguments_json",), "tool_result": ("json",)}


def _check_text(text: str, field: str, violations: Violations) -> None:
    if "\x00" in text:
        violations.add(field, _NUL)


def _check_json(text: str, field: str, violations: Violations) -> None:
    if text and (problem := problem_with_json(text.encode())):
        violations.add(field, problem)


def _retry(request: Any) -> Retry:
    if not request.request_id:
        return Retry()
    # Of requests that hold nothing but names, the bytes may be the same whatever they ask for.
    arguments = f"{request.DESCRIPTOR.name} {fingerprint_of(request)}"
    return Retry(request.request_id.lower(), hashlib.sha256(arguments.encode()).hexdigest())


def _since(
    request: conversation_pb2.ListMessagesRequest, violations: Violations
) -> datetime | None:
    try:
        return moment_of(request.since)
    except (OverflowError, ValueError):
        violations.add("since", NO_TIMESTAMP)
        return None


def _position(token: str, violations: Violations) -> Position | None:
    if not token:
        return None
    try:
        return Position(*map(int, token.split("/")))
    except (TypeError, ValueError):
        violations.add("page_token", page_token.NOT_OURS)
        return None
