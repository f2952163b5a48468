"""The layer of overrides over those of environment and defaults. Pure: nothing is read or kept."""

from __future__ import annotations

import functools
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from memoryd.tools.settings import (
    SETTINGS_OF,
    ConfigWarning,
    Provenance,
    ToolConfig,
    judge_settings,
    shown_settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from memoryd.tools.secrets import SecretReference
    from memoryd.tools.secrets.names import SecretNames
    from memoryd.tools.settings import ToolSettings, Violation

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
    revision: int,
    *,
    literal: Callable[[str], SecretReference],
    production: bool,
    secret_names: SecretNames,
) -> ToolConfig:
    """Lay stored overrides, by their path, over what environment and defaults say.

    What this release refuses, or does not know, is set aside and listed in `set_aside`. `literal`
    gives the secret that a token stands for, `secret_names` judges those that are named.
    """
    given: dict[str, object] = {}
    aside: dict[str, str] = {}
    enabled = base.enabled
    paths = paths_of(base.tool)
    judge = functools.partial(
        judge_settings, base.tool, production=production, secret_names=secret_names
    )
    for path, value in overrides.items():
        if path not in paths:
            aside[path] = "no such setting"
        elif path != ENABLED:
            token = token_of(value)
            given[path.partition(".")[2]] = value if token is None else literal(token)
        elif isinstance(value, bool):
            enabled = value
        else:
            aside[path] = "expected true or false"
    settings = base.settings
    while given:
        judged, violations = judge(base.values | given)
        if judged is not None:
            settings = judged
            break
        faults = {v.path.partition(".")[2]: v.description for v in violations}
        for name in _culprits(base, given, faults, judge):
            del given[name]
            aside[f"{base.tool}.{name}"] = faults.get(name) or "; ".join(
                f"{v.path}: {v.description}" for v in violations
            )
    held = {f"{base.tool}.{name}" for name in given}
    held |= {ENABLED} & (overrides.keys() - aside.keys())
    return ToolConfig(
        base.tool,
        enabled,
        settings,
        MappingProxyType(
            {p: Provenance.OVERRIDE if p in held else base.provenance[p] for p in paths}
        ),
        revision,
        tuple(
            ConfigWarning(
                path,
                f"the override does not hold, since this release refuses it: {why};"
                " override it again, or reset it",
            )
            for path, why in aside.items()
        ),
    )


def _culprits(
    base: ToolConfig,
    given: Mapping[str, object],
    faults: Mapping[str, str],
    judge: Callable[[Mapping[str, object]], tuple[ToolSettings | None, list[Violation]]],
) -> Sequence[str]:
    """Which overrides to set aside: those refused, else the one that does not go with the rest."""
    refused = [name for name in given if name in faults]
    if refused:
        return refused
    for name in given:
        rest = {other: value for other, value in given.items() if other != name}
        judged, _ = judge(base.values | rest)
        if judged is not None:
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
