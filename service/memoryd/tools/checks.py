"""What a valid configuration still lacks: recipients, endpoints, secrets that resolve."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from memoryd.settings.reading import Problem, SettingsError
from memoryd.tools.secrets import (
    REFERENCE_FORMS,
    RESOLVE_TIMEOUT_SECONDS,
    SecretUnavailableError,
)
from memoryd.tools.settings import (
    LOST_LITERAL,
    ApiSettings,
    ConfigWarning,
    EscalationSettings,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memoryd.tools.secrets import SecretReference, Secrets
    from memoryd.tools.settings import ToolConfig

START_TIMEOUT_SECONDS: Final = 15.0
"""How long the start waits for the providers of secrets; no caller waits yet."""


async def warnings_of(config: ToolConfig, secrets: Secrets) -> list[ConfigWarning]:
    """List the warnings about a valid configuration.

    Waits for a secret's provider as long as `Secrets.resolve` does.
    """
    tool, settings = config.tool, config.settings

    def warning(name: str, problem: str, remedy: str) -> ConfigWarning:
        return ConfigWarning(f"{tool}.{name}", f"{problem}; {remedy}")

    warnings = list(config.set_aside)
    if (
        isinstance(settings, EscalationSettings)
        and settings.notification_enabled
        and not (settings.notification_email or settings.notification_webhook)
    ):
        remedy = "set notification_email or notification_webhook, or switch notifications off"
        problem = "notifications are on, but have no recipient"
        warnings.append(warning("notification_enabled", problem, remedy))
    if isinstance(settings, ApiSettings):
        for name in ("api_endpoint", "api_key"):
            if config.enabled and not getattr(settings, name):
                remedy = f"set {settings.variable(name)}, or disable the tool"
                warnings.append(warning(name, f"{tool} is enabled without {name}", remedy))
        if unavailable := await _unavailable(settings.api_key, secrets):
            problem = f"{settings.api_key.source} resolves to nothing: {unavailable.reason}"
            warnings.append(warning("api_key", problem, unavailable.remedy))
        elif stale := secrets.refresh_failure(settings.api_key):
            source = settings.api_key.source
            problem = f"{source} cannot be refreshed, its last value stays in use: {stale.reason}"
            warnings.append(warning("api_key", problem, stale.remedy))
    return warnings


async def require_secrets(configs: Mapping[str, ToolConfig], secrets: Secrets) -> None:
    """Raise `SettingsError` with every reference that resolves to nothing: production's rule.

    Disabled tools count too, since callers may enable them while the service runs.
    """
    with_key = [
        config.settings for config in configs.values() if isinstance(config.settings, ApiSettings)
    ]
    found = await asyncio.gather(
        *(
            _unavailable(settings.api_key, secrets, timeout=START_TIMEOUT_SECONDS)
            for settings in with_key
        )
    )
    problems = [
        Problem(
            settings.variable("api_key"),
            settings.api_key.source,
            f"resolves to nothing: {unavailable.reason}",
            unavailable.remedy,
        )
        for settings, unavailable in zip(with_key, found, strict=True)
        if unavailable
    ]
    if problems:
        raise SettingsError(problems)


async def _unavailable(
    reference: SecretReference, secrets: Secrets, *, timeout: float = RESOLVE_TIMEOUT_SECONDS
) -> SecretUnavailableError | None:
    """Why a reference resolves to nothing; None where it resolves or is empty."""
    if not reference:
        return None
    if reference == LOST_LITERAL:
        return SecretUnavailableError(
            "it was given at run time to another process, which alone has it",
            f"give a reference: {REFERENCE_FORMS}",
        )
    try:
        await secrets.resolve(reference, timeout=timeout)
    except SecretUnavailableError as error:
        return error
    return None
