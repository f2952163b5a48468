"""Judges requests about tools: which paths they name, and what they give for them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from memoryd.domain.errors import Violation
from memoryd.rpc.tools.messages import MESSAGE_OF, given_settings
from memoryd.tools.overrides import ENABLED, paths_of
from memoryd.tools.settings import SETTINGS_OF, default_of
from memoryd.v1 import tool_config_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_PATHS = 64

_SHOWABLE = re.compile(r"[A-Za-z0-9_.*]{1,64}")
"""A path that may be repeated to the caller; what else stands in its place may be a value."""


def update_values(
    request: tool_config_pb2.UpdateToolConfigRequest,
) -> tuple[dict[str, Any], list[Violation]]:
    """What to override: `enabled` and settings by their names; and what is wrong with the request.

    A path of the mask whose field is unset stands for the default; for a map or list, for none.
    """
    config = request.tool_config
    tool, other = config.tool, config.WhichOneof("settings")
    if tool not in SETTINGS_OF:
        return {}, []  # the proto's rules tell
    violations = []
    if other is not None and other != tool:
        violations.append(Violation(f"tool_config.{other}", another_tools_settings(tool)))
    values = given_settings(getattr(config, tool))
    if config.HasField("enabled"):
        values[ENABLED] = config.enabled
    mask = request.update_mask.paths
    if mask:
        paths, problem = _sorted_out(tool, mask, ignored=_output_only(tool))
        if problem:
            violations.append(Violation("update_mask", problem))
        is_every = len(mask) <= MAX_PATHS and "*" in mask
        names = (path.rpartition(".")[2] for path in (paths_of(tool) if is_every else paths))
        values = {n: values[n] if n in values else _of_unset_field(tool, n) for n in names}
    return values, violations


def reset_paths(
    request: tool_config_pb2.ResetToolConfigRequest,
) -> tuple[list[str], list[Violation]]:
    """Which overrides to drop; and what is wrong with the request.

    Nothing is ignored here, since no path at all means every override.
    """
    if request.tool not in SETTINGS_OF:
        return [], []
    paths, problem = _sorted_out(request.tool, request.paths, ignored=())
    return paths, [Violation("paths", problem)] if problem else []


def another_tools_settings(tool: str) -> str:
    return f"are the settings of another tool; {tool} takes {tool}"


def _sorted_out(tool: str, given: Sequence[str], ignored: Iterable[str]) -> tuple[list[str], str]:
    """The paths that can be overridden, each once, in order; and what is wrong with others."""
    if len(given) > MAX_PATHS:
        return [], f"must have at most {MAX_PATHS} paths; these are {len(given):,}"
    wanted = set(given)
    known = paths_of(tool)
    strange = sorted(wanted - {*known, *ignored})
    shown = ", ".join(p for p in strange if _SHOWABLE.fullmatch(p)) or "a path"
    problem = f"{shown}: not to be changed of {tool}; use {', '.join(known)}" if strange else ""
    return [path for path in known if path in wanted], problem


def _output_only(tool: str) -> set[str]:
    """What a mask may name to no effect."""
    others = set(tool_config_pb2.ToolConfig.DESCRIPTOR.fields_by_name)
    settings = {f"{tool}.{name}" for name in MESSAGE_OF[tool].DESCRIPTOR.fields_by_name}
    return (others - MESSAGE_OF.keys()) | settings | {"*"}


def _of_unset_field(tool: str, name: str) -> object:
    field = None if name == ENABLED else MESSAGE_OF[tool].DESCRIPTOR.fields_by_name[name]
    if field is None or not field.is_repeated:
        return default_of(tool, name)
    return {} if field.message_type is not None else []
