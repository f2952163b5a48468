"""Everything that the documents refer to exists: files, headings, commands, variables, messages."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from memoryd.settings.service import CLIENT_VARIABLES, settings_table
from memoryd.tools.settings import tool_settings_table
from memoryd.v1 import document_pb2, error_reason_pb2, memory_pb2, tool_config_pb2
from memoryd.v1.error_reason_pb2 import ErrorReason

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    file.relative_to(ROOT)
    for pattern in (
        "*.md",
        "docs/*.md",
        "docs/integrations/*.md",
        "examples/*.md",
        "clients/typescript/*.md",
    )
    for file in ROOT.glob(pattern)
)

LINK = re.compile(r"^(?P<path>[^#]*)(#(?P<anchor>.*))?$")


def tokens(document: Path) -> list[Token]:
    """Every token of a document, including those in paragraphs and headings."""
    found = MarkdownIt("commonmark").enable("table").parse((ROOT / document).read_text())
    return [each for token in found for each in (token, *(token.children or ()))]


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    found = tokens(document)
    headings = [
        following.content for token, following in pairwise(found) if token.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(document: Path) -> list[str]:
    """The targets of a document's links and images within the project."""
    targets = [token.attrGet("href") or token.attrGet("src") for token in tokens(document)]
    return [str(target) for target in targets if target and "://" not in str(target)]


def codes(document: Path) -> list[str]:
    """What a document marks as code, inline and in blocks."""
    return [t.content for t in tokens(document) if t.type in {"code_inline", "fence"}]


def named(document: Path, pattern: str) -> set[str]:
    return {name for code in codes(document) for name in re.findall(pattern, code)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_have_targets(document):
    for link in links(document):
        parts = LINK.match(link)
        assert parts is not None
        target = (ROOT / document).parent / parts["path"] if parts["path"] else ROOT / document
        assert target.is_file(), f"{link}: no such file"
        assert target.resolve().is_relative_to(ROOT)
        if parts["anchor"]:
            assert parts["anchor"] in anchors(target), f"{link}: no such heading"


def test_every_page_is_reached_from_the_index():
    index = {(ROOT / "docs" / link).resolve() for link in links(Path("docs/index.md"))}
    missing = [page for page in DOCUMENTS if (ROOT / page).resolve() not in index]
    assert missing == [Path("docs/index.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_variables_are_settings(document):
    known = {variable for variable, _, _ in (*settings_table(), *tool_settings_table())}
    known |= CLIENT_VARIABLES
    assert named(document, r"\bMEMORY(?:D)?_[A-Z_]*[A-Z]\b") - known == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_reasons_exist_in_the_protos(document):
    assert named(document, r"\bERROR_REASON_[A-Z_]*[A-Z]\b") <= set(ErrorReason.keys())


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_make_targets_exist(document):
    targets = set(re.findall(r"^([a-z/.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named(document, r"(?m)^(?:\$ )?make ([a-z/.-]+)") <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_modules_exist(document):
    modules = [f"/{file.relative_to(ROOT)}" for file in ROOT.glob("*/**/*.py")]
    inline = [token.content for token in tokens(document) if token.type == "code_inline"]
    for path in re.findall(r"[\w/]+\.py\b", "\n".join(inline)):
        assert any(module.endswith(f"/{path}") for module in modules), path


def test_the_messages_to_alert_on_are_logged():
    source = "".join(file.read_text() for file in (ROOT / "service" / "memoryd").rglob("*.py"))
    signs = [
        line.split("|")[1]
        for line in (ROOT / "docs" / "alerts.md").read_text().splitlines()
        if line.startswith("|")
    ]
    messages = {
        message
        for sign in signs
        for part in sign.split("log ")[1:]
        for message in re.findall(r"`([a-z][^`]*)`", part)
    }
    assert len(messages) >= 8
    for message in messages:
        # More may follow the message, such as what the database says.
        assert re.search(rf'_log\.\w+\(\s*"{re.escape(message)}["%:, ;]', source), message


def test_the_reference_describes_all_of_the_api(tmp_path):
    image = tmp_path / "image.binpb"
    for script in (
        ["protos/generate.py", "image", str(image)],
        ["docs/reference.py", str(image), str(tmp_path)],
    ):
        subprocess.run([sys.executable, *script], cwd=ROOT, check=True)  # noqa: S603  our own command
    for file in (memory_pb2, document_pb2, tool_config_pb2, error_reason_pb2):
        page = (tmp_path / f"{Path(file.DESCRIPTOR.name).stem}.md").read_text()
        sections = dict(re.findall(r"(?ms)^##+ (\w+)\n\n(.*?)(?=^##|\Z)", page))
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                assert re.match(r"\w.*\n\nRequest: ", sections[method.name], re.DOTALL)
        messages = file.DESCRIPTOR.message_types_by_name.values()
        enums = file.DESCRIPTOR.enum_types_by_name.values()
        parts = [(message.name, each.name) for message in messages for each in message.fields]
        parts += [(enum.name, each.name) for enum in enums for each in enum.values]
        for owner, name in parts:
            assert re.search(rf"^\| `{name}` \| [^|]+ \| [^|]+ \|$", sections[owner], re.MULTILINE)
