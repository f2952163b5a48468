"""Keeps what a remote provider answered, and what it refused, for a while.

A value is asked for anew before its time is over, in the background, as long as somebody uses it;
where that fails, the last good one goes on serving. One question a reference is under way at most.
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
"""How long a value serves before its provider has to be asked again."""

REFRESH_SECONDS: Final = 0.8 * TTL_SECONDS
"""The age from which a value that is used is asked for anew, while it still serves."""

RETRY_SECONDS: Final = 10.0
"""How long a failure stands before the provider is asked again."""

MAX_REFERENCES: Final = 1000
"""Kept at once; the one unused for longest goes first. Callers may name as many as they like."""

MAX_UNDER_WAY: Final = 64
"""Questions to a provider at once, those waiting for a thread included."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Entry:
    """What is known of one reference. Times are the clock's."""

    value: SecretStr | None = None
    """The last good one."""
    good_until: float = -math.inf
    failure: SecretUnavailableError | None = None
    """Of the last question; None where it was answered."""
    ask_at: float = -math.inf
    """Before it, what is known stands."""
    flight: asyncio.Task[None] | None = None
    """The question under way."""


class SecretCache:
    """A provider that asks another one, seldom."""

    def __init__(self, provider: SecretProvider, clock: Callable[[], float]) -> None:
        """Cache `provider`; `clock` answers seconds that never go back."""
        self._provider = provider
        self._clock = clock
        self._entries: dict[SecretReference, _Entry] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    async def resolve(self, reference: SecretReference, *, timeout: float) -> SecretStr:
        """Answer the value, waiting for the provider at most `timeout` seconds.

        Raises `SecretUnavailableError`; the provider's answer is kept even if it comes too late.
        """
        entry = self._entry(reference)
        if entry.flight is None and self._clock() >= entry.ask_at:
            self._ask(reference, entry)
        if entry.flight is not None and self._clock() >= entry.good_until:
            # It goes on whatever becomes of this caller: others wait for it too.
            await asyncio.wait({entry.flight}, timeout=timeout)
        if entry.value is not None:
            return entry.value
        if entry.failure is None:
            raise SecretUnavailableError(
                f"{reference.scheme}:// did not answer within {timeout:g} s",
                "ask again; if it stays so, see that the service reaches it over the network",
            )
        # A new one each time, since a traceback gathers on an error that is raised.
        raise SecretUnavailableError(entry.failure.reason, entry.failure.remedy)

    def refresh_failure(self, reference: SecretReference) -> SecretUnavailableError | None:
        """Why the value that serves could not be asked for anew; None where it could."""
        entry = self._entries.get(reference)
        return entry.failure if entry is not None and entry.value is not None else None

    def _entry(self, reference: SecretReference) -> _Entry:
        entry = self._entries.pop(reference, None) or _Entry()
        self._entries[reference] = entry  # at the end: used last
        if len(self._entries) > MAX_REFERENCES:
            del self._entries[next(iter(self._entries))]
        return entry

    def _ask(self, reference: SecretReference, entry: _Entry) -> None:
        if len(self._under_way) >= MAX_UNDER_WAY:
            # Not written down as the provider's answer: the next caller may have more luck.
            if entry.value is None:
                raise SecretUnavailableError(
                    f"{reference.scheme}:// is being asked for {MAX_UNDER_WAY} secrets already",
                    "ask again",
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
        except Exception as error:  # noqa: BLE001  its text may hold anything; its kind does not
            failure = SecretUnavailableError(
                f"{reference.scheme}:// failed with {type(error).__name__}",
                "see that the service's settings for it are right",
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
            "secret not refreshed; its last value serves" if entry.value else "secret not read",
            extra={"reference": reference.source, "reason": failure.reason},
        )
