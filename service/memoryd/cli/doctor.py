"""`memoryd doctor`: look at everything that a server depends on, and say what to change."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from memoryd.certificates import CertificateFault, usable_pair
from memoryd.cli.config import (
    database_of,
    obstacle_to_file,
    require_sound,
    tools_in,
    warnings_about,
)
from memoryd.cli.running import DOTENV, run
from memoryd.database.embedded import file_of
from memoryd.database.roles import role_problem
from memoryd.database.tables import index_names, schema
from memoryd.database.tenancy import NO_TENANT
from memoryd.database.urls import driver_url, shown
from memoryd.domain.errors import MemorydError, SchemaMismatch
from memoryd.settings.reading import SettingsError
from memoryd.tools.settings import load_configuration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from memoryd.database.engine import Database
    from memoryd.settings.service import Settings
    from memoryd.tools.settings import ToolConfig

TLS_WARNING = timedelta(days=30)
"""How long before its end a certificate is warned of: renewals usually come earlier."""

CLOCK_WARNING = timedelta(seconds=1)
"""How far the clocks of this machine and of the database may be apart; a server goes by the
database's, and tokens are judged by its."""

CLOCK_PROBLEM = timedelta(seconds=30)
"""From here on tokens are refused as expired, or as not yet valid."""

DISK_WARNING_BYTES = 1024**3
DISK_PROBLEM_BYTES = 100 * 1024**2
"""Free space on the disk of an SQLite file, beside which its journal grows."""

MOST_EXAMINED_BYTES = 256 * 1024**2
"""An SQLite file up to this size is read through for damage, which takes a few seconds."""


class Status(StrEnum):
    OK = "ok"
    UNKNOWN = "unknown"
    """It could not be looked at."""
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """What one check has found."""

    check: str
    status: Status
    message: str
    """What is so, and where something is to be changed, what."""


def doctor(database_url: str | None, *, as_json: bool) -> None:
    """Print what is found; exit 1 where there is a problem."""
    findings: list[Finding] = []

    async def examine() -> None:
        async for finding in _all(database_url):
            findings.append(finding)
            if not as_json:
                print(f"{finding.status:<8} {finding.check:<9} {finding.message}", flush=True)

    run(examine())
    found = {finding.status for finding in findings}
    worst = next(status for status in reversed(Status) if status in found)
    if as_json:
        listed = [finding._asdict() for finding in findings]
        print(json.dumps({"status": worst, "findings": listed}, indent=2))
    if worst is Status.PROBLEM:
        raise SystemExit(1)


async def _all(database_url: str | None) -> AsyncIterator[Finding]:
    try:
        settings, base = load_configuration(
            environ=os.environ, dotenv=DOTENV, flags={"database_url": database_url}
        )
    except SettingsError as error:
        yield Finding("settings", Status.PROBLEM, str(error))
        return
    yield await _settings(settings, base)
    yield await asyncio.to_thread(_tls, settings)
    place = shown(settings.database_url.get_secret_value())
    obstacle = await asyncio.to_thread(obstacle_to_file, settings)
    if obstacle:
        yield Finding("database", Status.PROBLEM, f"{place} cannot be used: {obstacle}")
        return
    if await asyncio.to_thread(settings.has_new_file):
        yield Finding("database", Status.OK, f"{place} does not exist yet; a server makes it")
        yield await asyncio.to_thread(_disk, settings)
        return
    async with database_of(settings) as database:
        async for finding in _database(database, settings, base):
            yield finding


async def _settings(settings: Settings, base: Mapping[str, ToolConfig]) -> Finding:
    try:
        await require_sound(settings, base)
    except (SettingsError, ValueError, OSError) as error:
        return Finding("settings", Status.PROBLEM, str(error))
    given = len(settings.model_fields_set)
    return Finding("settings", Status.OK, f"{given} given; the others have their defaults")


def _tls(settings: Settings) -> Finding:
    files = settings.tls_files()
    if files is None:
        return Finding("tls", Status.OK, "not set; what callers send travels in plaintext")
    try:
        expires = usable_pair(files).expires
    except CertificateFault as fault:
        return Finding("tls", Status.PROBLEM, str(fault))
    left = expires - datetime.now(UTC)
    message = f"{files.certificate.path} is valid for {left.days} more days, until {expires:%F}"
    if left < TLS_WARNING:
        return Finding("tls", Status.WARNING, f"{message}: renew it")
    return Finding("tls", Status.OK, message)


async def _database(
    database: Database, settings: Settings, base: Mapping[str, ToolConfig]
) -> AsyncIterator[Finding]:
    checks = {
        "rights": _rights,
        "rls": _row_security,
        "clocks": _clocks,
        "indexes": _indexes,
        "disk": _space,
    }
    schema_problem = ""
    try:
        await database.try_out()
        await database.check()
    except SchemaMismatch as error:
        schema_problem = error.for_operator
    except MemorydError as error:
        yield Finding("database", Status.PROBLEM, error.for_operator)
        for check in ("schema", "tools", *checks):
            yield Finding(check, Status.UNKNOWN, "the database has to answer first")
        return
    place = shown(settings.database_url.get_secret_value())
    yield Finding("database", Status.OK, f"{place} answers")
    if schema_problem:
        yield Finding("schema", Status.PROBLEM, schema_problem)
        for check in ("tools", *checks):
            yield Finding(check, Status.UNKNOWN, "the schema has to be right first")
        return
    yield Finding("schema", Status.OK, "the one that this release needs")
    warnings = await warnings_about(await tools_in(database, settings, base))
    for warning in warnings:
        yield Finding("tools", Status.WARNING, warning)
    if not warnings:
        yield Finding("tools", Status.OK, "their settings fit together")
    for check, look in checks.items():
        try:
            status, message = await look(database, settings)
        except MemorydError as error:
            status, message = Status.PROBLEM, error.for_operator
        yield Finding(check, status, message)


async def _rights(database: Database, settings: Settings) -> tuple[Status, str]:
    del settings
    tables = schema.tables
    missing = await database.read(
        lambda connection: database.dialect.missing_rights(connection, tables), tenants=NO_TENANT
    )
    if missing:
        rights = ", ".join(missing)
        return Status.PROBLEM, f"the role lacks {rights}: grant them (deploy/postgresql/roles.sql)"
    return Status.OK, "the role may read and write every table"


async def _row_security(database: Database, settings: Settings) -> tuple[Status, str]:
    state = await database.row_security()
    if not state.has_it:
        return Status.OK, "this database has none; the service alone keeps tenants apart"
    if not settings.has_row_security:
        return Status.OK, f"{settings.variable('rls')} is off; the service alone keeps them apart"
    problem = role_problem(state, settings.variable)
    if problem:
        return Status.WARNING, problem
    return Status.OK, "the database keeps tenants apart"


async def _clocks(database: Database, settings: Settings) -> tuple[Status, str]:
    del settings
    before = datetime.now(UTC)
    theirs = await database.read(database.dialect.now, tenants=NO_TENANT)
    after = datetime.now(UTC)
    # Within the time that it took to ask, nothing can be said.
    return clocks_apart(max(before - theirs, theirs - after, timedelta(0)))


def clocks_apart(apart: timedelta) -> tuple[Status, str]:
    message = f"this machine's and the database's are {apart.total_seconds():.1f} s apart"
    if apart >= CLOCK_WARNING:
        is_problem = apart >= CLOCK_PROBLEM
        status = Status.PROBLEM if is_problem else Status.WARNING
        return status, f"{message}: set both by NTP"
    return Status.OK, message


async def _indexes(database: Database, settings: Settings) -> tuple[Status, str]:
    del settings
    names = index_names(database.dialect.name)
    unusable = await database.read(
        lambda connection: database.dialect.unusable_indexes(connection, names), tenants=NO_TENANT
    )
    if unusable:
        which = ", ".join(unusable)
        return Status.PROBLEM, (
            f"missing, or not built to the end: {which}; make them again as migrations/ has them,"
            " or restore a backup"
        )
    size = await database.read(database.dialect.size, tenants=NO_TENANT)
    if size > MOST_EXAMINED_BYTES:
        return Status.OK, f"all {len(names)} are there; what is in them is not read, it is too much"
    damage = await database.read(database.dialect.damage, tenants=NO_TENANT)
    if damage:
        return Status.PROBLEM, f"the file is damaged: {damage}: restore a backup (docs/backup.md)"
    return Status.OK, f"all {len(names)} are there"


async def _space(database: Database, settings: Settings) -> tuple[Status, str]:
    if settings.is_embedded:
        _, status, message = await asyncio.to_thread(_disk, settings)
        return status, message
    size = await database.read(database.dialect.size, tenants=NO_TENANT)
    return Status.OK, f"the database takes {_shown(size)}; its disk cannot be seen from here"


def _disk(settings: Settings) -> Finding:
    """Of a file, which need not be there, or its folder."""
    file = file_of(driver_url(settings.database_url.get_secret_value()))
    folder = next(folder for folder in file.parents if folder.is_dir())
    free = shutil.disk_usage(folder).free
    message = f"{_shown(free)} are free in {folder}"
    if free < DISK_WARNING_BYTES:
        is_problem = free < DISK_PROBLEM_BYTES
        status = Status.PROBLEM if is_problem else Status.WARNING
        return Finding("disk", status, f"{message}: make room; a full disk refuses every write")
    return Finding("disk", Status.OK, message)


def _shown(nbytes: int) -> str:
    return f"{nbytes / 1024**3:,.1f} GiB" if nbytes >= 1024**3 else f"{nbytes / 1024**2:,.1f} MiB"
