"""What can go wrong, in the domain's words.

MemorydError
├── InvalidRequest            the caller's arguments break a rule; every violation at once
│   ├── RequestIdReused
│   └── LiteralSecret         a secret itself, where only its place is accepted
├── MalformedMessage          bytes that are no message of the type
│   └── NoMessage             a call that ends without its request
├── MessageTooLarge
├── RequestIncomplete         a request that does not come to its end in time
├── CredentialMissing
├── CredentialMalformed
├── CredentialInvalid         unknown or forged
├── CredentialExpired
├── CredentialRevoked
├── TenantDisabled
├── ScopeMissing
├── SessionNotAllowed         no rule of the credential names the session
├── QuotaExceeded             of the tenant
├── KeyNotFound
├── MemoryNotFound
├── DocumentNotFound
├── ConversationNotFound
├── MessageNotFound           of a conversation, or of one of its branches
├── ToolConfigRevisionNotFound
├── FlagNotFound              no setting has it as its key
├── ServiceNotFound           of a health check
├── MemoryAlreadyExists       another live memory holds the key or the content
├── DocumentAlreadyExists
├── ConversationAlreadyExists
├── MessageAlreadyExists      of a conversation, in another place or with another body
├── TooManyBranches           of a conversation
├── MemoryNotDeleted          nothing to undelete
├── EtagMismatch
├── SessionFull
├── SessionsTooLarge          more than one call may bring into memory
├── RevisionOutOfRange
├── VersionExpired            of a memory's earlier version
├── StreamStalled             the caller does not read what it asked for
├── StreamIdle                nothing has happened for long that it could tell
├── Overloaded                more work is waiting than is accepted
│   ├── ClientLimitReached    one client's share of it
│   └── OutOfDescriptors      the process may open no more files and connections
├── DatabaseUnavailable
├── AuditUnavailable          what must be recorded first cannot be
├── SchemaMismatch            the database's schema is not this release's
├── ShuttingDown
├── DeadlineExceeded
└── UnknownMethod
"""

from __future__ import annotations

from typing import NamedTuple

MAX_CREDENTIAL_BYTES = 4096

SEND_ONE = (
    "send one credential as metadata: authorization: Bearer, a space, and an API key or a token, of"
    f" {MAX_CREDENTIAL_BYTES:,} bytes at most"
)


class RefusedCaller(NamedTuple):
    """Who was refused, where the credential is known."""

    tenant: str
    name: str
    key_id: str


class MemorydError(Exception):
    """Base of all; its text may be shown to the caller."""

    caller: RefusedCaller | None = None
    """Set where it refuses a call before its principal is established."""
    field: str = ""
    """Where the item stands in the call that it is about (`writes[3]`); empty: that is clear."""
    last_revision: int | None = None
    """Where the error ends a stream that can be resumed: the revision of the last message sent."""

    @property
    def for_operator(self) -> str:
        """What the log says for the operator; a caller does not see it."""
        return str(self)


class Violation(NamedTuple):
    """One broken rule."""

    field: str
    """Path into the request, such as `requests[3].metadata`."""
    description: str
    """What is wrong, and what to do about it."""


class InvalidRequest(MemorydError):
    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = violations


class RequestIdReused(InvalidRequest):
    def __init__(self, field: str) -> None:
        super().__init__(
            Violation(field, "was used before with other arguments; give each request its own UUID")
        )


class LiteralSecret(InvalidRequest):
    pass


class MalformedMessage(MemorydError):
    def __init__(self, message_type: str, problem: str | None = None) -> None:
        """`problem` says more than that the bytes are no such message."""
        super().__init__(
            problem
            or f"the bytes received are no {message_type}; encode it with the proto of this service"
        )


class NoMessage(MalformedMessage):
    def __init__(self) -> None:
        MemorydError.__init__(self, "the call ended without a request; send one message")


class MessageTooLarge(MemorydError):
    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"the message has {size:,} bytes and may have {limit:,}; send less in one call"
        )


class RequestIncomplete(MemorydError):
    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the request was not complete after {seconds:g} s; send less in one call, or over a"
            " faster connection"
        )


class CredentialMissing(MemorydError):
    def __init__(self) -> None:
        super().__init__(f"the call has no credential; {SEND_ONE}")


class CredentialMalformed(MemorydError):
    def __init__(self, what: str = "the call's credential cannot be read") -> None:
        super().__init__(f"{what}; {SEND_ONE}")


class CredentialInvalid(MemorydError):
    def __init__(self) -> None:
        super().__init__("the credential is not known here; ask an administrator for one")


class CredentialExpired(MemorydError):
    def __init__(self) -> None:
        super().__init__("the credential has expired; use a new one")


class CredentialRevoked(MemorydError):
    def __init__(self) -> None:
        super().__init__("the credential has been revoked; ask an administrator for another")


class TenantDisabled(MemorydError):
    def __init__(self) -> None:
        super().__init__("the credential's tenant is disabled; ask an administrator to enable it")


class ScopeMissing(MemorydError):
    def __init__(self, scope: str, *, has_credential: bool = True) -> None:
        """`has_credential`: false while the service asks nobody for one."""
        super().__init__(
            f"the credential lacks the scope {scope}; use one that has it"
            if has_credential
            else f"without a credential nobody has the scope {scope}; have the service ask for them"
            " (MEMORYD_AUTH=required), and use one that has it"
        )
        self.scope = scope


class SessionNotAllowed(MemorydError):
    def __init__(self) -> None:
        super().__init__(
            "the credential may not name this session; WhoAmI lists the rules for those it may"
        )


_REMEDIES = {
    "calls_per_second": "wait",
    "streams": "end some",
    "keys": "revoke some",
    "memories": "delete some",
    "sessions": "erase some",
    "documents": "delete some",
    "conversations": "delete some",
    "messages": "delete conversations",
    "bytes": "delete memories, documents or conversations, or store shorter ones",
}
"""What a tenant can do itself about each of its quotas."""


class QuotaExceeded(MemorydError):
    def __init__(
        self, tenant: str, quota: str, limit: int, *, retry_after: float | None = None
    ) -> None:
        super().__init__(
            f"the tenant has reached its quota {quota} of {limit:,}; {_REMEDIES[quota]}, or ask an"
            " administrator for more"
        )
        self.subject = f"tenants/{tenant}/quotas/{quota}"
        self.retry_after = retry_after
        """Seconds; None where time does not help."""


class KeyNotFound(MemorydError):
    def __init__(self, key_id: str) -> None:
        super().__init__(f"the tenant has no API key {key_id}; list its keys")
        self.key_id = key_id


class MemoryNotFound(MemorydError):
    def __init__(self, memory_id: str, *, is_key: bool = False) -> None:
        """`is_key`: the caller has named it by its key, which then stands for the id."""
        super().__init__(
            f"no memory of the session has the key {memory_id}"
            if is_key
            else f"memory {memory_id} is not in the session"
        )
        self.memory_id = memory_id


class SessionNotFound(MemorydError):
    def __init__(self, session_id: str) -> None:
        super().__init__(
            "there is no such session: nothing was stored in it or set for it, or it was erased"
        )
        self.session_id = session_id


class DocumentNotFound(MemorydError):
    def __init__(self, name: str) -> None:
        super().__init__("the session has no such document")
        self.name = name


class DocumentAlreadyExists(MemorydError):
    def __init__(self, name: str, remedy: str = "put it without if_absent to replace it") -> None:
        super().__init__(f"the session has a document with this name; {remedy}")
        self.name = name


class ConversationNotFound(MemorydError):
    def __init__(self, conversation_id: str) -> None:
        super().__init__("the session has no such conversation")
        self.conversation_id = conversation_id


class ConversationAlreadyExists(MemorydError):
    def __init__(self, conversation_id: str) -> None:
        super().__init__(
            "the session has a conversation with this id; change it with UpdateConversation, or"
            " give another id"
        )
        self.conversation_id = conversation_id


class MessageNotFound(MemorydError):
    def __init__(self, message_id: str, where: str = "the conversation") -> None:
        super().__init__(f"{where} has no such message; list its messages")
        self.message_id = message_id


class MessageAlreadyExists(MemorydError):
    def __init__(self, message_id: str, how: str) -> None:
        super().__init__(f"the conversation has a message with this id, {how}")
        self.message_id = message_id


class TooManyBranches(MemorydError):
    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the conversation has {limit:,} branches besides that of its head, the most it may"
            " have; fork it at its head and go on in the fork"
        )


class SessionTooLarge(MemorydError):
    def __init__(self, rows: int, size: int) -> None:
        super().__init__(
            f"the source has more than {rows:,} memories, documents, conversations or messages, or"
            f" more than {size:,} bytes of all, deleted memories and earlier versions included:"
            " the most that one merge moves; purge what is no longer needed, or try again when"
            " earlier versions are dropped, 24 hours after they were replaced"
        )


class ToolConfigRevisionNotFound(MemorydError):
    def __init__(self, tool: str, revision: int) -> None:
        super().__init__(
            f"{tool} has no revision {revision}, or it is no longer kept; list the tool's revisions"
        )
        self.tool = tool
        self.revision = revision


class FlagNotFound(MemorydError):
    def __init__(self, key: str) -> None:
        super().__init__(
            "no flag has this key; those there are have the names of tools and their settings, such"
            " as rag.enabled and rag.search_k"
        )
        self.key = key
        """As the caller wrote it: of any length."""


class ServiceNotFound(MemorydError):
    def __init__(self, service: str) -> None:
        super().__init__("this server has no such service; its reflection lists those it has")
        self.service = service
        """As the caller wrote it: of any length."""


class MemoryAlreadyExists(MemorydError):
    def __init__(self, memory_id: str, *, key: str | None = None) -> None:
        """`key`: what both would have; None: content and type."""
        what = "this content and type" if key is None else f"the key {key}"
        super().__init__(f"memory {memory_id} of the session has {what}")
        self.memory_id = memory_id


class MemoryNotDeleted(MemorydError):
    def __init__(self, memory_id: str) -> None:
        super().__init__(f"memory {memory_id} is not deleted")
        self.memory_id = memory_id


class EtagMismatch(MemorydError):
    def __init__(self, resource: str) -> None:
        super().__init__(f"{resource} was changed since this etag; read it again")


class SessionFull(MemorydError):
    def __init__(self, limit: int) -> None:
        super().__init__(f"the session holds {limit} live memories, its limit; delete one first")
        self.limit = limit


class SessionsTooLarge(MemorydError):
    def __init__(self, characters: int) -> None:
        super().__init__(
            f"session_ids: these sessions have more than {characters:,} characters of contents that"
            " are not in memory, the most that one call brings in; ask for fewer sessions in one"
            " call, or have the operator raise MEMORYD_SESSION_CACHE_BYTES so that they stay in"
            " memory"
        )


class SearchTextsTooLarge(MemorydError):
    def __init__(self, characters: int) -> None:
        super().__init__(
            f"these sessions have more than {characters:,} characters of search texts, the most"
            " that one query looks at; give a longer session_id_prefix, leave the query out, or"
            " keep fewer documents with search texts in one session"
        )
        self.field = "query"


class RevisionOutOfRange(MemorydError):
    def __init__(self, message: str, *, is_gone: bool = False) -> None:
        """`is_gone`: there is nothing of what had the revision."""
        super().__init__(message)
        self.is_gone = is_gone


class VersionExpired(MemorydError):
    def __init__(self, revision: int) -> None:
        super().__init__(
            f"the version at revision {revision} has expired since; go back to another one, or"
            " update the memory with its content and a new expiry"
        )


class StreamStalled(MemorydError):
    def __init__(self, last_revision: int | None) -> None:
        super().__init__(f"the stream was not read for too long; {_resume(last_revision)}")
        self.last_revision = last_revision


class StreamIdle(MemorydError):
    def __init__(self, last_revision: int | None) -> None:
        super().__init__(f"the stream had nothing to send for too long; {_resume(last_revision)}")
        self.last_revision = last_revision


def _resume(last_revision: int | None) -> str:
    return "ask again" if last_revision is None else f"resume from revision {last_revision}"


class Overloaded(MemorydError):
    retry_after = 0.5
    """Seconds; who answers a caller may say more, so that not all come back at once."""


class ClientLimitReached(Overloaded):
    pass


class OutOfDescriptors(Overloaded):
    def __init__(self) -> None:
        super().__init__("the service has no file descriptor left; try again")


class DatabaseUnavailable(MemorydError):
    retry_after = 1.0
    """Seconds."""

    def __init__(self, cause: str = "no answer in time", *, remedy: str = "") -> None:
        super().__init__("the database does not answer; try again")
        self.cause = f"{cause}; {remedy}" if remedy else cause
        """What the driver says and what to change, for the operator; a caller does not see it."""
        self._remedy = remedy

    @property
    def for_operator(self) -> str:
        what = "cannot be used" if self._remedy else "does not answer"
        return f"the database {what}: {self.cause}"


class AuditUnavailable(MemorydError):
    retry_after = 1.0
    """Seconds."""

    def __init__(self) -> None:
        super().__init__(
            "the audit cannot be written, so the call was not done; try again, or ask the operator"
        )


class SchemaMismatch(MemorydError):
    pass


class ShuttingDown(MemorydError):
    def __init__(self) -> None:
        super().__init__("the server is stopping; try again")


class DeadlineExceeded(MemorydError):
    def __init__(self) -> None:
        super().__init__("the deadline passed before the work was done")


class UnknownMethod(MemorydError):
    pass
