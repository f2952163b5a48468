"""What is known of the settings of each owner: of the instance, and of the tenants in use."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from memoryd.tools.layers import Snapshot
from memoryd.tools.stored import INSTANCE, NO_TOOLS, PERMANENT, Place, StoredTools, joined

if TYPE_CHECKING:
    from collections.abc import Callable

    from memoryd.tools.layers import Layers

MAX_TENANTS = 1_000
"""Tenants whose settings stay in memory, those used last; beyond it only those in use."""


class Known:
    """What is known of one owner."""

    __slots__ = ("adopted", "is_read", "snapshot", "stored", "users")

    def __init__(self, stored: StoredTools, snapshot: Snapshot) -> None:
        self.stored = stored
        self.snapshot = snapshot
        self.is_read = False
        """Whether the database has told it."""
        self.adopted = 0
        """How often it has become something else."""
        self.users = 0
        """Calls and streams under way that need it to stay."""


class KnownTools:
    """The owners that are in memory. Those always there are the instance and `default`."""

    def __init__(self, layers: Layers, changed: Callable[[str], None]) -> None:
        """`changed` is called with the owner whose settings have changed."""
        self._layers = layers
        self._changed = changed
        self._known: OrderedDict[str, Known] = OrderedDict()
        for owner in PERMANENT:
            self._known[owner] = self._unread(owner)

    def __getitem__(self, owner: str) -> Known:
        return self._known[owner]

    @property
    def all(self) -> list[tuple[str, Known]]:
        return list(self._known.items())

    @property
    def tenants(self) -> list[str]:
        """Those that come and go."""
        return [owner for owner in self._known if owner not in PERMANENT]

    def enter(self, owner: str) -> Known:
        """Have an owner's stay in memory until `leave`, though nothing may be read of it yet."""
        known = self._known.get(owner)
        if known is None:
            known = self._known[owner] = self._unread(owner)
        self._known.move_to_end(owner)  # in place, since threads look owners up meanwhile
        known.users += 1
        if len(self._known) > MAX_TENANTS + len(PERMANENT):
            self._drop_oldest()
        return known

    def leave(self, known: Known) -> None:
        known.users -= 1
        if len(self._known) > MAX_TENANTS + len(PERMANENT):
            self._drop_oldest()

    def adopt(self, owner: str, known: Known, stored: StoredTools, *, may_go_back: bool) -> None:
        """Let what was read hold from now on, unless something later does."""
        if self._known.get(owner) is not known:
            return  # dropped meanwhile
        revision = known.stored.revision
        is_later = stored.revision > revision or (stored.revision != revision and may_go_back)
        if known.is_read and not is_later:
            if stored.revision == revision:
                known.stored = stored  # the same, in rows of its own
            return
        known.is_read = True
        known.stored, known.snapshot = stored, Snapshot(self._layers, owner, stored)
        known.adopted += 1
        if stored.revision != revision:
            self._changed(owner)

    def _unread(self, owner: str) -> Known:
        """Until an owner's is read, that of the instance is what is known of it."""
        known = self._known.get(INSTANCE)
        instance = known.stored.tools if known is not None else {}
        tools = {tool: below._replace(revision=0) for tool, below in instance.items()}
        stored = joined(Place(), {}, tools)
        return Known(NO_TOOLS, Snapshot(self._layers, owner, stored))

    def _drop_oldest(self) -> None:
        for owner, known in self._known.items():
            if not known.users and owner not in PERMANENT:
                del self._known[owner]
                return
