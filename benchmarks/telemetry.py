"""What metrics and traces cost: servers with both, with metrics alone and without take turns.

make bench-telemetry
python benchmarks/telemetry.py [--seconds 2] [--rounds 7] [--work get store] [--callers 64]

Metrics are counted where HTTP is served, so `off` serves no HTTP. `traces` has metrics, and traces
one call in a hundred, which this process receives. In the end it says what HTTP takes of an idle
server's memory, and what a scrape costs.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import urllib.request
from concurrent import futures
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import uvloop
from connections import connected
from harness import KINDS, database, memoryd
from measuring import Target, fill
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from variants import Variant, compare
from work import Requests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AsyncExitStack

VARIABLES = {"MEMORY_MAX_ENTRIES": "1000", "MEMORYD_LOG_LEVEL": "error"}
COLLECTOR = "127.0.0.1:14317"
TRACED = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{COLLECTOR}",
    "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    "OTEL_TRACES_SAMPLER_ARG": "0.01",
}
OFF = Variant("off", {"MEMORYD_HTTP_PORT": "off"})
METRICS = Variant("metrics", {"MEMORYD_HTTP_PORT": ""})
TRACES = Variant("traces", TRACED)
STARTS = 5
SCRAPES = 20


class Receiver(TraceServiceServicer):
    """A collector that keeps nothing."""

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  gRPC names it
        del request, context
        return pb.ExportTraceServiceResponse()


@contextmanager
def receiving() -> Iterator[None]:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    add_TraceServiceServicer_to_server(Receiver(), server)  # type: ignore[no-untyped-call]
    if not server.add_insecure_port(COLLECTOR):
        raise SystemExit(f"another process listens on {COLLECTOR}")
    server.start()
    yield
    server.stop(None).wait()


async def bring_up(stack: AsyncExitStack, kind: str, variant: Variant) -> tuple[Target, Requests]:
    kept_in = stack.enter_context(database(kind))
    server = stack.enter_context(memoryd(kept_in, **VARIABLES, **variant.variables))
    connections = await stack.enter_async_context(connected(server.address))
    target = Target(f"{kind} {variant.name}", server, connections, kept_in)
    return target, Requests(await fill(target, vectors=False))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def measure_memory() -> None:
    """Start servers with and without HTTP by turns; scrape those that have it."""
    print(f"{'an idle server':32}{'':12}{'without':>9}{'HTTP':>9}{'scraped':>9}  a scrape")
    for kind in KINDS:
        sizes: list[tuple[float, float, float]] = []
        costs: list[float] = []
        for _ in range(STARTS):
            with database(kind) as kept_in:
                with memoryd(kept_in, **VARIABLES, MEMORYD_HTTP_PORT="off") as server:
                    without = server.process.rss_bytes() / 1e6
                port = free_port()
                with memoryd(kept_in, **VARIABLES, MEMORYD_HTTP_PORT=str(port)) as server:
                    idle = server.process.rss_bytes() / 1e6
                    scrape(port)
                    before = server.process.cpu_seconds()
                    for _ in range(SCRAPES):
                        scrape(port)
                    costs.append((server.process.cpu_seconds() - before) / SCRAPES * 1e3)
                    sizes.append((without, idle, server.process.rss_bytes() / 1e6))
        medians = "".join(f"{statistics.median(each):9.1f}" for each in zip(*sizes, strict=True))
        print(f"{'MB':32}{kind:12}{medians}  {statistics.median(costs):.1f} ms CPU", flush=True)


def scrape(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        found: bytes = answer.read()
    return found


async def main() -> None:
    with receiving():
        await compare(__doc__, (OFF, METRICS, TRACES), bring_up)
    measure_memory()


if __name__ == "__main__":
    os.environ.pop("OTEL_SDK_DISABLED", None)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
