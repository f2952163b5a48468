"""Who calls, and what they may do: tenants, scopes, rules for sessions, principals. Pure."""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, NamedTuple

from memoryd.domain.errors import RefusedCaller, ScopeMissing, SessionNotAllowed
from memoryd.domain.sessions import EVERY_ID, SessionRange, ids_with_prefix, only_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from memoryd.domain.errors import MemorydError

TENANT_RULE = "must be 1 to 64 of a-z, 0-9, '.', '_' and '-', and begin with a letter or a digit"
_is_tenant = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}").fullmatch

SESSION_ID_RULE = (
    "must be 1 to 255 letters, digits, '.', '_', ':', '@' and '-', begin with a letter or a digit,"
    " and have no '..'"
)
is_session_id = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._:@-]{0,254}").fullmatch

MAX_RULES = 64
"""Rules for sessions that one credential may have."""

MAX_ACTOR_CHARACTERS = 64
"""What is kept of the name of who has changed something."""

NO_SESSION = "(none)"
"""The text of rules that allow no session. No rule is written so: it opens nothing when read."""

_PREFIX_ENDS = tuple(".:@_-")


class Scope(enum.StrEnum):
    """What a method needs of its caller, as credentials spell it."""

    MEMORIES_READ = "memories:read"
    MEMORIES_WRITE = "memories:write"
    MEMORIES_ERASE = "memories:erase"
    MEMORIES_EXPORT = "memories:export"
    DOCUMENTS_READ = "documents:read"
    DOCUMENTS_WRITE = "documents:write"
    CONVERSATIONS_READ = "conversations:read"
    CONVERSATIONS_WRITE = "conversations:write"
    TOOLS_READ = "tools:read"
    TOOLS_WRITE = "tools:write"
    TENANT_ADMIN = "tenant:admin"
    INSTANCE_ADMIN = "instance:admin"


ADMIN_SCOPES = frozenset({Scope.TENANT_ADMIN, Scope.INSTANCE_ADMIN})

_READS = frozenset(scope for scope in Scope if scope.endswith(":read"))
_WRITES = frozenset(scope for scope in Scope if scope.endswith(":write"))

SHORTHANDS: Mapping[str, frozenset[Scope]] = {
    "agent": (_READS | _WRITES) - {Scope.TOOLS_WRITE},
    "reader": _READS,
    "operator": frozenset(Scope) - ADMIN_SCOPES,
}
"""Names that stand for several scopes where a credential is made."""


SCOPES_RULE = ", ".join((*SHORTHANDS, *Scope))
"""The names and shorthands that there are."""


class InvalidGrant(ValueError):
    """A tenant, scope or rule that cannot be. The text says what is wrong, and what to do."""


def tenant_of(text: str) -> str:
    """Check a tenant's name. Raises InvalidGrant."""
    if _is_tenant(text) is None:
        raise InvalidGrant(f"a tenant {TENANT_RULE}")
    return text


def scopes_of(names: Iterable[str]) -> frozenset[Scope]:
    """Give the scopes that names and shorthands stand for. Raises InvalidGrant."""
    scopes: set[Scope] = set()
    for name in names:
        if name in SHORTHANDS:
            scopes |= SHORTHANDS[name]
            continue
        try:
            scopes.add(Scope(name))
        except ValueError:
            raise InvalidGrant(f"there is no such scope; there are {SCOPES_RULE}") from None
    return frozenset(scopes)


class SessionRules:
    """Which sessions a principal may name: all of its tenant's, or those that one rule fits."""

    __slots__ = ("_exact", "_prefixes", "allows_every", "texts")

    def __init__(self, texts: Iterable[str] = ()) -> None:
        """Take exact ids, and prefixes that end in one of `. : @ _ -` before a `*`.

        None: every session. Raises InvalidGrant.
        """
        texts = tuple(dict.fromkeys(texts))
        if len(texts) > MAX_RULES:
            raise InvalidGrant(f"there may be at most {MAX_RULES} rules for sessions")
        exact, prefixes = [], []
        for text in texts:
            prefix, star, rest = text.partition("*")
            if not star:
                if is_session_id(text) is None:
                    raise InvalidGrant(f"a rule without '*' is a session id: it {SESSION_ID_RULE}")
                exact.append(text)
                continue
            # With a character behind it: what a session id that the rule fits begins with.
            if rest or not prefix.endswith(_PREFIX_ENDS) or is_session_id(f"{prefix}0") is None:
                raise InvalidGrant(
                    "a rule with '*' is the beginning of a session id up to one of"
                    f" {' '.join(_PREFIX_ENDS)}, and then '*' as its last character: user-7.*"
                )
            prefixes.append(prefix)
        self._set(texts, exact, prefixes, every=not texts)

    def _set(
        self, texts: Iterable[str], exact: Iterable[str], prefixes: Iterable[str], *, every: bool
    ) -> None:
        self.texts = tuple(texts)
        """As they are written; none where every session is allowed."""
        self.allows_every = every
        self._exact = frozenset(exact)
        self._prefixes = tuple(prefixes)

    def allow(self, session_id: str) -> bool:
        if self.allows_every:
            return True
        return session_id in self._exact or session_id.startswith(self._prefixes)

    def ranges(self) -> list[SessionRange]:
        """The ids that they allow, in their order; no id is in two of them."""
        if self.allows_every:
            return [EVERY_ID]
        found: list[SessionRange] = []
        for one in sorted((*map(only_id, self._exact), *map(ids_with_prefix, self._prefixes))):
            # Of two that have ids in common, one lies within the other.
            if not found or one.first >= found[-1].end:
                found.append(one)
            else:
                found[-1] = max(found[-1], one, key=lambda of_both: of_both.end)
        return found

    def within(self, others: SessionRules) -> bool:
        """Whether they allow no session that the others do not."""
        if others.allows_every:
            return True
        if self.allows_every:
            return False
        return all(map(others.allow, self._exact)) and all(
            prefix.startswith(others._prefixes) for prefix in self._prefixes
        )

    def beginning_with(self, prefix: str) -> list[SessionRange]:
        """Those of the ids that they allow that begin with a text."""
        wanted = ids_with_prefix(prefix)
        both = (allowed.within(wanted) for allowed in self.ranges())
        return [one for one in both if one is not None]

    def both(self, others: SessionRules) -> SessionRules:
        """Allow what these and the others allow. It may have more than MAX_RULES rules."""
        if self.within(others):
            return self
        if others.within(self):
            return others
        exact = {text: None for text in self._exact if others.allow(text)}
        exact |= {text: None for text in others._exact if self.allow(text)}
        # Of two prefixes that have sessions in common, one begins with the other.
        prefixes = {text: None for text in self._prefixes if text.startswith(others._prefixes)}
        prefixes |= {text: None for text in others._prefixes if text.startswith(self._prefixes)}
        rules: SessionRules = SessionRules.__new__(SessionRules)
        texts = (*sorted(exact), *(f"{prefix}*" for prefix in prefixes))
        rules._set(texts or (NO_SESSION,), exact, prefixes, every=False)
        return rules

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SessionRules):
            return NotImplemented
        return self._meaning() == other._meaning()

    def __hash__(self) -> int:
        return hash(self._meaning())

    def _meaning(self) -> tuple[bool, frozenset[str], frozenset[str]]:
        return self.allows_every, self._exact, frozenset(self._prefixes)

    def __repr__(self) -> str:
        return f"SessionRules({self.texts!r})"


EVERY_SESSION = SessionRules()


class AuthMode(enum.StrEnum):
    """Whether callers must show who they are."""

    OFF = "off"
    """Everybody is the tenant `default`, with every scope but the admins'."""
    OBSERVE = "observe"
    """As `OFF`; what `REQUIRED` would refuse is logged."""
    REQUIRED = "required"
    """Every call but a check of health needs a credential."""


class AuthMethod(enum.StrEnum):
    """How a principal has shown who it is."""

    OFF = "off"
    """Not at all: authentication is off."""
    API_KEY = "api_key"
    JWT = "jwt"
    CERTIFICATE = "certificate"


class Principal(NamedTuple):
    """Who calls. It does not change."""

    tenant: str
    name: str
    """Of the key, the token's subject, or of the certificate; not secret."""
    method: AuthMethod
    scopes: frozenset[Scope]
    sessions: SessionRules = EVERY_SESSION
    expires_at: datetime | None = None
    """From when on the credential opens nothing, a token's leeway included. None: never."""
    credential_id: str = ""
    """What the credential is revoked by; empty where there is none."""
    issued_at: datetime | None = None
    """Of a token; None for every other credential."""

    @property
    def actor(self) -> str:
        """What a change is kept under: the name, or the tenant where callers show no credential."""
        name = self.tenant if self.method is AuthMethod.OFF else self.name
        return name[:MAX_ACTOR_CHARACTERS]

    def refused(self, error: MemorydError) -> MemorydError:
        """Give an error that refuses the principal, and says so."""
        error.caller = RefusedCaller(self.tenant, self.name, self.credential_id)
        return error

    def require(self, scope: Scope) -> None:
        """Raise ScopeMissing where the principal lacks a scope."""
        if scope not in self.scopes:
            raise ScopeMissing(scope, has_credential=self.method is not AuthMethod.OFF)

    def require_session(self, session_id: str) -> None:
        """Raise SessionNotAllowed where no rule fits. An empty name is refused by other rules."""
        if session_id and not self.sessions.allow(session_id):
            raise SessionNotAllowed


NO_ONE = Principal("", "", AuthMethod.OFF, frozenset())
"""The caller where no credential is needed, or where its credential is refused."""


def unauthenticated(tenant: str) -> Principal:
    """The caller while authentication is off: every scope but the admins'."""
    return Principal(tenant, "unauthenticated", AuthMethod.OFF, frozenset(Scope) - ADMIN_SCOPES)
