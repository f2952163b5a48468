"""The file of `MEMORYD_AUTH_FILE`: whose tokens and certificates are accepted, and for what.

TOML, with a table `[[jwt]]` for each issuer and audience, and `[[mtls]]` for each certificate. It
holds no secret.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from pydantic import Field

from memoryd.access import auth_fields as fields
from memoryd.domain.principals import InvalidGrant, SessionRules
from memoryd.settings.model import Fault, Number, SettingsModel, suggestion, validate
from memoryd.settings.reading import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MAX_FILE_BYTES: Final = 1024 * 1024
"""Of the auth file."""

MAX_ISSUERS: Final = 64
"""Tables `[[jwt]]`."""

MAX_CERTIFICATES: Final = 1000
"""Tables `[[mtls]]`."""

MAX_LEEWAY_SECONDS: Final = 300

_is_of_a_session_id = re.compile(r"[A-Za-z0-9._:@-]+").fullmatch
_is_plain_key = re.compile(r"[A-Za-z0-9_-]{1,40}").fullmatch


class _Table(SettingsModel):
    """One table of the file."""

    @classmethod
    def variable(cls, field_name: str) -> str:
        """A key of the file is named as its field."""
        return field_name


class Issuer(_Table):
    """A `[[jwt]]`: who signs tokens, for which audience, and what they are good for here."""

    issuer: fields.Text
    audience: fields.Text
    jwks_url: fields.JwksUrl = None
    jwks_file: fields.JwksFile = None
    algorithms: fields.Algorithms = ("RS256",)
    leeway: Annotated[Number, Field(ge=0, le=MAX_LEEWAY_SECONDS)] = 30.0
    """How many seconds the clocks may differ."""
    tenant: fields.OptionalTenant = None
    tenant_claim: fields.OptionalText = None
    allowed_tenants: fields.Tenants = frozenset()
    scope_claim: fields.Text = "scope"
    scope_map: fields.ScopeMap = Field(default_factory=dict)
    sessions: fields.RulesOfSubjects = ()

    def rules_of(self, subject: str) -> SessionRules:
        """The rules for the sessions of a subject. Raises InvalidGrant."""
        names_subject = any(fields.SUBJECT in template for template in self.sessions)
        # A '*' in it would make a rule of the issuer's users, not of the operator's.
        if names_subject and not _is_of_a_session_id(subject):
            raise InvalidGrant("the subject has characters that no session id has")
        return SessionRules(t.replace(fields.SUBJECT, subject) for t in self.sessions)


class CertificateRule(_Table):
    """A `[[mtls]]`: what a client certificate with a name is good for."""

    san: fields.San
    tenant: fields.Tenant
    scopes: fields.Scopes
    sessions: fields.Rules = ()

    @property
    def is_uri(self) -> bool:
        return fields.is_uri(self.san) is not None


@dataclass(frozen=True, slots=True)
class AuthFile:
    """What the file says."""

    issuers: tuple[Issuer, ...] = ()
    certificates: tuple[CertificateRule, ...] = ()


T = TypeVar("T", bound=_Table)


def load_auth_file(path: Path) -> AuthFile:
    """Read the file. Raises ValueError, whose text has every problem with it.

    A `jwks_file` is relative to the file's own folder, and has to be there.
    """
    problems: list[Problem] = []
    tables = _tables_of(path)
    for name in tables.keys() - {"jwt", "mtls"}:
        expected = suggestion(name, ("jwt", "mtls"))
        problems.append(Problem(_key(name), path.name, "no such table", expected))
    rows = _rows(path, tables, "jwt", MAX_ISSUERS, problems)
    issuers = [_issuer(path, number, row, problems) for number, row in enumerate(rows, 1)]
    rows = _rows(path, tables, "mtls", MAX_CERTIFICATES, problems)
    rules = [
        _checked(path, f"[[mtls]] {number}", CertificateRule, row, problems)
        for number, row in enumerate(rows, 1)
    ]
    pairs = [(issuer.issuer, issuer.audience) if issuer else None for issuer in issuers]
    problems += _repeated(path, "jwt", "issuer and audience", pairs)
    problems += _repeated(path, "mtls", "san", [rule.san if rule else None for rule in rules])
    if problems:
        lines = [f"{path}: {len(problems)} problems:", *map(str, problems)]
        raise ValueError(str(problems[0]) if len(problems) == 1 else "\n  ".join(lines))
    return AuthFile(tuple(filter(None, issuers)), tuple(filter(None, rules)))


def _tables_of(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(
                f"{path}: the file has more than {MAX_FILE_BYTES:,} bytes; name a smaller one"
            )
        return tomllib.loads(content.decode("utf-8-sig"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"{path}: {reason}; name a file that the service may read") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: the file is not UTF-8; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: the file is not TOML: {error}; correct it there") from None
    except RecursionError:
        raise ValueError(f"{path}: the file is nested too deeply; write plain tables") from None


def _rows(
    path: Path, tables: Mapping[str, Any], name: str, limit: int, problems: list[Problem]
) -> list[dict[str, object]]:
    rows = tables.get(name, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        problems.append(Problem(name, path.name, "no list of tables", f"write [[{name}]]"))
        return []
    if len(rows) > limit:
        found, expected = f"{len(rows)} tables", f"there may be {limit}"
        problems.append(Problem(f"[[{name}]]", path.name, found, expected))
        return []
    return rows


def _issuer(
    path: Path, number: int, row: dict[str, object], problems: list[Problem]
) -> Issuer | None:
    name = f"[[jwt]] {number}"
    faults = list(_misfits(row))
    problems += (Problem(f"{name} {f.field}", path.name, f.found, f.expected) for f in faults)
    issuer = _checked(path, name, Issuer, row, problems)
    if issuer is None or issuer.jwks_file is None or faults:
        return issuer
    file = path.parent / issuer.jwks_file
    try:
        # Only a file with issuers needs what verifies tokens.
        from memoryd.access.signing_keys import read_key_file  # noqa: PLC0415  as above

        if not any(key.algorithms & set(issuer.algorithms) for key in read_key_file(file)):
            raise ValueError("no key of the file fits the algorithms")
    except ValueError as error:
        expected = "name a file with a JSON Web Key Set of public keys"
        problems.append(Problem(f"{name} jwks_file", path.name, str(error), expected))
    return issuer.model_copy(update={"jwks_file": file})


def _misfits(row: Mapping[str, object]) -> Iterable[Fault]:
    """What is wrong between the keys of a `[[jwt]]`."""
    for one, other in (("jwks_url", "jwks_file"), ("tenant", "tenant_claim")):
        if one not in row and other not in row:
            yield Fault(one, "not given", f"give {one} or {other}")
        if one in row and other in row:
            yield Fault(other, f"given in addition to {one}", "give one of the two")
    if "tenant_claim" in row and not row.get("allowed_tenants", ()):
        yield Fault("allowed_tenants", "not given", "list the tenants that the claim may name")
    if "tenant_claim" not in row and "allowed_tenants" in row:
        yield Fault("allowed_tenants", "given without tenant_claim", "remove it, or give the claim")


def _checked(
    path: Path, name: str, model: type[T], row: dict[str, object], problems: list[Problem]
) -> T | None:
    table, faults = validate(model, row)
    for fault in faults:
        key = f"{name} {_key(fault.field)}"
        problems.append(Problem(key, path.name, fault.found, fault.expected))
    return table


def _key(name: str) -> str:
    """A key of the file as a message names it: whole where it looks like one."""
    return name if _is_plain_key(name) else "a key"


def _repeated(
    path: Path, table: str, key: str, values: Iterable[object | None]
) -> Iterable[Problem]:
    first: dict[object, int] = {}
    for number, value in enumerate(values, 1):
        if value is not None and first.setdefault(value, number) != number:
            found = f"the same as of [[{table}]] {first[value]}"
            yield Problem(f"[[{table}]] {number} {key}", path.name, found, "remove one of them")
