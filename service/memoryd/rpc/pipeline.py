"""What every call goes through, once: request id, deadline, caller, check, errors, log."""

from __future__ import annotations

import asyncio
import enum
import math
import time
from contextlib import AsyncExitStack, aclosing, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from memoryd.database.fair_places import FairPlaces
from memoryd.domain.audit import Audited
from memoryd.domain.errors import (
    MalformedMessage,
    MemorydError,
    MessageTooLarge,
    StreamIdle,
    StreamStalled,
    UnknownMethod,
)
from memoryd.rpc.access import Anyone
from memoryd.rpc.answer_size import encoded
from memoryd.rpc.call import OFFLOAD_BYTES, VALIDATION_THREADS, Call, offloaded
from memoryd.rpc.limits import ConcurrencyLimiter, RetryDelays
from memoryd.rpc.methods import validated
from memoryd.rpc.open_streams import Late, OpenStreams
from memoryd.rpc.receiving import SLOW_BYTES, RequestReader, places_in
from memoryd.rpc.request_stream import RequestStreams
from memoryd.rpc.serving import UNKNOWN_METHOD, Serving, measured_as, reaching_caller
from memoryd.telemetry.instruments import SILENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
    from contextlib import AbstractContextManager

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

    from memoryd.domain.principals import Scope
    from memoryd.rpc.access import Gate
    from memoryd.rpc.auditing import Auditor
    from memoryd.rpc.call import WireCall
    from memoryd.rpc.limits import Limits
    from memoryd.rpc.methods import Method
    from memoryd.rpc.open_streams import OpenStream
    from memoryd.rpc.request_stream import RequestStream
    from memoryd.telemetry.instruments import Instruments
    from memoryd.telemetry.spans import Tracer

    Admission = Callable[[str], AbstractContextManager[object]]
    Serve = Callable[[WireCall], Coroutine[Any, Any, bytes | None]]

QUIET_SECONDS = 0.05
"""Without a new call, after which a server that stops expects no more."""
REFUSING_SECONDS = 1.0
"""How long it goes on to refuse callers that keep calling."""

HEALTH_CHECKS = 1_000
"""The most checks of health under way, half of them of one client."""
HEALTH_REQUEST_SECONDS = 1.0
"""How long the request of a check may take to arrive: it is tiny."""
REFLECTION_STREAMS = 50
"""The most streams of reflection under way, half of them of one client."""
REFLECTION_IDLE_SECONDS = 60.0
"""How long a stream of reflection may ask nothing before it is ended."""
WAITING_STREAM_BYTES = 256 * 1024 * 1024
"""What the unfinished messages of streams of requests may hold in all. A stream whose next message
is not there at once counts as one of the largest, since gRPC does not tell whether any of it is."""


class Lane(enum.Enum):
    """Whose calls. Each lane has places of its own, so that no load makes the service look dead."""

    SERVICES = enum.auto()
    HEALTH = enum.auto()
    REFLECTION = enum.auto()


@dataclass(frozen=True, slots=True)
class _Places:
    """What a lane has room for, and how its requests are read."""

    calls: ConcurrencyLimiter
    streams: ConcurrencyLimiter
    reader: RequestReader
    stream_reader: RequestReader
    """For streams of requests."""
    request_seconds: float | None = None
    """How long a request may take to arrive; None: as long as the reader gives it."""


class Handler(NamedTuple):
    """What serves a method."""

    serve: Serve
    """Serves a call, reads its requests itself, and returns the encoded answer if there is one."""
    answers_once: bool
    """Whether the method answers with one message; a stream of them it writes itself."""
    method: MethodDescriptor | None = None
    """What it is; None: a method that there is not."""


class CallPipeline:
    """All methods of a server, each wrapped once: a call then costs no set-up of its own.

    It takes the tables of services. Interceptors would cost every call a chain of coroutines.

    `admitted_write` raises Overloaded where a tenant's write would wait for too long. It is held
    while the request is read, since to read and validate that may be a large part of the work.
    """

    def __init__(
        self,
        limits: Limits,
        admitted_write: Admission,
        gate: Gate,
        auditor: Auditor | None = None,
        *,
        instruments: Instruments = SILENT,
        tracer: Tracer | None = None,
    ) -> None:
        """`auditor` writes lines of calls; None: there is no audit. `tracer`: likewise."""
        self._tracer = tracer
        self._instruments = instruments
        self._limits = limits
        self._validating = FairPlaces(VALIDATION_THREADS)
        self._auditor = auditor
        self._gate = gate
        self.open_streams = OpenStreams(gate.check, gate.streams_of)
        self._admitted_write = admitted_write
        self._returns = RetryDelays()
        self._request_streams = RequestStreams()
        reader = RequestReader(
            seconds=limits.request_seconds, places=places_in(SLOW_BYTES, limits.message_bytes)
        )
        waiting = RequestReader(
            seconds=math.inf,  # what has nothing to send for too long is ended by that
            places=places_in(WAITING_STREAM_BYTES, limits.message_bytes),
            ends_longest=True,
        )
        self._calls = ConcurrencyLimiter("calls", limits.calls, limits.calls_per_client)
        self._streams = ConcurrencyLimiter("streams", limits.streams, limits.streams_per_client)
        checks = ConcurrencyLimiter("health checks", HEALTH_CHECKS, HEALTH_CHECKS // 2)
        watches = ConcurrencyLimiter("watches of health", limits.streams, limits.streams_per_client)
        reflection = ConcurrencyLimiter(
            "streams of reflection", REFLECTION_STREAMS, REFLECTION_STREAMS // 2
        )
        questions = RequestReader(seconds=REFLECTION_IDLE_SECONDS, places=REFLECTION_STREAMS)
        self._places = {
            Lane.SERVICES: _Places(self._calls, self._streams, reader, waiting),
            Lane.HEALTH: _Places(checks, watches, reader, waiting, HEALTH_REQUEST_SECONDS),
            Lane.REFLECTION: _Places(reflection, reflection, questions, questions),
        }
        self.handlers: dict[bytes, Handler] = {}
        """By their paths, such as `/memoryd.v1.MemoryService/StoreMemory`."""
        self.unknown = Handler(self._serve_unknown, answers_once=True)
        """Serves a path that is none of these."""

    async def close(self) -> None:
        """Refuse new calls, and return when none has come for a moment, or has for too long.

        Streams of requests take no more of these, and end once those before are answered.
        What is on its way when gRPC is stopped, gRPC cancels: that reads as the caller's doing.
        """
        self._calls.close()
        self._streams.close()
        self._request_streams.close()
        now = time.monotonic()
        end = now + REFUSING_SECONDS
        while now < end:
            last = max(self._calls.last_asked, self._streams.last_asked)
            if now - last >= QUIET_SECONDS:
                return
            await asyncio.sleep(QUIET_SECONDS - (now - last))
            now = time.monotonic()

    def add_service(
        self,
        service: ServiceDescriptor,
        methods: Mapping[str, Method[Any]],
        lane: Lane = Lane.SERVICES,
    ) -> None:
        """Take the table of a service. Raises ValueError where it is not that of its proto."""
        wrong = ", ".join(sorted(methods.keys() ^ set(service.methods_by_name)))
        if wrong:
            raise ValueError(f"the table of {service.full_name} and its proto differ in: {wrong}")
        for name, row in methods.items():
            proto, path = service.methods_by_name[name], f"/{service.full_name}/{name}"
            serving = partial(self._serving, path, row.needs, self._how(row.audited))
            method = _Method(
                path, row, proto, self._places[lane], self._limits, self._validating, serving
            )
            if proto.server_streaming:
                streams = self._request_streams if proto.client_streaming else None
                serve = _streaming(method, self._limits, self.open_streams, streams)
            else:
                serve = _unary(
                    method, self._admitted_write if row.waits_for_commit else nullcontext
                )
            self.handlers[path.encode()] = Handler(serve, not proto.server_streaming, proto)

    def _how(self, row: Audited) -> Audited | None:
        return None if self._auditor is None else self._auditor.decision_for(row)

    def _serving(
        self, path: str, needs: Scope | Anyone, how: Audited | None, context: WireCall
    ) -> Serving:
        gate, returns, auditor = self._gate, self._returns, self._auditor
        measured = self._instruments, self._tracer
        return Serving(path, needs, gate, returns, auditor, how, *measured, context)

    async def _serve_unknown(self, context: WireCall) -> bytes:
        how = self._how(Audited.IN_ALL)
        async with self._serving(UNKNOWN_METHOD, Anyone.KNOWN, how, context) as serving:  # unread
            serving.admitted(weight=1)
            raise UnknownMethod(
                "this service has no such method; ask its reflection for those it has"
            )


class _Method:
    """One method, with what surrounds its handler."""

    def __init__(  # noqa: PLR0917  built in one place, one after the other
        self,
        path: str,
        row: Method[Any],
        proto: MethodDescriptor,
        places: _Places,
        limits: Limits,
        validating: FairPlaces,
        serving: Callable[[WireCall], Serving],
    ) -> None:
        self.row = row
        self._validating = validating
        self.places = places
        self.serving = serving
        """Enters a call."""
        self.path = path
        self._decode = GetMessageClass(proto.input_type).FromString
        self._max_bytes = limits.message_bytes

    async def read(self, context: WireCall, serving: Serving) -> Any:
        """Give the record of the next request.

        Raises NoMessage, MessageTooLarge, MalformedMessage, InvalidRequest, and AbortError where
        the call was refused while its request was awaited.
        """
        places, call = self.places, serving.call
        data = await places.reader.read(
            context, call.client, serving.refuse, seconds=places.request_seconds
        )
        return await self._parsed(call, data)

    def read_all(
        self, context: WireCall, serving: Serving, streams: RequestStreams
    ) -> AbstractContextManager[RequestStream[Any]]:
        """Give the records of a stream's requests, as they come."""
        call, reader = serving.call, self.places.stream_reader
        receive = partial(reader.read, context, call.client)
        return streams.opened(receive, partial(self._parsed, call), serving.status_of)

    async def _parsed(self, call: Call, data: bytes) -> Any:
        if len(data) > self._max_bytes:
            raise MessageTooLarge(len(data), self._max_bytes)
        if len(data) <= OFFLOAD_BYTES:
            return self._record(data, call)
        place = self._validating.place(call.principal.tenant)
        return await offloaded(place, self._record, data, call)

    def _record(self, data: bytes, call: Call) -> Any:
        try:
            request = self._decode(data)
        except DecodeError:
            raise MalformedMessage(f"request of {self.path}") from None
        return validated(self.row, request, call)


def _unary(method: _Method, admitted: Admission) -> Serve:
    handle, places, weight = method.row.handle, method.places.calls, method.row.weight
    holds = method.row.holds

    async def answer(context: WireCall, serving: Serving, call: Call) -> bytes:
        with admitted(call.principal.tenant):
            record = await method.read(context, serving)
        if call.record is not None:
            await serving.accepted()
        return encoded(await handle(record, call))

    async def serve(context: WireCall) -> bytes:
        async with method.serving(context) as serving:
            call = serving.admitted(weight)
            places.take(call.client)
            try:
                if holds is None:
                    return await answer(context, serving, call)
                async with holds(call):
                    return await answer(context, serving, call)
            finally:
                places.give_back(call.client)

    return serve


def _streaming(
    method: _Method, limits: Limits, open_streams: OpenStreams, streams: RequestStreams | None
) -> Serve:
    """`streams` is for a method that takes a stream of requests."""
    handle, places, needs = method.row.handle, method.places.streams, method.row.needs
    name = measured_as(method.path)

    async def serve(context: WireCall) -> None:
        async with method.serving(context) as serving:
            call = serving.admitted(method.row.weight)
            async with AsyncExitStack() as held:
                places.take(call.client)
                held.callback(places.give_back, call.client)
                stream = held.enter_context(open_streams.opened(call.principal, needs, name))
                if method.row.holds is not None:
                    await held.enter_async_context(method.row.holds(call))
                record: Any = (
                    await method.read(context, serving)
                    if streams is None
                    else held.enter_context(method.read_all(context, serving, streams))
                )
                if call.record is not None:
                    await serving.accepted()
                async with aclosing(handle(record, call)) as answers:
                    await _send(answers, record, context, limits, stream)

    return serve


async def _send(
    answers: AsyncIterator[Any],
    request: Any,
    context: WireCall,
    limits: Limits,
    stream: OpenStream,
) -> None:
    """Write each answer as the caller reads; nothing gathers for one that does not."""
    # At once: it tells the caller that the stream is there, and a first answer that is given up
    # while it waits would leave gRPC in doubt whether this was sent.
    with reaching_caller():
        await context.send_initial_metadata(())
    last_revision = getattr(request, "start_revision", None)
    try:
        while True:
            try:
                answer = await stream.within(limits.stream_idle_seconds, anext(answers))
            except StopAsyncIteration:
                return
            except Late:
                raise StreamIdle(last_revision) from None
            if last_revision is not None:
                # Also if it is given up below: gRPC has it by then, and tells no end before it.
                last_revision = answer.revision
            try:
                with reaching_caller():
                    await stream.within(limits.stream_stall_seconds, context.write(encoded(answer)))
            except Late:
                raise StreamStalled(last_revision) from None
    except MemorydError as error:
        if error is stream.refusal:
            error.last_revision = last_revision
        raise
