"""Parses requests of DocumentService into records."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from memoryd.documents.filters import DocumentFilter
from memoryd.documents.namespaces import Bound, Pattern
from memoryd.documents.writes import MoveDocuments, WriteDocuments
from memoryd.domain import documents as limits
from memoryd.domain.documents import (
    BodyKind,
    DocumentName,
    NewDocument,
    Removal,
    is_clean_name,
    namespace_of,
    problem_with_labels,
    problems_with_name,
    problems_with_namespace,
)
from memoryd.domain.json_text import problem_with_json
from memoryd.retrieval.document_search import Search
from memoryd.rpc import page_token
from memoryd.rpc.call import stop_if_gone
from memoryd.rpc.conditions import check_size, parse_conditions
from memoryd.rpc.fingerprint import fingerprint_of
from memoryd.rpc.memories import messages as convert
from memoryd.rpc.scopes import scope_of
from memoryd.v1 import document_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memoryd.domain.records import Session
    from memoryd.domain.sessions import TenantRange
    from memoryd.rpc.call import Call
    from memoryd.rpc.violations import Violations

    _Filtered = (
        document_pb2.ListDocumentsRequest
        | document_pb2.ExportDocumentsRequest
        | document_pb2.SearchDocumentsRequest
    )

DEFAULT_LIMIT = 10
MAX_LIMIT = 100
"""Results of a search."""

_SEPARATOR = "\x02"
"""Between namespace and key in a page token; neither has it."""


@dataclass(frozen=True, slots=True)
class Reading:
    session: Session
    names: Sequence[DocumentName]
    refresh_ttl: bool


@dataclass(frozen=True, slots=True)
class PrefixRemoval:
    session: Session
    prefix: str
    force: bool


@dataclass(frozen=True, slots=True)
class Listing:
    session: Session
    prefix: str
    filter: DocumentFilter
    with_bodies: bool
    after: DocumentName | None
    size: int
    token_at: Callable[[DocumentName], str]
    """Gives the page token of a position."""


@dataclass(frozen=True, slots=True)
class NamespaceListing:
    whose: Session | TenantRange
    pattern: Pattern
    after: Bound | None
    size: int
    token_at: Callable[[Bound], str]


@dataclass(frozen=True, slots=True)
class Searching:
    whose: Session | TenantRange
    search: Search
    refresh_ttl: bool


@dataclass(frozen=True, slots=True)
class VersionListing:
    session: Session
    name: DocumentName
    before: int
    """Only versions before this revision."""
    size: int
    token_at: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Watch:
    session: Session
    prefix: str
    start_revision: int


@dataclass(frozen=True, slots=True)
class Export:
    session: Session
    prefix: str
    filter: DocumentFilter


def put(
    request: document_pb2.PutDocumentRequest, call: Call, violations: Violations
) -> WriteDocuments:
    document = request.document
    if request.HasField("document"):
        _require_session(document.session_id, "document.session_id", violations)
    return WriteDocuments(
        call.session(document.session_id),
        (_new_document(request, "", violations),),
        request.request_id.lower(),
        fingerprint_of(request) if request.request_id else "",
    )


def batch(
    request: document_pb2.BatchWriteDocumentsRequest, call: Call, violations: Violations
) -> WriteDocuments:
    session = call.session(request.session_id)
    items: list[NewDocument | Removal] = []
    for place, write in enumerate(request.writes):
        stop_if_gone()
        field = f"writes[{place}]"
        match write.WhichOneof("write"):
            case "put":
                new = write.put
                if own := new.document.session_id:
                    _check_same(request, own, f"{field}.put.document.session_id", call, violations)
                if new.request_id:
                    violations.add(
                        f"{field}.put.request_id", "must be empty; set that of the whole batch"
                    )
                items.append(_new_document(new, field, violations))
            case "delete":
                removal = write.delete
                if own := removal.session_id:
                    _check_same(request, own, f"{field}.delete.session_id", call, violations)
                items.append(_removal(removal, field, violations))
    return WriteDocuments(
        session,
        tuple(items),
        request.request_id.lower(),
        fingerprint_of(request) if request.request_id else "",
    )


def get(request: document_pb2.GetDocumentRequest, call: Call, violations: Violations) -> Reading:
    name = _name(request, "", violations)
    return Reading(call.session(request.session_id), (name,), request.refresh_ttl)


def get_many(
    request: document_pb2.BatchGetDocumentsRequest, call: Call, violations: Violations
) -> Reading:
    names = [
        _name(name, f"names[{place}].", violations) for place, name in enumerate(request.names)
    ]
    return Reading(call.session(request.session_id), names, request.refresh_ttl)


def delete(
    request: document_pb2.DeleteDocumentRequest, call: Call, violations: Violations
) -> WriteDocuments:
    _require_session(request.session_id, "session_id", violations)
    return WriteDocuments(call.session(request.session_id), (_removal(request, "", violations),))


def delete_all(
    request: document_pb2.DeleteDocumentsRequest, call: Call, violations: Violations
) -> PrefixRemoval:
    prefix = _prefix(request, violations)
    return PrefixRemoval(call.session(request.session_id), prefix, request.force)


def move(
    request: document_pb2.MoveDocumentsRequest, call: Call, violations: Violations
) -> MoveDocuments:
    source, target = (_moved_name(request, field, violations) for field in ("from", "to"))
    if not (request.HasField("from") and request.HasField("to")):
        pass  # as their rules say
    elif source.key and not target.key:
        violations.add("to.key", "must be given, as from.key is: a document is moved")
    elif target.key and not source.key:
        violations.add("to.key", "must be empty, as from.key is: a namespace is moved")
    elif source == target or (not source.key and target.namespace.startswith(source.namespace)):
        violations.add("to", "must not be the same as from, nor a namespace below it")
    return MoveDocuments(call.session(request.session_id), source, target)


def _moved_name(
    request: document_pb2.MoveDocumentsRequest, field: str, violations: Violations
) -> DocumentName:
    """Of a document or, without a key, a namespace."""
    name: document_pb2.DocumentName = getattr(request, field)
    if name.key:
        return _name(name, f"{field}.", violations)
    for path, description in problems_with_namespace(name.namespace, f"{field}.namespace"):
        violations.add(path, description)
    return DocumentName(namespace_of(name.namespace), "")


def listing(
    request: document_pb2.ListDocumentsRequest, call: Call, violations: Violations
) -> Listing:
    tenant = call.principal.tenant

    def token_at(position: DocumentName) -> str:
        return page_token.encode_name(_SEPARATOR.join(position), request, tenant)

    return Listing(
        call.session(request.session_id),
        _prefix(request, violations),
        _filter(request, violations),
        request.view != document_pb2.DOCUMENT_VIEW_BASIC,
        _position(request, tenant, violations),
        page_token.size(request),
        token_at,
    )


def namespaces(
    request: document_pb2.ListNamespacesRequest, call: Call, violations: Violations
) -> NamespaceListing:
    for field in ("prefix", "suffix"):
        for path, description in problems_with_namespace(getattr(request, field), field):
            violations.add(path, description)
    tenant = call.principal.tenant

    def token_at(bound: Bound) -> str:
        position = f"{_BEGINNING[bound.is_within]}{bound.namespace}"
        return page_token.encode_name(position, request, tenant)

    position = page_token.decode_name(request, tenant, violations)
    after = None
    if position:
        if position[0] not in _BEGINNING.values() or "\x00" in position:
            violations.add("page_token", page_token.NOT_OURS)
        after = Bound(position[1:], position[0] == _BEGINNING[True])
    return NamespaceListing(
        scope_of(request, call, violations),
        Pattern(request.prefix, request.suffix, request.max_depth),
        after,
        page_token.size(request),
        token_at,
    )


_BEGINNING = {True: "=", False: ">"}
"""Of the position of a page of namespaces, whether its namespace itself is meant."""


def search(
    request: document_pb2.SearchDocumentsRequest, call: Call, violations: Violations
) -> Searching:
    wanted = Search(
        _prefix(request, violations),
        request.query.strip(),
        _filter(request, violations),
        min(request.limit or DEFAULT_LIMIT, MAX_LIMIT),
        request.skip,
    )
    return Searching(scope_of(request, call, violations), wanted, request.refresh_ttl)


def versions(
    request: document_pb2.ListDocumentRevisionsRequest, call: Call, violations: Violations
) -> VersionListing:
    tenant = call.principal.tenant
    return VersionListing(
        call.session(request.session_id),
        _name(request, "", violations),
        page_token.decode(request, tenant, violations) or page_token.LAST,
        page_token.size(request),
        partial(page_token.encode, request=request, tenant=tenant),
    )


def watch(request: document_pb2.WatchDocumentsRequest, call: Call, violations: Violations) -> Watch:
    prefix = _prefix(request, violations)
    return Watch(call.session(request.session_id), prefix, request.start_revision)


def export(
    request: document_pb2.ExportDocumentsRequest, call: Call, violations: Violations
) -> Export:
    prefix = _prefix(request, violations)
    wanted = _filter(request, violations)
    return Export(call.session(request.session_id), prefix, wanted)


def check_batch(request: document_pb2.BatchWriteDocumentsRequest, violations: Violations) -> None:
    """Add what is too large to be validated."""
    _check_count(request.writes, "writes", violations)


def check_names(request: document_pb2.BatchGetDocumentsRequest, violations: Violations) -> None:
    """Add what is too large to be validated."""
    _check_count(request.names, "names", violations)


def _check_count(items: Sequence[Any], field: str, violations: Violations) -> None:
    if len(items) > limits.MAX_WRITES:
        violations.add(
            field,
            f"must be at most {limits.MAX_WRITES:,}, these are {len(items):,}; send them in several"
            " calls",
        )


def _new_document(
    request: document_pb2.PutDocumentRequest, field: str, violations: Violations
) -> NewDocument:
    """`field`: where a batch has the write; empty where it is the whole request."""
    outer = f"{field}.put." if field else ""
    prefix = f"{outer}document."
    document = request.document
    kind, body = _body(document, prefix, violations)
    labels: dict[str, str] = {}
    if document.labels:
        labels = dict(document.labels)
        if problem := problem_with_labels(labels):
            violations.add(f"{prefix}labels", problem)
    texts = tuple(request.search_texts)
    if texts:
        _check_texts(texts, f"{outer}search_texts", violations)
    return NewDocument(
        _name(document, prefix, violations),
        kind,
        body,
        hashlib.sha256(body).hexdigest(),
        labels,
        convert.span_of(document.ttl) if _has_ttl(document) else None,
        texts,
        document.etag,
        request.if_absent,
        field,
    )


def _has_ttl(document: document_pb2.Document) -> bool:
    """Whether there is one that a time can be; what else comes is refused by its rule."""
    return document.HasField("ttl") and abs(document.ttl.seconds) < _MAX_TTL_SECONDS


_MAX_TTL_SECONDS = 10**12
"""More than a duration may have, and no more than Python can count."""


def _body(
    document: document_pb2.Document, prefix: str, violations: Violations
) -> tuple[BodyKind, bytes]:
    match document.WhichOneof("body"):
        case "json":
            kind, field, body = BodyKind.JSON, "json", document.json.encode()
        case "text":
            kind, field, body = BodyKind.TEXT, "text", document.text.encode()
        case "data":
            kind, field, body = BodyKind.DATA, "data", document.data
        case _:
            violations.add(f"{prefix}body", "must be given: set json, text or data")
            return BodyKind.DATA, b""
    if len(body) > limits.MAX_BODY_BYTES:
        violations.add(
            f"{prefix}{field}",
            f"must be at most {limits.MAX_BODY_BYTES:,} bytes; this is {len(body):,}: split it",
        )
    elif kind is BodyKind.JSON and (problem := problem_with_json(body)):
        violations.add(f"{prefix}{field}", problem)
    elif kind is BodyKind.TEXT and b"\x00" in body:
        violations.add(f"{prefix}{field}", "must not hold NUL characters; send it as data")
    return kind, body


def _check_texts(texts: Sequence[str], field: str, violations: Violations) -> None:
    if len(texts) > limits.MAX_SEARCH_TEXTS:
        violations.add(
            field, f"must be at most {limits.MAX_SEARCH_TEXTS}; these are {len(texts):,}"
        )
        return
    for place, text in enumerate(texts):
        if not 1 <= len(text) <= limits.MAX_SEARCH_TEXT_CHARACTERS or "\x00" in text:
            violations.add(
                f"{field}[{place}]",
                f"must be 1 to {limits.MAX_SEARCH_TEXT_CHARACTERS:,} characters without NUL",
            )


def _removal(
    request: document_pb2.DeleteDocumentRequest, field: str, violations: Violations
) -> Removal:
    prefix = f"{field}.delete." if field else ""
    return Removal(_name(request, prefix, violations), request.etag, request.allow_missing, field)


def _name(message: Any, prefix: str, violations: Violations) -> DocumentName:
    """Of a message that has `namespace` and `key`."""
    labels, key = [*message.namespace], message.key
    name = DocumentName(namespace_of(labels), key)
    if not is_clean_name(name, len(labels)):
        for field, description in problems_with_name(labels, key, prefix):
            violations.add(field, description)
    return name


def _prefix(message: Any, violations: Violations) -> str:
    labels = message.namespace_prefix
    for field, description in problems_with_namespace(labels, "namespace_prefix"):
        violations.add(field, description)
    return namespace_of(labels)


def _filter(request: _Filtered, violations: Violations) -> DocumentFilter:
    conditions = request.filter.conditions
    if problem := problem_with_labels(request.filter.labels):
        violations.add("filter.labels", problem)
    return DocumentFilter(
        dict(request.filter.labels), parse_conditions(conditions, _CONDITIONS, violations)
    )


_CONDITIONS = "filter.conditions"


def check_filter(request: _Filtered, violations: Violations) -> None:
    """Add what is too large to be validated."""
    check_size(request.filter.conditions, _CONDITIONS, violations)


def _position(request: Any, tenant: str, violations: Violations) -> DocumentName | None:
    position = page_token.decode_name(request, tenant, violations)
    if not position:
        return None
    namespace, _, key = position.partition(_SEPARATOR)
    if not key or "\x00" in position:
        violations.add("page_token", page_token.NOT_OURS)
    return DocumentName(namespace, key)


def _require_session(session_id: str, field: str, violations: Violations) -> None:
    """Where the rule of the field lets an empty one pass, for batches."""
    if not session_id:
        violations.add(field, "must be given")


def _check_same(
    request: document_pb2.BatchWriteDocumentsRequest,
    session_id: str,
    field: str,
    call: Call,
    violations: Violations,
) -> None:
    if session_id != request.session_id:
        call.session(session_id)
        violations.add(field, "must be the session of the batch; leave it out")
