"""What access costs: servers with all of it, with keys alone and without take turns, in one run.

make bench-access
python benchmarks/access.py [--seconds 2] [--rounds 7] [--work get store] [--callers 64]

Processor time is the server process's, as the kernel counts it. `all` has keys, quotas of calls and
of what is stored, the audit, and on PostgreSQL a role that row-level security holds for.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import asyncpg
import uvloop
from connections import connected
from harness import KINDS, Database, database, memoryd
from measuring import Target, fill, measure, prepare_requests
from sqlalchemy import make_url
from work import WORK, Requests

if TYPE_CHECKING:
    from collections.abc import Mapping

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
class Variant:
    """A way to serve."""

    name: str
    variables: Mapping[str, str]
    is_walled: bool = False
    """Whether row-level security holds for the server, where the database has it."""


OFF = Variant("off", {"MEMORYD_AUTH": "off"})
KEYS = Variant("keys", {"MEMORYD_AUTH": "required", "MEMORYD_AUDIT": "off"})
ALL = Variant(
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


async def bring_up(stack: AsyncExitStack, kind: str, variant: Variant) -> tuple[Target, Requests]:
    kept_in = stack.enter_context(database(kind))
    key = "" if variant is OFF else new_key(kept_in)
    if variant.is_walled and kind == "postgresql":
        kept_in = await as_server_role(kept_in)
    server = stack.enter_context(memoryd(kept_in, **VARIABLES, **variant.variables))
    connections = await stack.enter_async_context(connected(server.address, key))
    target = Target(f"{kind} {variant.name}", server, connections, kept_in)
    return target, Requests(await fill(target, vectors=False))


async def compare(kind: str, options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        servers = [await bring_up(stack, kind, variant) for variant in VARIANTS]
        for name in options.work:
            costs: list[list[float]] = [[] for _ in VARIANTS]
            for number in range(options.rounds):
                turns = list(zip(servers, costs, strict=True))
                for (target, requests), taken in turns if number % 2 else turns[::-1]:
                    sent = prepare_requests(WORK[name], requests, options.seconds)
                    sample = await measure(
                        target,
                        WORK[name],
                        sent,
                        callers=options.callers,
                        seconds=options.seconds,
                    )
                    taken.append(sample.cpu)
            line = f"{WORK[name].label:32}{kind:12}{statistics.median(costs[0]):9,.0f}"
            for taken in costs[1:]:
                ratios = [on / off for off, on in zip(costs[0], taken, strict=True)]
                spread = f"({min(ratios):.2f}–{max(ratios):.2f})"
                line += f"{statistics.median(taken):9,.0f}{statistics.median(ratios):8.3f} {spread}"
            print(line, flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work", nargs="+", default=["get", "store"], choices=list(WORK))
    parser.add_argument("--callers", type=int, default=64)
    options = parser.parse_args()
    header = "".join(f"{variant.name:>9}{'÷ off':>20}" for variant in VARIANTS[1:])
    print(f"{'CPU µs a call':32}{'':12}{'off':>9}{header}")
    for kind in KINDS:
        await compare(kind, options)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
