"""The way to the pages, which loads them when the first one is asked for."""

from __future__ import annotations

import asyncio
from importlib import import_module
from secrets import token_urlsafe
from typing import TYPE_CHECKING

from memoryd.console.once import OnceLink, code_of, path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from memoryd.console.app import Console
    from memoryd.rpc.pipeline import Handler


class ConsoleDoor:
    """Gives the console of a server."""

    def __init__(
        self,
        handlers: Mapping[bytes, Handler],
        *,
        secret: str,
        asks_for_key: bool,
        is_read_only: bool,
        folder: Path | None,
        clock: Callable[[], datetime],
        half_life_days: float,
    ) -> None:
        """`secret` encrypts cookies; empty: a new one.

        `folder`: which workers of the server share; None: it has none.
        """
        secret = secret or token_urlsafe(32)
        code = None if asks_for_key else code_of(secret, folder)
        self._link = None if code is None else OnceLink(code, folder)
        self._handlers = handlers
        self._secret = secret
        self._is_read_only = is_read_only
        self._clock = clock
        self._half_life_days = half_life_days
        self._console: Console | None = None
        self.grpc_port = 0
        """Where gRPC is served, once it is; for pages that say how to call it."""
        self.path = "/" if code is None else path_of(code)
        """Where the console is entered; with what signs in once, where no credential is."""

    async def load(self) -> Console:
        """The same each time."""
        if self._console is None:
            # In a thread, since it takes a while.
            module = await asyncio.to_thread(import_module, "memoryd.console.app")
            self._console = self._console or module.Console(
                self._handlers,
                secret=self._secret,
                once=self._link,
                clock=self._clock,
                is_read_only=self._is_read_only,
                half_life_days=self._half_life_days,
                grpc_port=self.grpc_port,
            )
        return self._console
