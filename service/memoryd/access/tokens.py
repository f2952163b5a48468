"""Who shows a JSON Web Token: verified by its issuer's keys, and known afterwards."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict, defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

from memoryd.access.claims import principal_by, read_token
from memoryd.access.jwks import READ_SECONDS, FileSource, KeySet, UrlSource
from memoryd.domain.errors import CredentialInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from memoryd.access.auth_file import Issuer
    from memoryd.access.claims import Unverified
    from memoryd.access.signing_keys import SigningKey
    from memoryd.domain.principals import Principal

MAX_KNOWN: Final = 10_000
"""Tokens that need not be verified again; those that were not used for longest go first."""

POLL_SECONDS: Final = 1.0
"""Between two checks of whether key sets are due, or their files have changed."""


class _Known(NamedTuple):
    """A token that was verified."""

    principal: Principal
    until: datetime
    key: SigningKey
    key_set: KeySet


class Tokens:
    """The tokens of all issuers."""

    def __init__(
        self,
        issuers: Sequence[Issuer],
        clock: Callable[[], datetime],
        *,
        most_known: int = MAX_KNOWN,
        read_seconds: float = READ_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """`read_seconds`: how long a read of a key set may take in all."""
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._read_seconds = read_seconds
        self._most_known = most_known
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        """By the SHA-256 of their texts."""
        self._sets: dict[str | Path, KeySet] = {}
        self._issuers: dict[str, list[tuple[Issuer, KeySet]]] = defaultdict(list)
        for issuer in issuers:
            self._issuers[issuer.issuer].append((issuer, self._set_of(issuer)))
        self._keeping_up: asyncio.Task[None] | None = None

    def _set_of(self, issuer: Issuer) -> KeySet:
        """One key set for each place, however many issuers name it."""
        place = issuer.jwks_file or issuer.jwks_url or ""
        if place not in self._sets:
            source = (
                UrlSource(place, self._read_seconds)
                if isinstance(place, str)
                else FileSource(place)
            )
            self._sets[place] = KeySet(issuer.issuer, source, self._clock, self._forget)
        return self._sets[place]

    async def start(self) -> None:
        """Read every key set, and keep them up to date. One that cannot be read is a warning."""
        await asyncio.gather(*(key_set.read() for key_set in self._sets.values()))
        self._keeping_up = asyncio.create_task(self._keep_up(), name="signing keys")

    async def aclose(self) -> None:
        """Stop reading."""
        if self._keeping_up is not None:
            self._keeping_up.cancel()
            await asyncio.gather(self._keeping_up, return_exceptions=True)
        await asyncio.gather(*(key_set.aclose() for key_set in self._sets.values()))

    def known(self, token: str) -> Principal | None:
        """Who shows this token, if it was verified before and still opens something."""
        digest = _digest(token)
        known = self._known.get(digest)
        if known is None:
            return None
        now = self._clock()
        if now >= known.until or now >= known.key_set.kept_until:
            return None
        self._known.move_to_end(digest)
        return known.principal

    async def principal_of(self, token: str) -> Principal:
        """Verify a token, and say who shows it. It may wait for one look at the issuer's keys.

        Raises CredentialMalformed, CredentialInvalid, CredentialExpired.
        """
        unverified = read_token(token)
        issuer, key_set = self._issuer_of(unverified)
        key = await _key_of(unverified, key_set)
        if not key.verifies(unverified.algorithm, unverified.signed, unverified.signature):
            raise CredentialInvalid
        principal = principal_by(issuer, unverified.claims, self._clock())
        self._remember(token, principal, key, key_set)
        return principal

    def _issuer_of(self, token: Unverified) -> tuple[Issuer, KeySet]:
        """The first row of the file with the issuer and an audience of the token."""
        for issuer, key_set in self._issuers.get(token.issuer, ()):
            if issuer.audience in token.audiences:
                if token.algorithm in issuer.algorithms:
                    return issuer, key_set
                break
        raise CredentialInvalid

    def _remember(self, token: str, principal: Principal, key: SigningKey, key_set: KeySet) -> None:
        if principal.expires_at is not None and key in key_set.keys:
            known = _Known(principal, principal.expires_at, key, key_set)
            self._known[_digest(token)] = known
            if len(self._known) > self._most_known:
                self._known.popitem(last=False)

    def _forget(self, key_set: KeySet) -> None:
        """Drop the tokens whose keys are no longer in the set."""
        gone = [
            digest
            for digest, known in self._known.items()
            if known.key_set is key_set and known.key not in key_set.keys
        ]
        for digest in gone:
            del self._known[digest]

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            for key_set in self._sets.values():
                key_set.keep_up()


async def _key_of(token: Unverified, key_set: KeySet) -> SigningKey:
    if key_set.lacks(token.kid):
        await key_set.look(token.kid)
    key = key_set.find(token.kid, token.algorithm)
    if key is None:
        raise CredentialInvalid
    return key


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
