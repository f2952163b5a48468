"""The key sets of issuers, kept up to date without blocking the event loop."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from memoryd.access.http_get import Get, GetFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from memoryd.access.signing_keys import SigningKey

READ_EVERY: Final = timedelta(minutes=5)
"""Between two reads of a key set."""

RETRY_AFTER: Final = timedelta(minutes=1)
"""A read that failed is repeated so much later."""

LOOK_EVERY: Final = timedelta(minutes=1)
"""A key id that is not known makes a key set be read at most this often."""

KEYS_KEPT: Final = timedelta(days=1)
"""How long keys serve that cannot be read again."""

READ_SECONDS: Final = 5.0
"""How long a read may take in all."""

WAIT_SECONDS: Final = 10.0
"""How long a call waits for a read, also where the source is a file whose disk is away."""

MAX_WAITING: Final = 1000
"""Calls that wait for one read; for those beyond it a key that is not known stays so."""

_NEVER: Final = datetime.min.replace(tzinfo=UTC)

_AWAY: Final = "the keys of an issuer cannot be read; those known serve for a day"
_NO_KEYS: Final = "an issuer shows no key; its tokens are refused"

_log = logging.getLogger(__name__)


class Source(Protocol):
    """Where a key set is."""

    shows_changes: bool
    """Whether it costs next to nothing to learn that the keys are as before."""

    async def read(self, *, only_changed: bool) -> tuple[SigningKey, ...] | None:
        """Give the keys; None where `only_changed`, and the source shows that they are as before.

        Raises ValueError or GetFailed, whose text says why there are none.
        """
        ...

    def close(self) -> None: ...


class UrlSource:
    """A key set at a URL."""

    shows_changes = False

    def __init__(self, url: str, seconds: float) -> None:
        """`seconds`: how long a read may take in all."""
        self._url = url
        self._seconds = seconds
        # One thread: reads that do not end in time do not pile up.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="jwks")

    async def read(self, *, only_changed: bool) -> tuple[SigningKey, ...] | None:
        del only_changed  # a URL shows no changes
        get: Get | None = None

        def work() -> tuple[SigningKey, ...]:
            nonlocal get
            # What verifies tokens takes a while to load; most servers need none of it.
            from memoryd.access.signing_keys import MAX_SET_BYTES, keys_in  # noqa: PLC0415  as above

            get = Get(self._url, timeout=self._seconds, max_bytes=MAX_SET_BYTES)
            return keys_in(get.run())

        reading = asyncio.get_running_loop().run_in_executor(self._executor, work)
        try:
            await asyncio.wait({reading}, timeout=self._seconds)
            if not reading.done():
                raise GetFailed(f"no answer within {self._seconds:g} s")
            return reading.result()
        finally:
            if not reading.done():
                reading.cancel()
                if get is not None:
                    get.abort()

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


class FileSource:
    """A key set in a file."""

    shows_changes = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        """Of the file that was read last."""

    async def read(self, *, only_changed: bool) -> tuple[SigningKey, ...] | None:
        return await asyncio.to_thread(self._read, only_changed=only_changed)

    def _read(self, *, only_changed: bool) -> tuple[SigningKey, ...] | None:
        from memoryd.access.signing_keys import read_key_file  # noqa: PLC0415  likewise

        try:
            status = self._path.stat()
        except OSError as error:
            self._stamp = None
            raise ValueError(error.strerror or type(error).__name__) from None
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if only_changed and stamp == self._stamp:
            return None
        self._stamp = stamp
        return read_key_file(self._path)

    def close(self) -> None:
        """Nothing is open."""


class KeySet:
    """The keys of one source, as they could last be read."""

    def __init__(
        self,
        name: str,
        source: Source,
        clock: Callable[[], datetime],
        on_change: Callable[[KeySet], None],
    ) -> None:
        """`name`: of the issuer, for the log. `on_change` is called where keys came or went."""
        self._name = name
        self._source = source
        self._clock = clock
        self._on_change = on_change
        self.keys: frozenset[SigningKey] = frozenset()
        self.kept_until = _NEVER
        """When the keys stop serving, unless they are read again."""
        self._read_at = _NEVER
        self._looked_at = _NEVER
        self._trouble: str | None = None
        self._flight: asyncio.Task[None] | None = None
        self._waiting = 0

    def find(self, kid: str | None, algorithm: str) -> SigningKey | None:
        """The one key that a token's header means, if there is exactly one."""
        if self._clock() >= self.kept_until:
            return None
        fitting = [
            key
            for key in self.keys
            if algorithm in key.algorithms and (kid is None or key.kid == kid)
        ]
        return fitting[0] if len(fitting) == 1 else None

    def lacks(self, kid: str | None) -> bool:
        """Whether reading the source again may bring a key of this id."""
        if self._clock() >= self.kept_until or not self.keys:
            return True
        return kid is not None and all(key.kid != kid for key in self.keys)

    async def read(self) -> None:
        """Read the keys, or wait for the read under way. If it fails, those known serve on."""
        flight = self._flight or self._begin(only_changed=False)
        await asyncio.wait({flight}, timeout=WAIT_SECONDS)

    async def look(self, kid: str | None) -> None:
        """Read the keys again for an id that they lack, at most once in LOOK_EVERY."""
        if self._waiting >= MAX_WAITING:
            return
        self._waiting += 1
        try:
            if self._flight is not None:  # it may have begun before the key was there
                await self.read()
                if self._trouble is not None or not self.lacks(kid):
                    return
            if self._flight is None:
                if _is_within(self._looked_at, LOOK_EVERY, self._clock()):
                    return
                self._looked_at = self._clock()
            await self.read()
        finally:
            self._waiting -= 1

    def keep_up(self) -> None:
        """Start a read where one is due, or where the source may show a change."""
        if self._flight is not None:
            return
        period = READ_EVERY if self._trouble is None else RETRY_AFTER
        is_due = not _is_within(self._read_at, period, self._clock())
        if is_due or self._source.shows_changes:
            self._begin(only_changed=not is_due)

    async def aclose(self) -> None:
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)
        self._source.close()

    def _begin(self, *, only_changed: bool) -> asyncio.Task[None]:
        flight = self._fly(only_changed=only_changed)
        self._flight = asyncio.create_task(flight, name="read signing keys")
        return self._flight

    async def _fly(self, *, only_changed: bool) -> None:
        began = self._clock()
        try:
            keys = await self._source.read(only_changed=only_changed)
        except (GetFailed, ValueError) as error:
            self._read_at = began
            self._tell(str(error))
        except Exception:  # noqa: BLE001  without it the keys would never be read again
            self._read_at = began
            _log.exception("unhandled exception while reading the keys of %s", self._name)
        else:
            if keys is not None:
                self._adopt(frozenset(keys), began)
        finally:
            self._flight = None

    def _adopt(self, keys: frozenset[SigningKey], read_at: datetime) -> None:
        self._read_at = read_at
        self.kept_until = read_at + KEYS_KEPT
        self._tell(None if keys else "none of its keys verifies tokens", _NO_KEYS)
        if keys != self.keys:
            self.keys = keys
            self._on_change(self)

    def _tell(self, trouble: str | None, message: str = _AWAY) -> None:
        """Log the beginning of trouble, and its end."""
        if trouble is not None and self._trouble is None:
            _log.warning(message, extra={"issuer": self._name, "reason": trouble})
        if trouble is None and self._trouble is not None:
            _log.warning("the keys of an issuer are read again", extra={"issuer": self._name})
        self._trouble = trouble


def _is_within(begin: datetime, span: timedelta, now: datetime) -> bool:
    """Whether now is in the span; not where the clock was put back."""
    return begin <= now < begin + span
