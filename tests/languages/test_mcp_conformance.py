"""The official conformance suite of the Model Context Protocol, against /mcp.

The scenarios that are left out call tools, read resources and get prompts of names and contents
that the suite's own server has, or ask for what a server may leave out: logging, completion,
subscriptions, sampling and elicitation.
"""

from __future__ import annotations

import asyncio

import pytest

from .programs import ROOT, tool

SCENARIOS = (
    *("server-initialize", "ping", "dns-rebinding-protection"),
    *("tools-list", "resources-list", "prompts-list"),
)
SUITE = ROOT / "clients" / "node_modules" / ".bin" / "conformance"


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_the_official_scenarios(running, scenario, tmp_path):
    program = await asyncio.create_subprocess_exec(
        *(tool("node"), SUITE, "server", "--scenario", scenario),
        *("--url", f"http://{running.server.http_address}/mcp"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await program.communicate()
    said = output.decode()
    assert program.returncode == 0, said
    assert "0 failed, 0 warnings" in said
    assert "Passed: 0/" not in said
