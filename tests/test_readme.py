"""What the README prints is what happens, but for the port: the server is the test's own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from memoryd.settings.service import settings_table
from memoryd.tools.settings import tool_settings_table

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


@pytest.fixture
def address(command_line, database_url) -> str:
    return str(command_line.serve(MEMORYD_DATABASE_URL=database_url).address())


def test_the_session_by_hand_goes_as_printed(command_line, address):
    assert len(session()) == 6
    for command, printed in session():
        output = command_line.shell(command.replace(ADDRESS, address))
        assert VARIES.sub("…", output) == VARIES.sub("…", printed)


def test_the_python_example_prints_the_memory(command_line, address, tmp_path):
    (example,) = blocks("python")
    file = tmp_path / "example.py"
    file.write_text(example.replace(ADDRESS, address))
    assert command_line.shell(f"'{sys.executable}' '{file}'") == "prefers e-mail\n"


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
