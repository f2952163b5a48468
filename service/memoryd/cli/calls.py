"""Commands that call a server, as a client does, and print what it answers."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from google.protobuf import json_format

from memoryd.cli.running import fail
from memoryd.client import (
    MemoryClient,
    MemorydError,
    SessionClient,
    ToolConfigClient,
    Unavailable,
    open_channel,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import grpc.aio

    from memoryd.cli.place import Place
    from memoryd.client.answering import Answer
    from memoryd.client.answers import ToolName


_NO_SERVER = "start the server, or name it with --target or MEMORYD_TARGET; over TLS, give --tls"


def _run(place: Place, work: Callable[[grpc.aio.Channel], Awaitable[None]]) -> None:
    """Do some calls; end the process with a message where one is refused."""
    try:
        asyncio.run(_call(place, work))
    except Unavailable as error:
        fail(str(error) if error.reason else f"{error}; {_NO_SERVER}")
    except (MemorydError, ValueError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


async def _call(place: Place, work: Callable[[grpc.aio.Channel], Awaitable[None]]) -> None:
    async with open_channel(place.target, tls=place.tls) as channel:
        await work(channel)


def _show(place: Place, answer: Answer[Any], line: str) -> None:
    """Print an answer: as one line of JSON, or as a line for people."""
    if place.as_json:
        line = json_format.MessageToJson(answer.proto, indent=None)
    print(line, flush=True)


def store(place: Place, session_id: str, content: str, **fields: Any) -> None:
    metadata = fields.pop("metadata")
    given = {name: value for name, value in fields.items() if value}
    if metadata:
        given["metadata"] = _object(metadata)

    async def work(channel: grpc.aio.Channel) -> None:
        memory = MemoryClient(channel=channel)
        answer = await memory.store(session_id, content, **given)
        _show(place, answer, f"{answer.outcome} {answer.memory.memory_id}")
        await memory.close()

    _run(place, work)


def retrieve(place: Place, session_id: str, query: str, *, limit: int) -> None:
    async def work(channel: grpc.aio.Channel) -> None:
        answer = await MemoryClient(channel=channel).retrieve(session_id, query, limit=limit)
        for one in answer.results:
            _show(place, one, f"{one.score:.3f}  {_flat(one.memory.content)}")

    _run(place, work)


def list_all(place: Place, session_id: str, *, deleted: bool) -> None:
    async def work(channel: grpc.aio.Channel) -> None:
        found = MemoryClient(channel=channel).list(session_id, show_deleted=deleted)
        async for one in found:
            gone = "deleted  " if one.delete_time else ""
            line = f"{one.memory_id}  {one.content_type:<10}  {gone}{_flat(one.content)}"
            _show(place, one, line)

    _run(place, work)


def sessions(place: Place, prefix: str) -> None:
    async def work(channel: grpc.aio.Channel) -> None:
        async for one in SessionClient(channel=channel).list(prefix):
            changed = one.proto.update_time.ToJsonString()
            _show(
                place,
                one,
                f"{one.session_id}  {_count(one.memory_count, 'memory', 'memories')}  {changed}",
            )

    _run(place, work)


def watch(place: Place, session_id: str, *, start_revision: int) -> None:
    async def work(channel: grpc.aio.Channel) -> None:
        changes = MemoryClient(channel=channel).watch(session_id, start_revision)
        async with aclosing(changes):
            async for event in changes:
                text = _flat(event.memory.content) or event.memory.memory_id
                _show(place, event, f"{event.revision}  {event.change:<8}  {text}")

    _run(place, work)


def erase(place: Place, session_id: str, *, is_sure: bool) -> None:
    if not is_sure:
        if not sys.stdin.isatty():
            fail(f"this removes all of {session_id} for good; say --yes")
        print(f"This removes all of {session_id} for good. Type its name to go on: ", end="")
        if input() != session_id:
            fail("nothing is erased")

    async def work(channel: grpc.aio.Channel) -> None:
        answer = await MemoryClient(channel=channel).erase(session_id)
        rows = sum(answer.erased_rows.values())
        memories = _count(answer.erased_memories, "memory", "memories")
        _show(place, answer, f"erased {memories}, {_count(rows, 'row', 'rows')} in all")

    _run(place, work)


def tools(place: Place, tool: str) -> None:
    async def work(channel: grpc.aio.Channel) -> None:
        client = ToolConfigClient(channel=channel)
        if tool:
            config = await client.get(cast("ToolName", tool))
            _show(place, config, json_format.MessageToJson(config.proto, indent=2))
            return
        for one in (await client.list_tools()).tools:
            _show(place, one, f"{one.tool:<11} {'on' if one.enabled else 'off'}")

    _run(place, work)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        fail(f"--metadata: no JSON: {error}")
    if not isinstance(found, dict):
        fail("--metadata: expected a JSON object, such as '{\"order\": 4711}'")
    return found


def _count(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"


def _flat(text: str) -> str:
    """On one line, whatever is in it."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
