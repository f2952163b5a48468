"""The tools' settings as flags, by flagd's stock provider of OpenFeature."""

from __future__ import annotations

import os
import queue
import subprocess
import time

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import CacheType
from openfeature.event import ProviderEvent
from openfeature.exception import ErrorCode, ProviderFatalError, ProviderNotReadyError
from openfeature.flag_evaluation import Reason
from openfeature.schemas.protobuf.flagd.evaluation.v1 import evaluation_pb2 as v1
from openfeature.schemas.protobuf.flagd.evaluation.v2 import evaluation_pb2 as v2
from tests.authority import Authority, Folder
from tests.integrations.conftest import ROOT, SERVING_PYTHON

from memoryd.access.api_key import new_key
from memoryd.client import TLS
from memoryd.client.sync import AccessClient, ToolConfigClient

TIMEOUT_SECONDS = 60
PATIENT = {"deadline_ms": 20_000, "retry_backoff_ms": 100, "retry_backoff_max_ms": 200}


@pytest.fixture
def provided(name):
    """Give clients of OpenFeature, each with a provider of its own."""
    given = []

    def provide(address, **options):
        host, _, port = address.rpartition(":")
        domain = f"{name}-{len(given)}"
        given.append(domain)
        provider = FlagdProvider(host=host, port=int(port), **{**PATIENT, **options})
        api.set_provider_and_wait(provider, domain=domain)
        return api.get_client(domain)

    yield provide
    api.shutdown()


@pytest.fixture
def tools(address):
    """Changes settings; what was changed is undone at the end."""
    with ToolConfigClient(address) as client:
        yield client
        for tool in ("rag", "escalation", "attachment", "crm"):
            client.reset(tool)


def heard(client, event=ProviderEvent.PROVIDER_CONFIGURATION_CHANGED):
    """What comes of a kind of event from now on."""
    found = queue.Queue()
    client.add_handler(event, found.put)
    return found


def told(events):
    """The next change that a provider has told: the keys of the flags."""
    return set(events.get(timeout=TIMEOUT_SECONDS).flags_changed)


def until(condition):
    end = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("cache", [CacheType.LRU, CacheType.DISABLED])
def test_flags_of_every_type(address, provided, tools, cache):
    tools.update("escalation", {"keywords": {"fire": 1.0, "smoke": 0.5}})
    tools.update("attachment", {"allowed_extensions": [".txt", ".md"]})
    tools.update("crm", {"api_key": "a literal", "api_endpoint": "https://crm.example"})
    client = provided(address, cache=cache)
    for _ in range(2):
        assert client.get_boolean_value("rag.enabled", default_value=False) is True
        assert client.get_integer_value("rag.search_k", 0) == 5
        assert client.get_float_value("rag.similarity_threshold", 0.0) == 0.7
        assert client.get_float_value("rag.chunk_size", 0.0) == 500.0
        assert client.get_string_value("crm.api_endpoint", "") == "https://crm.example"
        assert client.get_string_value("escalation.notification_email", "none") == ""
        keywords = client.get_object_value("escalation.keywords", {})
        assert keywords == {"fire": 1.0, "smoke": 0.5}
        extensions = client.get_object_value("attachment.allowed_extensions", {})
        assert extensions == {"allowed_extensions": [".txt", ".md"]}
        crm = {"enabled": False, "api_endpoint": "https://crm.example", "timeout": 10.0}
        assert client.get_object_value("crm", {}) == {**crm, "max_retries": 3.0}


def test_a_flag_says_where_it_comes_from(address, provided, tools):
    client = provided(address)
    found = client.get_integer_details("rag.search_k", 0)
    assert (found.value, found.variant, found.reason) == (5, "DEFAULT", Reason.STATIC)
    assert client.get_integer_details("rag.search_k", 0).reason == Reason.CACHED
    events = heard(client)
    tools.update("rag", {"search_k": 9})
    told(events)
    found = client.get_integer_details("rag.search_k", 0)
    assert (found.value, found.variant, found.reason) == (9, "OVERRIDE", Reason.STATIC)


def test_what_cannot_be_had_leaves_the_default(address, provided):
    client = provided(address)
    for key in ("rag.search", "crm.api_key", ""):
        found = client.get_string_details(key, "mine")
        assert (found.value, found.error_code) == ("mine", ErrorCode.FLAG_NOT_FOUND)
    for found in (
        client.get_boolean_details("rag.search_k", default_value=True),
        client.get_string_details("rag", "mine"),
        client.get_integer_details("rag.similarity_threshold", 3),
        client.get_object_details("rag.enabled", {"a": 1}),
    ):
        assert found.value in (True, "mine", 3, {"a": 1})
        assert found.error_code == ErrorCode.TYPE_MISMATCH


def test_a_change_is_told_and_no_kept_value_outlives_it(address, provided, tools):
    clients = [provided(address) for _ in range(3)]
    events = [heard(client) for client in clients]
    for n in range(5):
        for client in clients:
            client.get_integer_value("rag.chunk_size", 0)
            assert client.get_integer_details("rag.chunk_size", 0).reason == Reason.CACHED
        tools.update("rag", {"chunk_size": 600 + n})
        for client, changes in zip(clients, events, strict=True):
            assert told(changes) == {"rag", "rag.chunk_size"}
            assert client.get_integer_value("rag.chunk_size", 0) == 600 + n
            assert client.get_object_value("rag", {})["chunk_size"] == 600 + n


class Server:
    """A process that can be killed, and come back where it was."""

    def __init__(self, folder):
        self._folder = folder
        self._port = "0"

    def start(self, **variables):
        own = {"MEMORYD_PORT": self._port, "MEMORYD_HTTP_PORT": "off"}
        own["MEMORYD_DATABASE_URL"] = f"sqlite+aiosqlite:///{self._folder / 'memoryd.db'}"
        self._process = subprocess.Popen(  # noqa: S603  our own
            [SERVING_PYTHON, "-m", "memoryd", "serve"],
            cwd=ROOT,
            env={**os.environ, **own, **variables},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        address = self._process.stdout.readline().rpartition(" on ")[2].strip()
        assert address, "the server did not start"
        self._port = address.rpartition(":")[2]
        return address

    def kill(self):
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()


def test_a_provider_finds_a_server_again_that_was_killed(server, provided):
    client = provided(server.start())
    ready = heard(client, ProviderEvent.PROVIDER_READY)
    ready.get(timeout=TIMEOUT_SECONDS)  # it is
    stale = heard(client, ProviderEvent.PROVIDER_STALE)
    changes = heard(client)
    assert client.get_integer_value("rag.search_k", 0) == 5
    server.kill()
    stale.get(timeout=TIMEOUT_SECONDS)
    assert client.get_integer_value("rag.search_k", 0) == 5  # as it was
    # Of what has changed meanwhile nothing can be told.
    address = server.start(RAG_SEARCH_K="7")
    assert "rag.search_k" in told(changes)
    ready.get(timeout=TIMEOUT_SECONDS)
    assert client.get_integer_value("rag.search_k", 0) == 7
    with ToolConfigClient(address) as tools:
        tools.update("rag", {"search_k": 8})
    assert told(changes) == {"rag", "rag.search_k"}
    assert client.get_integer_value("rag.search_k", 0) == 8


def with_key(authority, key):
    """Credentials of a channel that show a key."""
    tls = grpc.ssl_channel_credentials(authority.pem)
    return grpc.composite_channel_credentials(tls, grpc.access_token_call_credentials(key))


def test_a_key_opens_the_flags_of_its_tenant(served, provided, tmp_path):
    authority, admin = Authority(), new_key().text
    folder = Folder(tmp_path / "tls", authority.issue())
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority.pem)
    required = {"MEMORYD_AUTH": "required", "MEMORYD_BOOTSTRAP_KEY": "env://BOOTSTRAP"}
    with served("sqlite", BOOTSTRAP=admin, **required, **folder.variables) as found:
        tls = TLS(ca=ca)
        with AccessClient(found.grpc, api_key=admin, tls=tls) as access:
            keys = [
                access.create_key("flags", ["operator"], tenant=tenant).key
                for tenant in ("acme", "umbra")
            ]
        acme, umbra = (
            provided(found.grpc, channel_credentials=with_key(authority, key)) for key in keys
        )
        events = heard(acme)
        with ToolConfigClient(found.grpc, api_key=keys[0], tls=tls) as tools:
            tools.update("rag", {"search_k": 9})
        assert told(events) == {"rag", "rag.search_k"}
        assert acme.get_integer_value("rag.search_k", 0) == 9
        assert umbra.get_integer_value("rag.search_k", 0) == 5
        strange = with_key(authority, new_key().text)
        with pytest.raises(ProviderNotReadyError):
            provided(found.grpc, channel_credentials=strange, deadline_ms=500)
        with pytest.raises(ProviderFatalError):
            provided(
                found.grpc, channel_credentials=strange, fatal_status_codes=["UNAUTHENTICATED"]
            )
        api.shutdown()


def test_a_key_is_shown_without_tls_on_one_machine(served, provided):
    admin = new_key().text
    required = {"MEMORYD_AUTH": "required", "MEMORYD_BOOTSTRAP_KEY": "env://BOOTSTRAP"}
    with served("sqlite", BOOTSTRAP=admin, RAG_SEARCH_K="7", **required) as found:
        with AccessClient(found.grpc, api_key=admin) as access:
            key = access.create_key("flags", ["reader"], tenant="acme").key
        credentials = grpc.composite_channel_credentials(
            grpc.local_channel_credentials(grpc.LocalConnectionType.LOCAL_TCP),
            grpc.access_token_call_credentials(key),
        )
        client = provided(found.grpc, channel_credentials=credentials)
        assert client.get_integer_details("rag.search_k", 0).variant == "ENVIRONMENT"
        api.shutdown()


def without_names(file):
    """A file without what depends on where it lies and what compiled it."""
    file.ClearField("name")
    messages = [*file.message_type]
    for message in messages:  # which grows
        messages += message.nested_type
        for field in message.field:
            field.ClearField("json_name")
    return file


@pytest.mark.parametrize("theirs", [v1, v2], ids=["v1", "v2"])
def test_the_protocol_is_that_of_the_stock_provider(theirs):
    """So a new release that has another fails here."""
    version = theirs.DESCRIPTOR.package.rpartition(".")[2]
    name = f"flagd/evaluation/{version}/evaluation.proto"
    program = f"""
import sys
from memoryd.rpc import rules
sys.stdout.buffer.write(rules.POOL.FindFileByName("{name}").serialized_pb)
"""
    done = subprocess.run(  # noqa: S603  our own
        [SERVING_PYTHON, "-c", program], capture_output=True, cwd=ROOT, check=True
    )
    expected = FileDescriptorProto()
    theirs.DESCRIPTOR.CopyToProto(expected)
    ours = FileDescriptorProto.FromString(done.stdout)
    assert without_names(ours) == without_names(expected)
