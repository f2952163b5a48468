"""Documents: records, the limits of their names and labels, and namespaces as sortable text.

A namespace is kept as one text, each label ended by a character that no label holds and that sorts
before all that one may hold. So texts sort as namespaces do, label by label, and all namespaces
that begin with the same labels are one range.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    from memoryd.domain.records import Change, Session

MAX_NAMESPACE_LABELS = 19
MAX_LABEL_CHARACTERS = 255
MAX_KEY_CHARACTERS = 512

MAX_NAME_BYTES = 1_024
"""Of a namespace's labels and the key together, in UTF-8."""

MAX_BODY_BYTES = 1_048_576

MAX_SEARCH_TEXTS = 64
MAX_SEARCH_TEXT_CHARACTERS = 16_384

MAX_LABELS = 64
MAX_LABEL_KEY_CHARACTERS = 63
MAX_LABEL_VALUE_CHARACTERS = 255

MAX_WRITES = 1_000
"""Writes of one batch, and names of one read, as the contract has it."""

LABEL_END = "\x01"
"""Ends each label of a namespace that is kept as text."""

_AFTER_LABEL_END = "\x02"

_has_control = re.compile(r"[\x00-\x1f\x7f-\x9f]").search
_is_clean_key = re.compile(rf"[^\x00-\x1f\x7f-\x9f]{{1,{MAX_KEY_CHARACTERS}}}").fullmatch
_is_clean_namespace = re.compile(
    rf"(?:[^\x00-\x1f\x7f-\x9f]{{1,{MAX_LABEL_CHARACTERS}}}{LABEL_END}){{0,{MAX_NAMESPACE_LABELS}}}"
).fullmatch
_is_label_key = re.compile(rf"[a-z0-9._/-]{{1,{MAX_LABEL_KEY_CHARACTERS}}}").fullmatch


class DocumentName(NamedTuple):
    """Names a document within its session."""

    namespace: str
    """As text; see `namespace_of`."""
    key: str

    def __str__(self) -> str:
        return "/".join([*labels_of(self.namespace), self.key])


class BodyKind(enum.StrEnum):
    """What a body is, as the database spells it."""

    JSON = "json"
    TEXT = "text"
    DATA = "data"


class Document(NamedTuple):
    """One version of a document."""

    session: Session
    name: DocumentName
    kind: BodyKind
    labels: Mapping[str, str]
    ttl: timedelta | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    revision: int
    change: Change
    size: int
    """Bytes of the body."""
    sha256: str
    body: bytes | None
    """None where it was not read."""

    @property
    def etag(self) -> str:
        """Opaque; the revision rises with every change that a caller can see."""
        return f"r{self.revision}"

    def is_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class NewDocument(NamedTuple):
    """A document to put, checked and hashed."""

    name: DocumentName
    kind: BodyKind
    body: bytes
    sha256: str
    labels: Mapping[str, str]
    ttl: timedelta | None
    search_texts: tuple[str, ...]
    etag: str = ""
    if_absent: bool = False
    field: str = ""
    """Where in the call it stands (`writes[3]`), for what only the store can see."""


class Removal(NamedTuple):
    """A document to delete."""

    name: DocumentName
    etag: str = ""
    allow_missing: bool = False
    field: str = ""


class DocumentEvent(NamedTuple):
    """One change of a session's documents."""

    revision: int
    change: Change
    name: DocumentName
    document: Document | None
    """As it was after the change; None where it is gone."""


def namespace_of(labels: Iterable[str]) -> str:
    """Give a namespace as text."""
    return LABEL_END.join((*labels, ""))


def labels_of(namespace: str) -> Sequence[str]:
    """Give the labels of a namespace that is kept as text."""
    return namespace.split(LABEL_END)[:-1]


def after_namespaces(prefix: str) -> str:
    """Give what sorts right after all namespaces that begin with some labels, at least one."""
    return prefix[: -len(LABEL_END)] + _AFTER_LABEL_END


def problems_with_namespace(labels: Sequence[str], field: str) -> Iterator[tuple[str, str]]:
    """Give the field of each broken rule of a namespace, and what is wrong."""
    if len(labels) > MAX_NAMESPACE_LABELS:
        yield field, f"must have at most {MAX_NAMESPACE_LABELS} labels; this has {len(labels):,}"
        return
    for place, label in enumerate(labels):
        if not 1 <= len(label) <= MAX_LABEL_CHARACTERS or _has_control(label):
            yield (
                f"{field}[{place}]",
                f"must be 1 to {MAX_LABEL_CHARACTERS} characters without control characters",
            )


def is_clean_name(name: DocumentName, label_count: int) -> bool:
    """Whether a name has none of the problems of `problems_with_name`, in a fraction of the time.

    `label_count`: of its namespace, since a label that holds LABEL_END reads as two.
    """
    namespace, key = name
    return (
        _is_clean_key(key) is not None
        and _is_clean_namespace(namespace) is not None
        and namespace.count(LABEL_END) == label_count
        and len(namespace.encode()) - label_count + len(key.encode()) <= MAX_NAME_BYTES
    )


def problems_with_name(
    labels: Sequence[str], key: str, prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """As `problems_with_namespace`, of a whole name; `prefix` stands before the fields."""
    found = [*problems_with_namespace(labels, f"{prefix}namespace")]
    if not 1 <= len(key) <= MAX_KEY_CHARACTERS or _has_control(key):
        found.append(
            (
                f"{prefix}key",
                f"must be 1 to {MAX_KEY_CHARACTERS} characters without control characters",
            )
        )
    size = 0 if found else len(key.encode()) + sum(len(label.encode()) for label in labels)
    if size > MAX_NAME_BYTES:
        rule = f"must be, with the namespace's labels, at most {MAX_NAME_BYTES:,} bytes in UTF-8"
        found.append((f"{prefix}key", f"{rule}; these are {size:,}"))
    return iter(found)


def problem_with_labels(labels: Mapping[str, str]) -> str | None:
    """Say what is wrong with a caller's labels; None if nothing is."""
    if len(labels) > MAX_LABELS:
        return f"must have at most {MAX_LABELS} entries; this has {len(labels):,}"
    for key, value in labels.items():
        if _is_label_key(key) is None:
            return (
                f"must have keys of 1 to {MAX_LABEL_KEY_CHARACTERS} characters of a-z 0-9 . _ / -"
            )
        if len(value) > MAX_LABEL_VALUE_CHARACTERS or "\x00" in value:
            return (
                f"must have values of at most {MAX_LABEL_VALUE_CHARACTERS} characters without NUL"
            )
    return None
