"""Whose things a list is about: those of a session, or of several by the beginning of their ids."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from memoryd.domain.sessions import TenantRange

if TYPE_CHECKING:
    from memoryd.domain.records import Session
    from memoryd.rpc.call import Call
    from memoryd.rpc.violations import Violations

_begins_session_id = re.compile(r"[A-Za-z0-9._:@-]{0,255}").fullmatch


def scope_of(request: Any, call: Call, violations: Violations) -> Session | TenantRange:
    """Of a request that has either `session_id` or `session_id_prefix`."""
    if request.HasField("session_id_prefix"):
        if _begins_session_id(request.session_id_prefix) is None:
            violations.add(
                "session_id_prefix",
                "must be the beginning of a session id, of A-Z a-z 0-9 . _ : @ -, or empty",
            )
        sessions = call.sessions_beginning_with(request.session_id_prefix)
        return TenantRange(call.principal.tenant, sessions)
    return call.session(request.session_id)
