"""The errors of refused and failed calls. `memoryd.client` exports every class of this module.

    MemorydError                  each of these, and any status code without a class of its own
    ├── InvalidArgument           the request breaks rules: `violations` lists all of them
    ├── NotFound                  it does not exist for this caller: `resource` names it
    ├── AlreadyExists             it exists already: `resource` names the other one
    ├── Aborted                   another caller was faster
    │   └── EtagMismatch          changed since it was read: read it again
    ├── OutOfRange                the revision to resume from is no longer kept: list again
    ├── ResourceExhausted         no room, or too much at once: `quotas` names the limits
    ├── Unauthenticated           no credential, or an invalid one
    ├── PermissionDenied          the credential does not allow it
    ├── Unavailable               no server answers, or its database does not: try again later
    ├── DeadlineExceeded          no answer in time; a write may still have been committed
    ├── Cancelled                 cancelled by the server or a proxy
    ├── Unimplemented             the server's release does not have the method
    └── Internal                  an unhandled exception: the server's log has the `request_id`

A call whose own task is cancelled raises `asyncio.CancelledError`, as everywhere in asyncio.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from memoryd.v1.error_reason_pb2 import ErrorReason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Cancelled",
    "DeadlineExceeded",
    "EtagMismatch",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "MemorydError",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "Quota",
    "Resource",
    "ResourceExhausted",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
    "error_from",
]

_DOMAIN = "memoryd"
_STATUS_KEY = "grpc-status-details-bin"
_REQUEST_ID_KEY = "x-request-id"

_DETAIL_TYPES: dict[str, type[Message]] = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (
        error_details_pb2.BadRequest,
        error_details_pb2.ErrorInfo,
        error_details_pb2.QuotaFailure,
        error_details_pb2.RequestInfo,
        error_details_pb2.ResourceInfo,
        error_details_pb2.RetryInfo,
    )
}

_Detail = TypeVar("_Detail", bound=Message)


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule that the request breaks."""

    field: str
    """Path into the request: `content`, `memory.importance`, `requests[3].session_id`."""
    description: str
    """What is wrong with it and what would be right."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What the error is about."""

    type: str
    name: str
    description: str


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit that the call reached."""

    subject: str
    description: str


class MemorydError(Exception):
    """A call that was refused or failed."""

    def __init__(
        self, code: grpc.StatusCode, message: str, details: tuple[Message, ...] = ()
    ) -> None:
        # All of the error's state is in its arguments, so that it can be pickled.
        super().__init__(code, message, details)
        info = _error_info(details)
        self.code = code
        self.message = message
        """The server's sentence; its wording may change, `code` and `reason` stay."""
        self.reason: str = info.reason
        """The name of an `ErrorReason`: `ERROR_REASON_SESSION_FULL`. Empty where the error does not
        come from the service: no server answered, or a proxy did."""
        self.metadata: dict[str, str] = dict(info.metadata)
        """Facts that belong to the reason, such as `last_revision`."""
        self.request_id: str = next(
            (request.request_id for request in _of(error_details_pb2.RequestInfo, details)), ""
        )
        """The id of the call in the server's log. Empty: the server gave none."""
        self.retry_after = _retry_delay(details)
        """How long the server asks to wait before the call is tried again."""
        self.details = details
        """The `google.rpc` messages of the status, of the types that this client knows; of the
        call's id also where only a trailer has it."""

    def __str__(self) -> str:
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.code.name}: {self.message}{request}"


class InvalidArgument(MemorydError):
    """The request breaks rules; sent again unchanged, it fails again."""

    def __init__(
        self, code: grpc.StatusCode, message: str, details: tuple[Message, ...] = ()
    ) -> None:
        super().__init__(code, message, details)
        self.violations = tuple(
            Violation(violation.field, violation.description)
            for bad_request in _of(error_details_pb2.BadRequest, details)
            for violation in bad_request.field_violations
        )
        """All of them at once."""

    def __str__(self) -> str:
        named = (f"{each.field}: {each.description}" for each in self.violations)
        # The service's sentence usually names them.
        missing = (each for each in named if each not in self.message)
        return "\n  ".join([super().__str__(), *missing])


class _ResourceError(MemorydError):
    """An error about one thing."""

    def __init__(
        self, code: grpc.StatusCode, message: str, details: tuple[Message, ...] = ()
    ) -> None:
        super().__init__(code, message, details)
        self.resource = next(
            (
                Resource(info.resource_type, info.resource_name, info.description)
                for info in _of(error_details_pb2.ResourceInfo, details)
            ),
            None,
        )


class NotFound(_ResourceError):
    """It does not exist, or it is deleted, expired or another tenant's."""


class AlreadyExists(_ResourceError):
    """Another live memory has this content, or the memory to undelete is not deleted."""


class Aborted(MemorydError):
    """Another caller was faster."""


class EtagMismatch(Aborted):
    """It has changed since it was read: read it again and decide again."""


class OutOfRange(MemorydError):
    """What was at that revision is no longer kept: list again, and go on from there."""


class FailedPrecondition(MemorydError):
    """The version to go back to has expired since."""


class ResourceExhausted(MemorydError):
    """The session is full, a watcher too slow, a message too large or the service overloaded."""

    def __init__(
        self, code: grpc.StatusCode, message: str, details: tuple[Message, ...] = ()
    ) -> None:
        super().__init__(code, message, details)
        self.quotas = tuple(
            Quota(violation.subject, violation.description)
            for failure in _of(error_details_pb2.QuotaFailure, details)
            for violation in failure.violations
        )


class Unauthenticated(MemorydError):
    """The call has no credential, or an invalid one."""


class PermissionDenied(MemorydError):
    """The credential does not allow it."""


class Unavailable(MemorydError):
    """No server answers, the server is stopping, or its database does not answer."""


class DeadlineExceeded(MemorydError):
    """No answer came in time; a write may still have been committed."""


class Cancelled(MemorydError):
    """The server or a proxy cancelled the call."""


class Unimplemented(MemorydError):
    """The server's release does not have the method."""


class Internal(MemorydError):
    """An unhandled exception in the service; its log has the `request_id`."""


_BY_CODE: dict[grpc.StatusCode, type[MemorydError]] = {
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.INTERNAL: Internal,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
}


_BY_REASON: dict[str, type[MemorydError]] = {
    ErrorReason.Name(ErrorReason.ERROR_REASON_ETAG_MISMATCH): EtagMismatch,
}
"""Reasons with a class of their own, which says more than their code's."""


_CODE_OF = {code.value[0]: code for code in grpc.StatusCode}


def error_from(failure: grpc.aio.AioRpcError | status_pb2.Status) -> MemorydError:
    """Turn gRPC's error into ours; details that cannot be read are left out.

    A status, which stands in a message, becomes the error of a call that ends with it.
    """
    if isinstance(failure, status_pb2.Status):
        failure = _ended_with(failure)
    details = tuple(_decode(failure))
    if not any(_of(error_details_pb2.RequestInfo, details)):
        details += tuple(_request_info(failure))
    kind = _BY_REASON.get(_error_info(details).reason) or _BY_CODE.get(failure.code(), MemorydError)
    error = kind(failure.code(), failure.details() or "", details)
    error.__cause__ = failure
    return error


def _ended_with(status: status_pb2.Status) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        _CODE_OF.get(status.code, grpc.StatusCode.UNKNOWN),
        grpc.aio.Metadata(),
        grpc.aio.Metadata((_STATUS_KEY, status.SerializeToString())),
        details=status.message,
    )


def _decode(failure: grpc.aio.AioRpcError) -> Iterator[Message]:
    for key, value in failure.trailing_metadata() or ():
        if key != _STATUS_KEY or not isinstance(value, bytes):
            continue
        with contextlib.suppress(DecodeError):
            for packed in status_pb2.Status.FromString(value).details:
                kind = _DETAIL_TYPES.get(packed.TypeName())
                if kind is not None:
                    with contextlib.suppress(DecodeError):
                        yield kind.FromString(packed.value)


def _request_info(failure: grpc.aio.AioRpcError) -> Iterator[Message]:
    """What the trailers say of the call, where the status does not."""
    for key, value in failure.trailing_metadata() or ():
        if key == _REQUEST_ID_KEY and isinstance(value, str):
            yield error_details_pb2.RequestInfo(request_id=value)


def _of(kind: type[_Detail], details: tuple[Message, ...]) -> Iterator[_Detail]:
    return (detail for detail in details if isinstance(detail, kind))


def _error_info(details: tuple[Message, ...]) -> error_details_pb2.ErrorInfo:
    infos = _of(error_details_pb2.ErrorInfo, details)
    ours = (info for info in infos if info.domain == _DOMAIN)
    return next(ours, error_details_pb2.ErrorInfo())


def _retry_delay(details: tuple[Message, ...]) -> timedelta | None:
    for retry in _of(error_details_pb2.RetryInfo, details):
        with contextlib.suppress(OverflowError):
            delay: timedelta = retry.retry_delay.ToTimedelta()
            return delay
    return None
