"""TLS of a client: whom it trusts, the certificate that it shows, and when those have changed."""

from __future__ import annotations

import logging
import os
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import grpc

from memoryd.client import arguments as args

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_SECONDS = 1.0
"""Between two looks whether the files have changed."""

FilePath: TypeAlias = "str | os.PathLike[str]"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TLS:
    """How a client speaks TLS. Files are PEM; a client takes up those that are renewed."""

    ca: FilePath | None = None
    """The CAs to trust; None: those that gRPC trusts."""
    cert: FilePath | None = None
    """The client's certificate, for a server that asks for one."""
    key: FilePath | None = None
    """The key of the certificate, without a passphrase."""
    server_name: str | None = None
    """The name in the server's certificate, where it is not the target's."""

    def __post_init__(self) -> None:
        for name in ("ca", "cert", "key"):
            _check_path(f"tls.{name}", getattr(self, name))
        if (self.cert is None) != (self.key is None):
            missing = "cert" if self.cert is None else "key"
            raise ValueError(f"tls.{missing}: is missing; give cert and key, or neither")
        if args.optional_text("tls.server_name", self.server_name) == "":
            raise ValueError("tls.server_name: is empty; leave it out")


def _check_path(name: str, path: object) -> None:
    if path is None or isinstance(path, os.PathLike):
        return
    if not isinstance(path, str):
        raise TypeError(
            f"{name}: expected the path of a PEM file, not a value of type {type(path).__name__}"
        )
    if not path or "-----BEGIN" in path:
        raise ValueError(f"{name}: expected the path of a PEM file, not what is in it, nor nothing")


_Contents: TypeAlias = "tuple[bytes | None, bytes | None, bytes | None]"


class TlsFiles:
    """The files of a TLS, and the credentials that gRPC makes of their latest good state."""

    def __init__(self, tls: TLS, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ValueError where a file cannot be used."""
        self._paths = {
            name: Path(path)
            for name in ("ca", "cert", "key")
            if (path := getattr(tls, name)) is not None
        }
        self._clock = clock
        self._looked_at = clock()
        self._state = self._stat()
        self._bad_state: object = None
        self._contents = self._read()

    def credentials(self) -> grpc.ChannelCredentials:
        ca, cert, key = self._contents
        return grpc.ssl_channel_credentials(ca, key, cert)

    def have_changed(self) -> bool:
        """Whether there is another good state than at the last look; looks once a second."""
        now = self._clock()
        if now - self._looked_at < LOOK_SECONDS:
            return False
        self._looked_at = now
        state = self._stat()
        if state == self._state:
            return False
        try:
            contents = self._read()
        except ValueError as error:
            if state != self._bad_state:
                self._bad_state = state
                _log.warning("the client keeps its TLS files as they were: %s", error)
            return False
        self._state, self._bad_state = state, None
        changed, self._contents = contents != self._contents, contents
        return changed

    def _stat(self) -> object:
        """What changes with the files; None for one that is not there."""
        found: list[object] = []
        for path in self._paths.values():
            try:
                status = path.stat()
                found.append((status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))
            except OSError:
                found.append(None)
        return tuple(found)

    def _read(self) -> _Contents:
        before = {name: _content(f"tls.{name}", path) for name, path in self._paths.items()}
        # As gRPC's errors do not say what is wrong with a file.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if "ca" in before:
            self._check("ca", lambda: context.load_verify_locations(self._paths["ca"]))
        if "cert" in before:
            cert, key = self._paths["cert"], self._paths["key"]
            self._check("cert", lambda: context.load_cert_chain(cert, key, password=""))
        after = {name: _content(f"tls.{name}", path) for name, path in self._paths.items()}
        if after != before:
            raise ValueError("tls: the files have changed while they were read; try again")
        return before.get("ca"), before.get("cert"), before.get("key")

    def _check(self, name: str, load: Callable[[], object]) -> None:
        try:
            load()
        except (ssl.SSLError, OSError, ValueError):
            problem = (
                "has no certificates in PEM"
                if name == "ca"
                else f"has no certificate in PEM that fits the key in {self._paths['key']}, which"
                " must have no passphrase"
            )
            raise ValueError(f"tls.{name}: {self._paths[name]} {problem}") from None


def _content(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no path"
        raise ValueError(f"{name}: {path} cannot be read: {reason}") from None
