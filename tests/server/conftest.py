"""Helpers shared by the tests of the running server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

_DETAILS = {
    f"type.googleapis.com/{kind.DESCRIPTOR.full_name}": kind
    for kind in (
        error_details_pb2.BadRequest,
        error_details_pb2.ErrorInfo,
        error_details_pb2.RequestInfo,
        error_details_pb2.ResourceInfo,
        error_details_pb2.RetryInfo,
    )
}


class Refusal:
    """An error as its caller sees it, with its details by type name."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.code = error.code()
        self.message = error.details()
        trailers = dict(error.trailing_metadata() or ())
        self.request_id = trailers.get("x-request-id")
        self.details: dict[str, Message] = {}
        status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
        for detail in status.details:
            kind = _DETAILS[detail.type_url]
            self.details[kind.DESCRIPTOR.name] = kind.FromString(detail.value)

    @property
    def reason(self) -> str | None:
        info = self.details.get("ErrorInfo")
        return info.reason.removeprefix("ERROR_REASON_") if info else None


@pytest.fixture
def refusal() -> Callable[[grpc.RpcError], Refusal]:
    """Decode an error."""
    return Refusal
