"""All API keys and tenants in memory, kept up with the database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from memoryd.access import keys as storage
from memoryd.access.api_key import MalformedKey, digest_of, key_id_of
from memoryd.access.keys import CHANNEL
from memoryd.database.tenancy import EVERY_TENANT
from memoryd.domain.errors import (
    CredentialExpired,
    CredentialInvalid,
    CredentialMalformed,
    CredentialRevoked,
    DatabaseUnavailable,
    MemorydError,
    TenantDisabled,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from memoryd.access.keys import AccessState, ApiKey, Tenant
    from memoryd.database.engine import Database
    from memoryd.database.notifications import Listener
    from memoryd.domain.principals import Principal
    from memoryd.domain.quotas import Quotas

POLL_SECONDS = 0.5
"""Between two looks at what has changed; SQLite does not notify, a notification may be lost."""

LAST_MOMENT = datetime.max.replace(tzinfo=UTC)

USE_KEPT = timedelta(minutes=10)
"""How exactly it is kept when a key was last used."""

_log = logging.getLogger(__name__)


class _Known:
    """A key, and who shows it."""

    __slots__ = ("key", "last_used_at", "principal")

    def __init__(self, key: ApiKey, last_used_at: datetime | None) -> None:
        self.key = key
        self.principal = key.principal
        self.last_used_at = last_used_at


class Keyring:
    """What the database says of keys and tenants, as far as it could last be read."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        *,
        stale_after: timedelta,
        quotas: Quotas,
    ) -> None:
        """`stale_after`: how long known keys open anything while the database is away.

        `quotas`: of tenants that have none of their own.
        """
        self._default_quotas = quotas
        self._quotas: dict[str, Quotas] = {}
        self._database = database
        self._clock = clock
        self._stale_after = stale_after
        self._fixed: Mapping[bytes, Principal] = {}
        self._revision = 0
        self._known: dict[bytes, _Known] = {}
        self._by_id: dict[str, _Known] = {}
        self._tenants: dict[str, Tenant] = {}
        self._used: dict[str, datetime] = {}
        self._known_at = clock()
        self._is_reachable = False
        self._reading = asyncio.Lock()
        self._wake = asyncio.Event()
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is no key that opens anything, as far as the database has answered."""
        if self._fixed or not self._is_reachable:
            return False
        now = self._clock()
        return all(
            known.key.revoked_at or (known.key.grant.expires_at or LAST_MOMENT) <= now
            for known in self._known.values()
        )

    async def start(self, listener: Listener, fixed: Mapping[bytes, Principal]) -> None:
        """Read all of it, and keep up.

        `fixed`: principals of keys that no database has, by the digests of these.
        """
        self._fixed = fixed
        listener.subscribe(CHANNEL, lambda _: self._wake.set(), self._look)
        await self.refresh()
        self._refreshing = asyncio.create_task(self._keep_up(), name="keys")

    async def aclose(self) -> None:
        """Keep up no more, and write when keys were last used."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
            await self._write_used()

    def principal_of(self, text: str) -> Principal:
        """Who shows this key.

        Raises CredentialMalformed, CredentialInvalid, CredentialRevoked, CredentialExpired, and
        DatabaseUnavailable where that is not known.
        """
        digest = digest_of(text)
        known = self._known.get(digest)
        if known is None:
            return self._unknown(text, digest)
        now = self._clock()
        try:
            self._check(known.key, now)
        except MemorydError as error:
            raise known.principal.refused(error) from None
        if known.last_used_at is None or now - known.last_used_at >= USE_KEPT:
            known.last_used_at = self._used[known.key.key_id] = now
        return known.principal

    def check(self, key_id: str) -> Principal:
        """Give the principal of a key as it is now. Raises as `principal_of`."""
        known = self._by_id.get(key_id)
        if known is None:
            for principal in self._fixed.values():
                if principal.credential_id == key_id:
                    return principal
            raise CredentialInvalid
        self._check(known.key, self._clock())
        return known.principal

    def check_tenant(self, principal: Principal) -> None:
        """Raise TenantDisabled, or CredentialRevoked for a token that is too old for its tenant."""
        known = self._tenants.get(principal.tenant)
        if known is None:
            return
        if known.disabled and principal not in self._fixed.values():
            raise TenantDisabled
        first = known.tokens_not_before
        if first is not None and principal.issued_at is not None and principal.issued_at < first:
            raise CredentialRevoked

    def quotas_of(self, tenant: str) -> Quotas:
        """How much of the service a tenant may use."""
        return self._quotas.get(tenant, self._default_quotas)

    def now(self) -> datetime:
        return self._clock()

    async def refresh(self) -> None:
        """Read what has changed; where that fails, what was known goes on."""
        # One at a time: what was read earlier must not come after what was read later.
        async with self._reading:
            try:
                state = await self._read_after(self._revision)
                if state.revision < self._revision:  # the database was put back
                    self._adopt(await self._read_after(0), is_all=True)
                else:
                    self._adopt(state)
            except MemorydError as error:
                if self._is_reachable:
                    _log.warning("keys cannot be read; those known go on: %s", error.for_operator)
                self._is_reachable = False

    async def _read_after(self, revision: int) -> AccessState:
        state = await self._database.snapshot(
            lambda c: storage.read_state(c, revision), tenants=EVERY_TENANT
        )
        self._is_reachable, self._known_at = True, self._clock()
        return state

    def _unknown(self, text: str, digest: bytes) -> Principal:
        fixed = self._fixed.get(digest)
        if fixed is not None:
            return fixed
        try:
            key_id_of(text)
        except MalformedKey as error:
            raise CredentialMalformed(str(error)) from None
        if self._is_reachable:
            raise CredentialInvalid
        raise DatabaseUnavailable("keys cannot be read")

    def _check(self, key: ApiKey, now: datetime) -> None:
        if key.revoked_at is not None:
            raise CredentialRevoked
        expires_at = key.grant.expires_at
        if expires_at is not None and expires_at <= now:
            raise CredentialExpired
        if not self._is_reachable and now - self._known_at > self._stale_after:
            raise DatabaseUnavailable("keys cannot be read")

    def _adopt(self, state: AccessState, *, is_all: bool = False) -> None:
        """Take what was read; `is_all`: in the place of all that was known."""
        self._revision = state.revision
        known = self._known
        if is_all:
            self._known, self._by_id, self._tenants, self._quotas = {}, {}, {}, {}
        for key in state.keys:
            before = known.get(key.digest)
            last_used_at = key.last_used_at if before is None else before.last_used_at
            self._known[key.digest] = self._by_id[key.key_id] = _Known(key, last_used_at)
        for tenant in state.tenants:
            self._tenants[tenant.name] = tenant
            self._quotas[tenant.name] = self._default_quotas.changed(tenant.quotas)

    async def _look(self) -> None:
        self._wake.set()

    async def _keep_up(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.refresh()
                await self._write_used()
            except Exception:  # noqa: BLE001  without it no change would be seen again
                _log.exception("unhandled exception while reading keys; it is tried again")

    async def _write_used(self) -> None:
        if not self._used or not self._is_reachable:
            return
        used, self._used = self._used, {}
        dialect = self._database.dialect
        with contextlib.suppress(MemorydError):  # the next use is kept
            await self._database.write(
                lambda c: storage.write_used(c, dialect, used), tenants=EVERY_TENANT
            )
