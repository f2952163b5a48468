"""How much each tenant has stored: asked for, and counted again to correct what was not counted.

Writers keep the accounts of tenants with quotas up to date (`accounts.py`). What is missing there
is what was written by a server that did not know the quota yet, or by one of an earlier release.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import delete, select, update

from memoryd.database.tables import tenant_usage
from memoryd.database.tenancy import EVERY_TENANT
from memoryd.domain.errors import MemorydError
from memoryd.domain.quotas import Usage
from memoryd.sessions import accounts
from memoryd.sessions.accounts import SETTLED_AFTER, Row

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.engine import Database
    from memoryd.domain.quotas import Quotas

RECOUNT_AFTER = timedelta(minutes=10)
"""Between two counts of a tenant's rows. A count holds nobody up, and costs a read of them."""

RECOUNTED_AT_ONCE = 100
"""Tenants that one sweep counts."""

_log = logging.getLogger(__name__)


class _Found(NamedTuple):
    """What one statement has seen."""

    truth: Usage
    account: Row | None


class TenantUsage:
    """What tenants have stored in one database."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        quotas_of: Callable[[str], Quotas] | None,
    ) -> None:
        """`quotas_of` gives those of a tenant; None: they are not known here."""
        self._database = database
        self._clock = clock
        self._quotas_of = quotas_of

    async def of(self, tenant: str, *, timeout: float | None = None) -> Usage:
        """Give what a tenant has stored; without a quota of that, its rows are counted for it.

        Raises what Database raises.
        """
        if self._has_quota(tenant):
            row = await self._database.read(
                lambda c: _account(c, tenant), tenants=(tenant,), timeout=timeout
            )
            if row is not None and row.recounts:
                return row.used
        return (await self._count(tenant, timeout=timeout)).truth

    async def begin(self, tenant: str, *, timeout: float | None = None) -> None:
        """Have the quotas of a tenant apply that were just changed.

        Raises what Database raises; where only its rows cannot be counted, the sweeper tries again.
        """
        if not self._has_quota(tenant):
            await self._drop(tenant)
            return
        # Not due at once: a server that does not know of the quota yet would drop it.
        due, dialect = self._clock() + SETTLED_AFTER, self._database.dialect
        await self._database.write(
            lambda c: accounts.make_account(c, dialect, tenant, due),
            tenants=(tenant,),
            timeout=timeout,
        )
        await self._try_recount(tenant, SETTLED_AFTER, timeout=timeout)

    async def recount_due(self) -> int:
        """Count what is due to be counted, each tenant on one server; answer how many they are."""
        now, counted = self._clock(), 0
        found = await self._database.read(lambda c: _due(c, now), tenants=EVERY_TENANT)
        for tenant, due in found:
            if not self._has_quota(tenant):
                await self._drop(tenant)
            elif await self._claim(tenant, due, now):
                counted += await self._try_recount(tenant, RECOUNT_AFTER)
        return counted

    async def _try_recount(
        self, tenant: str, until_next: timedelta, *, timeout: float | None = None
    ) -> bool:
        try:
            await self._recount(tenant, until_next, timeout=timeout)
        except MemorydError as error:
            _log.warning(
                "what a tenant has stored is not counted: %s; `memoryd sweep --once` counts it"
                " without a limit in time",
                error.for_operator,
                extra={"tenant": tenant},
            )
            return False
        return True

    def _has_quota(self, tenant: str) -> bool:
        return self._quotas_of is None or any(self._quotas_of(tenant).stored)

    async def _count(self, tenant: str, *, timeout: float | None = None) -> _Found:
        statement, size = accounts.counting(self._database.dialect), len(Usage._fields)

        def body(connection: Connection) -> _Found:
            # One statement, which sees rows and account as they are at one moment.
            found = connection.execute(statement, {"tenant": tenant}).one()
            truth, used, recounts = Usage(*found[:size]), found[size:-1], found[-1]
            return _Found(truth, None if recounts is None else Row(recounts, Usage(*used)))

        return await self._database.read(body, tenants=(tenant,), timeout=timeout)

    async def _recount(
        self, tenant: str, until_next: timedelta, *, timeout: float | None = None
    ) -> None:
        truth, seen = await self._count(tenant, timeout=timeout)
        if seen is None:
            return  # its next writer gives it an account
        dialect, due = self._database.dialect, self._clock() + until_next
        await self._database.write(
            lambda c: accounts.correct_account(c, dialect, tenant, seen=seen, truth=truth, due=due),
            tenants=(tenant,),
            timeout=timeout,
        )

    async def _claim(self, tenant: str, due: datetime, now: datetime) -> bool:
        u = tenant_usage.c
        claimed = (
            update(tenant_usage)
            .where(u.tenant == tenant, u.recount_at == due)
            .values(recount_at=now + RECOUNT_AFTER)
        )
        return await self._database.write(
            lambda c: c.execute(claimed).rowcount > 0, tenants=(tenant,)
        )

    async def _drop(self, tenant: str) -> None:
        dropped = delete(tenant_usage).where(tenant_usage.c.tenant == tenant)
        await self._database.write(lambda c: c.execute(dropped), tenants=(tenant,))


def _account(connection: Connection, tenant: str) -> Row | None:
    u = tenant_usage.c
    columns = (u.recounts, *(u[name] for name in Usage._fields))
    found = connection.execute(select(*columns).where(u.tenant == tenant)).one_or_none()
    return None if found is None else Row(found[0], Usage(*found[1:]))


def _due(connection: Connection, now: datetime) -> list[tuple[str, datetime]]:
    u = tenant_usage.c
    due = select(u.tenant, u.recount_at).where(u.recount_at <= now).order_by(u.recount_at)
    return [(row[0], row[1]) for row in connection.execute(due.limit(RECOUNTED_AT_ONCE))]
