"""TLS on the server: credentials that follow their files, and the least version of the protocol."""

from __future__ import annotations

import asyncio
import logging
import ssl
import tempfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc

from memoryd.certificates import CertificateFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from memoryd.certificates import Found, TlsFiles, TlsPair
    from memoryd.rpc.call import WireCall
    from memoryd.rpc.pipeline import Handler

LOOK_SECONDS = 1.0
"""Between two looks at the files. A new state counts once two looks have found it, so that files
that are written one after the other are not judged in between."""

_TLS_1_3 = b"TLSv1.3"

_log = logging.getLogger(__name__)


class Tls:
    """The certificate that is served: the latest good state of the files."""

    def __init__(
        self, files: TlsFiles, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """`clock` is the time by which peers judge a certificate."""
        self._files = files
        self._clock = clock
        self._pair: TlsPair | None = None
        self._served: Found | None = None
        self._last: Found | None = None
        self._warned_of: Found | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the files, and follow them from now on. Raises CertificateFault."""
        await asyncio.to_thread(self._load)
        self._watching = asyncio.create_task(self._watch(), name="TLS files")

    async def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials for one listener, which hands each renewed certificate to new connections."""
        handed = self._current()

        def fetch() -> Any:
            """On a thread of gRPC, at each handshake; None: as before."""
            nonlocal handed
            current = self._current()
            if current is handed:
                return None
            handed = current
            return _configuration(current)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(handed),
            fetch,
            require_client_authentication=handed.client_ca is not None,
        )

    def context(self, least: ssl.TLSVersion) -> ssl.SSLContext:
        """The same for a listener of Python's own; `least`: the version that clients must speak."""
        served = self._current()
        context = newest = _context(served, least)

        def choose(connection: ssl.SSLObject, _name: str | None, _of: ssl.SSLContext) -> None:
            """At each handshake."""
            nonlocal served, newest
            current = self._current()
            if current is not served:
                served, newest = current, _context(current, least)
            connection.context = newest

        context.sni_callback = choose
        return context

    def _current(self) -> TlsPair:
        if self._pair is None:
            raise RuntimeError("the files are not loaded")
        return self._pair

    def _load(self) -> None:
        found = self._files.read()
        self._pair = self._files.pair(found, self._clock())
        self._served = self._last = found
        _log.info("serving TLS", extra={"expires": self._pair.expires.isoformat()})

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await asyncio.to_thread(self.look)
            except Exception:  # noqa: BLE001  a watcher that died would miss every renewal
                _log.exception("unhandled exception while looking at the files of TLS")

    def look(self) -> None:
        """Look at the files once, and take up or warn of what has settled. Blocks."""
        found = self._files.read()
        has_settled, self._last = found == self._last, found
        if not has_settled:
            return
        now = self._clock()
        try:
            if found == self._served:
                self._current().require_valid(now, self._files.certificate)
            else:
                self._pair = self._files.pair(found, now)
                self._served = found
                _log.info(
                    "serving a renewed certificate",
                    extra={"expires": self._pair.expires.isoformat()},
                )
            self._warned_of = None
        except CertificateFault as fault:
            if found != self._warned_of:
                self._warned_of = found
                _log.warning("serving the certificate loaded before: %s", fault)


def _configuration(pair: TlsPair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)], pair.client_ca)


def _context(pair: TlsPair, least: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = least
    context.set_alpn_protocols(["http/1.1"])
    with tempfile.NamedTemporaryFile() as file:  # it reads files alone
        file.write(pair.key + b"\n" + pair.chain)
        file.flush()
        context.load_cert_chain(file.name)
    if pair.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=pair.client_ca.decode())
    return context


def over_tls_1_3(handler: Handler) -> Handler:
    """Refuse calls of a handler that come over an earlier version of TLS.

    gRPC takes no least version from Python, but tells the version of a connection.
    """

    async def serve(context: WireCall) -> bytes | None:
        if _TLS_1_3 not in context.auth_context().get("ssl_tls_version", ()):
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                "this server takes calls over TLS 1.3 only: use a client that speaks it",
            )
        return await handler.serve(context)

    return handler._replace(serve=serve)
