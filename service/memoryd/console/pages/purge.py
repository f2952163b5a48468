"""Purge memories of a session, after a look at which."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from memoryd.client import ContentType, MemorydError
from memoryd.console.pages.session import address
from memoryd.console.routes import Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response

    from memoryd.client import Filter
    from memoryd.console.visit import Visit

ENTRY = None
"""It is found by way of a session."""

TYPES = tuple(kind.value for kind in ContentType if kind is not ContentType.UNSPECIFIED)


@dataclass(frozen=True)
class Chosen:
    """Which memories, as the form has it."""

    types: list[str]
    tags: str
    """With commas between."""
    key_prefix: str
    before: str
    """A date, such as 2026-03-01."""

    @classmethod
    def of(cls, one: Callable[[str], str], every: Callable[[str], list[str]]) -> Chosen:
        types = [kind for kind in every("type") if kind in TYPES]
        return cls(types, one("tags").strip(), one("key_prefix").strip(), one("before").strip())

    @property
    def filter(self) -> Filter:
        """Raises ValueError for what is no date."""
        found: Filter = {}
        if self.types:
            found["content_types"] = [ContentType(kind) for kind in self.types]
        if tags := [tag.strip() for tag in self.tags.split(",") if tag.strip()]:
            found["tags_any"] = tags
        if self.key_prefix:
            found["key_prefix"] = self.key_prefix
        if self.before:
            found["created_before"] = datetime.strptime(self.before, "%Y-%m-%d").replace(tzinfo=UTC)
        return found


async def preview(visit: Visit) -> Response:
    chosen = Chosen.of(visit.asked, visit.request.query_params.getlist)
    return await _shown(visit, chosen, is_asked=bool(visit.asked("preview")))


async def purge(visit: Visit) -> Response:
    session_id = visit.parts["session_id"]
    chosen = Chosen.of(visit.given, visit.all_given)
    try:
        found = await visit.memories.purge(session_id, **chosen.filter)
        if str(found.purge_count) != visit.given("count"):
            return await _shown(
                visit, chosen, status=409, problem="What matches has changed since: look again."
            )
        done = await visit.memories.purge(session_id, force=True, **chosen.filter)
    except (MemorydError, ValueError) as error:
        return await _refused(visit, chosen, error)
    return await _shown(visit, chosen, is_asked=False, purged=done.purge_count)


async def _refused(visit: Visit, chosen: Chosen, error: MemorydError | ValueError) -> Response:
    if isinstance(error, MemorydError):
        status, problem = visit.status_of(error), error.message
    else:
        status, problem = 400, "A date is written as 2026-03-01."
    return await _shown(visit, chosen, is_asked=False, status=status, problem=problem)


async def _shown(
    visit: Visit,
    chosen: Chosen,
    *,
    is_asked: bool = True,
    status: int = 200,
    problem: str = "",
    purged: int | None = None,
) -> Response:
    session_id = visit.parts["session_id"]
    session = await visit.sessions.get(session_id)
    found = None
    if is_asked:
        try:
            found = await visit.memories.purge(session_id, **chosen.filter)
        except (MemorydError, ValueError) as error:
            return await _refused(visit, chosen, error)
    return visit.page(
        "purge.html",
        status=status,
        session=session,
        types=TYPES,
        chosen=chosen,
        found=found,
        problem=problem,
        purged=purged,
        address=address,
    )


ROUTES = (
    Route("GET", "/sessions/{session_id}/purge", preview),
    Route("POST", "/sessions/{session_id}/purge", purge),
)
