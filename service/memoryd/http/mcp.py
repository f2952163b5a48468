"""`/mcp`: the Model Context Protocol over HTTP, each request by itself.

The protocol's SDK reads requests and writes answers. What a request asks for are calls of its
sender, in process, as over any other door.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from memoryd.client import (
    AccessClient,
    MemoryClient,
    MemorydError,
    SessionClient,
)
from memoryd.domain import errors
from memoryd.http.body import Body
from memoryd.http.in_process import InProcessChannel
from memoryd.http.request import Refused, header
from memoryd.http.wires import Failure
from memoryd.integrations.names import escaped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from memoryd.http.request import Receive, Scope, Send
    from memoryd.rpc.pipeline import Handler

PRINCIPAL = "{principal}"
"""What the caller's name stands for in the name of its session."""

BODY_SECONDS = 10.0
"""How long a request may take to arrive."""

_PLACE = "memoryd.place"
"""Where a request has its place."""

_TOO_LARGE = 413


class McpDoor:
    """Serves the path."""

    def __init__(
        self,
        handlers: Mapping[bytes, Handler],
        *,
        session: str,
        origins: Collection[str],
        most: int,
    ) -> None:
        """`session`: the name of a caller's session; `most`: bytes of a request."""
        self._handlers = handlers
        self._session = session
        self._origins = origins
        self._most = most
        self._server: Any = None

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Refused."""
        if scope["method"] != "POST":
            raise Refused(405, "unimplemented", "MCP is spoken by POST here", [(b"allow", b"POST")])
        self._check_origin(scope)
        channel = InProcessChannel(self._handlers, scope)
        try:
            caller = await AccessClient(channel=channel).who_am_i()
        except MemorydError as error:
            raise Failure(error.code, error.message).as_refused() from None
        server = await self._loaded()
        from mcp.server.streamable_http_manager import (  # noqa: PLC0415  loaded by now
            StreamableHTTPSessionManager,
        )

        from memoryd.integrations.mcp_tools import Place  # noqa: PLC0415  likewise

        session_id = self._session.replace(PRINCIPAL, escaped(caller.principal))
        scope[_PLACE] = Place(
            MemoryClient(channel=channel), SessionClient(channel=channel), session_id
        )
        manager = StreamableHTTPSessionManager(
            server, json_response=True, stateless=True, max_request_body_size=self._most
        )
        async with self._body(scope, receive) as body, manager.run():
            await manager.handle_request(scope, _Replayed(body, receive), send)

    def _check_origin(self, scope: Mapping[str, Any]) -> None:
        """Refuse pages of other origins, which the protocol asks for besides CORS."""
        origin = header(scope, b"origin")
        if not origin or "*" in self._origins or origin in self._origins:
            return
        if origin.partition("://")[2] != header(scope, b"host"):
            raise Refused(
                403,
                "permission_denied",
                "pages of this origin may not call; name it in MEMORYD_HTTP_ALLOWED_ORIGINS if"
                " they should",
            )

    async def _loaded(self) -> Any:
        if self._server is None:
            try:
                # In a thread, since it takes a while.
                module = await asyncio.to_thread(import_module, "memoryd.integrations.mcp")
            except ModuleNotFoundError as missing:
                if missing.name is None or missing.name.partition(".")[0] == "memoryd":
                    raise
                raise Refused(
                    501,
                    "unimplemented",
                    f"/mcp needs {missing.name}, which this server is installed without:"
                    " pip install 'memoryd[mcp]', and restart it",
                ) from None
            # What the SDK has to say is of strangers' doing.
            logging.getLogger("mcp").setLevel(logging.ERROR)
            self._server = module.server_of(module.Offer(), _place_of)
        return self._server

    @asynccontextmanager
    async def _body(self, scope: Scope, receive: Receive) -> AsyncIterator[bytes]:
        """Hold room for it, which is taken while it is worked on."""
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(BODY_SECONDS)
        body = Body(scope, receive, lambda: limit.reschedule(loop.time()), self._most)
        try:
            try:
                async with limit:
                    data = await body.all_of_it()
            except errors.MessageTooLarge as error:
                raise Refused(_TOO_LARGE, "resource_exhausted", str(error)) from None
            except TimeoutError:
                raise Refused(
                    408, "deadline_exceeded", f"the request has not come in {BODY_SECONDS:g} s"
                ) from None
            body.stop_watching()  # whoever works on it sees where the caller goes
            yield data
        finally:
            body.close()


class _Replayed:
    """Gives a body that is there, and then what comes of its sender."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Any:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _place_of(context: Any) -> Any:
    return context.request.scope[_PLACE]
