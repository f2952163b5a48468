"""What may be served to whom: each refusal of a start names both remedies."""

from __future__ import annotations

import asyncio
import re
import socket

import pytest

from memoryd.access.api_key import new_key
from memoryd.domain.principals import AuthMode
from memoryd.rpc.exposure import Exposure, check_exposure

LOCAL = Exposure(
    "127.0.0.1",
    AuthMode.OFF,
    has_tls=False,
    allow_unauthenticated=False,
    allow_plaintext=False,
    is_production=False,
)
OPEN = ("0.0.0.0", "::", "192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7", "two.example")  # noqa: S104
CLOSED = ("127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "localhost", "gone.example")
TWO_ADDRESSES = ("127.0.0.1", "192.0.2.7")


@pytest.fixture(autouse=True)
def names(monkeypatch):
    """`two.example` has a loopback address and another one; `gone.example` has none."""
    real = asyncio.BaseEventLoop.getaddrinfo

    async def getaddrinfo(self, host, port, **more):
        if host == "gone.example":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        if host == "two.example":
            return [answer for address in TWO_ADDRESSES for answer in await real(self, address, 0)]
        return await real(self, host, port, **more)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


def variable(name: str) -> str:
    return f"MEMORYD_{name.upper()}"


async def refusal(**changed: object) -> str:
    values = {name: getattr(LOCAL, name) for name in Exposure.__slots__} | changed
    try:
        await check_exposure(Exposure(**values), variable)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("host", OPEN)
async def test_callers_on_other_machines_are_let_in_only_where_it_is_meant(host):
    off = await refusal(host=host)
    assert "MEMORYD_AUTH=required" in off
    assert "MEMORYD_ALLOW_UNAUTHENTICATED=true" in off
    plain = await refusal(host=host, allow_unauthenticated=True)
    assert "MEMORYD_TLS_CERT" in plain
    assert "MEMORYD_ALLOW_PLAINTEXT=true" in plain
    assert await refusal(host=host, auth=AuthMode.REQUIRED) == plain
    assert await refusal(host=host, auth=AuthMode.OBSERVE) == plain
    for allowed in ({"has_tls": True}, {"allow_plaintext": True}):
        assert not await refusal(host=host, allow_unauthenticated=True, **allowed)
        assert not await refusal(host=host, auth=AuthMode.REQUIRED, **allowed)


@pytest.mark.parametrize("host", CLOSED)
async def test_this_machine_alone_needs_nothing(host):
    assert not await refusal(host=host)


@pytest.mark.parametrize("host", OPEN + CLOSED)
async def test_production_asks_for_credentials_wherever_it_listens(host):
    allowed = {"allow_unauthenticated": True, "allow_plaintext": True}
    refused = await refusal(host=host, is_production=True, **allowed)
    assert "MEMORYD_AUTH=required" in refused
    assert "MEMORYD_ENVIRONMENT=development" in refused
    assert not await refusal(host=host, is_production=True, auth=AuthMode.REQUIRED, **allowed)


@pytest.mark.parametrize("command", [("serve",), ("config", "check")])
@pytest.mark.parametrize(
    ("variables", "remedies"),
    [
        (
            {"MEMORYD_HOST": "0.0.0.0"},  # noqa: S104  refused
            ("MEMORYD_AUTH=required", "MEMORYD_ALLOW_UNAUTHENTICATED=true"),
        ),
        (
            {"MEMORYD_HOST": "::", "MEMORYD_AUTH": "required"},
            ("MEMORYD_TLS_CERT", "MEMORYD_ALLOW_PLAINTEXT=true"),
        ),
        (
            {"MEMORYD_ENVIRONMENT": "production"},
            ("MEMORYD_AUTH=required", "MEMORYD_ENVIRONMENT=development"),
        ),
    ],
)
def test_the_commands_end_with_one_line(command_line, command, variables, remedies):
    done = command_line.run(*command, **variables, MEMORYD_PORT="0")
    assert (done.returncode, done.stdout) == (1, "")
    assert all(remedy in done.stderr for remedy in remedies)
    assert "Traceback" not in done.stderr


def test_a_server_that_nobody_could_call_does_not_start(command_line):
    done = command_line.run("serve", MEMORYD_AUTH="required", MEMORYD_PORT="0")
    assert (done.returncode, done.stdout) == (1, "")
    assert "memoryd keys create" in done.stderr
    assert "MEMORYD_BOOTSTRAP_KEY" in done.stderr
    key = ("--tenant", "acme", "--name", "n", "--scope", "agent")
    made = command_line.run("keys", "create", *key)
    server = command_line.serve(MEMORYD_AUTH="required")
    assert server.address()
    assert server.stop() == 0
    command_line.run("keys", "revoke", made.stdout[4:16])
    done = command_line.run("serve", MEMORYD_AUTH="required", MEMORYD_PORT="0")
    assert done.returncode == 1
    assert "memoryd keys create" in done.stderr


@pytest.mark.parametrize(
    ("place", "variables"),
    [
        ("env://NOWHERE", {}),
        ("env://SHORT", {"SHORT": "mdk_short"}),
        ("env://CUT", {"CUT": new_key().text[:-1]}),
    ],
)
def test_a_bootstrap_key_that_is_none_stops_the_start(command_line, place, variables):
    done = command_line.run(
        "serve",
        MEMORYD_AUTH="required",
        MEMORYD_PORT="0",
        MEMORYD_BOOTSTRAP_KEY=place,
        **variables,
    )
    assert done.returncode == 1
    assert f"MEMORYD_BOOTSTRAP_KEY: {place}: " in done.stderr
    assert not any(value in done.stderr for value in variables.values())
    assert "Traceback" not in done.stderr


def test_a_bootstrap_key_itself_is_no_place(command_line):
    key = new_key().text
    done = command_line.run("serve", MEMORYD_BOOTSTRAP_KEY=key, MEMORYD_PORT="0")
    assert done.returncode == 1
    assert "MEMORYD_BOOTSTRAP_KEY" in done.stderr
    assert key not in done.stderr


@pytest.mark.parametrize("has_grpcurl", [True, False])
def test_the_ready_lines_call_works_with_a_key(command_line, has_grpcurl):
    key = ("--tenant", "acme", "--name", "n", "--scope", "agent")
    made = command_line.run("keys", "create", *key).stdout.strip()
    path = {} if has_grpcurl else {"PATH": str(command_line.folder)}
    server = command_line.serve(MEMORYD_AUTH="required", **path)
    server.address()
    server.wait_for(lambda: re.search(r"^try: .*\n", server.output, re.MULTILINE))
    example = re.search(r"^try: (.*)$", server.output, re.MULTILINE)[1]
    assert ("grpcurl" in example) == has_grpcurl
    assert re.search("created", command_line.shell(f"KEY={made}; {example}"), re.IGNORECASE)
    assert server.stop() == 0
