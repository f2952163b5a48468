"""Calls as spans of OpenTelemetry. Loads its libraries: see `tracing.py`."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

from memoryd.telemetry import spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Span

    from memoryd.telemetry.spans import Attributes

GRPC, HTTP = "grpc", "http/protobuf"
"""Over what spans are sent."""

_FAULTS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Statuses that are errors of the server, by OpenTelemetry's conventions for gRPC."""

_NAME = "memoryd"

_log = logging.getLogger(__name__)


def exporter_of(environ: Mapping[str, str], *, on_console: bool) -> SpanExporter:
    """Make what prints spans, or sends them as variables say. Raises ValueError, ImportError."""
    if on_console:
        # Beside the log, as a line: of workers nobody reads the standard output.
        return ConsoleSpanExporter(
            out=sys.stderr, formatter=lambda span: f"{span.to_json(indent=None)}\n"
        )
    protocol = (
        environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or GRPC
    )
    if protocol == GRPC:
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter  # noqa: PLC0415  one of two

        return trace_exporter.OTLPSpanExporter()
    if protocol == HTTP:
        from opentelemetry.exporter.otlp.proto.http import (  # noqa: PLC0415  likewise
            trace_exporter as over_http,
        )

        return over_http.OTLPSpanExporter()
    raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL: {GRPC} or {HTTP}, not {protocol!r}")


def tracing_with(environ: Mapping[str, str], exporter: SpanExporter) -> Tracing:
    """Make what samples calls and hands their spans on, as the variables say."""
    about = {SERVICE_VERSION: version(_NAME)}
    named = environ.get("OTEL_SERVICE_NAME") or f"{SERVICE_NAME}=" in environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    if not named:
        about[SERVICE_NAME] = _NAME
    ids = TraceIds()
    provider = TracerProvider(
        resource=Resource.create(about), id_generator=ids, shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(Noting(exporter)))
    return Tracing(provider, ids)


class Noting(SpanExporter):
    """Sends spans by another exporter, and notes for the operator when that fails, and its end.

    The library's own records name the address, which may hold a password.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._fails = False
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        fails = result is not SpanExportResult.SUCCESS
        if fails != self._fails:
            self._fails = fails
            if fails:
                _log.warning(
                    "traces are lost: the collector that OTEL_EXPORTER_OTLP_ENDPOINT names does"
                    " not take them"
                )
            else:
                _log.warning("traces are sent again")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class TraceIds(RandomIdGenerator):
    """Random ids, the next of which can be known before there is a span."""

    def __init__(self) -> None:
        self._next: int | None = None

    def next_trace_id(self) -> int:
        """The id of the next trace. On the event loop alone, which begins all traces."""
        if self._next is None:
            self._next = super().generate_trace_id()
        return self._next

    def generate_trace_id(self) -> int:
        found, self._next = self.next_trace_id(), None
        return found

    def drop(self) -> None:
        """Make no trace of the next id."""
        self._next = None


class Tracing:
    """Traces calls. Spans are sent by a thread of the library's."""

    def __init__(self, provider: TracerProvider, ids: TraceIds) -> None:
        self._ids = ids
        self._sampler = provider.sampler
        self._provider = provider
        self._tracer = provider.get_tracer(_NAME, version(_NAME))
        self._propagator = get_global_textmap()
        self._fields = frozenset(self._propagator.fields)
        self._alone = Context()

    def begin(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> _TracedCall | None:
        context, fields = self._alone, self._fields
        carried = {key: value for key, value in metadata if key in fields}
        if carried:
            context = self._propagator.extract(carried, context)
        elif not self._is_sampled(method):
            return None
        span = self._tracer.start_span(
            method,
            context=context,
            kind=SpanKind.SERVER,
            attributes={"rpc.system.name": "grpc", "rpc.method": method},
        )
        return _TracedCall(self, span) if span.is_recording() else None

    def _is_sampled(self, method: str) -> bool:
        """Ask the sampler of a new trace, for a third of what a span costs that is not."""
        ids = self._ids
        trace_id = ids.next_trace_id()
        if self._sampler.should_sample(self._alone, trace_id, method).decision is not Decision.DROP:
            return True
        ids.drop()
        return False

    def started(
        self, name: str, parent: Span, attributes: Attributes, *, is_database: bool, at: int
    ) -> Span:
        return self._tracer.start_span(
            name,
            context=set_span_in_context(parent, self._alone),
            kind=SpanKind.CLIENT if is_database else SpanKind.INTERNAL,
            attributes=attributes,
            start_time=at,
        )

    async def close(self, seconds: float) -> None:
        """Send what is left, for so long at most."""
        sent, loop = asyncio.Event(), asyncio.get_running_loop()

        def shut_down() -> None:
            self._provider.force_flush(int(seconds * 1000))
            self._provider.shutdown()
            with suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(sent.set)

        # No thread of a pool: the process would wait for that in the end.
        threading.Thread(target=shut_down, name="flush traces", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await sent.wait()


class _Part:
    def __init__(self, tracing: Tracing, span: Span) -> None:
        self._tracing = tracing
        self._span = span

    @contextmanager
    def part(
        self, name: str, attributes: Attributes, *, is_database: bool = False
    ) -> Iterator[None]:
        span = self._tracing.started(
            name, self._span, attributes, is_database=is_database, at=spans.now()
        )
        spans.enter(_Part(self._tracing, span))
        try:
            yield
        except BaseException as error:
            # Not its message, which may quote a request.
            _fail(span, type(error).__name__)
            raise
        finally:
            spans.enter(self)
            span.end()

    def note(
        self,
        name: str,
        attributes: Attributes,
        *,
        begun: int,
        ended: int,
        is_database: bool = False,
    ) -> None:
        span = self._tracing.started(
            name, self._span, attributes, is_database=is_database, at=begun
        )
        span.end(ended)


class _TracedCall(_Part):
    @property
    def trace_id(self) -> str:
        return f"{self._span.get_span_context().trace_id:032x}"

    def end(self, code: str, reason: str) -> None:
        span = self._span
        span.set_attribute("rpc.response.status_code", code)
        if code in _FAULTS:
            _fail(span, code)
        if reason:
            span.set_attribute("memoryd.reason", reason)
        span.end()


def _fail(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)
