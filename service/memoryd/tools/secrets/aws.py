"""`secretsmanager://aws/NAME[#json-key]`: AWS Secrets Manager, through boto3.

Region, credentials and endpoint come from AWS's own variables (`AWS_REGION`, `AWS_ACCESS_KEY_ID`,
`AWS_PROFILE`, `AWS_ENDPOINT_URL_SECRETS_MANAGER`, …) or wherever else boto3 looks for them.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

from memoryd.tools.secrets.errors import SecretUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memoryd.tools.secrets.reference import SecretReference

CONNECT_TIMEOUT_SECONDS: Final = 2
"""How long one attempt may take to connect."""

READ_TIMEOUT_SECONDS: Final = 3
"""How long one attempt may wait for bytes."""

ATTEMPTS: Final = 2
"""Tries of a read, the first included, where AWS fails or throttles."""

THREADS: Final = 4
"""Calls at once; boto3 blocks its thread."""

_CREDENTIALS = {
    "aws_access_key_id": "AWS_ACCESS_KEY_ID",
    "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "aws_session_token": "AWS_SESSION_TOKEN",
}
_REGION_REMEDY = "set AWS_REGION to the region that the secret is in"
_ENDPOINT_REMEDY = "correct AWS_ENDPOINT_URL_SECRETS_MANAGER, if it is set"
_CREDENTIALS_REMEDY = (
    "give the service an IAM role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)
_DENIED_REMEDY = (
    "allow the service's role or user the IAM action secretsmanager:GetSecretValue on the secret"
)
_BAD_CREDENTIALS = (
    "AWS does not accept the service's credentials",
    "renew AWS_ACCESS_KEY_ID and its related variables, or the role; check the clock",
)
_DENIED = ("AWS denies the service this secret", _DENIED_REMEDY)
_THROTTLED = (
    "AWS Secrets Manager throttles its callers",
    "wait; if this persists, have the account's quota of GetSecretValue raised",
)
_REFUSALS: Final[Mapping[str, tuple[str, str]]] = {
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "DecryptionFailure": (
        "AWS cannot decrypt the secret",
        "allow the service's role or user the IAM action kms:Decrypt on the secret's key",
    ),
    "ExpiredToken": _BAD_CREDENTIALS,
    "ExpiredTokenException": _BAD_CREDENTIALS,
    "IncompleteSignature": _BAD_CREDENTIALS,
    "InvalidClientTokenId": _BAD_CREDENTIALS,
    "InvalidSignatureException": _BAD_CREDENTIALS,
    "MissingAuthenticationToken": _BAD_CREDENTIALS,
    "SignatureDoesNotMatch": _BAD_CREDENTIALS,
    "UnrecognizedClientException": _BAD_CREDENTIALS,
    "InvalidParameterException": (
        "AWS Secrets Manager does not accept the secret's name",
        "correct the name",
    ),
    "InvalidRequestException": (
        "the secret has no value; it may be marked for deletion",
        "give it a value, or undo its deletion: aws secretsmanager restore-secret",
    ),
    "RequestLimitExceeded": _THROTTLED,
    "Throttling": _THROTTLED,
    "ThrottlingException": _THROTTLED,
    "TooManyRequestsException": _THROTTLED,
}
"""Reason and remedy by AWS's error code."""

_ERROR_CODE = re.compile(r"[A-Za-z0-9.]{1,64}")


class AwsSecretsManager:
    """Reads the current versions of secrets in its own threads."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        """Read AWS's settings from `variables`; boto3 is loaded when the first secret is read."""
        self._variables = variables
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="aws-secrets")
        self._making = threading.Lock()
        self._made: Any = None

    async def resolve(self, reference: SecretReference) -> SecretStr:
        name, _, key = reference.name.removeprefix("aws/").partition("#")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._read, name, key)

    def _read(self, name: str, key: str) -> SecretStr:
        try:
            from botocore import exceptions  # noqa: PLC0415  an extra, slow to load
        except ImportError:
            raise SecretUnavailableError(
                "AWS Secrets Manager is read with boto3, which is not installed",
                'pip install "memoryd[aws]", and restart',
            ) from None
        # Without AWS's texts and the errors' tracebacks: they may contain anything.
        try:
            client = self._client()
            answer = client.get_secret_value(SecretId=name)
        except exceptions.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            raise _refusal(name, client.meta.region_name, code) from None
        except (exceptions.ConnectTimeoutError, exceptions.ReadTimeoutError) as error:
            connecting = isinstance(error, exceptions.ConnectTimeoutError)
            timeout = CONNECT_TIMEOUT_SECONDS if connecting else READ_TIMEOUT_SECONDS
            raise SecretUnavailableError(
                f"AWS Secrets Manager did not answer within {timeout} s, {ATTEMPTS} times",
                "check that the service reaches it over the network, and that AWS has no outage",
            ) from None
        except exceptions.NoRegionError:
            raise SecretUnavailableError("no AWS region is given", _REGION_REMEDY) from None
        except (
            exceptions.NoCredentialsError,
            exceptions.PartialCredentialsError,
            exceptions.CredentialRetrievalError,
        ):
            raise SecretUnavailableError(
                "no AWS credentials are given", _CREDENTIALS_REMEDY
            ) from None
        except (exceptions.ConnectionError, exceptions.HTTPClientError):
            raise SecretUnavailableError(
                "AWS Secrets Manager cannot be reached",
                "check AWS_REGION, and that the network lets the service connect;"
                f" {_ENDPOINT_REMEDY}",
            ) from None
        return _value(answer, key)

    def _client(self) -> Any:
        """boto3's client, which threads share; its session they must not share."""
        with self._making:
            if self._made is None:
                import boto3  # noqa: PLC0415  an extra, slow to load
                from botocore.config import Config  # noqa: PLC0415  as above

                given = self._given
                session = boto3.Session(
                    **{name: given(variable) for name, variable in _CREDENTIALS.items()}
                    if given("AWS_ACCESS_KEY_ID") and given("AWS_SECRET_ACCESS_KEY")
                    else {},
                    profile_name=given("AWS_PROFILE"),
                    region_name=given("AWS_REGION") or given("AWS_DEFAULT_REGION"),
                )
                self._made = session.client(
                    "secretsmanager",
                    endpoint_url=given("AWS_ENDPOINT_URL_SECRETS_MANAGER")
                    or given("AWS_ENDPOINT_URL"),
                    config=Config(
                        connect_timeout=CONNECT_TIMEOUT_SECONDS,
                        read_timeout=READ_TIMEOUT_SECONDS,
                        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                        max_pool_connections=THREADS,
                    ),
                )
            return self._made

    def _given(self, variable: str) -> str | None:
        """A variable's value; boto3 by itself sees neither those of `.env` nor AWS_REGION."""
        return self._variables.get(variable) or None


def _refusal(name: str, region: str, code: str) -> SecretUnavailableError:
    if code == "ResourceNotFoundException":
        return SecretUnavailableError(
            f"AWS Secrets Manager has no secret {name} in {region}",
            f"create it there, correct the name, or {_REGION_REMEDY}",
        )
    if code in _REFUSALS:
        return SecretUnavailableError(*_REFUSALS[code])
    shown = code if _ERROR_CODE.fullmatch(code) else "an error"
    return SecretUnavailableError(
        f"AWS Secrets Manager answers {shown}",
        f"check that AWS has no outage; {_ENDPOINT_REMEDY}",
    )


def _value(answer: Mapping[str, Any], key: str) -> SecretStr:
    text = answer.get("SecretString")
    if "SecretBinary" in answer:
        raise SecretUnavailableError(
            "the secret is binary", "store it in AWS Secrets Manager as a text"
        )
    if not isinstance(text, str):
        raise SecretUnavailableError(
            "the answer of AWS Secrets Manager has no secret", _ENDPOINT_REMEDY
        )
    if key:
        text = _member(text, key)
    if not text.strip():
        raise SecretUnavailableError("the secret is empty", "give it a value in AWS")
    return SecretStr(text)


def _member(text: str, key: str) -> str:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise SecretUnavailableError(
            "the secret is not a JSON object",
            f"store it in AWS as an object with the key {key}, or remove #{key} from the reference",
        )
    if key not in document:
        raise SecretUnavailableError(
            f"the secret has no JSON key {key}", "add it in AWS, or correct the reference"
        )
    value = document[key]
    if not isinstance(value, str):
        raise SecretUnavailableError(
            f"the secret's JSON key {key} is not a text",
            "put the value in quotes in AWS",
        )
    return value
