"""What callers have in common that make one call after the other and repeat what is in doubt."""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import Any

import grpc

from .harness import CALL_SECONDS, PAUSE_SECONDS, TIMEOUT_SECONDS
from .history import History, Kind
from .journals import Notes
from .promises import IN_DOUBT, Broken

REPEATED = 0.2
"""The share of answered writes that are made again with their `request_id`."""

REPEATED_CODES = IN_DOUBT | {"RESOURCE_EXHAUSTED"}
"""Codes after which a call is made again. After the last one nothing was done, since the server is
too busy: as it may be on a busy machine, with many callers, right after its start."""


class Caller:
    """Makes random calls; what is in doubt it repeats, or looks up."""

    def __init__(self, notes: Notes, stub: object, history: History, kind: Kind) -> None:
        """`notes` are those that it takes; `kind` is what its calls are about."""
        self._notes = notes
        self._session_id = notes.session_id
        self._stub = stub
        self._history = history
        self._kind: Kind = kind
        self._random = random.Random(f"{notes.caller} in {notes.session_id}")  # noqa: S311  no secret

    async def attempt(self, method: str, request: Any, *, done: str = "") -> Any:
        """The answer, of a stream a list; or the code of the refusal; None where to call again.

        `done`: the code that says that an earlier attempt was made. It is not recorded.
        """
        try:
            call = getattr(self._stub, method)(request, timeout=CALL_SECONDS)
            answer = [one async for one in call] if hasattr(call, "__aiter__") else await call
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            if code == done:
                return code
            self._history.end_of(self._kind, error)
            if code not in REPEATED_CODES:
                return code
            await asyncio.sleep(PAUSE_SECONDS)
            return None
        self._history.end_of(self._kind, None)
        return answer

    async def answer(self, method: str, request: Any, *, done: str = "") -> Any:
        """As `attempt`, again and again until there is one."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while (answer := await self.attempt(method, request, done=done)) is None:
                pass
        return answer

    async def _repeat(self, method: str, request: Any, answer: Any) -> None:
        """Now and then make a call again, as a client does that did not get its answer."""
        if self._random.random() < REPEATED:
            again = await self.answer(method, request)
            self._notes.compare(f"{method} again", again, answer, kind=Broken.DOUBLED)

    def _request_id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))
