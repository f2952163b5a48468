"""The service's settings: forms, bounds, precedence, and that all problems are listed at once."""

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from memoryd.domain.audit import AuditMode
from memoryd.domain.content import ContentPolicy
from memoryd.settings.reading import Problem, SettingsError, merge_variables, unset_references
from memoryd.settings.service import (
    Environment,
    LogFormat,
    LogLevel,
    Settings,
    load_settings,
    settings_table,
)

CANARY = "c4n4ry"

WriteDotenv = Callable[..., Path]


def load(
    environ: Mapping[str, str] | None = None,
    dotenv: Path | None = None,
    flags: Mapping[str, object] | None = None,
) -> Settings:
    return load_settings(environ=environ or {}, dotenv=dotenv, flags=flags or {})


def problems_of(
    environ: Mapping[str, str] | None = None,
    dotenv: Path | None = None,
    flags: Mapping[str, object] | None = None,
) -> tuple[Problem, ...]:
    with pytest.raises(SettingsError) as caught:
        load(environ, dotenv, flags)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert CANARY not in repr(caught.value.problems)
    return caught.value.problems


@pytest.fixture
def dotenv(tmp_path: Path) -> WriteDotenv:
    """Write a `.env` file and return its path."""

    def write(text: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / ".env"
        path.write_text(text, encoding=encoding)
        return path

    return write


@pytest.mark.parametrize(
    ("given", "port"),
    [
        ({}, 50052),
        ({"PORT": "0"}, 0),
        ({"PORT": "65535"}, 0),
        ({"HEALTH_PORT": "50052"}, 50053),
        ({"HTTP_PORT": "8080"}, 8080),
        ({"HTTP_PORT": "0"}, 0),
        ({"HTTP_PORT": "OFF"}, None),
    ],
)
def test_http_has_the_next_port_unless_another_is_given(given, port) -> None:
    settings = load({f"MEMORYD_{name}": value for name, value in given.items()})
    assert settings.port_for_http(settings.port or 40000) == port


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("HTTP_PORT", value) for value in ("50051", "65536", "-1", "on", "8080/tcp")),
        *(("HTTP_ALLOWED_HOSTS", value) for value in ("a b", "http://a", "a:80", "a/b")),
        *(("HTTP_ALLOWED_ORIGINS", value) for value in ("example.com", "https://a/b", "null")),
    ],
)
def test_what_http_cannot_be_set_to_is_refused(name, value) -> None:
    with pytest.raises(SettingsError, match=f"MEMORYD_{name}"):
        load({f"MEMORYD_{name}": value})


def test_the_defaults() -> None:
    settings = load()
    assert settings.database_url.get_secret_value() == "sqlite+aiosqlite:///memoryd.db"
    assert (settings.host, settings.port) == ("127.0.0.1", 50051)
    assert settings.environment is Environment.DEVELOPMENT
    assert (settings.log_level, settings.log_format) == (LogLevel.INFO, LogFormat.TEXT)
    assert settings.content_policy is ContentPolicy.SANITIZE
    assert settings.drain_seconds == 20
    assert settings.importance_half_life_days == 30
    assert settings.max_message_bytes == 4 * 1024 * 1024
    assert settings.database_pgbouncer is False


def test_flags_beat_variables_beat_dotenv_beats_defaults(dotenv: WriteDotenv) -> None:
    path = dotenv("MEMORYD_PORT=1\nMEMORYD_HOST=::1\nMEMORYD_DRAIN_SECONDS=4\n")
    settings = load({"MEMORYD_PORT": "2", "MEMORYD_HOST": "192.0.2.1"}, path, {"port": 3})
    assert (settings.port, settings.host, settings.drain_seconds) == (3, "192.0.2.1", 4)
    assert settings.write_batch_limit == 500


def test_a_flag_of_none_counts_as_not_given() -> None:
    assert load({"MEMORYD_PORT": "2"}, flags={"port": None}).port == 2


def test_flags_take_the_text_forms_too() -> None:
    settings = load(flags={"port": "0", "log_level": "DEBUG", "database_pgbouncer": "true"})
    assert (settings.port, settings.log_level) == (0, LogLevel.DEBUG)
    assert settings.database_pgbouncer is True


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({}, AuditMode.OFF),
        ({"MEMORYD_AUTH": "observe"}, AuditMode.OFF),
        ({"MEMORYD_AUTH": "required"}, AuditMode.CHANGES),
        ({"MEMORYD_AUTH": "required", "MEMORYD_AUDIT": "off"}, AuditMode.OFF),
        ({"MEMORYD_AUDIT": "all"}, AuditMode.ALL),
    ],
)
def test_the_audit_is_on_where_credentials_are_required(
    given: dict[str, str], mode: AuditMode
) -> None:
    assert load(given).audit is mode


def test_nothing_but_the_arguments_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MEMORYD_PORT=1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMORYD_PORT", "2")
    monkeypatch.setenv("MEMORYD_NO_SUCH", "2")
    assert load().port == 50051
    assert Settings().port == 50051


@pytest.mark.parametrize(
    ("field", "accepted", "refused"),
    [
        ("port", ("0", "65535"), ("-1", "65536", "5.0", "0x10", "1_000", "", "fifty", "٣")),
        ("drain_seconds", ("0", "3600", "0.5", "1e3"), ("-0.1", "3600.1", "nan", "inf", "", "1s")),
        ("importance_half_life_days", ("0.1", "100000"), ("0", "-1", "NaN", "Infinity", "1e999")),
        ("database_pool_size", ("1", "1000"), ("0", "1001", "true")),
        ("database_writers", ("1", "100"), ("0", "101", "8.0")),
        ("database_timeout_seconds", ("0.1", "3600"), ("0", "3601")),
        ("database_statement_timeout_seconds", ("0.1", "3600"), ("0", "3601")),
        ("database_lock_timeout_seconds", ("0.1", "3600"), ("0", "3601")),
        ("write_queue_limit", ("1", "1000000"), ("0", "1000001", "9" * 5000)),
        ("write_batch_limit", ("1", "10000"), ("0", "10001")),
        ("max_message_bytes", ("131072", "1073741824"), ("131071", "1073741825")),
        ("keepalive_seconds", ("1", "86400"), ("0.9", "86401")),
        ("database_pgbouncer", ("true", "false"), ("True", "1", "yes", "on", "")),
        ("audit", ("off", "changes", "all"), ("Off", "on", "")),
        ("audit_days", ("1", "36500"), ("0", "36501", "1.5")),
        ("environment", ("development", "production"), ("Production", "prod", "")),
        ("log_level", ("debug", "INFO", "Warning", "error"), ("trace", "")),
        ("log_format", ("text", "json"), ("JSON", "")),
        ("content_policy", ("sanitize", "strict", "verbatim"), ("Strict", "none", "")),
        (
            "secret_references",
            (
                *(
                    "",
                    "env://SHARED_*",
                    "acme=env://ACME_*",
                    "acme=env://A, secretsmanager://aws/b",
                ),
                "secretsmanager://aws/a=b",
            ),
            (
                "acme",
                "acme=",
                "Acme=env://A",
                "=env://A",
                "acme=vault://A",
                "env://",
                "a b=env://A",
            ),
        ),
        ("host", ("localhost", "::1", "[::1]", "192.0.2.1"), ("", "a b", "http://a")),
        (
            "database_url",
            (
                "sqlite+aiosqlite:///memoryd.db",
                "sqlite+aiosqlite:////var/lib/memoryd.db",
                "postgresql+asyncpg://memoryd:secret@db:5432/memoryd",
                "postgresql+asyncpg:///memoryd?host=/run/postgresql",
            ),
            (
                "",
                "memoryd.db",
                "sqlite:///memoryd.db",
                "postgresql://db/memoryd",
                "postgres://db/memoryd",
                "mysql+aiomysql://db/memoryd",
                "sqlite+aiosqlite://",
                "sqlite+aiosqlite:///",
                "sqlite+aiosqlite:///?cache=shared",
                "sqlite+aiosqlite:///:memory:",
                "sqlite+aiosqlite:///file:x?mode=memory&uri=true",
            ),
        ),
    ],
)
def test_what_a_variable_accepts(
    field: str, accepted: tuple[str, ...], refused: tuple[str, ...]
) -> None:
    variable = f"MEMORYD_{field.upper()}"
    for text in accepted:
        load({variable: text})
    for text in refused:
        (problem,) = problems_of({variable: text})
        assert (problem.name, problem.where) == (variable, "environment")


def test_numbers_are_read_as_written() -> None:
    settings = load({"MEMORYD_PORT": "+80", "MEMORYD_DRAIN_SECONDS": ".5"})
    assert (settings.port, settings.drain_seconds) == (80, 0.5)


def test_white_space_around_a_value_does_not_count() -> None:
    settings = load({"MEMORYD_PORT": " 80\r", "MEMORYD_DATABASE_PGBOUNCER": "true "})
    assert (settings.port, settings.database_pgbouncer) == (80, True)


def test_all_problems_are_listed_at_once(dotenv: WriteDotenv) -> None:
    path = dotenv("MEMORYD_HOTS=x\nMEMORYD_DRAIN_SECONDS=-1\n")
    problems = problems_of(
        {"MEMORYD_PORT": "70000", "MEMORYD_LOG_FORMAT": "xml"}, path, {"write_batch_limit": 0}
    )
    assert set(problems) == {
        Problem("MEMORYD_HOTS", ".env", "no such setting", "did you mean MEMORYD_HOST?"),
        Problem("MEMORYD_DRAIN_SECONDS", ".env", "-1", "expected a number from 0 to 3600"),
        Problem("MEMORYD_PORT", "environment", "70000", "expected a whole number from 0 to 65535"),
        Problem("MEMORYD_LOG_FORMAT", "environment", '"xml"', "expected text or json"),
        Problem(
            "--write-batch-limit", "command line", "0", "expected a whole number from 1 to 10000"
        ),
    }


def test_the_message_has_a_line_for_each_problem() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"MEMORYD_PORT": "", "MEMORYD_DATABASE_PGBOUNCER": "yes"})
    assert str(caught.value).splitlines() == [
        "2 problems with the settings:",
        "  MEMORYD_PORT (environment): empty; expected a whole number from 0 to 65535",
        '  MEMORYD_DATABASE_PGBOUNCER (environment): "yes"; expected true or false',
    ]


def test_an_overridden_value_is_not_validated(dotenv: WriteDotenv) -> None:
    assert load({"MEMORYD_PORT": "80"}, dotenv("MEMORYD_PORT=fifty\n")).port == 80


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("MEMORYD_PROT", "did you mean MEMORYD_PORT?"),
        ("MEMORYD_DB_URL", "did you mean MEMORYD_DATABASE_URL?"),
        ("memoryd_port", "did you mean MEMORYD_PORT?"),
        ("Memoryd_Log_Levle", "did you mean MEMORYD_LOG_LEVEL?"),
        ("MEMORYD_QQQ", "remove it"),
        ("MEMORYD_", "remove it"),
        ("MEMORYD_SERVICE_HOST", "Kubernetes made it: give the pod enableServiceLinks: false"),
        ("MEMORYD_PORT_50051_TCP", "Kubernetes made it: give the pod enableServiceLinks: false"),
    ],
)
def test_an_unknown_variable_stops_the_start(name: str, remedy: str, dotenv: WriteDotenv) -> None:
    found = "no such setting"
    assert problems_of({name: CANARY}) == (Problem(name, "environment", found, remedy),)
    assert problems_of(dotenv=dotenv(f"{name}={CANARY}\n")) == (
        Problem(name, ".env", found, remedy),
    )


def test_other_programs_variables_are_ignored(dotenv: WriteDotenv) -> None:
    path = dotenv("PORT=x\nPOSTGRES_PASSWORD=p\nMEMORY_LIMIT=1\nBROKEN=${NOWHERE}\nALONE\n")
    assert load({"PATH": "/bin", "XMEMORYD_PORT": "x", "MEMORYDPORT": "x"}, path) == Settings()


def test_an_unknown_flag_is_refused() -> None:
    assert problems_of(flags={"prot": CANARY}) == (
        Problem("--prot", "command line", "no such setting", "did you mean port?"),
    )


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("MEMORYD_PORT=80", 80),
        ("MEMORYD_PORT = '80'  # comment", 80),
        ('export MEMORYD_PORT="80"\r\n', 80),
        ("\ufeffMEMORYD_PORT=80", 80),
        ("MEMORYD_PORT=80\nMEMORYD_PORT=81", 81),
        ("BASE=8\nMEMORYD_PORT=${BASE}0", 80),
        ("MEMORYD_PORT=${NOWHERE:-80}", 80),
        ("MEMORYD_PORT=${GIVEN}", 443),
        ("GIVEN=80\nMEMORYD_PORT=${GIVEN}", 443),
        ("# nothing here\n\n", 50051),
    ],
)
def test_what_a_dotenv_file_may_say(text: str, port: int, dotenv: WriteDotenv) -> None:
    assert load({"GIVEN": "443"}, dotenv(text)).port == port


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("MEMORYD_PORT", "no value, or one that refers to a variable that is not set"),
        (
            "MEMORYD_PORT=${NOWHERE}",
            "refers to NOWHERE, which is not set; set NOWHERE; for nothing write ${NOWHERE:-}",
        ),
    ],
)
def test_a_dotenv_entry_without_a_value_is_a_problem(
    text: str, found: str, dotenv: WriteDotenv
) -> None:
    (problem,) = problems_of(dotenv=dotenv(text))
    assert (problem.name, problem.where) == ("MEMORYD_PORT", ".env")
    assert problem.found.startswith(found)


def test_failed_references_of_a_dotenv_file_are_known(dotenv: WriteDotenv) -> None:
    path = dotenv("A=${NOWHERE}x${GONE}\nB=${A:-b}\nC=${X:-$}{b}\nD=${NOWHERE}\n")
    environ = {"D": "d"}
    assert unset_references(environ=environ, dotenv=path) == {"A": ("NOWHERE", "GONE")}
    merged = merge_variables(environ=environ, dotenv=path)
    assert merged == {"B": "b", "C": "${b}", "D": "d"}


def test_an_import_path_is_taken_from_the_environment_only(dotenv: WriteDotenv) -> None:
    path = dotenv("MEMORYD_EMBEDDER=nowhere:Embedder\n")
    (problem,) = problems_of(dotenv=path)
    assert (problem.name, problem.where) == ("MEMORYD_EMBEDDER", ".env")
    assert "import path" in problem.found
    assert "environment" in problem.expected
    assert load({"MEMORYD_EMBEDDER": "a.b:C"}, path).embedder == "a.b:C"
    assert load(dotenv=dotenv("MEMORYD_EMBEDDER=none\n")).embedder == "none"


def test_a_flag_holds_no_password() -> None:
    url = f"postgresql+asyncpg://u:{CANARY}@h/d"
    (problem,) = problems_of(flags={"database_url": url})
    assert (problem.name, problem.where) == ("--database-url", "command line")
    assert "MEMORYD_DATABASE_URL" in problem.expected
    assert load({"MEMORYD_DATABASE_URL": url})
    assert load(flags={"database_url": "postgresql+asyncpg://u@h/d"})


def test_a_dotenv_line_that_cannot_be_read_is_a_problem(dotenv: WriteDotenv) -> None:
    path = dotenv(f"A=1\nMEMORYD PORT {CANARY}\nB=2\n")
    assert problems_of(dotenv=path) == (
        Problem("line 2", ".env", "not readable", "expected NAME=value"),
    )


def test_a_dotenv_file_that_cannot_be_read_is_a_problem(
    tmp_path: Path, dotenv: WriteDotenv
) -> None:
    assert problems_of(dotenv=tmp_path)[0].found == "Is a directory"
    assert problems_of(dotenv=dotenv("MEMORYD_HOST=é", "latin-1"))[0].found == "not UTF-8"


def test_no_dotenv_file_is_an_empty_one(tmp_path: Path) -> None:
    assert load(dotenv=tmp_path / ".env") == Settings()


def test_merged_variables_are_the_environment_over_dotenv(dotenv: WriteDotenv) -> None:
    path = dotenv("A=file\nB=file\nEMPTY=\nALONE\n")
    assert merge_variables(environ={"A": "env"}, dotenv=path) == {
        "A": "env",
        "B": "file",
        "EMPTY": "",
    }
    with pytest.raises(SettingsError, match="line 1"):
        merge_variables(environ={}, dotenv=dotenv("A B\n"))


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://memoryd:{CANARY}@db/memoryd",
        f"mysql://{CANARY}",
        CANARY,
        f"sqlite+aiosqlite://{CANARY}",
    ],
)
def test_a_refused_database_url_is_not_shown(url: str) -> None:
    (problem,) = problems_of({"MEMORYD_DATABASE_URL": url})
    assert problem.found == "a text"
    (problem,) = problems_of(flags={"database_url": url})
    assert problem.name == "--database-url"
    with pytest.raises(ValidationError) as caught:
        Settings(database_url=SecretStr(url))
    assert CANARY not in str(caught.value)


def test_the_database_url_is_not_shown() -> None:
    url = f"postgresql+asyncpg://memoryd:{CANARY}@db/memoryd"
    settings = load({"MEMORYD_DATABASE_URL": url})
    assert settings.database_url.get_secret_value() == url
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert CANARY not in shown


@pytest.mark.parametrize(
    ("variable", "value", "shown"),
    [
        ("MEMORYD_PORT", "abc", '"abc"'),
        ("MEMORYD_DRAIN_SECONDS", "20 s", '"20 s"'),
        ("MEMORYD_SESSION_CACHE_BYTES", "32MB", '"32MB"'),
        ("MEMORYD_ENVIRONMENT", "prod", '"prod"'),
        ("MEMORYD_PORT", "hunter2", "a text"),
        ("MEMORYD_PORT", "correcthorsebattery", "a text"),
        ("MEMORYD_DATABASE_URL", "abc", "a text"),
    ],
)
def test_a_value_is_shown_if_it_cannot_be_a_secret(variable: str, value: str, shown: str) -> None:
    (problem,) = problems_of({variable: value})
    assert problem.found == shown


ANY_TEXT = {"MEMORYD_AUTH_FILE"}
"""Refused is the file, when it is read."""


@pytest.mark.parametrize("variable", [row[0] for row in settings_table() if row[0] not in ANY_TEXT])
def test_no_refusal_shows_a_text(variable: str) -> None:
    for text in (f"{CANARY} /", f"\0{CANARY}", f"12/{CANARY}"):
        problems_of({variable: text})


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]  # refused, as the type says


def test_the_table_has_every_setting() -> None:
    rows = settings_table()
    assert [variable for variable, _, _ in rows] == [
        f"MEMORYD_{name.upper()}" for name in Settings.model_fields
    ]
    assert load({variable: default for variable, default, _ in rows}) == Settings()
    assert rows[3] == (
        "MEMORYD_PORT",
        "50051",
        "The port to listen on; 0 is any free one. Accepts a whole number from 0 to 65535.",
    )


def test_only_numbers_are_said_to_be_numbers() -> None:
    for (_, _, said), info in zip(settings_table(), Settings.model_fields.values(), strict=True):
        assert info.annotation in {int, float} or " Accepts a number" not in said


@pytest.mark.parametrize("line", ["MEMORYD_DATABASE_URL:{}", "MEMORYD_X {}=1", "memoryd_{}=1"])
def test_a_line_without_an_assignment_is_named_without_its_text(tmp_path, line):
    url = "postgresql+asyncpg://u:canary@h/d?ssl=1"
    dotenv = tmp_path / ".env"
    dotenv.write_text(line.format(url) + "\n", encoding="utf-8")
    with pytest.raises(SettingsError) as refused:
        load_settings(environ={}, dotenv=dotenv, flags={})
    assert "canary" not in str(refused.value)
    assert ".env" in str(refused.value)
