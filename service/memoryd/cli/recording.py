"""Lines of the audit for what a command changes or exports: as for a call, before and after."""

from __future__ import annotations

import getpass
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from memoryd.audit.log import AuditLog
from memoryd.audit.writer import AuditWriter
from memoryd.domain.audit import AuditMode, Event, Kind
from memoryd.domain.errors import MemorydError
from memoryd.domain.ids import uuid7
from memoryd.rpc.status import code_of, reason_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from memoryd.database.engine import Database
    from memoryd.settings.service import Settings

PEER = "command line"
"""Where a command comes from."""


@dataclass(slots=True)
class Recorded:
    """What the lines of a command say; the one after it has what it has found out."""

    tenant: str = ""
    target: str = ""
    counts: dict[str, int] = field(default_factory=dict)


class Recording:
    """The audit of one database, for commands that work on that."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._is_on = settings.audit is not AuditMode.OFF

    @asynccontextmanager
    async def of(
        self, command: str, *, tenant: str = "", target: str = ""
    ) -> AsyncIterator[Recorded]:
        """Record what is done in the block.

        Also where the audit is off by the command's settings, which need not be the servers': a
        database with lines has an audit. Raises AuditUnavailable, before the block.
        """
        recorded = Recorded(tenant, target)
        if not self._is_on and not (await AuditLog(self._database).end()).seq:
            yield recorded
            return
        writer, receipt_id = AuditWriter(self._database), uuid7()

        def event(kind: Kind, code: str = "", reason: str = "") -> Event:
            return Event(
                datetime.now(UTC),
                kind,
                tenant=recorded.tenant,
                principal=_user(),
                peer=PEER,
                method=command,
                code=code,
                reason=reason,
                receipt_id=receipt_id,
                target=recorded.target,
                counts=recorded.counts,
            )

        try:
            await writer.write(event(Kind.BEGUN))
            try:
                yield recorded
            except MemorydError as error:
                writer.add(event(Kind.ENDED, code_of(error).name, reason_of(error)))
                raise
            except BaseException:
                writer.add(event(Kind.ENDED, "UNKNOWN"))
                raise
            writer.add(event(Kind.ENDED, "OK"))
        finally:
            await writer.close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # as in a container, whose users have no names
        return f"user {os.getuid()}"
