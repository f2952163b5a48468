"""Streams that answers go out on, which end where their callers may no longer have them."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from memoryd.domain.errors import MemorydError, QuotaExceeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from memoryd.domain.principals import Principal, Scope
    from memoryd.rpc.access import Anyone

T = TypeVar("T")

CHECK_SECONDS = 1.0
"""Between two looks at what callers of streams may still do."""


class Late(Exception):
    """Something on a stream took longer than it may."""


class OpenStream:
    """One stream."""

    def __init__(self, principal: Principal, needs: Scope | Anyone) -> None:
        self.principal = principal
        self.needs = needs
        self._timeout: asyncio.Timeout | None = None
        self.refusal: MemorydError | None = None
        """Given to `end`."""

    async def within(self, seconds: float, work: Awaitable[T]) -> T:
        """Do a part of the work. Raises Late, and what `end` was given."""
        try:
            async with asyncio.timeout(0 if self.refusal else seconds) as self._timeout:
                return await work
        except TimeoutError:
            if self._timeout is None or not self._timeout.expired():
                raise
            if self.refusal is not None:
                raise self.refusal from None
            raise Late from None
        finally:
            self._timeout = None

    def end(self, error: MemorydError) -> None:
        """Interrupt the work, also that to come, with an error."""
        if self.refusal is None:
            self.refusal = error
            if self._timeout is not None:
                self._timeout.reschedule(asyncio.get_running_loop().time())


class OpenStreams:
    """Those under way."""

    def __init__(
        self,
        check: Callable[[Principal, Scope | Anyone], None],
        limit: Callable[[Principal], int],
    ) -> None:
        """`check` raises MemorydError where a principal may no longer do what it once could.

        `limit` gives how many streams its tenant may have; 0: as many as it likes.
        """
        self._check = check
        self._limit = limit
        self._count: Counter[str] = Counter()
        """By tenant."""
        self.by_method: Counter[str] = Counter()
        """How many are under way of each method that has had any."""
        self._open: set[OpenStream] = set()
        self._checking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look at them again and again."""
        self._checking = asyncio.create_task(self._check_all(), name="streams of callers")

    async def aclose(self) -> None:
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)

    def count(self, tenant: str) -> int:
        """How many streams of a tenant are under way."""
        return self._count[tenant]

    @contextmanager
    def opened(
        self, principal: Principal, needs: Scope | Anyone, method: str
    ) -> Iterator[OpenStream]:
        """Hold a stream. Raises QuotaExceeded where its tenant has as many as it may."""
        tenant, limit = principal.tenant, self._limit(principal)
        if limit and self._count[tenant] >= limit:
            raise QuotaExceeded(tenant, "streams", limit)
        stream = OpenStream(principal, needs)
        self._open.add(stream)
        self._count[tenant] += 1
        self.by_method[method] += 1
        try:
            yield stream
        finally:
            self._open.discard(stream)
            self.by_method[method] -= 1
            self._count[tenant] -= 1
            if not self._count[tenant]:
                del self._count[tenant]

    async def _check_all(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for stream in [*self._open]:
                try:
                    self._check(stream.principal, stream.needs)
                except MemorydError as error:
                    stream.end(error)
