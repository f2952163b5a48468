"""Column types that mean the same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, DateTime, String, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Dialect

_CACHED_TIMES = 64
"""What one transaction writes has few times, each many times over."""


CODE_POINTS = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that sorts by code point, as SQLite's does anyway."""


def by_code_point(length: int) -> String:
    """Make the same of a text of limited length."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime: `timestamptz` on PostgreSQL, ISO text in UTC on SQLite.

    A naive datetime is refused: it does not say when it is.
    """

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = DateTime(timezone=True)
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        to_driver = _same if dialect.name == "postgresql" else _text

        def process(value: datetime | None) -> datetime | str | None:
            if value is None:
                return None
            if value.tzinfo is None:
                raise ValueError(f"a time without a time zone cannot be stored: {value!r}")
            return to_driver(value)

        return process

    def result_processor(
        self,
        dialect: Dialect,
        coltype: object,  # noqa: ARG002  as SQLAlchemy calls it
    ) -> Callable[[Any], Any]:
        from_driver = _utc if dialect.name == "postgresql" else _moment
        return lambda value: None if value is None else from_driver(value)


class CompactTime(UtcDateTime):
    """The same as microseconds since 1970: 8 bytes where a text takes 26."""

    impl = BigInteger
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:  # noqa: ARG002  the same on both
        return lambda value: None if value is None else (value - _EPOCH) // _MICROSECOND

    def result_processor(
        self,
        dialect: Dialect,  # noqa: ARG002  as SQLAlchemy calls it
        coltype: object,  # noqa: ARG002  as SQLAlchemy calls it
    ) -> Callable[[Any], Any]:
        return lambda value: None if value is None else _EPOCH + value * _MICROSECOND


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _same(value: datetime) -> datetime:
    return value


@lru_cache(_CACHED_TIMES)
def _text(value: datetime) -> str:
    """Such as `2026-01-02 03:04:05.678901`: in UTC, so that text sorts as time does."""
    if value.tzinfo is not UTC:
        value = value.astimezone(UTC)
    return value.isoformat(" ", "microseconds").removesuffix("+00:00")


def _utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
