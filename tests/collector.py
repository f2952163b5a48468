"""A collector of traces, as servers reach it: OTLP over gRPC."""

from __future__ import annotations

import asyncio
import gzip
import threading
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


def plain(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


@dataclass
class Received:
    """A span."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    begun: int
    ended: int
    is_error: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]
    events: int


@dataclass
class Collector(TraceServiceServicer):
    """Keeps the spans that it is sent."""

    address: str = ""
    spans: list[Received] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    """Each export as it came."""

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  gRPC names it
        del context
        self.raw.append(request.SerializeToString())
        for of_resource in request.resource_spans:
            resource = {one.key: plain(one.value) for one in of_resource.resource.attributes}
            for of_scope in of_resource.scope_spans:
                self.spans += [_received(span, resource) for span in of_scope.spans]
        return pb.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Received]:
        return [span for span in self.spans if span.name == name]

    def parts(self, whole: Received) -> list[Received]:
        """The spans right below one, in their order."""
        found = [span for span in self.spans if span.parent_id == whole.span_id]
        return sorted(found, key=lambda span: span.begun)

    async def until(self, count: int) -> None:
        """Wait until so many have come."""
        async with asyncio.timeout(60):
            while len(self.spans) < count:  # noqa: ASYNC110  a thread brings them
                await asyncio.sleep(0.02)


def _received(span: Any, resource: dict[str, Any]) -> Received:
    return Received(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == span.status.STATUS_CODE_ERROR,
        {one.key: plain(one.value) for one in span.attributes},
        resource,
        len(span.events),
    )


def start_http() -> tuple[Collector, ThreadingHTTPServer]:
    """Start one that takes OTLP over HTTP."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers["content-encoding"] == "gzip":
                body = gzip.decompress(body)
            collector.Export(pb.ExportTraceServiceRequest.FromString(body), None)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: what it gets is kept."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.address = f"127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return collector, server


def start() -> tuple[Collector, grpc.Server]:
    """Start one on any free port."""
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    collector.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    return collector, server
