"""The channel by which this process calls itself in the name of a request's sender."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from memoryd.client import DeadlineExceeded, InvalidArgument, MemoryClient, ResourceExhausted
from memoryd.http.in_process import InProcessChannel

SCOPE = {"headers": (), "client": ("127.0.0.1", 1), "state": {}}


@pytest.fixture
def database_kind() -> str:
    """SQLite only: what differs here is how calls are made."""
    return "sqlite"


@pytest.fixture
async def memories(serve):
    """A client over it, which may have one stream at a time."""
    running = await serve(MEMORYD_MAX_STREAMS_PER_CLIENT="1")
    handlers = running.server._pipeline.handlers  # noqa: SLF001  as the doors of HTTP get them
    async with MemoryClient(channel=InProcessChannel(handlers, SCOPE)) as memories:
        yield memories


async def test_a_stream_gives_all_of_its_answers(memories: MemoryClient):
    contents = [f"fact {number}" for number in range(5)]
    for content in contents:
        await memories.store("ada", content)
    assert [each.content async for each in memories.export("ada")] == contents


async def test_a_stream_that_is_refused_says_why(memories: MemoryClient):
    with pytest.raises(InvalidArgument, match="session_id"):
        await anext(memories.export(""))


async def test_a_stream_that_is_not_read_on_is_over(memories: MemoryClient, eventually):
    for number in range(5):
        await memories.store("ada", f"fact {number}")
    async with aclosing(memories.export("ada")) as held:
        await anext(held)
        with pytest.raises(ResourceExhausted):
            await anext(memories.export("ada"))

    async def is_free() -> bool:
        try:
            return len([each async for each in memories.export("ada")]) == 5
        except ResourceExhausted:
            return False

    await eventually(is_free)


async def test_a_stream_has_a_deadline(memories: MemoryClient):
    with pytest.raises(DeadlineExceeded):
        await anext(memories.watch("ada", timeout=0.05))
