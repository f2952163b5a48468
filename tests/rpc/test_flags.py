"""flagd.evaluation.v1 and .v2: the tools' settings as flags."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import ModuleType
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from tests import flags

from memoryd.tools.settings import SETTINGS_OF, TOOLS, default_of
from memoryd.v1 import tool_config_pb2 as pb

TIMEOUT_SECONDS = 60
TYPES = ("Boolean", "String", "Int", "Float", "Object")
SECRETS = ("crm.api_key", "billing.api_key", "inventory.api_key")
KEYWORDS = dict(default_of("escalation", "keywords"))
EXTENSIONS = list(default_of("attachment", "allowed_extensions"))
VERSIONS = {"v1": (flags.v1, flags.v1_grpc), "v2": (flags.v2, flags.v2_grpc)}

only_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)


class Flags:
    """The flags that a server has for whoever calls over a channel, in one version."""

    def __init__(self, version: tuple[ModuleType, ModuleType], channel: Any) -> None:
        self.messages, stubs = version
        self.stub = stubs.ServiceStub(channel)

    def ask(self, type_: str, key: str, **more: Any) -> Any:
        request = getattr(self.messages, f"Resolve{type_}Request")(flag_key=key, **more)
        return getattr(self.stub, f"Resolve{type_}")(request)

    def events(self) -> Any:
        return self.stub.EventStream(self.messages.EventStreamRequest())


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> tuple[ModuleType, ModuleType]:
    return VERSIONS[request.param]


@pytest.fixture
def asked(running: Any, version: tuple[ModuleType, ModuleType]) -> Flags:
    return Flags(version, running.channel)


async def update(tools: Any, tool: str, **fields: Any) -> pb.ToolConfig:
    config = pb.ToolConfig(tool=tool, **fields)
    return await tools.UpdateToolConfig(pb.UpdateToolConfigRequest(tool_config=config))


async def reset(tools: Any, tool: str) -> pb.ToolConfig:
    return await tools.ResetToolConfig(pb.ResetToolConfigRequest(tool=tool))


async def told(events: Any) -> tuple[str, set[str]]:
    """The next event: its type, and the keys of the flags that it names."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        event = await events.read()
    assert event is not grpc.aio.EOF
    named = json_format.MessageToDict(event.data).get("flags", {})
    return event.type, set(named)


async def begun(asked: Flags) -> Any:
    """A stream of events, once it has said what it says first."""
    events = asked.events()
    assert (await told(events))[0] == "configuration_change"
    assert await told(events) == ("provider_ready", set())
    return events


def values_by_key() -> dict[str, Any]:
    """The defaults of every setting by the key of its flag, as the table of the tools has them."""
    found: dict[str, Any] = {}
    for tool in TOOLS:
        names = ("enabled", *SETTINGS_OF[tool].model_fields)
        found |= {f"{tool}.{name}": default_of(tool, name) for name in names}
    for secret in SECRETS:
        del found[secret]
    return found


def type_of(value: object) -> str:
    kinds = {bool: "Boolean", str: "String", int: "Int", float: "Float"}
    return kinds.get(type(value), "Object")


# Asking


@only_sqlite
async def test_every_setting_is_a_flag_of_its_type(asked, database_kind):
    del database_kind
    expected = values_by_key()
    assert len(expected) >= 31
    objects = {
        "escalation.keywords": KEYWORDS,
        "attachment.allowed_extensions": {"allowed_extensions": EXTENSIONS},
    }
    for key, default in expected.items():
        answer = await asked.ask(type_of(default), key)
        value, found = objects.get(key, default), answer.value
        if key in objects:
            found = json_format.MessageToDict(found)
        assert (found, answer.reason, answer.variant) == (value, "STATIC", "DEFAULT"), key
        assert json_format.MessageToDict(answer.metadata) == {"revision": 0}


@only_sqlite
async def test_all_of_a_tool_is_an_object(serve, version):
    running = await serve(CRM_API_KEY="env://CRM_TOKEN", CRM_TOKEN="t0ken", RAG_SEARCH_K="7")  # noqa: S106  of nothing
    asked = Flags(version, running.channel)
    every = values_by_key()
    for tool in TOOLS:
        answer = await asked.ask("Object", tool)
        members = {
            key.partition(".")[2]: value
            for key, value in every.items()
            if key.startswith(f"{tool}.")
        }
        members |= {"keywords": KEYWORDS} if tool == "escalation" else {}
        members |= {"allowed_extensions": EXTENSIONS} if tool == "attachment" else {}
        members |= {"search_k": 7} if tool == "rag" else {}
        assert json_format.MessageToDict(answer.value) == members
        assert answer.variant == ("ENVIRONMENT" if tool == "rag" else "DEFAULT")


async def test_the_variant_says_where_a_value_comes_from(serve, version):
    running = await serve(RAG_SEARCH_K="7")
    asked = Flags(version, running.channel)
    answer = await asked.ask("Int", "rag.search_k")
    assert (answer.value, answer.variant) == (7, "ENVIRONMENT")
    config = await update(running.tools, "rag", enabled=False, rag={"search_k": 9})
    answer = await asked.ask("Int", "rag.search_k")
    assert (answer.value, answer.variant) == (9, "OVERRIDE")
    assert json_format.MessageToDict(answer.metadata) == {"revision": config.revision}
    answer = await asked.ask("Boolean", "rag.enabled")
    assert (answer.value, answer.variant) == (False, "OVERRIDE")
    assert (await asked.ask("Object", "rag")).variant == "OVERRIDE"
    assert (await asked.ask("Int", "rag.chunk_size")).variant == "DEFAULT"
    await reset(running.tools, "rag")
    answer = await asked.ask("Int", "rag.search_k")
    assert (answer.value, answer.variant) == (7, "ENVIRONMENT")


async def test_values_that_are_like_none_are_values(asked, tools):
    await update(tools, "rag", rag={"chunk_overlap": 0, "similarity_threshold": 0.0})
    config = pb.UpdateToolConfigRequest(
        tool_config=pb.ToolConfig(tool="escalation"), update_mask={"paths": ["escalation.keywords"]}
    )
    await tools.UpdateToolConfig(config)
    for type_, key in (
        ("Int", "rag.chunk_overlap"),
        ("Float", "rag.similarity_threshold"),
        ("Object", "escalation.keywords"),
        ("String", "crm.api_endpoint"),
    ):
        answer = await asked.ask(type_, key)
        field = answer.DESCRIPTOR.fields_by_name["value"]
        assert not field.has_presence or answer.HasField("value"), key
        assert answer.variant


@only_sqlite
async def test_resolve_all_has_what_each_flag_has(serve):
    running = await serve(CRM_API_KEY="env://CRM_TOKEN", CRM_TOKEN="t0ken", RAG_SEARCH_K="7")  # noqa: S106  of nothing
    asked = Flags(VERSIONS["v1"], running.channel)
    config = await update(running.tools, "memory", memory={"max_entries": 20})
    found = await asked.stub.ResolveAll(flags.v1.ResolveAllRequest(context={"a": 1}))
    expected = values_by_key()
    assert found.flags.keys() == {*TOOLS, *expected}
    assert json_format.MessageToDict(found.metadata) == {"revision": config.revision}
    for key, flag in found.flags.items():
        type_ = type_of(expected.get(key))
        alone = await asked.ask(type_, key)
        field = {"Boolean": "bool", "String": "string", "Object": "object"}.get(type_, "double")
        assert flag.WhichOneof("value") == f"{field}_value"
        assert getattr(flag, f"{field}_value") == alone.value
        assert (flag.reason, flag.variant) == (alone.reason, alone.variant)
        assert flag.metadata == alone.metadata


async def test_a_context_has_no_part_in_it(asked):
    for context in ({}, {"targetingKey": "ada", "rag.search_k": 3, "a": [None, {"b": [True]}]}):
        assert (await asked.ask("Int", "rag.search_k", context=context)).value == 5


@pytest.mark.parametrize(
    "key",
    [
        *("", "rag.", ".enabled", "enabled", "rag.search", "RAG.SEARCH_K", "rag.rag", "nothing"),
        *("rag.has_api_key", "crm.has_api_key", "crm.api_key_source", "\0", "🙂" * 5_000),
        *SECRETS,
    ],
)
@only_sqlite
async def test_what_is_no_flag_is_not_found(asked, refused, key):
    for type_ in TYPES:
        refusal = await refused(asked.ask(type_, key))
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.NOT_FOUND,
            "FLAG_NOT_FOUND",
        )
        named = refusal.resource
        assert (named.resource_type, named.resource_name) == ("flagd.Flag", key[:255])


@only_sqlite
async def test_a_flag_of_another_type_is_refused_and_the_remedy_works(asked, refused):
    for key, value in {**values_by_key(), **dict.fromkeys(TOOLS)}.items():
        right = type_of(value)
        for type_ in TYPES:
            if type_ == right or (type_, right) == ("Float", "Int"):
                assert (await asked.ask(type_, key)).variant == "DEFAULT"
                continue
            refusal = await refused(asked.ask(type_, key))
            assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT, (type_, key)
            assert list(refusal.violations) == ["flag_key"]
            assert refusal.violations["flag_key"].endswith(f"ask for it with Resolve{right}")


async def test_a_whole_number_is_a_number_too(asked, tools):
    await update(tools, "attachment", attachment={"max_file_size": 2**53})
    assert (await asked.ask("Float", "attachment.max_file_size")).value == 2.0**53
    assert (await asked.ask("Int", "attachment.max_file_size")).value == 2**53


# What changes


async def test_events_begin_with_all_flags_and_then_name_those_that_change(asked, tools):
    events = asked.events()
    assert await told(events) == ("configuration_change", {*TOOLS, *values_by_key()})
    assert await told(events) == ("provider_ready", set())
    await update(tools, "rag", rag={"search_k": 6})
    assert await told(events) == ("configuration_change", {"rag", "rag.search_k"})
    # As it is, but by an override: another variant.
    await update(tools, "crm", enabled=False, crm={"timeout": 10})
    changed = {"crm", "crm.enabled", "crm.timeout"}
    assert await told(events) == ("configuration_change", changed)
    await tools.RollbackToolConfig(pb.RollbackToolConfigRequest(tool="rag", revision=1))  # as it is
    await update(tools, "crm", crm={"api_key": "a literal"})  # no flag has it
    await reset(tools, "rag")
    assert await told(events) == ("configuration_change", {"rag", "rag.search_k"})
    events.cancel()


async def test_after_an_event_calls_answer_by_the_change_also_of_another_server(serve, version):
    here, there = await serve(), await serve()
    asked = Flags(version, here.channel)
    events = await begun(asked)
    for n in range(12):
        chunk_size = 600 + n
        await update((here, there)[n % 2].tools, "rag", rag={"chunk_size": chunk_size})
        assert await told(events) == ("configuration_change", {"rag", "rag.chunk_size"})
        assert (await asked.ask("Int", "rag.chunk_size")).value == chunk_size
    events.cancel()


class Keeper:
    """Keeps what it has read until an event names a change, as providers do."""

    KEYS = ("rag.chunk_size", "rag.cache_ttl")

    def __init__(self, asked: Flags, events: Any) -> None:
        self.kept: dict[str, int] = {}
        self._asked = asked
        self._events = events
        self._evictions = 0

    async def read(self) -> None:
        while True:
            for key in self.KEYS:
                evictions = self._evictions
                value = (await self._asked.ask("Int", key)).value
                if evictions == self._evictions:  # else it may be older than the event
                    self.kept.setdefault(key, value)

    async def evict(self) -> None:
        while True:
            _, keys = await told(self._events)
            self._evictions += 1
            for key in keys:
                self.kept.pop(key, None)


async def test_who_keeps_what_no_event_names_has_what_holds(serve, version, eventually):
    here, there = await serve(), await serve()
    asked = Flags(version, here.channel)
    events = await begun(asked)
    keeper = Keeper(asked, events)
    tasks = [asyncio.create_task(work) for work in (keeper.read(), keeper.evict())]

    async def write(server: Any, setting: str) -> None:
        for n in range(25):
            await update(server.tools, "rag", rag={setting: 600 + n})

    await asyncio.gather(write(here, "chunk_size"), write(there, "cache_ttl"))

    async def is_settled() -> bool:
        return keeper.kept == {"rag.chunk_size": 624, "rag.cache_ttl": 624}

    await eventually(is_settled)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    events.cancel()


@only_sqlite
async def test_a_stream_with_nothing_to_tell_is_kept_alive(serve, version):
    running = await serve(MEMORYD_STREAM_IDLE_SECONDS="3")
    events = await begun(Flags(version, running.channel))
    for _ in range(3):  # in all longer than a stream may be silent
        assert await told(events) == ("keep_alive", set())
    await update(running.tools, "rag", rag={"search_k": 6})
    found = await told(events)
    while found[0] == "keep_alive":
        found = await told(events)
    assert found == ("configuration_change", {"rag", "rag.search_k"})
    events.cancel()


async def test_a_stopping_server_ends_its_streams_of_events(serve, version, refused):
    running = await serve(MEMORYD_DRAIN_SECONDS="20")
    streams = [await begun(Flags(version, running.channel)) for _ in range(5)]
    async with asyncio.timeout(10):
        await running.server.stop()
    for events in streams:
        refusal = await refused(told(events))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")


async def test_flags_are_there_while_the_database_is_away(asked, tools, sql, eventually):
    events = await begun(asked)
    await sql("ALTER TABLE tool_config_head RENAME TO away")

    async def is_stale() -> bool:
        return "stale_since" in (await asked.ask("Int", "rag.search_k")).metadata

    await eventually(is_stale)
    found = await asked.ask("Int", "rag.search_k")
    assert (found.value, found.reason, found.variant) == (5, "STATIC", "DEFAULT")
    late = await begun(asked)
    await sql("ALTER TABLE away RENAME TO tool_config_head")
    await update(tools, "rag", rag={"search_k": 6})
    for one in (events, late):
        assert await told(one) == ("configuration_change", {"rag", "rag.search_k"})
        one.cancel()
    assert "stale_since" not in (await asked.ask("Int", "rag.search_k")).metadata


# Beside others


def test_a_server_leaves_the_names_of_the_protocol_to_others():
    """To stubs of the same messages from a file of another name, as OpenFeature's packages have."""
    program = """
import memoryd.server
from google.protobuf import descriptor_pb2, descriptor_pool
from memoryd.rpc import rules

for version in ("v1", "v2"):
    file = descriptor_pb2.FileDescriptorProto()
    rules.POOL.FindFileByName(f"flagd/evaluation/{version}/evaluation.proto").CopyToProto(file)
    file.name = f"openfeature/schemas/protobuf/{file.name}"
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    descriptor_pool.Default().FindServiceByName(f"flagd.evaluation.{version}.Service")
"""
    done = subprocess.run(  # noqa: S603  our own
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
