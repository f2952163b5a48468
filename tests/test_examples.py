"""The Python examples work; `make examples` runs those that need other toolchains."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from memoryd.client import (
    ConversationClient,
    DocumentClient,
    MemoryClient,
    NewMessage,
    Put,
    SessionClient,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EXTRACT = Path(__file__).parent.parent / "examples" / "extract.py"
AGENT = Path(__file__).parent.parent / "examples" / "agent.py"


def converse(command_line, address: str, *lines: str) -> list[str]:
    said = " ".join(f"'{line}'" for line in lines)
    printed = command_line.shell(
        f"printf '%s\\n' {said} | '{sys.executable}' '{AGENT}' {address} ada"
    )
    return str(printed).splitlines()


def test_the_agent_remembers_from_one_conversation_to_the_next(command_line, database_url):
    address = command_line.serve(MEMORYD_DATABASE_URL=database_url).address()
    first = converse(
        command_line,
        address,
        "I prefer e-mail over the phone.",
        "I PREFER e-mail over the phone",
        "My order 4711 is late.",
    )
    assert first == [
        "agent: I do not know you yet.",
        "  (new: I prefer e-mail over the phone.)",
        "agent: Noted. I remember 1 thing(s) about you.",
        "  (known: I PREFER e-mail over the phone)",
        "agent: Noted. I remember 1 thing(s) about you.",
        "  (new: My order 4711 is late.)",
    ]
    assert converse(command_line, address, "Shall we reach you by e-mail or by phone?") == [
        "agent: You told me: I prefer e-mail over the phone."
    ]


def test_the_agent_continues_after_a_refusal(command_line, database_url):
    address = command_line.serve(MEMORYD_DATABASE_URL=database_url).address()
    printed = converse(command_line, address, "I " + "a" * 16_384, "I like tea")
    refused_query, reply, refused_content, *rest = printed
    assert refused_query.startswith("  (nothing retrieved: query: ")
    assert reply == "agent: I do not know you yet."
    assert refused_content.startswith("  (not stored: content: ")
    assert rest == ["agent: I do not know you yet.", "  (new: I like tea)"]


# The worker that extracts facts


@contextlib.asynccontextmanager
async def extracting(address: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the worker, and kill it at the end, wherever it is then."""
    worker = await asyncio.create_subprocess_exec(
        sys.executable, EXTRACT, address, "ada", stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            yield worker
    finally:
        with contextlib.suppress(ProcessLookupError):
            worker.kill()
        await worker.wait()


async def line_of(worker: asyncio.subprocess.Process) -> str:
    return (await worker.stdout.readline()).decode().strip()


async def all_of(memory: MemoryClient) -> dict[str, str]:
    return {one.key: one.content async for one in memory.list("ada")}


async def versions_of(memory: MemoryClient) -> list[tuple[str, int]]:
    kept = memory.list("ada", show_deleted=True)
    return [(one.memory_id, one.revision) async for one in kept]


async def test_a_worker_keeps_what_is_said(command_line, database_url):
    address = command_line.serve(MEMORYD_DATABASE_URL=database_url).address()
    async with ConversationClient(address) as conversations, MemoryClient(address) as memory:
        conversation = conversations.conversation("ada", "support-1")
        await conversation.append(user="My dog is Rex. My shoe size is 38!", assistant="My, my.")
        async with extracting(address) as worker:
            assert await line_of(worker) == "created: dog: My dog is Rex"
            assert await line_of(worker) == "created: shoe_size: My shoe size is 38"
            await conversation.append(assistant="My name is Bot.")
            too_long = NewMessage("user", "My essay is " + "long " * 4000)
            await conversation.append([too_long])
            assert (await line_of(worker)).startswith("not stored: content: ")
            said = NewMessage("user", "Sorry, my dog is Max.", author="Ada", message_id="m1")
            await conversations.conversation("ada", "support-2").append([said])
            assert await line_of(worker) == "replaced: dog: My dog is Max"
        kept = await memory.get("ada", key="dog")
        assert dict(kept.metadata.items()) == {
            "episode": "support-2",
            "message_id": "m1",
            "speaker": "Ada",
        }
        assert set(await all_of(memory)) == {"dog", "shoe_size"}


async def test_a_worker_that_is_killed_doubles_and_misses_nothing(command_line, database_url):
    address = command_line.serve(MEMORYD_DATABASE_URL=database_url).address()
    async with (
        ConversationClient(address) as conversations,
        MemoryClient(address) as memory,
        DocumentClient(address) as documents,
        SessionClient(address) as sessions,
    ):
        conversation = conversations.conversation("ada", "support-1")
        names = [f"thing{n}" for n in range(12)]
        for first, second in zip(names[::2], names[1::2], strict=True):
            await conversation.append(user=f"My {first} is red. My {second} is blue.")
        said = Counter()
        for _ in range(3):
            async with extracting(address) as worker:
                for _ in range(3):  # killed between the two of one message, or after them
                    said[await line_of(worker)] += 1
        async with extracting(address) as worker:
            while not any(line.endswith("My thing11 is blue") for line in said):
                said[await line_of(worker)] += 1
        assert set(await all_of(memory)) == set(names)
        for name in names:
            kept = await memory.get("ada", key=name)
            assert len([one async for one in memory.revisions("ada", kept.memory_id)]) == 1

        # Killed before it kept any revision: everything comes again, and nothing changes.
        await documents.put("ada", Put("revision", ["extractor"], text="0"))
        before = await versions_of(memory)
        async with extracting(address) as worker:
            again = [await line_of(worker) for _ in names]
        assert all(line.startswith("created: ") for line in again)
        assert await versions_of(memory) == before
        assert (await sessions.get("ada")).memory_count == len(names)
