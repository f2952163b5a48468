"""Reading requests: each in its time, and all that are slow to come within a bound on bytes.

gRPC holds what has arrived of an unfinished message for as long as it is read, and a stranger
can leave any number unfinished. How large a message becomes is not known before it is complete, so
each one that does not come at once is taken to be as large as a message may be.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc

from memoryd.domain.errors import (
    ClientLimitReached,
    NoMessage,
    Overloaded,
    RequestIncomplete,
    StreamIdle,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from memoryd.rpc.call import WireCall

    Refuse = Callable[[Exception], Coroutine[Any, Any, None]]
    """Ends the call with an error."""

SLOW_BYTES = 64 * 1024 * 1024
"""What messages that are slow to come may hold in all."""

RECEIVE_MARGIN_BYTES = 64 * 1024
"""What gRPC receives beyond the largest message, so that the refusal can say why."""

SLOW_SECONDS = 0.1
"""A message that others overtake by so much does not come at once: it is slow."""

LOOK_SECONDS = 0.05
"""Between two looks at the messages that are awaited."""

CALM_SECONDS = 0.02
"""A server that is late by less has handled all that has arrived: as its event loop comes to a
timer, and as it comes to a message that others do not hold up."""

CALM_LOOKS = 2
"""A message that is still awaited after so many looks by a calm event loop is slow."""


def places_in(room: int, message_bytes: int) -> int:
    """How many messages of that size, and of the margin, so many bytes hold; at least one."""
    return max(1, room // (message_bytes + RECEIVE_MARGIN_BYTES))


class _Awaited:
    """A message that is being read."""

    __slots__ = ("client", "is_slow", "looks", "refuse", "seconds", "since")

    def __init__(
        self, client: str, refuse: Refuse | None, seconds: float, since: float, looks: int
    ) -> None:
        self.client = client
        self.refuse = refuse
        """None once the call is refused."""
        self.seconds = seconds
        self.since = since
        self.looks = looks
        self.is_slow = False


class RequestReader:
    """Reads messages of calls, each within a time, and no more slow ones than there are places.

    A call whose message takes too long, or has no place, is refused while its read is under way,
    and the read then raises what gRPC raises in a call that was aborted. Reads are never cancelled:
    gRPC writes to one until the call has ended.
    """

    def __init__(self, *, seconds: float, places: int, ends_longest: bool = False) -> None:
        """Give a message `seconds` to come, and `places` to those that are slow.

        One client may have half of the places. `ends_longest`: where there is none, not the message
        that asks for one is refused, but the one that has been awaited longest, as idle.
        """
        self._seconds = seconds
        self._ends_longest = ends_longest
        self._places = places
        self._places_per_client = (places + 1) // 2
        self._awaited: dict[_Awaited, None] = {}  # in the order in which they began
        self._slow: Counter[str] = Counter()
        self._overtaken_before = -math.inf
        """Whatever began before this time, and is awaited, was overtaken by SLOW_SECONDS."""
        self._looks = 0
        self._was_late = False
        """Whether a message has been awaited for more than CALM_SECONDS since the last look. It may
        have arrived before, and waited for its turn among many."""
        self._timer: asyncio.TimerHandle | None = None
        self._refusing: set[asyncio.Task[None]] = set()

    async def read(
        self, context: WireCall, client: str, refuse: Refuse, *, seconds: float | None = None
    ) -> bytes:
        """Raises NoMessage where none is sent, and AbortError where `refuse` has been called."""
        loop = asyncio.get_running_loop()
        awaited = _Awaited(client, refuse, seconds or self._seconds, loop.time(), self._looks)
        self._awaited[awaited] = None
        if self._timer is None:
            self._look_later(loop)
        try:
            message: Any = await context.read()
        finally:
            del self._awaited[awaited]
            if awaited.is_slow:
                self._slow[client] -= 1
                if not self._slow[client]:
                    del self._slow[client]
            elif awaited.refuse is not None:
                self._overtaken_before = awaited.since - SLOW_SECONDS
                self._was_late = self._was_late or loop.time() - awaited.since > CALM_SECONDS
        if message is grpc.aio.EOF:
            raise NoMessage
        return bytes(message)

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + LOOK_SECONDS
        self._timer = loop.call_at(due, self._look, loop, due)

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        if now - due < CALM_SECONDS and not self._was_late:
            self._looks += 1
        self._was_late = False
        is_settled = math.isinf(self._seconds)
        for awaited in self._awaited:
            is_late = now - awaited.since >= awaited.seconds
            is_slow = (
                awaited.since < self._overtaken_before or self._looks - awaited.looks >= CALM_LOOKS
            )
            if not (is_late or is_slow):
                is_settled = False
                break  # those that began later are no slower
            if is_late:
                self._refuse(awaited, RequestIncomplete(awaited.seconds))
            elif not awaited.is_slow:
                self._give_place(awaited)
        self._timer = None
        if self._awaited and not is_settled:
            self._look_later(loop)

    def _give_place(self, awaited: _Awaited) -> None:
        obstacle = self._obstacle(awaited.client)
        if obstacle is not None and self._ends_longest:
            is_clients_own = isinstance(obstacle, ClientLimitReached)
            self._end_longest(awaited.client if is_clients_own else None)
        elif obstacle is not None:
            self._refuse(awaited, obstacle)
            return
        awaited.is_slow = True
        self._slow[awaited.client] += 1

    def _obstacle(self, client: str) -> Overloaded | None:
        """Why there is no place for one more message of a client; None where there is one."""
        if self._slow[client] >= self._places_per_client:
            return ClientLimitReached(
                f"this client has {self._places_per_client:,} requests under way that are slow to"
                " arrive, the most that one client may have; send fewer large requests at once"
            )
        if self._slow.total() >= self._places:
            return Overloaded(
                f"{self._places:,} requests are under way that are slow to arrive, the limit; try"
                " again"
            )
        return None

    def _end_longest(self, client: str | None) -> None:
        """End the call, of a client if one is given, whose slow message is awaited longest."""
        for awaited in self._awaited:
            if awaited.is_slow and awaited.refuse and client in {None, awaited.client}:
                self._refuse(awaited, StreamIdle(None))
                return

    def _refuse(self, awaited: _Awaited, error: Exception) -> None:
        if awaited.refuse is None:
            return
        task = asyncio.create_task(awaited.refuse(error))
        awaited.refuse = None
        self._refusing.add(task)
        task.add_done_callback(self._refused)

    def _refused(self, task: asyncio.Task[None]) -> None:
        self._refusing.discard(task)
        if not task.cancelled():
            task.exception()  # the abort's own, which the read raises too
