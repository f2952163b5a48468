"""API keys over their life: made, used, narrowed, rotated, revoked."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.access.guarded import end_of, outcome

from memoryd.access.keyring import USE_KEPT
from memoryd.v1 import access_pb2 as pb
from memoryd.v1 import memory_pb2, tool_config_pb2

WHO = pb.WhoAmIRequest()
SESSION = "user-7.a"


# Making them


async def test_a_key_says_whose_it_is_and_what_it_may_do(guarded, clock):
    made = await guarded.key(
        "acme", scopes=["agent", "memories:erase"], sessions=["user-7.*", "chat"]
    )
    caller = guarded.with_key(made.key)
    who = await caller.access("WhoAmI", WHO)
    assert (who.tenant, who.principal, who.method) == ("acme", "a key", "api_key")
    assert list(who.scopes) == [
        *("conversations:read", "conversations:write", "documents:read", "documents:write"),
        *("memories:erase", "memories:read", "memories:write", "tools:read"),
    ]
    assert list(who.sessions) == ["user-7.*", "chat"]
    assert who.expire_time.ToDatetime(clock.now.tzinfo) == clock.now + timedelta(days=365)
    assert made.api_key.key_id == made.key_id == made.key[4:16]
    assert list(made.api_key.scopes) == list(who.scopes)


async def test_the_bootstrap_key_is_the_instances_admin(guarded):
    who = await guarded.admin.access("WhoAmI", WHO)
    assert (who.tenant, who.principal, list(who.scopes)) == (
        "default",
        "bootstrap",
        ["instance:admin"],
    )
    assert not who.HasField("expire_time")


@pytest.mark.parametrize(
    ("wider", "reason", "told"),
    [
        ({"tenant": "other"}, "SCOPE_MISSING", "instance:admin"),
        ({"scopes": ["reader"]}, "SCOPE_MISSING", "conversations:read"),
        ({"scopes": ["memories:read", "tools:write"]}, "SCOPE_MISSING", "tools:write"),
        ({"sessions": []}, "ERROR_REASON_INVALID_REQUEST", "sessions"),
        ({"sessions": ["user-7.*", "user-8"]}, "ERROR_REASON_INVALID_REQUEST", "sessions"),
        ({"ttl": Duration(seconds=3601)}, "ERROR_REASON_INVALID_REQUEST", "ttl"),
        ({"never_expires": True}, "ERROR_REASON_INVALID_REQUEST", "ttl"),
    ],
)
async def test_no_key_is_wider_than_its_maker(guarded, wider, reason, told):
    caller = await guarded.caller(
        "acme",
        scopes=["memories:read", "memories:write", "tenant:admin"],
        sessions=["user-7.*", "chat"],
        ttl=Duration(seconds=3600),
    )
    narrow = {
        "name": "narrow",
        "scopes": ["memories:read"],
        "sessions": ["user-7.a.*", "chat"],
        "ttl": Duration(seconds=3600),
    }
    assert await outcome(caller.access("CreateApiKey", pb.CreateApiKeyRequest(**narrow))) is None
    if "never_expires" in wider:
        del narrow["ttl"]
    request = pb.CreateApiKeyRequest(**{**narrow, **wider})
    found = await outcome(caller.access("CreateApiKey", request))
    assert found is not None
    assert found.reason == reason
    assert told in found.message
    listed = await caller.access("ListApiKeys", pb.ListApiKeysRequest())
    assert {key.name for key in listed.api_keys} == {"a key", "narrow"}


async def test_a_key_ends_with_its_makers_where_nothing_is_said(guarded, clock):
    caller = await guarded.caller("acme", ttl=Duration(seconds=3600))
    made = await caller.access("CreateApiKey", pb.CreateApiKeyRequest(name="n", scopes=["reader"]))
    end = made.api_key.expire_time.ToDatetime(clock.now.tzinfo)
    assert end == clock.now + timedelta(hours=1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tenant", "Acme"),
        ("tenant", "a" * 65),
        ("name", ""),
        ("name", "x" * 129),
        ("name", "\0"),
        ("scopes", []),
        ("scopes", ["memories:all"]),
        ("sessions", ["user-1*"]),
        ("sessions", ["s"] * 65),
        ("ttl", Duration(seconds=0)),
        ("ttl", Duration(seconds=-1)),
        ("ttl", Duration(seconds=300_000_000_000)),
    ],
)
async def test_a_grant_that_cannot_be_is_refused_by_its_field(guarded, field, value):
    given = {"tenant": "acme", "name": "n", "scopes": ["reader"], field: value}
    found = await outcome(guarded.admin.access("CreateApiKey", pb.CreateApiKeyRequest(**given)))
    assert found is not None
    assert found.code is grpc.StatusCode.INVALID_ARGUMENT
    assert found.message.startswith(f"{field}: ")


# Listing them


async def test_keys_are_listed_page_by_page_and_by_tenant(guarded, clock):
    ids = [(await guarded.key("acme")).key_id for _ in range(5)]
    await guarded.key("other")
    listing = pb.ListApiKeysRequest(tenant="acme", page_size=2)
    found = []
    while True:
        page = await guarded.admin.access("ListApiKeys", listing)
        found += page.api_keys
        listing.page_token = page.next_page_token
        if not listing.page_token:
            break
    assert [key.key_id for key in found] == sorted(ids)
    assert {key.tenant for key in found} == {"acme"}
    assert all(key.create_time.ToDatetime(clock.now.tzinfo) == clock.now for key in found)
    text = str(found)
    assert not any(key[17:60] in text for key in guarded.made)
    listing.page_token = "not a token"  # noqa: S105  as it says
    refused = await outcome(guarded.admin.access("ListApiKeys", listing))
    assert refused is not None
    assert refused.message.startswith("page_token: ")


@pytest.mark.parametrize("method", ["ListApiKeys", "RevokeApiKey", "RotateApiKey", "CreateApiKey"])
async def test_another_tenants_keys_are_the_instance_admins(guarded, method):
    theirs = await guarded.key("other")
    caller = await guarded.caller("acme")
    request = getattr(pb, f"{method}Request")(tenant="other")
    found = await outcome(caller.access(method, request))
    assert found is not None
    assert (found.reason, found.metadata) == ("SCOPE_MISSING", {"scope": "instance:admin"})
    if method in {"RevokeApiKey", "RotateApiKey"}:
        request = getattr(pb, f"{method}Request")(key_id=theirs.key_id)
        found = await outcome(caller.access(method, request))
        assert found is not None
        assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "KEY_NOT_FOUND")


async def test_an_instance_admins_key_is_no_tenant_admins_to_revoke(guarded):
    theirs = await guarded.key("acme", scopes=["instance:admin"])
    caller = await guarded.caller("acme")
    for method in ("RevokeApiKey", "RotateApiKey"):
        request = getattr(pb, f"{method}Request")(key_id=theirs.key_id)
        found = await outcome(caller.access(method, request))
        assert found is not None
        assert found.reason == "SCOPE_MISSING"
    assert await outcome(guarded.with_key(theirs.key).access("WhoAmI", WHO)) is None


# Their end


async def test_a_revoked_key_is_refused_on_every_replica(guard, eventually):
    one = await guard()
    two = await guard()
    made = await one.key("acme")
    here, there = one.with_key(made.key), two.with_key(made.key)
    assert await outcome(here.access("WhoAmI", WHO)) is None

    async def opens_there() -> bool:
        return await outcome(there.access("WhoAmI", WHO)) is None

    await eventually(opens_there)
    revoked = await one.admin.access(
        "RevokeApiKey", pb.RevokeApiKeyRequest(tenant="acme", key_id=made.key_id)
    )
    assert revoked.HasField("revoke_time")
    found = await outcome(here.access("WhoAmI", WHO))
    assert found is not None
    assert found.reason == "CREDENTIAL_REVOKED"

    async def is_refused_there() -> bool:
        found = await outcome(there.access("WhoAmI", WHO))
        return found is not None and found.reason == "CREDENTIAL_REVOKED"

    await eventually(is_refused_there)
    again = await one.admin.access(
        "RevokeApiKey", pb.RevokeApiKeyRequest(tenant="acme", key_id=made.key_id)
    )
    assert again.revoke_time == revoked.revoke_time


async def test_a_rotated_key_overlaps_with_its_successor(guarded, clock):
    old = await guarded.key("acme", sessions=["chat"], ttl=Duration(seconds=7200))
    clock.move(timedelta(seconds=1800))
    new = await guarded.admin.access(
        "RotateApiKey",
        pb.RotateApiKeyRequest(tenant="acme", key_id=old.key_id, overlap=Duration(seconds=3600)),
    )
    assert new.key_id != old.key_id
    assert list(new.api_key.sessions) == ["chat"]
    assert new.api_key.scopes == old.api_key.scopes
    end = new.api_key.expire_time.ToDatetime(clock.now.tzinfo)
    assert end == clock.now + timedelta(seconds=7200)
    before, after = guarded.with_key(old.key), guarded.with_key(new.key)
    for caller in (before, after):
        assert await outcome(caller.access("WhoAmI", WHO)) is None
    clock.move(timedelta(seconds=3600))
    found = await outcome(before.access("WhoAmI", WHO))
    assert found is not None
    assert found.reason == "CREDENTIAL_EXPIRED"
    assert await outcome(after.access("WhoAmI", WHO)) is None
    found = await outcome(
        guarded.admin.access(
            "RotateApiKey", pb.RotateApiKeyRequest(tenant="acme", key_id=old.key_id)
        )
    )
    assert found is not None
    assert found.message.startswith("key_id: ")


async def test_a_key_that_ends_with_the_calendar_can_be_rotated(guarded, clock):
    end = datetime(9999, 12, 31, tzinfo=UTC)
    lifetime = Duration()
    lifetime.FromTimedelta(end - clock.now)
    old = await guarded.key("acme", ttl=lifetime)
    clock.move(timedelta(days=400))
    new = await guarded.admin.access(
        "RotateApiKey", pb.RotateApiKeyRequest(tenant="acme", key_id=old.key_id)
    )
    assert new.api_key.expire_time.ToDatetime(UTC) > end


async def test_no_rotation_prolongs_a_key(guarded, clock):
    old = await guarded.key("acme", ttl=Duration(seconds=60))
    overlap = Duration(seconds=3600)
    await guarded.admin.access(
        "RotateApiKey",
        pb.RotateApiKeyRequest(tenant="acme", key_id=old.key_id, overlap=overlap),
    )
    clock.move(timedelta(seconds=60))
    found = await outcome(guarded.with_key(old.key).access("WhoAmI", WHO))
    assert found is not None
    assert found.reason == "CREDENTIAL_EXPIRED"


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_streams_end_with_their_credential_and_say_where_to_resume(guarded, clock, end):
    made = await guarded.key("acme", ttl=Duration(seconds=3600))
    caller = guarded.with_key(made.key)
    owner = await guarded.caller("acme")
    watching = caller.memory("WatchMemories", memory_pb2.WatchMemoriesRequest(session_id=SESSION))
    tools = caller.tools("WatchToolConfigs", tool_config_pb2.WatchToolConfigsRequest())
    storing = caller.memory("StreamStoreMemories", endless())
    kept = owner.memory("WatchMemories", memory_pb2.WatchMemoriesRequest(session_id=SESSION))
    await owner.memory(
        "StoreMemory", memory_pb2.StoreMemoryRequest(session_id=SESSION, content="a fact")
    )
    assert (await watching.read()).revision == 1
    assert (await kept.read()).revision == 1
    await asyncio.gather(tools.read(), storing.read())
    if end == "revoked":
        request = pb.RevokeApiKeyRequest(tenant="acme", key_id=made.key_id)
        await guarded.admin.access("RevokeApiKey", request)
    else:
        clock.move(timedelta(seconds=3600))
    for call in (watching, tools, storing):
        found = await end_of(call)
        assert found is not None
        assert (found.code, found.reason) == (
            grpc.StatusCode.UNAUTHENTICATED,
            f"CREDENTIAL_{end.upper()}",
        )
        if call is watching:
            assert found.metadata == {"last_revision": "1"}
    assert not kept.done()
    kept.cancel()


async def endless():
    yield memory_pb2.StreamStoreMemoriesRequest(
        requests=[memory_pb2.StoreMemoryRequest(session_id="user-7.b", content="streamed")]
    )
    await asyncio.Event().wait()


async def test_when_a_key_was_last_used_is_kept_to_ten_minutes(guarded, clock, eventually):
    made = await guarded.key("acme")
    caller = guarded.with_key(made.key)

    async def last_used():
        listing = pb.ListApiKeysRequest(tenant="acme")
        (key,) = (await guarded.admin.access("ListApiKeys", listing)).api_keys
        used = key.HasField("last_used_time")
        return key.last_used_time.ToDatetime(clock.now.tzinfo) if used else None

    assert await last_used() is None
    first = clock.now
    await caller.access("WhoAmI", WHO)

    async def is_kept() -> bool:
        return await last_used() == first

    await eventually(is_kept)
    clock.move(USE_KEPT - timedelta(seconds=1))
    await caller.access("WhoAmI", WHO)
    await asyncio.sleep(0)
    assert await last_used() == first
    clock.move(timedelta(seconds=1))
    await caller.access("WhoAmI", WHO)
    second = clock.now

    async def is_moved_on() -> bool:
        return await last_used() == second

    await eventually(is_moved_on)


# The command line


async def test_keys_by_the_command_line_open_a_server_that_runs(
    command_line, guarded, database_url, eventually
):
    url = {"MEMORYD_DATABASE_URL": database_url}

    async def run(*arguments: str) -> str:
        done = await asyncio.to_thread(command_line.run, "keys", *arguments, **url)
        assert done.returncode == 0, done.stderr
        return done.stdout

    options = ("--tenant", "acme", "--name", "ci", "--scope", "agent", "--scope", "memories:erase")
    made = json.loads(await run("create", *options, "--session", "user-7.*", "--json"))
    assert set(made) == {*("key", "key_id", "tenant", "name", "scopes", "sessions", "expire_time")}
    caller = guarded.with_key(made["key"])

    async def opens() -> bool:
        return await outcome(caller.access("WhoAmI", WHO)) is None

    await eventually(opens)
    rotated = (await run("rotate", made["key_id"], "--overlap", "24h")).strip()
    plain = (await run("create", *options, "--no-expiry")).strip()
    listed = {key["key_id"]: key for key in json.loads(await run("list", "--json"))}
    assert set(listed) == {made["key_id"], rotated[4:16], plain[4:16]}
    assert listed[plain[4:16]]["expire_time"] is None
    assert made["key_id"] in await run("list", "--tenant", "acme")
    assert made["key_id"] not in await run("list", "--tenant", "other")
    await run("revoke", made["key_id"])

    async def is_refused() -> bool:
        found = await outcome(caller.access("WhoAmI", WHO))
        return found is not None and found.reason == "CREDENTIAL_REVOKED"

    await eventually(is_refused)


def test_the_first_key_is_made_before_the_first_start(command_line):
    done = command_line.run(
        *("keys", "create", "--tenant", "acme", "--name", "first", "--scope", "agent")
    )
    assert done.returncode == 0, done.stderr
    server = command_line.serve(MEMORYD_AUTH="required")
    assert server.address()
    assert done.stdout.strip() not in server.output + server.log
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--tenant", "Acme"),
        ("--name", ""),
        ("--name", "x" * 129),
        ("--scope", "memories:all"),
        ("--session", "user-1*"),
        ("--expires", "soon"),
        ("--expires", "0d"),
        ("--expires", "999999999d"),
    ],
)
def test_the_command_line_names_the_option_that_is_wrong(command_line, option, value):
    options = {"--tenant": "acme", "--name": "n", "--scope": "agent", option: value}
    arguments = [part for pair in options.items() for part in pair]
    done = command_line.run("keys", "create", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"memoryd: {option}: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("revoke",), ("rotate", "--overlap", "1h")])
def test_a_key_that_is_not_there_is_named(command_line, command):
    assert command_line.run("migrate").returncode == 0
    done = command_line.run("keys", *command, "0123456789AB")
    assert done.returncode == 1
    assert "0123456789AB" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_first_key_is_made_once(command_line):
    options = ("--first", "--tenant", "acme", "--name", "n", "--scope", "agent")
    made, again = (command_line.run("keys", "create", *options) for _ in range(2))
    assert (made.returncode, again.returncode) == (0, 0)
    assert made.stdout.startswith("mdk_")
    assert again.stdout == ""
    assert "there is a key already" in again.stderr
    command_line.run("keys", "revoke", made.stdout[4:16])
    assert command_line.run("keys", "create", *options).stdout == ""


# Tenants


async def test_a_disabled_tenant_is_refused_on_every_replica_until_it_is_enabled(guard, eventually):
    one, two = await guard(), await guard()
    made, other = await one.key("acme"), await one.caller("other")
    callers = [server.with_key(made.key) for server in (one, two)]
    watching = callers[0].memory(
        "WatchMemories", memory_pb2.WatchMemoriesRequest(session_id=SESSION)
    )
    await watching.initial_metadata()
    for disabled, reason in ((True, "TENANT_DISABLED"), (False, None)):
        tenant = await one.admin.access(
            "UpdateTenant", pb.UpdateTenantRequest(tenant="acme", disabled=disabled)
        )
        assert (tenant.tenant, tenant.disabled) == ("acme", disabled)
        for caller in callers:

            async def is_so(caller=caller, reason=reason) -> bool:
                found = await outcome(caller.access("WhoAmI", WHO))
                return (found and found.reason) == reason

            await eventually(is_so)
        if disabled:
            found = await end_of(watching)
            assert found is not None
            assert (found.code, found.reason) == (
                grpc.StatusCode.PERMISSION_DENIED,
                "TENANT_DISABLED",
            )
        assert await outcome(other.access("WhoAmI", WHO)) is None


async def test_a_tenant_may_be_disabled_before_it_has_a_key(guarded):
    update = pb.UpdateTenantRequest(tenant="acme", disabled=True)
    await guarded.admin.access("UpdateTenant", update)
    caller = await guarded.caller("acme")
    found = await outcome(caller.access("WhoAmI", WHO))
    assert found is not None
    assert found.reason == "TENANT_DISABLED"
    unchanged = await guarded.admin.access("UpdateTenant", pb.UpdateTenantRequest(tenant="acme"))
    assert unchanged.disabled


async def test_no_admin_disables_the_own_tenant(guarded):
    update = pb.UpdateTenantRequest(tenant="default", disabled=True)
    found = await outcome(guarded.admin.access("UpdateTenant", update))
    assert found is not None
    assert found.message.startswith("disabled: ")
    update.tenant = "Acme"
    found = await outcome(guarded.admin.access("UpdateTenant", update))
    assert found is not None
    assert found.message.startswith("tenant: ")


async def test_tenants_are_listed_page_by_page(guarded):
    names = [f"tenant-{number}" for number in range(5)]
    for name in reversed(names):
        await guarded.key(name)
    listing, found = pb.ListTenantsRequest(page_size=2), []
    while True:
        page = await guarded.admin.access("ListTenants", listing)
        found += [tenant.tenant for tenant in page.tenants]
        listing.page_token = page.next_page_token
        if not listing.page_token:
            break
    assert found == names
