"""The seven tools' settings: the contract's names, forms and bounds, and warnings."""

import json
import traceback
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from memoryd.domain.errors import Violation
from memoryd.settings.reading import Problem, SettingsError
from memoryd.settings.service import Environment
from memoryd.tools.checks import require_secrets, warnings_of
from memoryd.tools.secrets import SecretReference, Secrets
from memoryd.tools.settings import (
    SETTINGS_OF,
    TOOLS,
    ApiSettings,
    AttachmentSettings,
    ConfigWarning,
    CrmSettings,
    EscalationSettings,
    Provenance,
    ToolConfig,
    ToolSettings,
    load_configuration,
    load_tool_configs,
    tool_settings_table,
    validate_settings,
)

CANARY = "c4n4ry"


def load(
    environ: Mapping[str, str] | None = None,
    dotenv: Path | None = None,
    *,
    production: bool = False,
) -> Mapping[str, ToolConfig]:
    return load_tool_configs(environ=environ or {}, dotenv=dotenv, production=production)


def load_one(variable: str, text: str) -> object:
    """The value of a setting from its variable."""
    tool, _, name = variable.lower().partition("_")
    return getattr(load({variable: text})[tool].settings, name)


def problems_of(
    environ: Mapping[str, str], dotenv: Path | None = None, *, production: bool = False
) -> tuple[Problem, ...]:
    with pytest.raises(SettingsError) as caught:
        load(environ, dotenv, production=production)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert CANARY not in repr(caught.value.problems)
    return caught.value.problems


def test_the_defaults() -> None:
    configs = load()
    assert tuple(configs) == TOOLS
    assert {tool: config.enabled for tool, config in configs.items()} == {
        "rag": True,
        "memory": True,
        "escalation": True,
        "attachment": True,
        "crm": False,
        "billing": False,
        "inventory": False,
    }
    assert {tool: config.settings.model_dump() for tool, config in configs.items()} == {
        "rag": {
            "chunk_size": 500,
            "chunk_overlap": 50,
            "search_k": 5,
            "similarity_threshold": 0.7,
            "cache_enabled": True,
            "cache_ttl": 3600,
        },
        "memory": {
            "max_entries": 100,
            "ttl_hours": 24,
            "cleanup_days": 30,
            "importance_threshold": 0.3,
        },
        "escalation": {
            "confidence_threshold": 0.7,
            "keywords": {
                "urgent": 1.0,
                "emergency": 1.0,
                "complaint": 0.9,
                "legal": 0.9,
                "lawsuit": 1.0,
                "manager": 0.8,
                "supervisor": 0.8,
            },
            "notification_enabled": False,
            "notification_email": "",
            "notification_webhook": "",
        },
        "attachment": {
            "max_file_size": 10_485_760,
            "allowed_extensions": (
                *(".pdf", ".docx", ".doc", ".txt", ".md", ".csv", ".xlsx"),
                *(".xls", ".json", ".xml", ".jpg", ".jpeg", ".png"),
            ),
            "chunk_for_rag": True,
            "temp_cleanup_hours": 24,
        },
        "crm": {"api_endpoint": "", "api_key": "", "timeout": 10, "max_retries": 3},
        "billing": {"api_endpoint": "", "api_key": ""},
        "inventory": {"api_endpoint": "", "api_key": ""},
    }


BOUNDS = [
    ("RAG_CHUNK_SIZE", ("100", "2000"), ("99", "2001")),
    ("RAG_CHUNK_OVERLAP", ("0", "499"), ("-1", "500", "501")),
    ("RAG_SEARCH_K", ("1", "20"), ("0", "21")),
    ("RAG_SIMILARITY_THRESHOLD", ("0", "1", "0.5", "1e-3"), ("-0.01", "1.01")),
    ("RAG_CACHE_TTL", ("60", "2147483647"), ("59", "2147483648")),
    ("MEMORY_MAX_ENTRIES", ("10", "1000"), ("9", "1001")),
    ("MEMORY_TTL_HOURS", ("1", "720"), ("0", "721")),
    ("MEMORY_CLEANUP_DAYS", ("1", "365"), ("0", "366")),
    ("MEMORY_IMPORTANCE_THRESHOLD", ("0", "1"), ("-0.01", "1.01")),
    ("ESCALATION_CONFIDENCE_THRESHOLD", ("0", "1"), ("-0.01", "1.01")),
    ("ATTACHMENT_MAX_FILE_SIZE", ("1024", "9007199254740992"), ("1023", "9007199254740993")),
    ("ATTACHMENT_TEMP_CLEANUP_HOURS", ("1", "2147483647"), ("0", "2147483648")),
    ("CRM_TIMEOUT", ("1", "2147483647"), ("0", "2147483648")),
    ("CRM_MAX_RETRIES", ("0", "2147483647"), ("-1", "2147483648")),
]
WHOLE_NUMBERS = [row[0] for row in BOUNDS if "THRESHOLD" not in row[0]]
NUMBERS = [row[0] for row in BOUNDS if "THRESHOLD" in row[0]]
BOOLEANS = [
    "RAG_CACHE_ENABLED",
    "ESCALATION_NOTIFICATION_ENABLED",
    "ATTACHMENT_CHUNK_FOR_RAG",
    *(f"ENABLE_{tool.upper()}_TOOL" for tool in TOOLS),
]


@pytest.mark.parametrize(("variable", "accepted", "refused"), BOUNDS)
def test_bounds(variable: str, accepted: tuple[str, ...], refused: tuple[str, ...]) -> None:
    for text in accepted:
        assert load_one(variable, text) == float(text)
    for text in refused:
        (problem,) = problems_of({variable: text})
        assert (problem.name, problem.found) == (variable, text)


@pytest.mark.parametrize("variable", WHOLE_NUMBERS)
@pytest.mark.parametrize("text", ["", " ", "many", "300.0", "3e2", "1_0_0", "0x64", "nan", "true"])
def test_values_that_are_not_whole_numbers(variable: str, text: str) -> None:
    assert problems_of({variable: text})[0].expected.startswith("expected a whole number from ")


@pytest.mark.parametrize("variable", NUMBERS)
@pytest.mark.parametrize("text", ["", "half", "0,5", "50%", "nan", "inf", "-Infinity", "true"])
def test_values_that_are_not_numbers(variable: str, text: str) -> None:
    assert problems_of({variable: text})[0].expected == "expected a number from 0 to 1"


@pytest.mark.parametrize("variable", BOOLEANS)
def test_booleans(variable: str) -> None:
    load({variable: "true"})
    load({variable: "false"})
    for text in ("", "True", "FALSE", "1", "0", "yes", "on", "t"):
        assert problems_of({variable: text})[0].expected == "expected true or false"


@pytest.mark.parametrize("tool", TOOLS)
def test_switches(tool: str) -> None:
    for text, enabled in (("true", True), ("false", False)):
        config = load({f"ENABLE_{tool.upper()}_TOOL": text})[tool]
        assert config.enabled is enabled
        assert config.provenance["enabled"] is Provenance.ENVIRONMENT


def test_chunks_overlap_by_less_than_their_size() -> None:
    assert load({"RAG_CHUNK_SIZE": "100", "RAG_CHUNK_OVERLAP": "99"})
    problems = problems_of(
        {"RAG_CHUNK_SIZE": "100", "RAG_CHUNK_OVERLAP": "100", "RAG_SEARCH_K": "0"}
    )
    assert problems == (
        Problem(
            "RAG_CHUNK_OVERLAP",
            "environment",
            "100",
            "expected a whole number below chunk_size, which is 100",
        ),
        Problem("RAG_SEARCH_K", "environment", "0", "expected a whole number from 1 to 20"),
    )


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("urgent=0.9,legal", {"urgent": 0.9, "legal": 0.8}),
        (" urgent = 1 , call a lawyer ", {"urgent": 1.0, "call a lawyer": 0.8}),
        ("a=b=0.5", {"a=b": 0.5}),
        ("Ärger=0", {"Ärger": 0.0}),
        ('{"urgent": 0.9, "now, please": 1}', {"urgent": 0.9, "now, please": 1.0}),
        ('["urgent", "legal"]', {"urgent": 0.8, "legal": 0.8}),
        ("{}", {}),
        ("w" * 200, {"w" * 200: 0.8}),
    ],
)
def test_keywords(text: str, keywords: dict[str, float]) -> None:
    assert load_one("ESCALATION_KEYWORDS", text) == keywords


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "urgent,",
        "urgent=",
        "=0.5",
        "urgent=high",
        "urgent=1.1",
        "urgent=-0.1",
        "urgent=nan",
        "urgent,urgent=1",
        '{"urgent": 1.1}',
        '{"urgent": true}',
        '{"urgent": null}',
        '{"urgent": NaN}',
        '{"": 1}',
        '{"a": 1, "a ": 1}',
        '{"urgent": {"a": 1}}',
        '{"urgent": 1',
        "[1]",
        "w" * 201,
        ",".join(map(str, range(1001))),
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_values_that_are_not_keywords(text: str) -> None:
    (problem,) = problems_of({"ESCALATION_KEYWORDS": text})
    assert problem.name == "ESCALATION_KEYWORDS"


def test_keywords_are_frozen() -> None:
    settings = load()["escalation"].settings
    assert isinstance(settings, EscalationSettings)
    with pytest.raises(TypeError):
        settings.keywords["a"] = 1.0  # type: ignore[index]  # refused, as the type says
    with pytest.raises(ValidationError, match="frozen"):
        settings.confidence_threshold = 1.0  # type: ignore[misc]  # refused, as the type says


@pytest.mark.parametrize(
    ("text", "extensions"),
    [
        (".pdf,.md", (".pdf", ".md")),
        ("pdf, MD ,.Tar.GZ", (".pdf", ".md", ".tar.gz")),
        ("pdf,.pdf,.PDF", (".pdf",)),
        ('[".pdf", "c++"]', (".pdf", ".c++")),
        ("[]", ()),
    ],
)
def test_extensions(text: str, extensions: tuple[str, ...]) -> None:
    assert load_one("ATTACHMENT_ALLOWED_EXTENSIONS", text) == extensions


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ",",
            ".pdf,",
            ".",
            "*.pdf",
            "../pdf",
            "a b",
            "." + "x" * 32,
            "[1]",
            '[".pdf"',
            '{"a": 1}',
        ),
        ",".join(map(str, range(1001))),
    ],
)
def test_values_that_are_not_extensions(text: str) -> None:
    (problem,) = problems_of({"ATTACHMENT_ALLOWED_EXTENSIONS": text})
    assert problem.name == "ATTACHMENT_ALLOWED_EXTENSIONS"


@pytest.mark.parametrize("text", ["", "ops@example.org", "a.b+c@localhost", "ü@bücher.example"])
def test_email(text: str) -> None:
    assert load_one("ESCALATION_NOTIFICATION_EMAIL", text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("ops", "@example.org", "ops@", "a@b@c", "a b@c", "a@b,c@d", "<a@b>", "a@-b", "a@b..c"),
        "a" * 251 + "@b.c",
    ],
)
def test_values_that_are_not_an_email_address(text: str) -> None:
    (problem,) = problems_of({"ESCALATION_NOTIFICATION_EMAIL": text})
    assert problem.expected == "expected one e-mail address of at most 254 characters, or nothing"


URLS = [
    "ESCALATION_NOTIFICATION_WEBHOOK",
    "CRM_API_ENDPOINT",
    "BILLING_API_ENDPOINT",
    "INVENTORY_API_ENDPOINT",
]


@pytest.mark.parametrize("variable", URLS)
@pytest.mark.parametrize(
    "text",
    ["", "http://crm", "https://crm.example:8443/v1?a=b#c", "https://[::1]:80/", "HTTPS://A"],
)
def test_urls(variable: str, text: str) -> None:
    assert load_one(variable, text) == text


@pytest.mark.parametrize("variable", URLS)
@pytest.mark.parametrize(
    "text",
    [
        "crm.example",
        "//crm.example",
        "ftp://crm.example",
        "file:///etc/passwd",
        "http://",
        "https:///v1",
        "https://:80",
        "https://crm:port",
        "https://crm:99999",
        "https://crm:0",
        "https://[::1",
        "https://crm example",
        "https://crm/\u00e9",
        "https://crm/" + "a" * 2048,
        f"https://user:{CANARY}@crm.example",
        f"https://{CANARY}@crm.example",
    ],
)
def test_values_that_are_not_a_url(variable: str, text: str) -> None:
    (problem,) = problems_of({variable: text})
    assert problem.name == variable


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(f"ENABLE_RAG_TOOL=yes\nRAG_SEARCH_K\n{CANARY} x\nBILLING_API_KEY={CANARY}\n")
    environ = {"MEMORY_TTL_HOURS": "0", "CRM_TIMEOUT": "", "CRM_API_KEY": CANARY}
    problems = problems_of(environ, path, production=True)
    assert {(problem.name, problem.where) for problem in problems} == {
        ("line 3", ".env"),
        ("ENABLE_RAG_TOOL", ".env"),
        ("RAG_SEARCH_K", ".env"),
        ("MEMORY_TTL_HOURS", "environment"),
        ("CRM_TIMEOUT", "environment"),
        ("CRM_API_KEY", "environment"),
        ("BILLING_API_KEY", ".env"),
    }


def test_names_that_only_begin_like_a_tools_are_other_programs() -> None:
    load({"RAG_FOO": "x", "MEMORY_LIMIT": "x", "rag_chunk_size": "x", "ENABLE_FOO_TOOL": "x"})


def test_the_environment_beats_dotenv(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("RAG_CHUNK_SIZE=600\nRAG_SEARCH_K=6\n")
    config = load({"RAG_CHUNK_SIZE": "700"}, path)["rag"]
    assert config.settings == SETTINGS_OF["rag"].model_validate({"chunk_size": 700, "search_k": 6})
    assert config.provenance == {
        "enabled": Provenance.DEFAULT,
        "rag.chunk_size": Provenance.ENVIRONMENT,
        "rag.chunk_overlap": Provenance.DEFAULT,
        "rag.search_k": Provenance.ENVIRONMENT,
        "rag.similarity_threshold": Provenance.DEFAULT,
        "rag.cache_enabled": Provenance.DEFAULT,
        "rag.cache_ttl": Provenance.DEFAULT,
    }


def test_nothing_but_the_arguments_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RAG_SEARCH_K=6\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAG_SEARCH_K", "7")
    assert load()["rag"].provenance["rag.search_k"] is Provenance.DEFAULT


@pytest.mark.parametrize("tool", ["crm", "billing", "inventory"])
def test_a_literal_secret_is_for_development_only(tool: str) -> None:
    variable = f"{tool.upper()}_API_KEY"
    settings = load({variable: CANARY})[tool].settings
    assert isinstance(settings, ApiSettings)
    assert settings.api_key.source == "literal"
    (problem,) = problems_of({variable: CANARY}, production=True)
    assert problem == Problem(
        variable,
        "environment",
        "a literal secret",
        "production accepts env://NAME or secretsmanager://aws/NAME[#json-key]: "
        "keep the secret there and name the place",
    )


@pytest.mark.parametrize("text", [f"env://{CANARY}-1", f"secretsmanager://aws/{CANARY} x"])
def test_a_malformed_reference_is_not_shown(text: str) -> None:
    (problem,) = problems_of({"CRM_API_KEY": text})
    assert problem.found == "a text"
    assert problem.expected in (
        "expected env://NAME",
        "expected secretsmanager://aws/NAME[#json-key]",
    )


def test_no_secret_is_shown() -> None:
    config = load({"CRM_API_KEY": CANARY})["crm"]
    settings = config.settings
    assert isinstance(settings, CrmSettings)
    assert settings.api_key.literal.get_secret_value() == CANARY
    shown = f"{config!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert CANARY not in shown
    assert json.loads(settings.model_dump_json())["api_key"] == "literal"


def test_a_reference_is_shown() -> None:
    settings = load({"CRM_API_KEY": "env://CRM_KEY"}, production=True)["crm"].settings
    assert settings.model_dump()["api_key"] == "env://CRM_KEY"


def config_of(
    tool: str, values: Mapping[str, object] | None = None, *, enabled: bool = True
) -> ToolConfig:
    settings, violations = validate_settings(tool, values or {}, production=False)
    assert settings is not None, violations
    return ToolConfig(tool, enabled, settings, {})


SECRETS = Secrets.built_in({"CRM_KEY": CANARY})


@pytest.mark.parametrize("tool", TOOLS)
async def test_the_defaults_give_warnings_only_for_missing_systems(tool: str) -> None:
    assert await warnings_of(config_of(tool, enabled=False), SECRETS) == []
    warned = [warning.path for warning in await warnings_of(config_of(tool), SECRETS)]
    calls_a_system = tool in ("crm", "billing", "inventory")
    assert warned == ([f"{tool}.api_endpoint", f"{tool}.api_key"] if calls_a_system else [])


async def test_a_warning_has_its_remedy() -> None:
    complete = {"api_endpoint": "https://crm", "api_key": "env://CRM_KEY"}
    assert await warnings_of(config_of("crm", complete), SECRETS) == []
    assert await warnings_of(config_of("crm", complete | {"api_endpoint": ""}), SECRETS) == [
        ConfigWarning(
            "crm.api_endpoint",
            "crm is enabled without api_endpoint; set CRM_API_ENDPOINT, or disable the tool",
        )
    ]


@pytest.mark.parametrize("enabled", [True, False])
async def test_a_reference_that_resolves_to_nothing_gives_a_warning(*, enabled: bool) -> None:
    config = config_of(
        "billing", {"api_endpoint": "https://b", "api_key": "env://NONE"}, enabled=enabled
    )
    assert await warnings_of(config, SECRETS) == [
        ConfigWarning(
            "billing.api_key",
            "env://NONE resolves to nothing: the variable NONE is not set; "
            "set NONE in the environment of the service or in .env, and restart",
        )
    ]


async def test_notifications_need_a_recipient() -> None:
    config = config_of("escalation", {"notification_enabled": True})
    (warning,) = await warnings_of(config, SECRETS)
    assert warning.path == "escalation.notification_enabled"
    for name, value in (
        ("notification_email", "ops@example.org"),
        ("notification_webhook", "https://hooks.example"),
    ):
        config = config_of("escalation", {"notification_enabled": True, name: value})
        assert await warnings_of(config, SECRETS) == []


async def test_production_requires_every_secret() -> None:
    configs = load({"CRM_API_KEY": "env://CRM_KEY"}, production=True)
    await require_secrets(configs, SECRETS)
    configs = load(
        {"CRM_API_KEY": "env://NONE", "BILLING_API_KEY": "secretsmanager://aws/billing"},
        production=True,
    )
    with pytest.raises(SettingsError) as caught:
        await require_secrets(configs, SECRETS)
    assert [(problem.name, problem.where) for problem in caught.value.problems] == [
        ("CRM_API_KEY", "env://NONE"),
        ("BILLING_API_KEY", "secretsmanager://aws/billing"),
    ]
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("tool", "values", "violations"),
    [
        ("rag", {}, []),
        ("rag", {"chunk_size": 100, "similarity_threshold": 1, "cache_enabled": False}, []),
        (
            "rag",
            {"chunk_size": 50, "chunk_overlap": True, "similarity_threshold": float("nan")},
            [
                Violation("rag.chunk_size", "50; expected a whole number from 100 to 2000"),
                Violation("rag.chunk_overlap", "true; expected a whole number from 0 to 500"),
                Violation("rag.similarity_threshold", "a number; expected a number from 0 to 1"),
            ],
        ),
        (
            "rag",
            {"chunk_siz": 1, "_env_file": CANARY, "search_k": 5.0, "cache_ttl": None},
            [
                Violation("rag.chunk_siz", "no such setting; did you mean chunk_size?"),
                Violation("rag._env_file", "no such setting; remove it"),
                Violation("rag.search_k", "5.0; expected a whole number from 1 to 20"),
                Violation(
                    "rag.cache_ttl",
                    "no value, or one that refers to a variable that is not set; "
                    "expected a whole number from 60 to 2147483647",
                ),
            ],
        ),
        ("rag", {"chunk_size": 10**5000}, None),
        ("rag", {"similarity_threshold": 10**5000}, None),
        ("rag", {"chunk_size": [CANARY]}, None),
        ("rag", {"chunk_size": CANARY}, None),
        ("rag", {"cache_enabled": 1}, None),
        ("escalation", {"keywords": {"a": 0.5}}, []),
        ("escalation", {"keywords": {1: 0.5}}, None),
        ("escalation", {"keywords": {CANARY: 2}}, None),
        ("escalation", {"keywords": 7}, None),
        ("escalation", {"notification_email": 7}, None),
        ("attachment", {"allowed_extensions": ["pdf"]}, []),
        ("attachment", {"allowed_extensions": [7]}, None),
        ("attachment", {"allowed_extensions": {"pdf": 1}}, None),
        ("crm", {"api_key": SecretReference.parse("env://A")}, []),
        ("crm", {"api_key": SecretStr("env://A")}, []),
        ("crm", {"api_key": 7}, None),
        ("crm", {"api_key": CANARY}, None),
        ("crm", {"api_key": SecretStr(CANARY)}, None),
        ("crm", {"api_key": CANARY, "timeout": 0}, ["crm.timeout", "crm.api_key"]),
    ],
)
def test_given_values_are_validated(
    tool: str, values: dict[str, object], violations: list[object] | None
) -> None:
    settings, found = validate_settings(tool, values, production=True)
    assert (settings is None) == bool(found)
    assert CANARY not in repr(found)
    if violations is None:
        assert [violation.field for violation in found] == [f"{tool}.{next(iter(values))}"]
    else:
        paths = [violation.field for violation in found]
        assert violations in (found, paths)


def test_settings_can_be_validated_again() -> None:
    for tool, config in load({"CRM_API_KEY": CANARY}).items():
        settings, _ = validate_settings(tool, dict(config.settings), production=False)
        assert settings == config.settings


def test_an_unknown_tool_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        validate_settings("fax", {}, production=False)


def test_the_text_of_a_value_is_its_typed_value() -> None:
    typed: list[ToolSettings] = [
        EscalationSettings(keywords={"a": 0.5}),
        AttachmentSettings(allowed_extensions=(".pdf",), chunk_for_rag=False),
        CrmSettings(api_key=SecretReference.parse("env://A"), timeout=3),
    ]
    environ = {
        "ESCALATION_KEYWORDS": "a=0.5",
        "ATTACHMENT_ALLOWED_EXTENSIONS": "pdf",
        "ATTACHMENT_CHUNK_FOR_RAG": "false",
        "CRM_API_KEY": "env://A",
        "CRM_TIMEOUT": "3",
    }
    configs = load(environ)
    assert [configs[settings.tool].settings for settings in typed] == typed


def test_both_readers_problems_are_listed_at_once(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("not readable\n")
    with pytest.raises(SettingsError) as caught:
        load_configuration(
            environ={"MEMORYD_PORT": "x", "RAG_SEARCH_K": "x"}, dotenv=path, flags={}
        )
    names = [problem.name for problem in caught.value.problems]
    assert names == ["line 1", "MEMORYD_PORT", "RAG_SEARCH_K"]


@pytest.mark.parametrize("bad", ["MEMORYD_PROT", "MEMORYD_PORT"])
def test_a_literal_secret_is_reported_along_with_a_bad_setting(bad: str) -> None:
    environ = {"MEMORYD_ENVIRONMENT": "production", bad: "x", "CRM_API_KEY": CANARY}
    with pytest.raises(SettingsError) as caught:
        load_configuration(environ=environ, dotenv=None, flags={})
    assert [problem.name for problem in caught.value.problems] == [bad, "CRM_API_KEY"]


def test_both_readers_answer() -> None:
    environ = {"MEMORYD_ENVIRONMENT": "production", "CRM_API_KEY": CANARY}
    with pytest.raises(SettingsError, match="CRM_API_KEY"):
        load_configuration(environ=environ, dotenv=None, flags={})
    environ["CRM_API_KEY"] = "env://A"
    settings, configs = load_configuration(environ=environ, dotenv=None, flags={"port": 0})
    assert (settings.environment, settings.port) == (Environment.PRODUCTION, 0)
    assert tuple(configs) == TOOLS


def test_the_table_has_every_variable_with_its_default() -> None:
    rows = tool_settings_table()
    assert len(rows) == len(TOOLS) + sum(len(SETTINGS_OF[tool].model_fields) for tool in TOOLS)
    configs = load({variable: default for variable, default, _ in rows})
    for tool, config in load().items():
        assert (configs[tool].settings, configs[tool].enabled) == (config.settings, config.enabled)
        assert set(configs[tool].provenance.values()) == {Provenance.ENVIRONMENT}
    assert all(description.endswith(".") for _, _, description in rows)
