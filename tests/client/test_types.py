"""A type checker finds wrong names and types in what callers write."""

from __future__ import annotations

import subprocess
import sys

HEAD = """
from datetime import timedelta
from memoryd.client import Condition, MemoryClient, NewMemory, NewMessage, ToolConfigClient
from memoryd.client.sync import MemoryClient as SyncMemoryClient, ConversationClient

async def work(
    memory: MemoryClient, sync: SyncMemoryClient, tools: ToolConfigClient, talks: ConversationClient
) -> None:
"""

RIGHT = (
    'id: str = (await memory.store("s", "c", content_type="preference")).memory.memory_id',
    'first: str = sync.store("s", "c", content_type="fact").outcome.upper()',
    'times: list[float] = [m.create_time.timestamp() for m in sync.list("s") if m.create_time]',
    'Condition("order", "gt", 4711)',
    'NewMessage("assistant", "Yes.")',
    'await tools.get("rag")',
    'text: str = (await memory.retrieve("s", "q")).as_prompt(max_chars=500)',
    'talks.conversation("s", "c").append(user="Hello")',
)
WRONG = (
    'await memory.store("s", "c", content_type="prefrence")',
    'sync.store("s", "c", content_type="prefrence")',
    'await memory.store("s", 7)',
    'sync.store("s", "c", ttl=3600)',
    'Condition("order", "greater", 4711)',
    'NewMessage("robot", "Yes.")',
    'await tools.get("ragg")',
    '(await memory.retrieve("s", "q")).as_promt()',
    'number: int = sync.get("s", "id").content',
    'sync.list("s", content_type="fact")',
)


def test_a_type_checker_tells_right_from_wrong(tmp_path):
    script = tmp_path / "script.py"
    lines = [*HEAD.strip().splitlines(), *(f"    {line}" for line in (*RIGHT, *WRONG))]
    script.write_text("\n".join(lines) + "\n")
    options = ("--strict", "--no-error-summary", "--no-pretty", f"--cache-dir={tmp_path}")
    done = subprocess.run(  # noqa: S603  our own interpreter
        [sys.executable, "-m", "mypy", *options, str(script)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error: " in line}
    first = len(HEAD.strip().splitlines()) + len(RIGHT) + 1
    assert found == set(range(first, first + len(WRONG))), done.stdout
