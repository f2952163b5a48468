"""The bench: ask recall, and see why it ranks as it does. Accesses are never counted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from memoryd.client import MemorydError, Session
from memoryd.client.answers import RetrieveMemoriesResponse
from memoryd.client.messages import memory_filter
from memoryd.console.copying import Place, as_curl, as_grpcurl, as_python
from memoryd.console.pages.purge import TYPES
from memoryd.console.pages.session import address
from memoryd.console.routes import Entry, Route
from memoryd.console.scores import PARTS, cards_of
from memoryd.v1.memory_pb2 import RetrieveMemoriesRequest
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub
from memoryd.v1.session_pb2 import ListSessionsRequest
from memoryd.v1.session_pb2_grpc import SessionServiceStub

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.responses import Response

    from memoryd.client.messages import Filter
    from memoryd.console.copying import Copied
    from memoryd.console.scores import Card
    from memoryd.console.visit import Visit

ENTRY = Entry("Recall", "/recall")

METHOD = "memoryd.v1.MemoryService/RetrieveMemories"
SUGGESTED = 50
MOST_SESSIONS = 17
"""One, and as many further ones as the service ranks together with it."""


@dataclass(frozen=True)
class Setting:
    """What is asked for besides the query, as the form has it."""

    prefix: str
    """Of the names in the form: empty for the first setting, `b_` for the second."""
    types: list[str]
    tags: str
    min_relevance: str
    importance_weight: str
    limit: str
    keeps_repeats: bool

    @classmethod
    def of(cls, visit: Visit, prefix: str) -> Setting:
        types = visit.request.query_params.getlist(f"{prefix}type")
        return cls(
            prefix=prefix,
            types=[kind for kind in types if kind in TYPES],
            tags=visit.asked(f"{prefix}tags").strip(),
            min_relevance=visit.asked(f"{prefix}min_relevance").strip(),
            importance_weight=visit.asked(f"{prefix}importance_weight").strip(),
            limit=visit.asked(f"{prefix}limit").strip(),
            keeps_repeats=bool(visit.asked(f"{prefix}repeats")),
        )

    @property
    def is_given(self) -> bool:
        """Whether anything is other than where nothing is said."""
        return self != Setting(self.prefix, [], "", "", "", "", keeps_repeats=False)

    def arguments(self) -> dict[str, Any]:
        """Of the client's `retrieve`. Raises ValueError for what is no number."""
        found: dict[str, Any] = {}
        if self.limit:
            found["limit"] = _number(int, "The limit", self.limit)
        if self.min_relevance:
            found["min_relevance"] = _number(float, "The least relevance", self.min_relevance)
        if self.importance_weight:
            weight = _number(float, "The weight of importance", self.importance_weight)
            found["importance_weight"] = weight
        if self.keeps_repeats:
            found["diversify"] = False
        if self.types:
            found["content_types"] = list(self.types)
        if tags := [tag.strip() for tag in self.tags.split(",") if tag.strip()]:
            found["tags_any"] = tags
        return found


def _number(kind: type[int | float], name: str, text: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"{name} is a number, not “{text}”.") from None
    if abs(value) > 2**31 - 1:
        raise ValueError(f"{name} is a number, and not so large a one.")
    return value


@dataclass(frozen=True)
class Asked:
    """A setting, and what came of it."""

    setting: Setting
    answer: RetrieveMemoriesResponse | None = None
    cards: Sequence[Card] = ()
    copied: Sequence[Copied] = ()
    problem: str = ""
    status: int = 200


async def recall(visit: Visit) -> Response:
    query = visit.asked("query").strip()
    named, is_prefix = visit.asked("session").strip(), bool(visit.asked("prefix"))
    has_two = bool(visit.asked("two"))
    settings = [Setting.of(visit, prefix) for prefix in (("", "b_") if has_two else ("",))]
    try:
        sessions, has_more = await _sessions(visit, named, is_prefix=is_prefix)
        asked = [await _ask(visit, sessions, query, setting) for setting in settings]
        others = [*asked[1:], asked[0]] if has_two else [None]
        asked = [_ranked(one, other) for one, other in zip(asked, others, strict=True)]
        suggested = [one.session_id for one in await _listed(visit, "", SUGGESTED)]
    except MemorydError as error:
        sessions, has_more, suggested = [], False, []
        problem, status = visit.message_of(error), visit.status_of(error)
        asked = [Asked(one, problem=problem, status=status) for one in settings]
    return visit.page(
        "recall.html",
        status=max(one.status for one in asked),
        query=query,
        named=named,
        is_prefix=is_prefix,
        has_two=has_two,
        asked=asked,
        sessions=sessions,
        has_more=has_more,
        suggested=suggested,
        types=TYPES,
        parts=PARTS,
        address=address,
    )


async def _listed(visit: Visit, prefix: str, most: int) -> list[Session]:
    request = ListSessionsRequest(session_id_prefix=prefix, page_size=most)
    found = await visit.answer(SessionServiceStub(visit.channel).ListSessions, request)
    return [Session.from_proto(each) for each in found.sessions]


async def _sessions(visit: Visit, named: str, *, is_prefix: bool) -> tuple[list[str], bool]:
    """Which sessions to ask, and whether there are more that begin so."""
    if not is_prefix:
        return ([named] if named else []), False
    found = [one.session_id for one in await _listed(visit, named, MOST_SESSIONS + 1)]
    return found[:MOST_SESSIONS], len(found) > MOST_SESSIONS


async def _ask(visit: Visit, sessions: list[str], query: str, setting: Setting) -> Asked:
    if not sessions:
        return Asked(setting)
    try:
        named = {"peek": True, **setting.arguments()}
        further = {"session_ids": sessions[1:]} if sessions[1:] else {}
        request = _request(sessions, query, named)
        found = await visit.answer(MemoryServiceStub(visit.channel).RetrieveMemories, request)
    except MemorydError as error:
        problem, status = visit.message_of(error), visit.status_of(error)
        return Asked(setting, problem=problem, status=status)
    except ValueError as error:
        return Asked(setting, problem=str(error), status=400)
    place = _place(visit)
    positional = [sessions[0], query] if query else [sessions[0]]
    return Asked(
        setting,
        RetrieveMemoriesResponse.from_proto(found),
        copied=[
            as_grpcurl(place, METHOD, request),
            as_curl(place, METHOD, request),
            as_python(place, positional, {**further, **named}),
        ],
    )


def _request(sessions: list[str], query: str, named: dict[str, Any]) -> RetrieveMemoriesRequest:
    rest = dict(named)
    which: Filter = {}
    if types := rest.pop("content_types", None):
        which["content_types"] = types
    if tags := rest.pop("tags_any", None):
        which["tags_any"] = tags
    request = RetrieveMemoriesRequest(
        session_id=sessions[0], session_ids=sessions[1:], query=query, **rest
    )
    if which:
        request.filter.CopyFrom(memory_filter(which))
    return request


def _place(visit: Visit) -> Place:
    url = visit.request.url
    host = url.hostname or "localhost"
    return Place(
        f"[{host}]" if ":" in host else host,
        visit.grpc_port,
        f"{url.scheme}://{url.netloc}",
        visit.who.method != "off",
    )


def _ranked(asked: Asked, other: Asked | None) -> Asked:
    """With cards, which say where the other setting has the same memory."""
    if asked.answer is None:
        return asked
    found = other.answer.results if other is not None and other.answer is not None else ()
    ranks = {result.memory.memory_id: rank for rank, result in enumerate(found, 1)}
    return replace(asked, cards=cards_of(asked.answer.results, ranks))


ROUTES = (Route("GET", "/recall", recall),)
