"""Each client of the table in docs/clients.md does what the table says.

The programs are those of `clients/stock`: each says a line for each feature, once it has seen it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from .programs import (
    FEATURES,
    LONG_BYTES,
    ROOT,
    STOCK,
    WITH_TOOLCHAINS,
    Counted,
    built,
    counting,
    outcome,
    said,
    tool,
)

TABLE = re.compile(r"<!-- clients -->\n(.*?)\n<!-- end of clients -->", re.DOTALL)
COMPRESSED = {
    "yes": {"sent": True, "received": True},
    "requests": {"sent": True, "received": False},
    "answers": {"sent": False, "received": True},
    "no": {"sent": False, "received": False},
}
COMMANDS = {False: "`make test`", True: "`make test-languages`"}


@dataclass(frozen=True)
class Program:
    port: str
    """What it calls: `http` or `grpc`."""
    command: tuple[str, ...]
    """An interpreter, or a file below `build/clients`; a file below `clients/stock`; arguments."""
    needs_toolchain: bool = False


NODE = "javascript/node.mjs"
PROGRAMS = {
    "Python, `memoryd.client`": Program("grpc", ("python", "python/memoryd_client.py")),
    "Python, `memoryd.client.sync`": Program("grpc", ("python", "python/memoryd_sync.py")),
    "Python, grpcio for asyncio": Program("grpc", ("python", "python/grpcio_aio.py")),
    "Python, grpcio": Program("grpc", ("python", "python/grpcio_sync.py")),
    "TypeScript, `memoryd/node`": Program("http", ("node", NODE, "memoryd")),
    "Node, connect-node with Connect": Program("http", ("node", NODE, "connect")),
    "Node, connect-node with gRPC-Web": Program("http", ("node", NODE, "grpc-web")),
    "Node, connect-node with gRPC": Program("grpc", ("node", NODE, "grpc")),
    "Node, @grpc/grpc-js": Program("grpc", ("node", NODE, "grpc-js")),
    "curl": Program("http", ("bash", "shell/curl.sh")),
    "grpcurl": Program("grpc", ("bash", "shell/grpcurl.sh")),
    "buf curl with Connect": Program("http", ("bash", "shell/buf.sh", "connect")),
    "buf curl with gRPC-Web": Program("http", ("bash", "shell/buf.sh", "grpcweb")),
    "buf curl with gRPC": Program("grpc", ("bash", "shell/buf.sh", "grpc")),
    "Go, grpc-go": Program("grpc", ("go/program",), needs_toolchain=True),
    "Java, grpc-java": Program("grpc", ("java/program",), needs_toolchain=True),
}
PAGES = {
    "TypeScript, `memoryd/web`": "memoryd",
    "Chromium, connect-web with Connect": "connect",
    "Chromium, connect-web with gRPC-Web": "connect-grpc-web",
    "Chromium, grpc-web": "grpc-web",
}
CALLED = [name for name, one in PROGRAMS.items() if one.needs_toolchain == WITH_TOOLCHAINS]


def rows() -> dict[str, tuple[str, ...]]:
    """The cells of the table by the name of the client."""
    found = TABLE.search((ROOT / "docs" / "clients.md").read_text())
    assert found is not None
    lines = [line.strip("|").split("|") for line in found[1].strip().splitlines()]
    return {name.strip(): tuple(cell.strip() for cell in cells) for name, *cells in lines[2:]}


def test_the_table_has_every_client():
    wanted = {name: COMMANDS[one.needs_toolchain] for name, one in PROGRAMS.items()}
    wanted |= dict.fromkeys(PAGES, COMMANDS[False])
    assert {name: cells[-1] for name, cells in rows().items()} == wanted


@pytest.fixture
async def http_counted(serve, origin) -> AsyncIterator[tuple[str, Counted]]:
    running = await serve(MEMORYD_HTTP_ALLOWED_ORIGINS=origin)
    with counting(running.server.http_address) as counted:
        yield running.server.http_address, counted


def check(name: str, found: dict[str, str], counted: Counted) -> None:
    """Compare what a client shows with its row, and what it says of gzip with the bytes."""
    assert tuple(found) == FEATURES
    assert dict(zip(FEATURES, rows()[name], strict=False)) == found
    small = {
        "sent": 0 < counted.sent < LONG_BYTES / 2,
        "received": 0 < counted.received < LONG_BYTES / 2,
    }
    assert small == COMPRESSED[found["gzip"]]


@pytest.mark.parametrize("name", CALLED)
async def test_a_client_does_what_the_table_says(name, running, caplog):
    program = PROGRAMS[name]
    address = running.address if program.port == "grpc" else running.server.http_address
    first, *rest = program.command
    command = [tool(first), str(STOCK / rest[0]), *rest[1:]] if rest else [str(built(first))]
    with caplog.at_level("INFO"), counting(address) as counted:
        found = await outcome([*command, address, counted.address])
    check(name, found, counted)
    # What a client sends as metadata is what the server's log calls the call by.
    assert "mine" in {getattr(each, "request_id", "") for each in caplog.records}


@pytest.mark.parametrize("name", PAGES)
async def test_a_client_in_a_page_does_what_the_table_says(name, http_counted, page):
    http, counted = http_counted
    lines = await page.evaluate(
        "([name, url, counted]) => clients.run(name, url, counted)",
        [PAGES[name], f"http://{http}", f"http://{counted.address}"],
    )
    check(name, said(lines), counted)
