"""The auth file: what it accepts, and that one message has every problem with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.issuers import IssuerKey, key_set

from memoryd.access.auth_file import (
    MAX_CERTIFICATES,
    MAX_FILE_BYTES,
    MAX_ISSUERS,
    AuthFile,
    Issuer,
    load_auth_file,
)
from memoryd.domain.principals import InvalidGrant, Scope, scopes_of

CANARY = "c4n4ry"

JWT = """
[[jwt]]
issuer = "https://issuer.example/"
audience = "memoryd"
jwks_url = "https://issuer.example/jwks.json"
tenant = "acme"
"""

JWT_BY_FILE = JWT.replace(
    'jwks_url = "https://issuer.example/jwks.json"', 'jwks_file = "keys.json"'
)

MTLS = """
[[mtls]]
san = "spiffe://acme.example/agent"
tenant = "acme"
scopes = ["agent"]
"""


def load(folder: Path, text: str | bytes) -> AuthFile:
    path = folder / "auth.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_auth_file(path)


def problems_of(folder: Path, text: str | bytes) -> str:
    with pytest.raises(ValueError, match=r"auth\.toml") as caught:
        load(folder, text)
    assert CANARY not in str(caught.value)
    return str(caught.value)


def test_what_a_file_may_say(tmp_path):
    (tmp_path / "keys.json").write_bytes(key_set(IssuerKey("ES256").jwk()))
    found = load(
        tmp_path,
        """
        [[jwt]]
        issuer = "https://issuer.example/"
        audience = "memoryd"
        jwks_file = "keys.json"
        algorithms = ["ES256", "EdDSA"]
        leeway = 5
        tenant_claim = "https://acme.example/tenant"
        allowed_tenants = ["acme", "acme-2"]
        scope_claim = "scp"
        scope_map = { "memoryd.agent" = ["agent"], "erase" = "memories:erase", "none" = [] }
        sessions = ["user-{sub}.*", "shared"]
        """
        + MTLS
        + 'sessions = ["agent.*"]',
    )
    (issuer,) = found.issuers
    assert issuer.jwks_file == tmp_path / "keys.json"
    assert (issuer.jwks_url, issuer.tenant, issuer.leeway) == (None, None, 5)
    assert issuer.algorithms == ("ES256", "EdDSA")
    assert issuer.allowed_tenants == {"acme", "acme-2"}
    assert issuer.scope_map == {
        "memoryd.agent": scopes_of(["agent"]),
        "erase": {Scope.MEMORIES_ERASE},
        "none": frozenset(),
    }
    assert issuer.rules_of("7").texts == ("user-7.*", "shared")
    (rule,) = found.certificates
    assert (rule.san, rule.tenant, rule.sessions) == (
        "spiffe://acme.example/agent",
        "acme",
        ("agent.*",),
    )
    assert rule.scopes == scopes_of(["agent"])


def test_the_defaults(tmp_path):
    (issuer,) = load(tmp_path, JWT).issuers
    assert (issuer.algorithms, issuer.leeway, issuer.scope_claim) == (("RS256",), 30, "scope")
    assert issuer.rules_of("anyone at all").allows_every
    assert load(tmp_path, "") == AuthFile()
    assert load(tmp_path, b"\xef\xbb\xbf" + MTLS.encode()).certificates


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/jwks",
        "http://[::1]/jwks",
        "http://localhost/jwks",
        "https://issuer.example/keys?p=policy",
    ],
)
def test_addresses_of_key_sets(tmp_path, url):
    assert load(tmp_path, JWT.replace("https://issuer.example/jwks.json", url)).issuers


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://issuer.example/jwks", "http is for 127.0.0.1"),
        ("http://127.0.0.1.example/jwks", "http is for 127.0.0.1"),
        ("http://localhost.example/jwks", "http is for 127.0.0.1"),
        (f"https://user:{CANARY}@issuer.example/", "leave out the user"),
        ("https://issuer.example/#keys", "leave out the user"),
        ("file:///etc/passwd", "an address such as"),
        ("ftp://issuer.example/", "an address such as"),
        ("issuer.example/jwks", "an address such as"),
        ("https://", "an address such as"),
        ("https://issuer.example:port/", "an address such as"),
        ("https://issuer.example/a b", "an address such as"),
        ("https://[::1/", "an address such as"),
        ("", "an address such as"),
    ],
)
def test_no_addresses_of_key_sets(tmp_path, url, expected):
    text = problems_of(tmp_path, JWT.replace("https://issuer.example/jwks.json", url))
    assert "[[jwt]] 1 jwks_url" in text
    assert expected in text


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('algorithms = ["HS256"]', ["algorithms", "RS256, PS256, ES256, EdDSA"]),
        ('algorithms = ["none"]', ["algorithms", "RS256, PS256, ES256, EdDSA"]),
        ("algorithms = []", ["algorithms", "one or more"]),
        ('algorithms = "RS256"', ["algorithms", "a text", "a list"]),
        ("leeway = -1", ["leeway", "-1", "from 0"]),
        ("leeway = 301", ["leeway", "301", "300"]),
        ("leeway = nan", ["leeway", "number"]),
        ("leeway = true", ["leeway", "number"]),
        ('scope_claim = ""', ["scope_claim", "empty"]),
        (f'scope_map = {{ a = ["{CANARY}"] }}', ["scope_map", "no such scope", "memories:read"]),
        ("scope_map = { a = 1 }", ["scope_map", "a table"]),
        ('scope_map = ["agent"]', ["scope_map", "a table"]),
        ('sessions = ["user-{sub}*"]', ["sessions", "user-7.*"]),
        ('sessions = ["{user}.*"]', ["sessions", "user-7.*"]),
        ('sessions = "all"', ["sessions", "a list"]),
        ("allowed_tenants = ['acme']", ["allowed_tenants", "without tenant_claim"]),
        ('tenant_claim = "t"', ["tenant_claim", "in addition to tenant", "allowed_tenants"]),
        ('jwks_file = "keys.json"', ["jwks_file", "in addition to jwks_url"]),
        ('audiance = "x"', ["audiance", "no such setting", "did you mean audience?"]),
        (f'"key {CANARY}" = 1', ["a key", "no such setting"]),
    ],
)
def test_what_a_jwt_may_not_say(tmp_path, line, parts):
    text = problems_of(tmp_path, JWT + line)
    assert "[[jwt]] 1" in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("issuer", "printable characters"),
        ("audience", "printable characters"),
        ("jwks_url", "give jwks_url or jwks_file"),
        ("tenant", "give tenant or tenant_claim"),
    ],
)
def test_what_a_jwt_must_say(tmp_path, name, remedy):
    lines = [line for line in JWT.splitlines() if not line.startswith(f"{name} ")]
    text = problems_of(tmp_path, "\n".join(lines))
    assert f"[[jwt]] 1 {name} (auth.toml): not given" in text
    assert remedy in text


@pytest.mark.parametrize("name", ["san", "tenant", "scopes"])
def test_what_an_mtls_must_say(tmp_path, name):
    lines = [line for line in MTLS.splitlines() if not line.startswith(name)]
    assert f"[[mtls]] 1 {name} (auth.toml): not given" in problems_of(tmp_path, "\n".join(lines))


@pytest.mark.parametrize(
    "san",
    ["*.acme.example", "", "a..b", "-a.example", "agent@acme.example", "agent:8443", "é.example"],
)
def test_what_no_certificate_is_known_by(tmp_path, san):
    text = problems_of(tmp_path, MTLS.replace("spiffe://acme.example/agent", san))
    assert "[[mtls]] 1 san" in text
    assert "DNS name" in text


@pytest.mark.parametrize("san", ["Agent.Acme.example", "agent", "urn:acme:agent", "a_b.example"])
def test_what_certificates_are_known_by(tmp_path, san):
    assert load(tmp_path, MTLS.replace("spiffe://acme.example/agent", san)).certificates


def test_an_mtls_has_no_subject(tmp_path):
    assert "[[mtls]] 1 sessions" in problems_of(tmp_path, MTLS + 'sessions = ["{sub}"]')


def test_every_problem_is_in_one_message(tmp_path):
    text = problems_of(
        tmp_path,
        "colour = 1\n" + JWT.replace("memoryd", "") + "leeway = 900\n" + JWT + JWT + MTLS + MTLS,
    )
    assert text.startswith(f"{tmp_path / 'auth.toml'}: 5 problems:")
    for part in (
        "colour (auth.toml): no such table",
        "[[jwt]] 1 audience",
        "[[jwt]] 1 leeway",
        "[[jwt]] 3 issuer and audience (auth.toml): the same as of [[jwt]] 2",
        "[[mtls]] 2 san (auth.toml): the same as of [[mtls]] 1",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[jwt]\nissuer = 'a'", "write [[jwt]]"),
        (b"jwt = [1]", "write [[jwt]]"),
        (b"a", "not TOML"),
        (b"a = '\xff'", "not UTF-8"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"#" * (MAX_FILE_BYTES + 1), "more than 1,048,576 bytes"),
        (JWT.encode() * (MAX_ISSUERS + 1), f"there may be {MAX_ISSUERS}"),
        (MTLS.encode() * (MAX_CERTIFICATES + 1), f"there may be {MAX_CERTIFICATES}"),
    ],
)
def test_what_no_file_of_this_kind_is(tmp_path, content, expected):
    assert expected in problems_of(tmp_path, content)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        load_auth_file(tmp_path / "auth.toml")
    with pytest.raises(ValueError, match="Is a directory"):
        load_auth_file(tmp_path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "No such file"),
        (b"{", "no JSON"),
        (b"{}", "no JSON Web Key Set"),
        (key_set(IssuerKey("ES256").jwk()), "no key of the file fits the algorithms"),
    ],
)
def test_a_file_of_keys_is_looked_into(tmp_path, content, found):
    if content is not None:
        (tmp_path / "keys.json").write_bytes(content)
    text = problems_of(tmp_path, JWT_BY_FILE)
    assert f"[[jwt]] 1 jwks_file (auth.toml): {found}" in text


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_file_of_keys_is_a_regular_file(tmp_path, make):
    make(tmp_path / "keys.json")
    text = problems_of(tmp_path, JWT_BY_FILE)
    assert "[[jwt]] 1 jwks_file (auth.toml): no regular file" in text


ISSUER = Issuer(
    issuer="i", audience="a", jwks_url="https://i.example/", tenant="t", sessions=["u-{sub}.*"]
)


@given(st.text(max_size=20))
def test_a_subject_gives_rules_for_sessions_of_its_own_or_none(subject):
    try:
        rules = ISSUER.rules_of(subject)
    except InvalidGrant:
        return
    assert rules.texts == (f"u-{subject}.*",)
    assert not set(subject) & set("* /\n")
    assert not rules.allow("u-")


@pytest.mark.parametrize("subject", ["*", "a.*", "", "a b", "a..b", "auth0|7", "é", "x" * 255])
def test_subjects_that_no_session_id_has(subject):
    with pytest.raises(InvalidGrant):
        ISSUER.rules_of(subject)


@pytest.mark.parametrize("subject", ["a.*", "user-7.*", "*"])
def test_a_subject_makes_no_rule_of_its_own(subject):
    issuer = Issuer(
        issuer="i", audience="a", jwks_url="https://i.example/", tenant="t", sessions=["{sub}"]
    )
    with pytest.raises(InvalidGrant):
        issuer.rules_of(subject)


def test_nothing_that_verifies_is_loaded_before_it_is_needed():
    code = (
        "import sys, memoryd.access.auth_file, memoryd.access.tokens, memoryd.access.certificates;"
        "sys.exit(bool({'jwt', 'cryptography'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603  our own command
