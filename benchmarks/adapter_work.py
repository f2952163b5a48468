"""Make the calls that `adapters.py` compares, in the frameworks' environment.

build/adapters-venv/bin/python benchmarks/adapter_work.py ADDRESS URL KIND SECONDS ROUNDS

ADDRESS is of a server of memoryd; URL names a database for the frameworks' own stores. Each line of
the output is a round of one call: microseconds a call of the own store and of memoryd's adapter.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
import uuid
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from agents.extensions.memory import SQLAlchemySession
from google.adk.events.event import Event
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.database_session_service import DatabaseSessionService
from google.genai import types
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.store.postgres.aio import AsyncPostgresStore

from memoryd.integrations.adk import MemorydSessionService
from memoryd.integrations.langgraph import MemorydStore
from memoryd.integrations.langgraph_checkpoint import MemorydSaver
from memoryd.integrations.openai_agents import MemorydSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Call = Callable[[], Awaitable[object]]
    Calls = dict[str, Call]

TEXT = "The customer prefers e-mail over the phone, and asks when order 4711 arrives. " * 3
NEWEST = 20
"""What a turn reads of a history."""


async def store_calls(store: Any) -> Calls:
    numbers = itertools.count()
    namespace = ("users", "ada")
    for number in range(100):
        await store.aput(namespace, f"k{number}", {"text": TEXT, "kind": number % 5}, index=False)

    async def put() -> None:
        value = {"text": TEXT, "kind": 1}
        await store.aput(namespace, f"k{next(numbers) % 100}", value, index=False)

    return {
        "put": put,
        "get": lambda: store.aget(namespace, "k7"),
        "search by a filter, 10": lambda: store.asearch(namespace, filter={"kind": 1}, limit=10),
    }


async def saver_calls(saver: Any) -> Calls:
    thread = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    last: dict[str, Any] = {"config": thread}

    async def put() -> None:
        version = saver.get_next_version(None, None)
        checkpoint = empty_checkpoint() | {
            "id": str(uuid6(clock_seq=-1)),
            "channel_values": {"messages": [TEXT] * NEWEST, "step": 1},
            "channel_versions": {"messages": version, "step": version},
        }
        last["config"] = await saver.aput(
            last["config"], checkpoint, {"step": 1}, checkpoint["channel_versions"]
        )

    async def put_writes() -> None:
        await saver.aput_writes(last["config"], [("messages", TEXT)], str(uuid.uuid4()))

    async def get() -> None:
        await saver.aget_tuple(thread)

    await put()
    # Each on a checkpoint without writes, so that the number of writes does not decide.
    return {"put": put, "get_tuple": get, "put, put_writes": lambda: in_turn(put, put_writes)}


async def in_turn(*calls: Call) -> None:
    for call in calls:
        await call()


async def session_calls(session: Any) -> Calls:
    items = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": TEXT}]
    for _ in range(NEWEST):
        await session.add_items(items)
    return {
        "add_items, 2": lambda: session.add_items(items),
        f"get_items, {NEWEST}": lambda: session.get_items(limit=NEWEST),
    }


async def adk_calls(service: Any) -> Calls:
    names = {"app_name": "shop", "user_id": "ada"}
    session = await service.create_session(**names, session_id="s")
    content = types.Content(role="user", parts=[types.Part(text=TEXT)])

    async def append() -> None:
        await service.append_event(session, Event(author="user", content=content))

    for _ in range(NEWEST):
        await append()
    newest = GetSessionConfig(num_recent_events=NEWEST)
    return {
        "append_event": append,
        f"get_session, {NEWEST}": lambda: service.get_session(
            **names, session_id="s", config=newest
        ),
    }


async def pairs(
    address: str, url: str, kind: str, stack: AsyncExitStack
) -> AsyncIterator[tuple[str, Calls, Calls]]:
    """Adapters by name, the calls of their frameworks' own stores, and theirs."""
    is_file = kind == "sqlite"
    engine_url = f"sqlite+aiosqlite:///{url}" if is_file else url.replace("://", "+asyncpg://", 1)
    enter = stack.enter_async_context
    if not is_file:  # its store over SQLite loads an extension, which few Pythons can
        store = await enter(AsyncPostgresStore.from_conn_string(url))
        await store.setup()
        ours = await enter(MemorydStore(address))
        yield "LangGraph's store", await store_calls(store), await store_calls(ours)
    saver: Any = await enter(
        AsyncSqliteSaver.from_conn_string(url)
        if is_file
        else AsyncPostgresSaver.from_conn_string(url)
    )
    await saver.setup()
    checkpoints = await enter(MemorydSaver(address))
    yield "LangGraph's checkpoints", await saver_calls(saver), await saver_calls(checkpoints)
    session = SQLAlchemySession.from_url("s", url=engine_url, create_tables=True)
    conversation = await enter(MemorydSession("s", address, user="ada"))
    yield "OpenAI Agents", await session_calls(session), await session_calls(conversation)
    service = DatabaseSessionService(db_url=engine_url)
    sessions = await enter(MemorydSessionService(address))
    yield "Google ADK", await adk_calls(service), await adk_calls(sessions)


async def cost_of(call: Call, seconds: float) -> float:
    """Microseconds of one call."""
    begin, calls = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        await call()
        calls += 1
    return (time.perf_counter() - begin) / calls * 1e6


async def main() -> None:
    address, url, kind, seconds, rounds = sys.argv[1:]
    async with AsyncExitStack() as stack:
        async for adapter, own, ours in pairs(address, url, kind, stack):
            for name in own:
                for _ in range(int(rounds)):
                    found = {
                        "own": await cost_of(own[name], float(seconds)),
                        "ours": await cost_of(ours[name], float(seconds)),
                    }
                    line = {"adapter": adapter, "call": name, **found}
                    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
