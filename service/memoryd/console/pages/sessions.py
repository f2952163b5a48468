"""All sessions: which there are, what they hold, and when they last changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memoryd.client import InvalidArgument, Session
from memoryd.console.routes import Entry, Route
from memoryd.v1.session_pb2 import ListSessionsRequest, ListSessionsResponse
from memoryd.v1.session_pb2_grpc import SessionServiceStub

if TYPE_CHECKING:
    from starlette.responses import Response

    from memoryd.console.visit import Visit

ENTRY = Entry("Sessions", "/")

PAGE_SIZE = 50


async def sessions(visit: Visit) -> Response:
    prefix = visit.asked("prefix").strip()
    request = ListSessionsRequest(
        session_id_prefix=prefix, page_size=PAGE_SIZE, page_token=visit.asked("page")
    )
    problem, status = "", 200
    try:
        found = await visit.answer(SessionServiceStub(visit.channel).ListSessions, request)
    except InvalidArgument as error:
        found = ListSessionsResponse()
        problem, status = error.message, visit.status_of(error)
    return visit.page(
        "sessions.html",
        status=status,
        problem=problem,
        prefix=prefix,
        sessions=[Session.from_proto(each) for each in found.sessions],
        next_page=found.next_page_token,
        is_first=not visit.asked("page"),
    )


ROUTES = (Route("GET", "/", sessions),)
