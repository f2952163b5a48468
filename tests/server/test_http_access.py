"""Who may call over HTTP: keys, certificates and TLS, as over gRPC."""

from __future__ import annotations

import json
import ssl

import h11
import pytest
from tests.authority import Authority, Issued
from tests.http_client import JSON, call, details_of, exchange, get

from memoryd.rpc import tls

AGENT, STRANGER = "spiffe://acme.example/agent", "spiffe://acme.example/stranger"
STORE = "/memoryd.v1.MemoryService/StoreMemory"
FACT = {"sessionId": "s", "content": "prefers e-mail"}


def trusting(authority: Authority, tmp_path, client: Issued | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if client is not None:
        pair = tmp_path / "client.pem"
        pair.write_bytes(client.key + b"\n" + client.chain)
        context.load_cert_chain(pair)
    return context


@pytest.fixture
def _often(monkeypatch) -> None:
    """Have servers look at their files all the time."""
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.02)


@pytest.fixture
async def required(serve):
    """A server that requires credentials, and the key of its admin."""
    from memoryd.access.api_key import new_key  # noqa: PLC0415  of this fixture alone

    key = new_key().text
    running = await serve(
        MEMORYD_AUTH="required", MEMORYD_BOOTSTRAP_KEY="env://BOOTSTRAP", BOOTSTRAP=key
    )
    return running.server.http_address, key


async def test_a_credential_is_shown_as_over_grpc(required):
    http, key = required
    for shown, status in (({}, 401), ({"authorization": "Bearer x"}, 401)):
        refused = await call(http, "StoreMemory", FACT, **shown)
        assert (refused.status, refused.json["code"]) == (status, "unauthenticated")
        assert refused.headers["www-authenticate"] == "Bearer"
    made = await call(
        http,
        "/memoryd.v1.AccessService/CreateApiKey",
        {"tenant": "acme", "name": "n", "scopes": ["memories:read"]},
        authorization=f"Bearer {key}",
    )
    assert made.status == 200
    reader = {"authorization": f"Bearer {made.json['key']}"}
    assert (await call(http, "ListMemories", {"sessionId": "s"}, **reader)).status == 200
    refused = await call(http, "StoreMemory", FACT, **reader)
    assert (refused.status, refused.json["code"]) == (403, "permission_denied")
    assert "www-authenticate" not in refused.headers
    reason = details_of(refused.json)["google.rpc.ErrorInfo"]["reason"]
    assert reason == "SCOPE_MISSING"
    assert (await get(http, "/readyz")).status == 200


async def test_a_stranger_is_refused_before_its_message_is_read(required):
    http, _ = required
    async with exchange(http, STORE, None, JSON | {"content-length": "4000000"}) as found:
        await found.send(h11.Data(data=b"{"))  # and no more
        await found.begin()
        body = b"".join([chunk async for chunk in found.chunks()])
    assert (found.status, json.loads(body)["code"]) == (401, "unauthenticated")


async def test_http_is_served_over_tls(serve, authority, tls_folder, tmp_path):
    running = await serve(**tls_folder.variables, MEMORYD_TLS_MIN="1.3")
    http, trusted = running.server.http_address, trusting(authority, tmp_path)
    answer = await get(http, "/readyz", tls=trusted)
    assert answer.json == {"status": "SERVING"}
    trusted.maximum_version = ssl.TLSVersion.TLSv1_2
    for context in (trusted, ssl.create_default_context(), None):
        with pytest.raises((ssl.SSLError, ConnectionError, h11.RemoteProtocolError)):
            await get(http, "/readyz", tls=context)


@pytest.mark.usefixtures("_often")
async def test_a_renewed_certificate_is_taken_up(
    serve, authority, tls_folder, tmp_path, eventually
):
    running = await serve(**tls_folder.variables)
    http, context = running.server.http_address, trusting(authority, tmp_path)

    async def serial() -> int:
        async with exchange(http, "/livez", b"", method="GET", tls=context) as found:
            shown = found.writer.get_extra_info("ssl_object").getpeercert()
        return int(shown["serialNumber"], 16)

    first = await serial()
    issued = authority.issue("memoryd.test")
    tls_folder.write(issued)
    assert issued.serial != first

    async def is_renewed() -> bool:
        return await serial() == issued.serial

    await eventually(is_renewed)


async def test_a_certificate_names_its_caller(serve, authority, closed_tls_folder, tmp_path):
    path = tmp_path / "auth.toml"
    path.write_text(f"""
[[mtls]]
san = "{AGENT}"
tenant = "acme"
scopes = ["memories:read", "memories:write"]
""")
    running = await serve(
        **closed_tls_folder.variables, MEMORYD_AUTH="required", MEMORYD_AUTH_FILE=str(path)
    )
    http = running.server.http_address
    who = "/memoryd.v1.AccessService/WhoAmI"
    agent = trusting(authority, tmp_path, authority.issue("agent", uri=AGENT))
    answer = await call(http, who, {}, tls=agent)
    assert (answer.json["tenant"], answer.json["principal"]) == ("acme", AGENT)
    stranger = trusting(authority, tmp_path, authority.issue("agent", uri=STRANGER))
    assert (await call(http, who, {}, tls=stranger)).status == 401
    with pytest.raises((ssl.SSLError, ConnectionError, h11.RemoteProtocolError)):
        await call(http, who, {}, tls=trusting(authority, tmp_path))
