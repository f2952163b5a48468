"""The settings of tools, as pages show them and as forms give them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from memoryd.client import Provenance
from memoryd.tools.secrets import REFERENCE_FORMS, MalformedReferenceError, SecretReference
from memoryd.tools.settings import SETTINGS_OF, is_secret, tool_settings_table, validate_settings

if TYPE_CHECKING:
    from memoryd.client import ToolConfig

ENABLED = "enabled"

_ABOUT = {variable: about for variable, _, about in tool_settings_table()}
_DEFAULTS = {variable: default for variable, default, _ in tool_settings_table()}


@dataclass(frozen=True)
class Setting:
    """One setting of a tool, as its page shows it."""

    path: str
    """`enabled`, `rag.chunk_size`."""
    kind: str
    """`switch`, `number`, `text`, `items` (a list or map) or `secret`."""
    value: str
    """For people."""
    held: str
    """The same as a form has it."""
    provenance: str
    variable: str
    given: str
    """What the form has, which somebody may have changed."""
    problem: str = ""
    """What is wrong with what was given."""
    before: str | None = None
    """Its value when the form was filled in, where it has changed meanwhile."""

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def about(self) -> str:
        """What it is, what it accepts and what it is by default."""
        description, _, accepts = _ABOUT[self.variable].partition(" Accepts ")
        default = _DEFAULTS[self.variable] or "none"
        match self.kind:
            case "switch":
                return f"{description} Default: {'on' if default == 'true' else 'off'}."
            case "secret":
                return f"{description} Accepts {REFERENCE_FORMS}."
            case "items":
                return f"{description} One a line here. Accepts {accepts} Default: {default}."
            case _:
                return f"{description} Accepts {accepts} Default: {default}."


class Difference(NamedTuple):
    """A setting that differs between two configurations."""

    path: str
    removed: list[str]
    added: list[str]
    before: str
    """Provenance."""
    after: str


def settings_of(
    config: ToolConfig,
    given: Mapping[str, str] | None = None,
    problems: Mapping[str, str] | None = None,
    saw: Mapping[str, str] | None = None,
) -> list[Setting]:
    """The switch, then the settings in their order."""
    model = SETTINGS_OF[config.tool]
    paths = [ENABLED, *(f"{config.tool}.{name}" for name in model.model_fields)]
    found = []
    for path in paths:
        kind, value = _kind(config, path), _value(config, path)
        held = "" if kind == "secret" else _as_text(value)
        before = (saw or {}).get(path, held)
        name = path.rpartition(".")[2]
        switch = f"ENABLE_{config.tool}_TOOL".upper()
        new = (given or {}).get(path, held)
        found.append(
            Setting(
                path,
                kind,
                ", ".join(_items(config, path)),
                held,
                config.provenance.get(path, Provenance.UNSPECIFIED).value,
                switch if path == ENABLED else model.variable(name),
                _shown_reference(new) if kind == "secret" else new,
                (problems or {}).get(path, ""),
                before if before != held else None,
            )
        )
    return found


def _kind(config: ToolConfig, path: str) -> str:
    name = path.rpartition(".")[2]
    if is_secret(SETTINGS_OF[config.tool], name):
        return "secret"
    kind = bool if path == ENABLED else SETTINGS_OF[config.tool].model_fields[name].annotation
    return {bool: "switch", int: "number", float: "number", str: "text"}.get(
        cast("type", kind), "items"
    )


def _value(config: ToolConfig, path: str) -> Any:
    if path == ENABLED:
        return config.enabled
    return getattr(getattr(config, config.tool), path.rpartition(".")[2], None)


def _items(config: ToolConfig, path: str) -> list[str]:
    """A value for people: one text, or one for each item."""
    settings, name = getattr(config, config.tool), path.rpartition(".")[2]
    if _kind(config, path) == "secret":
        has, source = getattr(settings, f"has_{name}"), getattr(settings, f"{name}_source")
        return [f"set, from {source}" if has else "not set"]
    match _value(config, path):
        case Mapping() as value:
            return [f"{word} {weight:.15g}" for word, weight in sorted(value.items())] or ["none"]
        case tuple() as value:
            return list(value) or ["none"]
        case value:
            return [_for_people(value)]


def _for_people(value: object) -> str:
    match value:
        case bool():
            return "on" if value else "off"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.15g}"
        case _:
            return str(value or "none")


def _as_text(value: Any) -> str:
    """A value as a form has it, which `read` understands."""
    match value:
        case bool():
            return "on" if value else ""
        case Mapping():
            if any("," in word or "\n" in word for word in value):
                return json.dumps(dict(value), ensure_ascii=False)
            return "\n".join(f"{word}={weight:.15g}" for word, weight in sorted(value.items()))
        case tuple():
            return "\n".join(value)
        case float():
            return f"{value:.15g}"
        case _:
            return "" if value is None else str(value)


def differences(before: ToolConfig, after: ToolConfig) -> list[Difference]:
    """The settings whose values or provenance differ."""
    found = []
    for path in [each.path for each in settings_of(after)]:
        old, new = _items(before, path), _items(after, path)
        was, is_now = (
            each.provenance.get(path, Provenance.UNSPECIFIED).value for each in (before, after)
        )
        if old != new or was != is_now:
            removed = [item for item in old if item not in new]
            added = [item for item in new if item not in old]
            found.append(Difference(path, removed, added, was, is_now))
    return found


def read(config: ToolConfig, given: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values by name, typed, and what is wrong by path; the service reads variables so."""
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    texts: dict[str, str] = {}
    for path, text in given.items():
        name, kind = path.rpartition(".")[2], _kind(config, path)
        if path == ENABLED:
            values[ENABLED] = text == "on"
        elif kind == "switch":
            texts[name] = "true" if text == "on" else "false"
        elif kind == "items":
            texts[name] = _joined(config, name, text)
        elif kind == "secret" and text and not _shown_reference(text):
            problems[path] = f"the console takes references to secrets only: {REFERENCE_FORMS}"
        else:
            texts[name] = text
    held = {
        name: value
        for name in SETTINGS_OF[config.tool].model_fields
        if not is_secret(SETTINGS_OF[config.tool], name)
        and (value := _value(config, f"{config.tool}.{name}")) is not None
    }
    settings, violations = validate_settings(config.tool, held | texts, production=False)
    problems |= {each.field: each.description for each in violations}
    if settings is not None:
        values |= {name: _plain(getattr(settings, name)) for name in texts}
    return values, problems


def _joined(config: ToolConfig, name: str, text: str) -> str:
    """One item a line, as the service reads a list or map."""
    if text.startswith(("{", "[")):
        return text
    if not text:
        return "{}" if isinstance(_value(config, f"{config.tool}.{name}"), Mapping) else "[]"
    return ",".join(line.strip().rstrip(",") for line in text.split("\n") if line.strip())


def _plain(value: Any) -> Any:
    match value:
        case SecretReference():
            return value.source
        case Mapping():
            return dict(value)
        case tuple():
            return list(value)
        case _:
            return value


def _shown_reference(text: str) -> str:
    """Where a secret is; empty for what may be a secret itself, which no page repeats."""
    try:
        reference = SecretReference.parse(text)
    except MalformedReferenceError:
        return ""
    return "" if reference.is_literal else reference.source
