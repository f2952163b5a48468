"""One call from its beginning to its end: its caller, its refusal if it fails, its log line."""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import grpc

from memoryd.domain.errors import MemorydError, OutOfDescriptors, Overloaded
from memoryd.domain.principals import NO_ONE, AuthMethod
from memoryd.rpc.access import ObservedPrincipal
from memoryd.rpc.call import Call, enter
from memoryd.rpc.call_record import CallRecord
from memoryd.rpc.limits import client_of, tenants_share
from memoryd.rpc.status import INTERNAL, reason_of, status_of
from memoryd.telemetry import spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from memoryd.domain.audit import Audited
    from memoryd.domain.principals import Scope
    from memoryd.rpc.access import Anyone, Gate
    from memoryd.rpc.auditing import Auditor
    from memoryd.rpc.call import WireCall
    from memoryd.rpc.limits import RetryDelays
    from memoryd.rpc.status import Status
    from memoryd.telemetry.instruments import Instruments
    from memoryd.telemetry.spans import TracedCall, Tracer

log = logging.getLogger("memoryd.access")

REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")
"""Nothing that could be taken for another field of a log line."""
TRANSIT_SECONDS = 0.1
"""How much earlier than here a deadline may pass at the caller, who then cancels."""

UNKNOWN_METHOD = "UNKNOWN"
"""What the log has in place of a method that does not exist, whose name is a stranger's."""
OTHER_METHOD = "_OTHER"
"""What metrics and spans have there."""

DETAILS_TRAILER = "grpc-status-details-bin"

_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


class Serving:
    """One call: entered at its beginning, and at its end refused, if it failed, and logged."""

    __slots__ = (
        *("_auditor", "_context", "_gate", "_how", "_instruments", "_needs", "_path", "_reason"),
        *("_refusal", "_returns", "_started", "_traced", "_tracer", "call"),
    )

    def __init__(  # noqa: PLR0917  built in one place
        self,
        path: str,
        needs: Scope | Anyone,
        gate: Gate,
        returns: RetryDelays,
        auditor: Auditor | None,
        how: Audited | None,
        instruments: Instruments,
        tracer: Tracer | None,
        context: WireCall,
    ) -> None:
        """`needs`: what the method needs of its caller; `how` it is audited, if it is."""
        self._path = path
        self._needs = needs
        self._gate = gate
        self._returns = returns
        self._auditor = auditor
        self._how = how
        self._instruments = instruments
        self._tracer = tracer
        self._traced: TracedCall | None = None
        self._context = context
        self._reason = ""
        self._refusal: MemorydError | None = None

    async def __aenter__(self) -> Self:
        self._started = time.perf_counter()
        context = self._context
        metadata = context.invocation_metadata()
        if self._tracer is not None:
            self._traced = self._tracer.begin(measured_as(self._path), metadata or ())
            if self._traced is not None:
                spans.enter(self._traced)
        request_id = _request_id(metadata)
        try:
            principal = await self._gate.principal_of(context, metadata, self._needs)
        except MemorydError as error:
            principal, self._refusal = NO_ONE, error
        is_known = principal.method is not AuthMethod.OFF
        client = tenants_share(principal.tenant) if is_known else client_of(context.peer())
        record = None if self._how is None else CallRecord(self._how, context.peer())
        self.call = Call(self._path, request_id, context.time_remaining, client, principal, record)
        enter(self.call)
        context.set_trailing_metadata(((REQUEST_ID_HEADER, request_id),))
        return self

    def admitted(self, weight: int) -> Call:
        """Give the call, once it is counted. Raises what its caller is refused for."""
        if self._refusal is not None:
            raise self._refusal
        self._gate.charge(self.call.principal, weight)
        return self.call

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        code = grpc.StatusCode.OK
        try:
            if isinstance(error, grpc.aio.AbortError):
                code = self._context.code() or grpc.StatusCode.UNKNOWN
            elif isinstance(error, Exception):
                status = self._refused_with(error)
                code = status.code
                await self._abort(status)
            elif error is not None:
                code = grpc.StatusCode.CANCELLED
        finally:
            code = _timed(self.call, code)
            seconds = time.perf_counter() - self._started
            self._instruments.calls.observe(seconds, measured_as(self._path), code.name)
            trace_id = ""
            if self._traced is not None:
                self._traced.end(code.name, self._reason)
                trace_id = self._traced.trace_id
            _log(self.call, code, seconds, trace_id)
            if self._auditor is not None:
                self._leave_line(self._auditor, code)

    async def accepted(self) -> None:
        """Note that the request is accepted, before any of its work is done.

        Raises AuditUnavailable where that has to be recorded first and cannot be.
        """
        if self._auditor is not None and self.call.record is not None:
            await self._auditor.begin(self.call, self.call.record)

    async def refuse(self, error: Exception) -> None:
        """End the call with an error while its handler waits for gRPC, which tells the handler."""
        await self._abort(self._refused_with(error))

    def _refused_with(self, error: Exception) -> Status:
        """Give the status that ends the call."""
        self._reason = _reason_of(error)
        return self.status_of(error)

    def status_of(self, error: Exception) -> Status:
        """Give what the caller gets to see of an error; the log has the rest of a defect."""
        call = self.call
        if isinstance(error, OSError) and error.errno in _NO_DESCRIPTOR:
            error = OutOfDescriptors()
        if isinstance(error, Overloaded):
            error.retry_after = self._returns.give()
        status = status_of(error, call.request_id)
        instruments = self._instruments
        instruments.refusals.add(
            1, _reason_of(error), instruments.told_apart(_tenant_of(error, call))
        )
        if status.code is grpc.StatusCode.INTERNAL:
            log.error(
                "unhandled exception",
                exc_info=error,
                extra={"request_id": call.request_id, "method": call.method},
            )
        elif self._auditor is not None and isinstance(error, MemorydError):
            self._auditor.refuse(call, self._context.peer(), error)
        return status

    def _leave_line(self, auditor: Auditor, code: grpc.StatusCode) -> None:
        call = self.call
        if call.record is not None:
            auditor.end(call, call.record, code, self._reason)
        if isinstance(call.principal, ObservedPrincipal) and call.principal.refusal is not None:
            auditor.would_refuse(call, self._context.peer(), call.principal.refusal)

    async def _abort(self, status: Status) -> None:
        with reaching_caller():
            await self._context.abort(
                status.code,
                status.message,
                ((DETAILS_TRAILER, status.details), (REQUEST_ID_HEADER, self.call.request_id)),
            )


@contextmanager
def reaching_caller() -> Iterator[None]:
    """Take what gRPC raises if the caller has gone for the cancellation that it is about to be."""
    try:
        yield
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None


def _request_id(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """The caller's own, if it is fit to print; else a new one."""
    for key, value in metadata or ():
        if key == REQUEST_ID_HEADER and isinstance(value, str):
            if _REQUEST_ID.fullmatch(value):
                return value
            break
    return f"{random.getrandbits(128):032x}"  # to tell calls apart, not secret


def _timed(call: Call, code: grpc.StatusCode) -> grpc.StatusCode:
    """Tell a deadline from a caller that has gone: the handler is cancelled in both cases."""
    if code is grpc.StatusCode.CANCELLED:
        left = call.time_remaining()
        if left is not None and left < TRANSIT_SECONDS:
            return grpc.StatusCode.DEADLINE_EXCEEDED
    return code


def measured_as(path: str) -> str:
    """The method as OpenTelemetry's conventions have it, by the path that the log has."""
    return OTHER_METHOD if path == UNKNOWN_METHOD else path[1:]


def _tenant_of(error: Exception, call: Call) -> str:
    """Whose call was refused, as far as that is known."""
    caller = error.caller if isinstance(error, MemorydError) else None
    return call.principal.tenant if caller is None else caller.tenant


def _reason_of(error: Exception) -> str:
    return reason_of(error) if isinstance(error, MemorydError) else INTERNAL


def _log(call: Call, code: grpc.StatusCode, seconds: float, trace_id: str) -> None:
    if not log.isEnabledFor(logging.INFO):
        return
    fields = {
        "method": call.method,
        "code": code.name,
        "ms": round(seconds * 1000, 3),
        "request_id": call.request_id,
    }
    if trace_id:
        fields["trace_id"] = trace_id
    principal = call.principal
    if principal.method is not AuthMethod.OFF:
        fields |= {"tenant": principal.tenant, "principal": principal.name}
    elif isinstance(principal, ObservedPrincipal) and principal.refusal is not None:
        fields["would_refuse"] = reason_of(principal.refusal)
    log.info("call", extra=fields)
