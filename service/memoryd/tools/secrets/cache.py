"""A cache of the values and failures of a remote provider.

A value in use is refreshed in the background before it expires; if that fails, the last good value
stays in use. There is at most one request to the provider for a reference at a time.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from memoryd.tools.secrets.errors import SecretUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import SecretStr

    from memoryd.tools.secrets.reference import SecretProvider, SecretReference

TTL_SECONDS: Final = 300.0
"""How long a value is valid."""

REFRESH_SECONDS: Final = 0.8 * TTL_SECONDS
"""The age at which a value in use is refreshed, while it is still valid."""

RETRY_SECONDS: Final = 10.0
"""How long to wait after a failure before the next request to the provider."""

MAX_REFERENCES: Final = 1000
"""Entries in the cache; the least recently used goes first. Callers may name any number."""

MAX_UNDER_WAY: Final = 64
"""Requests to a provider at once, those waiting for a thread included."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Entry:
    """The state of one reference. Times are the clock's."""

    value: SecretStr | None = None
    """The last good value."""
    good_until: float = -math.inf
    failure: SecretUnavailableError | None = None
    """Of the last request; None where it succeeded."""
    ask_at: float = -math.inf
    """When the next request may be made."""
    flight: asyncio.Task[None] | None = None
    """The request under way."""


class SecretCache:
    """A provider in front of another one, which it asks seldom."""

    def __init__(self, provider: SecretProvider, clock: Callable[[], float]) -> None:
        """Cache `provider`; `clock` returns seconds that never go back."""
        self._provider = provider
        self._clock = clock
        self._entries: dict[SecretReference, _Entry] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    async def resolve(self, reference: SecretReference, *, timeout: float) -> SecretStr:
        """Return the value; wait for the provider at most `timeout` seconds.

        Raises `SecretUnavailableError`. An answer that comes too late is cached all the same.
        """
        entry = self._entry(reference)
        if entry.flight is None and self._clock() >= entry.ask_at:
            self._ask(reference, entry)
        if entry.flight is not None and self._clock() >= entry.good_until:
            # It continues if this caller is cancelled: others wait for it too.
            await asyncio.wait({entry.flight}, timeout=timeout)
        if entry.value is not None:
            return entry.value
        if entry.failure is None:
            raise SecretUnavailableError(
                f"{reference.scheme}:// did not answer within {timeout:g} s",
                "try again; if this persists, check that the service reaches it over the network",
            )
        # A new error each time, since one that is raised again collects tracebacks.
        raise SecretUnavailableError(entry.failure.reason, entry.failure.remedy)

    def refresh_failure(self, reference: SecretReference) -> SecretUnavailableError | None:
        """Why the value in use could not be refreshed; None where it could."""
        entry = self._entries.get(reference)
        return entry.failure if entry is not None and entry.value is not None else None

    def _entry(self, reference: SecretReference) -> _Entry:
        entry = self._entries.pop(reference, None) or _Entry()
        self._entries[reference] = entry  # to the end: most recently used
        if len(self._entries) > MAX_REFERENCES:
            del self._entries[next(iter(self._entries))]
        return entry

    def _ask(self, reference: SecretReference, entry: _Entry) -> None:
        if len(self._under_way) >= MAX_UNDER_WAY:
            # Not recorded as the provider's failure: the next caller may succeed.
            if entry.value is None:
                raise SecretUnavailableError(
                    f"{reference.scheme}:// is being asked for {MAX_UNDER_WAY} secrets already",
                    "try again",
                )
            return
        entry.flight = asyncio.create_task(self._read(reference, entry), name="secret")
        self._under_way.add(entry.flight)
        entry.flight.add_done_callback(self._under_way.discard)

    async def _read(self, reference: SecretReference, entry: _Entry) -> None:
        try:
            entry.value = await self._provider.resolve(reference)
        except SecretUnavailableError as error:
            self._failed(reference, entry, SecretUnavailableError(error.reason, error.remedy))
        except Exception as error:  # noqa: BLE001  its text may hold a secret; its type does not
            failure = SecretUnavailableError(
                f"{reference.scheme}:// failed with {type(error).__name__}",
                "check the service's settings for it",
            )
            self._failed(reference, entry, failure)
        else:
            now = self._clock()
            entry.failure = None
            entry.good_until, entry.ask_at = now + TTL_SECONDS, now + REFRESH_SECONDS
        finally:
            entry.flight = None

    def _failed(
        self, reference: SecretReference, entry: _Entry, failure: SecretUnavailableError
    ) -> None:
        entry.failure = failure
        entry.ask_at = self._clock() + RETRY_SECONDS
        _log.warning(
            "secret not refreshed; its last value stays in use"
            if entry.value
            else "secret not read",
            extra={"reference": reference.source, "reason": failure.reason},
        )
