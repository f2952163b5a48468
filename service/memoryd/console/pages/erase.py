"""Erase a session, after a look at what would go, and give a receipt to keep."""

from __future__ import annotations

import base64
import hashlib
import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from memoryd.client import MemorydError
from memoryd.console.routes import Entry, Route

if TYPE_CHECKING:
    from starlette.responses import Response

    from memoryd.client import Session
    from memoryd.client.answers import EraseSessionResponse
    from memoryd.console.visit import Visit

ENTRY = Entry("Erase", "/erase")

ERASE_SECONDS = 600.0
"""How long an erasure may take: on SQLite it reads the whole file."""


async def preview(visit: Visit) -> Response:
    session_id = visit.asked("session_id").strip()
    if session_id and not visit.may("memories:erase"):
        return await _page(visit, session_id, status=HTTPStatus.FORBIDDEN)
    return await _page(visit, session_id, is_shown=bool(session_id))


async def erase(visit: Visit) -> Response:
    session_id = visit.given("session_id")
    if visit.given("typed").strip() != session_id:
        return await _page(
            visit, session_id, status=HTTPStatus.BAD_REQUEST, is_shown=True, is_mistyped=True
        )
    try:
        receipt = await visit.memories.erase(session_id, timeout=ERASE_SECONDS)
    except MemorydError as error:
        return await _page(
            visit, session_id, status=visit.status_of(error), problem=visit.message_of(error)
        )
    text = _text(visit, session_id, receipt)
    data = base64.b64encode(text.encode()).decode()
    name = receipt.receipt_id or hashlib.sha256(text.encode()).hexdigest()[:12]
    return visit.page(
        "receipt.html",
        session_id=session_id,
        receipt=receipt,
        rows=sorted((table, n) for table, n in receipt.erased_rows.items() if n),
        text=text,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        tenant=visit.who.tenant,
        # In the page itself, since the server keeps nothing of what it has erased.
        download=f"data:application/json;base64,{data}",
        file_name=f"erased-{name}.json",
    )


def _text(visit: Visit, session_id: str, receipt: EraseSessionResponse) -> str:
    """The receipt as JSON, with its names in order."""
    found = {
        "session_id": session_id,
        "tenant": visit.who.tenant,
        "erased_by": visit.who.principal,
        "erase_time": receipt.erase_time.isoformat() if receipt.erase_time else "",
        "receipt_id": receipt.receipt_id,
        "erased_memories": receipt.erased_memories,
        "erased_rows": dict(receipt.erased_rows),
    }
    return json.dumps(found, ensure_ascii=False, sort_keys=True, indent=2) + "\n"


async def _page(
    visit: Visit,
    session_id: str,
    *,
    status: int = 200,
    problem: str = "",
    is_shown: bool = False,
    is_mistyped: bool = False,
) -> Response:
    session: Session | None = None
    counts: list[tuple[str, int]] = []
    if is_shown:
        try:
            session = await visit.sessions.get(session_id)
            counts = await _counts(visit, session)
        except MemorydError as error:
            session, status, problem = None, visit.status_of(error), visit.message_of(error)
    return visit.page(
        "erase.html",
        status=status,
        session_id=session_id,
        session=session,
        counts=counts,
        problem=problem,
        is_mistyped=is_mistyped,
    )


async def _counts(visit: Visit, session: Session) -> list[tuple[str, int]]:
    """What a session has, by kind."""
    every = (await visit.memories.purge(session.session_id)).purge_count
    return [
        ("Memories", session.memory_count),
        ("Deleted or expired memories", max(every - session.memory_count, 0)),
        ("Documents", session.document_count),
        ("Conversations", session.conversation_count),
    ]


ROUTES = (
    Route("GET", "/erase", preview),
    Route("POST", "/erase", erase),
)
