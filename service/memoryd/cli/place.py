"""Which server a command calls, and how it prints the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from memoryd.client import TLS


class Place(NamedTuple):
    """What the flags say that all commands have which call a server."""

    named: str | None
    has_tls: bool
    ca: str | None
    client_cert: str | None
    client_key: str | None
    as_json: bool

    @property
    def target(self) -> str:
        """HOST:PORT, else that of MEMORYD_TARGET or the default. Raises ValueError."""
        from memoryd.client.connection import DEFAULT_TARGET, target_from

        return target_from(self.named) or DEFAULT_TARGET

    @property
    def tls(self) -> TLS | None:
        """None: without. A file means TLS, too. Raises ValueError."""
        from memoryd.client import TLS

        files = (self.ca, self.client_cert, self.client_key)
        return TLS(*files) if self.has_tls or any(file is not None for file in files) else None
