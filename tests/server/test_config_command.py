"""`memoryd config show` and `memoryd config check`, as real processes."""

from __future__ import annotations

import socket

import grpc
import pytest

from memoryd.v1 import tool_config_pb2 as pb
from memoryd.v1.tool_config_pb2_grpc import ToolConfigServiceStub

CANARY = "canary-77aa1e"
AWAY = "postgresql+asyncpg://somebody:{}@127.0.0.1:1/nowhere?password={}"


async def update(running, tool: str, **fields: object) -> None:
    config = pb.ToolConfig(tool=tool, **fields)
    await running.tools.UpdateToolConfig(pb.UpdateToolConfigRequest(tool_config=config))


async def test_every_setting_is_shown_with_its_layer(running, command_line, database_url):
    await update(running, "rag", rag={"chunk_size": 700})
    (command_line.folder / ".env").write_text("RAG_SEARCH_K=7\nMEMORYD_PORT=50099\n")
    done = command_line.run(
        "config", "show", "--database-url", database_url, RAG_CHUNK_SIZE="600", RAG_CACHE_TTL="60"
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for line in (
        "MEMORYD_PORT = 50099  # environment",
        'MEMORYD_HOST = "127.0.0.1"  # default',
        "# overrides: at revision 1",
        "rag.enabled = true  # default",
        "rag.chunk_size = 700  # override",
        "rag.search_k = 7  # environment",
        "rag.cache_ttl = 60  # environment",
        "memory.max_entries = 100  # default",
    ):
        assert line in lines
    (url,) = (line for line in lines if line.startswith("MEMORYD_DATABASE_URL"))
    assert url.endswith("# command line")


def test_no_secret_is_shown(command_line):
    variables = {
        "MEMORYD_DATABASE_URL": AWAY.format(CANARY, CANARY),
        "CRM_API_KEY": CANARY,
        "BILLING_API_KEY": "env://THE_KEY",
        "THE_KEY": CANARY,
    }
    for command in ("show", "check"):
        done = command_line.run("config", command, **variables)
        assert done.returncode == 0
        assert CANARY not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert "overrides: not known" in done.stdout
    shown = command_line.run("config", "show", **variables).stdout
    assert 'crm.api_key = "literal"  # environment' in shown
    assert 'billing.api_key = "env://THE_KEY"  # environment' in shown
    assert 'MEMORYD_DATABASE_URL = "postgresql+asyncpg://127.0.0.1:1/nowhere"' in shown


def test_looking_makes_no_database(command_line):
    assert command_line.run("config", "show").returncode == 0
    sound = command_line.run("config", "check")
    assert (sound.returncode, sound.stderr) == (0, "")
    assert sound.stdout.endswith("no problems; warnings: 0\n")
    assert list(command_line.folder.iterdir()) == []


async def test_warnings_are_reported(running, command_line, database_url):
    await update(running, "crm", enabled=True, crm={"api_key": CANARY})
    done = command_line.run(
        "config", "check", MEMORYD_DATABASE_URL=database_url, ESCALATION_NOTIFICATION_ENABLED="true"
    )
    assert (done.returncode, done.stderr) == (0, "")
    for path in ("crm.api_endpoint", "crm.api_key", "escalation.notification_enabled"):
        assert f"warning: {path}: " in done.stdout
    assert done.stdout.splitlines()[-1] == "no problems; warnings: 3"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RAG_CHUNK_SIZE": "1", "MEMORYD_PORT": "x"}, ("RAG_CHUNK_SIZE", "MEMORYD_PORT")),
        ({"MEMORYD_ENVIRONMENT": "production", "CRM_API_KEY": CANARY}, ("CRM_API_KEY", "env://")),
        (
            {
                "MEMORYD_ENVIRONMENT": "production",
                "MEMORYD_AUTH": "observe",
                "CRM_API_KEY": "env://MISSING",
            },
            ("CRM_API_KEY", "MISSING"),
        ),
    ],
    ids=["bounds", "a literal in production", "a missing secret in production"],
)
def test_a_problem_is_reported_and_fails(command_line, variables, words):
    done = command_line.run("config", "check", **variables)
    assert done.returncode == 1
    assert all(word in done.stderr for word in words)
    assert CANARY not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_warnings_are_logged_at_the_start(command_line):
    server = command_line.serve(ENABLE_CRM_TOOL="true")
    server.address()
    assert "crm.api_endpoint: crm is enabled without api_endpoint" in server.log
    assert server.stop() == 0


def test_a_server_started_without_its_database_serves_the_environment(command_line):
    # The port is chosen beforehand, since a server names its port only once it is ready.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = command_line.serve(
        MEMORYD_DATABASE_URL=AWAY.format("a", "b"), MEMORYD_PORT=str(port), RAG_SEARCH_K="8"
    )
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as opened:
        config = ToolConfigServiceStub(opened).GetToolConfig(
            pb.GetToolConfigRequest(tool="rag"), wait_for_ready=True, timeout=30
        )
    assert (config.rag.search_k, config.stale) == (8, True)
    assert config.HasField("stale_since")
    assert server.stop() == 0


# Effects of the folder and the console


def test_code_in_the_working_folder_is_not_run(command_line):
    """Neither a module named like an imported one, nor a module that `.env` names."""
    code = "open('was_run', 'w').close()\n"
    for name in ("typing_extensions", "sqlalchemy", "dotenv", "asyncio", "json", "evil"):
        (command_line.folder / f"{name}.py").write_text(code)
    assert command_line.run("config", "show").returncode == 0
    (command_line.folder / ".env").write_text("MEMORYD_EMBEDDER=evil:Embedder\n")
    for command in (("config", "show"), ("serve",), ("reindex",)):
        done = command_line.run(*command)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "MEMORYD_EMBEDDER (.env): an import path" in line
    assert not (command_line.folder / "was_run").exists()


def test_a_password_in_a_flag_is_refused_by_every_command(command_line):
    url = f"postgresql+asyncpg://u:{CANARY}@127.0.0.1:1/d"
    (command_line.folder / "given.jsonl").write_text("")
    for command in (
        *(("serve",), ("migrate",), ("sweep", "--once"), ("reindex",), ("config", "show")),
        *(("config", "check"), ("export", "x"), ("import", "given.jsonl"), ("backup", "y")),
    ):
        done = command_line.run(*command, "--database-url", url)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "--database-url" in line
        assert "MEMORYD_DATABASE_URL" in line
        assert CANARY not in done.stdout + line


def test_a_dotenv_variable_that_refers_to_nothing_is_reported(command_line):
    (command_line.folder / ".env").write_text(
        "ENABLE_CRM_TOOL=true\nCRM_API_ENDPOINT=https://c.example\n"
        f"CRM_API_KEY=env://CRM_KEY\nCRM_KEY='{CANARY}${{b}}c'\n"
    )
    done = command_line.run("config", "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning: .env: CRM_KEY refers to b, which is not set" in done.stdout
    assert "the variable CRM_KEY refers to b, which is not set" in done.stdout
    assert "${X:-$}{b}" in done.stdout
    assert CANARY not in done.stdout


@pytest.mark.parametrize(
    "console", [{"PYTHONIOENCODING": "cp1252"}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}]
)
def test_any_console_shows_it(command_line, console):
    keyword = "\N{CJK UNIFIED IDEOGRAPH-7DCA}\N{CJK UNIFIED IDEOGRAPH-6025}"
    done = command_line.run("config", "show", ESCALATION_KEYWORDS=f"{keyword}=1.0", **console)
    assert (done.returncode, done.stderr) == (0, "")
    assert keyword in done.stdout or r"\u7dca\u6025" in done.stdout
    failed = command_line.run("export", f"{keyword}/x", **console)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
