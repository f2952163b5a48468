"""The settings of the tools as they are now, in memory and kept up with the database."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING

from memoryd.database.batch_loader import BatchLoader
from memoryd.database.feed import Changes, Feed
from memoryd.domain.errors import MemorydError
from memoryd.domain.records import DEFAULT_TENANT
from memoryd.tools import log
from memoryd.tools.known import KnownTools
from memoryd.tools.settings import MemorySettings
from memoryd.tools.states import read_overrides_of_all, read_places, read_states
from memoryd.tools.stored import INSTANCE, PERMANENT, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from types import TracebackType

    from sqlalchemy import Connection

    from memoryd.database.engine import Database
    from memoryd.tools.known import Known
    from memoryd.tools.layers import Layers, Snapshot
    from memoryd.tools.settings import ToolConfig
    from memoryd.tools.stored import Overrides, StoredTools

MAX_READS = 2
"""Of subscriptions, at a time."""

READ_TENANTS = 100
"""Whose settings one statement reads, where many have changed at once."""

_ALWAYS_HELD = nullcontext()

_log = logging.getLogger(__name__)


class ToolFeed(Feed[str, "ToolConfig"]):
    """Changes of each tenant's tools, which share one order of revisions."""

    def __init__(self, database: Database, layers: Layers) -> None:
        super().__init__(max_reads=MAX_READS)
        self._database = database
        self._layers = layers

    async def _read(self, key: str, after: int) -> Changes[ToolConfig]:
        found = await self._database.read(lambda c: log.read_changes(c, key, after), tenants=(key,))
        configs = [self._layers.config(key, r.tool, r.stored) for r in found.events]
        return Changes(configs, found.revision, found.is_all)


class Holding:
    """An owner's settings are in memory until the end of this asynchronous block."""

    __slots__ = ("_current", "_known", "_must_be_read", "_owner", "_timeout")

    def __init__(
        self, current: CurrentTools, owner: str, timeout: float | None, *, must_be_read: bool
    ) -> None:
        self._current = current
        self._owner = owner
        self._timeout = timeout
        self._must_be_read = must_be_read

    async def __aenter__(self) -> None:
        self._known = self._current.known.enter(self._owner)
        try:
            if not self._known.is_read:
                await self._current.read_first(
                    self._owner, self._known, self._timeout, must_be_read=self._must_be_read
                )
        except BaseException:
            self._current.known.leave(self._known)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._current.known.leave(self._known)


class CurrentTools:
    """What holds now for each owner: the instance or a tenant.

    Until `refresh`, and while the database is away, it is what was known last: at first what
    environment and defaults make. The methods that do not wait are for owners that are in memory:
    the instance, the tenant `default`, and those that are held.
    """

    def __init__(self, layers: Layers, database: Database, clock: Callable[[], datetime]) -> None:
        layers.instance_now = lambda tool: self.known[INSTANCE].stored.of(tool).overrides
        self._layers = layers
        self._database = database
        self._clock = clock
        self._reachable: bool | None = None
        self._problem = ""
        self._known_at = clock()
        self._first_reads: BatchLoader[tuple[str], StoredTools] = BatchLoader(
            database, self._read_first
        )
        self.feed = ToolFeed(database, layers)
        """Of changes by tenant: each event is the tool as it was set by one."""
        self.known = KnownTools(layers, lambda owner: self.feed.notify((owner,)))

    def of(self, owner: str) -> Snapshot:
        """The settings of an owner as they are now."""
        return self.known[owner].snapshot

    def memory_settings(self, tenant: str) -> MemorySettings:
        """Those of a tenant that MemoryService obeys."""
        settings = self.of(tenant)["memory"].settings
        assert isinstance(settings, MemorySettings)  # noqa: S101  for the type checker
        return settings

    def cleanup_days(self, connection: Connection) -> tuple[int, dict[str, int]]:
        """Read the `cleanup_days` of tenants in general, and of each that has set its own."""
        instance, tenants = read_overrides_of_all(connection, "memory")
        path = "memory.cleanup_days"

        def days(own: Overrides) -> int:
            config = self._layers.config(DEFAULT_TENANT, "memory", Stored(own, instance, 0))
            assert isinstance(config.settings, MemorySettings)  # noqa: S101  for the type checker
            return config.settings.cleanup_days

        # Each value once, since no other setting bears on it, and there may be many tenants.
        given = {tenant: own[path] for tenant, own in tenants.items() if path in own}
        values = {repr(value): value for value in given.values()}
        known = {text: days({path: value}) for text, value in values.items()}
        return days({}), {tenant: known[repr(value)] for tenant, value in given.items()}

    def stale_since(self, owner: str = DEFAULT_TENANT) -> datetime | None:
        """When an owner's settings were last known to be current; None where they are."""
        return None if self._reachable and self.known[owner].is_read else self._known_at

    @property
    def problem(self) -> str:
        """Why it is stale, for the operator; empty where that is not known."""
        return "" if self._reachable else self._problem

    def holding(
        self, owner: str, timeout: float | None, *, must_be_read: bool = False
    ) -> AbstractAsyncContextManager[None]:
        """Hold an owner's settings in memory for a while: `async with`.

        If nothing is known of them yet they are read, together with those of others that wait.
        Where that fails, the environment's and the instance's stand in, and are stale; with
        `must_be_read` it raises what Database raises.
        """
        if owner in PERMANENT:
            return _ALWAYS_HELD
        return Holding(self, owner, timeout, must_be_read=must_be_read)

    async def read_first(
        self, owner: str, known: Known, timeout: float | None, *, must_be_read: bool
    ) -> None:
        """Read an owner's settings that are not known yet, as `holding` says."""
        if self._reachable is False and not must_be_read:
            return
        adopted = known.adopted
        try:
            stored = await self._first_reads.get((owner,), timeout=timeout)
        except MemorydError:
            if must_be_read:
                raise
            return
        if stored is not None:
            self.known.adopt(owner, known, stored, may_go_back=adopted == known.adopted)

    def _read_first(
        self, connection: Connection, keys: Iterable[tuple[str]]
    ) -> dict[tuple[str], StoredTools]:
        found = read_states(connection, self._database.dialect, [owner for (owner,) in keys])
        return {(owner,): stored for owner, stored in found.items()}

    async def refresh(self) -> None:
        """Read what has changed; where that fails, what was known holds on, and is stale."""
        dialect = self._database.dialect
        before = [(owner, known, known.adopted) for owner, known in self.known.all]
        owners = [owner for owner, _, _ in before]
        try:
            places = await self._database.read(
                lambda c: read_places(c, dialect, owners), tenants=owners
            )
            changed = [
                entry
                for entry in before
                if not entry[1].is_read or places[entry[0]] != entry[1].stored.place
            ]
            for start in range(0, len(changed), READ_TENANTS):
                await self._read_again(changed[start : start + READ_TENANTS])
        except MemorydError as error:
            self._problem = error.for_operator
            if self._reachable is not False:
                _log.warning(
                    "the tools' overrides cannot be read; what was known of them goes on",
                    extra={"since": self._known_at.isoformat()},
                )
            self._reachable = False
            return
        self._reached()

    async def _read_again(self, some: list[tuple[str, Known, int]]) -> None:
        """Read what holds for some owners, each with how often it had become something else."""
        dialect = self._database.dialect
        wanted = [owner for owner, _, _ in some]
        states = await self._database.read(
            lambda c: read_states(c, dialect, wanted), tenants=wanted
        )
        self._reached()  # first: those who are woken say whether it is stale
        for owner, known, adopted in some:
            # What was read before a change of our own must not undo it.
            self.known.adopt(owner, known, states[owner], may_go_back=adopted == known.adopted)

    def _reached(self) -> None:
        """The database has answered, and what is known is current."""
        self._reachable, self._known_at = True, self._clock()
