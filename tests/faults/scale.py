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
    migrated_rows: int = 1_000
    migration_kills: int = 2


SCALE = Scale(
    **{
        f.name: int(os.environ[f"FAULTS_{f.name.upper()}"])
        for f in fields(Scale)
        if f"FAULTS_{f.name.upper()}" in os.environ
    }
)
