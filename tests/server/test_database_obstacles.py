"""Each reason why a database cannot be used is one line that says what to change."""

from __future__ import annotations

import asyncio
import ctypes
import os
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import make_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CANARY = "canary-88b2"
COMMANDS = (
    ("migrate",),
    ("serve", "--migrate"),
    ("sweep", "--once"),
    ("reindex",),
    ("export", "memories.jsonl"),
    ("import", "given.jsonl"),
)
LOOKS = (("config", "show"), ("config", "check"))
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
PR_CAPBSET_DROP = 24
SSL_REQUEST = b"\x04\xd2\x16\x2f"


@pytest.fixture(scope="module")
def refusing_postgres(postgres_server):
    """A server with roles and databases that it refuses in one way each."""
    psql = postgres_server.psql
    file = Path(psql("SHOW hba_file").splitlines()[2].strip())
    rules = file.read_text()
    file.write_text(
        "local all scrammed scram-sha-256\nlocal all turned_away reject\n"
        "local all nobody_there trust\n" + rules
    )
    psql("SELECT pg_reload_conf()")
    psql(f"CREATE ROLE scrammed LOGIN PASSWORD '{CANARY}-right'")
    psql("CREATE ROLE turned_away LOGIN")
    psql("CREATE ROLE without_rights LOGIN")
    yield postgres_server
    file.write_text(rules)
    psql("SELECT pg_reload_conf()")


def url_of(server, database: str, user: str, password: str = f"{CANARY}-wrong") -> str:
    folder = make_url(server.url(database)).query["host"]
    return f"postgresql+asyncpg://{user}:{password}@/{database}?host={folder}"


@pytest.fixture
def refused_url(refusing_postgres, migrated_postgres):
    """The URL of a role and a database; by default a database with the schema and no rows."""

    def url(user: str, database: str | None) -> str:
        if database is None:
            new = refusing_postgres.create_database(migrated_postgres)
            database = make_url(new).database
        return url_of(refusing_postgres, database, user)

    return url


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("memoryd: ")
    assert CANARY not in done.stdout + done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("user", "database", "words"),
    [
        ("scrammed", None, ("password authentication failed", "correct the password")),
        ("postgres", "no_such_database", ('"no_such_database" does not exist', "create the")),
        ("nobody_there", None, ('role "nobody_there" does not exist', "create the role")),
        ("turned_away", None, ("pg_hba.conf rejects", "allow it in the server's pg_hba.conf")),
        ("without_rights", None, ("permission denied", "grant the role the right")),
    ],
)
def test_a_refusal_of_postgresql_is_one_line_with_its_remedy(
    command_line, refused_url, user, database, words
):
    (command_line.folder / "given.jsonl").write_text("")
    variables = {"MEMORYD_DATABASE_URL": refused_url(user, database), "MEMORYD_PORT": "0"}
    everywhere = user == "scrammed"
    for command in COMMANDS if everywhere else (("migrate",), ("export", "memories.jsonl")):
        assert_one_line(command_line.run(*command, **variables), "cannot be used", *words)
    for command in LOOKS if everywhere else LOOKS[1:]:
        done = command_line.run(*command, **variables)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False)
        assert CANARY not in done.stdout + done.stderr
        (line,) = [line for line in done.stdout.splitlines() if "overrides: not known: " in line]
        assert all(word in line for word in words)


def test_a_role_that_may_not_make_tables_is_reported(command_line, refusing_postgres):
    database = make_url(refusing_postgres.create_database()).database
    done = command_line.run(
        "migrate", MEMORYD_DATABASE_URL=url_of(refusing_postgres, database, "without_rights")
    )
    assert_one_line(done, "permission denied for schema public", "USAGE and CREATE")


def test_a_server_with_a_wrong_password_says_so_and_serves_once_it_is_right(
    command_line, refusing_postgres, migrated_postgres
):
    database = make_url(refusing_postgres.create_database(migrated_postgres)).database
    refusing_postgres.psql("GRANT pg_read_all_data, pg_write_all_data TO scrammed")
    server = command_line.serve(
        MEMORYD_DATABASE_URL=url_of(refusing_postgres, database, "scrammed", f"{CANARY}-new")
    )
    server.wait_for(lambda: "not serving" in server.log)
    assert "cannot be used" in server.log
    assert "correct the password" in server.log
    refusing_postgres.psql(f"ALTER ROLE scrammed PASSWORD '{CANARY}-new'")
    server.address()
    assert server.stop() == 0
    assert CANARY not in server.log
    assert "Traceback" not in server.log
    refusing_postgres.psql(f"ALTER ROLE scrammed PASSWORD '{CANARY}-right'")


@pytest.mark.parametrize(
    ("password", "said"), [("first@second", "%40"), ("word", "write postgresql+asyncpg://")]
)
def test_a_url_that_cannot_be_read_is_one_line_without_its_password(command_line, password, said):
    scheme = "postgresql+asyncpg" if "@" in password else "postgresql"
    url = f"{scheme}://u:{CANARY}{password}@127.0.0.1:5432/d"
    (command_line.folder / "given.jsonl").write_text("")
    for command in (*COMMANDS, *LOOKS):
        done = command_line.run(*command, MEMORYD_DATABASE_URL=url)
        assert_one_line(done, "MEMORYD_DATABASE_URL", said)
        assert "second" not in done.stderr


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_in_another_encoding_is_refused(command_line, postgres_server, encoding):
    name = f"in_{encoding.lower()}"
    postgres_server.psql(
        f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
        " TEMPLATE template0"
    )
    url = postgres_server.url(name)
    remedy = "CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0"
    for command in (("migrate",), ("serve", "--migrate"), ("export", "x.jsonl")):
        done = command_line.run(*command, MEMORYD_DATABASE_URL=url, MEMORYD_PORT="0")
        assert_one_line(done, f"encoding is {encoding}", remedy)
    server = command_line.serve(MEMORYD_DATABASE_URL=url)
    server.wait_for(lambda: f"not serving: the database's encoding is {encoding}" in server.log)
    assert server.output == ""


# TLS


def certificate(name: str) -> tuple[bytes, bytes]:
    """A self-signed certificate for a host, and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(pem), secret


@asynccontextmanager
async def tls_proxy(url: str, context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """A port in front of a PostgreSQL that offers TLS as the server would, or does not."""
    socket_file = f"{make_url(url).query['host']}/.s.PGSQL.5432"

    opened: list[asyncio.StreamWriter] = []
    talks: set[asyncio.Task[None] | None] = set()

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.current_task())
        opened.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            first = await reader.readexactly(8)
            behind, ahead = await asyncio.open_unix_connection(socket_file)
            opened.append(ahead)
            if first[4:] != SSL_REQUEST:
                ahead.write(first)
            elif context is None:
                writer.write(b"N")
            else:
                writer.write(b"S")
                await writer.start_tls(context)
            await asyncio.gather(copy(reader, ahead), copy(behind, writer))

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for writer in opened:
            writer.transport.abort()
        await asyncio.gather(*filter(None, talks))


@pytest.mark.parametrize(
    "mode", ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
)
async def test_every_sslmode_works(command_line, postgres_server, migrated_postgres, mode):
    url = postgres_server.create_database(migrated_postgres)
    public, secret = certificate("localhost")
    file = command_line.folder / "server.pem"
    file.write_bytes(public + secret)
    (command_line.folder / "ca.pem").write_bytes(public)
    (command_line.folder / "other.pem").write_bytes(certificate("localhost")[0])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    async def check(port: int, ca: str, host: str = "localhost") -> subprocess.CompletedProcess:
        given = f"?sslmode={mode}" + (f"&sslrootcert={ca}" if mode.startswith("verify") else "")
        database = make_url(url).database
        return await asyncio.to_thread(
            command_line.run,
            "migrate",
            MEMORYD_DATABASE_URL=f"postgresql+asyncpg://postgres@{host}:{port}/{database}{given}",
        )

    async with tls_proxy(url, context) as port:
        done = await check(port, "ca.pem")
        assert (done.returncode, done.stderr) == (0, "")
        if mode.startswith("verify"):
            assert_one_line(await check(port, "other.pem"), "cannot be used", "sslrootcert")
        if mode == "verify-full":
            by_number = await check(port, "ca.pem", "127.0.0.1")
            assert_one_line(by_number, "sslrootcert", "127.0.0.1")
    async with tls_proxy(url, None) as port:
        done = await check(port, "ca.pem")
        if mode in ("disable", "allow", "prefer"):
            assert done.returncode == 0
        else:
            assert_one_line(done, "turn TLS on at the server, or write sslmode=prefer")


# SQLite


def obey_permissions() -> None:
    """Make root obey file permissions, as every other user does."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None)
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no folder", "the folder {0}/nowhere is missing; make it"),
        ("meant as absolute", "write sqlite+aiosqlite:////{0}/memoryd.db"),
        ("in a file", "{0}/text is no folder"),
        ("a folder", "it is a folder; name a file in it, such as {0}/folder/memoryd.db"),
        ("no database", "another kind of file"),
        ("read-only folder", "the folder {0}/sealed may not be written"),
        ("read-only file", "the file may not be written"),
        ("unreadable file", "the file may not be read"),
        ("closed folder", "the folder {0}/closed may not be entered"),
    ],
)
def test_every_obstacle_to_a_file_is_named(command_line, migrated_sqlite, tmp_path, kind, words):
    (tmp_path / "text").write_text("This is a text, and has been one all its life.\n" * 100)
    for folder in ("folder", "sealed", "closed"):
        (tmp_path / folder).mkdir()
    for name in ("readonly.db", "unreadable.db", "sealed/there.db"):
        (tmp_path / name).write_bytes(migrated_sqlite.read_bytes())
    path = {
        "no folder": tmp_path / "nowhere" / "memoryd.db",
        "meant as absolute": str(tmp_path / "memoryd.db").removeprefix("/"),
        "in a file": tmp_path / "text" / "memoryd.db",
        "a folder": tmp_path / "folder",
        "no database": tmp_path / "text",
        "read-only folder": tmp_path / "sealed" / "new.db",
        "read-only file": tmp_path / "readonly.db",
        "unreadable file": tmp_path / "unreadable.db",
        "closed folder": tmp_path / "closed" / "memoryd.db",
    }[kind]
    (tmp_path / "readonly.db").chmod(0o444)
    (tmp_path / "unreadable.db").chmod(0)
    (tmp_path / "sealed").chmod(0o555)
    (tmp_path / "closed").chmod(0)
    for command in (("migrate",), ("serve",)) if kind == "no folder" else (("migrate",),):
        done = subprocess.run(  # noqa: S603  our own command
            [sys.executable, "-m", "memoryd", *command],
            cwd=tmp_path,
            env=command_line.environ
            | {"MEMORYD_DATABASE_URL": f"sqlite+aiosqlite:///{path}", "MEMORYD_PORT": "0"},
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            preexec_fn=obey_permissions,
        )
        place = str(tmp_path)
        named = words.format(place.removeprefix("/") if kind == "meant as absolute" else place)
        assert_one_line(done, "cannot be used", str(path), named)
