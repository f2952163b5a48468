"""One session: what it holds, live, and what was deleted."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlencode

import grpc.aio
from markupsafe import escape

from memoryd.client import (
    Conversation,
    Document,
    Memory,
    MemorydError,
    Message,
    NotFound,
    OutOfRange,
)
from memoryd.client.errors import error_from
from memoryd.console.events import EventStream, event
from memoryd.console.routes import Route
from memoryd.v1 import conversation_pb2, document_pb2, memory_pb2
from memoryd.v1.conversation_pb2_grpc import ConversationServiceStub
from memoryd.v1.document_pb2_grpc import DocumentServiceStub
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from typing import Any

    from starlette.responses import Response

    from memoryd.console.visit import Visit

ENTRY = None
"""It is found by way of the sessions."""

PAGE_SIZE = 50
MESSAGES_PAGE_SIZE = 200
PAGES_LOOKED_AT = 10
"""Of 1,000 memories, for deleted ones, before one has to ask to look further."""


_REVISION = re.compile(r"[0-9]{1,18}", re.ASCII)


class _Shown(NamedTuple):
    """A kind of what a session holds."""

    name: str
    scope: str
    """What one needs to see it."""


_SHOWN = {
    "memories": _Shown("Memories", "memories:read"),
    "deleted": _Shown("Deleted", "memories:read"),
    "conversations": _Shown("Conversations", "conversations:read"),
    "documents": _Shown("Documents", "documents:read"),
}


def address(session_id: str, *more: str, **query: str) -> str:
    """The path of a session, or of something in it."""
    path = "/".join(("/sessions", *(quote(part, safe="") for part in (session_id, *more))))
    return f"{path}?{urlencode(query)}" if query else path


def _document_address(found: Document) -> str:
    query = [("key", found.key), *(("namespace", part) for part in found.namespace)]
    return f"{address(found.session_id, 'document')}?{urlencode(query)}"


async def session(visit: Visit) -> Response:
    return await _page(visit)


async def _page(visit: Visit, *, status: int = 200, problem: str = "") -> Response:
    session_id = visit.parts["session_id"]
    kind = visit.asked("show", "memories")
    tabs = {name: shown for name, shown in _SHOWN.items() if visit.may(shown.scope)}
    if kind not in tabs:
        kind = next(iter(tabs), "memories")
    found = await visit.sessions.get(session_id)
    items, next_page = await _LISTINGS[kind](visit, session_id)
    return visit.page(
        "session.html",
        status=status,
        session=found,
        kind=kind,
        tabs=tabs,
        items=items,
        next_page=next_page,
        is_first=not visit.asked("page"),
        address=address,
        document_address=_document_address,
        problem=problem,
    )


async def _memories(visit: Visit, session_id: str) -> tuple[list[Memory], str]:
    found = await visit.memories.list_page(
        session_id, page_size=PAGE_SIZE, page_token=visit.asked("page")
    )
    return list(found.memories), found.next_page_token


async def _deleted(visit: Visit, session_id: str) -> tuple[list[Memory], str]:
    """Those among a page of all memories, the first one that has any."""
    token = visit.asked("page")
    for _ in range(PAGES_LOOKED_AT):
        found = await visit.memories.list_page(
            session_id, show_deleted=True, page_size=1000, page_token=token
        )
        deleted = [memory for memory in found.memories if memory.delete_time is not None]
        token = found.next_page_token
        if deleted or not token:
            return deleted, token
    return [], token


async def _conversations(visit: Visit, session_id: str) -> tuple[list[Conversation], str]:
    request = conversation_pb2.ListConversationsRequest(
        session_id=session_id, page_size=PAGE_SIZE, page_token=visit.asked("page")
    )
    found = await visit.answer(ConversationServiceStub(visit.channel).ListConversations, request)
    return [Conversation.from_proto(each) for each in found.conversations], found.next_page_token


async def _documents(visit: Visit, session_id: str) -> tuple[list[Document], str]:
    request = document_pb2.ListDocumentsRequest(
        session_id=session_id,
        view=document_pb2.DOCUMENT_VIEW_BASIC,
        page_size=PAGE_SIZE,
        page_token=visit.asked("page"),
    )
    found = await visit.answer(DocumentServiceStub(visit.channel).ListDocuments, request)
    return [Document.from_proto(each) for each in found.documents], found.next_page_token


_LISTINGS: dict[str, Callable[[Visit, str], Any]] = {
    "memories": _memories,
    "deleted": _deleted,
    "conversations": _conversations,
    "documents": _documents,
}


async def undelete(visit: Visit) -> Response:
    session_id = visit.parts["session_id"]
    try:
        await visit.memories.undelete(session_id, visit.given("memory_id"))
    except MemorydError as error:
        return await _page(visit, status=visit.status_of(error), problem=error.message)
    return visit.see(address(session_id, show="deleted"))


async def conversation(visit: Visit) -> Response:
    session_id, conversation_id = visit.parts["session_id"], visit.parts["conversation_id"]
    found = await visit.conversations.get(session_id, conversation_id)
    request = conversation_pb2.ListMessagesRequest(
        session_id=session_id,
        conversation_id=conversation_id,
        page_size=MESSAGES_PAGE_SIZE,
        page_token=visit.asked("page"),
    )
    page = await visit.answer(ConversationServiceStub(visit.channel).ListMessages, request)
    return visit.page(
        "conversation.html",
        conversation=found,
        messages=[Message.from_proto(each) for each in page.messages],
        next_page=page.next_page_token,
        address=address,
    )


async def document(visit: Visit) -> Response:
    """Its namespace may have any text in it, so it is in the query."""
    session_id = visit.parts["session_id"]
    namespace = visit.request.query_params.getlist("namespace")
    found = await visit.documents.get(session_id, visit.asked("key"), namespace=namespace)
    return visit.page("document.html", document=found, body=_body(found), address=address)


def _body(found: Document) -> str:
    """What it holds, as text."""
    if found.json is not None:
        return _indented(found.json)
    if found.text is not None:
        return found.text
    return base64.b64encode(found.data or b"").decode()


def _indented(text: str) -> str:
    """JSON in lines, if that changes nothing but white space; else as it is."""
    try:
        parsed = json.loads(text)
        for separators in ((",", ":"), (", ", ": ")):
            if json.dumps(parsed, separators=separators, ensure_ascii=False) == text:
                return json.dumps(parsed, indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        pass
    return text


class _Watched(NamedTuple):
    """How changes of a kind are watched."""

    stub: Callable[[Any], Any]
    method: str
    request: Callable[..., Any]
    word: str


_MEMORIES = _Watched(
    MemoryServiceStub, "WatchMemories", memory_pb2.WatchMemoriesRequest, "A memory"
)
_WATCHED = {
    "memories": _MEMORIES,
    "deleted": _MEMORIES,
    "conversations": _Watched(
        ConversationServiceStub,
        "WatchConversations",
        conversation_pb2.WatchConversationsRequest,
        "A conversation",
    ),
    "documents": _Watched(
        DocumentServiceStub, "WatchDocuments", document_pb2.WatchDocumentsRequest, "A document"
    ),
}


async def events(visit: Visit) -> Response:
    """What changes after a revision, for a page to load again what it shows."""
    session_id = visit.parts["session_id"]
    watched = _WATCHED.get(visit.asked("of"), _MEMORIES)
    seen = visit.request.headers.get("last-event-id", "") or visit.asked("after")
    after = int(seen) if _REVISION.fullmatch(seen) else 0
    # Refused before the stream begins, where the session is not there.
    await visit.sessions.get(session_id)
    return EventStream(_changes(visit, watched, session_id, after))


async def _changes(
    visit: Visit, watched: _Watched, session_id: str, after: int
) -> AsyncGenerator[str, None]:
    """The browser connects again where the stream ends, so nothing is watched again here."""
    yield event("said", "Live")
    request = watched.request(session_id=session_id, start_revision=after)
    call = getattr(watched.stub(visit.channel), watched.method)(request)
    try:
        async for change in call:
            name = _name_of(change)
            yield event("said", f"{watched.word} {name}", position=change.revision)
            yield event("changed", name, position=change.revision)
    except grpc.aio.AioRpcError as refusal:
        error = error_from(refusal)
        yield event("said", f"Not live: {escape(error.message)}")
        if isinstance(error, OutOfRange):  # what changed is no longer kept; the page looks anew
            yield event("changed", "", position=await _revision(visit, session_id))
    finally:
        call.cancel()


async def _revision(visit: Visit, session_id: str) -> int | None:
    """Where to go on from; None: the session is gone."""
    try:
        return (await visit.sessions.get(session_id)).revision
    except NotFound:
        return None


def _name_of(change: Any) -> str:
    """What has happened, in a word: `created`."""
    field = type(change).DESCRIPTOR.fields_by_name["change"]
    name: str = field.enum_type.values_by_number[change.change].name
    return f"was {name.rpartition('_')[2].lower()}"


ROUTES = (
    Route("GET", "/sessions/{session_id}", session),
    Route("GET", "/sessions/{session_id}/events", events),
    Route("POST", "/sessions/{session_id}/undelete", undelete),
    Route("GET", "/sessions/{session_id}/conversations/{conversation_id}", conversation),
    Route("GET", "/sessions/{session_id}/document", document),
)
