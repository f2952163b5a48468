"""Connecting to one of several hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class HostFailover:
    """Connects to the first host that accepts us, in place of a driver's own `connect`.

    A driver spends the whole time on a host that is silent, and asks it first again next time. Here
    each host has its share of the time, and the one that had us last is asked first.
    """

    def __init__(
        self, connect: Callable[..., Awaitable[Any]], refusals: tuple[type[Exception], ...]
    ) -> None:
        """`connect` is the driver's; it raises one of `refusals` where a host will not."""
        self._connect = connect
        self._refusals = refusals
        self._last: tuple[str, int | None] | None = None
        self._moves = 0
        """How often another host than before has had us."""

    async def __call__(
        self,
        *,
        timeout: float,
        host: list[str] | str | None = None,
        port: list[int] | int | None = None,
        **arguments: Any,
    ) -> Any:
        """Give the driver's connection; raise what the last host did if there is none.

        Where another host has had us meanwhile, the one asked first may be one that was silent and
        replaced, and goes on: it is passed over.

        `timeout`: seconds for all hosts together.
        """
        if not isinstance(host, list):
            return await self._connect(timeout=timeout, host=host, port=port, **arguments)
        ports = port if isinstance(port, list) else [port] * len(host)
        places = sorted(zip(host, ports, strict=True), key=lambda place: place != self._last)
        refused: Exception | None = None
        moves = self._moves
        for place in places:
            try:
                connection = await self._connect(
                    timeout=timeout / len(places), host=place[0], port=place[1], **arguments
                )
            except self._refusals as error:
                refused = error
            else:
                if place == self._last or moves == self._moves:
                    self._moves += place != self._last
                    self._last = place
                    return connection
                connection.terminate()
                refused = ConnectionError(f"{place[0]}: another host has taken its place")
        raise refused or ValueError("no host is named")
