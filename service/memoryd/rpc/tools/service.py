"""ToolConfigService: each handler checks, converts, makes one call, and converts back."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from google.rpc import error_details_pb2

from memoryd.domain.errors import InvalidRequest
from memoryd.rpc import page_token
from memoryd.rpc.call import current_call
from memoryd.rpc.memories.results import MAX_ANSWER_BYTES
from memoryd.rpc.memories.service import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from memoryd.rpc.tools import requests as tool_requests
from memoryd.rpc.tools.messages import config_message, given_settings, revision_message
from memoryd.tools.configs import Change
from memoryd.tools.settings import ConfigWarning, Violation, check
from memoryd.v1 import tool_config_pb2, tool_config_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    import grpc
    from google.protobuf.message import Message

    from memoryd.domain import errors
    from memoryd.tools.configs import ToolConfigs
    from memoryd.tools.secrets import Secrets
    from memoryd.tools.settings import ToolConfig

    Context = grpc.aio.ServicerContext[Any, Any]

READ_SIZE = 50
"""Revisions that are read at once; a page may take several."""


class ToolConfigService(tool_config_pb2_grpc.ToolConfigServiceServicer):
    def __init__(self, configs: ToolConfigs, secrets: Secrets) -> None:
        self._configs = configs
        self._secrets = secrets

    async def ListTools(
        self, request: tool_config_pb2.ListToolsRequest, context: Context
    ) -> tool_config_pb2.ListToolsResponse:
        answer = tool_config_pb2.ListToolsResponse()
        for message in await self._messages(self._configs.now.configs.values()):
            answer.tools.add(
                tool=message.tool,
                enabled=message.enabled,
                warnings=message.warnings,
                revision=message.revision,
                stale=message.stale,
                stale_since=message.stale_since if message.stale else None,
            )
        return answer

    async def GetToolConfig(
        self, request: tool_config_pb2.GetToolConfigRequest, context: Context
    ) -> tool_config_pb2.ToolConfig:
        return await self._message(self._configs[request.tool])

    async def UpdateToolConfig(
        self, request: tool_config_pb2.UpdateToolConfigRequest, context: Context
    ) -> tool_config_pb2.ToolConfig:
        given = request.tool_config
        values, violations = tool_requests.update_values(request)
        if violations:
            violations += self._bounds(given.tool, values)
        _refuse(violations)
        config = await self._configs.update(
            given.tool,
            values,
            _change(request.reason, given.etag),
            validate_only=request.validate_only,
        )
        message = await self._message(config)
        if request.validate_only:
            message.ClearField("etag")  # nothing has it
        return message

    async def ResetToolConfig(
        self, request: tool_config_pb2.ResetToolConfigRequest, context: Context
    ) -> tool_config_pb2.ToolConfig:
        paths, violations = tool_requests.reset_paths(request)
        _refuse(violations)
        return await self._message(
            await self._configs.reset(request.tool, paths, _change(request.reason))
        )

    async def RollbackToolConfig(
        self, request: tool_config_pb2.RollbackToolConfigRequest, context: Context
    ) -> tool_config_pb2.ToolConfig:
        return await self._message(
            await self._configs.rollback(request.tool, request.revision, _change(request.reason))
        )

    async def ListToolConfigRevisions(
        self, request: tool_config_pb2.ListToolConfigRevisionsRequest, context: Context
    ) -> tool_config_pb2.ListToolConfigRevisionsResponse:
        answer = tool_config_pb2.ListToolConfigRevisionsResponse()
        before = page_token.decode(request) or None
        left, room = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE), MAX_ANSWER_BYTES
        while True:
            # One more than wanted tells whether there is another page.
            limit = min(left + 1, READ_SIZE)
            found = await self._configs.revisions(
                request.tool,
                before=before,
                limit=limit,
                timeout=current_call().time_remaining(),
            )
            for revision in found:
                message = revision_message(revision)
                room -= message.ByteSize()
                if not left or (answer.revisions and room < 0):
                    position = answer.revisions[-1].revision
                    answer.next_page_token = page_token.encode(position, request)
                    return answer
                answer.revisions.append(message)
                left -= 1
            if len(found) < limit:
                return answer
            before = found[-1].revision

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
            violations = [Violation(other, tool_requests.another_tools_settings(given.tool))]
        else:
            values = given_settings(getattr(given, other)) if other else {}
            settings, violations = self._configs.judge(given.tool, values)
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

    async def WatchToolConfigs(
        self, request: tool_config_pb2.WatchToolConfigsRequest, context: Context
    ) -> AsyncIterator[tool_config_pb2.WatchToolConfigsResponse]:
        after = request.start_revision
        if not after:
            now = self._configs.now
            after = now.revision
            messages = await self._messages(now.configs.values())
            for message in messages:
                yield tool_config_pb2.WatchToolConfigsResponse(
                    change=tool_config_pb2.TOOL_CONFIG_CHANGE_SNAPSHOT,
                    tool_config=message,
                    # Who resumes from a part of the snapshot needs it anew.
                    revision=after if message is messages[-1] else 0,
                )
        async with aclosing(self._configs.following(after)) as changes:
            async for config in changes:
                yield tool_config_pb2.WatchToolConfigsResponse(
                    change=tool_config_pb2.TOOL_CONFIG_CHANGE_UPDATED,
                    tool_config=await self._message(config),
                    revision=config.revision,
                )

    def violations_of(self, request: Message) -> list[errors.Violation]:
        """What is wrong with a request beside what its proto's rules tell."""
        match request:
            case tool_config_pb2.UpdateToolConfigRequest():
                values, violations = tool_requests.update_values(request)
                return violations + self._bounds(request.tool_config.tool, values)
            case tool_config_pb2.ResetToolConfigRequest():
                return tool_requests.reset_paths(request)[1]
            case tool_config_pb2.ListToolConfigRevisionsRequest():
                return _violations(lambda: page_token.decode(request))
        return []

    def _bounds(self, tool: str, values: dict[str, Any]) -> list[errors.Violation]:
        return _violations(lambda: self._configs.check(tool, values)) if values else []

    async def _messages(self, configs: Iterable[ToolConfig]) -> list[tool_config_pb2.ToolConfig]:
        # At once, so that slow secrets are waited for once and not one after the other.
        return await asyncio.gather(*map(self._message, configs))

    async def _message(self, config: ToolConfig) -> tool_config_pb2.ToolConfig:
        message = config_message(config, stale_since=self._configs.stale_since)
        message.warnings.extend(_warnings(await check(config, self._secrets)))
        return message


def _change(reason: str, etag: str = "") -> Change:
    call = current_call()
    return Change(call.tenant, reason, etag, call.time_remaining())


def _violations(judge: Callable[[], object]) -> list[errors.Violation]:
    try:
        judge()
    except InvalidRequest as refusal:
        return list(refusal.violations)
    return []


def _refuse(violations: list[errors.Violation]) -> None:
    if violations:
        raise InvalidRequest(*violations)


def _warnings(warnings: Iterable[ConfigWarning]) -> list[tool_config_pb2.ToolConfigWarning]:
    return [
        tool_config_pb2.ToolConfigWarning(field=w.path, description=w.description) for w in warnings
    ]
