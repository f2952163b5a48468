"""The file of an embedded database."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


def connect_name(url: URL) -> str:
    """What SQLite is to open: a path, or a `file:` URI."""
    arguments, _ = url.get_dialect()().create_connect_args(url)
    return str(arguments[0])
