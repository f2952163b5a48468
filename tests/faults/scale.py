"""How much the fault suite does. Defaults are those of `make test`; `make torture` sets more."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Scale:
    """Counts; each may be set by a variable such as `FAULTS_KILLS`."""

    kills: int = 3
    """Of a server under load, on each database."""
    writers: int = 8
    """Callers at once while a server is killed."""
    full_disks: int = 1
    """Times that the disk is full under load."""
    overload_milliseconds: int = 1_000
    """How long a server is overloaded, and how long its peak is measured before."""
    overload_percent: int = 0
    """How much of its peak it has to keep up meanwhile, for the processor's time that it gets."""
    rounds: int = 3
    """Of the long run; after a third of them nothing may grow any more."""
    calls: int = 200
    """Of all kinds, in each round."""
    streams: int = 60
    """Cancelled, cut and half-closed ones, in each round."""
    migrated_rows: int = 1_000
    migration_kills: int = 2
    database_rounds: int = 1
    """Of every fault of PostgreSQL."""
    hold_milliseconds: int = 0
    """How long a fault of PostgreSQL lasts after callers have been told of it."""
    failovers: int = 1
    """Of PostgreSQL, under load."""
    lags: int = 2
    """How often the standby that is read falls behind, and catches up."""
    erasures: int = 5
    """Of sessions, under load."""
    restarts: int = 1
    """Of each of two servers behind one client."""


SCALE = Scale(
    **{
        f.name: int(os.environ[f"FAULTS_{f.name.upper()}"])
        for f in fields(Scale)
        if f"FAULTS_{f.name.upper()}" in os.environ
    }
)
