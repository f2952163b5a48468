"""The table of methods: what differs between RPCs stands in a row of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from memoryd.rpc.violations import Violations

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from google.protobuf.message import Message

    from memoryd.domain.audit import Audited
    from memoryd.domain.principals import Scope
    from memoryd.rpc.access import Anyone
    from memoryd.rpc.call import Call

WRITE_WEIGHT = 2
SEARCH_WEIGHT = 5
BULK_WEIGHT = 20
"""Of methods that write, that read many memories, and that work on any number of them."""

RecordT = TypeVar("RecordT")


@dataclass(frozen=True, slots=True)
class Method(Generic[RecordT]):
    """A row: how a request is validated, and what serves it.

    An RPC is added by its proto, a parser, a handler, and a row in the table of its service.
    """

    parse: Callable[[Any, Call, Violations], RecordT]
    """Gives the record of a request, and adds what is wrong with it beyond the protos' rules.

    It sees requests that break these rules too, and runs in a thread where a request is large.
    """
    handle: Callable[[RecordT, Call], Any]
    """A coroutine function that returns the answer, or an asynchronous generator of answers."""
    needs: Scope | Anyone
    """Of the caller. A request may need more, which `parse` then requires."""
    audited: Audited
    """When its calls leave lines in the audit."""
    weight: int = 1
    """How much a call counts of the calls a second that a tenant may make."""
    check_size: Callable[[Any, Violations], None] | None = None
    """Adds what is too large to be validated at all."""
    is_plain: Callable[[Any], bool] | None = None
    """Whether a request certainly keeps the protos' rules, which takes a fraction of the time of
    the rules' engine; that is then not asked. None: it always is."""
    holds: Callable[[Call], AbstractAsyncContextManager[None]] | None = None
    """What has to be in memory from before a request is parsed until its call has ended."""
    waits_for_commit: bool = False
    """Whether it is refused unread while more writes wait than are soon done."""


def is_any(request: Message) -> bool:
    """Of messages without rules, such as those of gRPC itself."""
    del request
    return True


def as_it_is(request: Message, call: Call, violations: Violations) -> Message:
    """Parse the request of a method that takes the message itself."""
    del call, violations
    return request


def validated(method: Method[RecordT], request: Message, call: Call) -> RecordT:
    """Give the record of a request. Raises InvalidRequest with every violation."""
    violations = Violations()
    if method.check_size is not None:
        method.check_size(request, violations)
        violations.check()
    if method.is_plain is None or not method.is_plain(request):
        violations.add_rules(request)
    record = method.parse(request, call, violations)
    violations.check()
    return record
