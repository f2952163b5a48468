"""Whether the service's role on PostgreSQL is one that tenants are kept from each other for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from memoryd.database.dialect import RowSecurity

_log = logging.getLogger(__name__)


def check_role(state: RowSecurity, variable: Callable[[str], str], *, may_refuse: bool) -> None:
    """Warn where the database lets a statement see every tenant, or refuse to serve then.

    `variable` gives the name of a setting's variable. Raises ValueError, with the remedies.
    """
    problem = role_problem(state, variable)
    if problem and (state.bypassing_role or state.obstacle) and may_refuse:
        raise ValueError(problem)
    if problem:
        _log.warning(problem)


def role_problem(state: RowSecurity, variable: Callable[[str], str]) -> str:
    """Why the database lets a statement see every tenant, and the remedies; empty if it does not.

    `variable` gives the name of a setting's variable.
    """
    if not state.has_it:
        return ""
    if state.obstacle:
        return (
            f"row-level security does not hold: {state.obstacle}, so the database does not keep"
            f" tenants apart; set {variable('rls')}=off if the service alone may (docs/citus.md)"
        )
    if state.bypassing_role:
        return (
            f"row-level security does not hold for the role {state.bypassing_role!r} of"
            f" {variable('database_url')}, which is a superuser or has BYPASSRLS, so the database"
            " does not keep tenants apart; serve with another role"
            f" (docs/postgresql.md), or set {variable('rls')}=off"
        )
    if not state.is_on:
        return (
            "row-level security is not on, so the database does not keep tenants apart; run"
            " `memoryd migrate` once no server of an earlier release is running, or set"
            f" {variable('rls')}=off"
        )
    return ""
