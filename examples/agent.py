"""An agent that remembers: retrieve what matters, answer, store what was learned.

    python examples/agent.py localhost:50051 [SESSION]

It reads what the user says from standard input, a line at a time. `reply` and `learned` stand for
your language model; everything else is what an agent needs of memoryd.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from memoryd.client import (
    MemoryClient,
    MemorydError,
    StoreOutcome,
    ToolConfigClient,
    open_channel,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def reply(said: str, memories: Sequence[str]) -> str:
    """Answer the user; a language model would read the memories as a part of its prompt."""
    if not memories:
        return "I do not know you yet."
    if said.endswith("?"):
        return f"You told me: {memories[0]}"
    return f"Noted. I remember {len(memories)} thing(s) about you."


def learned(said: str) -> str | None:
    """Find the fact worth keeping in what the user says; None if there is none."""
    return said if said.startswith(("I ", "My ")) else None


async def recall(memory: MemoryClient, session: str, said: str) -> list[str]:
    """Retrieve what matters for the user's words. If that fails, the agent answers without."""
    try:
        answer = await memory.retrieve(session, said, limit=5)
    except MemorydError as error:
        print(f"  (nothing retrieved: {error.message})")
        return []
    return [result.memory.content for result in answer.results]


async def remember(memory: MemoryClient, session: str, fact: str) -> str:
    """Store a fact. To say it again in other case or punctuation stores nothing twice."""
    try:
        stored = await memory.store(
            session, fact, content_type="fact", importance=0.8, never_expires=True
        )
    except MemorydError as error:
        # The message names the field and the remedy; the agent goes on.
        return f"not stored: {error.message}"
    return "new" if stored.outcome == StoreOutcome.CREATED else "known"


async def converse(target: str, session: str) -> None:
    async with open_channel(target) as channel:
        memory, tools = MemoryClient(channel=channel), ToolConfigClient(channel=channel)
        if not (await tools.get("memory")).enabled:
            sys.exit("The memory tool is disabled: ENABLE_MEMORY_TOOL, or an override")
        while line := await asyncio.to_thread(sys.stdin.readline):
            said = line.strip()
            print(f"agent: {reply(said, await recall(memory, session, said))}")
            if fact := learned(said):
                print(f"  ({await remember(memory, session, fact)}: {fact})")


if __name__ == "__main__":
    asyncio.run(converse(sys.argv[1], *(sys.argv[2:] or ["ada"])))
