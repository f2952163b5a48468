"""Whether a server may be reached by strangers as it is set: refused unless it is meant."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memoryd.domain.principals import AuthMode

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Exposure:
    """What decides on it."""

    host: str
    auth: AuthMode
    has_tls: bool
    allow_unauthenticated: bool
    allow_plaintext: bool
    is_production: bool


async def check_exposure(exposure: Exposure, variable: Callable[[str], str]) -> None:
    """Raise ValueError, with the remedies, where more is open than is said to be meant.

    `variable` gives the name of a setting's variable.
    """
    auth, host = variable("auth"), variable("host")
    is_off = exposure.auth is AuthMode.OFF
    if is_off and exposure.is_production:
        environment = variable("environment")
        raise ValueError(
            f"{environment} is production and {auth} is off, so that every caller can read and"
            f" change everything; set {auth}=required, or {environment}=development"
        )
    if await _is_local(exposure.host):
        return
    if is_off and not exposure.allow_unauthenticated:
        raise ValueError(
            f"{host} lets callers on other machines in and {auth} is off, so that each of them can"
            f" read and change everything; set {auth}=required, or"
            f" {variable('allow_unauthenticated')}=true if that is meant"
        )
    if not exposure.has_tls and not exposure.allow_plaintext:
        raise ValueError(
            f"{host} lets callers on other machines in without TLS, so that contents and"
            f" credentials can be read on the way; set {variable('tls_cert')} and"
            f" {variable('tls_key')}, or {variable('allow_plaintext')}=true if something in front"
            " of it does TLS"
        )


async def _is_local(host: str) -> bool:
    """Whether every address of a host is of this machine alone.

    So is a host without any: to listen on it fails by itself.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return True
    addresses = (ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found)
    return all(_is_loopback(address) for address in addresses)


def _is_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
