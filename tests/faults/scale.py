"""The scale of the fault suite. Defaults are for `make test`; `make torture` sets more."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Scale:
    """Counts; each may be set by a variable such as `FAULTS_KILLS`."""

    kills: int = 3
    """Kills of a server under load, on each database."""
    writers: int = 8
    """Concurrent callers while a server is killed."""
    appenders: int = 32
    """Concurrent callers that append to one conversation while its server is killed."""
    full_disks: int = 1
    """Times that the disk is full under load."""
    overload_milliseconds: int = 1_000
    """How long a server is overloaded, and how long its peak is measured before that."""
    overload_percent: int = 0
    """The share of its peak, per processor time, that it must sustain meanwhile."""
    rounds: int = 3
    """Rounds of the long run; after a third of them nothing may grow."""
    calls: int = 200
    """Calls of all kinds in each round."""
    streams: int = 60
    """Cancelled, cut and half-closed streams in each round."""
    migrated_rows: int = 1_000
    migration_kills: int = 2
    database_rounds: int = 1
    """Rounds of every fault of PostgreSQL."""
    hold_milliseconds: int = 0
    """How long a fault of PostgreSQL lasts after callers have seen errors."""
    failovers: int = 1
    """Failovers of PostgreSQL under load."""
    lags: int = 2
    """How often the standby in use falls behind and catches up."""
    erasures: int = 5
    """Erasures of sessions under load."""
    merges: int = 1
    """Kills of a server while sessions are merged, on each database."""
    restarts: int = 1
    """Restarts of each of two servers behind one client."""


SCALE = Scale(
    **{
        f.name: int(os.environ[f"FAULTS_{f.name.upper()}"])
        for f in fields(Scale)
        if f"FAULTS_{f.name.upper()}" in os.environ
    }
)
