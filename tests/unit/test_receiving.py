"""Which messages are taken to be slow, where their calls are no more than a read each."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
import pytest

from memoryd.domain.errors import Overloaded
from memoryd.rpc.receiving import CALM_LOOKS, CALM_SECONDS, LOOK_SECONDS, RequestReader

READS = 12
LONGEST_SECONDS = 100 * LOOK_SECONDS * CALM_LOOKS


class Reading:
    """A call of which only the message matters."""

    def __init__(self, reader: RequestReader) -> None:
        self.arrived: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.error: Exception | None = None
        self.task = asyncio.create_task(reader.read(self, "client", self.refuse))  # type: ignore[arg-type]

    async def read(self) -> Any:
        return await self.arrived

    async def refuse(self, error: Exception) -> None:
        self.error = error
        self.arrived.set_exception(grpc.aio.AbortError("refused"))


async def test_messages_that_wait_for_their_turn_among_many_are_not_slow():
    reader = RequestReader(seconds=60, places=1)
    reads = [Reading(reader) for _ in range(READS)]
    for reading in reads:
        await asyncio.sleep(2 * CALM_SECONDS)
        assert reading.error is None
        reading.arrived.set_result(b"message")
        assert await reading.task == b"message"


async def test_messages_that_do_not_come_while_others_do_at_once_are_slow():
    reader = RequestReader(seconds=60, places=1)
    reads = [Reading(reader) for _ in range(3)]
    async with asyncio.timeout(LONGEST_SECONDS):
        while sum(reading.error is not None for reading in reads) < 2:
            quick = Reading(reader)
            quick.arrived.set_result(b"message")
            assert await quick.task == b"message"
            await asyncio.sleep(LOOK_SECONDS / 2)
    assert all(isinstance(reading.error, Overloaded) for reading in reads[1:])
    reads[0].arrived.set_result(b"at last")
    assert await reads[0].task == b"at last"
    for reading in reads[1:]:
        with pytest.raises(grpc.aio.AbortError):
            await reading.task
