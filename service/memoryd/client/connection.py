"""How a channel is connected: its target, TLS or plaintext, and the credential of its calls."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import grpc.aio

from memoryd.client import arguments as args
from memoryd.client.credentials import credential_from
from memoryd.client.tls import TLS, TlsFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

    from memoryd.client.credentials import Credential, TokenProvider

TARGET_VARIABLE = "MEMORYD_TARGET"

DEFAULT_TARGET = "127.0.0.1:50051"
"""Of the command line, where neither an option nor the variable names another."""

_URL = re.compile("(https?|grpcs?)://", re.IGNORECASE)
_SERVER_NAME = "grpc.ssl_target_name_override"
_PROXY = "grpc.enable_http_proxy"


def target_from(target: str | None) -> str | None:
    """The target that is given, or else that of the environment.

    Raises ValueError for what gRPC would take for a host's name, and never find.
    """
    if target is None:
        source, target = TARGET_VARIABLE, os.environ.get(TARGET_VARIABLE, "").strip()
        if not target:
            return None
    else:
        source, target = "target", args.text("target", target)
    if not target.strip() or _URL.match(target):
        raise ValueError(
            f"{source}: give HOST:PORT, such as localhost:50051, and no URL; tls=True is for TLS"
        )
    return target


class Security(NamedTuple):
    """What a caller says of TLS and of the credential, by the names of the arguments."""

    credentials: grpc.ChannelCredentials | None
    tls: TLS | bool | None
    api_key: str | None
    token_provider: TokenProvider | None
    allow_plaintext_credentials: bool

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"{type(self).__name__}(…)"

    @property
    def is_given(self) -> bool:
        return self.allow_plaintext_credentials or any(each is not None for each in self[:-1])


def connect(
    target: str,
    options: Mapping[str, str | int],
    security: Security,
    *,
    is_in_metadata: bool = False,
) -> grpc.aio.Channel:
    """Open a channel. `is_in_metadata`: the caller's own metadata has a credential.

    Raises ValueError where arguments contradict each other, and for a credential that would leave
    this machine in plaintext.
    """
    credentials, tls, api_key, token_provider, allowed = security
    if credentials is not None and not isinstance(credentials, grpc.ChannelCredentials):
        raise TypeError(f"credentials: expected ChannelCredentials, not {args.shown(credentials)}")
    if tls is not None and not isinstance(tls, bool | TLS):
        raise TypeError(f"tls: expected True or a TLS, not {args.shown(tls)}")
    args.at_most_one(credentials=credentials, tls=tls)
    may_be_plain = args.flag("allow_plaintext_credentials", allowed)
    credential, source = credential_from(api_key, token_provider, is_in_metadata=is_in_metadata)
    files: TlsFiles | None = None
    open_channel: Callable[[], grpc.aio.Channel]
    if isinstance(tls, TLS):
        files = TlsFiles(tls)
        named = {_SERVER_NAME: tls.server_name} if tls.server_name is not None else {}
        pairs = list((named | dict(options)).items())
        open_channel = partial(_open_with, files, target, pairs)
    elif tls or credentials is not None:
        secure = credentials or grpc.ssl_channel_credentials()
        open_channel = partial(grpc.aio.secure_channel, target, secure, list(options.items()))
    else:
        direct = _require_privacy(target, source, may_be_plain=may_be_plain) if source else {}
        pairs = list((direct | dict(options)).items())
        open_channel = partial(grpc.aio.insecure_channel, target, pairs)
    if credential is None and files is None:
        return open_channel()
    return Connection(open_channel, credential, files)


def _open_with(
    files: TlsFiles, target: str, options: list[tuple[str, str | int]]
) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(target, files.credentials(), options)


def _require_privacy(target: str, source: str, *, may_be_plain: bool) -> dict[str, str | int]:
    """Give the options by which a credential stays on this machine; `source` is what gives it.

    Raises ValueError where it would leave the machine in plaintext.
    """
    if is_local(target):
        return {_PROXY: 0}  # a proxy may be another machine
    if may_be_plain:
        return {}
    raise ValueError(
        f"{source}: would go to another machine in plaintext; give tls=True or a TLS, or"
        " allow_plaintext_credentials=True where something else encrypts the connection"
    )


class ClosedOnExit:
    """An asynchronous context manager that is closed in the end."""

    async def close(self) -> None:
        """Give up what is open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class Connection(ClosedOnExit, grpc.aio.Channel):
    """A channel that shows a credential with each call, and follows its TLS files.

    gRPC's own channels keep the certificate that they begin with. So where the files have changed,
    new calls go over a new channel; those under way end on the old one.
    """

    def __init__(
        self,
        open_channel: Callable[[], grpc.aio.Channel],
        credential: Credential | None,
        files: TlsFiles | None,
    ) -> None:
        self.credential = credential
        self._open_channel = open_channel
        self._files = files
        self._current = open_channel()
        self._is_closed = False
        self._under_way: Counter[grpc.aio.Channel] = Counter()
        """Calls of each channel, also of those from before a renewal."""
        self._closing: set[asyncio.Task[None]] = set()

    def current(self) -> grpc.aio.Channel:
        """The channel for a new call."""
        if self._files is not None and not self._is_closed and self._files.have_changed():
            old, self._current = self._current, self._open_channel()
            self._close_if_idle(old)
        return self._current

    def hold(self, channel: grpc.aio.Channel, call: Any) -> None:
        """Keep a channel open until a call has ended, also where another one becomes current."""
        if self._files is None:
            return
        self._under_way[channel] += 1

        def release(_: object) -> None:
            self._under_way[channel] -= 1
            if channel is not self._current and not self._is_closed:
                self._close_if_idle(channel)

        call.add_done_callback(release)

    def _close_if_idle(self, channel: grpc.aio.Channel) -> None:
        if self._under_way[channel] <= 0:
            del self._under_way[channel]
            task = asyncio.create_task(channel.close(), name="memoryd TLS renewed")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def unary_unary(self, *given: Any, **named: Any) -> Any:
        return _Method(self, "unary_unary", given, named)

    def unary_stream(self, *given: Any, **named: Any) -> Any:
        return _Method(self, "unary_stream", given, named)

    def stream_unary(self, *given: Any, **named: Any) -> Any:
        return _Method(self, "stream_unary", given, named)

    def stream_stream(self, *given: Any, **named: Any) -> Any:
        return _Method(self, "stream_stream", given, named)

    async def close(self, grace: float | None = None) -> None:
        self._is_closed = True
        if self.credential is not None:
            self.credential.close()
        channels = {self._current, *self._under_way}
        await asyncio.gather(*(channel.close(grace) for channel in channels))
        await asyncio.gather(*self._closing)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002  as gRPC has it
        return self._current.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._current.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._current.channel_ready()


class _Method:
    """One method of a service, over whichever channel is current."""

    def __init__(
        self, connection: Connection, kind: str, given: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        self._connection = connection
        self._kind = kind
        self._given = given
        self._named = named
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None

    def __call__(self, *given: Any, metadata: Any = None, **named: Any) -> Any:
        channel = self._connection.current()
        if channel is not self._channel:
            self._channel = channel
            self._call = getattr(channel, self._kind)(*self._given, **self._named)
        credential = self._connection.credential
        pairs = credential.pairs if credential is not None else ()
        call = self._call(*given, metadata=(*(metadata or ()), *pairs), **named)
        self._connection.hold(channel, call)
        return call


_TARGET = re.compile(r"(?:(dns|ipv4|ipv6):)?(?://([^/]*)/)?([^/]+)", re.IGNORECASE)


def is_local(target: str) -> bool:
    """Whether what is sent to a target stays on this machine, as gRPC reads the target."""
    if re.match(r"unix(-abstract)?:", target, re.IGNORECASE):
        return True
    parts = _TARGET.fullmatch(target)
    if parts is None or parts[2]:  # another resolver, or a name server that may answer anything
        return False
    hosts = parts[3].split(",") if parts[1] and parts[1].lower() != "dns" else [parts[3]]
    return all(_is_loopback(_host_of(host)) for host in hosts)


def _host_of(address: str) -> str:
    """The host of HOST:PORT, [HOST]:PORT or HOST."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address if address.count(":") > 1 else address.partition(":")[0]


def _is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
