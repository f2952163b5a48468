"""Edit a memory, and see what somebody else has made of it meanwhile."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from memoryd.client import EtagMismatch, InvalidArgument, MemorydError, NotFound
from memoryd.client.arguments import struct
from memoryd.console.pages.memory import current, shown
from memoryd.console.pages.purge import TYPES
from memoryd.console.pages.session import address
from memoryd.console.routes import Route
from memoryd.console.versions import Piece, as_json, compared, exact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.responses import Response

    from memoryd.client import Memory
    from memoryd.console.visit import Visit

ENTRY = None
"""It is found by way of a memory."""

NAMES = {
    "content": "Text",
    "content_type": "Type",
    "importance": "Importance",
    "tags": "Tags",
    "metadata": "Metadata",
    "expire_time": "Expires",
}
"""Of the fields, for people."""


@dataclass(frozen=True)
class Draft:
    """A memory as its form has it: texts."""

    content: str
    content_type: str
    importance: str
    tags: str
    """One a line."""
    metadata: str
    """JSON; empty for none."""
    expire_time: str
    """UTC, such as 2026-03-01T12:00:00; empty for never."""

    @classmethod
    def of(cls, memory: Memory) -> Draft:
        return cls(
            content=_lines(memory.content),
            content_type=memory.content_type.value,
            importance=f"{memory.importance or 0.0:g}",
            tags="\n".join(memory.tags),
            metadata=as_json(memory.metadata),
            expire_time=exact(memory.expire_time),
        )

    @classmethod
    def given(cls, given: Callable[[str], str], prefix: str = "") -> Draft:
        """What was posted; `prefix`: of the names in the form."""
        found = {name: _lines(given(prefix + name)) for name in NAMES}
        with suppress(Unreadable):  # which is said once it is sent
            # Browsers leave out seconds that are 0.
            found["expire_time"] = exact(_time(found["expire_time"]))
        return cls(**found)

    def differing(self, other: Draft) -> list[str]:
        """The names of fields that differ."""
        return [name for name in NAMES if getattr(self, name) != getattr(other, name)]

    def taking(self, other: Draft, names: list[str]) -> Draft:
        """The same, but for these fields, which are the other's."""
        mine = {field.name: getattr(self, field.name) for field in fields(self)}
        return Draft(**(mine | {name: getattr(other, name) for name in names}))


def _lines(text: str) -> str:
    """Forms end lines by two characters, whatever they were given."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


class Unreadable(ValueError):
    """A field that says nothing that could be sent."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def _arguments(draft: Draft, names: list[str]) -> dict[str, Any]:
    """Of an update that changes these fields. Raises Unreadable."""
    found: dict[str, Any] = {}
    for name in names:
        text = getattr(draft, name)
        if name == "expire_time":
            found |= {"expire_time": _time(text)} if text.strip() else {"never_expires": True}
        else:
            found[name] = _READERS[name](text)
    return found


def _importance(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Unreadable("importance", "Give a number from 0 to 1, such as 0.7.") from None


def _type(text: str) -> str:
    if text not in TYPES:
        raise Unreadable("content_type", f"Choose one of {', '.join(TYPES)}.")
    return text


def _metadata(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise Unreadable("metadata", f"This is no JSON: {error}.") from None
    except RecursionError:
        raise Unreadable("metadata", "This is nested too deep.") from None
    if not isinstance(found, dict):
        raise Unreadable("metadata", 'Metadata is a JSON object, such as {"source": "chat"}.')
    try:
        struct("metadata", found)
    except ValueError as error:
        raise Unreadable("metadata", str(error)) from None
    return found


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip()).replace(tzinfo=UTC)
    except ValueError:
        raise Unreadable("expire_time", "A time is written as 2026-03-01T12:00:00.") from None


_READERS: Mapping[str, Callable[[str], Any]] = {
    "content": str,
    "content_type": _type,
    "importance": _importance,
    "tags": lambda text: [tag.strip() for tag in text.split("\n") if tag.strip()],
    "metadata": _metadata,
}


class Both(NamedTuple):
    """A field that two have changed at once, or one of them."""

    name: str
    theirs: str
    pieces: list[Piece]
    """Theirs, as it differs from what both began with."""
    mine: str
    by_them: bool
    by_me: bool

    @property
    def clashes(self) -> bool:
        return self.by_them and self.by_me and self.theirs != self.mine


async def edit(visit: Visit) -> Response:
    if not visit.may("memories:write"):
        return await shown(visit, status=403, problem="You may look at this memory, not change it.")
    memory = await current(visit)
    if memory.delete_time is not None:
        return await shown(visit, problem="A deleted memory cannot be edited: undelete it first.")
    return _form(visit, memory, Draft.of(memory))


async def save(visit: Visit) -> Response:
    session_id, memory_id = visit.parts["session_id"], visit.parts["memory_id"]
    began, mine = Draft.given(visit.given, "was_"), Draft.given(visit.given)
    # Of a race that was lost: what is to stay as the other has it.
    mine = mine.taking(began, [name for name in NAMES if visit.given(f"pick_{name}") == "theirs"])
    names = mine.differing(began)
    if not names:
        return visit.see(address(session_id, "memories", memory_id, done="same"))
    etag = visit.given("etag")
    try:
        arguments = _arguments(mine, names)
        await visit.memories.update(session_id, memory_id, etag=etag, **arguments)
    except EtagMismatch:
        return await _lost(visit, began, mine)
    except NotFound as error:
        return await shown(
            visit,
            status=visit.status_of(error),
            problem="The memory was deleted while you edited it. What you wrote is below.",
            draft=mine,
        )
    except (MemorydError, Unreadable) as error:
        return _refused(visit, began, mine, error)
    return visit.see(address(session_id, "memories", memory_id, done="saved"))


async def _lost(visit: Visit, began: Draft, mine: Draft) -> Response:
    """Theirs and mine side by side; what only one of us has changed stays changed."""
    memory = await current(visit)
    theirs = Draft.of(memory)
    by_them, by_me = theirs.differing(began), mine.differing(began)
    fields = [
        Both(
            name,
            getattr(theirs, name),
            compared(getattr(began, name), getattr(theirs, name)),
            getattr(mine, name),
            name in by_them,
            name in by_me,
        )
        for name in NAMES
        if name in by_them or name in by_me
    ]
    return visit.page(
        "memory_conflict.html",
        status=409,
        memory=memory,
        fields=fields,
        names=NAMES,
        types=TYPES,
        merged=mine.taking(theirs, [name for name in NAMES if name not in by_me]),
        theirs=theirs,
        etag=memory.etag,
        address=address,
        here=address(memory.session_id, "memories", memory.memory_id),
    )


def _refused(visit: Visit, began: Draft, mine: Draft, error: MemorydError | Unreadable) -> Response:
    """The form as it was posted, with what is wrong beside the field that it is about."""
    problems: dict[str, str] = {}
    status, message = 400, ""
    if isinstance(error, Unreadable):
        problems[error.field] = str(error)
    else:
        status, message = visit.status_of(error), error.message
        for violation in error.violations if isinstance(error, InvalidArgument) else ():
            name = violation.field.removeprefix("memory.").partition("[")[0].partition(".")[0]
            if name in NAMES:
                problems[name] = violation.description
    other = getattr(getattr(error, "resource", None), "name", "")
    return _form(
        visit,
        None,
        mine,
        began=began,
        status=status,
        problem="" if problems else message,
        problems=problems,
        other=other,
    )


def _form(
    visit: Visit,
    memory: Memory | None,
    draft: Draft,
    *,
    began: Draft | None = None,
    status: int = 200,
    problem: str = "",
    problems: Mapping[str, str] | None = None,
    other: str = "",
) -> Response:
    """`memory`: as it was read; None: the form says what was read."""
    session_id, memory_id = visit.parts["session_id"], visit.parts["memory_id"]
    return visit.page(
        "memory_edit.html",
        status=status,
        session_id=session_id,
        draft=draft,
        began=began or draft,
        etag=visit.given("etag") if memory is None else memory.etag,
        types=TYPES,
        problem=problem,
        problems=problems or {},
        other=other,
        address=address,
        here=address(session_id, "memories", memory_id),
    )


ROUTES = (
    Route("GET", "/sessions/{session_id}/memories/{memory_id}/edit", edit),
    Route("POST", "/sessions/{session_id}/memories/{memory_id}/edit", save),
)
