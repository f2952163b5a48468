"""How large answers get: one ends early rather than be too large for its caller."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from google.protobuf.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

AnswerT = TypeVar("AnswerT", bound=Message | bytes)
RecordT = TypeVar("RecordT")
PositionT = TypeVar("PositionT")

MAX_ANSWER_BYTES = 4_000_000
"""A gRPC client receives 4 MiB by default."""

RESPONSE_FRAMING_BYTES = 4
"""Of a message in a list: its tag, and its length up to 2 MiB."""


LARGE_BYTES = 64 * 1024
"""Answers beyond it are made one after the other, in half of the time."""


class LargeAnswers:
    """Makes large answers one by one, and leaves other calls as much time as each takes.

    All services share one, since they share the event loop.
    """

    def __init__(self) -> None:
        self._making = asyncio.Lock()

    async def make(self, size: int, make: Callable[[], AnswerT]) -> AnswerT | bytes:
        """Make an answer of about so many bytes, encoded where it is large."""
        if size <= LARGE_BYTES:
            return make()
        await self._making.acquire()
        begun = time.perf_counter()
        try:
            return encoded(make())
        finally:
            # To send it takes about as long again.
            pause = 3 * (time.perf_counter() - begun)
            asyncio.get_running_loop().call_later(pause, self._making.release)


def encoded(answer: Message | bytes) -> bytes:
    """Leave alone what is encoded already."""
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


class _Field(Protocol):
    """A repeated field of messages."""

    def append(self, value: Any, /) -> None: ...


def fill(field: _Field, messages: Iterable[Message]) -> int:
    """Append messages while the answer has room for them, the first in any case; give how many."""
    count, room = 0, MAX_ANSWER_BYTES
    for message in messages:
        room -= message.ByteSize() + RESPONSE_FRAMING_BYTES
        if count and room < 0:
            break
        field.append(message)
        count += 1
    return count


def fill_page(
    field: _Field,
    records: Sequence[RecordT],
    message_of: Callable[[RecordT], Message],
    *,
    position_of: Callable[[RecordT], PositionT],
    after_all: PositionT | None,
) -> PositionT | None:
    """Append the messages of records as `fill` does; give where the next page begins.

    `after_all`: where it does after all of them; None: there is no other page.
    """
    count = fill(field, map(message_of, records))
    return after_all if count == len(records) else position_of(records[count - 1])
