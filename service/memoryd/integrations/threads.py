"""What serves threads and event loops alike, by clients in a loop of their own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from memoryd.client.background import Closing, background

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType
    from typing import Self

_R = TypeVar("_R")


class Threaded(Closing):
    """An adapter with synchronous and asynchronous methods, to be closed in the end."""

    __slots__ = ()

    async def _close(self) -> None:
        """Close the connections, in the loop of the clients."""

    def close(self) -> None:
        """Close the connections; this ends calls under way."""
        background().run(self._close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await background().wait(self._close())

    @staticmethod
    def _run(work: Coroutine[Any, Any, _R]) -> _R:
        """Do some work for a synchronous method. Raises InvalidStateError within an event loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return background().run(work)
        work.close()
        raise asyncio.InvalidStateError(
            "an event loop is running in this thread, and would stand still: await the method of"
            " the same name that begins with a"
        )
