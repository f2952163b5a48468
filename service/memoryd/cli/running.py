"""What all commands do alike: read the settings, log, run to the end, and fail with a message."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from memoryd.domain.errors import MemorydError
from memoryd.domain.principals import InvalidGrant
from memoryd.logs import logging_to
from memoryd.rpc.endpoint import EndpointFailed
from memoryd.settings.reading import (
    SettingsError,
    merge_variables,
    refers_to,
    unset_references,
)
from memoryd.tools.secrets import Secrets
from memoryd.tools.settings import load_configuration
from memoryd.workers import WorkersFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from contextlib import AbstractContextManager

    from memoryd.settings.service import Settings
    from memoryd.tools.settings import ToolConfig

T = TypeVar("T")

SIGNAL_EXIT_BASE = 128
"""Plus a signal's number: the exit code of a process that the signal ended, as in shells."""

DOTENV = Path(".env")


def configuration(**flags: object) -> tuple[Settings, Mapping[str, ToolConfig]]:
    """Read the settings of the service and of the tools; end the process where they are bad."""
    try:
        return load_configuration(environ=os.environ, dotenv=DOTENV, flags=flags)
    except SettingsError as error:
        fail(str(error))


def check_certificate(settings: Settings) -> None:
    """End the process where TLS is configured, and a server would not start with its files."""
    files = settings.tls_files()
    if files is None:
        return
    from memoryd.certificates import CertificateFault, usable_pair

    try:
        usable_pair(files)
    except CertificateFault as fault:
        fail(str(fault))


def secrets() -> Secrets:
    """Every provider of secrets, over the variables of the environment and of `.env`."""
    return Secrets.built_in(
        merge_variables(environ=os.environ, dotenv=DOTENV),
        without_value=references_to_nothing(),
    )


def references_to_nothing() -> dict[str, tuple[str, str]]:
    """The variables of `.env` that refer to unset ones: reason and remedy, by their name."""
    unset = unset_references(environ=os.environ, dotenv=DOTENV)
    return {name: refers_to(names) for name, names in unset.items()}


def logging(settings: Settings) -> AbstractContextManager[None]:
    """Log to standard error as the settings say."""
    return logging_to(level=settings.log_level, as_json=settings.log_format == "json")


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run `work`. An error that the operator can mend ends the process with a message."""
    loop_factory = None
    if sys.platform != "win32":
        import uvloop  # there is none for Windows

        loop_factory = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(_cancelled_by_sigterm(work))
    except asyncio.CancelledError:
        print("memoryd: SIGTERM ended the command before it was done", file=sys.stderr)
        raise SystemExit(SIGNAL_EXIT_BASE + signal.SIGTERM) from None
    except MemorydError as error:
        fail(error.for_operator)
    except BrokenPipeError:  # whoever reads what is printed has enough
        raise
    except (SettingsError, WorkersFailed, EndpointFailed, OSError, ValueError) as error:
        fail(str(error))


async def _cancelled_by_sigterm(work: Coroutine[Any, Any, None]) -> None:
    """Have SIGTERM cancel the work, as SIGINT does, so that it leaves nothing half done."""
    task = asyncio.current_task()
    if task is not None and sys.platform != "win32":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await work


def fail(message: str) -> NoReturn:
    print(f"memoryd: {message}", file=sys.stderr)
    raise SystemExit(1)


def checked(option: str, make: Callable[[], T]) -> T:
    """Give what is made of an option's value; end the process where it is no such value."""
    try:
        return make()
    except InvalidGrant as error:
        fail(f"{option}: {error}")
