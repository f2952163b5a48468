"""What each program of this folder shows of its client: it prints a line for each feature."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

import grpc
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

LONG = "word " * 2400
"""12 KB that gzip makes much smaller."""

FEATURES = ("unary", "stream", "errors", "gzip", "deadline", "metadata")
FIELD, REASON = "content", "ERROR_REASON_INVALID_REQUEST"
DEADLINE_SECONDS = 0.3
REQUEST_ID = "mine"


def run(checks: object) -> None:
    """Run each check, and print its name with what it returns: `yes` if that is nothing."""
    for feature in FEATURES:
        print(f"{feature}: {_outcome(getattr(checks, feature))}")


async def run_async(checks: object) -> None:
    """As `run`, of checks that are awaited."""
    for feature in FEATURES:
        check: Callable[[], Awaitable[str | None]] = getattr(checks, feature)
        try:
            print(f"{feature}: {await check() or 'yes'}")
        except Exception:  # noqa: BLE001  whatever it is, it is told
            print(f"{feature}: failed: {traceback.format_exc()!r}")


def _outcome(check: Callable[[], str | None]) -> str:
    try:
        return check() or "yes"
    except Exception:  # noqa: BLE001  as above
        return f"failed: {traceback.format_exc()!r}"


def equal(found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"{found!r} is not {wanted!r}")


def check_refusal(error: grpc.RpcError, trailers: Iterable[tuple[str, str | bytes]]) -> None:
    """Compare a refusal with what it should say."""
    equal(error.code(), grpc.StatusCode.INVALID_ARGUMENT)
    status = status_pb2.Status.FromString(dict(trailers)["grpc-status-details-bin"])
    details = {each.TypeName(): each for each in status.details}
    info, wrong = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    details[info.DESCRIPTOR.full_name].Unpack(info)
    details[wrong.DESCRIPTOR.full_name].Unpack(wrong)
    equal((info.reason, wrong.field_violations[0].field), (REASON, FIELD))


def addresses() -> tuple[str, str]:
    """Where to call, and where bytes are counted."""
    address, counted = sys.argv[1:]
    return address, counted
