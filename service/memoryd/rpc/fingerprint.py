"""What tells a retry from another use of the same `request_id`."""

from __future__ import annotations

import hashlib
from typing import Any


def fingerprint_of(request: Any) -> str:
    """SHA-256 of all arguments but the request_id."""
    request_id = request.request_id
    request.ClearField("request_id")
    arguments = request.SerializeToString(deterministic=True)
    request.request_id = request_id
    return hashlib.sha256(arguments).hexdigest()
