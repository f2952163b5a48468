"""Who is signed in: a cookie that only servers with the same secret can read."""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if TYPE_CHECKING:
    from collections.abc import Callable

LIFE = timedelta(hours=12)
"""After which one has to sign in again."""

COOKIE = "memoryd-console"

_NONCE_BYTES = 12
_PURPOSE = b"memoryd console cookie"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What the cookie holds."""

    key: str
    """The credential; empty where none is asked for."""
    end: datetime
    token: str
    """What every change has to show, since other sites cannot know it."""

    def __repr__(self) -> str:
        return f"SignedIn(end={self.end})"  # without what opens doors


class Cookies:
    """Seals cookies, and reads them."""

    def __init__(self, secret: str, clock: Callable[[], datetime]) -> None:
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE)
        self._cipher = AESGCM(derived.derive(secret.encode()))
        self._clock = clock

    def sealed(self, key: str) -> str:
        """A new one for who shows this credential."""
        found = {
            "key": key,
            "end": (self._clock() + LIFE).timestamp(),
            "token": secrets.token_urlsafe(24),
        }
        nonce = os.urandom(_NONCE_BYTES)
        data = nonce + self._cipher.encrypt(nonce, json.dumps(found).encode(), _PURPOSE)
        return base64.urlsafe_b64encode(data).decode()

    def read(self, text: str) -> SignedIn | None:
        """None for what is not ours, and for what has ended."""
        try:
            data = base64.b64decode(text.encode(), altchars=b"-_", validate=True)
            opened = self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _PURPOSE)
        except (binascii.Error, UnicodeEncodeError, ValueError, InvalidTag):
            return None
        found = json.loads(opened)
        end = datetime.fromtimestamp(found["end"], UTC)
        return None if end <= self._clock() else SignedIn(found["key"], end, found["token"])
