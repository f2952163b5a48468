"""Client certificates, alone and together with keys."""

from __future__ import annotations

import grpc
import pytest
from tests.access.guarded import Caller, outcome

from memoryd.access.api_key import new_key
from memoryd.v1 import access_pb2 as pb
from memoryd.v1 import memory_pb2

WHO = pb.WhoAmIRequest()
AGENT, STRANGER = "spiffe://acme.example/agent", "spiffe://acme.example/stranger"


@pytest.fixture
async def connect(serve, tmp_path, authority, closed_tls_folder):
    """Connect with a certificate of the authority, and show keys over that connection."""
    path = tmp_path / "auth.toml"
    path.write_text(f"""
[[mtls]]
san = "{AGENT}"
tenant = "acme"
scopes = ["memories:read", "memories:write"]
sessions = ["agent.*", "chat"]
""")
    key = new_key().text
    running = await serve(
        **closed_tls_folder.variables,
        MEMORYD_AUTH="required",
        MEMORYD_AUTH_FILE=str(path),
        MEMORYD_BOOTSTRAP_KEY="env://BOOT",
        BOOT=key,
    )
    channels = []

    def connected(uri: str, *credentials: str) -> Caller:
        issued = authority.issue("client.test", uri=uri)
        shown = grpc.ssl_channel_credentials(authority.pem, issued.key, issued.chain)
        # A pool of its own: channels that look alike share a connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels.append(grpc.aio.secure_channel(running.address, shown, options))
        return Caller(channels[-1], *credentials)

    connected.admin = connected(STRANGER, key)
    yield connected
    for channel in channels:
        await channel.close()


async def test_a_certificate_is_a_credential(connect):
    caller = connect(AGENT)
    who = await caller.access("WhoAmI", WHO)
    assert (who.tenant, who.principal, who.method) == ("acme", AGENT, "certificate")
    assert list(who.scopes) == ["memories:read", "memories:write"]
    assert list(who.sessions) == ["agent.*", "chat"]
    assert who.HasField("expire_time")
    listing = memory_pb2.ListMemoriesRequest(session_id="agent.1")
    assert await outcome(caller.memory("ListMemories", listing)) is None
    listing.session_id = "other"
    found = await outcome(caller.memory("ListMemories", listing))
    assert found is not None
    assert found.reason == "SESSION_NOT_ALLOWED"


async def test_a_certificate_that_no_table_names_opens_nothing(connect):
    found = await outcome(connect(STRANGER).access("WhoAmI", WHO))
    assert found is not None
    assert found.reason == "CREDENTIAL_MISSING"


async def test_a_certificate_and_a_key_open_what_both_do(connect):
    async def key(tenant: str, *scopes: str) -> str:
        request = pb.CreateApiKeyRequest(
            tenant=tenant, name="n", scopes=scopes, sessions=["chat", "user-7"]
        )
        made = await connect.admin.access("CreateApiKey", request)
        return str(made.key)

    text = await key("acme", "memories:read", "tools:read")
    who = await connect(AGENT, text).access("WhoAmI", WHO)
    assert (who.principal, who.method) == ("n", "api_key")
    assert list(who.scopes) == ["memories:read"]
    assert list(who.sessions) == ["chat"]
    # Without a table for the certificate the key alone counts.
    who = await connect(STRANGER, text).access("WhoAmI", WHO)
    assert list(who.scopes) == ["memories:read", "tools:read"]
    found = await outcome(connect(AGENT, await key("other", "reader")).access("WhoAmI", WHO))
    assert found is not None
    assert found.reason == "CREDENTIAL_INVALID"
    found = await outcome(connect(AGENT, new_key().text).access("WhoAmI", WHO))
    assert found is not None
    assert found.reason == "CREDENTIAL_INVALID"


async def test_a_disabled_tenants_certificate_is_refused(connect):
    update = pb.UpdateTenantRequest(tenant="acme", disabled=True)
    await connect.admin.access("UpdateTenant", update)
    found = await outcome(connect(AGENT).access("WhoAmI", WHO))
    assert found is not None
    assert found.reason == "TENANT_DISABLED"
