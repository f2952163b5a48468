"""The console: who may see which page, and what every answer says besides."""

from __future__ import annotations

import asyncio
import mimetypes
import re
import secrets
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

import grpc
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from memoryd.client import AccessClient, MemorydError
from memoryd.console.cookies import COOKIE, LIFE, Cookies
from memoryd.console.pages import NAVIGATION, ROUTES
from memoryd.console.rendering import STATIC, Renderer
from memoryd.console.visit import Visit
from memoryd.domain.errors import MessageTooLarge
from memoryd.http.body import Body
from memoryd.http.in_process import InProcessChannel
from memoryd.http.request import header
from memoryd.http.wires import HTTP_STATUS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from datetime import datetime

    from memoryd.console.cookies import SignedIn
    from memoryd.console.once import OnceLink
    from memoryd.console.routes import Route
    from memoryd.http.request import Receive, Scope, Send
    from memoryd.rpc.pipeline import Handler

FORM_BYTES = 1024 * 1024
"""The largest form: a memory's text and metadata, with every byte escaped."""

FORM_FIELDS = 500
FORM_SECONDS = 10.0
"""How long a form may take to arrive."""

_SIGN_IN, _SIGN_OUT, _STATIC = "/sign-in", "/sign-out", "/static/"
_TOKEN_HEADER, _TOKEN_FIELD = b"x-csrf-token", "csrf_token"

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    # Not no-referrer, with which browsers leave out from where a form is posted.
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}

_PASSED_ON = frozenset({b"traceparent", b"tracestate", b"user-agent"})
"""The headers of a request that its calls have too."""

_LOCAL = re.compile(r"/(?![/\\])[^\\\x00-\x1f]*")
"""A path of this server's."""


class Console:
    """Serves the pages."""

    def __init__(
        self,
        handlers: Mapping[bytes, Handler],
        *,
        secret: str,
        once: OnceLink | None,
        clock: Callable[[], datetime],
        is_read_only: bool,
        half_life_days: float,
        grpc_port: int,
    ) -> None:
        """`once`: what signs in where no credential is asked for; None: credentials do."""
        self._handlers = handlers
        self._cookies = Cookies(secret, clock)
        self._once = once
        self._renderer = Renderer(clock)
        self._is_read_only = is_read_only
        self._clock = clock
        self._half_life_days = half_life_days
        self._grpc_port = grpc_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request for a page."""
        request = Request(scope)
        try:
            response = await self._response(request, receive)
        except HTTPException as error:
            response = self._plain_page("problem.html", error.status_code, message=error.detail)
            response.headers.update(error.headers or {})
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)

    async def _response(self, request: Request, receive: Receive) -> Response:
        path = request.url.path
        if path.startswith(_STATIC):
            _check_method(request, {"GET", "HEAD"})
            return _static(path.removeprefix(_STATIC))
        if request.method == "POST":
            _check_origin(request)
            async with _form(request, receive) as form:
                return await self._posted(request, form)
        signed_in = self._signed_in(request)
        if path == _SIGN_IN:
            _check_method(request, {"GET", "HEAD", "POST"})
            return self._sign_in_page(request)
        if path == _SIGN_OUT:
            _check_method(request, {"POST"})
        route, parts = _route(request)
        if signed_in is None:
            return _to_sign_in(request)
        return await self._visited(request, route, parts, {}, signed_in)

    async def _posted(self, request: Request, form: Mapping[str, list[str]]) -> Response:
        path = request.url.path
        if path == _SIGN_IN:
            return await self._sign_in(request, form)
        signed_in = self._signed_in(request)
        if signed_in is None:
            return _to_sign_in(request)
        shown = header(request.scope, _TOKEN_HEADER) or form.get(_TOKEN_FIELD, [""])[0]
        if not secrets.compare_digest(shown.encode(), signed_in.token.encode()):
            raise HTTPException(
                HTTPStatus.FORBIDDEN,
                "The form does not come from a page of this session: go back, load the page again"
                " and repeat.",
            )
        if path == _SIGN_OUT:
            return _signed_out(request, RedirectResponse(_SIGN_IN, HTTPStatus.SEE_OTHER))
        route, parts = _route(request)
        if route.changes and self._is_read_only:
            raise HTTPException(
                HTTPStatus.FORBIDDEN, "This console only reads: MEMORYD_CONSOLE is read-only."
            )
        return await self._visited(request, route, parts, form, signed_in)

    async def _visited(
        self,
        request: Request,
        route: Route,
        parts: Mapping[str, str],
        form: Mapping[str, list[str]],
        signed_in: SignedIn,
    ) -> Response:
        channel = self._channel(request, signed_in.key)
        try:
            who = await AccessClient(channel=channel, timeout=None).who_am_i()
        except MemorydError as error:
            if error.code is grpc.StatusCode.UNAUTHENTICATED:
                return _signed_out(request, _to_sign_in(request))
            raise HTTPException(HTTP_STATUS[error.code], error.message) from None
        visit = Visit(
            request,
            parts,
            form,
            who=who,
            signed_in=signed_in,
            channel=channel,
            renderer=self._renderer,
            is_read_only=self._is_read_only,
            navigation=NAVIGATION,
            now=self._clock(),
            half_life_days=self._half_life_days,
            grpc_port=self._grpc_port,
        )
        try:
            return await route.page(visit)
        except MemorydError as error:
            if error.code is grpc.StatusCode.UNAUTHENTICATED:
                return _signed_out(request, _to_sign_in(request))
            return visit.refused(error)

    def _signed_in(self, request: Request) -> SignedIn | None:
        return self._cookies.read(request.cookies.get(COOKIE, ""))

    def _channel(self, request: Request, key: str) -> InProcessChannel:
        """One whose calls show the credential of who has signed in, and not the cookie."""
        headers = [each for each in request.scope["headers"] if each[0] in _PASSED_ON]
        if key:
            headers.append((b"authorization", f"Bearer {key}".encode("latin-1")))
        return InProcessChannel(self._handlers, {**request.scope, "headers": headers})

    def _sign_in_page(
        self,
        request: Request,
        *,
        status: int = 200,
        message: str = "",
        after: str = "",
        once: str = "",
    ) -> Response:
        once = once or request.query_params.get("once", "")
        return self._plain_page(
            "sign_in.html",
            status,
            message=message,
            asks_for_key=self._once is None,
            once=once if self._once is not None and self._once.is_right(once) else "",
            is_spent=bool(once),
            after=after or request.query_params.get("after", "/"),
        )

    async def _sign_in(self, request: Request, form: Mapping[str, list[str]]) -> Response:
        key = form.get("key", [""])[0].strip()
        after = form.get("after", ["/"])[0]
        once = form.get("once", [""])[0]
        if self._once is not None:
            key = ""
            if not self._once.is_right(once):
                return self._spent(request)
        elif not (key.isascii() and key.isprintable() and key):
            return self._sign_in_page(
                request, status=HTTPStatus.BAD_REQUEST, message="Give an API key.", after=after
            )
        try:
            await AccessClient(channel=self._channel(request, key), timeout=None).who_am_i()
        except MemorydError as error:
            status = HTTP_STATUS[error.code]
            return self._sign_in_page(
                request, status=status, message=error.message, after=after, once=once
            )
        if self._once is not None and not self._once.use(once):  # last, so that a retry has it
            return self._spent(request)
        response = RedirectResponse(after if _LOCAL.fullmatch(after) else "/", HTTPStatus.SEE_OTHER)
        response.set_cookie(
            COOKIE,
            self._cookies.sealed(key),
            max_age=int(LIFE.total_seconds()),
            secure=_is_encrypted(request),
            httponly=True,
            samesite="strict",
        )
        return response

    def _spent(self, request: Request) -> Response:
        return self._sign_in_page(
            request, status=HTTPStatus.FORBIDDEN, message="This link has been used."
        )

    def _plain_page(self, template: str, status: int, **values: Any) -> Response:
        """A page for who need not be signed in."""
        return HTMLResponse(self._renderer.page(template, values), status)


def _route(request: Request) -> tuple[Route, dict[str, str]]:
    """Raises HTTPException where there is no such page."""
    allowed = set()
    for route in ROUTES:
        parts = route.parts_of(request.url.path)
        if parts is None:
            continue
        if route.method == ("GET" if request.method == "HEAD" else request.method):
            return route, parts
        allowed.add(route.method)
    if allowed:
        _check_method(request, allowed)
    raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such page.")


def _check_method(request: Request, allowed: set[str]) -> None:
    if request.method not in allowed:
        names = ", ".join(sorted(allowed))
        raise HTTPException(
            HTTPStatus.METHOD_NOT_ALLOWED, f"This page is asked for by {names}.", {"allow": names}
        )


def _check_origin(request: Request) -> None:
    """Refuse what pages of others post. Browsers say from where, and pages cannot change that."""
    origin = header(request.scope, b"origin")
    if urlsplit(origin).netloc != header(request.scope, b"host") or not origin:
        raise HTTPException(
            HTTPStatus.FORBIDDEN, "This was posted from another site than this console."
        )


def _is_encrypted(request: Request) -> bool:
    """Whether the browser speaks TLS, if need be with a proxy."""
    origin = header(request.scope, b"origin")
    return request.url.scheme == "https" or origin.startswith("https://")


@asynccontextmanager
async def _form(request: Request, receive: Receive) -> AsyncIterator[Mapping[str, list[str]]]:
    """Hold room for it, which is taken while it is worked on."""
    kind = header(request.scope, b"content-type").partition(";")[0].strip().lower()
    if kind not in {"", "application/x-www-form-urlencoded"}:
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Forms are posted as application/x-www-form-urlencoded.",
        )
    loop = asyncio.get_running_loop()
    limit = asyncio.timeout(FORM_SECONDS)
    body = Body(request.scope, receive, lambda: limit.reschedule(loop.time()), FORM_BYTES)
    try:
        yield await _read(body, limit)
    finally:
        body.close()


async def _read(body: Body, limit: asyncio.Timeout) -> Mapping[str, list[str]]:
    try:
        async with limit:
            data = await body.all_of_it()
        body.stop_watching()
        return parse_qs(data.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS)
    except MessageTooLarge as error:
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from None
    except TimeoutError:
        raise HTTPException(
            HTTPStatus.REQUEST_TIMEOUT, f"The form has not come in {FORM_SECONDS:g} s."
        ) from None
    except ValueError:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The form cannot be read.") from None


def _static(name: str) -> Response:
    file = STATIC / name
    if file.suffix not in {".css", ".js", ".svg"} or not file.resolve().is_relative_to(STATIC):
        raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such file.")
    try:
        content = file.read_bytes()
    except OSError:
        raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such file.") from None
    # Its address changes with it.
    headers = {"cache-control": "public, max-age=31536000, immutable"}
    return Response(content, media_type=mimetypes.types_map[file.suffix], headers=headers)


def _to_sign_in(request: Request) -> Response:
    if header(request.scope, b"hx-request"):
        return Response(status_code=HTTPStatus.OK, headers={"hx-redirect": _SIGN_IN})
    after = request.url.path if request.method != "POST" else "/"
    return RedirectResponse(f"{_SIGN_IN}?after={quote(after)}", HTTPStatus.SEE_OTHER)


def _signed_out(request: Request, response: Response) -> Response:
    response.delete_cookie(COOKIE, secure=_is_encrypted(request), httponly=True, samesite="strict")
    return response
