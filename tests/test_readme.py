"""What the README prints is what happens, but for the port: the server is the test's own."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

import grpc
import pytest

from memoryd.settings import settings_table
from memoryd.tool_settings import tool_settings_table
from memoryd.v1 import tool_config_pb2

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


async def test_what_is_not_there_yet_is_named(running):
    """The README names every method that is missing as a whole, and no other."""
    config = tool_config_pb2.ToolConfig(tool="rag")
    request_of = {
        "ListTools": tool_config_pb2.ListToolsRequest(),
        "GetToolConfig": tool_config_pb2.GetToolConfigRequest(tool="rag"),
        "UpdateToolConfig": tool_config_pb2.UpdateToolConfigRequest(tool_config=config),
        "ResetToolConfig": tool_config_pb2.ResetToolConfigRequest(tool="rag"),
        "ValidateToolConfig": tool_config_pb2.ValidateToolConfigRequest(tool_config=config),
        "ListToolConfigRevisions": tool_config_pb2.ListToolConfigRevisionsRequest(tool="rag"),
        "RollbackToolConfig": tool_config_pb2.RollbackToolConfigRequest(tool="rag", revision=1),
        "WatchToolConfigs": tool_config_pb2.WatchToolConfigsRequest(),
    }
    service = tool_config_pb2.DESCRIPTOR.services_by_name["ToolConfigService"]
    assert set(request_of) == set(service.methods_by_name)
    named = re.search(r"ToolConfigService serves what(.*?)\n- ", README, re.DOTALL)
    assert named is not None
    for name, request in request_of.items():
        call = getattr(running.tools, name)(request)
        if service.methods_by_name[name].server_streaming:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call.read()
            missing = call.done() and await call.code() is grpc.StatusCode.UNIMPLEMENTED
            call.cancel()
        else:
            missing = await call.code() is grpc.StatusCode.UNIMPLEMENTED
        assert (f"`{name}`" in named[1]) == missing


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
