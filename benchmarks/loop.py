"""Callers in a closed loop, and what a server uses for them; independent of the service."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from harness import Process

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from harness import Server


@dataclass(frozen=True, slots=True)
class Load:
    """The callers' measurements."""

    calls: int
    seconds: float
    p50: float
    """Milliseconds, like the next two."""
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one server."""

    load: Load
    cpu: float
    """Microseconds of the server's processor time per call."""
    database_cpu: float
    """The same of PostgreSQL's processes."""
    caller_cpu: float
    """The same of this process, which calls."""
    rss: int
    """The server's peak until now, in bytes."""


async def drive(
    once: Callable[[int], Awaitable[float]],
    *,
    callers: int,
    seconds: float,
    most: int | None = None,
) -> Load:
    """Run callers in a loop, for `seconds` or until `most` calls.

    `once` takes the number of the caller, and returns its latency in seconds.
    """
    waits: list[float] = []
    started = 0
    start = time.perf_counter()
    end = start + seconds

    async def caller(number: int) -> None:
        nonlocal started
        while time.perf_counter() < end and (most is None or started < most):
            started += 1
            waits.append(await once(number))

    async with asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(caller(number))
    took = time.perf_counter() - start
    p50, p95, p99 = np.percentile(waits, (50, 95, 99)) * 1e3
    return Load(len(waits), took, float(p50), float(p95), float(p99))


async def accounted(server: Server, run: Callable[[], Awaitable[Load]]) -> Sample:
    """Run calls of a server, and measure what it, its database and their caller use."""
    meters = (
        server.process.cpu_seconds,
        server.database_cpu_seconds,
        Process(os.getpid()).cpu_seconds,
    )
    before = [meter() for meter in meters]
    load = await run()
    used = [meter() - start for meter, start in zip(meters, before, strict=True)]
    cpu, database_cpu, caller_cpu = (seconds / load.calls * 1e6 for seconds in used)
    return Sample(load, cpu, database_cpu, caller_cpu, rss=server.process.rss_bytes("VmHWM"))
