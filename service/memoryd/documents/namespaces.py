"""Namespaces that hold a document: found by skipping through the index, matched and cut here."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, select

from memoryd.database import statements
from memoryd.database.tables import documents
from memoryd.documents import rows
from memoryd.domain.documents import after_namespaces, labels_of, namespace_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import BindParameter, Connection, Select

    from memoryd.database.dialect import Dialect
    from memoryd.domain.records import Session

ANY_LABEL = "*"
"""In a pattern, stands for any one label."""

CHUNK = 500
"""Namespaces that one statement reads."""

SCAN_LIMIT = 10_000
"""Namespaces that one page looks at; a page whose pattern matches few ends before it is full."""


_SESSION = (documents.c.tenant, documents.c.session_id)


class Pattern(NamedTuple):
    """Which namespaces are wanted, and how they are answered."""

    prefix: Sequence[str]
    suffix: Sequence[str]
    max_depth: int
    """Labels of an answer; 0: all."""

    def matches(self, labels: Sequence[str]) -> bool:
        size = len(self.suffix)
        return _fit(self.prefix, labels[: len(self.prefix)]) and (
            not size or _fit(self.suffix, labels[-size:])
        )

    @property
    def beginning(self) -> str:
        """What every namespace that matches begins with."""
        literal = []
        for label in self.prefix:
            if label == ANY_LABEL:
                break
            literal.append(label)
        return namespace_of(literal)


class Bound(NamedTuple):
    """Where to go on."""

    namespace: str
    is_within: bool
    """Whether the namespace itself is meant as well."""


def read_namespaces(
    connection: Connection,
    dialect: Dialect,
    sessions: Sequence[Session],
    pattern: Pattern,
    *,
    after: Bound | None,
    size: int,
    now: datetime,
) -> tuple[list[Sequence[str]], Bound | None]:
    """Read the next namespaces of some sessions, and where to go on; None: these were the last."""
    page = _Page(pattern, after or Bound(pattern.beginning, is_within=True), size)
    scanned = 0
    while sessions:
        chunk = _read(connection, dialect, sessions, page.bound, now)
        if page.take(chunk):
            return page.found, page.bound
        scanned += len(chunk)
        if len(chunk) < CHUNK or not chunk[-1].startswith(pattern.beginning):
            break
        if scanned >= SCAN_LIMIT:
            return page.found, page.bound
    return page.found, None


class _Page:
    """What is answered, and how far that is."""

    def __init__(self, pattern: Pattern, bound: Bound, size: int) -> None:
        self._pattern = pattern
        self._size = size
        self.bound = bound
        self.found: list[Sequence[str]] = []

    def take(self, chunk: Iterable[str]) -> bool:
        """Take what matches of the next namespaces, in order; answer whether there was no room."""
        depth = self._pattern.max_depth
        for namespace in chunk:
            if namespace < self.bound.namespace:
                continue  # cut, it has been answered
            labels = labels_of(namespace)
            is_wanted = self._pattern.matches(labels)
            if is_wanted and len(self.found) == self._size:
                return True
            self.bound = Bound(namespace, is_within=False)
            if is_wanted and depth and len(labels) >= depth:
                labels = labels[:depth]
                self.bound = Bound(after_namespaces(namespace_of(labels)), is_within=True)
            if is_wanted:
                self.found.append(labels)
        return False


def _fit(pattern: Sequence[str], labels: Sequence[str]) -> bool:
    return len(pattern) == len(labels) and all(
        wanted in {ANY_LABEL, label} for wanted, label in zip(pattern, labels, strict=True)
    )


def _read(
    connection: Connection,
    dialect: Dialect,
    sessions: Sequence[Session],
    bound: Bound,
    now: datetime,
) -> list[str]:
    parameters = {
        **dialect.bind(_SESSION, sorted(sessions)),
        "from_namespace": bound.namespace,
        "how_many": CHUNK,
        "now": now,
    }
    statement = _distinct(dialect, bound.is_within)
    found = statements.fetch(connection, statement, parameters)
    # Each shard's are in order, and another's come after it.
    return sorted({row[0] for row in found})[:CHUNK]


@cache
def _distinct(dialect: Dialect, is_within: bool) -> Select[Any]:  # noqa: FBT001  a cache key
    namespace = documents.c.namespace
    beginning: BindParameter[str] = bindparam("from_namespace")
    from_there = namespace >= beginning if is_within else namespace > beginning
    found = dialect.look_up(_SESSION, (namespace,), from_there, rows.live()).subquery()
    return (
        select(found.c.namespace)
        .distinct()
        .order_by(found.c.namespace)
        .limit(bindparam("how_many"))
    )
