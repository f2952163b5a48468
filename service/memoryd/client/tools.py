"""The client for the configuration of tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memoryd.client import arguments as args
from memoryd.client.answers import (
    ListToolsResponse,
    ToolConfig,
    ToolConfigRevision,
    ValidateToolConfigResponse,
    WatchToolConfigsResponse,
)
from memoryd.client.channel import Client
from memoryd.client.messages import tool_config
from memoryd.v1 import tool_config_pb2
from memoryd.v1.tool_config_pb2_grpc import ToolConfigServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping

    import grpc.aio

    from memoryd.client.answers import ToolName
    from memoryd.client.messages import SettingValue
    from memoryd.v1.tool_config_pb2_grpc import ToolConfigServiceAsyncStub


class ToolConfigClient(Client["ToolConfigServiceAsyncStub"]):
    """The configuration of the tools: rag, memory, escalation, attachment, crm, billing, inventory.

    Every method may raise any `MemorydError`; its docstring names the ones to expect. With
    `instance=True` a method is about the overrides of the instance, which hold for every tenant;
    that needs the scope `instance:admin` as well.
    """

    def _stub_over(self, channel: grpc.aio.Channel) -> ToolConfigServiceAsyncStub:
        return ToolConfigServiceStub(channel)

    async def list_tools(self, *, timeout: float | None = None) -> ListToolsResponse:
        """List the seven tools, whether each is enabled, and warnings about its configuration."""
        return await self._answer(
            self._stub.ListTools, tool_config_pb2.ListToolsRequest(), ListToolsResponse, timeout
        )

    async def get(
        self, tool: ToolName, *, instance: bool = False, timeout: float | None = None
    ) -> ToolConfig:
        """Read a tool's effective configuration; the settings are under its name: `.rag.search_k`.

        Raises InvalidArgument for an unknown tool.
        """
        request = tool_config_pb2.GetToolConfigRequest(
            tool=args.text("tool", tool), layer=_layer(instance)
        )
        return await self._answer(self._stub.GetToolConfig, request, ToolConfig, timeout)

    async def update(
        self,
        tool: ToolName,
        settings: Mapping[str, SettingValue] | None = None,
        *,
        enabled: bool | None = None,
        etag: str = "",
        reason: str = "",
        validate_only: bool = False,
        instance: bool = False,
        timeout: float | None = None,
    ) -> ToolConfig:
        """Override the given settings, on every replica within a second: `{"chunk_size": 400}`.

        `etag`: of the configuration as it was read; the change is refused if it has changed since.
        `reason`: kept with the revision. `validate_only`: return the result, write nothing.

        Raises InvalidArgument, EtagMismatch.
        """
        config, mask = tool_config(tool, settings, enabled=enabled, etag=etag)
        request = tool_config_pb2.UpdateToolConfigRequest(
            tool_config=config,
            update_mask=mask,
            validate_only=args.flag("validate_only", validate_only),
            reason=args.text("reason", reason),
            layer=_layer(instance),
        )
        return await self._answer(self._stub.UpdateToolConfig, request, ToolConfig, timeout)

    async def reset(
        self,
        tool: ToolName,
        *paths: str,
        reason: str = "",
        instance: bool = False,
        timeout: float | None = None,
    ) -> ToolConfig:
        """Drop overrides: those of `paths` (`enabled`, `rag.chunk_size`), or all overrides."""
        request = tool_config_pb2.ResetToolConfigRequest(
            tool=args.text("tool", tool),
            paths=args.texts("paths", paths),
            reason=args.text("reason", reason),
            layer=_layer(instance),
        )
        return await self._answer(self._stub.ResetToolConfig, request, ToolConfig, timeout)

    async def validate(
        self,
        tool: ToolName,
        settings: Mapping[str, SettingValue] | None = None,
        *,
        enabled: bool | None = None,
        instance: bool = False,
        timeout: float | None = None,
    ) -> ValidateToolConfigResponse:
        """Check these values; the response lists `violations` and `warnings`. Changes nothing.

        Settings that are not given have their current values.
        """
        config, _ = tool_config(tool, settings, enabled=enabled)
        request = tool_config_pb2.ValidateToolConfigRequest(
            tool_config=config, layer=_layer(instance)
        )
        return await self._answer(
            self._stub.ValidateToolConfig, request, ValidateToolConfigResponse, timeout
        )

    def revisions(
        self,
        tool: ToolName,
        *,
        page_size: int = 0,
        instance: bool = False,
        timeout: float | None = None,
    ) -> AsyncGenerator[ToolConfigRevision, None]:
        """Iterate over a tool's changes, newest first; `timeout` applies to each page."""
        request = tool_config_pb2.ListToolConfigRevisionsRequest(
            tool=args.text("tool", tool),
            page_size=args.int32("page_size", page_size),
            layer=_layer(instance),
        )
        return self._pages(self._stub.ListToolConfigRevisions, request, _revisions_of, timeout)

    async def rollback(
        self,
        tool: ToolName,
        revision: int,
        *,
        reason: str = "",
        instance: bool = False,
        timeout: float | None = None,
    ) -> ToolConfig:
        """Restore the overrides as they were after a revision; this is a new revision.

        Raises NotFound for a revision that the tool does not have.
        """
        request = tool_config_pb2.RollbackToolConfigRequest(
            tool=args.text("tool", tool),
            revision=args.int64("revision", revision),
            reason=args.text("reason", reason),
            layer=_layer(instance),
        )
        return await self._answer(self._stub.RollbackToolConfig, request, ToolConfig, timeout)

    def watch(
        self, start_revision: int = 0, *, timeout: float | None = None
    ) -> AsyncGenerator[WatchToolConfigsResponse, None]:
        """Iterate over a snapshot of all tools, then over every change as it commits.

        With a `start_revision` there is no snapshot, only the changes after it. It resumes by
        itself, and ends, as `MemoryClient.watch` does; until the first change is read it resumes
        with another snapshot. `timeout`: seconds to watch in all; None: no limit.
        """
        request = tool_config_pb2.WatchToolConfigsRequest(
            start_revision=args.int64("start_revision", start_revision)
        )
        return self._watch(self._stub.WatchToolConfigs, request, WatchToolConfigsResponse, timeout)


def _layer(instance: bool) -> tool_config_pb2.Layer.ValueType:  # noqa: FBT001  checked here
    if args.flag("instance", instance):
        return tool_config_pb2.LAYER_INSTANCE
    return tool_config_pb2.LAYER_UNSPECIFIED


def _revisions_of(
    page: tool_config_pb2.ListToolConfigRevisionsResponse,
) -> Iterable[ToolConfigRevision]:
    return map(ToolConfigRevision.from_proto, page.revisions)
