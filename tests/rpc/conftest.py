"""How errors look to a caller, and what lies in the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.roles import as_superuser


@dataclass(frozen=True)
class Refusal:
    """The error of a refused call, decoded from `grpc-status-details-bin`."""

    code: grpc.StatusCode
    message: str
    reason: str
    """The reason in ErrorInfo, without its prefix: `INVALID_REQUEST`."""
    violations: dict[str, str]
    """The violations in BadRequest, by the field's path."""
    resource: error_details_pb2.ResourceInfo
    quota: error_details_pb2.QuotaFailure


@pytest.fixture
def refused() -> Callable[[Awaitable[object]], Awaitable[Refusal]]:
    """Await a call that must be refused, and return the refusal.

    It must carry one ErrorInfo of this service, and each field once.
    """

    async def refused(call: Awaitable[object]) -> Refusal:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        error = caught.value
        trailers = dict(error.trailing_metadata())
        assert "grpc-status-details-bin" in trailers, error
        status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
        assert (status.code, status.message) == (error.code().value[0], error.details())
        infos = unpack(status, error_details_pb2.ErrorInfo)
        assert [info.domain for info in infos] == ["memoryd"]
        violations = [
            violation
            for bad_request in unpack(status, error_details_pb2.BadRequest)
            for violation in bad_request.field_violations
        ]
        by_field = {violation.field: violation.description for violation in violations}
        assert len(by_field) == len(violations)
        assert all(by_field.values())
        return Refusal(
            code=error.code(),
            message=error.details(),
            reason=infos[0].reason.removeprefix("ERROR_REASON_"),
            violations=by_field,
            resource=sole(unpack(status, error_details_pb2.ResourceInfo)),
            quota=sole(unpack(status, error_details_pb2.QuotaFailure)),
        )

    def unpack(status, kind):
        found = []
        for packed in status.details:
            detail = kind()
            if packed.Unpack(detail):
                found.append(detail)
        return found

    def sole(details):
        assert len(details) <= 1
        return details[0] if details else None

    return refused


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[Callable]:
    """Execute a statement directly in the database; return its rows, if any."""
    engine = create_async_engine(as_superuser(database_url))

    async def run(statement: str) -> list:
        async with engine.begin() as connection:
            result = await connection.execute(text(statement))
            return list(result.all()) if result.returns_rows else []

    yield run
    await engine.dispose()
