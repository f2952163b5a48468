"""A request for a page, by somebody who is signed in."""

from __future__ import annotations

from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import grpc.aio
from starlette.responses import HTMLResponse, RedirectResponse, Response

from memoryd.client import (
    AccessClient,
    ConversationClient,
    DocumentClient,
    MemoryClient,
    SessionClient,
    ToolConfigClient,
)
from memoryd.client.errors import error_from
from memoryd.http.wires import HTTP_STATUS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from starlette.requests import Request

    from memoryd.client import MemorydError
    from memoryd.client.answers import WhoAmIResponse
    from memoryd.console.cookies import SignedIn
    from memoryd.console.rendering import Renderer
    from memoryd.http.in_process import InProcessChannel

_CHANGING = (":write", ":erase")
_NO_SESSION = frozenset({"SESSION_NOT_FOUND", "SESSION_NOT_ALLOWED"})


class Visit:
    """What a page knows: who asks for what, and clients that call in their name."""

    def __init__(
        self,
        request: Request,
        parts: Mapping[str, str],
        form: Mapping[str, list[str]],
        *,
        who: WhoAmIResponse,
        signed_in: SignedIn,
        channel: InProcessChannel,
        renderer: Renderer,
        is_read_only: bool,
        navigation: Sequence[tuple[str, str]],
        now: datetime,
        half_life_days: float,
        grpc_port: int,
    ) -> None:
        """`parts`: of the path, by name; `form`: what was posted; `navigation`: names and paths.

        `half_life_days`: of importance; `grpc_port`: where the same is served over gRPC.
        """
        self.request = request
        self.parts = parts
        self.who = who
        self.channel = channel
        self.is_read_only = is_read_only
        self.now = now
        self.half_life_days = half_life_days
        self.grpc_port = grpc_port
        self._form = form
        self._signed_in = signed_in
        self._renderer = renderer
        self._navigation = navigation

    # Clients time nothing out: the server bounds what a call in process may take.

    @cached_property
    def memories(self) -> MemoryClient:
        return MemoryClient(channel=self.channel, timeout=None)

    @cached_property
    def sessions(self) -> SessionClient:
        return SessionClient(channel=self.channel, timeout=None)

    @cached_property
    def documents(self) -> DocumentClient:
        return DocumentClient(channel=self.channel, timeout=None)

    @cached_property
    def conversations(self) -> ConversationClient:
        return ConversationClient(channel=self.channel, timeout=None)

    @cached_property
    def tools(self) -> ToolConfigClient:
        return ToolConfigClient(channel=self.channel, timeout=None)

    @cached_property
    def access(self) -> AccessClient:
        return AccessClient(channel=self.channel, timeout=None)

    async def answer(self, method: Any, request: Any) -> Any:
        """What a method of a stub answers, for pages of a list, which clients turn by themselves.

        Raises MemorydError.
        """
        try:
            return await method(request)
        except grpc.aio.AioRpcError as error:
            raise error_from(error) from None

    def may(self, scope: str) -> bool:
        """Whether to show what needs a scope, such as `memories:write`."""
        if self.is_read_only and scope.endswith(_CHANGING):
            return False
        return scope in self.who.scopes

    def asked(self, name: str, default: str = "") -> str:
        """A value of the query."""
        return self.request.query_params.get(name, default)

    def given(self, name: str, default: str = "") -> str:
        """A value of the form that was posted."""
        return self._form.get(name, [default])[0]

    def all_given(self, name: str) -> list[str]:
        """All values of a name in the form that was posted."""
        return self._form.get(name, [])

    def page(
        self,
        template: str,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **values: Any,
    ) -> Response:
        """A whole page; with htmx, which takes from it what it shows, too."""
        text = self._renderer.page(template, self._common | values)
        return HTMLResponse(text, status, headers=headers)

    def status_of(self, error: MemorydError) -> int:
        """The status of a page that shows an error in its place."""
        return HTTPStatus.NOT_FOUND if error.reason in _NO_SESSION else HTTP_STATUS[error.code]

    def message_of(self, error: MemorydError) -> str:
        """What a page says of an error."""
        if error.reason in _NO_SESSION:  # the same for one that there is
            return "There is no such session, or you may not see it."
        return error.message

    def refused(self, error: MemorydError) -> Response:
        """What the service says instead of a page."""
        # Where htmx has asked for a part, all of the page gives way to this.
        whole = {"hx-retarget": "main", "hx-reselect": "main", "hx-reswap": "outerHTML"}
        status = self.status_of(error)
        return self.page(
            "refused.html",
            status=status,
            headers=whole,
            is_absent=status == HTTPStatus.NOT_FOUND,
            message=self.message_of(error),
            error=error,
        )

    def see(self, path: str) -> Response:
        """Go and look there, as after each change."""
        return RedirectResponse(path, HTTPStatus.SEE_OTHER)

    @property
    def _common(self) -> dict[str, Any]:
        return {
            "visit": self,
            "who": self.who,
            "may": self.may,
            "token": self._signed_in.token,
            "navigation": self._navigation,
            "path": self.request.url.path,
            "error": None,
        }
