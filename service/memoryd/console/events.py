"""Events of the server that a page listens to: https://html.spec.whatwg.org/#server-sent-events."""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

import grpc.aio
from markupsafe import escape
from starlette.responses import StreamingResponse

from memoryd.client import OutOfRange
from memoryd.client.errors import error_from

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import Send


_REVISION = re.compile(r"[0-9]{1,18}", re.ASCII)


class EventStream(StreamingResponse):
    """An answer of events, until there are no more or the browser has gone."""

    def __init__(self, events: AsyncGenerator[str, None]) -> None:
        super().__init__(events, media_type="text/event-stream")

    async def stream_response(self, send: Send) -> None:
        # What it holds is given back at once, not when it is found to be garbage.
        async with aclosing(cast("AsyncGenerator[str, None]", self.body_iterator)):
            await super().stream_response(send)


def event(name: str, data: str, *, position: int | None = None) -> str:
    """One event. A browser that connects again says the last `position` that it has seen."""
    lines = [f"event: {name}", *(f"data: {line}" for line in data.splitlines() or [""])]
    if position is not None:
        lines.append(f"id: {position}")
    return "\n".join(lines) + "\n\n"


def revision_seen(request: Request) -> int:
    """After which revision a browser wants events: what it has seen, or its page shows."""
    seen = request.headers.get("last-event-id", "") or request.query_params.get("after", "")
    return int(seen) if _REVISION.fullmatch(seen) else 0


async def changes(
    watch: Callable[[], Any],
    word: Callable[[Any], str | None],
    restart: Callable[[], Awaitable[int | None]],
) -> AsyncGenerator[str, None]:
    """Events of a watch: `changed`, for a page to load again what it shows, and `said`, for people.

    `watch` begins it. `word`: what to say of a change; None: it is nothing to this page. `restart`:
    from where to go on once what changed is no longer kept. The browser connects again where the
    stream ends, so nothing is watched again here.
    """
    yield event("said", "Live")
    call = watch()
    try:
        async for change in call:
            text = word(change)
            if text is not None:
                yield event("said", text, position=change.revision)
                yield event("changed", text, position=change.revision)
    except grpc.aio.AioRpcError as refusal:
        error = error_from(refusal)
        yield event("said", f"Not live: {escape(error.message)}")
        if isinstance(error, OutOfRange):  # the page loads again
            yield event("changed", "", position=await restart())
    finally:
        call.cancel()
