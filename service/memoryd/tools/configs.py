"""The tools' configuration as it is now: held in memory, changed and followed in the database."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets as random_tokens
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from memoryd.database.feed import Changes, Feed
from memoryd.database.tenancy import NO_TENANT
from memoryd.domain.errors import (
    EtagMismatch,
    InvalidRequest,
    LiteralSecret,
    MemorydError,
    Violation,
)
from memoryd.tools import store as storage
from memoryd.tools.overrides import ENABLED, document, layered, marker, token_of
from memoryd.tools.secrets import SecretReference
from memoryd.tools.secrets.names import SecretNames
from memoryd.tools.settings import (
    LOST_LITERAL,
    MemorySettings,
    gives_literal,
    references_of,
    validate_settings,
)
from memoryd.tools.store import CHANNEL, NOTHING_STORED, Revision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.engine import Database
    from memoryd.database.notifications import Listener
    from memoryd.tools.settings import ToolConfig, ToolSettings
    from memoryd.tools.store import Overrides, Stored, StoredTools

POLL_SECONDS = 0.5
"""Between two looks at the overrides; SQLite tells nothing, a word of PostgreSQL's may be lost."""

MAX_READS = 2
"""Of subscriptions, at a time."""

ALL_TOOLS = "all tools"
"""The one key of the feed."""

KEPT_LITERALS = 100
"""Literal secrets of each tool that this process remembers, the latest; a rollback may need one."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes a tool, why, and on what condition."""

    actor: str
    """The caller's tenant."""
    reason: str
    etag: str = ""
    """Of the configuration as it has to be still; empty for any."""
    timeout: float | None = None
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All tools at one moment."""

    revision: int
    """Of the last change of any tool."""
    configs: Mapping[str, ToolConfig]
    """All seven, in their order."""


class _Literals:
    """Literal secrets that were given at run time. They are nowhere but in this process."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, SecretReference]] = {}

    def keep(self, config: ToolConfig, reference: SecretReference) -> str:
        """Remember it, and give the token that stands for it; the same for the same literal.

        The one that holds by `config` is never forgotten for it.
        """
        kept = self._kept.setdefault(config.tool, {})
        token = next((t for t, known in kept.items() if known == reference), None)
        token = token or random_tokens.token_hex(16)
        kept.pop(token, None)
        kept[token] = reference  # as the latest
        if len(kept) > KEPT_LITERALS:
            held = config.values["api_key"]
            del kept[next(t for t, known in kept.items() if known != held)]
        return token

    def get(self, tool: str, token: str) -> SecretReference:
        return self._kept.get(tool, {}).get(token, LOST_LITERAL)


class ToolFeed(Feed[str, "ToolConfig"]):
    """Changes of the tools, which share one order of revisions."""

    def __init__(
        self, database: Database, layered: Callable[[str, Overrides, int], ToolConfig]
    ) -> None:
        """`layered` makes a tool's configuration of its overrides and their revision."""
        super().__init__(max_reads=MAX_READS)
        self._database = database
        self._layered = layered

    async def _read(self, key: str, after: int) -> Changes[ToolConfig]:
        del key
        found = await self._database.read(
            lambda c: storage.read_changes(c, after), tenants=NO_TENANT
        )
        configs = [self._layered(r.tool, r.overrides, r.revision) for r in found.events]
        return Changes(configs, found.revision, found.is_all)


class ToolConfigs:
    """What holds now, and the ways to change it.

    Until `start` or `refresh`, and while the database is away, it is what was known last: at first
    the `base`, which environment and defaults make.
    """

    def __init__(
        self,
        base: Mapping[str, ToolConfig],
        database: Database,
        *,
        clock: Callable[[], datetime],
        production: bool,
        secret_names: Sequence[str],
    ) -> None:
        """`secret_names`: patterns of the secrets that callers may name."""
        self._base = base
        self._secret_names = SecretNames(secret_names, references_of(base.values()))
        self._database = database
        self._clock = clock
        self._production = production
        self._literals = _Literals()
        self._now = Snapshot(0, base)
        self._refreshing: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._reachable: bool | None = None
        self._problem = ""
        self._known_at = clock()
        self._adopted = 0
        self.feed = ToolFeed(database, self._layered)
        """Of changes: each event is the tool as it was set by one."""

    def __getitem__(self, tool: str) -> ToolConfig:
        return self._now.configs[tool]

    @property
    def now(self) -> Snapshot:
        return self._now

    @property
    def memory_settings(self) -> MemorySettings:
        """Those that MemoryService obeys."""
        settings = self["memory"].settings
        assert isinstance(settings, MemorySettings)  # noqa: S101  for the type checker
        return settings

    @property
    def stale_since(self) -> datetime | None:
        """When it was last known to be current; None where it is."""
        return None if self._reachable else self._known_at

    @property
    def problem(self) -> str:
        """Why it is stale, for the operator; empty where that is not known."""
        return "" if self._reachable else self._problem

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

    async def refresh(self) -> None:
        """Read what holds; where that fails, what was known holds on, and is stale."""
        adopted = self._adopted
        try:
            stored = await self._database.read(storage.read_state, tenants=NO_TENANT)
        except MemorydError as error:
            self._problem = error.for_operator
            if self._reachable is not False:
                _log.warning(
                    "the tools' overrides cannot be read; what was known of them goes on",
                    extra={"since": self._known_at.isoformat()},
                )
            self._reachable = False
            return
        # What was read before a change of our own must not undo it.
        self._adopt(stored, may_go_back=adopted == self._adopted)

    async def update(
        self, tool: str, values: Mapping[str, Any], change: Change, *, validate_only: bool
    ) -> ToolConfig:
        """Override `enabled` and settings, given by their names; answer what holds then.

        With `validate_only`, what would hold; nothing is changed. Raises InvalidRequest with every
        violation, EtagMismatch, and what Database raises.
        """
        given = self._with_markers(tool, values)

        def decide(before: ToolConfig, stored: Overrides) -> Overrides:
            return self._merged(before, stored, given)

        if validate_only:
            return await self._tried(tool, decide, change)
        return await self._change(tool, lambda _: decide, change)

    async def reset(self, tool: str, paths: Sequence[str], change: Change) -> ToolConfig:
        """Drop overrides, by their paths; without any, all of the tool. Raises as `update`."""

        def decide(_: ToolConfig, stored: Overrides) -> Overrides:
            return {p: value for p, value in stored.items() if paths and p not in paths}

        return await self._change(tool, lambda _: decide, change)

    async def rollback(self, tool: str, revision: int, change: Change) -> ToolConfig:
        """Bring back the overrides as they were after a revision.

        Raises ToolConfigRevisionNotFound, and as `update`.
        """

        def restore(connection: Connection) -> Callable[[ToolConfig, Overrides], Overrides]:
            wanted = storage.read_overrides(connection, tool, revision)
            return lambda *_: wanted

        return await self._change(tool, restore, change, always=True)

    async def revisions(
        self, tool: str, *, before: int | None, limit: int, timeout: float | None
    ) -> list[Revision]:
        """Read the changes of a tool, newest first; `before`: only those older than it."""
        return await self._database.read(
            lambda c: storage.read_revisions(c, tool, before=before, limit=limit),
            tenants=NO_TENANT,
            timeout=timeout,
        )

    def validate(self, tool: str, values: Mapping[str, Any]) -> None:
        """Validate values for a tool as it is now. Raises InvalidRequest with every violation."""
        self._settings_with(self[tool], values)

    def settings_with(
        self, tool: str, values: Mapping[str, Any]
    ) -> tuple[ToolSettings | None, list[Violation]]:
        """Lay values over those of a tool as it is now; the settings, or what is wrong."""
        return self._validated(self[tool], values)

    def _validated(
        self, config: ToolConfig, values: Mapping[str, Any]
    ) -> tuple[ToolSettings | None, list[Violation]]:
        return validate_settings(
            config.tool,
            {**config.values, **values},
            production=self._production,
            secret_names=self._secret_names,
        )

    def _settings_with(self, config: ToolConfig, values: Mapping[str, Any]) -> ToolSettings:
        """The settings with values laid over them. Raises InvalidRequest with every violation."""
        new = {name: value for name, value in values.items() if name != ENABLED}
        settings, violations = self._validated(config, new)
        if settings is None:
            literal = self._production and gives_literal(config.tool, new)
            refusal = LiteralSecret if literal else InvalidRequest
            raise refusal(*(Violation(f"tool_config.{v.field}", v.description) for v in violations))
        return settings

    def _with_markers(self, tool: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values with a marker in the place of each literal secret, which is kept here.

        Production refuses it later, so there none is kept.
        """
        return {
            name: marker(self._literals.keep(self[tool], SecretReference.parse(value)))
            if gives_literal(tool, {name: value}) and not self._production
            else value
            for name, value in values.items()
        }

    def _merged(
        self, before: ToolConfig, stored: Overrides, given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What is stored, with values laid over it in the form in which they are stored."""
        tokens = {name: token for name, value in given.items() if (token := token_of(value))}
        typed = {name: self._literals.get(before.tool, token) for name, token in tokens.items()}
        as_json = self._settings_with(before, {**given, **typed}).model_dump(mode="json")
        merged = dict(stored)
        for name, value in given.items():
            if name == ENABLED:
                merged[ENABLED] = value
            else:
                merged[f"{before.tool}.{name}"] = value if name in tokens else as_json[name]
        return merged

    async def _tried(
        self, tool: str, decide: Callable[[ToolConfig, Overrides], Overrides], change: Change
    ) -> ToolConfig:
        state = await self._database.read(
            storage.read_state, tenants=NO_TENANT, timeout=change.timeout
        )
        stored = state.tools.get(tool, NOTHING_STORED)
        before = self._layered(tool, stored.overrides, stored.revision)
        _check_etag(before, change)
        return self._layered(tool, decide(before, stored.overrides), stored.revision)

    async def _change(
        self,
        tool: str,
        prepare: Callable[[Connection], Callable[[ToolConfig, Overrides], Overrides]],
        change: Change,
        *,
        always: bool = False,
    ) -> ToolConfig:
        """Change the overrides of a tool: a revision if they become others, or `always`."""

        def body(connection: Connection) -> StoredTools:
            decide_with = prepare(connection)

            def decide(stored: Stored, revision: int) -> Revision | None:
                before = self._layered(tool, stored.overrides, stored.revision)
                _check_etag(before, change)
                overrides = decide_with(before, stored.overrides)
                if overrides == stored.overrides and not always:
                    return None
                after = self._layered(tool, overrides, revision)
                return Revision(
                    revision,
                    tool,
                    self._clock(),
                    change.actor,
                    change.reason,
                    document(before),
                    document(after),
                    overrides,
                )

            return storage.change(connection, self._database.dialect, tool, decide)

        stored = await self._database.write(body, tenants=NO_TENANT, timeout=change.timeout)
        self._adopt(stored, may_go_back=False)
        mine = stored.tools.get(tool, NOTHING_STORED)
        return self._layered(tool, mine.overrides, mine.revision)

    def _layered(self, tool: str, overrides: Overrides, revision: int) -> ToolConfig:
        return layered(
            self._base[tool],
            overrides,
            revision,
            literal=functools.partial(self._literals.get, tool),
            production=self._production,
            secret_names=self._secret_names,
        )

    def _adopt(self, stored: StoredTools, *, may_go_back: bool) -> None:
        """Let what was read hold from now on."""
        self._reachable, self._known_at = True, self._clock()
        known = self._now.revision
        if stored.revision > known or (stored.revision < known and may_go_back):
            self._now = Snapshot(
                stored.revision,
                MappingProxyType(
                    {
                        tool: self._layered(tool, mine.overrides, mine.revision)
                        for tool in self._base
                        for mine in (stored.tools.get(tool, NOTHING_STORED),)
                    }
                ),
            )
            self._adopted += 1
            self.feed.notify((ALL_TOOLS,))

    async def _look(self) -> None:
        self._wake.set()

    async def _keep_up(self) -> None:
        """Look whenever the database tells of a change, and every now and then."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            await self.refresh()


def _check_etag(config: ToolConfig, change: Change) -> None:
    if change.etag and change.etag != config.etag:
        raise EtagMismatch(f"the configuration of {config.tool}")
