"""The documents at and below a namespace, by name."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, func, or_, select

from memoryd.database import statements
from memoryd.database.tables import documents
from memoryd.documents import rows
from memoryd.domain.documents import after_namespaces

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import BindParameter, ColumnElement, Connection, Select, Table

    from memoryd.domain.documents import Document, DocumentName
    from memoryd.domain.records import Session


def read_next(
    connection: Connection,
    session: Session,
    prefix: str,
    *,
    after: DocumentName | None,
    how_many: int,
    now: datetime,
) -> Sequence[Document]:
    """The next documents by name, without bodies."""
    parameters = {**session._asdict(), **range_of(prefix), "now": now, "how_many": how_many}
    if after is not None:
        parameters |= {"after_namespace": after.namespace, "after_key": after.key}
    statement = _listing(bool(prefix), after is not None)
    return [*map(rows.document_of, statements.fetch(connection, statement, parameters))]


def count_documents(connection: Connection, session: Session, prefix: str, now: datetime) -> int:
    """Count those of namespaces that begin with a prefix."""
    below = is_below(documents, has_prefix=bool(prefix))
    statement = select(func.count()).select_from(documents).where(below, rows.live())
    parameters = {**session._asdict(), **range_of(prefix), "now": now}
    return int(connection.execute(statement, parameters).scalar_one())


def range_of(prefix: str) -> dict[str, str]:
    """The parameters of `is_below`."""
    return {"first": prefix, "end": after_namespaces(prefix)} if prefix else {}


def is_below(table: Table, *, has_prefix: bool) -> ColumnElement[bool]:
    """Whether a row is of the session and, given a prefix, at or below that namespace."""
    of_session = and_(
        table.c.tenant == bindparam("tenant"), table.c.session_id == bindparam("session_id")
    )
    if not has_prefix:
        return of_session
    namespace = table.c.namespace
    return and_(of_session, namespace >= bindparam("first"), namespace < bindparam("end"))


@cache
def _listing(has_prefix: bool, has_after: bool) -> Select[Any]:  # noqa: FBT001  cache keys
    d = documents.c
    conditions = [is_below(documents, has_prefix=has_prefix), rows.live()]
    if has_after:
        at: BindParameter[str] = bindparam("after_namespace")
        conditions += [
            d.namespace >= at,
            or_(d.namespace > at, d.key > bindparam("after_key")),
        ]
    return (
        select(*rows.OUTLINE)
        .where(*conditions)
        .order_by(d.namespace, d.key)
        .limit(bindparam("how_many"))
    )
