"""Lines of the audit: what they say, and the chain that they form. Pure."""

from __future__ import annotations

import enum
import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIRST_HASH = "0" * 64
"""In the place of the hash before the first line."""

MAX_PRINCIPAL_CHARACTERS = 255
"""What is kept of a principal's name: a token's subject may be longer."""

MAX_SESSION_REFS = 16
"""Sessions of one call that its line refers to; of more it has the first ones and how many."""


class AuditMode(enum.StrEnum):
    """Which calls leave a line."""

    OFF = "off"
    """None."""
    CHANGES = "changes"
    """Those that the table of methods calls changes, and refusals."""
    ALL = "all"
    """Every one but checks of health."""


class Audited(enum.Enum):
    """When a method's calls leave lines. It stands in the method's row."""

    NEVER = enum.auto()
    """Not even where every call does."""
    IN_ALL = enum.auto()
    """Only where every call does."""
    AFTER = enum.auto()
    """As a change, once it is done."""
    BEFORE = enum.auto()
    """As a change, once before it is done and once after: without the first line it is not done."""


class Kind(enum.StrEnum):
    """What a line tells."""

    BEGUN = "begun"
    """A call that is about to be done."""
    ENDED = "ended"
    """A call that has ended, and how."""
    REFUSED = "refused"
    """Calls that were refused alike, gathered."""
    WOULD_REFUSE = "would_refuse"
    """Calls that `MEMORYD_AUTH=required` would refuse alike, gathered."""


class Event(NamedTuple):
    """What a line is made of before it has its place in the chain."""

    time: datetime
    kind: Kind
    tenant: str = ""
    """Whose line it is: the tenant that the call was about."""
    principal: str = ""
    principal_tenant: str = ""
    """The caller's, where it is another one."""
    key_id: str = ""
    peer: str = ""
    method: str = ""
    code: str = ""
    reason: str = ""
    request_id: str = ""
    receipt_id: str = ""
    """The same in all lines of a call."""
    target: str = ""
    """What was changed, such as `api_keys/0123456789AB`."""
    sessions: Sequence[str] = ()
    """Ids, at most MAX_SESSION_REFS; the line has references in their place."""
    counts: Mapping[str, int] = {}


class Line(NamedTuple):
    """One line in its place."""

    seq: int
    time: datetime
    tenant: str
    event: str
    """Canonical JSON of all of the line but its hash."""
    hash: str


def line_of(event: Event, refs: Sequence[str], seq: int, previous_hash: str) -> Line:
    """Put an event into its place behind the line with a hash."""
    fields: dict[str, Any] = {
        "seq": seq,
        "time": _text(event.time),
        "kind": event.kind.value,
        "tenant": event.tenant,
        "principal": event.principal[:MAX_PRINCIPAL_CHARACTERS],
        "principal_tenant": event.principal_tenant,
        "key_id": event.key_id,
        "peer": event.peer,
        "method": event.method,
        "code": event.code,
        "reason": event.reason,
        "request_id": event.request_id,
        "receipt_id": event.receipt_id,
        "target": event.target,
        "session_refs": list(refs),
        "counts": dict(event.counts),
        "previous_hash": previous_hash,
    }
    text = canonical({name: value for name, value in fields.items() if value not in ("", [], {})})
    return Line(seq, event.time, event.tenant, text, hash_of(text))


def canonical(fields: Mapping[str, Any]) -> str:
    """JSON as RFC 8785 has it: names in order, no spaces, no escapes but those that must be."""
    text = json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    # Halves of surrogate pairs are no characters: a token's claim may have one all the same.
    return text.encode("utf-8", "replace").decode()


def hash_of(event: str) -> str:
    return hashlib.sha256(event.encode()).hexdigest()


def fields_of(line: Line) -> dict[str, Any]:
    """Give a line by its fields. Raises ValueError where its text is no JSON object."""
    fields = json.loads(line.event)
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  as for any other text that is none
    return {**fields, "hash": line.hash}


def problem_of(line: Line, expected_seq: int, previous_hash: str) -> str:
    """What is wrong with a line that should follow the one with a hash; empty: nothing."""
    if line.seq != expected_seq:
        return f"the lines from {expected_seq} to {line.seq - 1} are missing"
    try:
        fields = json.loads(line.event)
        agree = (fields["seq"], fields["time"], fields.get("tenant", "")) == (
            *(line.seq, _text(line.time)),
            line.tenant,
        )
        named = fields["previous_hash"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "it was changed: it is no line of an audit"
    if hash_of(line.event) != line.hash:
        return "it was changed: its hash is not that of what it says"
    if not agree:
        return "it was changed: its columns are not what it says"
    if named != previous_hash:
        return "it does not follow the line before it: one of the two was changed or moved"
    return ""


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
