"""The client for the configuration of tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memoryd.client import arguments as args
from memoryd.client.channel import Client
from memoryd.client.messages import tool_config
from memoryd.v1 import tool_config_pb2
from memoryd.v1.tool_config_pb2_grpc import ToolConfigServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    import grpc.aio

    from memoryd.client.messages import SettingValue
    from memoryd.v1.tool_config_pb2 import ToolConfig
    from memoryd.v1.tool_config_pb2_grpc import ToolConfigServiceAsyncStub


class ToolConfigClient(Client["ToolConfigServiceAsyncStub"]):
    """How the agents' tools are set: rag, memory, escalation, attachment, crm, billing, inventory.

    Every method may raise any `MemorydError`; those named beside a method are the ones to expect.
    """

    def _stub_over(self, channel: grpc.aio.Channel) -> ToolConfigServiceAsyncStub:
        return ToolConfigServiceStub(channel)

    async def list_tools(
        self, *, timeout: float | None = None
    ) -> tool_config_pb2.ListToolsResponse:
        """List the seven tools: whether they are enabled, and what is doubtful about them."""
        return await self._call(self._stub.ListTools, tool_config_pb2.ListToolsRequest(), timeout)

    async def get(self, tool: str, *, timeout: float | None = None) -> ToolConfig:
        """Read a tool's effective configuration; its settings lie under its name: `.rag.search_k`.

        Raises InvalidArgument for a tool that there is not.
        """
        request = tool_config_pb2.GetToolConfigRequest(tool=args.text("tool", tool))
        return await self._call(self._stub.GetToolConfig, request, timeout)

    async def update(
        self,
        tool: str,
        settings: Mapping[str, SettingValue] | None = None,
        *,
        enabled: bool | None = None,
        etag: str = "",
        reason: str = "",
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> ToolConfig:
        """Override what is given, on every replica within a second: `{"chunk_size": 400}`.

        `etag`: of the configuration as it was read; refused if it has changed since. `reason`: for
        the revision's record. `validate_only`: answer what would be, write nothing.

        Raises InvalidArgument, EtagMismatch.
        """
        config, mask = tool_config(tool, settings, enabled=enabled, etag=etag)
        request = tool_config_pb2.UpdateToolConfigRequest(
            tool_config=config,
            update_mask=mask,
            validate_only=args.flag("validate_only", validate_only),
            reason=args.text("reason", reason),
        )
        return await self._call(self._stub.UpdateToolConfig, request, timeout)

    async def reset(
        self, tool: str, *paths: str, reason: str = "", timeout: float | None = None
    ) -> ToolConfig:
        """Drop overrides: those of `paths` (`enabled`, `rag.chunk_size`), or without any all."""
        request = tool_config_pb2.ResetToolConfigRequest(
            tool=args.text("tool", tool),
            paths=args.texts("paths", paths),
            reason=args.text("reason", reason),
        )
        return await self._call(self._stub.ResetToolConfig, request, timeout)

    async def validate(
        self,
        tool: str,
        settings: Mapping[str, SettingValue] | None = None,
        *,
        enabled: bool | None = None,
        timeout: float | None = None,
    ) -> tool_config_pb2.ValidateToolConfigResponse:
        """Say what would be wrong (`violations`) or doubtful (`warnings`) with these values.

        Those not given are as they are now. Changes nothing.
        """
        config, _ = tool_config(tool, settings, enabled=enabled)
        request = tool_config_pb2.ValidateToolConfigRequest(tool_config=config)
        return await self._call(self._stub.ValidateToolConfig, request, timeout)

    def revisions(
        self, tool: str, *, page_size: int = 0, timeout: float | None = None
    ) -> AsyncGenerator[tool_config_pb2.ToolConfigRevision, None]:
        """Iterate over a tool's changes, newest first; `timeout` holds for each page."""
        request = tool_config_pb2.ListToolConfigRevisionsRequest(
            tool=args.text("tool", tool), page_size=args.int32("page_size", page_size)
        )
        return self._all_revisions(request, args.seconds("timeout", timeout))

    async def _all_revisions(
        self, request: tool_config_pb2.ListToolConfigRevisionsRequest, timeout: float | None
    ) -> AsyncGenerator[tool_config_pb2.ToolConfigRevision, None]:
        while True:
            page = await self._call(self._stub.ListToolConfigRevisions, request, timeout)
            for revision in page.revisions:
                yield revision
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def rollback(
        self, tool: str, revision: int, *, reason: str = "", timeout: float | None = None
    ) -> ToolConfig:
        """Bring back the overrides as they were after a revision; a revision of its own.

        Raises NotFound for a revision that the tool does not have.
        """
        request = tool_config_pb2.RollbackToolConfigRequest(
            tool=args.text("tool", tool),
            revision=args.int64("revision", revision),
            reason=args.text("reason", reason),
        )
        return await self._call(self._stub.RollbackToolConfig, request, timeout)

    def watch(
        self, start_revision: int = 0, *, timeout: float | None = None
    ) -> AsyncGenerator[tool_config_pb2.WatchToolConfigsResponse, None]:
        """Iterate over a snapshot of all tools, then over every change as it commits.

        A `start_revision` asks for the changes after it, without a snapshot. It ends by an error
        only: Unavailable when the server stops (watch again from the last `revision` read),
        OutOfRange when changes since then are no longer kept. `timeout`: seconds to watch for at
        all; None: without end.
        """
        request = tool_config_pb2.WatchToolConfigsRequest(
            start_revision=args.int64("start_revision", start_revision)
        )
        return self._stream(self._stub.WatchToolConfigs, request, timeout)
