"""AWS Secrets Manager as simulated by moto's server, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from memoryd.tools.secrets import SecretReference, Secrets, SecretUnavailableError

REGION = "eu-west-1"
PLENTY = 30.0


@pytest.fixture(scope="module")
def variables() -> Iterator[dict[str, str]]:
    """AWS variables for a server with a few secrets."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    given = {
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "key",
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": f"http://{host}:{port}",
    }
    client = boto3.client(
        "secretsmanager",
        region_name=REGION,
        aws_access_key_id="id",
        aws_secret_access_key="key",  # noqa: S106  moto takes any
        endpoint_url=given["AWS_ENDPOINT_URL_SECRETS_MANAGER"],
    )
    client.create_secret(Name="crm", SecretString="the key")
    client.create_secret(Name="prod/all", SecretString='{"crm": "of crm", "billing": "of billing"}')
    client.create_secret(Name="gone", SecretString="was here")
    client.delete_secret(SecretId="gone")
    yield given
    server.stop()


@pytest.mark.parametrize(
    ("name", "value"),
    [("crm", "the key"), ("prod/all#crm", "of crm"), ("prod/all#billing", "of billing")],
)
async def test_values_and_json_keys(variables, name, value):
    secrets = Secrets.built_in(variables)
    reference = SecretReference.parse(f"secretsmanager://aws/{name}")
    found = await secrets.resolve(reference, timeout=PLENTY)
    assert found.get_secret_value() == value


@pytest.mark.parametrize("name", ["never", "gone", "prod/all#inventory", "crm#crm"])
async def test_a_missing_secret_is_refused_with_a_remedy(variables, name):
    secrets = Secrets.built_in(variables)
    reference = SecretReference.parse(f"secretsmanager://aws/{name}")
    with pytest.raises(SecretUnavailableError) as refused:
        await secrets.resolve(reference, timeout=PLENTY)
    assert refused.value.reason
    assert refused.value.remedy
