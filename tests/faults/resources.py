"""The resources of a process, from Linux."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_ESTABLISHED = "01"


@dataclass(frozen=True)
class Resources:
    """The resources at one moment."""

    rss_bytes: int
    descriptors: int
    threads: int
    connections: int
    """Connections of clients."""
    queued_bytes: int
    """Bytes in the receive and send queues of these connections."""


def resources_of(pid: int, port: int) -> Resources:
    """The resources of a process that listens on an IPv4 port."""
    connections = queued = 0
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        if int(local.rpartition(":")[2], 16) == port and state == _ESTABLISHED:
            connections += 1
            queued += sum(int(queue, 16) for queue in queues.split(":"))
    return Resources(
        rss_bytes=_status(pid, "VmRSS"),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208  descriptors come and go meanwhile
        threads=len(os.listdir(f"/proc/{pid}/task")),  # noqa: PTH208  as above
        connections=connections,
        queued_bytes=queued,
    )


def peak_bytes(pid: int) -> int:
    """The peak memory of a process."""
    return _status(pid, "VmHWM")


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """The child processes of a process."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def _status(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) * 1024
