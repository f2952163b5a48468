"""ToolConfigService: each handler checks, converts, makes one call, and converts back."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any, NoReturn

from google.rpc import error_details_pb2

from memoryd.errors import NotImplementedYet
from memoryd.rpc.tool_convert import given_settings, settings_message
from memoryd.tool_settings import ConfigWarning, Provenance, Violation, check, judge_settings
from memoryd.v1 import tool_config_pb2, tool_config_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import grpc

    from memoryd.secrets import Secrets
    from memoryd.tool_settings import ToolConfig

    Context = grpc.aio.ServicerContext[Any, Any]

_PROTO_PROVENANCE = {
    Provenance.DEFAULT: tool_config_pb2.PROVENANCE_DEFAULT,
    Provenance.ENVIRONMENT: tool_config_pb2.PROVENANCE_ENVIRONMENT,
    Provenance.OVERRIDE: tool_config_pb2.PROVENANCE_OVERRIDE,
}


class ToolConfigService(tool_config_pb2_grpc.ToolConfigServiceServicer):
    def __init__(
        self, configs: Mapping[str, ToolConfig], secrets: Secrets, *, production: bool
    ) -> None:
        self._configs = configs
        self._secrets = secrets
        self._production = production

    async def ListTools(
        self, request: tool_config_pb2.ListToolsRequest, context: Context
    ) -> tool_config_pb2.ListToolsResponse:
        configs = list(self._configs.values())
        # At once, so that slow secrets are waited for once and not one after the other.
        warnings = await asyncio.gather(*(check(config, self._secrets) for config in configs))
        return tool_config_pb2.ListToolsResponse(
            tools=[
                tool_config_pb2.ToolSummary(
                    tool=config.tool, enabled=config.enabled, warnings=_warnings(found)
                )
                for config, found in zip(configs, warnings, strict=True)
            ]
        )

    async def GetToolConfig(
        self, request: tool_config_pb2.GetToolConfigRequest, context: Context
    ) -> tool_config_pb2.ToolConfig:
        config = self._configs[request.tool]
        message = tool_config_pb2.ToolConfig(
            tool=config.tool,
            enabled=config.enabled,
            provenance={
                path: _PROTO_PROVENANCE[layer] for path, layer in config.provenance.items()
            },
            warnings=_warnings(await check(config, self._secrets)),
            etag=_etag(config),
        )
        getattr(message, config.tool).CopyFrom(settings_message(config.settings))
        return message

    async def ValidateToolConfig(
        self, request: tool_config_pb2.ValidateToolConfigRequest, context: Context
    ) -> tool_config_pb2.ValidateToolConfigResponse:
        given = request.tool_config
        config = self._configs[given.tool]
        if given.HasField("enabled"):
            config = dataclasses.replace(config, enabled=given.enabled)
        warnings: Iterable[ConfigWarning] = ()
        other = given.WhichOneof("settings")
        if other is not None and other != given.tool:
            violations = [
                Violation(
                    other, f"are the settings of another tool; {given.tool} takes {given.tool}"
                )
            ]
        else:
            current = {
                name: getattr(config.settings, name) for name in type(config.settings).model_fields
            }
            values = current | (given_settings(getattr(given, other)) if other else {})
            settings, violations = judge_settings(given.tool, values, production=self._production)
            if settings is not None:
                warnings = await check(
                    dataclasses.replace(config, settings=settings), self._secrets
                )
        return tool_config_pb2.ValidateToolConfigResponse(
            warnings=_warnings(warnings),
            violations=[
                error_details_pb2.BadRequest.FieldViolation(field=v.path, description=v.description)
                for v in violations
            ],
        )

    def UpdateToolConfig(self, request: Any, context: Context) -> NoReturn:
        raise _later()

    def ResetToolConfig(self, request: Any, context: Context) -> NoReturn:
        raise _later()

    def ListToolConfigRevisions(self, request: Any, context: Context) -> NoReturn:
        raise _later()

    def RollbackToolConfig(self, request: Any, context: Context) -> NoReturn:
        raise _later()

    def WatchToolConfigs(self, request: Any, context: Context) -> NoReturn:
        raise _later()


def _later() -> NotImplementedYet:
    return NotImplementedYet("this method comes with a later release of memoryd")


def _warnings(warnings: Iterable[ConfigWarning]) -> list[tool_config_pb2.ToolConfigWarning]:
    return [
        tool_config_pb2.ToolConfigWarning(field=w.path, description=w.description) for w in warnings
    ]


def _etag(config: ToolConfig) -> str:
    """Of all that a caller can see; a secret counts by its reference."""
    seen = [config.enabled, config.settings.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:16]
