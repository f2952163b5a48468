"""A watch resumes by itself: no change is missed, and none comes twice."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import grpc
import pytest

from memoryd import client
from memoryd.client import (
    ConversationClient,
    DocumentClient,
    MemoryClient,
    Put,
    ToolConfigClient,
    open_channel,
    resumption,
)

ROUNDS = 3
OFTEN = {"grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 100}


class Writers:
    """Makes one change of each kind, and says what watches of them begin with."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.memory = MemoryClient(channel=channel)
        self.documents = DocumentClient(channel=channel)
        self.conversations = ConversationClient(channel=channel)
        self.tools = ToolConfigClient(channel=channel)

    async def write(self, number: int) -> None:
        await self.memory.store("s", f"fact {number}")
        await self.documents.put("s", Put(f"k{number}", text="x"))
        await self.conversations.append("s", "c", user=f"message {number}")
        await self.tools.update("rag", {"search_k": 3 + number})

    def watches(self) -> dict[str, Any]:
        return {
            "memories": self.memory.watch("s"),
            "documents": self.documents.watch("s"),
            "conversations": self.conversations.watch("s"),
            "tools": self.tools.watch(),
        }


def seen_of(event: Any) -> str:
    """What a change is of."""
    if isinstance(event, client.answers.WatchMemoriesResponse):
        return event.memory.content
    if isinstance(event, client.answers.WatchDocumentsResponse):
        return event.document.key
    if isinstance(event, client.answers.WatchConversationsResponse):
        return " ".join(part.text or "" for one in event.messages for part in one.parts)
    return f"{event.tool_config.tool} {event.change}"


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  no event to await
            await asyncio.sleep(0.02)


async def test_watches_go_on_after_a_restart(serve):
    servers = [await serve()]
    port = servers[0].address.rpartition(":")[2]
    seen: dict[str, list[Any]] = {}

    async def follow(name: str, watch: Any) -> None:
        async with aclosing(watch):
            async for event in watch:
                seen[name].append(event)

    async with open_channel(servers[0].address, options=OFTEN) as channel:
        writers = Writers(channel)
        watches = writers.watches()
        seen.update({name: [] for name in watches})
        tasks = [asyncio.create_task(follow(*each)) for each in watches.items()]
        for number in range(ROUNDS):
            await writers.write(number)
            if number == 0:  # before that, a watch of the tools begins again with its snapshot
                await until(lambda: len(seen["tools"]) == 8)
            await servers[-1].server.stop()
            servers.append(await serve(MEMORYD_PORT=port))
        await writers.write(ROUNDS)
        counts = {"memories": 4, "documents": 4, "conversations": 4, "tools": 11}
        await until(lambda: {name: len(found) for name, found in seen.items()} == counts)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert [seen_of(event) for event in seen["memories"]] == [f"fact {n}" for n in range(4)]
    assert [seen_of(event) for event in seen["documents"]] == [f"k{n}" for n in range(4)]
    assert [seen_of(event) for event in seen["conversations"]] == [f"message {n}" for n in range(4)]
    assert [seen_of(event) for event in seen["tools"]][7:] == ["rag updated"] * 4
    for found in seen.values():
        revisions = [event.revision for event in found[-4:]]
        assert revisions == sorted(set(revisions))


async def test_a_slow_reader_misses_nothing(serve, monkeypatch):
    opened = count_openings(monkeypatch)
    running = await serve(MEMORYD_STREAM_STALL_SECONDS="0.2")
    text = "x" * 1_000_000  # a few of them fill what gRPC holds for a reader
    async with DocumentClient(running.address) as documents:
        await documents.put("s", Put("k0", text="x"))
        async with aclosing(documents.watch("s")) as watch:
            keys = [(await anext(watch)).document.key]
            for number in range(1, 30):
                await documents.put("s", Put(f"k{number}", text=text))
            await asyncio.sleep(1)
            async with asyncio.timeout(60):
                keys += [(await anext(watch)).document.key for _ in range(1, 30)]
    assert keys == [f"k{number}" for number in range(30)]
    assert len(opened) > 1


async def test_a_watch_with_nothing_to_read_goes_on(serve, monkeypatch):
    opened = count_openings(monkeypatch)
    running = await serve(MEMORYD_STREAM_IDLE_SECONDS="0.1")
    async with MemoryClient(running.address) as memory, aclosing(memory.watch("s")) as watch:
        first = asyncio.create_task(anext(watch))
        await until(lambda: len(opened) > 2)
        await memory.store("s", "fact")
        assert (await first).memory.content == "fact"


def count_openings(monkeypatch):
    """Each time that a watch is open again is in the list."""
    found = []
    opened = resumption.Resumption.opened

    def count(self):
        found.append(self)
        opened(self)

    monkeypatch.setattr(resumption.Resumption, "opened", count)
    return found


async def test_a_watch_that_no_server_takes_ends():
    async with MemoryClient("127.0.0.1:1") as memory:
        with pytest.raises(client.Unavailable):
            await anext(memory.watch("s"))


async def test_a_watch_that_breaks_off_ends_with_its_time(serve):
    running = await serve()
    async with MemoryClient(running.address, options=OFTEN) as memory:
        await memory.store("s", "fact")
        async with aclosing(memory.watch("s", timeout=5)) as watch:
            await anext(watch)
            await running.server.stop()
            with pytest.raises(client.DeadlineExceeded):
                await anext(watch)


async def test_what_is_no_longer_kept_is_not_resumed(serve):
    running = await serve()
    async with MemoryClient(running.address) as memory:
        await memory.store("s", "fact")
        async with aclosing(memory.watch("s")) as watch:
            event = await anext(watch)
            await memory.erase("s")
            with pytest.raises(client.OutOfRange):
                async for _ in watch:
                    pass
        assert event.revision


async def test_an_outage_that_lasts_is_warned_of_once(serve, caplog):
    running = await serve()
    port = running.address.rpartition(":")[2]
    async with MemoryClient(running.address, options=OFTEN) as memory:
        await memory.store("s", "fact")
        async with aclosing(memory.watch("s")) as watch:
            await anext(watch)
            following = asyncio.create_task(anext(watch))
            await running.server.stop()

            def warnings():
                return [one for one in caplog.records if one.levelname == "WARNING"]

            await until(lambda: [one for one in warnings() if one.name == resumption.__name__])
            await serve(MEMORYD_PORT=port)
            await memory.store("s", "another")
            assert (await following).memory.content == "another"
    assert len([one for one in warnings() if one.name == resumption.__name__]) == 1


@pytest.mark.parametrize(
    ("error", "is_resumed"),
    [
        (client.Unavailable(grpc.StatusCode.UNAVAILABLE, "stopping"), True),
        (client.Cancelled(grpc.StatusCode.CANCELLED, "by a proxy"), True),
        (client.ResourceExhausted(grpc.StatusCode.RESOURCE_EXHAUSTED, "too slow"), True),
        (client.Internal(grpc.StatusCode.INTERNAL, "Received RST_STREAM"), True),
        (client.OutOfRange(grpc.StatusCode.OUT_OF_RANGE, "gone"), False),
        (client.PermissionDenied(grpc.StatusCode.PERMISSION_DENIED, "no scope"), False),
        (client.DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, "late"), False),
    ],
)
async def test_what_is_resumed(error, is_resumed, monkeypatch):
    monkeypatch.setattr(resumption, "FIRST_PAUSE_SECONDS", 0.0)
    watch = resumption.Resumption(
        client.answers.memory_pb2.WatchMemoriesRequest(), None, renews=False
    )
    with pytest.raises(type(error)):
        await watch.after(error)  # it was never open
    watch.opened()
    if is_resumed:
        await watch.after(error)
    else:
        with pytest.raises(type(error)):
            await watch.after(error)
