"""References to secrets: how they are parsed and resolved, and that no value is shown."""

import copy
import pickle

import pytest
from pydantic import SecretStr

from memoryd.tools.secrets import (
    EnvironmentSecrets,
    MalformedReferenceError,
    SecretReference,
    Secrets,
    SecretUnavailableError,
)

CANARY = "c4n4ry"


async def unavailable(secrets: Secrets, text: str) -> SecretUnavailableError:
    with pytest.raises(SecretUnavailableError) as caught:
        await secrets.resolve(SecretReference.parse(text))
    return caught.value


@pytest.mark.parametrize(
    ("text", "scheme", "name"),
    [
        ("env://CRM_KEY", "env", "CRM_KEY"),
        ("ENV://_k1", "env", "_k1"),
        ("secretsmanager://aws/crm", "secretsmanager", "aws/crm"),
        ("secretsmanager://aws/prod/crm@1#api", "secretsmanager", "aws/prod/crm@1#api"),
        (
            "secretsmanager://aws/arn:aws:secretsmanager:eu-west-1:1:secret:crm-AbC",
            "secretsmanager",
            "aws/arn:aws:secretsmanager:eu-west-1:1:secret:crm-AbC",
        ),
    ],
)
def test_references(text: str, scheme: str, name: str) -> None:
    reference = SecretReference.parse(text)
    assert (reference.scheme, reference.name) == (scheme, name)
    assert reference.source == f"{scheme}://{name}"
    assert reference
    assert not reference.is_literal


@pytest.mark.parametrize(
    "text", [CANARY, f"vault://{CANARY}", f"https://{CANARY}", f"env:{CANARY}", f"://{CANARY}"]
)
def test_anything_else_is_a_literal(text: str) -> None:
    reference = SecretReference.parse(text)
    assert reference.is_literal
    assert reference.source == "literal"
    assert reference.literal.get_secret_value() == text


def test_an_empty_text_is_no_reference() -> None:
    reference = SecretReference.parse("")
    assert not reference
    assert reference == SecretReference()
    assert reference.source == ""


@pytest.mark.parametrize(
    "text",
    [
        "env://",
        f"env://{CANARY}-1",
        f"env://1{CANARY}",
        f"env://{CANARY}\n",
        "secretsmanager://",
        "secretsmanager://aws/",
        f"secretsmanager://gcp/{CANARY}",
        f"secretsmanager://aws/{CANARY}#",
        f"secretsmanager://aws/{CANARY} x",
    ],
)
def test_a_known_scheme_with_a_bad_name_is_refused(text: str) -> None:
    with pytest.raises(MalformedReferenceError, match="expected ") as caught:
        SecretReference.parse(text)
    assert CANARY not in str(caught.value)


def test_references_compare_by_what_they_name() -> None:
    one, same, other = map(SecretReference.parse, ("env://A", "env://A", "env://B"))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert SecretReference.parse("a") != SecretReference.parse("b")
    assert one != "env://A"
    assert copy.deepcopy(one) == copy.copy(one) == one


def test_a_literal_is_not_shown() -> None:
    reference = SecretReference.parse(CANARY)
    assert str(reference) == "literal"
    assert repr(reference) == "SecretReference('literal')"
    assert CANARY not in f"{[reference]} {reference.literal!r} {reference.literal}"


@pytest.mark.parametrize(
    "holder",
    [
        SecretReference.parse(CANARY),
        EnvironmentSecrets({"A": CANARY}),
        Secrets.built_in({"A": CANARY}),
    ],
)
def test_objects_that_may_hold_a_secret_are_not_pickled(holder: object) -> None:
    with pytest.raises(TypeError, match="may hold secrets") as caught:
        pickle.dumps(holder)
    assert CANARY not in f"{caught.value} {holder!r} {holder}"


async def test_the_environment_is_read() -> None:
    secrets = Secrets.built_in({"CRM_KEY": CANARY})
    value = await secrets.resolve(SecretReference.parse("env://CRM_KEY"))
    assert value.get_secret_value() == CANARY
    assert CANARY not in repr(value)


async def test_a_literal_resolves_to_itself() -> None:
    value = await Secrets({}).resolve(SecretReference.parse(CANARY))
    assert value.get_secret_value() == CANARY


async def test_a_reference_that_resolves_to_nothing_says_why_and_what_to_do() -> None:
    secrets = Secrets.built_in({"EMPTY": " "})
    absent = await unavailable(secrets, "env://ABSENT")
    assert absent.reason == "the variable ABSENT is not set"
    assert absent.remedy == "set ABSENT in the environment of the service or in .env, and restart"
    assert str(absent) == f"{absent.reason}; {absent.remedy}"
    assert (await unavailable(secrets, "env://EMPTY")).reason == "the variable EMPTY is empty"
    assert (await unavailable(secrets, "")).reason == "no secret is given"


async def test_a_scheme_without_provider_says_so() -> None:
    secrets = Secrets({"env": EnvironmentSecrets({})})
    error = await unavailable(secrets, "secretsmanager://aws/crm")
    assert error.reason == "this service has no provider for secretsmanager://"
    assert error.remedy == "keep the secret where it has one: env://"


async def test_a_provider_serves_its_scheme() -> None:
    class Fixed:
        async def resolve(self, reference: SecretReference) -> SecretStr:
            return SecretStr(f"value of {reference.name}")

    secrets = Secrets({"secretsmanager": Fixed(), "env": EnvironmentSecrets({"A": "1"})})
    value = await secrets.resolve(SecretReference.parse("secretsmanager://aws/crm#key"))
    assert value.get_secret_value() == "value of aws/crm#key"
    value = await secrets.resolve(SecretReference.parse("env://A"))
    assert value.get_secret_value() == "1"
