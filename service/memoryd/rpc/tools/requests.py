"""Parses requests of ToolConfigService into records."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from memoryd.domain.errors import InvalidRequest
from memoryd.domain.principals import Scope
from memoryd.rpc import page_token
from memoryd.rpc.tools.messages import MESSAGE_OF, given_settings
from memoryd.tools.configs import Change
from memoryd.tools.overrides import ENABLED, paths_of
from memoryd.tools.settings import SETTINGS_OF, default_of
from memoryd.tools.stored import INSTANCE
from memoryd.v1 import tool_config_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from memoryd.rpc.call import Call
    from memoryd.rpc.violations import Violations

MAX_PATHS = 64

_SHOWABLE = re.compile(r"[A-Za-z0-9_.*]{1,64}")
"""A path that may be repeated to the caller; what else stands in its place may be a value."""


@dataclass(frozen=True, slots=True)
class ToolName:
    owner: str
    tool: str


@dataclass(frozen=True, slots=True)
class Update:
    tool: str
    values: Mapping[str, Any]
    """What to override: `enabled` and settings, by their names."""
    change: Change
    validate_only: bool


@dataclass(frozen=True, slots=True)
class Reset:
    tool: str
    paths: Sequence[str]
    """Of the overrides to drop; none: every one."""
    change: Change


@dataclass(frozen=True, slots=True)
class Rollback:
    tool: str
    revision: int
    change: Change


@dataclass(frozen=True, slots=True)
class RevisionListing:
    owner: str
    tool: str
    before: int | None
    """The revision before which the page begins; None: with the latest."""
    size: int
    token_at: Callable[[int], str]
    """Gives the page token of a revision."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A configuration to be validated and not applied."""

    owner: str
    tool: str
    enabled: bool | None
    """None: as it is."""
    others: str
    """The tool whose settings are given instead of this one's; empty where there is none."""
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Watch:
    tenant: str
    start_revision: int


class ToolRequestParser:
    """Turns requests into records, and adds what is wrong with them."""

    def __init__(self, check: Callable[[str, str, Mapping[str, Any]], None]) -> None:
        """`check` raises InvalidRequest where values of an owner's tool are out of bounds."""
        self._check = check

    @staticmethod
    def tenant(
        request: tool_config_pb2.ListToolsRequest, call: Call, violations: Violations
    ) -> str:
        del request, violations
        return call.principal.tenant

    @staticmethod
    def tool(
        request: tool_config_pb2.GetToolConfigRequest, call: Call, violations: Violations
    ) -> ToolName:
        del violations
        return ToolName(_owner(call, request.layer), request.tool)

    def update(
        self, request: tool_config_pb2.UpdateToolConfigRequest, call: Call, violations: Violations
    ) -> Update:
        """A path of the mask whose field is unset means the default, or an empty map or list.

        Bounds are checked here where something else is wrong; otherwise where they are applied,
        with what holds by then.
        """
        given = request.tool_config
        change = _change(call, request, given.etag)
        values = _update_values(request, violations)
        if violations and values:
            try:
                self._check(change.owner, given.tool, values)
            except InvalidRequest as refusal:
                violations.add_all(refusal.violations)
        return Update(given.tool, values, change, request.validate_only)

    @staticmethod
    def reset(
        request: tool_config_pb2.ResetToolConfigRequest, call: Call, violations: Violations
    ) -> Reset:
        """Nothing is ignored here, since no path at all means every override."""
        paths: list[str] = []
        if request.tool in SETTINGS_OF:  # otherwise the proto's rules tell
            paths, problem = _sorted_out(request.tool, request.paths, ignored=())
            if problem:
                violations.add("paths", problem)
        return Reset(request.tool, paths, _change(call, request))

    @staticmethod
    def rollback(
        request: tool_config_pb2.RollbackToolConfigRequest, call: Call, violations: Violations
    ) -> Rollback:
        del violations
        return Rollback(request.tool, request.revision, _change(call, request))

    @staticmethod
    def revisions(
        request: tool_config_pb2.ListToolConfigRevisionsRequest, call: Call, violations: Violations
    ) -> RevisionListing:
        tenant = call.principal.tenant
        return RevisionListing(
            _owner(call, request.layer),
            request.tool,
            page_token.decode(request, tenant, violations) or None,
            page_token.size(request),
            partial(page_token.encode, request=request, tenant=tenant),
        )

    @staticmethod
    def trial(
        request: tool_config_pb2.ValidateToolConfigRequest, call: Call, violations: Violations
    ) -> Trial:
        del violations
        given = request.tool_config
        other = given.WhichOneof("settings")
        return Trial(
            _owner(call, request.layer),
            given.tool,
            given.enabled if given.HasField("enabled") else None,
            other if other is not None and other != given.tool else "",
            given_settings(getattr(given, other)) if other else {},
        )

    @staticmethod
    def watch(
        request: tool_config_pb2.WatchToolConfigsRequest, call: Call, violations: Violations
    ) -> Watch:
        del violations
        return Watch(call.principal.tenant, request.start_revision)


def _owner(call: Call, layer: tool_config_pb2.Layer.ValueType) -> str:
    """Whose settings are meant. Raises ScopeMissing."""
    if layer != tool_config_pb2.LAYER_INSTANCE:
        return call.principal.tenant
    call.principal.require(Scope.INSTANCE_ADMIN)
    return INSTANCE


def _change(
    call: Call,
    request: tool_config_pb2.UpdateToolConfigRequest
    | tool_config_pb2.ResetToolConfigRequest
    | tool_config_pb2.RollbackToolConfigRequest,
    etag: str = "",
) -> Change:
    owner = _owner(call, request.layer)
    return Change(owner, call.principal.actor, request.reason, etag, call.time_remaining())


def _update_values(
    request: tool_config_pb2.UpdateToolConfigRequest, violations: Violations
) -> dict[str, Any]:
    config = request.tool_config
    tool, other = config.tool, config.WhichOneof("settings")
    if tool not in SETTINGS_OF:
        return {}  # the proto's rules tell
    if other is not None and other != tool:
        violations.add(f"tool_config.{other}", another_tools_settings(tool))
    values = given_settings(getattr(config, tool))
    if config.HasField("enabled"):
        values[ENABLED] = config.enabled
    mask = request.update_mask.paths
    if mask:
        paths, problem = _sorted_out(tool, mask, ignored=_output_only(tool))
        if problem:
            violations.add("update_mask", problem)
        is_every = len(mask) <= MAX_PATHS and "*" in mask
        names = (path.rpartition(".")[2] for path in (paths_of(tool) if is_every else paths))
        values = {n: values[n] if n in values else _of_unset_field(tool, n) for n in names}
    return values


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
