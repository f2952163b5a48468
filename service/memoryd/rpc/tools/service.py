"""ToolConfigService: a row for each method; each handler takes a record and answers a message."""

from __future__ import annotations

import asyncio
import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

from google.rpc import error_details_pb2

from memoryd.domain.audit import Audited
from memoryd.domain.errors import Violation
from memoryd.domain.principals import Scope
from memoryd.rpc.answer_size import MAX_ANSWER_BYTES
from memoryd.rpc.methods import WRITE_WEIGHT, Method
from memoryd.rpc.tools.messages import config_message, revision_message
from memoryd.rpc.tools.requests import ToolRequestParser, another_tools_settings
from memoryd.tools.checks import warnings_of
from memoryd.v1 import tool_config_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from memoryd.rpc.call import Call
    from memoryd.rpc.tools.requests import (
        Reset,
        RevisionListing,
        Rollback,
        ToolName,
        Trial,
        Update,
        Watch,
    )
    from memoryd.tools.configs import ToolConfigs
    from memoryd.tools.secrets import Secrets
    from memoryd.tools.settings import ConfigWarning, ToolConfig

READ_SIZE = 50
"""Revisions that are read at once; a page may take several."""


class ToolConfigService:
    def __init__(self, configs: ToolConfigs, secrets: Secrets) -> None:
        self._configs = configs
        self._secrets = secrets

    def methods(self) -> Mapping[str, Method[Any]]:
        """The table of this service."""
        parser = ToolRequestParser(self._configs.validate)
        read, write = Scope.TOOLS_READ, Scope.TOOLS_WRITE
        in_all = Audited.IN_ALL
        reading = partial(Method, needs=read, audited=in_all, holds=self._held)
        changing = partial(
            Method, needs=write, audited=Audited.AFTER, weight=WRITE_WEIGHT, holds=self._held
        )
        return {
            "ListTools": reading(parser.tenant, self.list_tools),
            "GetToolConfig": reading(parser.tool, self.get),
            "UpdateToolConfig": changing(parser.update, self.update),
            "ResetToolConfig": changing(parser.reset, self.reset),
            "RollbackToolConfig": changing(parser.rollback, self.rollback),
            "ListToolConfigRevisions": Method(parser.revisions, self.list_revisions, read, in_all),
            "ValidateToolConfig": Method(
                parser.trial, self.validate, write, in_all, holds=self._held
            ),
            "WatchToolConfigs": reading(parser.watch, self.watch),
        }

    def _held(self, call: Call) -> AbstractAsyncContextManager[None]:
        return self._configs.holding(call.principal.tenant, call.time_remaining())

    async def list_tools(self, tenant: str, call: Call) -> tool_config_pb2.ListToolsResponse:
        del call
        answer = tool_config_pb2.ListToolsResponse()
        for message in await self._messages(tenant, self._configs.of(tenant)):
            answer.tools.add(
                tool=message.tool,
                enabled=message.enabled,
                warnings=message.warnings,
                revision=message.revision,
                stale=message.stale,
                stale_since=message.stale_since if message.stale else None,
            )
        return answer

    async def get(self, name: ToolName, call: Call) -> tool_config_pb2.ToolConfig:
        del call
        return await self._message(name.owner, self._configs.of(name.owner)[name.tool])

    async def update(self, update: Update, call: Call) -> tool_config_pb2.ToolConfig:
        call.is_about(f"tools/{update.tool}")
        if update.validate_only:
            call.changes_nothing()
        config = await self._configs.update(
            update.tool, update.values, update.change, validate_only=update.validate_only
        )
        message = await self._message(update.change.owner, config)
        if update.validate_only:
            message.ClearField("etag")  # nothing has it
        return message

    async def reset(self, reset: Reset, call: Call) -> tool_config_pb2.ToolConfig:
        call.is_about(f"tools/{reset.tool}")
        config = await self._configs.reset(reset.tool, reset.paths, reset.change)
        return await self._message(reset.change.owner, config)

    async def rollback(self, rollback: Rollback, call: Call) -> tool_config_pb2.ToolConfig:
        call.is_about(f"tools/{rollback.tool}")
        config = await self._configs.rollback(rollback.tool, rollback.revision, rollback.change)
        return await self._message(rollback.change.owner, config)

    async def list_revisions(
        self, listing: RevisionListing, call: Call
    ) -> tool_config_pb2.ListToolConfigRevisionsResponse:
        answer = tool_config_pb2.ListToolConfigRevisionsResponse()
        before, left, room = listing.before, listing.size, MAX_ANSWER_BYTES
        while True:
            # One more than wanted tells whether there is another page.
            limit = min(left + 1, READ_SIZE)
            found = await self._configs.revisions(
                listing.owner,
                listing.tool,
                before=before,
                limit=limit,
                timeout=call.time_remaining(),
            )
            for revision in found:
                message = revision_message(revision)
                room -= message.ByteSize()
                if not left or (answer.revisions and room < 0):
                    answer.next_page_token = listing.token_at(answer.revisions[-1].revision)
                    return answer
                answer.revisions.append(message)
                left -= 1
            if len(found) < limit:
                return answer
            before = found[-1].revision

    async def validate(
        self, trial: Trial, call: Call
    ) -> tool_config_pb2.ValidateToolConfigResponse:
        del call
        config = self._configs.of(trial.owner)[trial.tool]
        if trial.enabled is not None:
            config = dataclasses.replace(config, enabled=trial.enabled)
        warnings: Iterable[ConfigWarning] = ()
        if trial.others:
            violations = [Violation(trial.others, another_tools_settings(trial.tool))]
        else:
            settings, violations = self._configs.settings_with(
                trial.owner, trial.tool, trial.values
            )
            if settings is not None:
                warnings = await warnings_of(
                    dataclasses.replace(config, settings=settings), self._secrets
                )
        return tool_config_pb2.ValidateToolConfigResponse(
            warnings=_warnings(warnings),
            violations=[
                error_details_pb2.BadRequest.FieldViolation(
                    field=v.field, description=v.description
                )
                for v in violations
            ],
        )

    async def watch(
        self, watch: Watch, call: Call
    ) -> AsyncIterator[tool_config_pb2.WatchToolConfigsResponse]:
        del call
        tenant, after = watch.tenant, watch.start_revision
        feed, now = self._configs.feed, self._configs.of(tenant)
        with feed.subscribed(tenant, is_current=after in {0, now.revision}) as subscription:
            if not after:
                after = now.revision
                messages = await self._messages(tenant, now)
                for message in messages:
                    yield tool_config_pb2.WatchToolConfigsResponse(
                        change=tool_config_pb2.TOOL_CONFIG_CHANGE_SNAPSHOT,
                        tool_config=message,
                        # A watch that resumes from a part of the snapshot needs all of it again.
                        revision=after if message is messages[-1] else 0,
                    )
            while True:
                for config in await subscription.after(after):
                    yield tool_config_pb2.WatchToolConfigsResponse(
                        change=tool_config_pb2.TOOL_CONFIG_CHANGE_UPDATED,
                        tool_config=await self._message(tenant, config),
                        revision=config.revision,
                    )
                    after = config.revision

    async def _messages(
        self, owner: str, configs: Iterable[ToolConfig]
    ) -> list[tool_config_pb2.ToolConfig]:
        # At once, so that slow secrets are waited for once and not one after the other.
        return await asyncio.gather(*(self._message(owner, config) for config in configs))

    async def _message(self, owner: str, config: ToolConfig) -> tool_config_pb2.ToolConfig:
        message = config_message(config, stale_since=self._configs.stale_since(owner))
        message.warnings.extend(_warnings(await warnings_of(config, self._secrets)))
        return message


def _warnings(warnings: Iterable[ConfigWarning]) -> list[tool_config_pb2.ToolConfigWarning]:
    return [
        tool_config_pb2.ToolConfigWarning(field=w.path, description=w.description) for w in warnings
    ]
