"""One memory: its text, how it fades, what is like it, and what it was before."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from memoryd.client import Memory, MemorydError, NotFound
from memoryd.client.answers import MemoryRevision
from memoryd.console.decay import Decay
from memoryd.console.neighbours import NEAR_BITS, Map
from memoryd.console.pages.session import address
from memoryd.console.routes import Route
from memoryd.console.versions import as_json, versions_of
from memoryd.v1.memory_pb2 import ListMemoryRevisionsRequest
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

if TYPE_CHECKING:
    from starlette.responses import Response

    from memoryd.client.answers import SimilarMemory
    from memoryd.console.visit import Visit

ENTRY = None
"""It is found by way of a session."""

NEIGHBOURS = 8
"""Of each kind."""
MOST_BITS = 24
"""Farther hashes are apart by chance alone."""
LEAST_SIMILARITY = 0.05
VERSIONS = 20


class Neighbours(NamedTuple):
    """What is like a memory."""

    found: list[SimilarMemory]
    problem: str = ""
    """Why nothing is found."""


async def memory(visit: Visit) -> Response:
    return await shown(visit)


async def shown(
    visit: Visit, *, status: int = 200, problem: str = "", done: str = "", draft: object = None
) -> Response:
    """The page; `draft`: what was written of a memory that has been deleted meanwhile."""
    found = await current(visit)
    made, older, next_page = await _versions(visit)
    by = "distance" if visit.asked("by") == "distance" else "similarity"
    neighbours = await _neighbours(visit, found, by)
    return visit.page(
        "memory.html",
        status=status,
        problem=problem,
        done=done or _DONE.get(visit.asked("done"), ""),
        memory=found,
        may_change=visit.may("memories:write") and found.delete_time is None,
        metadata=as_json(found.metadata),
        decay=Decay(
            found,
            now=visit.now,
            half_life_days=visit.half_life_days,
            threshold=await _threshold(visit),
        ),
        neighbours=neighbours,
        map=Map(neighbours.found),
        by=by,
        near_bits=NEAR_BITS,
        versions=versions_of(made, older),
        is_newest=not visit.asked("page"),
        next_page=next_page,
        draft=draft,
        address=address,
        here=address(found.session_id, "memories", found.memory_id),
    )


_DONE = {
    "saved": "Your change is saved.",
    "same": "Nothing was changed.",
    "deleted": "The memory is deleted. It can be undeleted until it is purged.",
    "undeleted": "The memory is back.",
    "back": "The memory is what it was in that version, as a new version.",
}


async def current(visit: Visit) -> Memory:
    """The memory as it is now, also a deleted one, which its last version tells of.

    Raises NotFound.
    """
    session_id, memory_id = visit.parts["session_id"], visit.parts["memory_id"]
    try:
        return await visit.memories.get(session_id, memory_id)
    except NotFound:
        request = ListMemoryRevisionsRequest(
            session_id=session_id, memory_id=memory_id, page_size=1
        )
        found = await visit.answer(MemoryServiceStub(visit.channel).ListMemoryRevisions, request)
        last = [Memory.from_proto(each.memory) for each in found.revisions]
        if not last or last[0].delete_time is None:
            raise
        return last[0]


async def _versions(visit: Visit) -> tuple[list[MemoryRevision], MemoryRevision | None, str]:
    """A page of versions, the one that comes after it, and where that page begins."""
    list_versions = MemoryServiceStub(visit.channel).ListMemoryRevisions
    request = ListMemoryRevisionsRequest(
        session_id=visit.parts["session_id"],
        memory_id=visit.parts["memory_id"],
        page_size=VERSIONS,
        page_token=visit.asked("page"),
    )
    found = await visit.answer(list_versions, request)
    made = [MemoryRevision.from_proto(each) for each in found.revisions]
    if not found.next_page_token:
        return made, None, ""
    request.page_size, request.page_token = 1, found.next_page_token
    older = await visit.answer(list_versions, request)
    first = [MemoryRevision.from_proto(each) for each in older.revisions]
    return made, first[0] if first else None, found.next_page_token


async def _threshold(visit: Visit) -> float | None:
    """Below it a memory is left out of retrieval without a query; None: not for this visitor."""
    if not visit.may("tools:read"):
        return None
    settings = (await visit.tools.get("memory")).memory
    return None if settings is None else settings.importance_threshold


async def _neighbours(visit: Visit, found: Memory, by: str) -> Neighbours:
    """The nearest by the distance of hashes, and the most similar to recall."""
    session_id = found.session_id
    # A deleted memory cannot be named, but its text can.
    named = found.memory_id if found.delete_time is None else None
    content = None if named else found.content
    try:
        near = await visit.memories.find_similar(
            session_id, content, memory_id=named, max_distance=MOST_BITS, limit=NEIGHBOURS
        )
        alike = await visit.memories.find_similar(
            session_id, content, memory_id=named, min_similarity=LEAST_SIMILARITY, limit=NEIGHBOURS
        )
    except MemorydError as error:
        return Neighbours([], error.message)
    union = {one.memory.memory_id: one for one in (*near.results, *alike.results)}
    if by == "distance":
        return Neighbours(sorted(union.values(), key=lambda one: one.distance or 0))
    return Neighbours(sorted(union.values(), key=lambda one: -(one.similarity or 0.0)))


async def delete(visit: Visit) -> Response:
    session_id, memory_id = visit.parts["session_id"], visit.parts["memory_id"]
    try:
        await visit.memories.delete(session_id, memory_id, etag=visit.given("etag"))
    except MemorydError as error:
        return await refused(visit, error)
    return visit.see(address(session_id, "memories", memory_id, done="deleted"))


async def undelete(visit: Visit) -> Response:
    session_id, memory_id = visit.parts["session_id"], visit.parts["memory_id"]
    try:
        await visit.memories.undelete(session_id, memory_id)
    except MemorydError as error:
        return await refused(visit, error)
    return visit.see(address(session_id, "memories", memory_id, done="undeleted"))


async def roll_back(visit: Visit) -> Response:
    session_id, memory_id = visit.parts["session_id"], visit.parts["memory_id"]
    text = visit.given("revision")
    revision = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0  # noqa: PLR2004  digits of 64 bits
    try:
        await visit.memories.rollback(session_id, memory_id, revision)
    except MemorydError as error:
        return await refused(visit, error)
    return visit.see(address(session_id, "memories", memory_id, done="back"))


async def refused(visit: Visit, error: MemorydError) -> Response:
    """The page as it is now, with what the service says of a change to it."""
    return await shown(visit, status=visit.status_of(error), problem=error.message)


ROUTES = (
    Route("GET", "/sessions/{session_id}/memories/{memory_id}", memory),
    Route("POST", "/sessions/{session_id}/memories/{memory_id}/delete", delete),
    Route("POST", "/sessions/{session_id}/memories/{memory_id}/undelete", undelete),
    Route("POST", "/sessions/{session_id}/memories/{memory_id}/roll-back", roll_back),
)
