"""What the README prints is what happens."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from memoryd.settings import settings_table
from memoryd.tool_settings import tool_settings_table

README = (Path(__file__).parent.parent / "README.md").read_text()
ADDRESS = "localhost:50051"

BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
VARIES = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"
)


def blocks(language: str) -> list[str]:
    return [body for name, body in BLOCK.findall(README) if name == language]


def session() -> list[tuple[str, str]]:
    """Every grpcurl command with the output printed below it."""
    printed = "".join(block for block in blocks("console") if block.startswith("$ grpcurl"))
    parts = [part.partition("\n") for part in printed.split("$ ")[1:]]
    return [(command, output) for command, _, output in parts]


async def run(command: str) -> str:
    """What a shell prints, with this environment's commands before others."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = await asyncio.create_subprocess_shell(
        command,
        env={**os.environ, "PATH": path},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode()


async def test_the_session_by_hand_goes_as_printed(running):
    assert len(session()) == 6
    for command, printed in session():
        output = await run(command.replace(ADDRESS, running.address))
        assert VARIES.sub("…", output) == VARIES.sub("…", printed)


async def test_the_python_example_prints_the_memory(running, tmp_path):
    (example,) = blocks("python")
    file = tmp_path / "example.py"
    file.write_text(example.replace(ADDRESS, running.address))
    assert await run(f"'{sys.executable}' '{file}'") == "prefers e-mail\n"


@pytest.mark.parametrize(
    ("name", "rows"),
    [("settings", settings_table()), ("tool settings", tool_settings_table())],
    ids=["settings", "tool settings"],
)
def test_the_tables_are_those_of_the_code(name, rows):
    table = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- end of {name} -->", README, re.DOTALL)
    assert table is not None
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for variable, default, meaning in rows:
        shown = f" `{default}` |" if default else " |"
        lines.append(f"| `{variable}` |{shown} {meaning} |")
    assert table[1].strip().splitlines() == lines
