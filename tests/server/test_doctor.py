"""`memoryd doctor`, as a real process: each thing that it looks at, sound and not."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import make_url

from memoryd.cli import doctor
from memoryd.database.tables import index_names

CANARY = "canary-61be02"
CHECKS = [
    *("settings", "tls", "database", "schema", "tools"),
    *("rights", "rls", "clocks", "indexes", "disk"),
]

only_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])


def examine(command_line, url, *arguments, **variables):
    """What is found, by check; the exit code says the same as the status."""
    variables.setdefault("MEMORYD_DATABASE_URL", url)
    done = command_line.run("doctor", "--json", *arguments, **variables)
    found = json.loads(done.stdout)
    assert done.returncode == (found["status"] == "problem")
    assert done.stderr == ""
    assert CANARY not in done.stdout
    return {each["check"]: (each["status"], each["message"]) for each in found["findings"]}


@pytest.mark.whole
def test_a_sound_database(command_line, database_url):
    found = examine(command_line, database_url)
    assert list(found) == CHECKS
    assert {status for status, _ in found.values()} == {"ok"}
    done = command_line.run("doctor", MEMORYD_DATABASE_URL=database_url)
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [["ok", n] for n in CHECKS]


def test_looking_makes_no_database(command_line):
    found = examine(command_line, "sqlite+aiosqlite:///data.db")
    assert list(found) == ["settings", "tls", "database", "disk"]
    assert "a server makes it" in found["database"][1]
    assert list(command_line.folder.iterdir()) == []


@pytest.mark.whole
async def test_what_is_wrong_in_a_database(command_line, database_url, tables):
    kind = make_url(database_url).get_backend_name()
    assert "ix_memory_tags_id" in index_names(kind)
    await tables.execute("DROP INDEX ix_memory_tags_id")
    if kind == "postgresql":
        await tables.execute("REVOKE DELETE ON memories FROM memoryd_server")
        await tables.execute("ALTER TABLE memories NO FORCE ROW LEVEL SECURITY")
    found = examine(command_line, database_url)
    assert found["indexes"][0] == "problem"
    assert "ix_memory_tags_id" in found["indexes"][1]
    if kind == "postgresql":
        assert found["rights"][0] == "problem"
        assert "DELETE on memories" in found["rights"][1]
        assert found["rls"][0] == "warning"
        assert "memoryd migrate" in found["rls"][1]


async def test_an_earlier_schema(command_line, database_url, tables):
    await tables.execute("UPDATE alembic_version SET version_num = '001'")
    found = examine(command_line, database_url)
    assert found["database"][0] == "ok"
    assert found["schema"][0] == "problem"
    assert "memoryd migrate" in found["schema"][1]
    assert {found[check][0] for check in CHECKS[4:]} == {"unknown"}


def test_a_role_that_sees_every_tenant(command_line, postgres_server, migrated_postgres):
    url = postgres_server.create_database(migrated_postgres)
    found = examine(command_line, url)
    assert found["rls"][0] == "warning"
    assert "BYPASSRLS" in found["rls"][1]
    off = examine(command_line, url, MEMORYD_RLS="off")
    assert off["rls"][0] == "ok"
    postgres_server.drop_database(url)


@only_sqlite
def test_a_damaged_file(command_line, database_url):
    file = Path(make_url(database_url).database)
    data = bytearray(file.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    data[page * 3 : page * 4] = b"\xff" * page
    file.write_bytes(data)
    found = examine(command_line, database_url)
    assert "problem" in {status for status, _ in found.values()}
    assert "restore a backup" in " ".join(message for _, message in found.values())


def test_a_database_that_does_not_answer(command_line):
    url = f"postgresql+asyncpg://somebody:{CANARY}@127.0.0.1:1/nowhere"
    found = examine(command_line, url)
    assert found["database"][0] == "problem"
    assert {found[check][0] for check in CHECKS[3:]} == {"unknown"}


@only_sqlite
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MEMORYD_HOST": "0.0.0.0"}, ("settings", "problem", "MEMORYD_AUTH=required")),  # noqa: S104  not bound
        ({"MEMORYD_PORT": "many"}, ("settings", "problem", "MEMORYD_PORT")),
        ({"MEMORYD_AUTH_FILE": "none.toml"}, ("settings", "problem", "none.toml")),
        ({"MEMORYD_TLS_CERT": "no.crt", "MEMORYD_TLS_KEY": "no.key"}, ("tls", "problem", "no.crt")),
        ({"ENABLE_CRM_TOOL": "true", "CRM_API_KEY": CANARY}, ("tools", "warning", "crm")),
    ],
)
def test_settings(command_line, database_url, variables, expected):
    check, status, says = expected
    found = examine(command_line, database_url, **variables)
    assert found[check][0] == status
    assert says in found[check][1]


@only_sqlite
@pytest.mark.parametrize("end", [(90, "ok"), (20, "warning"), (-1, "problem")])
def test_the_end_of_a_certificate(command_line, database_url, authority, tls_folder, end):
    days, status = end
    tls_folder.write(authority.issue(begins=timedelta(days=-2), ends=timedelta(days=days)))
    found = examine(command_line, database_url, **tls_folder.variables)
    assert found["tls"][0] == status
    if status != "ok":
        assert "renew" in found["tls"][1]


@pytest.mark.parametrize(("seconds", "status"), [(0, "ok"), (5, "warning"), (60, "problem")])
def test_clocks_that_are_apart(seconds, status):
    found = doctor.clocks_apart(timedelta(seconds=seconds))
    assert found[0] == status


@pytest.mark.parametrize(
    ("check", "variables", "says"),
    [
        ("settings", {"MEMORYD_EMBEDDER": "nowhere:Embedder"}, "MEMORYD_EMBEDDER"),
        ("settings", {"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
        ("database", {"MEMORYD_DATABASE_URL": "sqlite+aiosqlite:///no/new.db"}, "no is missing"),
        ("database", {"MEMORYD_DATABASE_URL": "sqlite+aiosqlite:///.env/new.db"}, "folder"),
    ],
)
def test_what_stops_a_start_is_found_before(command_line, check, variables, says):
    (command_line.folder / ".env").write_text("")
    start = command_line.run("serve", MEMORYD_PORT="0", **variables)
    assert start.returncode == 1
    assert says in start.stderr
    checked = command_line.run("config", "check", **variables)
    assert (checked.returncode, says in checked.stderr) == (1, True)
    status, message = examine(command_line, "sqlite+aiosqlite:///new.db", **variables)[check]
    assert (status, says in message) == ("problem", True)
