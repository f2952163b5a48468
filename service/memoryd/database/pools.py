"""Pools of connections: of a driver that waits on the event loop, and of one that blocks a thread.

A body is a plain function of a `Connection` for either. On the event loop it yields at each
statement; in a thread it runs from end to end, so that a transaction costs one change of threads.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from sqlalchemy import create_engine, event
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import greenlet_spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection
    from sqlalchemy.engine import URL
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

T = TypeVar("T")

_CLOSE_TIMEOUT_SECONDS = 2.0
"""How long the database may take to part from its idle connections."""

_OPENED = "opened"
"""Where a pool's record keeps when its connection was opened, by `time.monotonic`."""


class Pool(Protocol):
    @property
    def in_use(self) -> int:
        """Connections that are checked out."""
        ...

    @property
    def idle(self) -> int:
        """Connections that are open and not checked out."""
        ...

    async def run(self, body: Callable[[Connection], T]) -> T:
        """Give a body a connection; if this is cancelled, what it was doing is given up."""
        ...

    def renew(self) -> None:
        """Use no connection again that is open now."""
        ...

    async def close(self) -> None:
        """Close the idle connections; nothing is under way any more."""
        ...


class AsyncPool:
    """Of a driver that waits on the event loop."""

    def __init__(
        self,
        url: URL,
        *,
        on_connect: Callable[[DBAPIConnection], None],
        is_lost: Callable[[BaseException], bool],
        is_stale: Callable[[BaseException], bool],
        before_execution: Callable[..., tuple[str, Any]],
        **options: Any,
    ) -> None:
        """Say by which errors a connection that is still open must not be used again.

        `is_lost` is about that connection alone. `is_stale` is about each that is as old: they hold
        statements that were prepared for an earlier schema. `before_execution` is what
        SQLAlchemy's event `before_cursor_execute` calls, and gives what is sent.
        """
        self._is_lost = is_lost
        self._is_stale = is_stale
        self._stale_before = 0.0
        """Connections that were opened earlier are replaced when they are next checked out."""
        self._lost_before = 0.0
        """So are these, without a word to a server that may be silent."""
        self._engine = create_async_engine(url, **options)

        def opened(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
            record.info[_OPENED] = time.monotonic()
            on_connect(connection)

        event.listen(self._engine.sync_engine, "connect", opened)
        event.listen(self._engine.sync_engine, "checkout", self._refuse_useless)
        event.listen(
            self._engine.sync_engine, "before_cursor_execute", before_execution, retval=True
        )

    @property
    def in_use(self) -> int:
        return cast("QueuePool", self._engine.sync_engine.pool).checkedout()

    @property
    def idle(self) -> int:
        return cast("QueuePool", self._engine.sync_engine.pool).checkedin()

    async def run(self, body: Callable[[Connection], T]) -> T:
        def work() -> T:
            with self._engine.sync_engine.connect() as connection:
                try:
                    return body(connection)
                except BaseException as error:
                    is_stale = self._is_stale(error)
                    if is_stale and connection.info[_OPENED] >= self._stale_before:
                        self._stale_before = time.monotonic()
                    # One that was cut short may have an open transaction, and all that followed
                    # would be part of it.
                    if is_stale or not isinstance(error, Exception) or self._is_lost(error):
                        connection.invalidate(error)
                    raise

        # One greenlet from end to end; AsyncConnection has one for each step.
        return await greenlet_spawn(work)

    def renew(self) -> None:
        self._lost_before = time.monotonic()

    async def close(self) -> None:
        """Close the idle connections, or cut them if the database is silent."""
        limit = _CLOSE_TIMEOUT_SECONDS
        while True:
            try:
                async with asyncio.timeout(limit):
                    return await self._engine.dispose()
            except TimeoutError:
                limit = 0.05  # one was cut; the others are not waited for again

    def _refuse_useless(self, connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
        """Give out no connection that the database has ended, nor one that `run` may not use.

        The driver hears of an end at once. Asking the database each time would cost a round trip,
        and say no more of a network that has fallen silent.
        """
        if connection.driver_connection.is_closed():
            raise InvalidatePoolError("closed by the database")
        if record.info[_OPENED] < self._lost_before:
            connection.driver_connection.terminate()
            raise DisconnectionError("the database was away since")
        if record.info[_OPENED] < self._stale_before:
            raise DisconnectionError("prepared for an earlier schema")


class ThreadedPool:
    """Of a driver that blocks: as many threads as connections."""

    def __init__(
        self,
        url: URL,
        *,
        on_connect: Callable[[DBAPIConnection], None],
        pool_size: int,
        **options: Any,
    ) -> None:
        self._engine = create_engine(url, pool_size=pool_size, **options)
        event.listen(self._engine, "connect", lambda c, _record: on_connect(c))
        self._threads = ThreadPoolExecutor(pool_size, thread_name_prefix="database")

    @property
    def in_use(self) -> int:
        return cast("QueuePool", self._engine.pool).checkedout()

    @property
    def idle(self) -> int:
        return cast("QueuePool", self._engine.pool).checkedin()

    async def run(self, body: Callable[[Connection], T]) -> T:
        statement = _Interruptible()

        def work() -> T:
            with self._engine.connect() as connection, statement.on(connection):
                return body(connection)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except asyncio.CancelledError:
            statement.interrupt()
            raise

    def renew(self) -> None:
        """Do nothing: a file is never replaced by another."""

    async def close(self) -> None:
        """Close the idle connections; the last one empties the log, which takes its time."""
        await asyncio.to_thread(self._engine.dispose)
        self._threads.shutdown(wait=False)


class _Interruptible:
    """What a thread is doing on a connection, to be ended from another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._driver: Any = None
        self._interrupted = False

    @contextmanager
    def on(self, connection: Connection) -> Iterator[None]:
        """Let statements on the connection be interrupted, up to the end of the block."""
        with self._lock:
            if self._interrupted:
                raise InterruptedError
            self._driver = connection.connection.driver_connection
        try:
            yield
        finally:
            with self._lock:  # from here on it is another's
                self._driver = None

    def interrupt(self) -> None:
        with self._lock:
            self._interrupted = True
            if self._driver is not None:
                self._driver.interrupt()
