"""A layer of overrides over the layers below it. Pure: nothing is read or kept."""

from __future__ import annotations

import functools
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from memoryd.tools.settings import (
    SETTINGS_OF,
    ConfigWarning,
    Provenance,
    ToolConfig,
    shown_settings,
    validate_settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from memoryd.domain.errors import Violation
    from memoryd.tools.secrets import SecretReference
    from memoryd.tools.secrets.names import SecretNames
    from memoryd.tools.settings import ToolSettings

ENABLED = "enabled"
"""The path of a tool's switch."""

_LITERAL = "literal"
"""Key of the object that stands in the place of a literal secret: `{"literal": TOKEN}`."""


def marker(token: str) -> dict[str, str]:
    """What is stored in the place of a literal secret; the random token says nothing of it."""
    return {_LITERAL: token}


def token_of(value: object) -> str | None:
    """The token of a marker; None where the value is none."""
    token = value.get(_LITERAL) if isinstance(value, dict) else None
    return token if isinstance(token, str) else None


def paths_of(tool: str) -> tuple[str, ...]:
    """All of a tool that can be overridden, as `enabled` and `rag.chunk_size`."""
    return (ENABLED, *(f"{tool}.{name}" for name in SETTINGS_OF[tool].model_fields))


def layered(
    base: ToolConfig,
    overrides: Mapping[str, Any],
    layer: Provenance,
    *,
    literal: Callable[[str], SecretReference],
    production: bool,
    secret_names: SecretNames,
) -> ToolConfig:
    """Lay stored overrides, by their path, over what the layers below say.

    What this release refuses, or does not know, is set aside and listed in `set_aside`. `literal`
    gives the secret that a token stands for, `secret_names` says which may be named.
    """
    paths = paths_of(base.tool)
    aside = {path: "no such setting" for path in overrides if path not in paths}
    enabled = overrides.get(ENABLED, base.enabled)
    if not isinstance(enabled, bool):
        aside[ENABLED], enabled = "expected true or false", base.enabled
    given: dict[str, object] = {}
    for path, value in overrides.items():
        if path != ENABLED and path not in aside:
            token = token_of(value)
            given[path.partition(".")[2]] = value if token is None else literal(token)
    validated = functools.partial(
        validate_settings, base.tool, production=production, secret_names=secret_names
    )
    settings = base.settings
    while given:
        candidate, violations = validated(base.values | given)
        if candidate is not None:
            settings = candidate
            break
        faults = {v.field.partition(".")[2]: v.description for v in violations}
        for name in _culprits(base, given, faults, validated):
            del given[name]
            aside[f"{base.tool}.{name}"] = faults.get(name) or "; ".join(
                f"{v.field}: {v.description}" for v in violations
            )
    held = {f"{base.tool}.{name}" for name in given}
    held |= {ENABLED} & (overrides.keys() - aside.keys())
    return ToolConfig(
        base.tool,
        enabled,
        settings,
        MappingProxyType({p: layer if p in held else base.provenance[p] for p in paths}),
        base.revision,
        (*base.set_aside, *(_set_aside(layer, path, why) for path, why in aside.items())),
    )


def _set_aside(layer: Provenance, path: str, why: str) -> ConfigWarning:
    whose, who = "the override", ""
    if layer is Provenance.INSTANCE:
        whose, who = "the instance's override", "an admin of the instance has to "
    return ConfigWarning(
        path,
        f"{whose} does not hold, since the service refuses it: {why};"
        f" {who}override it again, or reset it",
    )


def _culprits(
    base: ToolConfig,
    given: Mapping[str, object],
    faults: Mapping[str, str],
    validated: Callable[[Mapping[str, object]], tuple[ToolSettings | None, list[Violation]]],
) -> Sequence[str]:
    """Which overrides to set aside: those refused, else the one that does not go with the rest."""
    refused = [name for name in given if name in faults]
    if refused:
        return refused
    for name in given:
        rest = {other: value for other, value in given.items() if other != name}
        candidate, _ = validated(base.values | rest)
        if candidate is not None:
            return [name]
    return list(given)


def document(config: ToolConfig) -> dict[str, Any]:
    """The configuration as a `ToolConfig` of the protos in JSON; it shows no secret."""
    return {
        "tool": config.tool,
        "enabled": config.enabled,
        config.tool: shown_settings(config.settings),
        "provenance": {
            path: f"PROVENANCE_{layer.name}" for path, layer in config.provenance.items()
        },
        "revision": config.revision,
        "etag": config.etag,
    }
