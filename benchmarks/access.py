"""What access costs: servers with all of it, with keys alone and without take turns, in one run.

make bench-access
python benchmarks/access.py [--seconds 2] [--rounds 7] [--work get store] [--callers 64]

`all` has keys, quotas of calls and
of what is stored, the audit, and on PostgreSQL a role that row-level security holds for.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import asyncpg
import uvloop
from connections import connected
from harness import Database, database, memoryd
from measuring import Target, fill
from sqlalchemy import make_url
from variants import Variant, compare
from work import Requests

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

VARIABLES = {"MEMORY_MAX_ENTRIES": "1000", "MEMORYD_LOG_LEVEL": "error"}
SERVER_ROLE = "memoryd_server"


def new_key(kept_in: Database, tenant: str = "default", scope: str = "operator") -> str:
    """Make a key by the command line."""
    environ = {**os.environ, "MEMORYD_DATABASE_URL": kept_in.url, "MEMORYD_LOG_LEVEL": "error"}
    command = [sys.executable, "-m", "memoryd"]
    subprocess.run([*command, "migrate"], env=environ, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  our own
    options = ("--tenant", tenant, "--name", "bench", "--scope", scope)
    made = subprocess.run(  # noqa: S603  our own
        [*command, "keys", "create", *options],
        env=environ,
        check=True,
        capture_output=True,
        text=True,
    )
    return made.stdout.strip()


@dataclass(frozen=True)
class Access(Variant):
    """A way to serve."""

    is_walled: bool = False
    """Whether row-level security holds for the server, where the database has it."""


OFF = Access("off", {"MEMORYD_AUTH": "off"})
KEYS = Access("keys", {"MEMORYD_AUTH": "required", "MEMORYD_AUDIT": "off"})
ALL = Access(
    "all",
    {
        "MEMORYD_AUTH": "required",
        "MEMORYD_AUDIT": "changes",
        "MEMORYD_QUOTA_CALLS_PER_SECOND": "1000000",
        "MEMORYD_QUOTA_MEMORIES": "1000000000",
        "MEMORYD_QUOTA_BYTES": "1000000000000",
    },
    is_walled=True,
)
VARIANTS = (OFF, KEYS, ALL)


async def as_server_role(kept_in: Database) -> Database:
    """The database as a role with rights on rows alone uses it."""
    connection = await asyncpg.connect(kept_in.plain_url)
    await connection.execute(f"CREATE ROLE {SERVER_ROLE} LOGIN")
    await connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {SERVER_ROLE}")
    await connection.close()
    url = make_url(kept_in.url).set(username=SERVER_ROLE)
    return replace(kept_in, url=url.render_as_string(hide_password=False))


async def bring_up(stack: AsyncExitStack, kind: str, variant: Access) -> tuple[Target, Requests]:
    kept_in = stack.enter_context(database(kind))
    key = "" if variant is OFF else new_key(kept_in)
    if variant.is_walled and kind == "postgresql":
        kept_in = await as_server_role(kept_in)
    server = stack.enter_context(memoryd(kept_in, **VARIABLES, **variant.variables))
    connections = await stack.enter_async_context(connected(server.address, key))
    target = Target(f"{kind} {variant.name}", server, connections, kept_in)
    return target, Requests(await fill(target, vectors=False))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(compare(__doc__, VARIANTS, bring_up))
