"""Health: serving only while the schema fits and the database answers."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2

from memoryd.database.backoff import BackOff
from memoryd.domain.audit import Audited
from memoryd.domain.errors import MemorydError, ServiceNotFound, ShuttingDown
from memoryd.rpc.access import Anyone
from memoryd.rpc.methods import Method, as_it_is, is_any
from memoryd.rpc.pipeline import Handler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from memoryd.rpc.call import Call, WireCall

CHECK_SECONDS = 0.5
"""Between two looks at a database that answers."""

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 1.0
"""Between two looks at one that does not: it is found again within two seconds."""

_log = logging.getLogger(__name__)
_Answer = health_pb2.HealthCheckResponse


async def _not_health(context: WireCall) -> None:
    await context.abort(
        grpc.StatusCode.UNIMPLEMENTED,
        "this port answers grpc.health.v1 alone; call the service on its own port",
    )


NOT_HEALTH = Handler(_not_health, answers_once=True)
"""Serves every other method of a port for probes; with or without a credential."""


class HealthMonitor:
    """Looks at the database again and again, and answers `grpc.health.v1` by what it saw.

    `look` returns if all is well, and raises MemorydError with the reason otherwise. All services
    share one state, since they share one database.
    """

    def __init__(self, look: Callable[[], Awaitable[None]], services: Sequence[str]) -> None:
        self.is_serving = asyncio.Event()
        """Set while all is well; not before the first look."""
        self._look = look
        self._services = frozenset(("", *services))
        self._problem: str | None = ""
        self._stopping = False
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look once, then go on looking in the background."""
        await self._look_once()
        self._task = asyncio.create_task(self._watch(), name="health")

    async def stop(self) -> None:
        """Report from now on that the service does not serve, and end the watches."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._stopping = True
        self.is_serving.clear()
        self._tell()

    @property
    def problem(self) -> str | None:
        """Why the service does not serve; None: it does."""
        if self.is_serving.is_set():
            return None
        return "the server stops" if self._stopping else self._problem or "the server starts"

    @property
    def database_is_up(self) -> bool:
        """Whether all was well at the last look, also while the server stops."""
        return self._problem is None

    def methods(self) -> Mapping[str, Method[Any]]:
        """The table of `grpc.health.v1.Health`."""
        return {
            "Check": Method(as_it_is, self.check, Anyone.UNKNOWN, Audited.NEVER, is_plain=is_any),
            "List": Method(as_it_is, self.list_all, Anyone.KNOWN, Audited.NEVER, is_plain=is_any),
            "Watch": Method(as_it_is, self.watch, Anyone.KNOWN, Audited.NEVER, is_plain=is_any),
        }

    async def check(
        self, request: health_pb2.HealthCheckRequest, call: Call
    ) -> health_pb2.HealthCheckResponse:
        del call
        if request.service not in self._services:
            raise ServiceNotFound(request.service)
        return _Answer(status=self._status())

    async def list_all(self, request: Any, call: Call) -> Any:
        del request, call
        status = _Answer(status=self._status())
        statuses = dict.fromkeys(self._services, status)
        return health_pb2.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined]  # newer than its types

    async def watch(
        self, request: health_pb2.HealthCheckRequest, call: Call
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        del call
        known = request.service in self._services
        reported = None
        while True:
            changed = self._changed  # before the status is read, so that no change is missed
            status = self._status() if known else _Answer.SERVICE_UNKNOWN
            if status != reported:
                yield _Answer(status=status)
                reported = status
            if self._stopping:
                raise ShuttingDown
            await changed.wait()

    def _status(self) -> int:
        return _Answer.SERVING if self.is_serving.is_set() else _Answer.NOT_SERVING

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _watch(self) -> None:
        back_off = BackOff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        while True:
            if self.is_serving.is_set():
                back_off.reset()
                pause = CHECK_SECONDS
            else:
                pause = back_off.pause()
            await asyncio.sleep(pause)
            await self._look_once()

    async def _look_once(self) -> None:
        problem = None
        try:
            await self._look()
        except MemorydError as error:
            problem = error.for_operator
        except Exception as error:  # noqa: BLE001  a monitor that died would tell its last state for ever
            problem = f"the database cannot be checked: {type(error).__name__}"
            if problem != self._problem:
                _log.error("unhandled exception while looking at the database", exc_info=error)
        if problem == self._problem:
            return
        self._problem = problem
        if problem is None:
            _log.info("serving")
            self.is_serving.set()
        else:
            _log.warning("not serving: %s", problem)
            self.is_serving.clear()
        self._tell()
