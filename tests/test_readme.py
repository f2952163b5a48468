"""The documents' commands print what the documents say, except for the port."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from memoryd.settings.service import settings_table
from memoryd.tools.settings import tool_settings_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
PYTHON = (ROOT / "docs" / "python.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
ADDRESS = "localhost:50051"

BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
VARIES = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"
)


def blocks(document: str, language: str) -> list[str]:
    return [body for name, body in BLOCK.findall(document) if name == language]


def session(document: str) -> list[tuple[str, str]]:
    """Every grpcurl command with the output printed below it."""
    console = blocks(document, "console")
    printed = "".join(block for block in console if block.startswith("$ grpcurl"))
    parts = [part.partition("\n") for part in printed.split("$ ")[1:]]
    return [(command, output) for command, _, output in parts]


@pytest.fixture
def address(command_line, database_url) -> str:
    return str(command_line.serve(MEMORYD_DATABASE_URL=database_url).address())


@pytest.mark.parametrize(
    ("document", "commands"), [(README, 3), (TUTORIAL, 9)], ids=["README", "tutorial"]
)
def test_the_commands_of_a_document_print_its_output(command_line, address, document, commands):
    assert len(session(document)) == commands
    for command, printed in session(document):
        output = command_line.shell(command.replace(ADDRESS, address))
        assert VARIES.sub("…", output) == VARIES.sub("…", printed)


@pytest.mark.parametrize("document", [README, PYTHON], ids=["README", "python"])
def test_the_python_example_prints_the_memory(command_line, address, tmp_path, document):
    example = blocks(document, "python")[0]
    file = tmp_path / "example.py"
    file.write_text(example.replace(ADDRESS, address))
    assert command_line.shell(f"'{sys.executable}' '{file}'") == "- prefers e-mail\n"


@pytest.mark.parametrize(
    ("name", "rows"),
    [("settings", settings_table()), ("tool settings", tool_settings_table())],
    ids=["settings", "tool settings"],
)
def test_the_tables_match_the_code(name, rows):
    table = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- end of {name} -->", SETTINGS, re.DOTALL)
    assert table is not None
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for variable, default, meaning in rows:
        shown = f" `{default}` |" if default else " |"
        lines.append(f"| `{variable}` |{shown} {meaning} |")
    assert table[1].strip().splitlines() == lines
