"""The settings of the seven tools: their names, defaults, bounds and variables.

`TOOL_SETTING` sets a setting (`RAG_CHUNK_SIZE`), `ENABLE_TOOL_TOOL` its switch (`ENABLE_RAG_TOOL`).
"""

from __future__ import annotations

import enum
import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

from pydantic import Field, ValidationInfo, field_validator

from memoryd.domain.errors import Violation
from memoryd.settings.model import (
    Boolean,
    Fault,
    Integer,
    SettingsModel,
    describe,
    refusal,
    validate,
)
from memoryd.settings.reading import SettingsError, VariableReader
from memoryd.settings.service import Environment, Settings, read_settings
from memoryd.tools.field_types import (
    ApiKey,
    Email,
    Extensions,
    Fraction,
    HttpUrl,
    Keywords,
    secret_reference,
)
from memoryd.tools.secrets import REFERENCE_FORMS, SecretReference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from memoryd.tools.secrets.names import SecretNames

TOOLS: Final = ("rag", "memory", "escalation", "attachment", "crm", "billing", "inventory")

INT32_MAX: Final = 2**31 - 1
"""The largest int32: the bound of settings without a bound of their own."""

LOST_LITERAL: Final = SecretReference("literal")
"""Stands for a literal secret that only another process has."""


class ToolSettings(SettingsModel):
    """The settings of one tool; one of the seven classes below."""

    tool: ClassVar[str]

    @classmethod
    def variable(cls, field_name: str) -> str:
        return f"{cls.tool}_{field_name}".upper()


class RagSettings(ToolSettings):
    tool = "rag"

    chunk_size: Integer = Field(default=500, ge=100, le=2000, description="Words in a chunk.")
    chunk_overlap: Integer = Field(
        default=50,
        ge=0,
        le=500,
        description="Words that neighbouring chunks share; below chunk_size.",
    )
    search_k: Integer = Field(default=5, ge=1, le=20, description="Chunks a search returns.")
    similarity_threshold: Fraction = Field(
        default=0.7, description="The least similarity of a chunk."
    )
    cache_enabled: Boolean = Field(default=True, description="Whether search results are cached.")
    cache_ttl: Integer = Field(
        default=3600,
        ge=60,
        le=INT32_MAX,
        description="How long search results are cached, in seconds.",
    )

    # On the field, not on the model, so that it runs even where another field is bad.
    @field_validator("chunk_overlap")
    @classmethod
    def _below_chunk_size(cls, overlap: int, info: ValidationInfo) -> int:
        size = info.data.get("chunk_size")
        if size is not None and overlap >= size:
            raise refusal(f"expected a whole number below chunk_size, which is {size}")
        return overlap


class MemorySettings(ToolSettings):
    tool = "memory"

    max_entries: Integer = Field(
        default=100, ge=10, le=1000, description="The most live memories of a session."
    )
    ttl_hours: Integer = Field(
        default=24,
        ge=1,
        le=720,
        description="How long a memory lives that is stored without an expiration, in hours.",
    )
    cleanup_days: Integer = Field(
        default=30,
        ge=1,
        le=365,
        description="How long a memory may go unretrieved before it is soft-deleted, in days.",
    )
    importance_threshold: Fraction = Field(
        default=0.3,
        description="The least effective importance of what is retrieved without a query.",
    )


class EscalationSettings(ToolSettings):
    tool = "escalation"

    confidence_threshold: Fraction = Field(
        default=0.7, description="The confidence below which the agent hands over."
    )
    keywords: Keywords = Field(
        default_factory=lambda: MappingProxyType(
            {
                "urgent": 1.0,
                "emergency": 1.0,
                "complaint": 0.9,
                "legal": 0.9,
                "lawsuit": 1.0,
                "manager": 0.8,
                "supervisor": 0.8,
            }
        ),
        description="Words that suggest handing over, with their weights.",
    )
    notification_enabled: Boolean = Field(
        default=False, description="Whether a notification is sent when the agent hands over."
    )
    notification_email: Email = Field(default="", description="Who is notified by e-mail.")
    notification_webhook: HttpUrl = Field(
        default="", description="The URL that is notified by HTTP."
    )


class AttachmentSettings(ToolSettings):
    tool = "attachment"

    max_file_size: Integer = Field(
        default=10_485_760, ge=1024, le=2**53, description="The largest file, in bytes."
    )
    allowed_extensions: Extensions = Field(
        default=(
            *(".pdf", ".docx", ".doc", ".txt", ".md", ".csv", ".xlsx"),
            *(".xls", ".json", ".xml", ".jpg", ".jpeg", ".png"),
        ),
        description="The file name extensions that are accepted.",
    )
    chunk_for_rag: Boolean = Field(
        default=True, description="Whether contents are chunked for retrieval."
    )
    temp_cleanup_hours: Integer = Field(
        default=24, ge=1, le=INT32_MAX, description="How long temporary files stay, in hours."
    )


class ApiSettings(ToolSettings):
    """The settings of tools that call a system of the operator's."""

    api_endpoint: HttpUrl = Field(default="", description="The base URL of the system.")
    api_key: ApiKey = Field(
        default_factory=SecretReference, description="The secret that the system asks for."
    )


class CrmSettings(ApiSettings):
    tool = "crm"

    timeout: Integer = Field(
        default=10, ge=1, le=INT32_MAX, description="How long a call may take, in seconds."
    )
    max_retries: Integer = Field(
        default=3, ge=0, le=INT32_MAX, description="How often a failed call is tried again."
    )


class BillingSettings(ApiSettings):
    tool = "billing"


class InventorySettings(ApiSettings):
    tool = "inventory"


SETTINGS_OF: Final[Mapping[str, type[ToolSettings]]] = MappingProxyType(
    {
        model.tool: model
        for model in (
            RagSettings,
            MemorySettings,
            EscalationSettings,
            AttachmentSettings,
            CrmSettings,
            BillingSettings,
            InventorySettings,
        )
    }
)
"""The settings class of each tool."""


_Switch = Annotated[Boolean, Field(description="Whether agents may use the tool.")]


class _Switches(SettingsModel):
    rag: _Switch = True
    memory: _Switch = True
    escalation: _Switch = True
    attachment: _Switch = True
    crm: _Switch = False
    billing: _Switch = False
    inventory: _Switch = False

    @classmethod
    def variable(cls, field_name: str) -> str:
        return f"ENABLE_{field_name}_TOOL".upper()


class Provenance(enum.Enum):
    """The layer of a value; each layer overrides those before it."""

    DEFAULT = enum.auto()
    ENVIRONMENT = enum.auto()
    INSTANCE = enum.auto()
    OVERRIDE = enum.auto()


@dataclass(frozen=True, slots=True)
class ToolConfig:
    """The effective configuration of one tool."""

    tool: str
    enabled: bool
    settings: ToolSettings
    provenance: Mapping[str, Provenance]
    """Every setting by its path: `enabled`, `rag.chunk_size`."""
    revision: int = 0
    """The revision of the last runtime change; 0: none yet."""
    set_aside: tuple[ConfigWarning, ...] = ()
    """Overrides without effect, since the service refuses them."""

    @property
    def values(self) -> dict[str, object]:
        """The settings by their names, typed."""
        return {name: getattr(self.settings, name) for name in type(self.settings).model_fields}

    @property
    def etag(self) -> str:
        """A hash of the revision and all that a caller can see; of a secret, of its reference."""
        seen = [self.revision, self.enabled, self.settings.model_dump(mode="json")]
        return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class ConfigWarning:
    """A problem that does not stop the tool from working, with its remedy."""

    path: str
    description: str


def load_tool_configs(
    *, environ: Mapping[str, str], dotenv: Path | None, production: bool
) -> Mapping[str, ToolConfig]:
    """Read the seven tools, in the order of `TOOLS`.

    Other variables that begin like a tool's belong to other programs and are ignored. Raises
    `SettingsError` with every problem; in production a literal secret is one.
    """
    reader = VariableReader(environ=environ, dotenv=dotenv)
    configs = read_tool_configs(reader, production=production)
    reader.raise_problems()
    return configs


def read_tool_configs(reader: VariableReader, *, production: bool) -> Mapping[str, ToolConfig]:
    """Read the tools; those with a refused value are left out, and the reader has the problems."""
    given = reader.given(_Switches)
    switches, faults = validate(_Switches, given.values)
    reader.refuse(_Switches, given, faults)
    switched = given.origins
    configs = {}
    for tool in TOOLS:
        model = SETTINGS_OF[tool]
        given = reader.given(model)
        settings, faults = _validate(model, given.values, production=production)
        reader.refuse(model, given, faults)
        if settings is not None:
            provenance = {"enabled": _layer(given=tool in switched)} | {
                f"{tool}.{name}": _layer(given=name in given.origins) for name in model.model_fields
            }
            configs[tool] = ToolConfig(
                tool, getattr(switches or _Switches(), tool), settings, MappingProxyType(provenance)
            )
    return MappingProxyType(configs)


def load_configuration(
    *, environ: Mapping[str, str], dotenv: Path | None, flags: Mapping[str, object]
) -> tuple[Settings, Mapping[str, ToolConfig]]:
    """Read the service's settings and the tools; one `SettingsError` has the problems of both."""
    reader = VariableReader(environ=environ, dotenv=dotenv)
    settings = read_settings(reader, flags)
    # From the given value, since another setting may be bad.
    environment = reader.given(Settings, flags).values.get("environment")
    configs = read_tool_configs(reader, production=environment == Environment.PRODUCTION)
    if settings is None or reader.problems:
        raise SettingsError(reader.problems)
    return settings, configs


def validate_settings(
    tool: str,
    values: Mapping[str, object],
    *,
    production: bool,
    secret_names: SecretNames | None = None,
) -> tuple[ToolSettings | None, list[Violation]]:
    """Build one tool's settings from values by name, or list everything that is wrong with them.

    A value is typed or in the form of its variable; a setting without one has its default. With
    `secret_names` values may only name secrets that these allow. The settings are None where there
    is a violation. Raises KeyError for an unknown tool.
    """
    settings, faults = _validate(SETTINGS_OF[tool], values, production=production)
    if secret_names is not None:
        faults += [
            Fault(
                name,
                "a secret that callers may not name",
                f"give one that the service's {Settings.variable(setting)} allows, or have its"
                " operator allow this one",
            )
            for name, reference in _references(SETTINGS_OF[tool], values)
            if (setting := secret_names.refusing(reference)) is not None
        ]
        settings = None if faults else settings
    return settings, [
        Violation(f"{tool}.{fault.field}", f"{fault.found}; {fault.expected}") for fault in faults
    ]


def _validate(
    model: type[ToolSettings], values: Mapping[str, object], *, production: bool
) -> tuple[ToolSettings | None, list[Fault]]:
    settings, faults = validate(model, values)
    if production:
        # From the given values, so that it is reported even where another setting is bad.
        faults += [
            Fault(
                name,
                "a literal secret",
                f"production accepts {REFERENCE_FORMS}: keep the secret there and name the place",
            )
            for name, reference in _references(model, values)
            if reference.is_literal
        ]
    return (None if faults else settings), faults


def is_secret(model: type[ToolSettings], name: str) -> bool:
    """Whether a name is that of a secret among a tool's settings."""
    info = model.model_fields.get(name)
    return info is not None and info.annotation is SecretReference


def shown_settings(settings: ToolSettings) -> dict[str, Any]:
    """The settings as plain JSON, for callers; an empty text is left out.

    Of a secret only whether it is set, and its reference: `has_api_key`, `api_key_source`.
    """
    shown: dict[str, Any] = {}
    for name, value in settings.model_dump(mode="json").items():
        if is_secret(type(settings), name):
            shown[f"has_{name}"] = bool(value)
            shown[f"{name}_source"] = value
        elif value != "":
            shown[name] = value
    return shown


def shown_values(config: ToolConfig) -> dict[str, Any]:
    """Every value by its path, as plain JSON; of a secret its reference."""
    settings = config.settings.model_dump(mode="json")
    return {"enabled": config.enabled} | {f"{config.tool}.{n}": v for n, v in settings.items()}


def default_of(tool: str, name: str) -> object:
    """This release's default of a setting; `enabled` is the tool's switch."""
    if name == "enabled":
        return _Switches.model_fields[tool].default
    info = SETTINGS_OF[tool].model_fields[name]
    return info.get_default(call_default_factory=True, validated_data={})


def gives_literal(tool: str, values: Mapping[str, object]) -> bool:
    """Whether a literal secret is among the values."""
    return any(reference.is_literal for _, reference in _references(SETTINGS_OF[tool], values))


def _references(
    model: type[ToolSettings], values: Mapping[str, object]
) -> Iterator[tuple[str, SecretReference]]:
    """The valid references to secrets among the values, by the setting's name."""
    for name, value in values.items():
        if is_secret(model, name):
            with suppress(ValueError):
                yield name, secret_reference(value)


def references_of(configs: Iterable[ToolConfig]) -> Iterator[SecretReference]:
    """The references to secrets in configurations."""
    for config in configs:
        for _, reference in _references(type(config.settings), config.values):
            yield reference


def _layer(*, given: bool) -> Provenance:
    return Provenance.ENVIRONMENT if given else Provenance.DEFAULT


def tool_settings_table() -> list[tuple[str, str, str]]:
    """The variable, default and description of every switch and setting, for `docs/settings.md`."""
    switches = {row[0]: row for row in describe(_Switches)}
    return [
        row
        for tool in TOOLS
        for row in (switches[_Switches.variable(tool)], *describe(SETTINGS_OF[tool]))
    ]
