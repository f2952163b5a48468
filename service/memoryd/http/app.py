"""The application: which request goes where.

`POST /package.Service/Method` is a call, in the Connect protocol or in gRPC-Web, and so is a GET of
a method without side effects: https://connectrpc.com/docs/protocol/.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions

from memoryd.domain.errors import MemorydError
from memoryd.http.call import HttpCall, HttpCaller
from memoryd.http.codecs import JSON, PROTO, codec_of
from memoryd.http.frames import GZIP, IDENTITY
from memoryd.http.request import Refused, header
from memoryd.http.wires import (
    ConnectAbsent,
    ConnectGet,
    ConnectStream,
    ConnectUnary,
    Failure,
    GrpcWeb,
    GrpcWebText,
)
from memoryd.rpc.receiving import RECEIVE_MARGIN_BYTES
from memoryd.rpc.status import status_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from google.protobuf.descriptor import MethodDescriptor

    from memoryd.http.mcp import McpDoor
    from memoryd.http.request import Headers, Receive, Scope, Send
    from memoryd.http.wires import Wire
    from memoryd.rpc.call import Caller
    from memoryd.rpc.pipeline import Handler

    Scrape = Callable[..., Awaitable[tuple[bytes, str]]]
    """Given what the scraper accepts and `with_tenants`, the body and its content type."""
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

_PROBES = frozenset({"/livez", "/readyz"})
_DESCRIPTION = "/openapi.json"
_METRICS = "/metrics"
_MCP = "/mcp"
_CONSOLE = frozenset({"sessions", "recall", "tools", "erase", "sign-in", "sign-out", "static"})
"""The first parts of the paths that are the console's, besides `/`."""
_PAGES = _PROBES | {_DESCRIPTION, _METRICS}
_FILE = Path(__file__).with_name("openapi.json")

_CALL = re.compile(rb"/[\w.]+/\w+", re.ASCII)
_CONNECT_STREAM = "application/connect+"
_GRPC_WEB = "application/grpc-web"
_CONNECT_TYPES = "application/json, application/proto"
_STREAM_TYPES = "application/connect+json, application/connect+proto"
_GRPC_WEB_TYPES = f"{_GRPC_WEB}+proto, {_GRPC_WEB}-text"

_CONNECT_TIMEOUT = re.compile(r"[0-9]{1,10}", re.ASCII)
_GRPC_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


_EXPOSED = (
    *("grpc-status", "grpc-message", "grpc-status-details-bin"),
    *("connect-content-encoding", "x-request-id", "trailer-x-request-id"),
)
"""The headers that a page may read."""
_PREFLIGHT_SECONDS = 7200
"""For how long a browser need not ask again."""


class _Form(NamedTuple):
    """What a content type says."""

    kind: type[Wire]
    codec: str
    compressed_by: bytes
    """The header that says what the request is compressed by."""
    takes: bytes
    """The header that says what the caller takes."""


def _form_of(content_type: str) -> _Form:
    if content_type.startswith(_GRPC_WEB):
        kind, _, codec = content_type.partition("+")
        text = kind.endswith("-text")
        # Of the format only protobuf is defined.
        codec = codec or PROTO if codec != JSON else ""
        of_grpc = (b"grpc-encoding", b"grpc-accept-encoding")
        return _Form(GrpcWebText if text else GrpcWeb, codec, *of_grpc)
    if content_type.startswith(_CONNECT_STREAM):
        of_connect = (b"connect-content-encoding", b"connect-accept-encoding")
        return _Form(ConnectStream, content_type.removeprefix(_CONNECT_STREAM), *of_connect)
    codec = content_type.removeprefix("application/")
    return _Form(ConnectUnary, codec, b"content-encoding", b"accept-encoding")


class Application:
    """Serves the methods of the pipeline, and tells whether the service is well."""

    def __init__(
        self,
        handlers: Mapping[bytes, Handler],
        unknown: Handler,
        *,
        problem: Callable[[], str | None],
        scrape: Scrape,
        may_know_tenants: Callable[[Caller], Awaitable[bool]],
        hosts: Collection[str],
        message_bytes: int,
        mcp: Callable[[], McpDoor],
        console: Callable[[], Awaitable[App]] | None,
    ) -> None:
        """`problem`: why the service does not serve, if so; `hosts`: by which it may be named.

        `console` loads what serves pages; None: there are none.
        """
        self._console = console
        self._mcp = mcp
        self._scrape = scrape
        self._may_know_tenants = may_know_tenants
        self._handlers = handlers
        self._unknown = unknown
        self._problem = problem
        self._hosts = frozenset(hosts)
        self._most = message_bytes + RECEIVE_MARGIN_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._serve(scope, receive, send)
        except Refused as refused:
            found = {"code": refused.code, "message": refused.message}
            await _answer(send, refused.status, found, refused.headers)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path in _PAGES and method not in {"GET", "HEAD"}:
            raise Refused(
                405, "unimplemented", f"{path} is read by GET", [(b"allow", b"GET, HEAD")]
            )
        if path in _PROBES:  # by any name: probes use the machine's address
            await self._tell_state(path, send)
            return
        if path == _METRICS:  # likewise: they are scraped by address
            await self._tell_metrics(scope, send)
            return
        self._check_host(scope)
        if path == _DESCRIPTION:
            await _answer_body(send, 200, await asyncio.to_thread(_FILE.read_bytes))
            return
        if path == _MCP:
            await self._mcp().serve(scope, receive, send)
            return
        raw_path = scope["raw_path"]
        # That there is no such method is said to who calls it, not to who looks for a page.
        if raw_path in self._handlers or (method == "POST" and _CALL.fullmatch(raw_path)):
            await self._call(raw_path, scope, receive, send)
            return
        if self._console is not None and _is_of_console(path):
            await (await self._console())(scope, receive, send)
            return
        raise Refused(
            404, "not_found", "there is nothing here; calls go to /memoryd.v1.<Service>/<Method>"
        )

    async def _tell_state(self, path: str, send: Send) -> None:
        problem = self._problem() if path == "/readyz" else None
        if problem is None:
            await _answer(send, 200, {"status": "SERVING"})
        else:
            await _answer(send, 503, {"status": "NOT_SERVING", "reason": problem})

    async def _tell_metrics(self, scope: Scope, send: Send) -> None:
        try:
            with_tenants = await self._may_know_tenants(HttpCaller(scope))
        except MemorydError as error:
            status = status_of(error, "")
            raise Failure(status.code, status.message).as_refused() from None
        body, content_type = await self._scrape(header(scope, b"accept"), with_tenants=with_tenants)
        await _answer_body(send, 200, body, content_type=content_type)

    def _check_host(self, scope: Scope) -> None:
        given = header(scope, b"host")
        if "*" not in self._hosts and not is_allowed(given, self._hosts):
            raise Refused(
                421,
                "permission_denied",
                "the request names another host than this one; name it in"
                " MEMORYD_HTTP_ALLOWED_HOSTS if it is this service's too",
            )

    async def _call(self, path: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._handlers.get(path, self._unknown)
        wire = self._wire(scope, handler.method)
        try:
            _check_compression(wire.compressed_by)
            timeout = timeout_of(scope)
        except Refused as refused:
            await _refuse(send, wire, refused)
            return
        await HttpCall(scope, receive, send, wire, timeout=timeout, most=self._most).serve(handler)

    def _wire(self, scope: Scope, method: MethodDescriptor | None) -> Wire:
        """Of a call; without a method, of one that there is not."""
        is_read = method is not None and _is_read(method)
        if method is not None and is_read and scope["method"] == "GET":
            return self._get(scope, method)
        if scope["method"] != "POST":
            allowed = "GET, POST" if is_read else "POST"
            raise Refused(
                405,
                "unimplemented",
                f"this method is called by {allowed.replace(', ', ' or ')}",
                [(b"allow", allowed.encode())],
            )
        content_type = header(scope, b"content-type").partition(";")[0].strip().lower()
        streams = method is not None and (method.client_streaming or method.server_streaming)
        form = _form_of(content_type)
        is_right = (
            method is None
            or form.kind not in {ConnectUnary, ConnectStream}
            or (form.kind is (ConnectStream if streams else ConnectUnary))
        )
        codec = codec_of(form.codec, method or _NO_METHOD) if is_right else None
        if codec is None:
            types = f"{_STREAM_TYPES if streams else _CONNECT_TYPES}, {_GRPC_WEB_TYPES}"
            raise Refused(
                415,
                "invalid_argument",
                f"the content type of this method is one of {types}",
                [(b"accept-post", types.encode())],
            )
        kind = ConnectAbsent if method is None and form.kind is ConnectUnary else form.kind
        return kind(
            codec,
            content_type,
            compressed_by=header(scope, form.compressed_by),
            takes=header(scope, form.takes),
            most=self._most,
            takes_one=method is None or not method.client_streaming,
        )

    def _get(self, scope: Scope, method: MethodDescriptor) -> Wire:
        given = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        query = {name: values[0] for name, values in given.items()}
        name = query.get("encoding", JSON)
        codec = codec_of(name, method)
        if codec is None or "message" not in query:
            raise Refused(
                400,
                "invalid_argument",
                "a GET needs message=… and encoding=json or proto in its query",
            )
        message = query["message"].encode()
        if query.get("base64") == "1":
            try:
                padded = message + b"=" * (-len(message) % 4)
                message = base64.b64decode(padded, altchars=b"-_", validate=True)
            except binascii.Error:
                raise Refused(
                    400, "invalid_argument", "message is no base64, which base64=1 says it is"
                ) from None
        return ConnectGet(
            message,
            codec,
            f"application/{name}",
            compressed_by=query.get("compression", ""),
            takes=header(scope, b"accept-encoding"),
            most=self._most,
            takes_one=True,
        )


def application(
    handlers: Mapping[bytes, Handler],
    unknown: Handler,
    *,
    problem: Callable[[], str | None],
    scrape: Scrape,
    may_know_tenants: Callable[[Caller], Awaitable[bool]],
    hosts: Collection[str],
    origins: Collection[str],
    message_bytes: int,
    mcp_session: str,
    console: Callable[[], Awaitable[App]] | None,
) -> App:
    """As `Application`, which pages of these origins may call.

    `mcp_session`: the name of the session of who calls by MCP.
    """

    @cache
    def mcp() -> McpDoor:
        from memoryd.http.mcp import McpDoor  # noqa: PLC0415  loads a client, which few need

        return McpDoor(handlers, session=mcp_session, origins=origins, most=message_bytes)

    app = Application(
        handlers,
        unknown,
        problem=problem,
        scrape=scrape,
        may_know_tenants=may_know_tenants,
        hosts=hosts,
        message_bytes=message_bytes,
        mcp=mcp,
        console=console,
    )
    if not origins:
        return app
    from starlette.middleware.cors import CORSMiddleware  # noqa: PLC0415  few need it

    return CORSMiddleware(
        app,
        allow_origins=[*origins],
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=_EXPOSED,
        max_age=_PREFLIGHT_SECONDS,
    )


def _is_of_console(path: str) -> bool:
    """Whether it is a page's, be there such a page or not.

    What a request names need be no path: `OPTIONS *` names all, and proxies are sent addresses.
    """
    return path == "/" or (path.startswith("/") and path.split("/", 2)[1] in _CONSOLE)


def is_allowed(host: str, hosts: Collection[str]) -> bool:
    """Whether a header names one of the hosts, with whatever port."""
    name = host.rpartition(":")[0] if re.search(r":[0-9]*$", host) else host
    name = name.strip("[]").lower().rstrip(".")
    if name in hosts:
        return True
    try:
        return str(ip_address(name)) in hosts
    except ValueError:
        return False


def timeout_of(scope: Scope) -> float | None:
    """How many seconds the caller waits. Raises Refused."""
    milliseconds = header(scope, b"connect-timeout-ms")
    if milliseconds:
        if _CONNECT_TIMEOUT.fullmatch(milliseconds):
            return int(milliseconds) / 1000
        raise Refused(
            400, "invalid_argument", "connect-timeout-ms is a number of at most 10 digits"
        )
    given = header(scope, b"grpc-timeout")
    if not given:
        return None
    found = _GRPC_TIMEOUT.fullmatch(given)
    if found is None:
        raise Refused(400, "invalid_argument", "grpc-timeout is a number and a unit, such as 5S")
    return int(found[1]) * _UNITS[found[2]]


def _is_read(method: MethodDescriptor) -> bool:
    """Whether it is called by GET, too."""
    has_none = method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
    return has_none and not method.server_streaming


def _check_compression(name: str) -> None:
    if name not in {"", IDENTITY, GZIP}:
        raise Refused(501, "unimplemented", "requests are compressed by gzip, or not at all")


async def _refuse(send: Send, wire: Wire, refused: Refused) -> None:
    """Refuse what is a call, in its own form. Raises Refused where that is any request's."""
    if isinstance(wire, ConnectUnary):
        raise refused
    status, headers = wire.head()
    end = wire.end(Failure(grpc.StatusCode[refused.code.upper()], refused.message), ())
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": end})


async def _answer(
    send: Send, status: int, found: Mapping[str, str], headers: Headers | None = None
) -> None:
    await _answer_body(send, status, json.dumps(found).encode(), headers)


async def _answer_body(
    send: Send,
    status: int,
    body: bytes,
    headers: Headers | None = None,
    *,
    content_type: str = "application/json",
) -> None:
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        *(headers or ()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


_NO_METHOD = descriptor_pool.Default().FindMethodByName("grpc.health.v1.Health.Check")
"""Whose messages stand for those of a method that there is not."""
