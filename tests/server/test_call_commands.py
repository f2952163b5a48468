"""The commands that call a server: what they print, and how they fail."""

from __future__ import annotations

import json
import shlex
import signal
import sys

import pytest
from tests.authority import Folder

SESSION = "user-123"


@pytest.fixture
def database_kind() -> str:
    """All of this lies before the database."""
    return "sqlite"


@pytest.fixture
def served(command_line, database_url):
    """Run a command against a server; it fails unless another exit code is expected."""
    server = command_line.serve(MEMORYD_DATABASE_URL=database_url)
    target = server.address()

    def run(*arguments: str, code: int = 0, **variables: str) -> str:
        done = command_line.run(*arguments, MEMORYD_TARGET=target, **variables)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr if code else done.stdout

    run.target = target
    return run


def test_a_memory_is_stored_and_found(served):
    assert served("store", SESSION, "prefers e-mail", "--type", "preference").startswith("created ")
    assert served("store", SESSION, "Prefers E-MAIL.", "--type", "preference").startswith("merged ")
    named = ("--key", "order", "--tag", "a", "--tag", "b", "--importance", "0.9")
    served("store", SESSION, "order 4711 is late", *named, "--metadata", '{"order": 4711}')
    assert "prefers e-mail" in served("retrieve", SESSION, "how to reach them")
    listed = served("list", SESSION).splitlines()
    assert [line.split("  ", 1)[1] for line in listed] == [
        "preference  prefers e-mail",
        "context     order 4711 is late",
    ]
    assert served("sessions", "user-").startswith(f"{SESSION}  2 memories  20")
    assert not served("sessions", "nobody")


def test_json_has_all_of_an_answer(served):
    stored = json.loads(served("store", SESSION, "a fact", "--tag", "x", "--json"))
    assert stored["outcome"] == "STORE_OUTCOME_CREATED"
    (listed,) = map(json.loads, served("list", SESSION, "--json").splitlines())
    assert (listed["content"], listed["tags"]) == ("a fact", ["x"])
    (found,) = map(json.loads, served("retrieve", SESSION, "--limit", "1", "--json").splitlines())
    assert found["memory"]["memoryId"] == listed["memoryId"]
    (session,) = map(json.loads, served("sessions", "--json").splitlines())
    assert session["memoryCount"] == "1"


def test_a_watch_goes_on_until_it_is_interrupted(served, command_line):
    served("store", SESSION, "first\x1b[31m\nline")
    # Else a command that was started in the background would ignore it, as this process may.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    watching = command_line.start("watch", SESSION, MEMORYD_TARGET=served.target)
    signal.signal(signal.SIGINT, before)
    watching.wait_for(lambda: watching.output.count("\n") == 1)
    served("store", SESSION, "second")
    watching.wait_for(lambda: watching.output.count("\n") == 2)
    assert watching.output.splitlines() == ["1  created   first [31m line", "2  created   second"]
    watching._process.send_signal(signal.SIGINT)  # noqa: SLF001  as a terminal does
    assert watching.wait() == 130
    assert "Traceback" not in watching.log


def test_nothing_is_erased_unless_one_is_sure(served):
    served("store", SESSION, "a fact")
    assert "--yes" in served("erase", SESSION, code=1)
    assert served("list", SESSION)
    assert served("erase", SESSION, "--yes").startswith("erased 1 memory, ")
    assert not served("list", SESSION)


def test_the_tools_are_shown(served):
    assert "rag         on" in served("tools").splitlines()
    assert json.loads(served("tools", "rag", "--json"))["tool"] == "rag"
    assert "search_k" in served("tools", "rag") or "searchK" in served("tools", "rag")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("store", "", "a fact"), "session_id"),
        (("store", SESSION, "a fact", "--type", "prefrence"), "content_type"),
        (("store", SESSION, "a fact", "--metadata", "{"), "--metadata"),
        (("store", SESSION, "a fact", "--metadata", "[]"), "--metadata"),
        (("retrieve", SESSION, "--limit", "-1"), "limit"),
        (("tools", "hammer"), "inventory"),
        (("list", SESSION, "--target", "127.0.0.1:1"), "127.0.0.1:1"),
        (("list", SESSION, "--target", "127.0.0.1:1"), "--target or MEMORYD_TARGET"),
        (("list", SESSION, "--target", "http://127.0.0.1:1"), "HOST:PORT"),
        (("list", SESSION, "--ca", "nowhere.pem"), "nowhere.pem"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(served, arguments, said):
    assert said in served(*arguments, code=1)


@pytest.mark.parametrize(
    "arguments", [("tools",), ("list", SESSION), ("config", "show"), ("--version",)]
)
def test_output_that_cannot_be_written_is_said_in_a_line(served, command_line, arguments):
    served("store", SESSION, "a fact")
    command = shlex.join([sys.executable, "-m", "memoryd", *arguments])
    target = f"MEMORYD_TARGET={served.target}"
    said = command_line.shell(f"{target} {command} 2>&1 >/dev/full || echo failed")
    assert said.splitlines() == ["memoryd: [Errno 28] No space left on device", "failed"]
    # A reader that has enough is nothing to complain of.
    assert command_line.shell(f"{{ {target} {command} 2>complaint; }} | true; cat complaint") == ""


def test_a_key_is_shown(command_line):
    made = command_line.run(
        "keys", "create", "--tenant", "acme", "--name", "n", "--scope", "reader"
    )
    target = {"MEMORYD_TARGET": command_line.serve(MEMORYD_AUTH="required").address()}
    assert "UNAUTHENTICATED" in command_line.run("list", SESSION, **target).stderr
    key = {"MEMORYD_API_KEY": made.stdout.strip()}
    assert command_line.run("list", SESSION, **target, **key).returncode == 0
    refused = command_line.run("store", SESSION, "a fact", **target, **key)
    assert "PERMISSION_DENIED" in refused.stderr


def test_commands_call_over_tls(command_line, authority, tls_folder, tmp_path):
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority.pem)
    target = {"MEMORYD_TARGET": command_line.serve(**tls_folder.variables).address()}
    assert command_line.run("list", SESSION, "--ca", str(roots), **target).returncode == 0
    well_known = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(roots)}
    assert command_line.run("list", SESSION, "--tls", **target, **well_known).returncode == 0
    for wrong in ((), ("--tls",)):
        refused = command_line.run("list", SESSION, *wrong, **target)
        assert refused.returncode == 1
        assert "--tls" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


def test_commands_show_a_certificate(command_line, authority, closed_tls_folder, tmp_path):
    server = command_line.serve(PATH="/usr/bin:/bin", **closed_tls_folder.variables)  # no grpcurl
    address = server.address()
    assert "--ca CA.pem --client-cert CLIENT.pem --client-key CLIENT.key" in server.output
    client = Folder(tmp_path / "client", authority.issue())
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority.pem)
    given = ("--target", address, "--ca", str(roots))
    shown = ("--client-cert", str(client.cert), "--client-key", str(client.key))
    assert command_line.run("list", SESSION, *given, *shown).returncode == 0
    assert command_line.run("list", SESSION, *given).returncode == 1
    half = command_line.run("list", SESSION, *given, *shown[:2])
    assert half.returncode == 1
    assert "tls.key" in half.stderr


def test_no_command_that_reads_makes_a_file(command_line):
    before = sorted(command_line.folder.iterdir())
    for arguments in (
        *(("list", SESSION), ("retrieve", SESSION), ("sessions",), ("watch", SESSION), ("tools",)),
        *(("--version",), ("--help",), ("health",), ("doctor",), ("config", "show")),
        *(("config", "check"), ("keys", "list"), ("keys", "list", "--json"), ("audit",)),
        *(("audit", "verify"), ("keys", "revoke", "k"), ("keys", "rotate", "k", "--overlap", "1h")),
    ):
        nobody = ("--target", "127.0.0.1:1") if arguments[0] in {"list", "retrieve"} else ()
        command_line.run(*arguments, *nobody, MEMORYD_TARGET="127.0.0.1:1", MEMORYD_PORT="1")
    assert sorted(command_line.folder.iterdir()) == before
