"""The one table from error to status."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from memoryd.domain import errors
from memoryd.v1 import error_reason_pb2
from memoryd.v1.error_reason_pb2 import ErrorReason as Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message

DOMAIN = "memoryd"

MAX_MESSAGE_CHARACTERS = 500
MAX_NAME_CHARACTERS = 255
MAX_VIOLATIONS_BYTES = 3_600
"""gRPC clients take 8 KiB of trailers by default: the message twice and all of this in base64."""

MAX_KEPT_STATUSES = 4_096
"""Statuses of refusals, and times to retry after, that are kept; some hundred bytes each."""

_ALIKE = (
    *(errors.QuotaExceeded, errors.Overloaded, errors.DatabaseUnavailable, errors.ShuttingDown),
    *(errors.CredentialMissing, errors.CredentialMalformed, errors.CredentialInvalid),
    *(errors.CredentialExpired, errors.CredentialRevoked, errors.TenantDisabled),
    *(errors.ScopeMissing, errors.SessionNotAllowed),
)
"""Errors that callers get over and over, and that hold nothing of a request."""

MEMORY_TYPE = "memoryd.v1.Memory"
SESSION_TYPE = "memoryd.v1.Session"
DOCUMENT_TYPE = "memoryd.v1.Document"
CONVERSATION_TYPE = "memoryd.v1.Conversation"
MESSAGE_TYPE = "memoryd.v1.Message"
TOOL_CONFIG_REVISION_TYPE = "memoryd.v1.ToolConfigRevision"
FLAG_TYPE = "flagd.Flag"
SERVICE_TYPE = "grpc.Service"
API_KEY_TYPE = "memoryd.v1.ApiKey"

PREFIX = "ERROR_REASON_"
"""Of the names of reasons in the proto, and of the older ones on the wire, too."""

INTERNAL = f"{PREFIX}INTERNAL"
"""The reason of an error that is not in the table."""

_TABLE: dict[type[errors.MemorydError], tuple[grpc.StatusCode, Reason.ValueType]] = {
    errors.InvalidRequest: (
        grpc.StatusCode.INVALID_ARGUMENT,
        error_reason_pb2.ERROR_REASON_INVALID_REQUEST,
    ),
    errors.MalformedMessage: (
        grpc.StatusCode.INVALID_ARGUMENT,
        error_reason_pb2.ERROR_REASON_MALFORMED_MESSAGE,
    ),
    errors.NoMessage: (
        grpc.StatusCode.INVALID_ARGUMENT,
        error_reason_pb2.ERROR_REASON_NO_MESSAGE,
    ),
    errors.RequestIncomplete: (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        error_reason_pb2.ERROR_REASON_REQUEST_INCOMPLETE,
    ),
    errors.MessageTooLarge: (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        error_reason_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
    ),
    errors.RequestIdReused: (
        grpc.StatusCode.INVALID_ARGUMENT,
        error_reason_pb2.ERROR_REASON_REQUEST_ID_REUSED,
    ),
    errors.LiteralSecret: (
        grpc.StatusCode.INVALID_ARGUMENT,
        error_reason_pb2.ERROR_REASON_LITERAL_SECRET,
    ),
    errors.CredentialMissing: (
        grpc.StatusCode.UNAUTHENTICATED,
        error_reason_pb2.ERROR_REASON_CREDENTIAL_MISSING,
    ),
    errors.CredentialMalformed: (
        grpc.StatusCode.UNAUTHENTICATED,
        error_reason_pb2.ERROR_REASON_CREDENTIAL_MALFORMED,
    ),
    errors.CredentialInvalid: (
        grpc.StatusCode.UNAUTHENTICATED,
        error_reason_pb2.ERROR_REASON_CREDENTIAL_INVALID,
    ),
    errors.CredentialExpired: (
        grpc.StatusCode.UNAUTHENTICATED,
        error_reason_pb2.ERROR_REASON_CREDENTIAL_EXPIRED,
    ),
    errors.CredentialRevoked: (
        grpc.StatusCode.UNAUTHENTICATED,
        error_reason_pb2.ERROR_REASON_CREDENTIAL_REVOKED,
    ),
    errors.TenantDisabled: (
        grpc.StatusCode.PERMISSION_DENIED,
        error_reason_pb2.ERROR_REASON_TENANT_DISABLED,
    ),
    errors.ScopeMissing: (
        grpc.StatusCode.PERMISSION_DENIED,
        error_reason_pb2.ERROR_REASON_SCOPE_MISSING,
    ),
    errors.SessionNotAllowed: (
        grpc.StatusCode.PERMISSION_DENIED,
        error_reason_pb2.ERROR_REASON_SESSION_NOT_ALLOWED,
    ),
    errors.QuotaExceeded: (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        error_reason_pb2.ERROR_REASON_QUOTA_EXCEEDED,
    ),
    errors.KeyNotFound: (
        grpc.StatusCode.NOT_FOUND,
        error_reason_pb2.ERROR_REASON_KEY_NOT_FOUND,
    ),
    errors.MemoryNotFound: (
        grpc.StatusCode.NOT_FOUND,
        error_reason_pb2.ERROR_REASON_MEMORY_NOT_FOUND,
    ),
    errors.SessionNotFound: (
        grpc.StatusCode.NOT_FOUND,
        error_reason_pb2.ERROR_REASON_SESSION_NOT_FOUND,
    ),
    errors.DocumentNotFound: (
        grpc.StatusCode.NOT_FOUND,
        error_reason_pb2.ERROR_REASON_DOCUMENT_NOT_FOUND,
    ),
    errors.DocumentAlreadyExists: (
        grpc.StatusCode.ALREADY_EXISTS,
        error_reason_pb2.ERROR_REASON_DOCUMENT_ALREADY_EXISTS,
    ),
    errors.ConversationNotFound: (
        grpc.StatusCode.NOT_FOUND,
        error_reason_pb2.ERROR_REASON_CONVERSATION_NOT_FOUND,
    ),
    errors.ConversationAlreadyExists: (
        grpc.StatusCode.ALREADY_EXISTS,
        error_reason_pb2.ERROR_REASON_CONVERSATION_ALREADY_EXISTS,
    ),
    errors.MessageNotFound: (
        grpc.StatusCode.NOT_FOUND,
        error_reason_pb2.ERROR_REASON_MESSAGE_NOT_FOUND,
    ),
    errors.MessageAlreadyExists: (
        grpc.StatusCode.ALREADY_EXISTS,
        error_reason_pb2.ERROR_REASON_MESSAGE_ALREADY_EXISTS,
    ),
    errors.TooManyBranches: (
        grpc.StatusCode.FAILED_PRECONDITION,
        error_reason_pb2.ERROR_REASON_TOO_MANY_BRANCHES,
    ),
    errors.SessionTooLarge: (
        grpc.StatusCode.FAILED_PRECONDITION,
        error_reason_pb2.ERROR_REASON_SESSION_TOO_LARGE,
    ),
    errors.ToolConfigRevisionNotFound: (
        grpc.StatusCode.NOT_FOUND,
        error_reason_pb2.ERROR_REASON_TOOL_CONFIG_REVISION_NOT_FOUND,
    ),
    errors.FlagNotFound: (
        grpc.StatusCode.NOT_FOUND,
        error_reason_pb2.ERROR_REASON_FLAG_NOT_FOUND,
    ),
    errors.ServiceNotFound: (
        grpc.StatusCode.NOT_FOUND,
        error_reason_pb2.ERROR_REASON_SERVICE_NOT_FOUND,
    ),
    errors.MemoryAlreadyExists: (
        grpc.StatusCode.ALREADY_EXISTS,
        error_reason_pb2.ERROR_REASON_MEMORY_ALREADY_EXISTS,
    ),
    errors.MemoryNotDeleted: (
        grpc.StatusCode.ALREADY_EXISTS,
        error_reason_pb2.ERROR_REASON_MEMORY_NOT_DELETED,
    ),
    errors.EtagMismatch: (grpc.StatusCode.ABORTED, error_reason_pb2.ERROR_REASON_ETAG_MISMATCH),
    errors.SessionFull: (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        error_reason_pb2.ERROR_REASON_SESSION_FULL,
    ),
    errors.SessionsTooLarge: (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        error_reason_pb2.ERROR_REASON_SESSIONS_TOO_LARGE,
    ),
    errors.SearchTextsTooLarge: (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        error_reason_pb2.ERROR_REASON_SEARCH_TEXTS_TOO_LARGE,
    ),
    errors.RevisionOutOfRange: (
        grpc.StatusCode.OUT_OF_RANGE,
        error_reason_pb2.ERROR_REASON_REVISION_OUT_OF_RANGE,
    ),
    errors.VersionExpired: (
        grpc.StatusCode.FAILED_PRECONDITION,
        error_reason_pb2.ERROR_REASON_VERSION_EXPIRED,
    ),
    errors.StreamStalled: (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        error_reason_pb2.ERROR_REASON_WATCHER_TOO_SLOW,
    ),
    errors.StreamIdle: (
        grpc.StatusCode.UNAVAILABLE,
        error_reason_pb2.ERROR_REASON_STREAM_IDLE,
    ),
    errors.Overloaded: (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        error_reason_pb2.ERROR_REASON_OVERLOADED,
    ),
    errors.ClientLimitReached: (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        error_reason_pb2.ERROR_REASON_CLIENT_LIMIT_REACHED,
    ),
    errors.OutOfDescriptors: (
        grpc.StatusCode.UNAVAILABLE,
        error_reason_pb2.ERROR_REASON_OUT_OF_DESCRIPTORS,
    ),
    errors.DatabaseUnavailable: (
        grpc.StatusCode.UNAVAILABLE,
        error_reason_pb2.ERROR_REASON_DATABASE_UNAVAILABLE,
    ),
    errors.AuditUnavailable: (
        grpc.StatusCode.UNAVAILABLE,
        error_reason_pb2.ERROR_REASON_AUDIT_UNAVAILABLE,
    ),
    errors.SchemaMismatch: (
        grpc.StatusCode.UNAVAILABLE,
        error_reason_pb2.ERROR_REASON_SCHEMA_MISMATCH,
    ),
    errors.ShuttingDown: (
        grpc.StatusCode.UNAVAILABLE,
        error_reason_pb2.ERROR_REASON_SHUTTING_DOWN,
    ),
    errors.DeadlineExceeded: (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        error_reason_pb2.ERROR_REASON_DEADLINE_EXCEEDED,
    ),
    errors.UnknownMethod: (
        grpc.StatusCode.UNIMPLEMENTED,
        error_reason_pb2.ERROR_REASON_NOT_IMPLEMENTED,
    ),
}


class Status(NamedTuple):
    """What goes over the wire in place of an answer."""

    code: grpc.StatusCode
    message: str
    details: bytes
    """`google.rpc.Status`, for the trailer `grpc-status-details-bin`."""


_statuses: dict[tuple[object, ...], Status] = {}


def status_of(error: Exception, request_id: str) -> Status:
    """The status of any error; one that is not in the table is a bug, without details."""
    if not isinstance(error, errors.MemorydError):
        return _status(
            grpc.StatusCode.INTERNAL,
            error_reason_pb2.ERROR_REASON_INTERNAL,
            f"internal error; quote request id {request_id}",
            [error_details_pb2.RequestInfo(request_id=request_id)],
        )
    status = _kept(error) if isinstance(error, _ALIKE) else _made(error)
    after = getattr(error, "retry_after", None)
    if after is None:
        return status
    # A message's encoding with another one's behind it is that of both: of all details.
    return status._replace(details=status.details + _retry_info(math.ceil(after * 1000)))


def _kept(error: errors.MemorydError) -> Status:
    """As `_made`, once for all errors that are alike: many callers may be refused at once."""
    subject = getattr(error, "subject", None)
    key = (type(error), error.args, error.field, error.last_revision, subject)
    status = _statuses.get(key)
    if status is None:
        if len(_statuses) >= MAX_KEPT_STATUSES:
            _statuses.clear()
        status = _statuses[key] = _made(error)
    return status


def _made(error: errors.MemorydError) -> Status:
    """The status of an error, but when to retry."""
    code, reason = _TABLE[type(error)]
    facts = {}
    if error.last_revision is not None:
        facts["last_revision"] = str(error.last_revision)
    if isinstance(error, errors.ScopeMissing):
        facts["scope"] = error.scope
    message = f"{error.field}: {error}" if error.field else str(error)
    return _status(code, reason, message, _details(error), facts)


def code_of(error: errors.MemorydError) -> grpc.StatusCode:
    """Give the status code of an error."""
    return _TABLE[type(error)][0]


def reason_of(error: errors.MemorydError) -> str:
    """Name the reason of an error, as `ErrorInfo` has it."""
    return _name(_TABLE[type(error)][1])


def _details(error: errors.MemorydError) -> list[Message]:
    resource_type, name = _resource(error)
    details: list[Message] = []
    if resource_type:
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=resource_type, resource_name=name, description=str(error)
            )
        )
    match error:
        case errors.InvalidRequest(violations=violations):
            details.append(_bad_request(violations))
        case errors.SessionsTooLarge():
            field, _, description = str(error).partition(": ")
            details.append(_bad_request([errors.Violation(field, description)]))
        case errors.SessionFull():
            details.append(_quota_failure("memory.max_entries", str(error)))
        case errors.QuotaExceeded(subject=subject):
            details.append(_quota_failure(subject, str(error)))
    if error.field:
        details.append(_bad_request([errors.Violation(error.field, str(error))]))
    return details


def _resource(error: errors.MemorydError) -> tuple[str, str]:
    """The type and name of what an error is about; empty where it is about no resource."""
    match error:
        case (
            errors.MemoryNotFound(memory_id=name)
            | errors.MemoryAlreadyExists(memory_id=name)
            | errors.MemoryNotDeleted(memory_id=name)
        ):
            found = MEMORY_TYPE, name
        case errors.SessionNotFound(session_id=name):
            found = SESSION_TYPE, name
        case errors.DocumentNotFound(name=name) | errors.DocumentAlreadyExists(name=name):
            found = DOCUMENT_TYPE, name[:MAX_NAME_CHARACTERS]
        case (
            errors.ConversationNotFound(conversation_id=name)
            | errors.ConversationAlreadyExists(conversation_id=name)
        ):
            found = CONVERSATION_TYPE, name
        case errors.MessageNotFound(message_id=name) | errors.MessageAlreadyExists(message_id=name):
            found = MESSAGE_TYPE, name
        case errors.ToolConfigRevisionNotFound(tool=tool, revision=revision):
            found = TOOL_CONFIG_REVISION_TYPE, f"{tool}/{revision}"
        case errors.FlagNotFound(key=name):
            found = FLAG_TYPE, name[:MAX_NAME_CHARACTERS]
        case errors.ServiceNotFound(service=name):
            found = SERVICE_TYPE, name[:MAX_NAME_CHARACTERS]
        case errors.KeyNotFound(key_id=name):
            found = API_KEY_TYPE, name[:MAX_NAME_CHARACTERS]
        case _:
            found = "", ""
    return found


def _quota_failure(subject: str, description: str) -> error_details_pb2.QuotaFailure:
    violation = error_details_pb2.QuotaFailure.Violation(subject=subject, description=description)
    return error_details_pb2.QuotaFailure(violations=[violation])


@lru_cache(maxsize=MAX_KEPT_STATUSES)
def _retry_info(milliseconds: int) -> bytes:
    """Encode a `google.rpc.Status` that says when to retry, and no more."""
    delay = Duration()
    delay.FromMilliseconds(milliseconds)
    return _encoded(status_pb2.Status(), [error_details_pb2.RetryInfo(retry_delay=delay)])


def _bad_request(violations: Sequence[errors.Violation]) -> error_details_pb2.BadRequest:
    """Every violation; where they are too many for a trailer, the first ones and how many more."""
    bad_request = error_details_pb2.BadRequest()
    for place, (field, description) in enumerate(violations):
        bad_request.field_violations.add(field=field, description=description)
        if bad_request.ByteSize() > MAX_VIOLATIONS_BYTES:
            left_out = bad_request.field_violations[place]
            left_out.field = re.split(r"[.[]", field)[0]
            left_out.description = (
                f"has {len(violations) - place:,} more violations; correct these first"
            )
            break
    return bad_request


def _status(
    code: grpc.StatusCode,
    reason: Reason.ValueType,
    message: str,
    details: list[Message],
    facts: Mapping[str, str] | None = None,
) -> Status:
    if len(message) > MAX_MESSAGE_CHARACTERS:
        message = f"{message[:MAX_MESSAGE_CHARACTERS].rsplit('; ', 1)[0]}; and more, see details"
    info = error_details_pb2.ErrorInfo(reason=_name(reason), domain=DOMAIN, metadata=facts)
    status = status_pb2.Status(code=code.value[0], message=message)
    return Status(code, message, _encoded(status, [info, *details]))


def _encoded(status: status_pb2.Status, details: Sequence[Message]) -> bytes:
    for detail in details:
        status.details.add().Pack(detail)
    encoded: bytes = status.SerializeToString()
    return encoded


def _name(reason: Reason.ValueType) -> str:
    name = Reason.Name(reason)
    if reason < error_reason_pb2.ERROR_REASON_CREDENTIAL_MISSING:
        return name
    return name.removeprefix(PREFIX)
