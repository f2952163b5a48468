"""What a client shows to say who it is: an API key, or tokens that are renewed in time."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from memoryd.client import arguments as args
from memoryd.client.errors import DeadlineExceeded

if TYPE_CHECKING:
    from memoryd.client.errors import MemorydError

TokenProvider: TypeAlias = Callable[[], Awaitable[tuple[str, "datetime | float | None"]]]
"""Gives a token and when it expires: an aware datetime, seconds since 1970, or None for never."""

API_KEY_VARIABLE = "MEMORYD_API_KEY"

AUTHORIZATION = "authorization"

MAX_CREDENTIAL_BYTES = 4096
"""What the service accepts as the header of a credential."""

RENEWAL_SHARE = 0.8
"""Of a token's life, after which the provider is asked for the next one."""

RENEWAL_WAIT_SECONDS = 1.0
"""How long a call waits for the next token while its token is still valid, and how long after a
failure the provider is not asked again meanwhile."""

CREDENTIAL_EXPIRED = "CREDENTIAL_EXPIRED"
"""The reason of a refusal after which the provider is asked once more."""

_VISIBLE = re.compile(r"[!-~]+")
_SCHEME = "Bearer "

_log = logging.getLogger(__name__)

Pairs: TypeAlias = tuple[tuple[str, str], ...]


class Credential(ABC):
    """Who the caller is, as metadata of calls."""

    pairs: Pairs = ()
    """The metadata as it is now; empty where there is no token yet."""

    @abstractmethod
    async def ready(self) -> None:
        """Have metadata that is good for a call now."""

    @abstractmethod
    async def renewed(self, refused: Pairs) -> None:
        """Have other metadata than what was refused as expired, if there is any."""

    @abstractmethod
    def close(self) -> None:
        """Give up waiting for a token."""


class ApiKey(Credential):
    """One secret for as long as the client lives."""

    def __init__(self, name: str, key: object) -> None:
        """`name`: of the argument, for messages."""
        self.pairs = _pairs(name, key)

    async def ready(self) -> None:
        """Nothing to wait for."""

    async def renewed(self, refused: Pairs) -> None:
        """There is no other."""

    def close(self) -> None:
        """Nothing to give up."""


class Tokens(Credential):
    """Tokens of a provider: the current one, and when the next one is due."""

    def __init__(self, provider: TokenProvider, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since 1970."""
        self._provider = provider
        self._clock = clock
        self._expires = -math.inf
        self._due = -math.inf
        self._asking: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Raises what the provider raises, where no token is valid without it."""
        now = self._clock()
        if now < self._due:
            return
        asking = self._ask()
        if now < self._expires:
            await asyncio.wait((asking,), timeout=RENEWAL_WAIT_SECONDS)
        else:
            await asyncio.shield(asking)

    async def renewed(self, refused: Pairs) -> None:
        if self.pairs == refused:
            await asyncio.shield(self._ask())

    def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()

    def _ask(self) -> asyncio.Task[None]:
        """Ask the provider, once for all calls that wait."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._take_next(), name="memoryd token")
            self._asking.add_done_callback(self._end)
        return self._asking

    async def _take_next(self) -> None:
        asked = self._provider()
        if not inspect.isawaitable(asked):
            raise TypeError("token_provider: is no async function; begin it with async def")
        answer: Any = await asked
        if not isinstance(answer, tuple) or len(answer) != 2:  # noqa: PLR2004  token and expiry
            raise TypeError("token_provider: has to give a token and its expiry as a tuple of two")
        pairs, expires = _pairs("token_provider's token", answer[0]), _moment(answer[1])
        now = self._clock()
        self.pairs, self._expires = pairs, expires
        life = max(expires - now, 0.0)
        self._due = math.inf if math.isinf(life) else now + life * RENEWAL_SHARE

    def _end(self, asking: asyncio.Task[None]) -> None:
        self._asking = None
        error = None if asking.cancelled() else asking.exception()
        if error is not None:
            self._due = max(self._due, self._clock() + RENEWAL_WAIT_SECONDS)
            self._due = min(self._due, self._expires)
            # Its text may have a secret in it; whoever waits for the token gets the error itself.
            _log.warning("token_provider failed: %s", type(error).__name__)


class Tries:
    """The tries of one call: a second one where its token was refused as expired."""

    def __init__(self, credential: Credential | None, limit: float | None) -> None:
        """`limit`: seconds for all of it; None: any."""
        self._credential = credential
        self._limit = limit
        self._end: float | None = None
        self._shown: Pairs = ()
        self._is_repeated = False

    async def next(self) -> float | None:
        """Have a credential for the next try, and give the seconds that are left.

        Raises DeadlineExceeded, and what a token provider raises.
        """
        if self._credential is None:
            return self._limit
        clock = asyncio.get_running_loop().time
        if self._end is None and self._limit is not None:
            self._end = clock() + self._limit
        try:
            async with asyncio.timeout_at(self._end) as waiting:
                if self._is_repeated:
                    await self._credential.renewed(self._shown)
                else:
                    await self._credential.ready()
        except TimeoutError:
            if not waiting.expired():
                raise  # the provider's own
            raise DeadlineExceeded(
                grpc.StatusCode.DEADLINE_EXCEEDED, "token_provider gave no token in time"
            ) from None
        self._shown = self._credential.pairs
        return None if self._end is None else self._end - clock()

    def may_repeat(self, refusal: MemorydError) -> bool:
        """Whether to try once more after a refusal."""
        if self._is_repeated or not isinstance(self._credential, Tokens):
            return False
        self._is_repeated = refusal.reason == CREDENTIAL_EXPIRED
        return self._is_repeated


def credential_from(
    api_key: object, token_provider: object, *, is_in_metadata: bool
) -> tuple[Credential | None, str]:
    """The credential of a client, and the name of what gives it; the environment comes last.

    `is_in_metadata`: the caller's own metadata has one.
    """
    args.at_most_one(api_key=api_key, token_provider=token_provider)
    if is_in_metadata:
        given = "api_key" if api_key is not None else "token_provider"
        if api_key is not None or token_provider is not None:
            raise ValueError(f"{given}: metadata has an authorization already; give one of them")
        return None, "metadata.authorization"
    if api_key is not None:
        return ApiKey("api_key", api_key), "api_key"
    if token_provider is not None:
        return Tokens(_provider(token_provider)), "token_provider"
    if key := os.environ.get(API_KEY_VARIABLE, "").strip():
        return ApiKey(API_KEY_VARIABLE, key), API_KEY_VARIABLE
    return None, ""


def _provider(given: object) -> TokenProvider:
    if not callable(given):
        raise TypeError(f"token_provider: expected an async function, not {args.shown(given)}")
    provider: TokenProvider = given
    return provider


def _pairs(name: str, secret: object) -> Pairs:
    """The metadata of a secret. No message shows it."""
    if not isinstance(secret, str):
        raise TypeError(f"{name}: expected a str, not a value of type {type(secret).__name__}")
    if not _VISIBLE.fullmatch(secret):
        raise ValueError(f"{name}: is empty, or has characters other than visible ASCII")
    if len(_SCHEME) + len(secret) > MAX_CREDENTIAL_BYTES:
        raise ValueError(f"{name}: is longer than a credential of {MAX_CREDENTIAL_BYTES:,} bytes")
    return ((AUTHORIZATION, f"{_SCHEME}{secret}"),)


def _moment(expiry: object) -> float:
    match expiry:
        case None:
            return math.inf
        case datetime() if expiry.utcoffset() is not None:
            return expiry.timestamp()
        case bool():
            pass
        case int() | float() if not math.isnan(expiry):
            return float(expiry)
    raise TypeError(
        "token_provider: expected the expiry as an aware datetime, seconds since 1970, or None"
    )
