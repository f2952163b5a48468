"""Events of the server that a page listens to: https://html.spec.whatwg.org/#server-sent-events."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, cast

from starlette.responses import StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import Send


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
