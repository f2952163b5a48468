"""A server as other machines reach it: keys required, over TLS."""

from __future__ import annotations

import json

import pytest

from memoryd import client
from memoryd.client import TLS, MemoryClient


@pytest.fixture
def database_kind() -> str:
    return "sqlite"


async def test_a_client_calls_with_a_key_over_tls(command_line, tls_folder, authority):
    ca = tls_folder.cert.parent / "ca.crt"
    ca.write_bytes(authority.pem)
    variables = {**tls_folder.variables, "MEMORYD_AUTH": "required"}
    made = command_line.run(
        *("keys", "create", "--tenant", "acme", "--name", "bot", "--scope", "agent", "--json")
    )
    key = json.loads(made.stdout)["key"]
    server = command_line.serve(**variables)
    address = server.address()
    assert 'grpcurl -cacert CA.pem -H "authorization: Bearer $KEY" -d' in server.output
    async with MemoryClient(address, tls=TLS(ca=ca), api_key=key) as memory:
        await memory.store("s", "prefers e-mail")
    async with MemoryClient(address, tls=TLS(ca=ca)) as memory:
        with pytest.raises(client.Unauthenticated) as caught:
            await memory.store("s", "prefers e-mail")
        assert caught.value.reason == "CREDENTIAL_MISSING"
    done = command_line.run("health", MEMORYD_PORT=address.rpartition(":")[2], **variables)
    assert (done.returncode, done.stdout) == (0, "SERVING\n")
    assert key not in server.log


def test_other_machines_are_served_over_tls(command_line, tls_folder):
    everywhere = {"MEMORYD_HOST": "0.0.0.0", "MEMORYD_AUTH": "required"}  # noqa: S104  only checked
    plain = command_line.run("config", "check", **everywhere)
    assert plain.returncode == 1
    assert "MEMORYD_TLS_CERT and MEMORYD_TLS_KEY" in plain.stderr
    done = command_line.run("config", "check", **everywhere, **tls_folder.variables)
    assert done.returncode == 0, done.stderr
