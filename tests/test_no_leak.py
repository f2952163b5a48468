"""Nothing that leaves the service shows a secret; tests plant one everywhere it can be set."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import logging
import os
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from sqlalchemy import make_url

from memoryd.logs import logging_to
from memoryd.settings.reading import SettingsError
from memoryd.tools.secrets import SecretReference, Secrets
from memoryd.tools.settings import TOOLS, load_configuration
from memoryd.v1 import conversation_pb2, document_pb2, memory_pb2, session_pb2, tool_config_pb2
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

from . import collector as collectors
from . import flags
from .aws_stub import SecretsManagerStub, secrets_manager
from .roles import as_superuser
from .scrapes import scrape

CANARY = "c4n4ry"
"""The start of every planted secret."""

UUID = "00000000-0000-7000-8000-000000000000"
METADATA = (
    ("authorization", f"Bearer {CANARY}-header"),
    ("cookie", f"session={CANARY}-cookie"),
    ("token-bin", f"{CANARY}-binary".encode()),
)
GARBAGE = (b"\xff\xff\xff", b"\x0a\xff" + CANARY.encode(), CANARY.encode() * 100)
SERVICES = (
    memory_pb2.DESCRIPTOR.services_by_name["MemoryService"],
    tool_config_pb2.DESCRIPTOR.services_by_name["ToolConfigService"],
    session_pb2.DESCRIPTOR.services_by_name["SessionService"],
    document_pb2.DESCRIPTOR.services_by_name["DocumentService"],
    conversation_pb2.DESCRIPTOR.services_by_name["ConversationService"],
    *(version.DESCRIPTOR.services_by_name["Service"] for version in (flags.v1, flags.v2)),
)
WITH_KEY = ("crm", "billing", "inventory")


def shown(seen: str | bytes) -> bool:
    """Whether it shows a secret, plain or in base64."""
    data = seen.encode("utf-8", "surrogateescape") if isinstance(seen, str) else seen
    stem = CANARY.encode()
    forms = [base64.b64encode(b"\0" * shift + stem)[shift + shift // 2 :][:6] for shift in range(3)]
    return any(form.lower() in data.lower() for form in (stem, stem.hex().encode())) or any(
        form in data for form in forms
    )


def test_a_planted_secret_would_be_found():
    assert shown(f"Bearer {CANARY}")
    assert shown(CANARY.upper())
    assert shown(CANARY.encode().hex())
    for shift in range(3):
        assert shown(base64.b64encode(b"x" * shift + CANARY.encode() + b"-header"))
    assert not shown("canary")


@pytest.fixture
def aws() -> Iterator[SecretsManagerStub]:
    with secrets_manager() as stub:
        stub.secrets["keys"] = json.dumps({"inventory": f"{CANARY}-aws", "other": f"{CANARY}-2"})
        yield stub


def planted(aws: SecretsManagerStub, database_url: str) -> dict[str, str]:
    """Variables with a secret in every possible place."""
    return aws.variables | {
        "MEMORYD_DATABASE_URL": database_url.replace("postgres@/", f"postgres:{CANARY}-db@/"),
        "PGPASSWORD": f"{CANARY}-pgpassword",
        "AWS_SECRET_ACCESS_KEY": f"{CANARY}-access-key",
        "AWS_SESSION_TOKEN": f"{CANARY}-session",
        "ENABLE_CRM_TOOL": "true",
        "CRM_API_KEY": f"{CANARY}-literal",
        "INVENTORY_API_KEY": "secretsmanager://aws/keys#inventory",
        "ENV_TARGET": f"{CANARY}-target",
        "MEMORYD_SECRET_NAMES": "env://*,secretsmanager://*",
    }


DOTENV = f"""\
BILLING_API_KEY=env://DOTENV_TARGET
DOTENV_TARGET={CANARY}-dotenv
OTHER_PROGRAMS='{CANARY}-other
"""


# Driving every method


def tool_configs() -> list[tool_config_pb2.ToolConfig]:
    """Configurations from a caller, with a secret in every text."""
    literal = f"{CANARY}-given"
    of_crm: list[dict[str, Any]] = [
        {"api_key": literal},
        {"api_key": literal, "timeout": 0, "max_retries": -1},
        {"api_key": "env://ENV_TARGET"},
        {"api_key": "secretsmanager://aws/keys#inventory"},
        {"api_key": "secretsmanager://aws/keys#absent"},
        {"api_key": "secretsmanager://aws/keys"},
        {"api_key": "secretsmanager://aws/absent"},
        {"api_key": f"vault://{literal}"},
        {"api_key": f"env://{literal} x"},
        {"api_key": f"secretsmanager://{literal}"},
        {"api_key": f" {literal}\n"},
        {"api_endpoint": f"https://user:{literal}@crm.example"},
        {"api_endpoint": f"ftp://{literal}"},
    ]
    return [
        tool_config_pb2.ToolConfig(),
        *(tool_config_pb2.ToolConfig(tool="crm", crm=fields) for fields in of_crm),
        *(
            tool_config_pb2.ToolConfig(tool=tool, **{tool: {"api_key": literal}})
            for tool in WITH_KEY
        ),
        # With another tool's name, without a tool, and with an invalid etag.
        tool_config_pb2.ToolConfig(tool="rag", crm={"api_key": literal}),
        tool_config_pb2.ToolConfig(tool=f"no {literal}", crm={"api_key": literal}),
        tool_config_pb2.ToolConfig(tool="crm", crm={"api_key": literal}, etag=literal),
        tool_config_pb2.ToolConfig(
            tool="escalation", escalation={"notification_email": f"{literal}@x@y"}
        ),
        *(tool_config_pb2.ToolConfig(tool=tool, enabled=True) for tool in TOOLS),
    ]


def requests_of(method: MethodDescriptor) -> list[bytes]:
    """Requests from a caller: plausible, wrong, and not a message at all."""
    kind = GetMessageClass(method.input_type)
    requests_in = {"ToolConfigService": tool_requests, "Service": flag_requests}
    messages = [kind(), *requests_in.get(method.containing_service.name, memory_requests)(kind)]
    return [*(message.SerializeToString() for message in messages), *GARBAGE]


def tool_requests(kind: type[Message]) -> list[Message]:
    fields = kind.DESCRIPTOR.fields_by_name
    messages: list[Message] = []
    if "tool_config" in fields:
        messages += [kind(tool_config=config) for config in tool_configs()]
        if "update_mask" in fields:
            for config in tool_configs():
                for paths in (["crm.api_key"], ["enabled"], ["*"], ["crm.unknown"]):
                    messages.append(kind(tool_config=config, update_mask={"paths": paths}))
                messages.append(kind(tool_config=config, validate_only=True))
    elif "tool" in fields:
        for tool in (*TOOLS, "none"):
            messages.append(kind(tool=tool))
            if "revision" in fields:
                messages += [kind(tool=tool, revision=revision) for revision in (1, 2, 10**9)]
            if "paths" in fields:
                messages += [
                    kind(tool=tool, paths=[f"{tool}.api_key"]),
                    kind(tool=tool, paths=["x"]),
                ]
            if "page_token" in fields:
                messages.append(kind(tool=tool, page_size=1, page_token="x"))  # noqa: S106  a page token
    return messages


def flag_requests(kind: type[Message]) -> list[Message]:
    if "context" not in kind.DESCRIPTOR.fields_by_name:
        return []
    context = {"targetingKey": f"{CANARY}-person", f"{CANARY}-name": [f"{CANARY}-item"]}
    if "flag_key" not in kind.DESCRIPTOR.fields_by_name:
        return [kind(context=context)]
    keys = [key for tool in TOOLS for key in (tool, *(f"{tool}.{n}" for n in NAMES))]
    return [kind(flag_key=key, context=context) for key in keys]


NAMES = ("enabled", "api_key", "api_key_source", "has_api_key", "api_endpoint", "search_k")
ITEM = {"session_id": "user-1", "content": "prefers letters"}
TALK = {"session_id": "user-1", "conversation_id": "c"}
BY_FIELD: dict[str, list[dict[str, Any]]] = {
    "requests": [{"requests": items} for items in ([ITEM] * 2, [ITEM, {}], [{}] * 1_001)],
    "session": [{"session": {"session_id": "user-1", "labels": {"a": "b"}}}],
    "session_id_prefix": [{"session_id_prefix": "user-"}, {"session_id_prefix": "../x"}],
    "source_session_id": [{"source_session_id": "user-1", "target_session_id": "user-2"}],
    "document": [{"document": {"session_id": "user-1", "key": "k", "text": "letters"}}],
    "conversation": [{"conversation": {"session_id": "user-1", "conversation_id": "c"}}],
    "messages": [
        {**TALK, "messages": [{"message_id": "m", "parts": [{"text": "letters"}]}]},
        {**TALK, "messages": [{"raw_json": "{"}]},
    ],
    "message_ids": [
        {**TALK, "since_last": True},
        {**TALK, "message_ids": ["m"]},
        {**TALK, "message_ids": ["m"], "since_last": True},
    ],
    "conversation_id": [TALK, {**TALK, "conversation_id": "../x"}],
    "memory": [{"memory": {"session_id": "user-1", "memory_id": UUID, "content": "x"}}],
}
"""What is sent of requests that have a field."""


def memory_requests(kind: type[Message]) -> list[Message]:
    fields = kind.DESCRIPTOR.fields_by_name
    for field, several in BY_FIELD.items():
        if field in fields:
            return [kind(**values) for values in several]
    given: dict[str, Any] = {"session_id": "user-1"}
    given |= {"memory_id": UUID} if "memory_id" in fields else {}
    given |= {"content": "prefers e-mail"} if "content" in fields else {}
    given |= {"key": "k"} if "namespace" in fields else {}
    messages = [kind(**given), kind(session_id="../x")]
    return [*messages, kind(**given, force=True)] if "force" in fields else messages


class Caller:
    """Calls methods by name, and keeps all answers."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.codes: dict[str, set[grpc.StatusCode]] = {}
        self.seen: list[str | bytes] = []

    def drive(self, method: MethodDescriptor) -> None:
        path = f"/{method.containing_service.full_name}/{method.name}"
        answer_kind = GetMessageClass(method.output_type)
        for request in requests_of(method):
            for answer in self.call(path, request, streams=method.server_streaming):
                self.seen.append(str(answer_kind.FromString(answer)))

    def call(self, path: str, request: bytes, *, streams: bool = False) -> list[bytes]:
        answers: list[bytes] = []
        if streams:
            call: Any = self._channel.unary_stream(path)(request, timeout=0.3, metadata=METADATA)
        else:
            call = self._channel.unary_unary(path).future(request, timeout=20, metadata=METADATA)
        try:
            answers += list(call) if streams else [call.result()]
        except grpc.RpcError as error:
            self.seen += [str(error), repr(error), error.details() or ""]
        self.codes.setdefault(path, set()).add(call.code())
        for pair in (*(call.initial_metadata() or ()), *(call.trailing_metadata() or ())):
            self.seen += [pair.key, pair.value]
        self.seen += answers
        return answers


def drive_everything(address: str) -> Caller:
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_metadata_size", 64 * 1024)]
    with grpc.insecure_channel(address, options) as channel:
        caller = Caller(channel)
        for service in SERVICES:
            for method in service.methods:
                caller.drive(method)
        for path in ("/memoryd.v1.MemoryService/None", "/grpc.health.v1.Health/Check"):
            for request in (b"", *GARBAGE):
                caller.call(path, request)
    return caller


def assert_nothing_shown(seen: list[str | bytes]) -> None:
    leaks = [line for piece in seen for line in piece.splitlines() if shown(line)]
    assert not leaks


# From outside


def rows(url: str) -> list[str | bytes]:
    """The whole database: every row of every table, or the file's bytes."""
    if url.startswith("sqlite"):
        file = Path(make_url(url).database or "")
        return [found.read_bytes() for found in file.parent.glob(f"{file.name}*")]

    async def read() -> list[str | bytes]:
        connection = await asyncpg.connect(as_superuser(url).replace("+asyncpg", ""))
        tables = await connection.fetch(
            "SELECT quote_ident(table_name) FROM information_schema.tables"
            " WHERE table_schema = 'public'"
        )
        found = [
            row[0]
            for (table,) in tables
            for row in await connection.fetch(f"SELECT t::text FROM {table} t")  # noqa: S608  names from the database
        ]
        await connection.close()
        return found

    return asyncio.run(read())


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_server_shows_no_secret(aws, command_line, database_url, log_format):
    collector, receiving = collectors.start()
    (command_line.folder / ".env").write_text(DOTENV.partition("OTHER")[0])
    server = command_line.serve(
        **planted(aws, database_url),
        MEMORYD_LOG_LEVEL="debug",
        MEMORYD_LOG_FORMAT=log_format,
        # As an operator does when looking for a problem.
        PYTHONFAULTHANDLER="1",
        PYTHONASYNCIODEBUG="1",
        GRPC_VERBOSITY="debug",
        GRPC_TRACE="all",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{collector.address}",
        OTEL_EXPORTER_OTLP_HEADERS=f"x-key={CANARY}-collector",
        OTEL_BSP_SCHEDULE_DELAY="100",
    )
    caller = drive_everything(server.address())
    http = server.output.partition("memoryd http on http://")[2].splitlines()[0]
    caller.seen.append(asyncio.run(scrape(http)).text)
    asyncio.run(collector.until(len(SERVICES)))
    for service in SERVICES:
        for method in service.methods:
            codes = caller.codes[f"/{service.full_name}/{method.name}"]
            assert grpc.StatusCode.INTERNAL not in codes, method.name
            assert grpc.StatusCode.INVALID_ARGUMENT in codes, method.name
    assert "keys" in aws.asked
    assert server.abort() != 0
    assert "Fatal Python error" in server.log  # faulthandler's
    receiving.stop(None).wait()
    caller.seen += collector.raw
    assert_nothing_shown([*caller.seen, server.log, server.output, *rows(database_url)])


def test_no_command_shows_a_secret(aws, command_line, database_url):
    (command_line.folder / ".env").write_text(DOTENV.partition("OTHER")[0])
    variables = planted(aws, database_url) | {"MEMORYD_LOG_LEVEL": "debug"}
    for command in (
        ["migrate"],
        ["sweep", "--once"],
        ["export", "exported"],
        ["import", "exported"],
        ["health"],
        ["config", "show"],
        ["config", "check"],
        ["--help"],
    ):
        done = command_line.run(*command, **variables)
        assert "Traceback" not in done.stderr
        assert_nothing_shown([done.stdout, done.stderr])
    assert_nothing_shown([(command_line.folder / "exported").read_bytes()])


# A start that fails

BAD = [
    {"MEMORYD_DATABASE_URL": f"mysql://u:{CANARY}@host/db"},
    {"MEMORYD_DATABASE_URL": CANARY},
    {"MEMORYD_PORT": CANARY},
    {"MEMORYD_HOST": f"{CANARY} {CANARY}"},
    {"MEMORYD_ENVIRONMENT": CANARY},
    {"MEMORYD_LOG_LEVEL": CANARY},
    {"MEMORYD_DRAIN_SECONDS": CANARY},
    {"MEMORYD_UNKNOWN": CANARY},
    {"RAG_CHUNK_SIZE": CANARY},
    {"ENABLE_CRM_TOOL": CANARY},
    {"CRM_TIMEOUT": CANARY},
    {"CRM_API_KEY": f"env://{CANARY} with a space"},
    {"CRM_API_KEY": f"secretsmanager://{CANARY}"},
    {"CRM_API_KEY": CANARY, "MEMORYD_ENVIRONMENT": "production"},
    {"CRM_API_KEY": f"vault://{CANARY}", "MEMORYD_ENVIRONMENT": "production"},
    {"CRM_API_ENDPOINT": f"https://user:{CANARY}@crm.example"},
    {"ESCALATION_KEYWORDS": f'{{"urgent": "{CANARY}"'},
    {"ESCALATION_NOTIFICATION_EMAIL": f"{CANARY}@@"},
    {"ESCALATION_NOTIFICATION_WEBHOOK": f"https://{CANARY}@hook.example"},
    {"ATTACHMENT_ALLOWED_EXTENSIONS": f'["{CANARY}'},
]


@pytest.mark.parametrize("variables", BAD, ids=lambda variables: next(iter(variables)))
def test_a_bad_setting_is_reported_without_its_value(variables):
    with pytest.raises(SettingsError) as caught:
        load_configuration(environ=variables, dotenv=None, flags={})
    error = caught.value
    assert_nothing_shown([str(error), repr(error), "".join(traceback.format_exception(error))])


def test_a_start_that_fails_shows_no_secret(command_line):
    everything: dict[str, str] = {}
    for variables in BAD:
        everything = variables | everything
    (command_line.folder / ".env").write_text(DOTENV)
    done = command_line.run("serve", **everything)
    assert done.returncode == 1
    assert done.stderr.count("\n") >= len(everything)
    assert_nothing_shown([done.stdout, done.stderr])


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+asyncpg://u:{CANARY}/x@127.0.0.1/db",  # not escaped: read as the port
        f"postgresql+asyncpg://u:{CANARY}#x@127.0.0.1:1/db",
        f"postgresql+asyncpg://u:{CANARY}@127.0.0.1:{CANARY}/db",
        f"postgresql+asyncpg://u:{CANARY}@127.0.0.1:1/db",
        f"postgresql+asyncpg://u@127.0.0.1:1/db?password={CANARY}",
        f"postgresql+asyncpg://u:{CANARY}@[::1/db",
        f"sqlite+aiosqlite:///no/such/folder.db?password={CANARY}",
    ],
)
def test_an_unreachable_database_is_reported_without_its_password(command_line, url):
    done = command_line.run("migrate", MEMORYD_DATABASE_URL=url, MEMORYD_LOG_LEVEL="debug")
    assert done.returncode == 1
    assert done.stderr
    assert_nothing_shown([done.stdout, done.stderr])


# From inside


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
async def test_an_unhandled_exception_is_logged_without_a_secret(serve, monkeypatch, as_json):
    keys = {"CRM_API_KEY": f"{CANARY}-literal", "BILLING_API_KEY": "env://TARGET"}
    running = await serve(**keys, TARGET=f"{CANARY}-target")

    async def broken(_self: Secrets, reference: SecretReference, **_: object) -> None:
        local = reference.literal.get_secret_value()
        raise RuntimeError("an error" if local else "another")

    monkeypatch.setattr(Secrets, "resolve", broken)
    written = io.StringIO()
    caller = []
    with logging_to(written, level="debug", as_json=as_json):
        for tool in ("crm", "billing"):
            config = tool_config_pb2.ToolConfig(tool=tool, **{tool: {"api_key": CANARY}})
            for call in (
                running.tools.GetToolConfig(tool_config_pb2.GetToolConfigRequest(tool=tool)),
                running.tools.ValidateToolConfig(
                    tool_config_pb2.ValidateToolConfigRequest(tool_config=config)
                ),
                running.tools.ListTools(tool_config_pb2.ListToolsRequest()),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() == grpc.StatusCode.INTERNAL
                caller.append(str(caught.value))
    log = written.getvalue()
    assert log.count("unhandled exception") >= 6
    assert "RuntimeError" in log
    assert_nothing_shown([*caller, log])


async def test_an_unhandled_exception_of_the_store_is_logged_without_a_secret(serve, monkeypatch):
    running = await serve(CRM_API_KEY=CANARY)
    monkeypatch.setattr(running.server.database, "read", None)
    written = io.StringIO()
    with logging_to(written, level="debug", as_json=False):
        request = memory_pb2.GetMemoryRequest(session_id="s", memory_id=UUID)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await MemoryServiceStub(running.channel).GetMemory(request, metadata=METADATA)
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert "Traceback" in written.getvalue()
    assert_nothing_shown([str(caught.value), written.getvalue()])


def test_debug_records_of_libraries_are_not_logged():
    """Their records may hold secrets: botocore writes whole answers, aiosqlite rows."""
    libraries = ("aiosqlite", "asyncpg", "boto3", "botocore", "grpc", "sqlalchemy", "urllib3")
    written = io.StringIO()
    with logging_to(written, level="debug", as_json=False):
        for name in libraries:
            for logger in (name, f"{name}.engine"):
                logging.getLogger(logger).debug(CANARY)
                logging.getLogger(logger).info(CANARY)
    assert written.getvalue() == ""


def test_nothing_in_memory_shows_a_secret(aws, tmp_path):
    environ = planted(aws, "postgresql+asyncpg://postgres@/db") | {"PATH": os.environ["PATH"]}
    dotenv = tmp_path / ".env"
    dotenv.write_text(DOTENV.partition("OTHER")[0])
    settings, tools = load_configuration(environ=environ, dotenv=dotenv, flags={})
    secrets = Secrets.built_in(environ)
    models = [settings, *(config.settings for config in tools.values())]
    assert shown(settings.database_url.get_secret_value())
    held = [settings, tools, secrets, *tools.values(), *models]
    held += [config.settings.api_key for name, config in tools.items() if name in WITH_KEY]
    seen: list[str | bytes] = [form for thing in held for form in (repr(thing), str(thing))]
    for model in models:
        seen += [model.model_dump_json(), str(model.model_dump()), str(dict(model))]
        seen += [json.dumps(model.model_dump(mode="json"), default=str), str(vars(model))]
    for thing in held:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with contextlib.suppress(TypeError, AttributeError, pickle.PicklingError):
                seen.append(pickle.dumps(thing, protocol))
    assert_nothing_shown(seen)


async def test_a_resolved_secret_does_not_show_itself(aws):
    secrets = Secrets.built_in(planted(aws, ""))
    reference = SecretReference.parse("secretsmanager://aws/keys#inventory")
    value = await secrets.resolve(reference, timeout=30)
    assert shown(value.get_secret_value())
    assert_nothing_shown([repr(value), str(value), f"{value}", repr(secrets), str(vars(secrets))])
