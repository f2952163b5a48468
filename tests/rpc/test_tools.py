"""ListTools, GetToolConfig and ValidateToolConfig."""

from __future__ import annotations

import logging
import math

import grpc
import pytest

from memoryd.v1 import tool_config_pb2 as pb
from memoryd.v1.tool_config_pb2_grpc import ToolConfigServiceStub

TOOLS = ["rag", "memory", "escalation", "attachment", "crm", "billing", "inventory"]
ON = ["rag", "memory", "escalation", "attachment"]
WITH_KEY = ["crm", "billing", "inventory"]
CANARY = "canary-8d2f6c"
VALID = pb.ValidateToolConfigResponse()

# From the contract's table.
DEFAULTS = {
    "rag": pb.RagSettings(
        chunk_size=500,
        chunk_overlap=50,
        search_k=5,
        similarity_threshold=0.7,
        cache_enabled=True,
        cache_ttl=3600,
    ),
    "memory": pb.MemorySettings(
        max_entries=100, ttl_hours=24, cleanup_days=30, importance_threshold=0.3
    ),
    "escalation": pb.EscalationSettings(
        confidence_threshold=0.7,
        keywords={
            "urgent": 1.0,
            "emergency": 1.0,
            "complaint": 0.9,
            "legal": 0.9,
            "lawsuit": 1.0,
            "manager": 0.8,
            "supervisor": 0.8,
        },
        notification_enabled=False,
    ),
    "attachment": pb.AttachmentSettings(
        max_file_size=10_485_760,
        allowed_extensions=[
            *(".pdf", ".docx", ".doc", ".txt", ".md", ".csv", ".xlsx", ".xls"),
            *(".json", ".xml", ".jpg", ".jpeg", ".png"),
        ],
        chunk_for_rag=True,
        temp_cleanup_hours=24,
    ),
    "crm": pb.CrmSettings(timeout=10, max_retries=3),
    "billing": pb.BillingSettings(),
    "inventory": pb.InventorySettings(),
}


async def get(tools: ToolConfigServiceStub, tool: str) -> pb.ToolConfig:
    return await tools.GetToolConfig(pb.GetToolConfigRequest(tool=tool))


async def validate(
    tools: ToolConfigServiceStub, tool: str, **fields: object
) -> pb.ValidateToolConfigResponse:
    return await tools.ValidateToolConfig(
        pb.ValidateToolConfigRequest(tool_config=pb.ToolConfig(tool=tool, **fields))
    )


def fields(found: object) -> list[str]:
    return sorted(one.field for one in found)


# ListTools


async def test_all_seven_are_listed_in_their_order_with_their_switches(tools):
    listed = (await tools.ListTools(pb.ListToolsRequest())).tools
    assert [summary.tool for summary in listed] == TOOLS
    assert [summary.tool for summary in listed if summary.enabled] == ON
    assert all(summary.HasField("enabled") for summary in listed)
    assert not any(summary.warnings for summary in listed)
    assert not any(summary.revision for summary in listed)


@pytest.mark.parametrize("tool", TOOLS)
async def test_a_switch_is_set_by_its_variable(serve, tool):
    switch = "false" if tool in ON else "true"
    tools = (await serve(**{f"ENABLE_{tool.upper()}_TOOL": switch})).tools
    listed = (await tools.ListTools(pb.ListToolsRequest())).tools
    assert {s.tool for s in listed if s.enabled} == set(ON) ^ {tool}
    config = await get(tools, tool)
    assert config.enabled == (tool not in ON)
    assert config.HasField("enabled")
    assert config.provenance["enabled"] == pb.PROVENANCE_ENVIRONMENT


async def test_the_list_warns_as_the_configuration_does(serve):
    tools = (await serve(ENABLE_CRM_TOOL="true", ESCALATION_NOTIFICATION_ENABLED="true")).tools
    for summary in (await tools.ListTools(pb.ListToolsRequest())).tools:
        config = await get(tools, summary.tool)
        assert list(summary.warnings) == list(config.warnings)
        assert bool(summary.warnings) == (summary.tool in ("crm", "escalation"))


# GetToolConfig


async def test_defaults_are_the_contracts(tools):
    for tool in TOOLS:
        config = await get(tools, tool)
        assert config.tool == tool
        assert config.enabled == (tool in ON)
        assert config.WhichOneof("settings") == tool
        assert getattr(config, tool) == DEFAULTS[tool]
        assert (list(config.warnings), config.revision) == ([], 0)
        assert config.etag


async def test_every_setting_says_where_it_comes_from(tools):
    for tool in TOOLS:
        config = await get(tools, tool)
        described = getattr(config, tool).DESCRIPTOR.fields_by_name
        settings = [n for n in described if n not in ("has_api_key", "api_key_source")]
        assert dict(config.provenance) == dict.fromkeys(
            ["enabled", *(f"{tool}.{name}" for name in settings)], pb.PROVENANCE_DEFAULT
        )


ENVIRONMENT = {
    "RAG_CHUNK_SIZE": "600",
    "RAG_CHUNK_OVERLAP": "0",
    "RAG_SEARCH_K": "20",
    "RAG_SIMILARITY_THRESHOLD": "0",
    "RAG_CACHE_ENABLED": "false",
    "RAG_CACHE_TTL": "60",
    "MEMORY_MAX_ENTRIES": "1000",
    "MEMORY_TTL_HOURS": "720",
    "MEMORY_CLEANUP_DAYS": "1",
    "MEMORY_IMPORTANCE_THRESHOLD": "1",
    "ESCALATION_CONFIDENCE_THRESHOLD": "0.25",
    "ESCALATION_KEYWORDS": "fire=0.5,help",
    "ESCALATION_NOTIFICATION_ENABLED": "true",
    "ESCALATION_NOTIFICATION_EMAIL": "team@b.example",
    "ESCALATION_NOTIFICATION_WEBHOOK": "https://b.example/hook",
    "ATTACHMENT_MAX_FILE_SIZE": "5000000000",
    "ATTACHMENT_ALLOWED_EXTENSIONS": ".md,.txt",
    "ATTACHMENT_CHUNK_FOR_RAG": "false",
    "ATTACHMENT_TEMP_CLEANUP_HOURS": "1",
    "CRM_API_ENDPOINT": "https://crm.example",
    "CRM_API_KEY": "env://THE_KEY",
    "CRM_TIMEOUT": "1",
    "CRM_MAX_RETRIES": "0",
    "BILLING_API_ENDPOINT": "https://billing.example",
    "BILLING_API_KEY": "env://THE_KEY",
    "INVENTORY_API_ENDPOINT": "http://stock.example:8080",
    "INVENTORY_API_KEY": "a literal",
}

SET_BY_ENVIRONMENT = {
    "rag": pb.RagSettings(
        chunk_size=600,
        chunk_overlap=0,
        search_k=20,
        similarity_threshold=0,
        cache_enabled=False,
        cache_ttl=60,
    ),
    "memory": pb.MemorySettings(
        max_entries=1000, ttl_hours=720, cleanup_days=1, importance_threshold=1
    ),
    "escalation": pb.EscalationSettings(
        confidence_threshold=0.25,
        keywords={"fire": 0.5, "help": 0.8},
        notification_enabled=True,
        notification_email="team@b.example",
        notification_webhook="https://b.example/hook",
    ),
    "attachment": pb.AttachmentSettings(
        max_file_size=5_000_000_000,
        allowed_extensions=[".md", ".txt"],
        chunk_for_rag=False,
        temp_cleanup_hours=1,
    ),
    "crm": pb.CrmSettings(
        api_endpoint="https://crm.example",
        has_api_key=True,
        api_key_source="env://THE_KEY",
        timeout=1,
        max_retries=0,
    ),
    "billing": pb.BillingSettings(
        api_endpoint="https://billing.example", has_api_key=True, api_key_source="env://THE_KEY"
    ),
    "inventory": pb.InventorySettings(
        api_endpoint="http://stock.example:8080", has_api_key=True, api_key_source="literal"
    ),
}


async def test_every_setting_is_set_by_its_variable(serve):
    tools = (await serve(**ENVIRONMENT, THE_KEY="a value")).tools
    given = {variable.replace("_", ".", 1).lower() for variable in ENVIRONMENT}
    for tool in TOOLS:
        config = await get(tools, tool)
        assert getattr(config, tool) == SET_BY_ENVIRONMENT[tool]
        for path, origin in config.provenance.items():
            expected = pb.PROVENANCE_ENVIRONMENT if path in given else pb.PROVENANCE_DEFAULT
            assert origin == expected, path
        given -= set(config.provenance)
    assert given == set()


async def test_one_variable_sets_nothing_else(serve):
    config = await get((await serve(RAG_CHUNK_SIZE="600")).tools, "rag")
    given = [path for path, origin in config.provenance.items() if origin != pb.PROVENANCE_DEFAULT]
    assert given == ["rag.chunk_size"]
    assert config.rag.chunk_size == 600
    config.rag.chunk_size = 500
    assert config.rag == DEFAULTS["rag"]


async def test_lists_may_be_given_as_json(serve):
    tools = (
        await serve(
            ESCALATION_KEYWORDS='{"fire": 0.5, "help, now": 1}',
            ATTACHMENT_ALLOWED_EXTENSIONS='[".md", ".tar.gz"]',
        )
    ).tools
    assert (await get(tools, "escalation")).escalation.keywords == {"fire": 0.5, "help, now": 1}
    attachment = (await get(tools, "attachment")).attachment
    assert attachment.allowed_extensions == [".md", ".tar.gz"]


async def test_a_variable_that_repeats_the_default_counts_as_given(serve):
    config = await get((await serve(RAG_CHUNK_SIZE="500")).tools, "rag")
    assert config.provenance["rag.chunk_size"] == pb.PROVENANCE_ENVIRONMENT
    assert config.rag == DEFAULTS["rag"]


async def test_the_etag_belongs_to_the_configuration(serve):
    first, second = await serve(), await serve()
    other = await serve(RAG_CHUNK_SIZE="600", ENABLE_BILLING_TOOL="true")
    for tool in TOOLS:
        etags = [(await get(running.tools, tool)).etag for running in (first, second, other)]
        assert etags[0] == etags[1]
        assert (etags[0] == etags[2]) == (tool not in ("rag", "billing"))


async def test_an_unknown_tool_is_refused_with_the_known_ones(tools, refused):
    for tool in ("", "RAG", "rags", "rag ", "crm\n", "../rag", "r\u0430g", "rag.chunk_size"):
        for call, field in (
            (get(tools, tool), "tool"),
            (validate(tools, tool), "tool_config.tool"),
        ):
            refusal = await refused(call)
            assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
            assert refusal.reason == "INVALID_REQUEST"
            assert list(refusal.violations) == [field]
            assert all(known in refusal.violations[field] for known in TOOLS)


async def test_a_configuration_to_validate_is_required(tools, refused):
    refusal = await refused(tools.ValidateToolConfig(pb.ValidateToolConfigRequest()))
    assert list(refusal.violations) == ["tool_config"]


# Secrets


@pytest.mark.parametrize(
    ("key", "source"),
    [(CANARY, "literal"), ("env://THE_KEY", "env://THE_KEY")],
    ids=["literal", "reference"],
)
async def test_only_the_presence_and_source_of_a_key_are_shown(serve, key, source):
    keys = {f"{tool.upper()}_API_KEY": key for tool in WITH_KEY}
    tools = (await serve(**keys, THE_KEY=CANARY)).tools
    for tool in WITH_KEY:
        config = await get(tools, tool)
        settings = getattr(config, tool)
        assert (settings.has_api_key, settings.api_key_source) == (True, source)
        assert not settings.HasField("api_key")
        assert not config.warnings


async def test_an_absent_key_is_shown_as_absent(tools):
    for tool in WITH_KEY:
        settings = getattr(await get(tools, tool), tool)
        assert (settings.has_api_key, settings.api_key_source) == (False, "")


@pytest.mark.parametrize(
    "variables",
    [
        {"CRM_API_KEY": CANARY},
        {"CRM_API_KEY": "env://CRM_SECRET", "CRM_SECRET": CANARY},
        {"CRM_API_KEY": f"vault://{CANARY}"},
    ],
    ids=["literal", "reference", "unknown scheme"],
)
async def test_no_answer_and_no_log_line_holds_a_secret(serve, refused, caplog, variables):
    caplog.set_level(logging.DEBUG)
    tools = (await serve(ENABLE_CRM_TOOL="true", **variables)).tools
    answers = [await tools.ListTools(pb.ListToolsRequest())]
    answers += [await get(tools, tool) for tool in TOOLS]
    for crm in (
        {},
        {"timeout": 5},
        {"timeout": 0},
        {"api_key": CANARY, "timeout": 0},
        {"api_key": f"env://{CANARY}"},
        {"api_key": f"secretsmanager://{CANARY}"},
        {"api_endpoint": f"https://user:{CANARY}@crm.example"},
    ):
        answers.append(await validate(tools, "crm", crm=crm))
    for answer in answers:
        assert CANARY.encode() not in answer.SerializeToString(), answer
    refusal = await refused(validate(tools, f"no tool {CANARY}", crm={"api_key": CANARY}))
    assert CANARY not in str(refusal)
    assert caplog.records
    for record in caplog.records:
        assert CANARY not in str(record.__dict__)


# ValidateToolConfig


async def test_the_current_configuration_is_valid(tools):
    for tool in TOOLS:
        assert await validate(tools, tool) == VALID
        current = await get(tools, tool)
        answer = await tools.ValidateToolConfig(pb.ValidateToolConfigRequest(tool_config=current))
        assert answer == VALID


async def test_validating_changes_nothing(tools):
    before = [await get(tools, tool) for tool in TOOLS]
    assert await validate(tools, "rag", enabled=False, rag={"chunk_size": 700}) == VALID
    assert [await get(tools, tool) for tool in TOOLS] == before


@pytest.mark.parametrize("tool", WITH_KEY)
async def test_enabled_without_endpoint_or_key_gives_a_warning(serve, tools, tool):
    wanted = [f"{tool}.api_endpoint", f"{tool}.api_key"]
    answer = await validate(tools, tool, enabled=True)
    assert (fields(answer.warnings), list(answer.violations)) == (wanted, [])
    assert all(tool.upper() in warning.description for warning in answer.warnings)
    switched_on = (await serve(**{f"ENABLE_{tool.upper()}_TOOL": "true"})).tools
    assert fields((await get(switched_on, tool)).warnings) == wanted
    assert fields((await validate(switched_on, tool)).warnings) == wanted
    assert not (await validate(switched_on, tool, enabled=False)).warnings


async def test_unset_settings_count_as_they_are_now(serve):
    tools = (await serve(ENABLE_CRM_TOOL="true", CRM_API_ENDPOINT="https://crm.example")).tools
    assert fields((await validate(tools, "crm")).warnings) == ["crm.api_key"]
    keyed = await validate(tools, "crm", crm={"api_key": "a literal"})
    assert keyed == VALID
    cleared = await validate(tools, "crm", crm={"api_endpoint": "", "api_key": "a literal"})
    assert fields(cleared.warnings) == ["crm.api_endpoint"]


async def test_a_reference_that_resolves_to_nothing_gives_a_warning(serve):
    variables = {"CRM_API_ENDPOINT": "https://crm.example", "CRM_API_KEY": "env://MISSING"}
    tools = (
        await serve(
            ENABLE_CRM_TOOL="true",
            SET="a value",
            EMPTY=" ",
            MEMORYD_SECRET_NAMES="env://*",  # noqa: S106  a pattern
            **variables,
        )
    ).tools
    (warning,) = (await get(tools, "crm")).warnings
    assert warning.field == "crm.api_key"
    assert "MISSING" in warning.description
    for reference, warns in (
        ("env://SET", False),
        ("env://EMPTY", True),
        ("env://ALSO_MISSING", True),
        ("a literal", False),
    ):
        answer = await validate(tools, "crm", crm={"api_key": reference})
        assert not answer.violations
        assert fields(answer.warnings) == ["crm.api_key"] * warns, reference


async def test_notifications_without_a_recipient_give_a_warning(tools):
    alone = await validate(tools, "escalation", escalation={"notification_enabled": True})
    assert fields(alone.warnings) == ["escalation.notification_enabled"]
    assert not alone.violations
    for recipient in (
        {"notification_email": "team@example.com"},
        {"notification_webhook": "https://hooks.example/1"},
    ):
        settings = {"notification_enabled": True, **recipient}
        assert await validate(tools, "escalation", escalation=settings) == VALID


BOUNDS = [
    ("rag", "chunk_size", 100, 2000),
    ("rag", "chunk_overlap", 0, 499),
    ("rag", "search_k", 1, 20),
    ("rag", "similarity_threshold", 0.0, 1.0),
    ("rag", "cache_ttl", 60, None),
    ("memory", "max_entries", 10, 1000),
    ("memory", "ttl_hours", 1, 720),
    ("memory", "cleanup_days", 1, 365),
    ("memory", "importance_threshold", 0.0, 1.0),
    ("escalation", "confidence_threshold", 0.0, 1.0),
    ("attachment", "max_file_size", 1024, None),
    ("attachment", "temp_cleanup_hours", 1, None),
    ("crm", "timeout", 1, None),
    ("crm", "max_retries", 0, None),
]


async def test_settings_keep_to_their_bounds(tools):
    for tool, name, least, most in BOUNDS:
        path = f"{tool}.{name}"
        step = 1 if isinstance(least, int) else 0.001
        good = [least, least + step, *([] if most is None else [most])]
        bad = [least - step, *([] if most is None else [most + step])]
        if isinstance(least, float):
            bad += [math.nan, math.inf, -math.inf]
        for value in good:
            answer = await validate(tools, tool, **{tool: {name: value}})
            assert answer == VALID, (path, value)
        for value in bad:
            answer = await validate(tools, tool, **{tool: {name: value}})
            assert fields(answer.violations) == [path], (path, value)
            assert answer.violations[0].description, (path, value)
            assert not answer.warnings, (path, value)


async def test_an_overlap_stays_below_the_chunk_size(tools):
    for rag, bad in (
        ({"chunk_size": 100, "chunk_overlap": 99}, []),
        ({"chunk_size": 100, "chunk_overlap": 100}, ["rag.chunk_overlap"]),
        ({"chunk_size": 2000, "chunk_overlap": 500}, []),
        ({"chunk_size": 2000, "chunk_overlap": 501}, ["rag.chunk_overlap"]),
        ({"chunk_overlap": 500}, ["rag.chunk_overlap"]),  # the chunk size is 500 now
        ({"chunk_size": 99, "chunk_overlap": 501}, ["rag.chunk_overlap", "rag.chunk_size"]),
    ):
        assert fields((await validate(tools, "rag", rag=rag)).violations) == bad, rag


async def test_an_overlap_is_validated_against_the_current_chunk_size(serve):
    tools = (await serve(RAG_CHUNK_SIZE="600", RAG_CHUNK_OVERLAP="300")).tools
    assert not (await validate(tools, "rag", rag={"chunk_overlap": 500})).violations
    smaller = await validate(tools, "rag", rag={"chunk_size": 300})
    assert fields(smaller.violations) == ["rag.chunk_overlap"]


async def test_escalation_settings_are_validated(tools):
    for settings, bad in (
        ({"keywords": {"fire": 1.0, "smoke": 0.0}}, []),
        ({"keywords": {"fire": 1.1}}, ["keywords"]),
        ({"keywords": {"fire": math.nan}}, ["keywords"]),
        ({"keywords": {"": 0.5}}, ["keywords"]),
        ({"notification_email": "nobody"}, ["notification_email"]),
        ({"notification_email": "a@b.example, c@d.example"}, ["notification_email"]),
        ({"notification_webhook": "ftp://b.example"}, ["notification_webhook"]),
        ({"notification_webhook": "javascript:alert(1)"}, ["notification_webhook"]),
        (
            {"confidence_threshold": 2, "notification_email": "@", "notification_webhook": "x"},
            ["confidence_threshold", "notification_email", "notification_webhook"],
        ),
    ):
        answer = await validate(tools, "escalation", escalation=settings)
        assert fields(answer.violations) == [f"escalation.{name}" for name in bad], settings


async def test_extensions_are_extensions(tools):
    for extensions in ([""], ["."], ["a b"], ["../x"], [".p/df"], ["*"], [".md", "a b"]):
        answer = await validate(tools, "attachment", attachment={"allowed_extensions": extensions})
        assert fields(answer.violations) == ["attachment.allowed_extensions"], extensions


async def test_endpoints_and_keys_are_well_formed(tools):
    for settings, bad in (
        ({"api_endpoint": "https://a.example/v1", "api_key": "env://CRM_KEY"}, []),
        ({"api_endpoint": "a.example"}, ["api_endpoint"]),
        ({"api_endpoint": "https://"}, ["api_endpoint"]),
        ({"api_endpoint": "https://user:pw@a.example"}, ["api_endpoint"]),
        ({"api_key": "env://"}, ["api_key"]),
        ({"api_key": "env://A B"}, ["api_key"]),
        ({"api_key": "secretsmanager://gcp/key"}, ["api_key"]),
        ({"api_endpoint": "x", "api_key": "env://"}, ["api_endpoint", "api_key"]),
    ):
        for tool in WITH_KEY:
            answer = await validate(tools, tool, **{tool: settings})
            assert fields(answer.violations) == [f"{tool}.{name}" for name in bad], settings


async def test_production_takes_keys_by_reference_only(serve):
    tools = (
        await serve(MEMORYD_AUTH="observe", MEMORYD_ENVIRONMENT="production", CRM_KEY=CANARY)
    ).tools
    literal = await validate(tools, "crm", crm={"api_key": CANARY})
    assert fields(literal.violations) == ["crm.api_key"]
    assert "env://NAME" in literal.violations[0].description
    assert CANARY not in str(literal)
    assert await validate(tools, "crm", crm={"api_key": "env://CRM_KEY"}) == VALID


async def test_the_settings_of_another_tool_are_a_violation(tools):
    for tool in TOOLS:
        other = TOOLS[TOOLS.index(tool) - 1]
        answer = await validate(tools, tool, **{other: {}})
        assert fields(answer.violations) == [other]
        assert tool in answer.violations[0].description
        assert not answer.warnings


async def test_all_violations_are_listed_at_once(tools):
    rag = {"chunk_size": 1, "chunk_overlap": -1, "search_k": 0, "similarity_threshold": 2}
    answer = await validate(tools, "rag", rag=rag | {"cache_ttl": 59})
    assert fields(answer.violations) == [
        *("rag.cache_ttl", "rag.chunk_overlap", "rag.chunk_size", "rag.search_k"),
        "rag.similarity_threshold",
    ]
