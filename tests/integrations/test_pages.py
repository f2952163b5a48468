"""The programs of docs/integrations print what the pages say, and are short."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parents[2] / "docs" / "integrations").glob("*.md"))
ADDRESS = "localhost:50051"
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
NAMED = re.compile(
    r'("users", |session_id=|user=|"user_id": |_scopes?(?:": |=)\[?)"(ada|embeddings)"'
)
"""Whose data a program keeps."""
MOST_LINES = 30


@pytest.mark.parametrize("page", [p for p in PAGES if p.stem != "index"], ids=lambda p: p.stem)
def test_the_program_of_a_page(page, address, tmp_path):
    (_, program), (_, printed) = BLOCK.findall(page.read_text())[:2]
    assert len([line for line in program.splitlines() if line.strip()]) < MOST_LINES
    # Each run with names of its own, since the database is shared.
    name = uuid.uuid4().hex[:8]
    program = NAMED.sub(rf'\1"\2-{name}"', program)
    file = tmp_path / "program.py"
    file.write_text(program.replace(ADDRESS, address))
    done = subprocess.run(  # noqa: S603  our own
        [sys.executable, file], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, printed), done.stderr


def test_every_module_has_a_page():
    modules = Path(__file__).parents[2] / "service" / "memoryd" / "integrations"
    classes = {
        file.stem
        for file in modules.glob("*.py")
        if re.search(r"^class \w*Memoryd", file.read_text(), re.MULTILINE)
    }
    assert classes <= {page.stem for page in PAGES}
