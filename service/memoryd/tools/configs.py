"""The tools' configuration as it is now: held in memory, changed and followed in the database."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memoryd.domain.errors import EtagMismatch, InvalidRequest, LiteralSecret, Violation
from memoryd.domain.records import DEFAULT_TENANT
from memoryd.tools import log
from memoryd.tools import store as storage
from memoryd.tools.current import CurrentTools
from memoryd.tools.layers import Layers
from memoryd.tools.overrides import ENABLED, document, marker, token_of
from memoryd.tools.secrets import SecretReference
from memoryd.tools.settings import gives_literal, references_of, validate_settings
from memoryd.tools.states import read_state
from memoryd.tools.store import CHANNEL
from memoryd.tools.stored import INSTANCE, Revision, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.engine import Database
    from memoryd.database.notifications import Listener
    from memoryd.tools.settings import ToolConfig, ToolSettings
    from memoryd.tools.stored import Overrides, StoredTools

    Decision = Callable[[ToolConfig, Overrides], Overrides]

POLL_SECONDS = 0.5
"""Between two looks at the overrides; SQLite tells nothing, a word of PostgreSQL's may be lost."""

KEPT_LITERALS = 100
"""Literal secrets of each tool that this process remembers, the latest; a rollback may need one."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes a tool, whose, why, and on what condition."""

    owner: str
    """Whose settings: a tenant's, or `INSTANCE`."""
    actor: str
    """The name of the caller's credential; without one its tenant."""
    reason: str
    etag: str = ""
    """Of the configuration as it has to be still; empty for any."""
    timeout: float | None = None
    """Seconds."""


class ToolConfigs(CurrentTools):
    """The settings as they are now for each owner, and the ways to change them."""

    def __init__(
        self,
        base: Mapping[str, ToolConfig],
        database: Database,
        *,
        clock: Callable[[], datetime],
        production: bool,
        secret_names: Sequence[str],
        secret_references: Sequence[str] = (),
    ) -> None:
        """`base`: what environment and defaults make.

        `secret_names`, `secret_references`: patterns of the secrets that callers may name, as
        SecretRules has them.
        """
        layers = Layers(
            base,
            production=production,
            secret_names=secret_names,
            secret_references=secret_references,
        )
        super().__init__(layers, database, clock)
        self._refreshing: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    async def start(self, listener: Listener | None = None) -> None:
        """Read what holds, and keep up with it: at once where a listener hears of changes."""
        if listener is not None:
            listener.subscribe(CHANNEL, lambda _: self._wake.set(), self._look)
        await self.refresh()
        self._refreshing = asyncio.create_task(self._keep_up(), name="tool configurations")

    async def aclose(self) -> None:
        """End every subscription with ShuttingDown."""
        await self.feed.close()
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    async def update(
        self, tool: str, values: Mapping[str, Any], change: Change, *, validate_only: bool
    ) -> ToolConfig:
        """Override `enabled` and settings, given by their names; answer what holds then.

        With `validate_only`, what would hold; nothing is changed. Raises InvalidRequest with every
        violation, EtagMismatch, and what Database raises.
        """
        given = self._with_markers(change.owner, tool, values)

        def decide(before: ToolConfig, stored: Overrides) -> Overrides:
            return self._merged(change.owner, before, stored, given)

        if validate_only:
            return await self._tried(tool, decide, change)
        return await self._change(tool, lambda _: decide, change)

    async def reset(self, tool: str, paths: Sequence[str], change: Change) -> ToolConfig:
        """Drop overrides, by their paths; without any, all of the tool. Raises as `update`."""

        def decide(_: ToolConfig, stored: Overrides) -> Overrides:
            return {p: value for p, value in stored.items() if paths and p not in paths}

        return await self._change(tool, lambda _: decide, change)

    async def rollback(self, tool: str, revision: int, change: Change) -> ToolConfig:
        """Bring back the owner's overrides as they were after a revision.

        Raises ToolConfigRevisionNotFound, and as `update`.
        """

        def restore(connection: Connection) -> Decision:
            wanted = log.read_overrides(connection, change.owner, tool, revision)
            return lambda *_: wanted

        return await self._change(tool, restore, change, always=True)

    async def revisions(
        self, owner: str, tool: str, *, before: int | None, limit: int, timeout: float | None
    ) -> list[Revision]:
        """Read the changes of a tool, newest first; `before`: only those older than it."""
        found = await self._database.read(
            lambda c: log.read_revisions(c, owner, tool, before=before, limit=limit),
            tenants=(owner,),
            timeout=timeout,
        )
        return [self._layers.documented(owner, revision) for revision in found]

    def validate(self, owner: str, tool: str, values: Mapping[str, Any]) -> None:
        """Validate values for a tool as it is now. Raises InvalidRequest with every violation."""
        self._settings_with(owner, self.of(owner)[tool], values)

    def settings_with(
        self, owner: str, tool: str, values: Mapping[str, Any]
    ) -> tuple[ToolSettings | None, list[Violation]]:
        """Lay values over those of a tool as it is now; the settings, or what is wrong."""
        return self._validated(owner, self.of(owner)[tool], values)

    def _validated(
        self, owner: str, config: ToolConfig, values: Mapping[str, Any]
    ) -> tuple[ToolSettings | None, list[Violation]]:
        return validate_settings(
            config.tool,
            {**config.values, **values},
            production=self._layers.production,
            secret_names=self._layers.secret_rules.of(owner, references_of((config,))),
        )

    def _settings_with(
        self, owner: str, config: ToolConfig, values: Mapping[str, Any]
    ) -> ToolSettings:
        """The settings with values laid over them. Raises InvalidRequest with every violation."""
        new = {name: value for name, value in values.items() if name != ENABLED}
        settings, violations = self._validated(owner, config, new)
        if settings is None:
            literal = self._layers.production and gives_literal(config.tool, new)
            refusal = LiteralSecret if literal else InvalidRequest
            raise refusal(*(Violation(f"tool_config.{v.field}", v.description) for v in violations))
        return settings

    def _with_markers(self, owner: str, tool: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values with a marker in the place of each literal secret, which is kept here.

        Production refuses it later, so there none is kept.
        """
        literals, config = self._layers.literals, self.of(owner)[tool]
        return {
            name: marker(
                literals.keep(owner, config, SecretReference.parse(value), most=KEPT_LITERALS)
            )
            if gives_literal(tool, {name: value}) and not self._layers.production
            else value
            for name, value in values.items()
        }

    def _merged(
        self, owner: str, before: ToolConfig, stored: Overrides, given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What is stored, with values laid over it in the form in which they are stored."""
        tokens = {name: token for name, value in given.items() if (token := token_of(value))}
        literals = self._layers.literals
        typed = {name: literals.get(owner, before.tool, token) for name, token in tokens.items()}
        settings = self._settings_with(owner, before, {**given, **typed})
        as_json = settings.model_dump(mode="json")
        merged = dict(stored)
        for name, value in given.items():
            if name == ENABLED:
                merged[ENABLED] = value
            else:
                merged[f"{before.tool}.{name}"] = value if name in tokens else as_json[name]
        return merged

    async def _tried(self, tool: str, decide: Decision, change: Change) -> ToolConfig:
        dialect, owner = self._database.dialect, change.owner
        state = await self._database.read(
            lambda c: read_state(c, dialect, owner), tenants=(owner,), timeout=change.timeout
        )
        stored = state.of(tool)
        before = self._layers.config(owner, tool, stored)
        _check_etag(before, change)
        overrides = decide(before, stored.overrides)
        return self._layers.config(owner, tool, stored._replace(overrides=overrides))

    async def _change(
        self,
        tool: str,
        prepare: Callable[[Connection], Decision],
        change: Change,
        *,
        always: bool = False,
    ) -> ToolConfig:
        """Change the overrides of a tool: a revision if they become others, or `always`."""
        owner, dialect = change.owner, self._database.dialect
        documented = functools.partial(self._layers.documented, DEFAULT_TENANT)

        def body(connection: Connection) -> StoredTools:
            def decide(stored: Stored, revision: int) -> Revision | None:
                before = self._layers.config(owner, tool, stored)
                _check_etag(before, change)
                overrides = prepare(connection)(before, stored.overrides)
                if overrides == stored.overrides and not always:
                    return None
                return self._revision(change, before, stored, overrides, revision)

            return storage.change(
                connection, dialect, owner, tool, decide=decide, documented=documented
            )

        known = self.known[owner]
        stored = await self._database.write(body, tenants=(owner,), timeout=change.timeout)
        self._reached()
        self.known.adopt(owner, known, stored, may_go_back=False)
        if owner == INSTANCE:
            await self.refresh()  # it is a change of every tenant's
        return self._layers.config(owner, tool, stored.of(tool))

    def _revision(
        self,
        change: Change,
        before: ToolConfig,
        stored: Stored,
        overrides: Overrides,
        revision: int,
    ) -> Revision:
        tool, is_instances = before.tool, change.owner == INSTANCE
        after = stored._replace(overrides=overrides, revision=revision)
        return Revision(
            revision,
            tool,
            self._clock(),
            change.actor,
            change.reason,
            document(before),
            document(self._layers.config(change.owner, tool, after)),
            overrides,
            stored.instance,
            instance_before=stored.overrides if is_instances else None,
            previous_revision=stored.revision if is_instances else None,
        )

    async def _look(self) -> None:
        self._wake.set()

    async def _keep_up(self) -> None:
        """Look whenever the database tells of a change, and every now and then."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.refresh()
            except Exception:  # noqa: BLE001  without it no change would be seen again
                _log.exception("unhandled exception while reading overrides; it is tried again")


def _check_etag(config: ToolConfig, change: Change) -> None:
    if change.etag and change.etag != config.etag:
        raise EtagMismatch(f"the configuration of {config.tool}")
