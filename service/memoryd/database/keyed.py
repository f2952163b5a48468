"""Rows that are looked up by many keys in one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memoryd.database import statements

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Column, Connection, Select

    from memoryd.database.dialect import Dialect


def fetch_keyed(
    connection: Connection,
    dialect: Dialect,
    statement: Select[Any],
    key: tuple[Column[Any], ...],
    wanted: Iterable[tuple[Any, ...]],
    **parameters: Any,
) -> Sequence[Sequence[Any]]:
    """Read the rows of keys; nothing is sent if there are none.

    `statement` is one of `Dialect.look_up` for the columns of `key`.
    """
    in_order = sorted(wanted)
    if not in_order:
        return ()
    bound = dialect.bind(key, in_order)
    return statements.fetch(connection, statement, {**bound, **parameters})
