"""`memoryd mcp`. It needs the extra `mcp` alone, and prints nothing but the protocol."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from memoryd.cli.place import Place


def serve(
    place: Place,
    session_id: str | None,
    *,
    session_argument: bool,
    read_only: bool,
    no_delete: bool,
) -> None:
    """Serve until standard input ends."""
    try:
        from memoryd.integrations import mcp
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] == "memoryd":
            raise
        _fail(f"the command needs {missing.name}: pip install 'memoryd[mcp]'")
    if session_id is None and not session_argument:
        _fail("whose memories? Give --session-id, or --session-argument to have each call say it")
    offer = mcp.Offer(read_only=read_only, no_delete=no_delete, names_session=session_argument)
    # As SIGTERM, SIGINT ends it at once: nothing is half done here, and what reads standard input
    # does not hear of it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        asyncio.run(mcp.serve(place.target, offer, session_id=session_id, tls=place.tls))
    except ValueError as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    raise SystemExit(f"memoryd: {message}")
