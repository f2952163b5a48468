"""The same work with memoryd and its peers, on one PostgreSQL and on SQLite.

make bench-peers
python benchmarks/peers.py PYTHON [--seconds 1] [--rounds 3] [--work doc_put doc_batch]

PYTHON is that of the environment of `peers-requirements.txt`. Peers run in their caller's process:
their processor time includes the caller's. memoryd's is the server's, with the caller's shown
separately. No embedder is measured: memoryd runs without one, and peers' vectors are made up
beforehand. Peers do not validate, hash or look for duplicates.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import tempfile
from asyncio.subprocess import PIPE
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import asyncpg
import uvloop
from connections import connected
from harness import KINDS, Database, Process, database, memoryd
from measuring import Target, fill, measure, prepare_requests
from results import machine, verdict
from sqlalchemy import make_url
from work import WORK, Requests

STREAM_CALLERS = 64
STREAM_GOAL, STREAM_STRETCH = 0.5, 1.0
"""Calls a second over a stream, over those of `LEAD` without a network."""
BATCHES_GOAL = 1.0
"""Documents a second in batches of 100, over the puts of `LEAD` in such batches."""
LOADS = {
    "store": (1, 64),
    "store_stream": (STREAM_CALLERS, 1000),
    "get": (1, 64),
    "top_small": (1, 64),
    "query": (1, 16),
    "doc_put": (1, 64),
    "doc_batch": (1, 4, 16),
    "doc_batch_texts": (1, 4),
    "doc_get": (1, 64),
    "doc_top": (1, 64),
    "doc_search": (1, 16),
    "append": (1, 64),
    "window": (1, 64),
}
"""The works, and the numbers of concurrent callers. LangGraph has a namespace a session; with
an index, it embeds the content that memoryd has as a search text."""
RIVALS = {"append": ("SQLAlchemySession", "AsyncPostgresSaver"), "window": ("SQLAlchemySession",)}
"""The OpenAI Agents SDK's conversations in SQLAlchemy's tables, and LangGraph's checkpoints."""
RIVALS_GOAL = 1.0
"""Calls a second of memoryd, over those of a rival."""
INSTEAD = {"store_stream": "store"}
"""What peers do in the place of a work: they share no stream, and store one by one."""
PEERS = {
    "AsyncPostgresStore": "langgraph",
    "AsyncPostgresStore index": "langgraph_index",
    "AsyncSqliteStore": "",
    "AsyncSqliteStore index": "",
    "mem0 pgvector": "mem0",
    "mem0 Qdrant": "",
    "SQLAlchemySession": "agents",
    "AsyncPostgresSaver": "langgraph_saver",
}
"""Each with its database; None means a folder."""
ONE_CALLER = ("mem0",)
"""It blocks its caller's event loop, so that further callers would only wait."""
BATCH_LOAD = ("batch", 4)
WORKS = ("batch", *LOADS)
QUIET = {
    "ANONYMIZED_TELEMETRY": "false",
    "HF_HUB_OFFLINE": "1",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_TRACING": "false",
    "MEM0_TELEMETRY": "false",
    "POSTHOG_DISABLED": "1",
}
"""Variables that turn off telemetry."""
LEAD = "AsyncPostgresStore"
ROW = "{:28}{:26}{:>8}{:>11}{:>9}{:>9}{:>9}{:>9}{:>13}{:>8}"
MICROSECONDS = 1_000_000

Rounds = dict[tuple[str, str, int], list[dict[str, float]]]


class Peer:
    """A peer in its own process and environment."""

    def __init__(self, process: asyncio.subprocess.Process, works: list[str]) -> None:
        self._process = process
        self.works = works

    async def measure(self, work: str, callers: int, seconds: float) -> dict[str, float]:
        _writer(self._process).write(f"{json.dumps([work, callers, seconds])}\n".encode())
        sample = await _answer(self._process)
        return _figures(sample | {"caller_cpu": 0.0}, WORK[work].memories)


async def start_peer(
    stack: AsyncExitStack, python: str, system: str, url: str, postmaster: Process
) -> Peer:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    process = await asyncio.create_subprocess_exec(
        python,
        str(Path(__file__).with_name("peer_work.py")),
        system,
        url or folder,
        str(postmaster.pid if url else 0),
        env={**os.environ, **QUIET, "MEM0_DIR": folder},
        stdin=PIPE,
        stdout=PIPE,
    )

    async def stop() -> None:
        _writer(process).close()
        await process.wait()

    stack.push_async_callback(stop)
    works = await _answer(process)
    if "cannot" in works:
        print(f"{system} cannot run here: {works['cannot']}")
        works = []
    return Peer(process, works)


def _writer(process: asyncio.subprocess.Process) -> asyncio.StreamWriter:
    if process.stdin is None:
        raise SystemExit("a peer has no standard input")
    return process.stdin


async def _answer(process: asyncio.subprocess.Process) -> Any:
    while process.stdout is not None and (line := await process.stdout.readline()):
        if line.startswith((b"{", b"[")):  # otherwise a library's output
            return json.loads(line)
    raise SystemExit("a peer has ended")


def _figures(sample: dict[str, Any], memories: int) -> dict[str, float]:
    """All figures per memory; times in microseconds, latencies in milliseconds."""
    load = sample["load"]
    return {
        "rate": load["calls"] / load["seconds"] * memories,
        "p50": load["p50"],
        "p99": load["p99"],
        **{name: sample[name] / memories for name in ("cpu", "caller_cpu", "database_cpu")},
    }


async def ours(
    target: Target, requests: Requests, work: str, callers: int, seconds: float
) -> dict[str, float]:
    kind = WORK[work]
    sent = prepare_requests(kind, requests, seconds)
    sample = await measure(target, kind, sent, callers=callers, seconds=seconds)
    return _figures(asdict(sample), kind.memories)


async def new_database(kept_in: Database, name: str) -> str:
    """Make another database on the same PostgreSQL; return its URL for libpq."""
    connection = await asyncpg.connect(kept_in.plain_url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    url = make_url(kept_in.plain_url).set(database=name)
    return url.render_as_string(hide_password=False)


async def run(given: argparse.Namespace) -> Rounds:
    found: Rounds = defaultdict(list)
    async with AsyncExitStack() as stack:
        kept = {kind: stack.enter_context(database(kind)) for kind in KINDS}
        postgres = kept["postgresql"]
        postmaster = postgres.process
        if postmaster is None:
            raise SystemExit("PostgreSQL did not start")
        peers = {}
        for system, name in PEERS.items():
            if system not in given.peers:
                continue
            url = await new_database(postgres, name) if name else ""
            peers[system] = await start_peer(stack, given.python, system, url, postmaster)
        targets = []
        for kind, kept_in in kept.items():
            server = stack.enter_context(
                memoryd(
                    kept_in,
                    MEMORY_MAX_ENTRIES="1000",
                    MEMORYD_EMBEDDER="none",
                    MEMORYD_LOG_LEVEL="error",
                )
            )
            connections = await stack.enter_async_context(connected(server.address))
            target = Target(kind, server, connections, kept_in)
            targets.append((target, Requests(await fill(target, vectors=False))))
        loads = [BATCH_LOAD, *((work, n) for work, several in LOADS.items() for n in several)]
        loads = [load for load in loads if load[0] in given.work]
        for work, callers in loads:
            for _ in range(given.rounds):
                for target, requests in targets:
                    figures = await ours(target, requests, work, callers, given.seconds)
                    found[work, f"memoryd on {target.name}", callers].append(figures)
                theirs = INSTEAD.get(work, work)
                for system, peer in peers.items():
                    if theirs not in peer.works or (system.startswith(ONE_CALLER) and callers > 1):
                        continue
                    figures = await peer.measure(theirs, callers, given.seconds)
                    found[work, system, callers].append(figures)
            show(found, work, callers)
    return found


def show(found: Rounds, work: str, callers: int) -> None:
    for (row, system, count), rounds in found.items():
        if (row, count) == (work, callers):
            middle = {
                name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]
            }
            print(
                ROW.format(
                    WORK[work].label,
                    system,
                    callers,
                    f"{middle['rate']:,.0f}",
                    f"{MICROSECONDS / middle['rate']:,.0f}",
                    f"{middle['p50']:.2f}",
                    f"{middle['p99']:.2f}",
                    f"{middle['cpu']:,.0f}",
                    f"{middle['caller_cpu']:,.0f}" if middle["caller_cpu"] else "",
                    f"{middle['database_cpu']:,.0f}",
                ),
                flush=True,
            )


def lead(found: Rounds) -> None:
    """Compare batches and stores over a stream with LangGraph's puts.

    Batches: with those at LangGraph's best number of callers. A stream: with those by as many.
    """
    best = max(
        statistics.median(figures["rate"] for figures in rounds)
        for (work, system, _), rounds in found.items()
        if system == LEAD and INSTEAD.get(work, work) == "store"
    )
    work, callers = BATCH_LOAD
    batches = found[work, "memoryd on postgresql", callers]
    rate = statistics.median(figures["rate"] for figures in batches)
    print(verdict("memories a second in batches, PostgreSQL", rate, round(best), at_least=True))
    callers = STREAM_CALLERS
    streamed, put = (
        [figures["rate"] for figures in found["store_stream", system, callers]]
        for system in ("memoryd on postgresql", LEAD)
    )
    share = statistics.median(own / their for own, their in zip(streamed, put, strict=True))
    what = f"stores a second over a stream, × {LEAD}, {callers} callers, PostgreSQL"
    print(verdict(what, share, STREAM_GOAL, at_least=True))
    print(verdict("the same, as a stretch", share, STREAM_STRETCH, at_least=True))


def lead_in_batches(found: Rounds) -> None:
    """Compare batches of documents with LangGraph's of puts, by the same number of callers."""
    for work, system in (("doc_batch", LEAD), ("doc_batch_texts", f"{LEAD} index")):
        for callers in LOADS[work]:
            own, their = (
                [figures["rate"] for figures in found[work, name, callers]]
                for name in ("memoryd on postgresql", system)
            )
            share = statistics.median(one / other for one, other in zip(own, their, strict=True))
            what = f"{WORK[work].label}: documents a second, × {system}, callers: {callers}"
            print(verdict(what, share, BATCHES_GOAL, at_least=True))


def lead_in_conversations(found: Rounds) -> None:
    """Compare appends and windows with what conversations are kept in otherwise."""
    for work, rivals in RIVALS.items():
        for callers, system in itertools.product(LOADS[work], rivals):
            own, their = (
                [figures["rate"] for figures in found[work, name, callers]]
                for name in ("memoryd on postgresql", system)
            )
            if own and their:
                shares = [one / other for one, other in zip(own, their, strict=True)]
                what = f"{WORK[work].label}: calls a second, × {system}, callers: {callers}"
                print(verdict(what, statistics.median(shares), RIVALS_GOAL, at_least=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("python")
    parser.add_argument("--seconds", type=float, default=0.7, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", nargs="+", choices=WORKS, default=WORKS)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=[*PEERS])
    given = parser.parse_args()
    print(f"{machine()}; {given.rounds} rounds of {given.seconds} s; medians, for one item")
    print(
        ROW.format(
            "work", "system", "callers", "items/s", "µs each", "p50 ms", "p99", "CPU µs",
            "caller's µs", "DB µs",
        )
    )  # fmt: skip
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(run(given))
    if {"batch", "store", "store_stream"} <= {*given.work}:
        lead(found)
    if {"doc_batch", "doc_batch_texts"} <= {*given.work}:
        lead_in_batches(found)
    lead_in_conversations(found)
    rows = [
        {"work": work, "system": system, "callers": callers, "rounds": rounds}
        for (work, system, callers), rounds in found.items()
    ]
    Path("build/peers.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
