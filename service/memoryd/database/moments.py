"""The time of a read, and what has expired by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select

from memoryd.database.types import UtcDateTime

if TYPE_CHECKING:
    from sqlalchemy import Column, ColumnElement

NOW = bindparam("now", type_=UtcDateTime)
"""The read's own time."""


def expired(column: Column[Any]) -> ColumnElement[bool]:
    """What has expired by NOW, among the rows of a session.

    The planner is not to see the time itself. It would find that hardly a row has expired, and
    take the sweeper's index, which holds what has expired in all sessions.
    """
    return column <= select(NOW).scalar_subquery()
