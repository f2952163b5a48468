"""Tokens: who shows them, and everything that is tried with them."""

from __future__ import annotations

import json
import traceback
from datetime import timedelta
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import Clock
from tests.issuers import (
    AUDIENCE,
    ISSUER,
    IssuerKey,
    base64url,
    claims_at,
    hmac_token,
    key_set,
    starting,
)

from memoryd.access.auth_file import Issuer
from memoryd.access.claims import MAX_TIME, principal_by, read_token
from memoryd.access.signing_keys import MAX_KEYS, MAX_SET_BYTES, keys_in
from memoryd.access.tokens import Tokens
from memoryd.domain.errors import (
    CredentialExpired,
    CredentialInvalid,
    CredentialMalformed,
)
from memoryd.domain.principals import AuthMethod, Scope, scopes_of

ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"]
CANARY = "c4n4ry"
LEEWAY = 30


@cache
def key_of(algorithm: str, kid: str | None = "one") -> IssuerKey:
    """A key that is made once: making RSA keys takes a while."""
    return IssuerKey(algorithm, kid)


def row(**fields) -> Issuer:
    return Issuer(
        **{
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "algorithms": ALGORITHMS,
            "tenant": "acme",
            **fields,
        }
    )


@pytest.fixture
async def started():
    """Start tokens, and close them after the test."""
    async with starting() as start:
        yield start


@pytest.fixture
def tokens_of(tmp_path, clock, started):
    """Start tokens of issuers whose keys are in a file."""

    async def make(*keys, rows=None, **fields) -> Tokens:
        file = tmp_path / "keys.json"
        file.write_bytes(key_set(*keys))
        rows = rows or [fields]
        return await started(Tokens([row(jwks_file=file, **each) for each in rows], clock))

    return make


@pytest.fixture
async def tokens(tokens_of) -> Tokens:
    return await tokens_of(key_of("ES256").jwk())


async def refused(tokens: Tokens, token: str) -> type[Exception]:
    """The error that a token gets; it shows nothing of the token."""
    with pytest.raises((CredentialInvalid, CredentialExpired, CredentialMalformed)) as caught:
        await tokens.principal_of(token)
    shown = "".join(traceback.format_exception_only(caught.value))
    assert CANARY not in shown
    assert not any(part in shown for part in token.split(".") if len(part) > 8)
    assert tokens.known(token) is None
    return caught.type


# What a token gives


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_says_who_calls(tokens_of, clock, algorithm):
    key = key_of(algorithm)
    tokens = await tokens_of(key.jwk(), algorithms=[algorithm])
    token = key.sign(claims_at(clock(), scope="memories:read memories:write agent other"))
    principal = await tokens.principal_of(token)
    assert principal.tenant == "acme"
    assert principal.name == "alice"
    assert principal.method is AuthMethod.JWT
    assert principal.scopes == {Scope.MEMORIES_READ, Scope.MEMORIES_WRITE}
    assert principal.sessions.allows_every
    assert principal.issued_at == clock()
    assert principal.expires_at == clock() + timedelta(seconds=600 + LEEWAY)
    assert tokens.known(token) == principal


@pytest.mark.parametrize(
    ("claim", "scopes"),
    [
        (None, []),
        ("", []),
        ([], []),
        ("memories:read", ["memories:read"]),
        (["memories:read", "documents:read"], ["memories:read", "documents:read"]),
        ("reader", []),
        ("Memories:Read *", []),
        ("everything", ["agent"]),
        ("erase  everything", ["agent", "memories:erase"]),
        ("instance:admin", []),
    ],
)
async def test_scopes(tokens_of, clock, claim, scopes):
    scope_map = {"everything": ["agent"], "erase": "memories:erase", "instance:admin": []}
    tokens = await tokens_of(key_of("ES256").jwk(), scope_map=scope_map, scope_claim="scp")
    token = key_of("ES256").sign(claims_at(clock(), scope="tenant:admin", scp=claim))
    assert (await tokens.principal_of(token)).scopes == scopes_of(scopes)


@pytest.mark.parametrize("claim", [1, True, {"memories:read": True}, ["memories:read", 1], [[]]])
async def test_scopes_that_cannot_be_read(tokens, clock, claim):
    token = key_of("ES256").sign(claims_at(clock(), scope=claim))
    assert await refused(tokens, token) is CredentialInvalid


async def test_the_tenant_is_one_that_the_issuer_may_name(tokens_of, clock):
    tokens = await tokens_of(
        key_of("ES256").jwk(),
        tenant=None,
        tenant_claim="https://acme.example/tenant",
        allowed_tenants=["acme", "acme-2"],
    )

    def token(tenant):
        return key_of("ES256").sign(
            claims_at(clock(), **{"https://acme.example/tenant": tenant, "tenant": "acme"})
        )

    assert (await tokens.principal_of(token("acme-2"))).tenant == "acme-2"
    for tenant in (None, "", "other", "ACME", ["acme"], 1, {"acme": 1}):
        assert await refused(tokens, token(tenant)) is CredentialInvalid


async def test_rules_for_sessions_may_name_the_subject(tokens_of, clock):
    tokens = await tokens_of(key_of("ES256").jwk(), sessions=["user-{sub}.*", "{sub}"])
    principal = await tokens.principal_of(key_of("ES256").sign(claims_at(clock(), sub="7")))
    assert principal.sessions.texts == ("user-7.*", "7")
    for subject in ("*", "7.*", "a b", "a..b", "auth0|7", "7\n", "é", "{sub}", "x" * 255):
        token = key_of("ES256").sign(claims_at(clock(), sub=subject))
        assert await refused(tokens, token) is CredentialInvalid


async def test_issuers_and_audiences_each_have_their_own_row(tokens_of, clock):
    other = "https://other.example"
    tokens = await tokens_of(
        key_of("ES256").jwk(),
        rows=[
            {"audience": "a", "tenant": "tenant-a"},
            {"audience": "b", "tenant": "tenant-b", "algorithms": ["RS256"]},
            {"issuer": other, "audience": "b", "tenant": "tenant-c"},
        ],
    )

    async def tenant(issuer, audience):
        token = key_of("ES256").sign(claims_at(clock(), iss=issuer, aud=audience))
        return (await tokens.principal_of(token)).tenant

    assert await tenant(ISSUER, "a") == "tenant-a"
    assert await tenant(ISSUER, ["x", "a"]) == "tenant-a"
    assert await tenant(ISSUER, ["b", "a"]) == "tenant-a"  # the first row of the file
    assert await tenant(other, "b") == "tenant-c"
    wrong = [
        (ISSUER, "b"),
        (ISSUER, "c"),
        (ISSUER[:-1], "a"),
        (other, "a"),
    ]
    for issuer, audience in wrong:
        token = key_of("ES256").sign(claims_at(clock(), iss=issuer, aud=audience))
        assert await refused(tokens, token) is CredentialInvalid


async def test_the_first_row_that_a_token_fits_says_what_signs_it(tokens_of, clock):
    rows = [{"audience": "a", "algorithms": ["RS256"]}, {"audience": "b", "algorithms": ["ES256"]}]
    tokens = await tokens_of(key_of("ES256").jwk(), rows=rows)
    assert await tokens.principal_of(key_of("ES256").sign(claims_at(clock(), aud=["b"])))
    token = key_of("ES256").sign(claims_at(clock(), aud=["b", "a"]))
    assert await refused(tokens, token) is CredentialInvalid


# Claims


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "exp", "iat"])
async def test_claims_that_a_token_needs(tokens, clock, name):
    token = key_of("ES256").sign(claims_at(clock(), **{name: None}))
    assert await refused(tokens, token) is CredentialInvalid


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": 1},
        {"iss": [ISSUER]},
        {"iss": ISSUER.upper()},
        {"aud": 1},
        {"aud": []},
        {"aud": {"memoryd": 1}},
        {"aud": ["memoryd", 1]},
        {"aud": [["memoryd"]]},
        {"aud": "memoryd "},
        {"aud": "memory"},
        {"aud": "Memoryd"},
        {"aud": ["other", "others"]},
        {"sub": ""},
        {"sub": 7},
        {"sub": ["alice"]},
        {"sub": "a" * 256},
        {"sub": "a\u0000b"},
        {"sub": "a\u202eb"},
    ],
)
async def test_claims_that_are_wrong(tokens, clock, claims):
    token = key_of("ES256").sign(claims_at(clock(), **claims))
    assert await refused(tokens, token) is CredentialInvalid


@pytest.mark.parametrize("audience", [["memoryd"], ["other", "memoryd"], ["memoryd", "memoryd"]])
async def test_an_audience_may_be_a_list(tokens, clock, audience):
    assert await tokens.principal_of(key_of("ES256").sign(claims_at(clock(), aud=audience)))


# Times


@pytest.mark.parametrize(
    ("name", "seconds", "error"),
    [
        ("exp", 1 - LEEWAY, None),
        ("exp", -LEEWAY, CredentialExpired),
        ("exp", -LEEWAY - 1, CredentialExpired),
        ("exp", 0.5 - LEEWAY, None),
        ("nbf", LEEWAY, None),
        ("nbf", LEEWAY + 1, CredentialInvalid),
        ("nbf", LEEWAY + 0.5, CredentialInvalid),
        ("iat", LEEWAY, None),
        ("iat", LEEWAY + 1, CredentialInvalid),
        ("iat", -1_000_000, None),
    ],
)
async def test_clocks_may_differ_by_the_leeway(tokens, clock, name, seconds, error):
    token = key_of("ES256").sign(claims_at(clock(), **{name: clock().timestamp() + seconds}))
    if error is None:
        assert await tokens.principal_of(token)
    else:
        assert await refused(tokens, token) is error


async def test_a_token_that_is_issued_later_is_refused_whenever_it_begins(tokens, clock):
    at = int(clock().timestamp())
    token = key_of("ES256").sign(claims_at(clock(), nbf=at, iat=at + LEEWAY + 1))
    assert await refused(tokens, token) is CredentialInvalid


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1e400",
        "1e300",
        "9" * 400,
        "9" * 1000,
        "18446744073709551616",
        "-9223372036854775809",
        str(MAX_TIME + 1),
        "1e14",
        "-1",
        "-0.5",
        "true",
        "false",
        '"1800000000"',
        "[]",
        "{}",
        "null",
        "0x7fffffff",
    ],
)
async def test_times_that_are_none(tokens, clock, name, value):
    claims = claims_at(clock(), **{name: "here"})
    payload = json.dumps(claims).replace('"here"', value).encode()
    assert value.encode() in payload
    assert await refused(tokens, key_of("ES256").sign_bytes(payload)) is CredentialInvalid


async def test_an_expired_token_is_only_expired_if_nothing_else_is_wrong(tokens, clock):
    old = claims_at(clock(), exp=1, iat=0)
    assert await refused(tokens, key_of("ES256").sign(old)) is CredentialExpired
    forged = IssuerKey("ES256").sign(old)
    assert await refused(tokens, forged) is CredentialInvalid
    for claims in ({"aud": "other"}, {"sub": ""}, {"scope": 1}, {"iss": "other"}):
        token = key_of("ES256").sign({**old, **claims})
        assert await refused(tokens, token) is CredentialInvalid


@given(st.integers(-(10**20), 10**20) | st.floats())
def test_any_number_is_a_time_or_is_refused(number):
    issuer, clock = row(jwks_file="unused"), Clock()
    for name in ("exp", "iat", "nbf"):
        try:
            principal_by(issuer, claims_at(clock(), **{name: number}), clock())
        except (CredentialInvalid, CredentialExpired):
            continue
        assert 0 <= number <= MAX_TIME


# Forgeries


async def test_forgeries_and_unknown_issuers_look_alike(tokens, clock):
    claims = claims_at(clock())
    for token in (
        IssuerKey("ES256").sign(claims),
        IssuerKey("ES256", kid="other").sign(claims),
        key_of("ES256").sign({**claims, "iss": "https://evil.example"}),
    ):
        assert await refused(tokens, token) is CredentialInvalid


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
async def test_a_token_that_is_not_signed(tokens, clock, algorithm):
    header = base64url(json.dumps({"alg": algorithm, "kid": "one"}).encode())
    payload = base64url(json.dumps(claims_at(clock())).encode())
    signed = key_of("ES256").sign(claims_at(clock()))
    for signature in ("", signed.rpartition(".")[2]):
        assert await refused(tokens, f"{header}.{payload}.{signature}") is CredentialInvalid


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_public_key_is_no_secret_of_hmac(tokens_of, clock, algorithm):
    key = key_of(algorithm)
    tokens = await tokens_of(key.jwk(), {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"})
    public = key.private.public_key()
    secrets = [
        (json.dumps(key.jwk()).encode(), "one"),
        (b"secret", "secret"),
        (b"", "one"),
        *(
            (public.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo), "one")
            for encoding in (Encoding.PEM, Encoding.DER)
        ),
    ]
    for secret, kid in secrets:
        token = hmac_token(claims_at(clock()), secret, kid)
        assert await refused(tokens, token) is CredentialInvalid


async def test_an_algorithm_must_be_the_issuers_and_fit_the_key(tokens_of, clock):
    pkcs, claims = key_of("RS256"), claims_at(clock())
    pss = IssuerKey("PS256", "one", pkcs.private)
    tokens = await tokens_of(pkcs.jwk(), algorithms=["RS256", "ES256"])
    assert await tokens.principal_of(pkcs.sign(claims))
    assert await refused(tokens, pss.sign(claims)) is CredentialInvalid
    assert await refused(tokens, key_of("ES256").sign(claims)) is CredentialInvalid
    assert await refused(tokens, pkcs.sign(claims, {"alg": "ES256"})) is CredentialInvalid
    tokens = await tokens_of(pkcs.jwk(alg="RS256"), algorithms=["RS256", "PS256"])
    assert await tokens.principal_of(pkcs.sign(claims))
    assert await refused(tokens, pss.sign(claims)) is CredentialInvalid


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"crit": None, "b64": False},
        {"b64": True},
        {"jku": "http://127.0.0.1:1/jwks.json"},
        {"x5u": "http://127.0.0.1:1/cert.pem"},
        {"kid": 1},
        {"kid": ["one"]},
        {"kid": "../../one"},
        {"kid": "one\x00"},
        {"kid": "one' OR '1'='1"},
        {"kid": "/dev/null"},
        {"kid": ""},
        {"typ": "logout+jwt"},
        {"typ": "dpop+jwt"},
        {"typ": "secevent+jwt"},
        {"typ": 1},
        {"alg": 1},
        {"alg": ["ES256"]},
        {"alg": "es256"},
        {"alg": None},
    ],
)
async def test_headers_that_are_refused(tokens, clock, header):
    token = key_of("ES256").sign(claims_at(clock()), header)
    assert await refused(tokens, token) is CredentialInvalid


async def test_a_key_that_a_token_brings_along_is_refused(tokens, clock):
    forger = IssuerKey("ES256")
    for key in (forger, key_of("ES256")):
        token = key.sign(claims_at(clock()), {"jwk": key.jwk()})
        assert await refused(tokens, token) is CredentialInvalid


@pytest.mark.parametrize("kind", [None, "JWT", "jwt", "at+jwt", "application/at+jwt", "JOSE"])
async def test_types_of_tokens(tokens, clock, kind):
    assert await tokens.principal_of(key_of("ES256").sign(claims_at(clock()), {"typ": kind}))


async def test_without_a_key_id_there_must_be_one_key_that_fits(tokens_of, clock):
    key, other = key_of("ES256", kid=None), key_of("RS256")
    token = key.sign(claims_at(clock()))
    tokens = await tokens_of(key.jwk(), other.jwk())
    assert await tokens.principal_of(token)
    tokens = await tokens_of(key.jwk(kid="named"), other.jwk())
    assert await tokens.principal_of(token)
    tokens = await tokens_of(key.jwk(), key_of("ES256").jwk())
    assert await refused(tokens, token) is CredentialInvalid


async def test_a_key_id_must_mean_one_key(tokens_of, clock):
    key, token = key_of("ES256"), key_of("ES256").sign(claims_at(clock()))
    tokens = await tokens_of(key.jwk(), key_of("RS256").jwk())
    assert await tokens.principal_of(token)
    tokens = await tokens_of(key.jwk(), IssuerKey("ES256").jwk())
    assert await refused(tokens, token) is CredentialInvalid
    tokens = await tokens_of(key_of("ES256", kid=None).jwk())
    assert await refused(tokens, token) is CredentialInvalid


@given(st.data())
@settings(max_examples=300)
def test_a_token_with_one_other_character_is_another_token(data):
    token = key_of("ES256").sign(claims_at(Clock()()))
    place = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.sampled_from("AQgwz0_-.= \n\0é+/"))
    changed = token[:place] + character + token[place + 1 :]
    (key,) = keys_in(key_set(key_of("ES256").jwk()))
    try:
        read = read_token(changed)
    except (CredentialInvalid, CredentialMalformed):
        return
    assert changed == token or not key.verifies("ES256", read.signed, read.signature)


@given(st.binary(max_size=300), st.sampled_from(ALGORITHMS))
def test_no_other_bytes_are_a_signature(signature, algorithm):
    (key,) = keys_in(key_set(key_of(algorithm).jwk()))
    assert not key.verifies(algorithm, b"signed", signature)


# Texts that are no tokens


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "a.b.c.d.e",
        "....",
        "x" * 5_000,
        "e30.e30.é",
        "e30.e30.\ud800",
        "e30=.e30=.AA==",
        "e30.e30.AA\n",
        " e30.e30.AA",
        f"{base64url(b'[]')}.e30.AA",
        f"{base64url(b'1')}.e30.AA",
        f"{base64url(b'{')}.e30.AA",
        f"{base64url(b'[' * 2_000)}.e30.AA",
        base64url(b'{"alg":NaN}') + ".e30.AA",
        "e30.e30." + "A" * 4_096,
        "mdk_0123456789AB_notakey",
    ],
)
async def test_texts_that_are_no_tokens(tokens, text):
    assert await refused(tokens, text) is CredentialMalformed


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        b"{",
        b"\xff",
        b'{"iss":"\xed\xa0\x80"}',
        rb'{"iss":"\ud800"}',
        b"[" * 2_500,
        b'{"a":' * 600,
        b'{"iss":' + b"[" * 2_000 + b"]" * 2_000 + b"}",
    ],
)
async def test_claims_that_cannot_be_read(tokens, payload):
    assert await refused(tokens, key_of("ES256").sign_bytes(payload)) in {
        CredentialInvalid,
        CredentialMalformed,
    }


async def test_a_token_has_4_kib_at_most(tokens, clock):
    def token(padding):
        return key_of("ES256").sign(claims_at(clock(), pad="x" * padding))

    shortest = len(token(0))
    padding = (4_096 - shortest) * 3 // 4
    while len(token(padding)) > 4_096:
        padding -= 1
    assert await tokens.principal_of(token(padding))
    assert await refused(tokens, token(padding + 4)) is CredentialMalformed


@given(st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*"))
def test_no_text_harms(text):
    with pytest.raises((CredentialInvalid, CredentialMalformed)):
        read_token(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["iss", "aud", "sub", "exp", "iat", "scope", "nbf", "x"]), inner
            )
        ),
        max_leaves=8,
    )
)
def test_no_claims_harm(claims):
    now = Clock()()
    if isinstance(claims, dict):
        try:
            principal_by(row(jwks_file="unused"), {**claims_at(now), **claims}, now)
        except (CredentialInvalid, CredentialExpired):
            return


# What is remembered


async def test_a_token_is_known_until_it_expires(tokens, clock):
    token = key_of("ES256").sign(claims_at(clock()))
    assert tokens.known(token) is None
    principal = await tokens.principal_of(token)
    assert tokens.known(token) is principal
    clock.move(timedelta(seconds=600 + LEEWAY - 1))
    assert tokens.known(token) is principal
    clock.move(timedelta(seconds=1))
    assert tokens.known(token) is None
    assert await refused(tokens, token) is CredentialExpired


async def test_the_tokens_known_are_limited(tmp_path, clock, started):
    key, file = key_of("ES256"), tmp_path / "keys.json"
    file.write_bytes(key_set(key.jwk()))
    tokens = await started(Tokens([row(jwks_file=file)], clock, most_known=3))
    texts = [key.sign(claims_at(clock(), jti=str(number))) for number in range(4)]
    for text in texts[:3]:
        await tokens.principal_of(text)
    tokens.known(texts[0])
    await tokens.principal_of(texts[3])
    assert [tokens.known(text) is not None for text in texts] == [True, False, True, True]


# Keys


@pytest.mark.parametrize(
    "change",
    [
        {"kty": "oct"},
        {"kty": "rsa"},
        {"kty": None},
        {"kty": ["RSA"]},
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"alg": "RS512"},
        {"alg": "HS256"},
        {"alg": "none"},
        {"alg": "RSA-OAEP"},
        {"kid": 1},
        {"d": "AQAB"},
        {"k": "AQAB"},
        {"p": "AQAB"},
        {"n": "AQAB"},
        {"n": "AQAB" * 20_000},
        {"n": 1},
        {"n": None},
        {"n": ""},
        {"n": "é"},
        {"e": "AQ"},
        {"e": "AA"},
        {"e": "Ag"},
        {"e": "_" * 100},
    ],
)
def test_keys_that_are_left_out(change):
    good = key_of("RS256").jwk()
    keys = keys_in(key_set({**good, **change}, {**good, "kid": "good"}, 1, None, []))
    assert [key.kid for key in keys] == ["good"]


def test_keys_of_other_curves_and_sizes_are_left_out():
    p256, okp = key_of("ES256").jwk(), key_of("EdDSA").jwk()
    for jwk in (
        {**p256, "crv": "P-384"},
        {**p256, "crv": "secp256k1"},
        {**p256, "crv": None},
        {**p256, "x": p256["y"]},  # no point of the curve
        {**p256, "y": ""},
        {**okp, "crv": "Ed448"},
        {**okp, "crv": "X25519"},
        {**okp, "x": "AQAB"},
    ):
        assert keys_in(key_set(jwk)) == ()
    assert [len(keys_in(key_set(jwk))) for jwk in (p256, okp)] == [1, 1]


@pytest.mark.parametrize(
    ("algorithm", "private"),
    [
        ("ES384", ec.generate_private_key(ec.SECP384R1())),
        ("ES256K", ec.generate_private_key(ec.SECP256K1())),
        ("EdDSA", ed448.Ed448PrivateKey.generate()),
    ],
)
def test_whole_keys_of_other_curves_are_left_out(algorithm, private):
    assert keys_in(key_set(IssuerKey(algorithm, "one", private).jwk())) == ()


def test_small_rsa_keys_are_left_out():
    small = IssuerKey("RS256", "one", rsa.generate_private_key(65537, 1024))  # noqa: S505
    assert keys_in(key_set(small.jwk())) == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no JSON"),
        (b"<html>", "no JSON"),
        (b"[" * 5_000, "no JSON"),
        (b"[]", "no JSON Web Key Set"),
        (b"{}", "no JSON Web Key Set"),
        (b'{"keys": {}}', "no JSON Web Key Set"),
        (key_set(*[{}] * (MAX_KEYS + 1)), "more than 100 keys"),
        (b" " * (MAX_SET_BYTES + 1), "more than 1,048,576 bytes"),
    ],
)
def test_sets_that_are_none(content, reason):
    with pytest.raises(ValueError, match=reason):
        keys_in(content)
