"""AWS Secrets Manager over real HTTP: values, every failure, and what callers see."""

from __future__ import annotations

import asyncio
import json
import sys
import threading

import grpc
import pytest
from pydantic import SecretStr

from memoryd.tools.secrets import (
    RESOLVE_TIMEOUT_SECONDS,
    SecretReference,
    Secrets,
    SecretUnavailableError,
)
from memoryd.tools.secrets import aws as aws_module
from memoryd.tools.secrets.cache import RETRY_SECONDS, TTL_SECONDS
from memoryd.v1 import tool_config_pb2 as pb

from ..aws_stub import REGION, SecretsManagerStub  # noqa: TID252  test folders are no packages

PLENTY = 30.0
CANARY = "c4n4ry"


def reading(stub: SecretsManagerStub, **variables: str) -> Secrets:
    """Secrets read from the stub; an empty variable means unset."""
    given = stub.variables | variables
    return Secrets.built_in({name: value for name, value in given.items() if value})


async def resolve(secrets: Secrets, name: str) -> SecretStr:
    reference = SecretReference.parse(f"secretsmanager://aws/{name}")
    return await secrets.resolve(reference, timeout=PLENTY)


async def refused(secrets: Secrets, name: str = "crm") -> SecretUnavailableError:
    with pytest.raises(SecretUnavailableError) as caught:
        await resolve(secrets, name)
    # The error keeps no reference to boto3's.
    assert caught.value.__cause__ is None
    assert CANARY not in str(caught.value)
    return caught.value


# Values


@pytest.mark.parametrize(
    ("name", "stored", "value"),
    [
        ("crm", "plain", "plain"),
        ("prod/crm@1", "plain", "plain"),
        ("crm#api", '{"api": "of the key", "other": 1}', "of the key"),
        ("crm#größe", '{"größe": "übergroß"}', "übergroß"),
        ("crm", '{"api": "whole"}', '{"api": "whole"}'),
        ("arn:aws:secretsmanager:eu-west-1:1:secret:crm-AbC", "by its ARN", "by its ARN"),
    ],
)
async def test_values_and_json_keys(aws, name, stored, value):
    aws.secrets[name.partition("#")[0]] = stored
    found = await resolve(reading(aws), name)
    assert found.get_secret_value() == value
    assert value not in repr(found)


async def test_a_value_is_read_once(aws):
    aws.secrets["crm"] = "value"
    secrets = reading(aws)
    await asyncio.gather(*(resolve(secrets, "crm") for _ in range(10)))
    await resolve(secrets, "crm")
    assert aws.asked == ["crm"]


async def test_region_and_endpoint_may_have_their_other_names(aws):
    aws.secrets["crm"] = "value"
    secrets = reading(
        aws,
        AWS_REGION="",
        AWS_DEFAULT_REGION=REGION,
        AWS_ENDPOINT_URL_SECRETS_MANAGER="",
        AWS_ENDPOINT_URL=aws.endpoint,
    )
    assert (await resolve(secrets, "crm")).get_secret_value() == "value"


# Failures


@pytest.mark.parametrize(
    ("stored", "name", "reason"),
    [
        ("no JSON", "crm#api", "the secret is not a JSON object"),
        (f'["{CANARY}"]', "crm#api", "the secret is not a JSON object"),
        (f'{{"other": "{CANARY}"', "crm#api", "the secret is not a JSON object"),
        ("[" * 100_000, "crm#api", "the secret is not a JSON object"),
        (f'{{"other": "{CANARY}"}}', "crm#api", "the secret has no JSON key api"),
        (f'{{"api": ["{CANARY}"]}}', "crm#api", "the secret's JSON key api is not a text"),
        ('{"api": ""}', "crm#api", "the secret is empty"),
        (" \n", "crm", "the secret is empty"),
        (CANARY.encode(), "crm", "the secret is binary"),
    ],
)
async def test_a_value_of_the_wrong_form(aws, stored, name, reason):
    aws.secrets["crm"] = stored
    assert (await refused(reading(aws), name)).reason == reason


async def test_a_missing_secret_is_not_asked_for_again_at_once(aws):
    secrets = reading(aws)
    for _ in range(3):
        missing = await refused(secrets)
        assert missing.reason == f"AWS Secrets Manager has no secret crm in {REGION}"
        assert "AWS_REGION" in missing.remedy
    assert aws.asked == ["crm"]


@pytest.mark.parametrize(
    ("status", "code", "reason", "remedy"),
    [
        (400, "AccessDeniedException", "denies", "secretsmanager:GetSecretValue"),
        (400, "DecryptionFailure", "decrypt", "kms:Decrypt"),
        (400, "ThrottlingException", "throttles", "quota"),
        (400, "InvalidRequestException", "deletion", "restore-secret"),
        (400, "InvalidParameterException", "name", "correct the name"),
        (400, "UnrecognizedClientException", "credentials", "AWS_ACCESS_KEY_ID"),
        (403, "InvalidSignatureException", "credentials", "clock"),
        (500, "InternalServiceError", "answers InternalServiceError", "no outage"),
        (400, f"{CANARY} {CANARY}", "answers an error", "AWS_ENDPOINT_URL_SECRETS_MANAGER"),
    ],
)
async def test_a_refusal_has_its_remedy(aws, status, code, reason, remedy):
    aws.faults["crm"] = (status, code)
    failure = await refused(reading(aws))
    assert reason in failure.reason
    assert remedy in failure.remedy
    assert len(aws.asked) <= aws_module.ATTEMPTS


async def test_malformed_answers(aws):
    aws.bodies["crm"] = f"<html>{CANARY}".encode()
    failure = await refused(reading(aws))
    assert failure.reason == "the answer of AWS Secrets Manager has no secret"


async def test_no_region(aws):
    failure = await refused(reading(aws, AWS_REGION=""))
    assert failure.reason == "no AWS region is given"
    assert failure.remedy == "set AWS_REGION to the region that the secret is in"
    assert aws.asked == []


async def test_no_credentials(aws):
    failure = await refused(reading(aws, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY=""))
    assert failure.reason == "no AWS credentials are given"
    assert "IAM role" in failure.remedy
    assert aws.asked == []


async def test_an_unreachable_endpoint(aws):
    aws.stop()
    assert (await refused(reading(aws))).reason == "AWS Secrets Manager cannot be reached"


async def test_a_hanging_server_times_out(aws, monkeypatch):
    monkeypatch.setattr(aws_module, "READ_TIMEOUT_SECONDS", 0.1)
    aws.open.clear()
    failure = await refused(reading(aws))
    assert failure.reason == "AWS Secrets Manager did not answer within 0.1 s, 2 times"
    assert len(aws.asked) == aws_module.ATTEMPTS


async def test_without_boto3_the_remedy_is_to_install_it(aws, monkeypatch):
    monkeypatch.setitem(sys.modules, "botocore", None)
    failure = await refused(reading(aws))
    assert "not installed" in failure.reason
    assert failure.remedy == 'pip install "memoryd[aws]", and restart'


async def test_the_last_value_serves_when_the_server_goes_away(aws):
    now = 0.0
    secrets = Secrets.built_in(aws.variables, clock=lambda: now)
    aws.secrets["crm"] = "value"
    reference = SecretReference.parse("secretsmanager://aws/crm")
    await resolve(secrets, "crm")
    port = int(aws.endpoint.rpartition(":")[2])
    aws.stop()
    now += TTL_SECONDS
    assert (await resolve(secrets, "crm")).get_secret_value() == "value"
    failure = secrets.refresh_failure(reference)
    assert failure is not None
    assert failure.reason == "AWS Secrets Manager cannot be reached"

    again = SecretsManagerStub(port)
    try:
        again.secrets["crm"] = "renewed"
        now += RETRY_SECONDS
        assert (await resolve(secrets, "crm")).get_secret_value() == "renewed"
        assert secrets.refresh_failure(reference) is None
    finally:
        again.stop()


async def test_the_event_loop_runs_while_aws_hangs(aws):
    aws.secrets["crm"] = "value"
    aws.open.clear()
    caller = threading.get_ident()
    waiting = asyncio.create_task(resolve(reading(aws), "crm"))
    ticks = 0
    while not aws.asked or ticks < 1000:
        await asyncio.sleep(0)
        ticks += 1
    assert threading.get_ident() == caller
    assert not waiting.done()
    aws.open.set()
    assert (await waiting).get_secret_value() == "value"


# What callers and operators see


async def warnings(tools, tool: str = "crm") -> list[str]:
    config = await tools.GetToolConfig(pb.GetToolConfigRequest(tool=tool))
    return [warning.description for warning in config.warnings if "api_key" in warning.field]


async def test_a_key_from_aws_gives_no_warning(aws, serve):
    aws.secrets["keys"] = json.dumps({"crm": CANARY})
    tools = (await serve(CRM_API_KEY="secretsmanager://aws/keys#crm", **aws.variables)).tools
    assert await warnings(tools) == []
    config = await tools.GetToolConfig(pb.GetToolConfigRequest(tool="crm"))
    assert config.crm.api_key_source == "secretsmanager://aws/keys#crm"


async def test_a_key_that_is_denied_is_a_warning_with_the_remedy(aws, serve):
    aws.faults["crm"] = (400, "AccessDeniedException")
    tools = (await serve(CRM_API_KEY="secretsmanager://aws/crm", **aws.variables)).tools
    (warning,) = await warnings(tools)
    assert warning.startswith("secretsmanager://aws/crm resolves to nothing: AWS denies")
    assert "secretsmanager:GetSecretValue" in warning
    given = pb.ToolConfig(
        tool="crm", crm=pb.CrmSettings(api_key="secretsmanager://aws/memoryd/none")
    )
    answer = await tools.ValidateToolConfig(pb.ValidateToolConfigRequest(tool_config=given))
    assert any("has no secret memoryd/none" in warning.description for warning in answer.warnings)


async def test_a_caller_learns_nothing_of_secrets_that_it_may_not_name(aws, serve):
    aws.secrets["keys"] = CANARY
    own = {"BILLING_API_KEY": "env://OF_BILLING", "OF_BILLING": CANARY}
    tools = (await serve(THERE=CANARY, **own, **aws.variables)).tools

    async def validated(key: str) -> pb.ValidateToolConfigResponse:
        given = pb.ToolConfig(tool="crm", crm=pb.CrmSettings(api_key=key))
        return await tools.ValidateToolConfig(pb.ValidateToolConfigRequest(tool_config=given))

    first, *others = [
        await validated(key)
        for key in ("env://THERE", "env://MISSING", "secretsmanager://aws/keys#a")
    ]
    (violation,) = first.violations
    assert violation.field == "crm.api_key"
    assert "MEMORYD_SECRET_NAMES" in violation.description
    assert others == [first, first]
    given = pb.ToolConfig(tool="crm", crm=pb.CrmSettings(api_key="env://THERE"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tools.UpdateToolConfig(pb.UpdateToolConfigRequest(tool_config=given))
    assert "tool_config.crm.api_key" in refused.value.details()
    assert "MEMORYD_SECRET_NAMES" in refused.value.details()
    assert not aws.asked
    # References that the operator names, and those named like a tool.
    for key in ("env://OF_BILLING", "env://CRM_KEY", "env://ANY_API_KEY"):
        assert not (await validated(key)).violations


async def test_an_override_that_may_no_longer_be_named_is_set_aside_unread(aws, serve):
    aws.secrets["keys"] = CANARY
    given = pb.ToolConfig(tool="crm", crm=pb.CrmSettings(api_key="secretsmanager://aws/keys"))
    allowed = {"MEMORYD_SECRET_NAMES": "secretsmanager://aws/k*"}
    lax = (await serve(**allowed, **aws.variables)).tools
    await lax.UpdateToolConfig(pb.UpdateToolConfigRequest(tool_config=given))
    revision = (await lax.ListToolConfigRevisions(
        pb.ListToolConfigRevisionsRequest(tool="crm")
    )).revisions[0].revision  # fmt: skip
    asked = len(aws.asked)
    strict = (await serve(MEMORYD_SECRET_NAMES="", **aws.variables)).tools
    for config in (
        await strict.GetToolConfig(pb.GetToolConfigRequest(tool="crm")),
        await strict.RollbackToolConfig(
            pb.RollbackToolConfigRequest(tool="crm", revision=revision)
        ),
    ):
        assert not config.crm.has_api_key
        assert any("MEMORYD_SECRET_NAMES" in warning.description for warning in config.warnings)
    assert len(aws.asked) == asked


BOTH_KEYS = {f"{tool}_API_KEY": f"secretsmanager://aws/{tool}" for tool in ("CRM", "BILLING")}


async def test_a_slow_provider_is_a_warning_and_no_slow_call(aws, serve):
    aws.open.clear()
    tools = (await serve(**BOTH_KEYS, **aws.variables)).tools
    listed = (await tools.ListTools(pb.ListToolsRequest())).tools
    slow = [warning.description for summary in listed for warning in summary.warnings]
    assert len(slow) == 2
    assert all(f"did not answer within {RESOLVE_TIMEOUT_SECONDS:g} s" in text for text in slow)


async def test_the_secrets_of_all_tools_are_waited_for_at_once(serve, monkeypatch):
    both = asyncio.Barrier(2)

    async def resolve(*_: object, **__: object) -> SecretStr:
        async with asyncio.timeout(PLENTY):
            await both.wait()  # one after the other, the first would wait forever
        return SecretStr("value")

    monkeypatch.setattr(Secrets, "resolve", resolve)
    tools = (await serve(**BOTH_KEYS)).tools
    await tools.ListTools(pb.ListToolsRequest())
    watching = tools.WatchToolConfigs(pb.WatchToolConfigsRequest())
    assert (await watching.read()).tool_config.tool == "rag"
    watching.cancel()


PRODUCTION = {
    "MEMORYD_ENVIRONMENT": "production",
    "MEMORYD_AUTH": "observe",
    "CRM_API_KEY": "secretsmanager://aws/crm",
}


def test_production_starts_with_a_secret_that_is_there(aws, command_line):
    aws.secrets["crm"] = CANARY
    server = command_line.serve(**PRODUCTION, **aws.variables)
    server.address()
    assert server.stop() == 0
    assert aws.asked == ["crm"]
    assert CANARY not in server.log + server.output


def test_production_refuses_to_start_without(aws, command_line):
    keys = {"BILLING_API_KEY": "env://NOWHERE"}
    done = command_line.run("serve", **PRODUCTION, **keys, **aws.variables, MEMORYD_PORT="0")
    assert (done.returncode, done.stdout) == (1, "")
    assert "CRM_API_KEY (secretsmanager://aws/crm): resolves to nothing: AWS" in done.stderr
    assert "create it there" in done.stderr
    assert "BILLING_API_KEY (env://NOWHERE): resolves to nothing" in done.stderr
    assert "Traceback" not in done.stderr
