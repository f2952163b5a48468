"""The console of a server of several processes."""

from __future__ import annotations

import re

import pytest

from memoryd.console.cookies import COOKIE


@pytest.fixture
def database_kind() -> str:
    """PostgreSQL only: on SQLite there is one process."""
    return "postgresql"


async def test_workers_take_each_others_cookies_and_a_link_once(
    command_line, database_url: str, calling
):
    server = command_line.serve("--workers", "2", MEMORYD_DATABASE_URL=database_url)
    server.address()
    (link,) = re.findall("^memoryd console on (.*)$", server.output, re.MULTILINE)
    origin, _, once = link.partition("/sign-in?once=")
    caller = await calling(origin)
    assert (await caller.post("/sign-in", form={"once": once})).ok
    (cookie,) = (await caller.storage_state())["cookies"]
    headers = {"cookie": f"{COOKIE}={cookie['value']}"}
    for _ in range(10):  # each over a connection of its own, which either of them may take
        other = await calling(origin)
        assert (await other.post("/sign-in", form={"once": once})).status == 403
        assert (await other.get("/", headers=headers, max_redirects=0)).status == 200
