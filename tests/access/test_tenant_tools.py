"""The tools' settings of each tenant, and of the instance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.access.guarded import Caller, Guarded, outcome
from tests.roles import as_superuser

from memoryd.tools import current
from memoryd.tools import known as known_tools
from memoryd.tools import store as storage
from memoryd.v1 import memory_pb2
from memoryd.v1 import tool_config_pb2 as pb

TIMEOUT_SECONDS = 60
DEFAULT, ENVIRONMENT, INSTANCE, OVERRIDE = (
    pb.PROVENANCE_DEFAULT,
    pb.PROVENANCE_ENVIRONMENT,
    pb.PROVENANCE_INSTANCE,
    pb.PROVENANCE_OVERRIDE,
)


class Tools:
    """One caller's tools; with `layer`, those of the instance."""

    def __init__(self, caller: Caller, layer: pb.Layer.ValueType = pb.LAYER_UNSPECIFIED) -> None:
        self.caller = caller
        self._layer = layer

    def call(self, method: str, request: Message) -> Any:
        return self.caller.tools(method, request)

    def get(self, tool: str) -> Any:
        return self.call("GetToolConfig", pb.GetToolConfigRequest(tool=tool, layer=self._layer))

    def update(self, tool: str, *, reason: str = "", **fields: Any) -> Any:
        config = pb.ToolConfig(tool=tool, **fields)
        request = pb.UpdateToolConfigRequest(tool_config=config, reason=reason, layer=self._layer)
        return self.call("UpdateToolConfig", request)

    def reset(self, tool: str, *paths: str) -> Any:
        request = pb.ResetToolConfigRequest(tool=tool, paths=paths, layer=self._layer)
        return self.call("ResetToolConfig", request)

    def rollback(self, tool: str, revision: int) -> Any:
        request = pb.RollbackToolConfigRequest(tool=tool, revision=revision, layer=self._layer)
        return self.call("RollbackToolConfig", request)

    def validate(self, tool: str, **fields: Any) -> Any:
        config = pb.ToolConfig(tool=tool, **fields)
        request = pb.ValidateToolConfigRequest(tool_config=config, layer=self._layer)
        return self.call("ValidateToolConfig", request)

    def page(self, tool: str, *, size: int = 1000, token: str = "") -> Any:
        request = pb.ListToolConfigRevisionsRequest(
            tool=tool, page_size=size, page_token=token, layer=self._layer
        )
        return self.call("ListToolConfigRevisions", request)

    async def revisions(self, tool: str) -> list[pb.ToolConfigRevision]:
        """A tool's revisions, read one a page, without their times."""
        found: list[pb.ToolConfigRevision] = []
        token = ""
        while True:
            page = await self.page(tool, size=1, token=token)
            found += page.revisions
            token = page.next_page_token
            if not token:
                break
        for revision in found:
            revision.ClearField("change_time")
        return found

    async def list_all(self) -> pb.ListToolsResponse:
        answer: pb.ListToolsResponse = await self.call("ListTools", pb.ListToolsRequest())
        return answer

    def watch(self, start_revision: int = 0) -> Watcher:
        request = pb.WatchToolConfigsRequest(start_revision=start_revision)
        return Watcher(self.call("WatchToolConfigs", request))


class Watcher:
    """A watch, read as far as is asked for."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def next(self, count: int = 1) -> list[pb.WatchToolConfigsResponse]:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return [await self.call.read() for _ in range(count)]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until another server has learned of a change."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not await condition():  # noqa: ASYNC110  no event to await
            await asyncio.sleep(0.02)


async def tools_of(guarded: Guarded, tenant: str) -> Tools:
    return Tools(await guarded.caller(tenant))


async def instance_of(guarded: Guarded, tenant: str = "operators") -> Tools:
    caller = await guarded.caller(tenant, scopes=("operator", "instance:admin"))
    return Tools(caller, pb.LAYER_INSTANCE)


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """Execute statements directly in the database."""
    engine = create_async_engine(as_superuser(database_url))

    async def run(*statements: str) -> None:
        async with engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))

    yield run
    await engine.dispose()


# A tenant sees what it would see alone


async def lived(tools: Tools, noise: Callable[[], Awaitable[object]]) -> list[Any]:
    """Everything a tenant is answered over a life, with something else going on in between."""
    seen: list[Any] = []
    watcher = tools.watch()
    seen.append(await watcher.next(7))
    steps: list[Callable[[], Awaitable[Any]]] = [
        lambda: tools.update("rag", rag={"chunk_size": 600}, reason="larger"),
        lambda: tools.update("crm", crm={"timeout": 3}),
        lambda: tools.update("rag", enabled=False, etag=seen[1].etag),
        lambda: outcome(tools.update("rag", enabled=True, etag=seen[1].etag)),
        lambda: tools.reset("rag", "enabled"),
        lambda: tools.rollback("rag", 3),
        lambda: tools.update("rag", enabled=False),
        lambda: outcome(tools.rollback("rag", 2)),
        lambda: outcome(tools.rollback("rag", 6)),
        lambda: tools.get("rag"),
        tools.list_all,
        lambda: tools.revisions("rag"),
        lambda: tools.revisions("crm"),
        lambda: watcher.next(5),
        lambda: tools.watch(2).next(3),
        lambda: outcome(tools.watch(6).call),
    ]
    for step in steps:
        await noise()
        seen.append(await step())
    return seen


async def test_a_tenants_answers_are_those_of_a_lone_run(guard):
    guarded = await guard()
    alone = await tools_of(guarded, "first")

    async def nothing() -> None:
        pass

    expected = await lived(alone, nothing)
    assert [r.revision for r in expected[12]] == [5, 4, 3, 1]
    lives = [await tools_of(guarded, tenant) for tenant in ("acme", "default", "globex")]
    loud, turn = await tools_of(guarded, "loud"), 0

    async def noise() -> None:
        nonlocal turn
        turn += 1
        await loud.update("rag", rag={"search_k": 1 + turn % 20}, enabled=bool(turn % 2))

    for seen in await asyncio.gather(*(lived(tools, noise) for tools in lives)):
        assert seen == expected


async def test_what_belongs_to_another_tenant_does_not_exist(guarded):
    acme, globex = await tools_of(guarded, "acme"), await tools_of(guarded, "globex")
    for size in (600, 700, 800):
        await acme.update("rag", rag={"chunk_size": size})
    await globex.update("rag", rag={"chunk_size": 900})
    page = await acme.page("rag", size=1)
    for refused, code in (
        (globex.page("rag", size=1, token=page.next_page_token), "INVALID_ARGUMENT"),
        (globex.rollback("rag", 2), "NOT_FOUND"),
        (globex.watch(2).call, "OUT_OF_RANGE"),
        (globex.update("rag", enabled=True, etag=(await acme.get("rag")).etag), "ABORTED"),
    ):
        found = await outcome(refused)
        assert found is not None
        assert found.code is grpc.StatusCode[code]
    assert (await globex.get("rag")).rag.chunk_size == 900
    assert [r.revision for r in await globex.revisions("rag")] == [1]


# The layer of the instance


async def test_the_instance_lies_between_environment_and_tenant(guard):
    guarded = await guard(RAG_CHUNK_SIZE="700", RAG_CHUNK_OVERLAP="60", RAG_SEARCH_K="7")
    acme, globex = await tools_of(guarded, "acme"), await tools_of(guarded, "globex")
    instance = await instance_of(guarded)
    await acme.update("rag", rag={"search_k": 9})
    set_ = await instance.update("rag", rag={"search_k": 8, "chunk_overlap": 61})
    assert (set_.rag.search_k, set_.revision) == (8, 1)
    assert set_.provenance["rag.search_k"] == INSTANCE
    assert set_ == await instance.get("rag")

    def of(config: pb.ToolConfig) -> list[tuple[float, int]]:
        names = ("search_k", "chunk_overlap", "chunk_size", "cache_ttl")
        return [(getattr(config.rag, n), config.provenance[f"rag.{n}"]) for n in names]

    below = [(61, INSTANCE), (700, ENVIRONMENT), (3600, DEFAULT)]
    assert of(await acme.get("rag")) == [(9, OVERRIDE), *below]
    for tenant in ("globex", "default", "unseen"):
        assert of(await (await tools_of(guarded, tenant)).get("rag")) == [(8, INSTANCE), *below]
    assert (await acme.reset("rag")).provenance["rag.search_k"] == INSTANCE
    assert (await instance.reset("rag")).provenance["rag.search_k"] == ENVIRONMENT
    assert (await globex.get("rag")).rag.search_k == 7


async def test_a_change_of_the_instance_is_a_revision_of_every_tenant(guarded):
    acme, globex = await tools_of(guarded, "acme"), await tools_of(guarded, "globex")
    default, instance = await tools_of(guarded, "default"), await instance_of(guarded)
    tenants = (acme, globex, default)
    await acme.update("rag", rag={"chunk_size": 600})
    await acme.update("crm", crm={"timeout": 3})
    await default.update("rag", rag={"chunk_size": 600})
    watchers = [tools.watch() for tools in tenants]
    for watcher in watchers:
        await watcher.next(7)
    before = [await tools.get("rag") for tools in tenants]
    await instance.update("rag", rag={"search_k": 8}, reason="fewer\nresults")
    after = [await tools.get("rag") for tools in tenants]
    assert [config.revision for config in after] == [3, 1, 2]
    for tools, watcher, was, now in zip(tenants, watchers, before, after, strict=True):
        (event,) = await watcher.next()
        assert (event.revision, event.tool_config) == (now.revision, now)
        assert now.etag != was.etag
        newest = (await tools.revisions("rag"))[0]
        assert (newest.revision, newest.actor) == (now.revision, "instance")
        assert newest.reason == "fewer\nresults"
        assert (newest.before, newest.after) == (was, now)
    (mine,) = await instance.revisions("rag")
    assert (mine.revision, mine.actor, mine.after) == (1, "a key", await instance.get("rag"))
    # The numbers stay when a tenant's own change follows, and go on after it.
    listed = [await tools.revisions("rag") for tools in tenants]
    for tools, watcher, now, revisions in zip(tenants, watchers, after, listed, strict=True):
        config = await tools.update("rag", rag={"chunk_size": 700})
        assert config.revision == now.revision + 1
        (event,) = await watcher.next()
        assert event.tool_config == config
        assert (await tools.revisions("rag"))[1:] == revisions
        if now.revision > 1:  # from 0 there is a snapshot
            resumed = await tools.watch(now.revision - 1).next(2)
            assert [event.tool_config for event in resumed] == [now, config]


async def test_a_tenant_goes_back_to_before_a_change_of_the_instance(guarded):
    acme, instance = await tools_of(guarded, "acme"), await instance_of(guarded)
    await acme.update("rag", rag={"chunk_size": 600})
    await instance.update("rag", rag={"search_k": 8})
    await acme.update("rag", rag={"chunk_size": 700})
    # To the revision of the instance's: the tenant's own overrides of then.
    back = await acme.rollback("rag", 2)
    assert (back.revision, back.rag.chunk_size, back.rag.search_k) == (4, 600, 8)
    await instance.update("rag", rag={"search_k": 9})
    back = await instance.rollback("rag", 1)
    assert (back.revision, back.rag.search_k) == (3, 8)
    assert (await acme.get("rag")).rag.search_k == 8
    assert [r.revision for r in await acme.revisions("rag")] == [6, 5, 4, 3, 2, 1]
    # A rollback of a tenant that has no rows of its own, to a revision of the instance's.
    globex = await tools_of(guarded, "globex")
    back = await globex.rollback("rag", 2)
    assert (back.revision, back.rag.search_k) == (4, 8)


async def test_an_etag_is_outdated_by_a_change_of_the_instance(guarded):
    acme, instance = await tools_of(guarded, "acme"), await instance_of(guarded)
    etag, own = (await acme.get("rag")).etag, (await instance.get("rag")).etag
    await instance.update("rag", rag={"search_k": 8}, etag=own)
    for refused in (
        acme.update("rag", rag={"chunk_size": 600}, etag=etag),
        instance.update("rag", rag={"search_k": 9}, etag=own),
    ):
        found = await outcome(refused)
        assert found is not None
        assert found.code is grpc.StatusCode.ABORTED
    etag = (await acme.get("rag")).etag
    assert (await acme.update("rag", rag={"chunk_size": 600}, etag=etag)).revision == 2


async def test_an_override_that_no_longer_suits_the_instances_is_set_aside(guarded):
    acme, instance = await tools_of(guarded, "acme"), await instance_of(guarded)
    await acme.update("rag", rag={"chunk_overlap": 400})
    await instance.update("rag", rag={"chunk_size": 200})
    config = await acme.get("rag")
    assert (config.rag.chunk_size, config.rag.chunk_overlap) == (200, 50)
    (warning,) = config.warnings
    assert warning.field == "rag.chunk_overlap"
    assert "below chunk_size, which is 200" in warning.description
    await instance.update("rag", rag={"chunk_size": 500})
    config = await acme.get("rag")
    assert (config.rag.chunk_overlap, len(config.warnings)) == (400, 0)


async def test_the_instances_layer_needs_its_admin_beside_tools_write(guarded):
    acme = Tools(await guarded.caller("acme"), pb.LAYER_INSTANCE)
    calls = {
        "GetToolConfig": lambda tools: tools.get("rag"),
        "UpdateToolConfig": lambda tools: tools.update("rag", rag={"search_k": 8}),
        "ResetToolConfig": lambda tools: tools.reset("rag"),
        "RollbackToolConfig": lambda tools: tools.rollback("rag", 1),
        "ValidateToolConfig": lambda tools: tools.validate("rag"),
        "ListToolConfigRevisions": lambda tools: tools.page("rag"),
    }
    service = pb.DESCRIPTOR.services_by_name["ToolConfigService"]
    assert calls.keys() == {
        method.name for method in service.methods if "layer" in method.input_type.fields_by_name
    }
    for name, call in calls.items():
        found = await outcome(call(acme))
        assert found is not None, name
        assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
        assert found.metadata["scope"] == "instance:admin"
        found = await outcome(call(Tools(guarded.admin, pb.LAYER_INSTANCE)))
        assert found is not None, name
        assert found.reason == "SCOPE_MISSING"
        assert found.metadata["scope"].startswith("tools:")
    # The scope comes before the contents.
    found = await outcome(acme.update("rag", rag={"search_k": 0}, reason="x" * 2000))
    assert found is not None
    assert found.reason == "SCOPE_MISSING"
    assert (await (await instance_of(guarded)).get("rag")).revision == 0
    unknown = Tools(acme.caller, 7)  # type: ignore[arg-type]
    found = await outcome(unknown.get("rag"))
    assert found is not None
    assert found.message.startswith("layer: ")


async def test_without_credentials_there_is_no_admin_of_the_instance(running):
    tools = Tools(Caller(running.channel), pb.LAYER_INSTANCE)
    found = await outcome(tools.update("rag", rag={"search_k": 8}))
    assert found is not None
    assert found.reason == "SCOPE_MISSING"


# Secrets


async def test_a_tenant_names_only_the_secrets_that_are_its_own(guard):
    guarded = await guard(
        MEMORYD_SECRET_REFERENCES="acme=env://ACME_*, env://SHARED_*",  # noqa: S106  patterns
        CRM_API_KEY="env://CRM_KEY",
        CRM_KEY="canary",
        SHARED_KEY="a",
        ACME_KEY="b",
    )
    acme, globex = await tools_of(guarded, "acme"), await tools_of(guarded, "globex")
    default, instance = await tools_of(guarded, "default"), await instance_of(guarded)

    async def allows(tools: Tools, key: str, tool: str = "billing") -> bool:
        fields: dict[str, Any] = {tool: {"api_key": key}}
        found = await outcome(tools.update(tool, **fields))
        validated = await tools.validate(tool, **fields)
        assert bool(validated.violations) == (found is not None)
        if found is None:
            assert getattr(await tools.get(tool), tool).api_key_source == key
            return True
        assert found.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "MEMORYD_SECRET_" in found.message
        return False

    for tools, own, shared, operators in (
        (acme, True, True, False),
        (globex, False, True, False),
        (default, False, False, True),  # SHARED_KEY is none of MEMORYD_SECRET_NAMES
        (instance, False, False, True),
    ):
        assert await allows(tools, "env://ACME_KEY") is own
        assert await allows(tools, "env://SHARED_KEY") is shared
        assert await allows(tools, "env://CRM_KEY") is operators
    # What is inherited holds, and may be named for the same tool.
    config = await globex.update("crm", crm={"timeout": 3})
    assert (config.crm.api_key_source, config.provenance["crm.api_key"]) == (
        "env://CRM_KEY",
        ENVIRONMENT,
    )
    assert await allows(globex, "env://CRM_KEY", "crm")
    await instance.update("inventory", inventory={"api_key": "env://INVENTORY_KEY"})
    config = await acme.get("inventory")
    assert (config.inventory.api_key_source, config.provenance["inventory.api_key"]) == (
        "env://INVENTORY_KEY",
        INSTANCE,
    )


async def test_by_default_other_tenants_name_no_secret(guarded):
    acme, default = await tools_of(guarded, "acme"), await tools_of(guarded, "default")
    found = await outcome(acme.update("crm", crm={"api_key": "env://CRM_KEY"}))
    assert found is not None
    assert "MEMORYD_SECRET_REFERENCES" in found.message
    config = await default.update("crm", crm={"api_key": "env://CRM_KEY"})
    assert config.crm.api_key_source == "env://CRM_KEY"


async def test_a_reference_that_is_no_longer_allowed_is_set_aside(guard):
    guarded = await guard(MEMORYD_SECRET_REFERENCES="acme=env://ACME_*")  # noqa: S106
    await (await tools_of(guarded, "acme")).update("crm", crm={"api_key": "env://ACME_KEY"})
    stricter = await guard(MEMORYD_SECRET_REFERENCES="acme=env://OTHER_*")  # noqa: S106
    config = await Tools(stricter.with_key(guarded.made[0])).get("crm")
    assert not config.crm.has_api_key
    assert "crm.api_key" in [warning.field for warning in config.warnings]


async def test_literal_secrets_are_each_tenants_own(guarded, sql):
    acme, globex = await tools_of(guarded, "acme"), await tools_of(guarded, "globex")
    await acme.update("crm", crm={"api_key": "a literal of acme"})
    assert (await acme.get("crm")).crm.api_key_source == "literal"
    assert not (await globex.get("crm")).crm.has_api_key
    # A marker that another tenant has no literal for, as if it had got hold of it.
    await globex.update("crm", crm={"timeout": 3})
    await sql(
        "UPDATE tenant_tool_configs SET revision = 2, overrides = (SELECT overrides FROM"
        " tenant_tool_configs WHERE tenant = 'acme') WHERE tenant = 'globex'",
        "UPDATE tenant_tool_heads SET revision = 2 WHERE tenant = 'globex'",
    )

    async def is_there() -> bool:
        return (await globex.get("crm")).revision == 2

    await until(is_there)
    assert "another process" in "".join(w.description for w in (await globex.get("crm")).warnings)
    assert not (await acme.get("crm")).warnings


# The memory tool


async def store(caller: Caller, content: str, **fields: Any) -> memory_pb2.StoreMemoryResponse:
    request = memory_pb2.StoreMemoryRequest(session_id="chat", content=content, **fields)
    answer: memory_pb2.StoreMemoryResponse = await caller.memory("StoreMemory", request)
    return answer


async def contents(caller: Caller) -> list[str]:
    request = memory_pb2.ListMemoriesRequest(session_id="chat", page_size=1000)
    return [m.content for m in (await caller.memory("ListMemories", request)).memories]


async def test_each_tenants_memories_obey_its_own_settings(guarded):
    acme, globex = await tools_of(guarded, "acme"), await tools_of(guarded, "globex")
    await acme.update(
        "memory", memory={"max_entries": 10, "ttl_hours": 1, "importance_threshold": 0.0}
    )
    batch = memory_pb2.BatchStoreMemoriesRequest(
        requests=[
            memory_pb2.StoreMemoryRequest(session_id="chat", content=f"more {n}") for n in range(4)
        ]
    )
    spans, counts, found = [], [], []
    for tools in (acme, globex):
        caller = tools.caller
        stored = (await store(caller, "the first", importance=0.1)).memory
        created, expires = stored.create_time.ToDatetime(), stored.expire_time.ToDatetime()
        spans.append(round((expires - created) / timedelta(hours=1)))
        important = memory_pb2.RetrieveMemoriesRequest(session_id="chat")
        found.append(len((await caller.memory("RetrieveMemories", important)).results))
        for n in range(10):
            await store(caller, f"fact {n}")
        await caller.memory("BatchStoreMemories", batch)
        call = caller.memory("StreamStoreMemories", None)
        await call.initial_metadata()
        for n in range(4):
            request = memory_pb2.StoreMemoryRequest(session_id="chat", content=f"streamed {n}")
            await call.write(memory_pb2.StreamStoreMemoriesRequest(requests=[request]))
            assert (await call.read()).results
        await call.done_writing()
        counts.append(len(await contents(caller)))
    assert spans == [1, 24]
    assert found == [1, 0]
    assert counts == [10, 19]
    last = (await store(acme.caller, "to be deleted", importance=1.0)).memory
    name = {"session_id": "chat", "memory_id": last.memory_id}
    await acme.caller.memory("DeleteMemory", memory_pb2.DeleteMemoryRequest(**name))
    await store(acme.caller, "in its place")
    undelete = memory_pb2.UndeleteMemoryRequest(**name)
    full = await outcome(acme.caller.memory("UndeleteMemory", undelete))
    assert full is not None
    assert full.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_the_sweeper_retires_by_each_tenants_own_cleanup_days(guarded, clock):
    tenants = ("acme", "default", "globex", "initech", "umbrella")
    tools = {tenant: await tools_of(guarded, tenant) for tenant in tenants}
    await (await instance_of(guarded)).update("memory", memory={"cleanup_days": 20})
    for tenant, days in {"acme": 2, "default": 4, "globex": 60, "initech": 2}.items():
        await tools[tenant].update("memory", memory={"cleanup_days": days})
    for each in tools.values():
        await store(each.caller, "a fact", never_expires=True)

    async def left() -> list[str]:
        await guarded.server.sweeper.run_once()
        return [tenant for tenant in tenants if await contents(tools[tenant].caller)]

    assert await left() == list(tenants)
    clock.move(timedelta(days=3))
    assert await left() == ["default", "globex", "umbrella"]
    clock.move(timedelta(days=2))
    assert await left() == ["globex", "umbrella"]
    clock.move(timedelta(days=16))
    assert await left() == ["globex"]
    clock.move(timedelta(days=40))
    assert await left() == []


# Several servers, many tenants


async def test_changes_are_seen_on_every_server(guard):
    here, there = await guard(), await guard()
    acme, instance = await tools_of(here, "acme"), await instance_of(here)
    elsewhere = Tools(there.with_key(here.made[0]))

    async def same() -> bool:
        return (await outcome(elsewhere.get("rag"))) is None and (
            await elsewhere.get("rag") == await acme.get("rag")
        )

    await until(same)
    watcher = elsewhere.watch()
    await watcher.next(7)
    await acme.update("rag", rag={"chunk_size": 600})
    assert (await watcher.next())[0].tool_config == await acme.get("rag")
    await until(same)
    await instance.update("rag", rag={"search_k": 8})
    (event,) = await watcher.next()
    assert (event.revision, event.tool_config) == (2, await acme.get("rag"))
    await until(same)
    config = await elsewhere.update("rag", rag={"chunk_size": 700})
    assert (config.revision, config.rag.search_k) == (3, 8)


async def test_racing_changes_reach_every_watcher_once_and_in_order(guard):
    servers = [await guard(), await guard()]
    tenants, rounds = ("acme", "default", "globex"), 6
    callers: dict[str, list[Tools]] = {}
    for tenant in (*tenants, "idle"):
        key = (await servers[0].key(tenant)).key
        callers[tenant] = [Tools(server.with_key(key)) for server in servers]
    admins = [await servers[0].key(scopes=("operator", "instance:admin")) for _ in servers]
    instances = [
        Tools(server.with_key(admin.key), pb.LAYER_INSTANCE)
        for server, admin in zip(servers, admins, strict=True)
    ]

    async def known() -> bool:
        each = [*callers.values(), instances]
        return all([await outcome(t.get("crm")) is None for both in each for t in both])

    await until(known)
    watchers = {t: [tools.watch() for tools in both] for t, both in callers.items()}
    for both in watchers.values():
        for watcher in both:
            await watcher.next(7)

    async def change(tools: Tools, setting: str, first: int) -> None:
        for n in range(rounds):
            await tools.update("rag", rag={setting: first + n})

    await asyncio.gather(
        *(
            change(tools, setting, 100)
            for tenant in tenants
            for tools, setting in zip(callers[tenant], ("chunk_size", "cache_ttl"), strict=True)
        ),
        change(instances[0], "search_k", 10),
        change(instances[1], "chunk_overlap", 10),
    )
    for tenant, both in watchers.items():
        count = 2 * rounds * (1 if tenant == "idle" else 2)
        heard = [await watcher.next(count) for watcher in both]
        assert [event.revision for event in heard[0]] == list(range(1, count + 1))
        assert heard[0] == heard[1]
        for tools in callers[tenant]:
            listed = await tools.revisions("rag")
            assert [r.revision for r in listed] == list(range(count, 0, -1))

            # Whoever reads may do so before this server has read what its watchers have heard.
            async def is_last(tools: Tools = tools, last: Any = heard[0][-1].tool_config) -> bool:
                return await tools.get("rag") == last

            await until(is_last)
            assert [r.after.etag for r in reversed(listed)] == [
                event.tool_config.etag for event in heard[0]
            ]
            resumed = await tools.watch(count - 3).next(3)
            assert resumed == heard[0][-3:]


async def test_few_tenants_stay_in_memory_and_all_have_their_own(guarded, monkeypatch):
    monkeypatch.setattr(known_tools, "MAX_TENANTS", 2)
    tenants = [await tools_of(guarded, f"tenant-{n}") for n in range(6)]
    watchers = [tools.watch() for tools in tenants[:4]]
    for watcher in watchers:
        await watcher.next(7)
    for n, tools in enumerate(tenants):
        await tools.update("rag", rag={"chunk_size": 600 + n})
    for watcher in watchers:
        await watcher.next()
    held = guarded.server.known_tenants
    assert len(held) == 4  # those that are watched
    for n, tools in enumerate(tenants):
        config = await tools.get("rag")
        assert (config.revision, config.rag.chunk_size) == (1, 600 + n)
    await (await instance_of(guarded)).update("rag", rag={"search_k": 8})
    for n, watcher in enumerate(watchers):
        (event,) = await watcher.next()
        assert (event.revision, event.tool_config.rag.chunk_size) == (2, 600 + n)
        watcher.call.cancel()

    async def few() -> bool:
        await tenants[5].get("rag")
        return len(guarded.server.known_tenants) == 2

    await until(few)


async def test_many_first_calls_are_few_reads(guarded, monkeypatch):
    tenants = [await tools_of(guarded, f"tenant-{n}") for n in range(10)]
    reads = []
    read = current.read_states
    monkeypatch.setattr(
        current,
        "read_states",
        lambda connection, dialect, owners: (
            reads.append(list(owners)) or read(connection, dialect, owners)
        ),
    )
    await asyncio.gather(*(tools.get("rag") for tools in tenants for _ in range(10)))
    read_owners = [owner for owners in reads for owner in owners if owner.startswith("tenant-")]
    assert sorted(set(read_owners)) == sorted(f"tenant-{n}" for n in range(10))
    assert len(reads) < 20


async def test_the_command_line_shows_each_tenants(guard, command_line, database_url):
    guarded = await guard()
    await (await tools_of(guarded, "acme")).update("rag", rag={"chunk_size": 600})
    await (await instance_of(guarded)).update("rag", rag={"search_k": 8})
    for tenant, revision, chunk_size in (
        ((), 1, "500  # default"),
        (("--tenant", "acme"), 2, "600  # override"),
        (("--tenant", "unseen"), 1, "500  # default"),
    ):
        done = command_line.run("config", "show", "--database-url", database_url, *tenant)
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert f"# overrides: at revision {revision}" in lines
        assert f"rag.chunk_size = {chunk_size}" in lines
        assert "rag.search_k = 8  # instance" in lines
    done = command_line.run("config", "show", "--tenant", "No Tenant")
    assert done.returncode == 1
    assert done.stderr.startswith("memoryd: --tenant: a tenant must be")


# Trouble


async def test_without_the_database_a_tenants_settings_are_stale_and_decide_nothing(guarded, sql):
    acme, globex = await tools_of(guarded, "acme"), await tools_of(guarded, "globex")
    await acme.update("rag", rag={"chunk_size": 600})
    await sql("ALTER TABLE tenant_tool_heads RENAME TO away")

    async def is_stale() -> bool:
        return bool((await acme.get("rag")).stale)

    await until(is_stale)
    assert (await acme.get("rag")).rag.chunk_size == 600
    assert {tool.stale for tool in (await globex.list_all()).tools} == {True}
    watcher = globex.watch()
    assert {event.tool_config.stale for event in await watcher.next(7)} == {True}
    store_ = memory_pb2.StoreMemoryRequest(session_id="chat", content="a fact")
    found = await outcome(globex.caller.memory("StoreMemory", store_))
    assert found is not None
    assert found.code is grpc.StatusCode.UNAVAILABLE
    await sql("ALTER TABLE away RENAME TO tenant_tool_heads")
    config = await globex.update("rag", rag={"search_k": 8})
    (event,) = await watcher.next()
    assert (event.revision, event.tool_config) == (1, config)
    await store(globex.caller, "a fact")

    async def is_current() -> bool:
        return not (await acme.get("rag")).stale

    await until(is_current)


async def test_what_an_earlier_release_writes_is_the_tenant_defaults(guarded, sql):
    default, instance = await tools_of(guarded, "default"), await instance_of(guarded)
    await sql(
        "INSERT INTO tool_config_head (id, revision, horizon) VALUES (1, 1, 0)",
        "INSERT INTO tool_configs (tool, overrides, revision)"
        " VALUES ('rag', '{\"rag.chunk_size\": 600}', 1)",
        "INSERT INTO tool_config_revisions"
        " (revision, tool, change_time, actor, reason, before, after, overrides) VALUES"
        " (1, 'rag', '2026-01-02 03:04:05.000000', 'default', '', '{}', '{}',"
        " '{\"rag.chunk_size\": 600}')",
    )

    async def is_there() -> bool:
        return bool((await default.get("rag")).revision == 1)

    await until(is_there)
    config = await default.get("rag")
    assert (config.rag.chunk_size, config.provenance["rag.chunk_size"]) == (600, OVERRIDE)
    assert (await (await tools_of(guarded, "acme")).get("rag")).rag.chunk_size == 500
    await instance.update("rag", rag={"search_k": 8})
    # An earlier release counts on where this one has, and knows nothing of the instance.
    watcher = default.watch(1)
    await watcher.next()
    await sql(
        "UPDATE tool_config_head SET revision = 3 WHERE revision = 2",
        "UPDATE tool_configs SET revision = 3, overrides = '{\"rag.chunk_size\": 700}'",
        "INSERT INTO tool_config_revisions"
        " (revision, tool, change_time, actor, reason, before, after, overrides) VALUES"
        " (3, 'rag', '2026-01-02 03:04:05.000000', 'default', '', '{}', '{}',"
        " '{\"rag.chunk_size\": 700}')",
    )
    (event,) = await watcher.next()
    assert (event.revision, event.tool_config.rag.search_k) == (3, 8)
    assert event.tool_config == await default.get("rag")
    assert (await default.update("rag", rag={"cache_ttl": 60})).revision == 4


async def test_old_revisions_are_dropped_for_each_owner(guarded, monkeypatch):
    monkeypatch.setattr(storage, "KEPT_REVISIONS", 3)
    acme, globex = await tools_of(guarded, "acme"), await tools_of(guarded, "globex")
    instance = await instance_of(guarded)
    await acme.update("crm", crm={"timeout": 3})
    for n in range(6):
        await instance.update("rag", rag={"chunk_size": 600 + n})
    # Those of the instance that are gone are gone for each tenant: of acme's 1 to 7, 2 to 4.
    for tools, first in ((acme, 4), (globex, 3)):
        found = await outcome(tools.watch(first - 1).call)
        assert found is not None
        assert found.code is grpc.StatusCode.OUT_OF_RANGE
        events = await tools.watch(first).next(3)
        assert [event.revision for event in events] == [first + 1, first + 2, first + 3]
    assert [r.revision for r in await acme.revisions("rag")] == [7, 6, 5]
    # The same once they are rows of its own, of which it keeps as many.
    assert (await acme.update("rag", rag={"search_k": 8})).revision == 8
    assert [r.revision for r in await acme.revisions("rag")] == [8, 7, 6]
    assert [r.revision for r in await acme.revisions("crm")] == [1]
    found = await outcome(acme.watch(4).call)
    assert found is not None
    assert found.code is grpc.StatusCode.OUT_OF_RANGE
    assert [e.revision for e in await acme.watch(5).next(3)] == [6, 7, 8]
    assert (await globex.update("crm", crm={"timeout": 3})).revision == 7
    assert [r.revision for r in await globex.revisions("rag")] == [6, 5, 4]
    found = await outcome(globex.watch(2).call)
    assert found is not None
    assert found.code is grpc.StatusCode.OUT_OF_RANGE
