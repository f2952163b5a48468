"""`memoryd config`: show the settings and check them."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from memoryd.access.auth_file import load_auth_file
from memoryd.cli.running import (
    check_certificate,
    checked,
    configuration,
    references_to_nothing,
    run,
    secrets,
)
from memoryd.database.engine import Database
from memoryd.database.obstacles import path_obstacle
from memoryd.database.options import DatabaseOptions
from memoryd.database.urls import driver_url, shown
from memoryd.domain.principals import tenant_of
from memoryd.domain.records import DEFAULT_TENANT
from memoryd.rpc.exposure import check_exposure
from memoryd.server import embedder_of, tool_configs_of
from memoryd.server_options import exposure_of
from memoryd.settings.service import Environment
from memoryd.telemetry.tracing import exporter_of
from memoryd.tools.checks import require_secrets, warnings_of
from memoryd.tools.settings import shown_values

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from pydantic import SecretStr

    from memoryd.settings.service import Settings
    from memoryd.tools.configs import ToolConfigs
    from memoryd.tools.settings import ToolConfig


def show(database_url: str | None, tenant: str) -> None:
    tenant = checked("--tenant", lambda: tenant_of(tenant))
    settings, tools = configuration(database_url=database_url)
    values = settings.model_dump(mode="json")
    values["database_url"] = _without_secret(settings.database_url)
    values["database_read_url"] = _without_secret(settings.database_read_url)
    for name, value in values.items():
        given = "environment" if name in settings.model_fields_set else "default"
        origin = "command line" if name == "database_url" and database_url is not None else given
        print(f"{settings.variable(name)} = {_json(value)}  # {origin}")
    run(_show_tools(settings, tools, tenant))


async def _show_tools(settings: Settings, base: Mapping[str, ToolConfig], tenant: str) -> None:
    async with _tool_configs(settings, base) as tools, tools.holding(tenant, None):
        print(f"# overrides: {_overrides(tools, tenant)}")
        for config in tools.of(tenant):
            for path, value in shown_values(config).items():
                origin = config.provenance[path].name.lower()
                name = f"{config.tool}.{path}" if path == "enabled" else path
                print(f"{name} = {_json(value)}  # {origin}")


def check(database_url: str | None) -> None:
    settings, tools = configuration(database_url=database_url)
    check_certificate(settings)
    run(_check(settings, tools))


async def _check(settings: Settings, base: Mapping[str, ToolConfig]) -> None:
    await require_sound(settings, base)
    obstacle = await asyncio.to_thread(obstacle_to_file, settings)
    if obstacle:
        raise ValueError(f"{settings.variable('database_url')}: {obstacle}")
    async with _tool_configs(settings, base) as tools:
        warnings = await warnings_about(tools)
        print(f"overrides: {_overrides(tools, DEFAULT_TENANT)}")
    for warning in warnings:
        print(f"warning: {warning}")
    print(f"no problems; warnings: {len(warnings)}")


async def require_sound(settings: Settings, base: Mapping[str, ToolConfig]) -> None:
    """Raise SettingsError, MemorydError or ValueError where a server would not start so."""
    await check_exposure(exposure_of(settings), settings.variable)
    if settings.auth_file:
        await asyncio.to_thread(load_auth_file, Path(settings.auth_file))
    if settings.environment is Environment.PRODUCTION:
        await require_secrets(base, secrets())
    await asyncio.to_thread(embedder_of, settings)
    exporter = await asyncio.to_thread(exporter_of, os.environ)
    if exporter is not None:
        exporter.shutdown()


def obstacle_to_file(settings: Settings) -> str:
    """Why a server could not open or make its SQLite file; empty: nothing that can be seen."""
    if not settings.is_embedded:
        return ""
    url = driver_url(settings.database_url.get_secret_value())
    return "" if "uri" in url.query else path_obstacle(url.database or "") or ""


async def warnings_about(tools: ToolConfigs) -> list[str]:
    """What a server would start with and warn of."""
    providers = secrets()
    warnings = [
        f"{warning.path}: {warning.description}"
        for config in tools.of(DEFAULT_TENANT)
        for warning in await warnings_of(config, providers)
    ]
    unset = references_to_nothing().items()
    return warnings + [f".env: {name} {'; '.join(why)}" for name, why in unset]


@asynccontextmanager
async def _tool_configs(
    settings: Settings, base: Mapping[str, ToolConfig]
) -> AsyncIterator[ToolConfigs]:
    """The tools' configuration, with the database's overrides if it answers."""
    async with database_of(settings) as database:
        yield await tools_in(database, settings, base)


@asynccontextmanager
async def database_of(settings: Settings) -> AsyncIterator[Database]:
    """The database, which is not made where it is not there."""
    options = DatabaseOptions(pgbouncer=settings.database_pgbouncer, must_exist=True)
    database = Database(settings.database_url.get_secret_value(), options)
    try:
        yield database
    finally:
        await database.close()


async def tools_in(
    database: Database, settings: Settings, base: Mapping[str, ToolConfig]
) -> ToolConfigs:
    tools = tool_configs_of(database, settings, base)
    # A file that does not exist yet is no reason to complain.
    if not await asyncio.to_thread(settings.has_new_file):
        await tools.refresh()
    return tools


def _overrides(tools: ToolConfigs, tenant: str) -> str:
    if tools.stale_since(tenant) is not None:
        return f"not known: {tools.problem or 'there is no database yet'}"
    return f"at revision {tools.of(tenant).revision}"


def _without_secret(secret: SecretStr) -> str:
    """A database's URL without its secret parts; empty if it is not set."""
    url = secret.get_secret_value()
    return shown(url) if url else ""


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
