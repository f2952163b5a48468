"""A link that signs in once, for a server that asks for no credential."""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_USED = "console-link-used"


def code_of(secret: str, folder: Path | None) -> str:
    """The code of a server. `folder`: as `OnceLink` has it, new with each start."""
    if folder is None:
        return secrets.token_urlsafe(24)
    return hmac.new(secret.encode(), folder.name.encode(), "sha256").hexdigest()


def path_of(code: str) -> str:
    return f"/sign-in?once={code}"


class OnceLink:
    """The code of the link that a server prints."""

    def __init__(self, code: str, folder: Path | None) -> None:
        """`folder`: which workers of the server share; None: it has none."""
        self._code = code
        self._folder = folder
        self._is_used = False

    def is_right(self, code: str) -> bool:
        """Whether the link would sign in."""
        return secrets.compare_digest(code.encode(), self._code.encode()) and not self._is_spent()

    def use(self, code: str) -> bool:
        """Whether it signs in, which it does no second time."""
        if not self.is_right(code):
            return False
        self._is_used = True
        if self._folder is None:
            return True
        try:
            (self._folder / _USED).touch(exist_ok=False)  # one worker alone makes it
        except FileExistsError:
            return False
        return True

    def _is_spent(self) -> bool:
        return self._is_used or (self._folder is not None and (self._folder / _USED).exists())
