"""Scopes, rules for sessions, and the text of API keys."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoryd.access.api_key import MalformedKey, digest_of, key_id_of, new_key
from memoryd.domain.principals import (
    MAX_RULES,
    NO_SESSION,
    InvalidGrant,
    Scope,
    SessionRules,
    is_session_id,
    scopes_of,
    tenant_of,
)

session_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,20}", fullmatch=True).filter(
    lambda text: is_session_id(text) is not None
)
prefixes = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,9}[.:@_-]", fullmatch=True).filter(
    lambda text: is_session_id(f"{text}0") is not None
)
rules = st.lists(session_ids | prefixes.map("{}*".format), max_size=4)


# Keys


def test_a_key_has_the_shape_of_the_contract():
    key = new_key()
    assert len(key.text) == 4 + 12 + 1 + 43 + 6
    assert key.text.startswith(f"mdk_{key.key_id}_")
    assert key_id_of(key.text) == key.key_id
    assert key.text not in repr(key)
    assert len(digest_of(key.text)) == 32


def test_a_checksum_is_crc_32_in_base62_digits_upper_case_lower_case():
    # zlib.crc32 of all before the last six digits is 3,512,427,180.
    text = "mdk_0123456789AB_" + "0" * 43
    assert key_id_of(text + checksum(text)) == "0123456789AB"


def checksum(text: str) -> str:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    number, written = zlib.crc32(text.encode()), ""
    while number:
        number, digit = divmod(number, 62)
        written = digits[digit] + written
    return written.rjust(6, "0")


@given(st.integers(0, 65), st.sampled_from("0Az_- é\n"))
def test_a_key_with_one_other_character_is_malformed(place, character):
    text = new_key().text
    changed = text[:place] + character + text[place + 1 :]
    if changed != text:
        with pytest.raises(MalformedKey) as raised:
            key_id_of(changed)
        assert text[17:60] not in str(raised.value)


@pytest.mark.parametrize("cut", [slice(1, None), slice(None, -1), slice(0, 0)])
def test_a_part_of_a_key_is_malformed(cut):
    with pytest.raises(MalformedKey):
        key_id_of(new_key().text[cut])


# Tenants and scopes


@pytest.mark.parametrize("name", ["a", "0", "acme", "acme-2.eu_west", "a" * 64])
def test_names_of_tenants(name):
    assert tenant_of(name) == name


@pytest.mark.parametrize("name", ["", "A", ".a", "-a", "_", "a" * 65, "a b", "é", "a\n", "a/b"])
def test_no_names_of_tenants(name):
    with pytest.raises(InvalidGrant):
        tenant_of(name)


def test_shorthands_stand_for_scopes():
    assert Scope.TOOLS_WRITE not in scopes_of(["agent"])
    assert scopes_of(["reader"]) <= scopes_of(["agent"]) <= scopes_of(["operator"])
    assert set(Scope) - scopes_of(["operator"]) == {Scope.TENANT_ADMIN, Scope.INSTANCE_ADMIN}
    assert scopes_of(["memories:read", "reader"]) == scopes_of(["reader"])
    with pytest.raises(InvalidGrant, match="memories:erase"):
        scopes_of(["memories:delete"])


# Rules for sessions


def test_no_rule_allows_every_session():
    assert SessionRules().allow("user-1")


@pytest.mark.parametrize(
    ("rule", "allowed", "refused"),
    [
        ("user-7.*", ["user-7.a", "user-7.b.c"], ["user-7", "user-70", "user-7-a", "xuser-7.a"]),
        ("user-7", ["user-7"], ["user-7.a", "user-70", "user-"]),
        ("team:*", ["team:1"], ["team", "teams:1"]),
    ],
)
def test_a_rule_fits_whole_ids_or_what_they_begin_with(rule, allowed, refused):
    assert all(map(SessionRules([rule]).allow, allowed))
    assert not any(map(SessionRules([rule]).allow, refused))


@pytest.mark.parametrize(
    "rule", ["", "*", "user-1*", "*.a", "a.*b", "a.**", "a..*", ".*", "é.*", "a b"]
)
def test_rules_that_cannot_be(rule):
    with pytest.raises(InvalidGrant):
        SessionRules([rule])


def test_rules_are_limited():
    SessionRules([f"user-{n}" for n in range(MAX_RULES)])
    with pytest.raises(InvalidGrant):
        SessionRules([f"user-{n}" for n in range(MAX_RULES + 1)])


@given(rules, rules, st.lists(session_ids))
def test_rules_within_others_allow_nothing_beyond_them(some, others, ids):
    if SessionRules(some).within(SessionRules(others)):
        for session_id in (*ids, *(rule.replace("*", "0") for rule in some)):
            if SessionRules(some).allow(session_id):
                assert SessionRules(others).allow(session_id)


@given(rules)
def test_rules_are_within_themselves(some):
    assert SessionRules(some).within(SessionRules(some))


@given(rules, rules, st.lists(session_ids))
def test_both_allow_exactly_what_each_of_two_rules_allows(some, others, ids):
    both = SessionRules(some).both(SessionRules(others))
    for session_id in (*ids, *(rule.replace("*", "0") for rule in (*some, *others))):
        each = SessionRules(some).allow(session_id) and SessionRules(others).allow(session_id)
        assert both.allow(session_id) == each


@given(rules, rules)
def test_both_are_within_each_and_are_the_same_in_either_order(some, others):
    both = SessionRules(some).both(SessionRules(others))
    assert both.within(SessionRules(some))
    assert both.within(SessionRules(others))
    assert both == SessionRules(others).both(SessionRules(some))
    assert not both.allows_every or not (some or others)


def test_rules_without_a_session_in_common_allow_none():
    nothing = SessionRules(["user-7.*"]).both(SessionRules(["user-8.*", "user-7"]))
    assert not nothing.allow("user-7.a")
    assert nothing.within(SessionRules(["user-9"]))
    assert not SessionRules().within(nothing)
    assert not SessionRules(["user-9"]).within(nothing)
    assert nothing != SessionRules()
    assert nothing.texts == (NO_SESSION,)
    with pytest.raises(InvalidGrant):  # also where it is written down and read again
        SessionRules(nothing.texts)


def test_both_of_many_rules_may_have_more_than_one_credential():
    some = SessionRules([f"a.{n}" for n in range(MAX_RULES - 1)] + ["b.*"])
    others = SessionRules([f"b.{n}" for n in range(MAX_RULES - 1)] + ["a.*"])
    assert len(some.both(others).texts) == 2 * (MAX_RULES - 1)
