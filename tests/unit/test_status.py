"""The one table from error to status."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details_pb2
from google.rpc import status_pb2

from memoryd.domain import errors
from memoryd.rpc.status import (
    DOMAIN,
    MAX_KEPT_STATUSES,
    PREFIX,
    Status,
    _statuses,
    status_of,
)
from memoryd.v1.error_reason_pb2 import ErrorReason

MEMORY_ID = "0197d3e2-7a44-7e2a-b2f0-3c1d5e6f7a8b"
HEADER_BYTES = 8_192
"""The limit of a gRPC client by default; details are sent as base64, the message twice."""

ERRORS = (
    errors.InvalidRequest(errors.Violation("content", "is empty; send some")),
    errors.RequestIdReused("requests[1].request_id"),
    errors.LiteralSecret(errors.Violation("crm.api_key", "is a literal; give a reference")),
    errors.MalformedMessage("request of /memoryd.v1.MemoryService/StoreMemory"),
    errors.MessageTooLarge(5_000_000, 4_194_304),
    errors.MemoryNotFound(MEMORY_ID),
    errors.SessionNotFound("user-123"),
    errors.SessionTooLarge(10_000, 67_108_864),
    errors.DocumentNotFound("n/k"),
    errors.DocumentAlreadyExists("n/k"),
    errors.ConversationNotFound("c"),
    errors.ConversationAlreadyExists("c"),
    errors.MessageNotFound("m", "the branch"),
    errors.MessageAlreadyExists("m", "with another body"),
    errors.TooManyBranches(1_000),
    errors.SearchTextsTooLarge(33_554_432),
    errors.ToolConfigRevisionNotFound("rag", 7),
    errors.FlagNotFound("é" * 100_000),
    errors.ServiceNotFound("é" * 100_000),
    errors.MemoryAlreadyExists(MEMORY_ID),
    errors.MemoryNotDeleted(MEMORY_ID),
    errors.VersionExpired(7),
    errors.EtagMismatch(f"memory {MEMORY_ID}"),
    errors.SessionFull(100),
    errors.SessionsTooLarge(8_388_608),
    errors.RevisionOutOfRange("list again"),
    errors.StreamStalled(7),
    errors.StreamIdle(7),
    errors.Overloaded("too much at once"),
    errors.ClientLimitReached("too much at once of one"),
    errors.DatabaseUnavailable("connection to 10.0.0.1 refused"),
    errors.AuditUnavailable(),
    errors.SchemaMismatch("migrate it"),
    errors.ShuttingDown(),
    errors.DeadlineExceeded(),
    errors.NoMessage(),
    errors.RequestIncomplete(5.0),
    errors.OutOfDescriptors(),
    errors.UnknownMethod("comes later"),
    errors.CredentialMissing(),
    errors.CredentialMalformed(),
    errors.CredentialInvalid(),
    errors.CredentialExpired(),
    errors.CredentialRevoked(),
    errors.TenantDisabled(),
    errors.ScopeMissing("tools:write"),
    errors.SessionNotAllowed(),
    errors.KeyNotFound("0123456789AB"),
    errors.QuotaExceeded("acme", "calls_per_second", 100, retry_after=0.5),
)

KINDS = (
    details_pb2.BadRequest,
    details_pb2.ErrorInfo,
    details_pb2.QuotaFailure,
    details_pb2.RequestInfo,
    details_pb2.ResourceInfo,
    details_pb2.RetryInfo,
)


def details_of(status: Status) -> dict[str, Message]:
    found = {}
    for packed in status_pb2.Status.FromString(status.details).details:
        (kind,) = (kind for kind in KINDS if packed.Is(kind.DESCRIPTOR))
        found[kind.DESCRIPTOR.name] = kind.FromString(packed.value)
    return found


def all_errors(kind: type[errors.MemorydError]) -> Iterator[type[errors.MemorydError]]:
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:  # others are raised only by commands
            yield below
        yield from all_errors(below)


def test_every_error_has_an_example_here() -> None:
    assert {type(error) for error in ERRORS} == set(all_errors(errors.MemorydError))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_has_its_code_and_its_own_reason(error: errors.MemorydError) -> None:
    status = status_of(error, "req-7")
    assert status.code not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
    details = details_of(status)
    info = details["ErrorInfo"]
    assert info.domain == DOMAIN
    name = info.reason if info.reason.startswith(PREFIX) else PREFIX + info.reason
    # What was there before access came is sent with its prefix, as it always was.
    assert (name == info.reason) == (ErrorReason.Value(name) < 29)
    assert (
        sum(
            details_of(status_of(other, "req-7"))["ErrorInfo"].reason == info.reason
            for other in ERRORS
        )
        == 1
    )
    if isinstance(error, errors.InvalidRequest):
        violations = [(v.field, v.description) for v in details["BadRequest"].field_violations]
        assert violations == list(error.violations)
    if status.code in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS}:
        assert details["ResourceInfo"].resource_name
    if status.code is grpc.StatusCode.UNAVAILABLE and hasattr(error, "retry_after"):
        assert details["RetryInfo"].retry_delay.seconds == int(error.retry_after)
    assert "10.0.0.1" not in str(status)
    assert 4 * len(status.details) / 3 + len(status.message) < HEADER_BYTES


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("SELECT content FROM memories; /var/lib/memoryd.db"),
        KeyError("the user's password"),
        UnicodeEncodeError("utf-8", "the user's password", 0, 1, "no"),
    ],
)
def test_an_unhandled_exception_shows_only_a_request_id(error: Exception) -> None:
    status = status_of(error, "req-7")
    assert status.code is grpc.StatusCode.INTERNAL
    assert status.message == "internal error; quote request id req-7"
    info = details_pb2.ErrorInfo(reason="ERROR_REASON_INTERNAL", domain=DOMAIN)
    request = details_pb2.RequestInfo(request_id="req-7")
    assert details_of(status) == {"ErrorInfo": info, "RequestInfo": request}


def test_refusals_that_are_kept_are_those_of_their_tenant_quota_and_time() -> None:
    for tenant, quota, limit, after in itertools.product(
        ("acme", "other"), ("calls_per_second", "memories"), (7, 8), (0.25, 1.5, None)
    ):
        for _ in range(2):
            error = errors.QuotaExceeded(tenant, quota, limit, retry_after=after)
            status = status_of(error, "req-7")
            details = details_of(status)
            (violation,) = details["QuotaFailure"].violations
            assert violation.subject == f"tenants/{tenant}/quotas/{quota}"
            assert violation.description == status.message == str(error)
            assert f"{quota} of {limit};" in status.message
            seconds = None
            if "RetryInfo" in details:
                seconds = details["RetryInfo"].retry_delay.ToTimedelta().total_seconds()
            assert seconds == after


def test_no_more_refusals_are_kept_than_may_be() -> None:
    for number in range(MAX_KEPT_STATUSES + 10):
        status_of(errors.Overloaded(f"{number} writes are waiting"), "req-7")
    assert len(_statuses) <= MAX_KEPT_STATUSES
