"""Records of what is stored of the tools, and whose it is. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from memoryd.domain.records import DEFAULT_TENANT

if TYPE_CHECKING:
    from datetime import datetime

INSTANCE = ""
"""Who owns what an admin of the instance has set for all tenants. No tenant is named so."""

PERMANENT = (INSTANCE, DEFAULT_TENANT)
"""Owners whose settings are always in memory."""

INSTANCE_ACTOR = "instance"
"""Who has made a change of the instance's, as tenants see it: the admin is of another tenant."""

Overrides = Mapping[str, Any]
"""JSON values by their path: `{"enabled": true, "rag.chunk_size": 600}`."""


class Stored(NamedTuple):
    """What is stored of one tool."""

    overrides: Overrides
    """The owner's own."""
    instance: Overrides | None
    """The instance's, below these; None where an earlier release wrote them, which knew of none."""
    revision: int
    """Of its last change; 0: never changed."""


NOTHING_STORED = Stored({}, {}, 0)


class Place(NamedTuple):
    """How far the changes have come that an owner's settings are made of."""

    revision: int = 0
    """The last one among the owner's own rows; 0: there are none."""
    instance_taken: int = 0
    """The instance's last revision among these rows."""
    instance: int = 0
    """The instance's last revision; those after `instance_taken` follow the owner's own rows."""

    @property
    def last(self) -> int:
        """The last revision that was given out to the owner."""
        return self.revision + max(self.instance - self.instance_taken, 0)

    def following(self, instance_revision: int) -> int:
        """The owner's revision of a change of the instance's that follows its own rows."""
        return self.revision + instance_revision - self.instance_taken


@dataclass(frozen=True, slots=True)
class StoredTools:
    """All that holds for an owner at one moment."""

    place: Place
    tools: Mapping[str, Stored]
    """By the tool's name; without those that were never changed."""

    @property
    def revision(self) -> int:
        """Of the last change of any tool; 0: none yet."""
        return self.place.last

    def of(self, tool: str) -> Stored:
        return self.tools.get(tool, NOTHING_STORED)


NO_TOOLS = StoredTools(Place(), {})


def joined(place: Place, own: Mapping[str, Stored], instance: Mapping[str, Stored]) -> StoredTools:
    """Lay an owner's own rows over the instance's, read at the same moment."""
    tools = {}
    for tool in own.keys() | instance.keys():
        mine, below = own.get(tool, NOTHING_STORED), instance.get(tool, NOTHING_STORED)
        is_pending = below.revision > place.instance_taken
        revision = place.following(below.revision) if is_pending else mine.revision
        tools[tool] = Stored(mine.overrides, below.overrides, revision)
    return StoredTools(place, tools)


@dataclass(frozen=True, slots=True)
class Revision:
    """One change of one tool, the owner's own or one of the instance's."""

    revision: int
    tool: str
    change_time: datetime
    actor: str
    reason: str
    before: Mapping[str, Any] | None
    """The effective configuration before it, as JSON that shows no secret; None where the last two
    fields say what it is made of."""
    after: Mapping[str, Any] | None
    """After it; None as `before`."""
    overrides: Overrides
    """All of the tool's own, after it."""
    instance_overrides: Overrides | None
    """The instance's after it; None where an earlier release made the change."""
    instance_before: Overrides | None = None
    """The instance's before it."""
    previous_revision: int | None = None
    """Of the tool's last change before this one."""

    @property
    def stored(self) -> Stored:
        """What held after it."""
        return Stored(self.overrides, self.instance_overrides, self.revision)

    @property
    def stored_before(self) -> Stored:
        """What held before a change of the instance's."""
        return Stored(self.overrides, self.instance_before, self.previous_revision or 0)


Decide = Callable[[Stored, int], Revision | None]
"""Given what is stored of the tool, and the revision that a change would have: what to record, or
None for no change. May refuse by raising."""
