"""`memoryd health`: ask a server on the network."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memoryd.cli.running import configuration, fail

TIMEOUT_SECONDS = 3.0
"""How long the server may take to answer."""

_REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared, not bound
"""Where a server that listens on every address is reached from its own machine."""


def health(*, host: str | None, port: int | None) -> None:
    settings, _ = configuration(host=host, port=port)
    reachable = _REACHABLE.get(settings.host, settings.host)
    address = settings.model_copy(update={"host": reachable}).address(settings.port)
    # Never through a proxy: the server is on this machine or in its network.
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # its types leave the methods out
            answer = check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            fail(f"no answer from {address}: {error.code().name}")
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    print(status)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise SystemExit(1)
