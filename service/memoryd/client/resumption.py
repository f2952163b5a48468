"""When a watch that has broken goes on, and from where."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

from memoryd.client.credentials import CREDENTIAL_EXPIRED
from memoryd.client.errors import (
    Cancelled,
    DeadlineExceeded,
    Internal,
    MemorydError,
    ResourceExhausted,
    Unavailable,
)
from memoryd.v1.tool_config_pb2 import TOOL_CONFIG_CHANGE_SNAPSHOT, WatchToolConfigsResponse

FIRST_PAUSE_SECONDS = 0.2
"""Before a watch is opened again; twice as long after each failure in a row."""

LONGEST_PAUSE_SECONDS = 5.0

LASTING = 3
"""Failures in a row from which an outage is warned of."""

_PASSING = (Unavailable, Cancelled, ResourceExhausted)

_log = logging.getLogger(__name__)


class Resumption:
    """What a watch knows of its breaks. `request.start_revision` follows what has been read."""

    def __init__(self, request: Any, seconds: float | None, *, renews: bool) -> None:
        """`seconds`: for the watch as a whole; None: no limit.

        `renews`: whether the client has another credential after one that has expired.
        """
        self._request = request
        self._renews = renews
        self._clock = asyncio.get_running_loop().time
        self._end = None if seconds is None else self._clock() + seconds
        self._pause = FIRST_PAUSE_SECONDS
        self._failures = 0
        """In a row."""
        self._was_open = False

    def left(self) -> float | None:
        """The seconds that are left."""
        return None if self._end is None else self._end - self._clock()

    def opened(self) -> None:
        """The service has taken the watch."""
        self._was_open = True
        self._pause, self._failures = FIRST_PAUSE_SECONDS, 0

    def read(self, response: Any) -> None:
        is_snapshot = (
            isinstance(response, WatchToolConfigsResponse)
            and response.change == TOOL_CONFIG_CHANGE_SNAPSHOT
        )
        # A snapshot that breaks off comes again as a whole.
        if not is_snapshot:
            self._request.start_revision = response.revision

    async def after(self, error: MemorydError) -> None:
        """Pause before the watch is opened again. Raises the error where that would not help."""
        if not self._was_open or not self._is_passing(error):
            raise error
        pause = self._pause * random.uniform(0.8, 1.2)  # noqa: S311  no secret
        if error.retry_after is not None:
            pause = max(pause, error.retry_after.total_seconds())
        left = self.left()
        if left is not None and left <= pause:
            raise DeadlineExceeded(
                error.code, "the watch broke off, and its time is over"
            ) from error
        # A server that restarts, or ends what was idle, is back at once; say what lasts, once.
        self._failures += 1
        level = logging.WARNING if self._failures == LASTING else logging.INFO
        _log.log(level, "a watch broke off, and is tried again until it goes on: %s", error)
        await asyncio.sleep(pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def _is_passing(self, error: MemorydError) -> bool:
        if isinstance(error, Internal):
            return not error.reason  # a proxy's; the service names a reason
        if error.reason == CREDENTIAL_EXPIRED:
            return self._renews
        return isinstance(error, _PASSING)
