"""UpdateToolConfig, ResetToolConfig, RollbackToolConfig and ListToolConfigRevisions."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing

import grpc
import pytest
from sqlalchemy import make_url

from memoryd.tools import configs as tool_configs
from memoryd.tools import store as storage
from memoryd.v1 import memory_pb2
from memoryd.v1 import tool_config_pb2 as pb
from memoryd.v1.tool_config_pb2_grpc import ToolConfigServiceStub

TOOLS = ("rag", "memory", "escalation", "attachment", "crm", "billing", "inventory")
CANARY = "canary-5e1f0b"
TIMEOUT_SECONDS = 30

DEFAULT, ENVIRONMENT, OVERRIDE = (
    pb.PROVENANCE_DEFAULT,
    pb.PROVENANCE_ENVIRONMENT,
    pb.PROVENANCE_OVERRIDE,
)


async def get(tools: ToolConfigServiceStub, tool: str) -> pb.ToolConfig:
    return await tools.GetToolConfig(pb.GetToolConfigRequest(tool=tool))


async def update(
    tools: ToolConfigServiceStub,
    tool: str,
    mask: tuple[str, ...] = (),
    *,
    reason: str = "",
    validate_only: bool = False,
    **fields: object,
) -> pb.ToolConfig:
    request = pb.UpdateToolConfigRequest(
        tool_config=pb.ToolConfig(tool=tool, **fields),
        reason=reason,
        validate_only=validate_only,
    )
    request.update_mask.paths.extend(mask)
    return await tools.UpdateToolConfig(request)


async def reset(tools: ToolConfigServiceStub, tool: str, *paths: str, **fields) -> pb.ToolConfig:
    return await tools.ResetToolConfig(pb.ResetToolConfigRequest(tool=tool, paths=paths, **fields))


async def rollback(tools: ToolConfigServiceStub, tool: str, revision: int) -> pb.ToolConfig:
    return await tools.RollbackToolConfig(
        pb.RollbackToolConfigRequest(tool=tool, revision=revision, reason="as before")
    )


async def revisions(tools: ToolConfigServiceStub, tool: str) -> list[pb.ToolConfigRevision]:
    request = pb.ListToolConfigRevisionsRequest(tool=tool, page_size=1000)
    return list((await tools.ListToolConfigRevisions(request)).revisions)


async def until(condition: Callable) -> None:
    """Wait until another server has learned of a change."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not await condition():  # noqa: ASYNC110  no event to await
            await asyncio.sleep(0.02)


# Updating


async def test_an_override_takes_effect_and_shows_its_provenance(tools):
    answer = await update(tools, "rag", enabled=False, rag={"chunk_size": 600})
    assert (answer.enabled, answer.rag.chunk_size, answer.rag.search_k) == (False, 600, 5)
    given = {path for path, origin in answer.provenance.items() if origin == OVERRIDE}
    assert given == {"enabled", "rag.chunk_size"}
    assert answer.revision == 1
    assert answer == await get(tools, "rag")
    summary = (await tools.ListTools(pb.ListToolsRequest())).tools[0]
    assert (summary.enabled, summary.revision, summary.stale) == (False, 1, False)


async def test_overrides_beat_the_environment_and_outlive_a_restart(serve):
    first = await serve(RAG_CHUNK_SIZE="700", RAG_SEARCH_K="7")
    await update(first.tools, "rag", rag={"chunk_size": 600})
    await update(first.tools, "crm", crm={"timeout": 3})
    second = await serve(RAG_CHUNK_SIZE="800", RAG_SEARCH_K="8")
    config = await get(second.tools, "rag")
    assert (config.rag.chunk_size, config.rag.search_k) == (600, 8)
    assert config.provenance["rag.chunk_size"] == OVERRIDE
    assert config.provenance["rag.search_k"] == ENVIRONMENT
    assert config.provenance["rag.cache_ttl"] == DEFAULT
    assert [(await get(second.tools, t)).revision for t in ("rag", "crm", "billing")] == [1, 2, 0]


async def test_a_mask_selects_the_settings(tools):
    full = {"chunk_size": 600, "search_k": 9, "cache_enabled": False}
    answer = await update(tools, "rag", ("rag.search_k",), enabled=False, rag=full)
    assert (answer.enabled, answer.rag.chunk_size, answer.rag.search_k) == (True, 500, 9)
    assert answer.rag.cache_enabled
    answer = await update(tools, "rag", ("enabled",), enabled=False, rag=full)
    assert (answer.enabled, answer.rag.chunk_size) == (False, 500)
    # Output-only paths have no effect.
    ignored = ("revision", "provenance", "stale", "etag", "rag.chunk_size")
    assert (await update(tools, "rag", ignored, rag=full)).rag.chunk_size == 600
    key = await update(tools, "crm", ("crm.has_api_key", "crm.timeout"), crm={"timeout": 2})
    assert key.crm == pb.CrmSettings(timeout=2, max_retries=3)


async def test_a_path_without_a_value_overrides_with_the_default(serve):
    tools = (
        await serve(RAG_CHUNK_SIZE="700", ENABLE_CRM_TOOL="true", CRM_API_ENDPOINT="https://a.b")
    ).tools
    answer = await update(tools, "rag", ("rag.chunk_size",))
    assert (answer.rag.chunk_size, answer.provenance["rag.chunk_size"]) == (500, OVERRIDE)
    answer = await update(tools, "crm", ("enabled", "crm.api_endpoint"))
    assert (answer.enabled, answer.crm.HasField("api_endpoint")) == (False, False)
    answer = await update(tools, "escalation", ("escalation.keywords",))
    assert not answer.escalation.keywords
    answer = await update(tools, "attachment", ("attachment.allowed_extensions",))
    assert not answer.attachment.allowed_extensions
    answer = await update(tools, "memory", ("*",), memory={"max_entries": 20})
    assert (answer.memory.max_entries, answer.memory.ttl_hours) == (20, 24)
    assert set(answer.provenance.values()) == {OVERRIDE}


async def test_maps_and_lists_are_replaced_and_kept_in_one_form(tools):
    answer = await update(tools, "escalation", escalation={"keywords": {" fire ": 0.5}})
    assert answer.escalation.keywords == {"fire": 0.5}
    answer = await update(tools, "attachment", attachment={"allowed_extensions": ["MD", ".txt"]})
    assert answer.attachment.allowed_extensions == [".md", ".txt"]


async def test_a_configuration_that_was_read_can_be_written_back(tools):
    for tool in TOOLS:
        before = await get(tools, tool)
        answer = await tools.UpdateToolConfig(pb.UpdateToolConfigRequest(tool_config=before))
        assert getattr(answer, tool) == getattr(before, tool)
        assert answer.enabled == before.enabled


async def test_a_call_that_changes_no_override_makes_no_revision(tools):
    first = await update(tools, "rag", rag={"chunk_size": 600})
    assert await update(tools, "rag", rag={"chunk_size": 600}) == first
    assert await update(tools, "rag") == first
    assert len(await revisions(tools, "rag")) == 1


@pytest.mark.parametrize(
    ("mask", "fields", "violation"),
    [
        (("crm.timeout",), {}, ("update_mask", "crm.timeout", "rag.chunk_size")),
        (("rag.chunk_sise", "nonsense"), {}, ("update_mask", "rag.chunk_sise", "nonsense")),
        (("rag",), {}, ("update_mask", "rag", "rag.chunk_size")),
        (("",), {}, ("update_mask", "rag.chunk_size")),
        ((f"{CANARY}!",), {}, ("update_mask", "rag.chunk_size")),
        (tuple(f"p{n}" for n in range(65)), {}, ("update_mask", "64")),
        ((), {"crm": {"timeout": 3}}, ("tool_config.crm", "rag")),
    ],
)
async def test_paths_of_another_tool_or_of_none_are_refused(
    tools, refused, mask, fields, violation
):
    field, *words = violation
    refusal = await refused(update(tools, "rag", mask, **fields))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == [field]
    assert all(word in refusal.violations[field] for word in words)
    assert CANARY not in str(refusal)
    assert (await get(tools, "rag")).revision == 0


async def test_bounds_are_enforced_and_all_violations_listed(tools, refused):
    bad = {"chunk_size": 99, "chunk_overlap": 501, "search_k": 21, "cache_ttl": 59}
    refusal = await refused(update(tools, "rag", rag=bad))
    assert sorted(refusal.violations) == sorted(f"tool_config.rag.{name}" for name in bad)
    # Together with violations of the mask.
    mask = ("rag.chunk_size", "rag.nonsense")
    refusal = await refused(update(tools, "rag", mask, rag=bad))
    assert sorted(refusal.violations) == ["tool_config.rag.chunk_size", "update_mask"]
    # And with violations of the proto's rules.
    refusal = await refused(update(tools, "rag", mask, rag=bad, reason="x" * 1025))
    assert sorted(refusal.violations) == ["reason", "tool_config.rag.chunk_size", "update_mask"]
    refusal = await refused(reset(tools, "rag", "rag.nonsense", reason="x" * 1025))
    assert sorted(refusal.violations) == ["paths", "reason"]
    # Against the current values, not the defaults.
    await update(tools, "rag", rag={"chunk_overlap": 400})
    refusal = await refused(update(tools, "rag", rag={"chunk_size": 300}))
    assert list(refusal.violations) == ["tool_config.rag.chunk_overlap"]
    assert (await get(tools, "rag")).revision == 1


async def test_an_unknown_tool_a_bad_reason_and_no_configuration_are_refused(tools, refused):
    for call, field in (
        (update(tools, "rags"), "tool_config.tool"),
        (reset(tools, "rags"), "tool"),
        (rollback(tools, "rags", 1), "tool"),
        (rollback(tools, "rag", 0), "revision"),
        (update(tools, "rag", reason="x" * 1025), "reason"),
        (update(tools, "rag", rag={"chunk_size": 300}, reason="a\0b"), "reason"),
        (reset(tools, "rag", reason="\0"), "reason"),
        (tools.UpdateToolConfig(pb.UpdateToolConfigRequest()), "tool_config"),
    ):
        refusal = await refused(call)
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
        assert list(refusal.violations) == [field]


async def test_validate_only_returns_the_result_and_writes_nothing(tools, refused, sql):
    before = await get(tools, "crm")
    answer = await update(
        tools, "crm", enabled=True, crm={"timeout": 5, "api_key": CANARY}, validate_only=True
    )
    assert (answer.enabled, answer.crm.timeout, answer.crm.api_key_source) == (True, 5, "literal")
    assert [warning.field for warning in answer.warnings] == ["crm.api_endpoint"]
    assert (answer.revision, answer.etag) == (0, "")
    assert await get(tools, "crm") == before
    assert await sql("SELECT * FROM tool_config_revisions") == []
    call = update(tools, "crm", crm={"timeout": 0}, validate_only=True)
    assert list((await refused(call)).violations) == ["tool_config.crm.timeout"]
    call = update(tools, "crm", crm={"timeout": 5}, validate_only=True, etag="stale")
    assert (await refused(call)).code == grpc.StatusCode.ABORTED


async def test_an_etag_must_be_the_current_one(tools, refused):
    before = await get(tools, "rag")
    after = await update(tools, "rag", rag={"search_k": 6}, etag=before.etag)
    assert after.etag not in ("", before.etag)
    refusal = await refused(update(tools, "rag", rag={"search_k": 7}, etag=before.etag))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    # A change and its reverse are changes too.
    back = await update(tools, "rag", rag={"search_k": 5})
    assert back.etag not in (before.etag, after.etag)
    assert (await get(tools, "rag")).rag.search_k == 5


async def test_one_of_concurrent_updates_with_one_etag_wins(serve):
    servers = [await serve(), await serve()]
    etag = (await get(servers[0].tools, "rag")).etag

    async def one(n: int) -> int:
        try:
            answer = await update(
                servers[n % 2].tools, "rag", rag={"chunk_size": 600 + n}, etag=etag
            )
        except grpc.aio.AioRpcError as refused:
            assert refused.code() == grpc.StatusCode.ABORTED  # noqa: PT017  one is not refused
            return 0
        return answer.rag.chunk_size

    (winner,) = filter(None, await asyncio.gather(*map(one, range(64))))
    for server in servers:
        tools = server.tools
        await until(lambda tools=tools: holds(tools, winner))
        assert len(await revisions(tools, "rag")) == 1


async def holds(tools: ToolConfigServiceStub, chunk_size: int) -> bool:
    return (await get(tools, "rag")).rag.chunk_size == chunk_size


async def test_concurrent_updates_are_all_kept_with_a_revision_each(serve):
    servers = [await serve(), await serve()]
    paths = {"search_k": 7, "chunk_size": 600, "cache_ttl": 61, "cache_enabled": False}
    answers = await asyncio.gather(
        *(
            update(servers[n % 2].tools, "rag", rag={name: value})
            for n, (name, value) in enumerate(paths.items())
        )
    )
    assert sorted(answer.revision for answer in answers) == [1, 2, 3, 4]
    settings = max(answers, key=lambda answer: answer.revision).rag
    assert {name: getattr(settings, name) for name in paths} == paths


async def test_two_servers_agree_within_a_second(serve):
    here, there = await serve(), await serve()
    loop = asyncio.get_running_loop()
    took = []
    for chunk_size in (600, 700, 800):
        await update(here.tools, "rag", rag={"chunk_size": chunk_size})
        started = loop.time()
        await until(lambda size=chunk_size: holds(there.tools, size))
        took.append(loop.time() - started)
        assert await get(there.tools, "rag") == await get(here.tools, "rag")
    assert min(took) < 1, took


# What MemoryService obeys


async def test_the_memory_tools_settings_are_obeyed_at_once_and_everywhere(serve, clock):
    here, there = await serve(), await serve()
    changed = await update(
        here.tools,
        "memory",
        memory={"max_entries": 10, "ttl_hours": 2, "importance_threshold": 0.8},
    )

    async def agreed() -> bool:
        return (await get(there.tools, "memory")).revision == changed.revision

    await until(agreed)
    for n, server in enumerate((here, there)):
        session = f"user-{n}"
        stored = [
            await server.memory.StoreMemory(
                memory_pb2.StoreMemoryRequest(
                    session_id=session, content=f"fact {k}", importance=0.75 + k / 50
                )
            )
            for k in range(12)
        ]
        assert sum(len(answer.evicted_memory_ids) for answer in stored) == 2
        lifetime = stored[-1].memory.expire_time.ToDatetime(clock.now.tzinfo) - clock.now
        assert lifetime.total_seconds() == 7200
        retrieved = await server.memory.RetrieveMemories(
            memory_pb2.RetrieveMemoriesRequest(session_id=session, limit=100, peek=True)
        )
        assert {result.memory.importance >= 0.8 for result in retrieved.results} == {True}
        assert len(retrieved.results) == 9
    await reset(here.tools, "memory")
    request = memory_pb2.StoreMemoryRequest(session_id="user-0", content="one more")
    assert not (await here.memory.StoreMemory(request)).evicted_memory_ids


# Resetting


async def test_a_reset_drops_overrides_and_is_a_revision(serve):
    tools = (await serve(RAG_SEARCH_K="8")).tools
    await update(tools, "rag", enabled=False, rag={"chunk_size": 600, "search_k": 9})
    answer = await reset(tools, "rag", "rag.search_k", "enabled", reason="enough")
    assert (answer.enabled, answer.rag.chunk_size, answer.rag.search_k) == (True, 600, 8)
    assert answer.provenance["rag.search_k"] == ENVIRONMENT
    assert answer.revision == 2
    answer = await reset(tools, "rag")
    assert (answer.rag.chunk_size, answer.revision) == (500, 3)
    assert OVERRIDE not in answer.provenance.values()
    assert await reset(tools, "rag") == answer  # nothing is left to reset
    assert await reset(tools, "rag", "enabled") == answer
    listed = await revisions(tools, "rag")
    assert [(r.revision, r.reason) for r in listed] == [(3, ""), (2, "enough"), (1, "")]


async def test_paths_to_reset_are_validated(tools, refused):
    await update(tools, "rag", rag={"chunk_size": 600})
    for paths in (("crm.timeout",), ("nonsense",), ("rag",), ("*",), ("revision",), ("",)):
        refusal = await refused(reset(tools, "rag", *paths))
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
        assert list(refusal.violations) == ["paths"]
        assert "rag.chunk_size" in refusal.violations["paths"]
    assert (await get(tools, "rag")).rag.chunk_size == 600


async def test_lists_that_are_far_too_long_are_refused(tools, refused):
    for count in (65, 100_000):
        paths = ["rag.chunk_size"] * count
        refusal = await refused(reset(tools, "rag", *paths))
        assert f"these are {count:,}" in refusal.violations["paths"]
        refusal = await refused(update(tools, "rag", paths, rag={"chunk_size": 600}))
        assert f"these are {count:,}" in refusal.violations["update_mask"]
    for count in (1_001, 100_000):
        keywords = {f"word {n}": 1.0 for n in range(count)}
        refusal = await refused(update(tools, "escalation", escalation={"keywords": keywords}))
        assert list(refusal.violations) == ["tool_config.escalation.keywords"]
        extensions = [f".x{n}" for n in range(count)]
        settings = {"allowed_extensions": extensions}
        refusal = await refused(update(tools, "attachment", attachment=settings))
        assert list(refusal.violations) == ["tool_config.attachment.allowed_extensions"]


# Revisions


async def test_a_revision_records_when_who_why_and_what(tools, clock):
    await update(tools, "rag", rag={"chunk_size": 600}, reason="longer texts")
    before = await get(tools, "rag")
    await update(tools, "crm", crm={"timeout": 3})
    await update(tools, "rag", enabled=False)
    after = await get(tools, "rag")
    newest, oldest = await revisions(tools, "rag")
    assert (newest.revision, newest.tool, newest.actor, newest.reason) == (3, "rag", "default", "")
    assert newest.change_time.ToDatetime(clock.now.tzinfo) == clock.now
    assert (newest.before, newest.after) == (before, after)
    assert (oldest.revision, oldest.reason) == (1, "longer texts")
    assert oldest.before.rag.chunk_size == 500
    assert (await revisions(tools, "billing")) == []


async def test_revisions_are_listed_by_page(tools, refused):
    for n in range(7):
        await update(tools, "rag", rag={"chunk_size": 600 + n})
    request = pb.ListToolConfigRevisionsRequest(tool="rag", page_size=3)
    pages = []
    while True:
        page = await tools.ListToolConfigRevisions(request)
        pages.append([revision.revision for revision in page.revisions])
        if len(pages) == 1:
            await update(tools, "rag", rag={"chunk_size": 700})  # between two pages
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert pages == [[7, 6, 5], [4, 3, 2], [1]]
    token = (await tools.ListToolConfigRevisions(request)).next_page_token
    other = pb.ListToolConfigRevisionsRequest(tool="crm", page_token=token)
    assert list((await refused(tools.ListToolConfigRevisions(other))).violations) == ["page_token"]
    negative = pb.ListToolConfigRevisionsRequest(tool="rag", page_size=-1)
    refusal = await refused(tools.ListToolConfigRevisions(negative))
    assert list(refusal.violations) == ["page_size"]
    negative.page_token = token
    negative.tool = "crm"
    refusal = await refused(tools.ListToolConfigRevisions(negative))
    assert sorted(refusal.violations) == ["page_size", "page_token"]


async def test_more_revisions_than_one_read_brings_are_one_page(tools):
    for n in range(120):
        await update(tools, "rag", rag={"chunk_size": 600 + n})
    assert [r.revision for r in await revisions(tools, "rag")] == list(range(120, 0, -1))
    page = await tools.ListToolConfigRevisions(pb.ListToolConfigRevisionsRequest(tool="rag"))
    assert [r.revision for r in page.revisions] == list(range(120, 70, -1))


async def test_a_rollback_restores_the_overrides_of_a_revision(serve, refused):
    tools = (await serve(RAG_SEARCH_K="8")).tools
    await update(tools, "rag", rag={"chunk_size": 600})
    await update(tools, "rag", enabled=False, rag={"chunk_size": 700, "search_k": 9})
    await update(tools, "crm", crm={"timeout": 3})
    answer = await rollback(tools, "rag", 1)
    assert (answer.enabled, answer.rag.chunk_size, answer.rag.search_k) == (True, 600, 8)
    assert answer.revision == 4
    assert (await revisions(tools, "rag"))[0].reason == "as before"
    assert (await rollback(tools, "rag", 2)).rag.search_k == 9
    for tool, revision in (("rag", 3), ("rag", 99), ("billing", 1)):
        refusal = await refused(rollback(tools, tool, revision))
        assert refusal.code == grpc.StatusCode.NOT_FOUND
        assert refusal.reason == "TOOL_CONFIG_REVISION_NOT_FOUND"
        assert refusal.resource.resource_name == f"{tool}/{revision}"


async def test_new_revisions_replace_old_ones(tools, refused, monkeypatch):
    monkeypatch.setattr(storage, "KEPT_REVISIONS", 5)
    await update(tools, "crm", crm={"timeout": 3})
    for n in range(8):
        await update(tools, "rag", rag={"chunk_size": 600 + n})
    assert [r.revision for r in await revisions(tools, "rag")] == [9, 8, 7, 6, 5]
    assert [r.revision for r in await revisions(tools, "crm")] == [1]
    assert (await refused(rollback(tools, "rag", 4))).code == grpc.StatusCode.NOT_FOUND
    assert (await rollback(tools, "rag", 5)).rag.chunk_size == 603


# Overrides that a release refuses


async def test_overrides_that_this_release_refuses_are_set_aside_and_named(serve, sql, caplog):
    first = await serve()
    await update(first.tools, "rag", rag={"chunk_size": 600, "search_k": 6})
    await sql(
        "UPDATE tool_configs SET overrides = "
        """'{"rag.chunk_size": 99999, "rag.search_k": 6, "rag.of_old": 1, "enabled": "maybe"}'"""
    )
    caplog.set_level(logging.WARNING)
    config = await get((await serve()).tools, "rag")
    assert (config.rag.chunk_size, config.rag.search_k, config.enabled) == (500, 6, True)
    assert config.provenance["rag.chunk_size"] == DEFAULT
    assert config.provenance["rag.search_k"] == OVERRIDE
    assert config.provenance["enabled"] == DEFAULT
    aside = {warning.field: warning.description for warning in config.warnings}
    assert set(aside) == {"rag.chunk_size", "rag.of_old", "enabled"}
    assert "2000" in aside["rag.chunk_size"]
    assert any("rag.chunk_size" in record.getMessage() for record in caplog.records)


async def test_an_override_that_conflicts_with_the_environment_is_set_aside(serve):
    await update((await serve()).tools, "rag", rag={"chunk_size": 100, "search_k": 6})
    config = await get((await serve(RAG_CHUNK_OVERLAP="200")).tools, "rag")
    assert (config.rag.chunk_size, config.rag.chunk_overlap, config.rag.search_k) == (500, 200, 6)
    assert [warning.field for warning in config.warnings] == ["rag.chunk_size"]


# Secrets


async def test_a_reference_is_kept_and_shown_as_such(serve):
    here = await serve(CRM_KEY=CANARY)
    answer = await update(here.tools, "crm", crm={"api_key": "env://CRM_KEY"})
    assert (answer.crm.has_api_key, answer.crm.api_key_source) == (True, "env://CRM_KEY")
    config = await get((await serve(CRM_KEY=CANARY)).tools, "crm")
    assert config == answer
    missing = await update(here.tools, "crm", crm={"api_key": "env://CRM_MISSING"})
    assert [warning.field for warning in missing.warnings] == ["crm.api_key"]


async def test_a_literal_stays_in_its_process(serve, sql, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    here = await serve()
    answer = await update(here.tools, "crm", crm={"api_key": CANARY}, reason="a try")
    assert (answer.crm.has_api_key, answer.crm.api_key_source) == (True, "literal")
    assert not answer.warnings
    again = await update(here.tools, "crm", crm={"api_key": CANARY})
    assert again.revision == answer.revision
    other = await update(here.tools, "crm", crm={"api_key": f"{CANARY}-2"})
    assert other.etag != answer.etag
    back = await rollback(here.tools, "crm", 1)
    assert not back.warnings
    # Another process does not have it, and says what to do.
    there = await get((await serve()).tools, "crm")
    assert (there.crm.has_api_key, there.crm.api_key_source) == (True, "literal")
    (warning,) = there.warnings
    assert warning.field == "crm.api_key"
    assert "env://NAME" in warning.description
    assert there.etag == back.etag
    answers = [answer, again, other, back, there, *await revisions(here.tools, "crm")]
    assert not [message for message in answers if CANARY.encode() in message.SerializeToString()]
    for table in ("tool_configs", "tool_config_revisions"):
        assert CANARY not in str(await sql(f"SELECT * FROM {table}"))  # noqa: S608  constant names
    assert not [file for file in tmp_path.iterdir() if CANARY.encode() in file.read_bytes()]
    assert not [record for record in caplog.records if CANARY in str(record.__dict__)]


async def test_only_the_latest_literals_are_kept(tools, monkeypatch):
    monkeypatch.setattr(tool_configs, "KEPT_LITERALS", 2)
    for n in range(3):
        await update(tools, "crm", crm={"api_key": f"key {n}"})
    assert not (await rollback(tools, "crm", 2)).warnings
    assert [w.field for w in (await rollback(tools, "crm", 1)).warnings] == ["crm.api_key"]


async def test_production_refuses_a_literal(serve, refused):
    tools = (await serve(MEMORYD_AUTH="observe", MEMORYD_ENVIRONMENT="production")).tools
    refusal = await refused(update(tools, "crm", crm={"api_key": CANARY, "timeout": 0}))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "LITERAL_SECRET")
    assert sorted(refusal.violations) == ["tool_config.crm.api_key", "tool_config.crm.timeout"]
    assert "env://NAME" in refusal.violations["tool_config.crm.api_key"]
    assert CANARY not in str(refusal)
    refusal = await refused(update(tools, "crm", crm={"api_key": "env://"}))
    assert refusal.reason == "INVALID_REQUEST"
    assert (await get(tools, "crm")).revision == 0


async def test_production_sets_aside_a_literal_from_elsewhere(serve):
    await update((await serve()).tools, "crm", crm={"api_key": CANARY, "timeout": 3})
    config = await get(
        (await serve(MEMORYD_AUTH="observe", MEMORYD_ENVIRONMENT="production")).tools, "crm"
    )
    assert (config.crm.has_api_key, config.crm.timeout) == (False, 3)
    assert [warning.field for warning in config.warnings] == ["crm.api_key"]


# Without the database


async def test_without_the_database_the_last_state_is_served_as_stale(serve, sql, clock, refused):
    running = await serve()
    tools = running.tools
    await update(tools, "rag", rag={"chunk_size": 600})
    known = await get(tools, "rag")
    assert not known.stale
    await sql("ALTER TABLE tool_config_head RENAME TO away")

    async def is_stale() -> bool:
        return (await get(tools, "rag")).stale

    async def is_fresh() -> bool:
        return not await is_stale()

    await until(is_stale)
    config = await get(tools, "rag")
    assert config.stale_since.ToDatetime(clock.now.tzinfo) == clock.now
    config.ClearField("stale")
    config.ClearField("stale_since")
    assert config == known
    listed = (await tools.ListTools(pb.ListToolsRequest())).tools
    assert all(summary.stale and summary.HasField("stale_since") for summary in listed)
    refusal = await refused(update(tools, "rag", rag={"chunk_size": 700}))
    assert refusal.code == grpc.StatusCode.UNAVAILABLE
    # A server that starts meanwhile has only the environment and the defaults.
    late = (await serve(RAG_SEARCH_K="8")).tools
    config = await get(late, "rag")
    assert (config.rag.chunk_size, config.rag.search_k, config.stale) == (500, 8, True)
    await sql("ALTER TABLE away RENAME TO tool_config_head")
    await until(is_fresh)

    async def caught_up() -> bool:
        return await holds(late, 600)

    await until(caught_up)
    assert (await update(tools, "rag", rag={"chunk_size": 700})).revision == 2


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
async def test_a_locked_file_refuses_changes_and_serves_the_last(serve, database_url, refused):
    tools = (await serve(MEMORYD_DATABASE_LOCK_TIMEOUT_SECONDS="0.2")).tools
    file = make_url(database_url).database or ""
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    with closing(other):
        # In a thread: the server in this process may need the loop to release the lock.
        await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
        refusal = await refused(update(tools, "rag", rag={"chunk_size": 700}))
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.UNAVAILABLE,
            "DATABASE_UNAVAILABLE",
        )
        assert not (await get(tools, "rag")).stale
        other.execute("ROLLBACK")
    assert (await update(tools, "rag", rag={"chunk_size": 700})).rag.chunk_size == 700
