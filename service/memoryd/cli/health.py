"""`memoryd health`: ask a server on the network."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memoryd.cli.running import configuration, fail
from memoryd.settings.service import PROBE_HOST

if TYPE_CHECKING:
    from memoryd.settings.service import Settings

TIMEOUT_SECONDS = 3.0
"""How long the server may take to answer."""

_REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared, not bound
"""Where a server that listens on every address is reached from its own machine."""

# Never through a proxy: the server is on this machine or in its network.
_OPTIONS = (("grpc.enable_http_proxy", 0),)


def health(*, host: str | None, port: int | None) -> None:
    settings, _ = configuration(host=host, port=port)
    hint = ""
    if settings.health_port and host is None and port is None:
        address = f"{PROBE_HOST}:{settings.health_port}"
        channel = grpc.insecure_channel(address, _OPTIONS)
    else:
        reachable = _REACHABLE.get(settings.host, settings.host)
        address = settings.model_copy(update={"host": reachable}).address(settings.port)
        if settings.tls_cert:
            channel = _channel_over_tls(settings, address)
            hint = (
                "; the server may have another certificate than"
                f" {settings.variable('tls_cert')} names now, which"
                f" {settings.variable('health_port')} makes no difference to"
            )
        else:
            channel = grpc.insecure_channel(address, _OPTIONS)
    with channel:
        try:
            check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # its types leave the methods out
            answer = check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            fail(f"no answer from {address}: {error.code().name}{hint}")
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    print(status)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise SystemExit(1)


def _channel_over_tls(settings: Settings, address: str) -> grpc.Channel:
    """Trust the server's own certificate, and those that this machine trusts."""
    if settings.tls_client_ca:
        fail(
            f"with {settings.variable('tls_client_ca')} the server wants a certificate of every"
            f" client, and this command has none: set {settings.variable('health_port')} for the"
            " server and here"
        )
    from memoryd.certificates import name_in

    try:
        chain = Path(settings.tls_cert).read_bytes()
        name = name_in(chain)
    except (OSError, ValueError):
        variable = settings.variable("tls_cert")
        fail(f"{variable}: {settings.tls_cert} is not a readable certificate: memoryd config check")
    roots = ssl.get_default_verify_paths().cafile
    trusted = chain if roots is None else chain + b"\n" + Path(roots).read_bytes()
    # By an address of this machine, which the certificate need not name.
    named = (("grpc.ssl_target_name_override", name),) if name else ()
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(trusted), (*_OPTIONS, *named))
