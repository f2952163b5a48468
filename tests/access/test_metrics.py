"""Who may see in a scrape which tenants there are."""

from __future__ import annotations

import asyncio

import pytest
from tests.http_client import get
from tests.scrapes import scrape

from memoryd.access.api_key import new_key
from memoryd.telemetry.metrics import MOST_TENANTS
from memoryd.v1 import access_pb2 as access_pb
from memoryd.v1 import memory_pb2 as pb

STORES = "memoryd_stores_total"
REFUSALS = "memoryd_refusals_total"


@pytest.fixture
def database_kind():
    return "sqlite"


async def store(guarded, tenant: str, content: str = "prefers e-mail") -> None:
    caller = await guarded.caller(tenant, scopes=["memories:write"])
    await caller.memory("StoreMemory", pb.StoreMemoryRequest(session_id="s", content=content))


def tenants(found) -> set[str | None]:
    return {
        labels.get("tenant") for series in (STORES, REFUSALS) for labels in found.labels(series)
    }


async def test_tenants_are_told_to_an_admin_of_the_instance_alone(guarded):
    http = guarded.server.http_address
    await store(guarded, "acme")
    await store(guarded, "zeta")
    with pytest.raises(Exception, match="session_id"):
        await (await guarded.caller("acme")).memory("StoreMemory", pb.StoreMemoryRequest())

    to_admin = await scrape(http, guarded.bootstrap_key)
    assert to_admin.value(STORES, outcome="created", tenant="acme") == 1
    assert to_admin.value(REFUSALS, tenant="acme") == 1
    for key in ("", (await guarded.key("acme")).key):
        found = await scrape(http, key)
        assert tenants(found) == {None}
        assert found.value(STORES, outcome="created") == 2
        assert "acme" not in found.text


async def test_who_is_refused_for_its_credential_is_counted_for_its_tenant(guarded):
    reader = await guarded.caller("acme", scopes=["memories:read"])
    made = await guarded.key("zeta")
    revoked = guarded.with_key(made.key)
    revoke = access_pb.RevokeApiKeyRequest(tenant="zeta", key_id=made.api_key.key_id)
    await guarded.admin.access("RevokeApiKey", revoke)
    for caller in (reader, revoked):
        with pytest.raises(Exception, match=r"memories:write|revoked"):
            await caller.memory("StoreMemory", pb.StoreMemoryRequest())
    found = await scrape(guarded.server.http_address, guarded.bootstrap_key)
    assert found.value(REFUSALS, reason="SCOPE_MISSING", tenant="acme") == 1
    assert found.value(REFUSALS, reason="CREDENTIAL_REVOKED", tenant="zeta") == 1


async def test_while_credentials_are_observed_it_is_so_too(guard):
    guarded = await guard(MEMORYD_AUTH="observe")
    http = guarded.server.http_address
    request = pb.StoreMemoryRequest(session_id="s", content="prefers e-mail")
    await guarded.with_key().memory("StoreMemory", request)
    assert tenants(await scrape(http)) == {None}
    assert (await scrape(http, guarded.bootstrap_key)).value(STORES, tenant="default") == 1


async def test_a_key_that_is_none_is_refused(guarded):
    http = guarded.server.http_address
    headers = {"authorization": "Bearer mk_nobody"}
    refused = await get(http, "/metrics", headers=headers)
    assert (refused.status, refused.json["code"]) == (401, "unauthenticated")
    assert refused.headers["www-authenticate"] == "Bearer"
    made = await guarded.key("acme")
    revoked = {"authorization": f"Bearer {made.key}x"}
    assert (await get(http, "/metrics", headers=revoked)).status == 401


async def test_beyond_so_many_tenants_none_is_told_and_no_count_is_lost(guarded):
    http, key = guarded.server.http_address, guarded.bootstrap_key
    for number in range(MOST_TENANTS):
        await store(guarded, f"tenant-{number}")
    found = await scrape(http, key)
    assert len({labels["tenant"] for labels in found.labels(STORES)} - {""}) == MOST_TENANTS
    await asyncio.gather(*(store(guarded, f"more-{number}") for number in range(3)))
    found = await scrape(http, key)
    assert tenants(found) == {None}
    assert found.value(STORES, outcome="created") == MOST_TENANTS + 3


async def test_a_scrape_with_a_key_is_answered_while_the_database_is_away(
    guard, tables, eventually
):
    guarded = await guard(MEMORYD_AUTH_STALE_SECONDS="0")
    http, key = guarded.server.http_address, new_key().text
    await tables.execute("ALTER TABLE api_keys RENAME TO away")
    await tables.execute("UPDATE access_head SET revision = revision + 1")

    async def is_answered() -> bool:
        shown = {"authorization": f"Bearer {key}"}
        return (await get(http, "/metrics", headers=shown)).status == 200

    await eventually(is_answered)  # until then it is known for none
    assert tenants(await scrape(http, key)) == {None}
    await tables.execute("ALTER TABLE away RENAME TO api_keys")
