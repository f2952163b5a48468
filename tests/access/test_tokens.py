"""Tokens of an issuer, on calls and streams."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.access.guarded import end_of, outcome
from tests.issuers import AUDIENCE, ISSUER, IssuerKey, claims_at, hmac_token, key_set

from memoryd.v1 import access_pb2 as pb
from memoryd.v1 import memory_pb2

WHO = pb.WhoAmIRequest()


@pytest.fixture
def key() -> IssuerKey:
    return IssuerKey()


@pytest.fixture
def auth_file(tmp_path, key):
    (tmp_path / "keys.json").write_bytes(key_set(key.jwk()))
    path = tmp_path / "auth.toml"
    path.write_text(f"""
[[jwt]]
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
jwks_file = "keys.json"
algorithms = ["ES256"]
tenant_claim = "org"
allowed_tenants = ["acme", "other"]
sessions = ["user-{{sub}}.*"]
""")
    return path


@pytest.fixture
async def guarded(guard, auth_file):
    return await guard(MEMORYD_AUTH_FILE=str(auth_file))


async def test_a_token_says_who_it_is_and_what_it_may_do(guarded, key, clock):
    token = key.sign(claims_at(clock.now, org="acme", scope="memories:read memories:write"))
    caller = guarded.with_key(token)
    who = await caller.access("WhoAmI", WHO)
    assert (who.tenant, who.principal, who.method) == ("acme", "alice", "jwt")
    assert list(who.scopes) == ["memories:read", "memories:write"]
    assert list(who.sessions) == ["user-alice.*"]
    # The leeway is part of it.
    assert who.expire_time.ToDatetime(clock.now.tzinfo) == clock.now + timedelta(seconds=630)
    store = memory_pb2.StoreMemoryRequest(session_id="user-alice.1", content="a fact")
    assert await outcome(caller.memory("StoreMemory", store)) is None
    store.session_id = "user-bob.1"
    found = await outcome(caller.memory("StoreMemory", store))
    assert found is not None
    assert found.reason == "SESSION_NOT_ALLOWED"
    found = await outcome(
        caller.memory("EraseSession", memory_pb2.EraseSessionRequest(session_id="user-alice.1"))
    )
    assert found is not None
    assert found.metadata == {"scope": "memories:erase"}


async def test_tokens_that_do_not_do_are_refused_by_kind(guarded, key, clock):
    good = claims_at(clock.now, org="acme")
    later = claims_at(clock.now - timedelta(seconds=631), org="acme")
    public = key.private.public_key()
    for token, reason in (
        (key.sign(later), "CREDENTIAL_EXPIRED"),
        (IssuerKey().sign(good), "CREDENTIAL_INVALID"),
        (IssuerKey(kid="unknown").sign(good), "CREDENTIAL_INVALID"),
        (hmac_token(good, repr(public).encode(), "one"), "CREDENTIAL_INVALID"),
        (key.sign(good, {"alg": "none"}), "CREDENTIAL_INVALID"),
        (key.sign({**good, "org": "third"}), "CREDENTIAL_INVALID"),
        (key.sign({**good, "aud": "another"}), "CREDENTIAL_INVALID"),
        (key.sign({**good, "sub": "a*"}), "CREDENTIAL_INVALID"),
        ("no.token", "CREDENTIAL_MALFORMED"),
        ("noise", "CREDENTIAL_MALFORMED"),
    ):
        found = await outcome(guarded.with_key(token).access("WhoAmI", WHO))
        assert found is not None, token
        assert (found.code, found.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
        assert token[-20:] not in found.message
    assert await outcome(guarded.with_key(key.sign(good)).access("WhoAmI", WHO)) is None


async def test_a_stream_ends_with_its_token(guarded, key, clock):
    token = key.sign(claims_at(clock.now, org="acme"))
    watching = guarded.with_key(token).memory(
        "WatchMemories", memory_pb2.WatchMemoriesRequest(session_id="user-alice.1")
    )
    await watching.initial_metadata()
    clock.move(timedelta(seconds=630))
    found = await end_of(watching)
    assert found is not None
    assert (found.reason, found.metadata) == ("CREDENTIAL_EXPIRED", {"last_revision": "0"})


async def test_a_tenant_that_is_disabled_or_wants_new_tokens_refuses_old_ones(guarded, key, clock):
    old = guarded.with_key(key.sign(claims_at(clock.now, org="acme")))
    others = guarded.with_key(key.sign(claims_at(clock.now, org="other")))
    watching = old.memory(
        "WatchMemories", memory_pb2.WatchMemoriesRequest(session_id="user-alice.1")
    )
    await watching.initial_metadata()
    clock.move(timedelta(seconds=60))
    first = Timestamp()
    first.FromDatetime(clock.now)
    update = pb.UpdateTenantRequest(tenant="acme", tokens_not_before=first)
    tenant = await guarded.admin.access("UpdateTenant", update)
    assert tenant.tokens_not_before == first
    found = await outcome(old.access("WhoAmI", WHO))
    assert found is not None
    assert found.reason == "CREDENTIAL_REVOKED"
    found = await end_of(watching)
    assert found is not None
    assert found.reason == "CREDENTIAL_REVOKED"
    new = guarded.with_key(key.sign(claims_at(clock.now, org="acme")))
    for caller in (new, others):
        assert await outcome(caller.access("WhoAmI", WHO)) is None
    await guarded.admin.access("UpdateTenant", pb.UpdateTenantRequest(tenant="acme", disabled=True))
    found = await outcome(new.access("WhoAmI", WHO))
    assert found is not None
    assert found.reason == "TENANT_DISABLED"
    assert await outcome(others.access("WhoAmI", WHO)) is None


async def test_keys_go_on_beside_tokens(guarded, key, clock):
    made = await guarded.key("acme")
    token = key.sign(claims_at(clock.now, org="acme"))
    answers = await asyncio.gather(
        *(guarded.with_key(text).access("WhoAmI", WHO) for text in (made.key, token) * 5)
    )
    assert [who.method for who in answers] == ["api_key", "jwt"] * 5


def test_a_server_that_takes_tokens_needs_no_key(command_line, auth_file):
    server = command_line.serve(MEMORYD_AUTH="required", MEMORYD_AUTH_FILE=str(auth_file))
    assert server.address()
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("content", "word"),
    [("[[jwt]]\nissuer = 1\n", "issuer"), ("[[jwt]\n", "TOML"), ("nothing = 1\n", "nothing")],
)
def test_an_auth_file_that_is_wrong_stops_the_start(command_line, tmp_path, content, word):
    path = tmp_path / "wrong.toml"
    path.write_text(content)
    for command in (("serve",), ("config", "check")):
        done = command_line.run(
            *command, MEMORYD_AUTH="required", MEMORYD_AUTH_FILE=str(path), MEMORYD_PORT="0"
        )
        assert done.returncode == 1
        assert word in done.stderr
        assert path.name in done.stderr
        assert "Traceback" not in done.stderr
