"""Every method, called with every kind of credential that does not do."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests import flags
from tests.access.guarded import Caller, Guarded, Refusal, conversation, outcome

from memoryd.access.api_key import new_key
from memoryd.domain.principals import Scope
from memoryd.rpc import rules
from memoryd.server import SERVICES
from memoryd.v1 import (
    access_pb2,
    conversation_pb2,
    document_pb2,
    memory_pb2,
    session_pb2,
    tool_config_pb2,
)

ALLOWED, FORBIDDEN = "user-7.a", "user-12"
MEMORY_ID = "01a20070-f57b-74ff-b4d3-bc9f1dcae1d7"
KEY_ID = "0123456789AB"

SAID = [conversation_pb2.Message(raw_json="{}")]
DOCUMENT = document_pb2.Document(key="k", json="{}")

SCOPE_OF = {
    "MemoryService": {
        "memories:read": (
            *("GetMemory", "ListMemories", "RetrieveMemories", "FindSimilarMemories"),
            *("WatchMemories", "PurgeMemories", "ListMemoryRevisions"),
        ),
        "memories:write": (
            *("StoreMemory", "BatchStoreMemories", "StreamStoreMemories", "UpdateMemory"),
            *("DeleteMemory", "UndeleteMemory", "RollbackMemory"),
        ),
        "memories:erase": ("EraseSession",),
        "memories:export": ("ExportMemories",),
    },
    "SessionService": {
        "memories:read": ("ListSessions", "GetSession"),
        "memories:write": ("UpdateSession",),
        "memories:erase": ("MergeSessions",),
    },
    "DocumentService": {
        "documents:read": (
            *("GetDocument", "BatchGetDocuments", "ListDocuments", "ListNamespaces"),
            *("ListDocumentRevisions", "WatchDocuments", "SearchDocuments"),
        ),
        "documents:write": (
            *("PutDocument", "BatchWriteDocuments", "DeleteDocument", "DeleteDocuments"),
            "MoveDocuments",
        ),
        "memories:export": ("ExportDocuments",),
    },
    "ConversationService": {
        "conversations:read": (
            *("GetConversation", "ListConversations", "ListMessages", "WatchConversations"),
        ),
        "conversations:write": (
            *("CreateConversation", "UpdateConversation", "DeleteConversation"),
            *("AppendMessages", "PopMessages", "RewriteMessages", "ForkConversation"),
            *("SetHead", "SetSummary", "PromoteMessages"),
        ),
        "memories:export": ("ExportMessages",),
    },
    "ToolConfigService": {
        "tools:read": (
            *("ListTools", "GetToolConfig", "WatchToolConfigs", "ListToolConfigRevisions"),
        ),
        "tools:write": (
            *("UpdateToolConfig", "ResetToolConfig", "RollbackToolConfig", "ValidateToolConfig"),
        ),
    },
    "Service": {  # of flagd.evaluation, both versions
        "tools:read": (
            *("ResolveBoolean", "ResolveString", "ResolveInt", "ResolveFloat", "ResolveObject"),
            *("ResolveAll", "EventStream"),
        ),
    },
    "AccessService": {
        "tenant:admin": (
            *("CreateApiKey", "ListApiKeys", "RevokeApiKey", "RotateApiKey"),
            *("GetUsage", "ListAuditEvents"),
        ),
        "instance:admin": ("ListTenants", "UpdateTenant"),
        "": ("WhoAmI",),
    },
}
"""What each method needs, by the contract."""

REQUESTS: dict[str, Message] = {
    "StoreMemory": memory_pb2.StoreMemoryRequest(content="a fact"),
    "BatchStoreMemories": memory_pb2.BatchStoreMemoriesRequest(
        requests=[memory_pb2.StoreMemoryRequest(content=f"fact {n}") for n in range(2)]
    ),
    "StreamStoreMemories": memory_pb2.StreamStoreMemoriesRequest(
        requests=[memory_pb2.StoreMemoryRequest(content=f"fact {n}") for n in range(2)]
    ),
    "RetrieveMemories": memory_pb2.RetrieveMemoriesRequest(session_ids=["x"]),
    "UpdateMemory": memory_pb2.UpdateMemoryRequest(
        memory=memory_pb2.Memory(content="another fact")
    ),
    "RollbackMemory": memory_pb2.RollbackMemoryRequest(memory_id=MEMORY_ID, revision=1),
    "FindSimilarMemories": memory_pb2.FindSimilarMemoriesRequest(content="a fact"),
    "PutDocument": document_pb2.PutDocumentRequest(document=DOCUMENT),
    "BatchWriteDocuments": document_pb2.BatchWriteDocumentsRequest(
        writes=[
            document_pb2.DocumentWrite(put=document_pb2.PutDocumentRequest(document=DOCUMENT)),
            document_pb2.DocumentWrite(
                delete=document_pb2.DeleteDocumentRequest(key="x", allow_missing=True)
            ),
        ]
    ),
    "MoveDocuments": document_pb2.MoveDocumentsRequest(
        **{"from": document_pb2.DocumentName(key="k")}, to=document_pb2.DocumentName(key="l")
    ),
    "AppendMessages": conversation_pb2.AppendMessagesRequest(conversation_id="c", messages=SAID),
    "RewriteMessages": conversation_pb2.RewriteMessagesRequest(conversation_id="c", messages=SAID),
    "SetSummary": conversation_pb2.SetSummaryRequest(conversation_id="c", summary={}),
    "PromoteMessages": conversation_pb2.PromoteMessagesRequest(
        conversation_id="c", since_last=True
    ),
    "UpdateConversation": conversation_pb2.UpdateConversationRequest(
        conversation={"conversation_id": "c", "display_name": "a name"}
    ),
    "UpdateToolConfig": tool_config_pb2.UpdateToolConfigRequest(
        tool_config=tool_config_pb2.ToolConfig(
            tool="rag", rag=tool_config_pb2.RagSettings(search_k=7)
        )
    ),
    "ResolveBoolean": flags.v1.ResolveBooleanRequest(flag_key="rag.enabled"),
    "ResolveString": flags.v1.ResolveStringRequest(flag_key="crm.api_endpoint"),
    "ResolveInt": flags.v1.ResolveIntRequest(flag_key="rag.search_k"),
    "ResolveFloat": flags.v1.ResolveFloatRequest(flag_key="rag.search_k"),
    "ResolveObject": flags.v1.ResolveObjectRequest(flag_key="rag"),
    "UpdateTenant": access_pb2.UpdateTenantRequest(tenant="acme"),
    "CreateApiKey": access_pb2.CreateApiKeyRequest(name="a key", scopes=["reader"]),
}
"""What a method needs beside the names that `request_for` fills in."""

METHODS = [
    method
    for service in SERVICES
    for method in descriptor_pool.Default().FindServiceByName(service).methods
]


def scope_of(method: MethodDescriptor) -> str:
    (scope,) = (
        scope
        for scope, names in SCOPE_OF[method.containing_service.name].items()
        if method.name in names
    )
    return scope


def session_fields(kind: Descriptor, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all fields of a request that name a session, by the rule that they keep."""
    for field in kind.fields:
        if field.message_type is not None and field.message_type.file.package == "memoryd.v1":
            yield from session_fields(field.message_type, (*path, field.name))
        elif names_session(field):
            yield (*path, field.name)


def names_session(field: FieldDescriptor) -> bool:
    ruled = rules.POOL.FindMessageTypeByName(field.containing_type.full_name)
    kind = rules.POOL.FindMessageTypeByName("google.protobuf.FieldOptions")
    written = ruled.fields_by_name[field.name].GetOptions().SerializeToString()
    options: Any = GetMessageClass(kind).FromString(written)
    own = options.Extensions[rules.POOL.FindExtensionByName("buf.validate.field")]
    own = own.repeated.items if field.is_repeated else own
    session_id = rules.POOL.FindExtensionByName("memoryd.v1.session_id")
    return bool(own.string.Extensions[session_id])


def request_for(method: MethodDescriptor, session: str, *, place: int | None = None) -> Message:
    """A request that nothing is wrong with, and whose sessions are all this one.

    With `place`, only the one there is, and all others are allowed.
    """
    given = REQUESTS.get(method.name)
    request = copy.deepcopy(given) if given else GetMessageClass(method.input_type)()
    for number, path in enumerate(session_fields(method.input_type)):
        fill(request, path, session if place in (None, number) else ALLOWED)
    needed = (("memory_id", MEMORY_ID), ("tool", "rag"), ("key_id", KEY_ID), ("key", "k"))
    needed = (*needed, ("conversation_id", "c"), ("message_id", "m"))
    for name, value in needed:
        if name in method.input_type.fields_by_name and not given:
            setattr(request, name, value)
    if method.name == "UpdateMemory":
        request.memory.memory_id = MEMORY_ID
    if method.name == "RollbackToolConfig":
        request.revision = 1
    if method.name == "ValidateToolConfig":
        request.tool_config.tool = "rag"
    return request


def fill(message: Any, path: tuple[str, ...], value: str) -> None:
    name, *rest = path
    field = message.DESCRIPTOR.fields_by_name[name]
    if rest:
        if field.containing_oneof is not None and not message.HasField(name):
            return  # it is another kind of item
        child = getattr(message, name)
        for item in child if field.is_repeated else (child,):
            fill(item, tuple(rest), value)
    elif field.is_repeated:
        getattr(message, name)[:] = [value]
    else:
        setattr(message, name, value)


async def refused(caller: Caller, method: MethodDescriptor, request: Message) -> Refusal | None:
    """Call a method by its descriptor; of a stream, wait for the first answer or the end."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    answer = GetMessageClass(method.output_type).FromString
    make = {
        (False, False): caller.channel.unary_unary,
        (False, True): caller.channel.unary_stream,
        (True, True): caller.channel.stream_stream,
    }[method.client_streaming, method.server_streaming]
    stub = make(path, type(request).SerializeToString, answer)
    if method.client_streaming:
        return await conversation(stub(metadata=caller.metadata, timeout=60), request)
    call = stub(request, metadata=caller.metadata, timeout=60)
    if not method.server_streaming:
        return await outcome(call)
    ended = asyncio.ensure_future(outcome(call))
    begun = asyncio.ensure_future(call.initial_metadata())  # which an open stream sends at once
    await asyncio.wait((ended, begun), return_when=asyncio.FIRST_COMPLETED)
    if begun.done() and not ended.done():
        call.cancel()
    await asyncio.gather(begun, return_exceptions=True)
    found = await asyncio.gather(ended, return_exceptions=True)
    return None if isinstance(found[0], BaseException) else found[0]


UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
DENIED = grpc.StatusCode.PERMISSION_DENIED


def test_every_method_has_its_scope_here():
    named = {
        (service, name)
        for service, scopes in SCOPE_OF.items()
        for names in scopes.values()
        for name in names
    }
    assert {(method.containing_service.name, method.name) for method in METHODS} == named


async def bad_credentials(guarded: Guarded, clock: Any) -> dict[str, tuple[Caller, str]]:
    """Callers whose credentials do not do, each with the reason that it is refused for."""
    good = (await guarded.key()).key
    revoked = await guarded.key()
    expired = await guarded.key(ttl=Duration(seconds=60))
    await guarded.admin.access(
        "RevokeApiKey", access_pb2.RevokeApiKeyRequest(tenant="acme", key_id=revoked.key_id)
    )
    clock.move(timedelta(seconds=60))
    unknown = new_key().text
    # The id of one that is there, the secret of another.
    forged = f"{good[:17]}{unknown[17:60]}"
    with_key = guarded.with_key
    other_scheme = with_key(good)
    other_scheme.metadata = (("authorization", f"Basic {good}"),)
    return {
        "none": (with_key(), "CREDENTIAL_MISSING"),
        "two": (with_key(good, good), "CREDENTIAL_MALFORMED"),
        "empty": (with_key(""), "CREDENTIAL_MALFORMED"),
        "another scheme": (other_scheme, "CREDENTIAL_MALFORMED"),
        "noise": (with_key("mdk_noise"), "CREDENTIAL_MALFORMED"),
        "too long": (with_key("x" * 5000), "CREDENTIAL_MALFORMED"),
        "one letter off": (
            with_key(good[:-1] + ("0" if good[-1] != "0" else "1")),
            "CREDENTIAL_MALFORMED",
        ),
        "unknown": (with_key(unknown), "CREDENTIAL_INVALID"),
        "forged": (with_key(with_checksum(forged)), "CREDENTIAL_INVALID"),
        "expired": (with_key(expired.key), "CREDENTIAL_EXPIRED"),
        "revoked": (with_key(revoked.key), "CREDENTIAL_REVOKED"),
    }


def with_checksum(text: str) -> str:
    from memoryd.access.api_key import _checksum  # noqa: PLC0415  a forger knows it, too

    return text + _checksum(text)


async def test_every_method_refuses_every_bad_credential_before_it_is_read(guarded, clock):
    callers = await bad_credentials(guarded, clock)
    for method in METHODS:
        for kind, (caller, reason) in callers.items():
            # A request that would be refused for its contents if it were read.
            request = GetMessageClass(method.input_type)()
            found = await refused(caller, method, request)
            assert found is not None, (method.full_name, kind)
            assert (found.code, found.reason) == (UNAUTHENTICATED, reason), (
                method.full_name,
                kind,
                found,
            )
            for key in (*guarded.made, guarded.bootstrap_key):
                assert key[17:60] not in found.message


async def test_every_method_needs_its_scope_and_no_other(guarded):
    for method in METHODS:
        scope = scope_of(method)
        # An instance's admin may do what a tenant's may.
        every = {str(scope) for scope in Scope}
        if scope == "tenant:admin":
            every.remove("instance:admin")
        request = request_for(method, ALLOWED)
        without = await guarded.caller("default", scopes=sorted(every - {scope}))
        found = await refused(without, method, GetMessageClass(method.input_type)())
        if not scope:
            assert found is None, method.full_name
            continue
        assert found is not None, method.full_name
        assert (found.code, found.reason) == (DENIED, "SCOPE_MISSING"), method.full_name
        assert found.metadata == {"scope": scope}
        only = await guarded.caller("default", scopes=[scope])
        found = await refused(only, method, request)
        # A key that would be wider than its maker; what is a store as well.
        if method.name in {"CreateApiKey", "PromoteMessages"}:
            assert found is not None
            assert found.metadata["scope"] in every - {scope}
            continue
        assert found is None or found.code not in {DENIED, UNAUTHENTICATED}, (
            method.full_name,
            found,
        )


@pytest.mark.parametrize("scope", ["instance:admin", "tenant:admin"])
async def test_an_admins_scope_gives_no_other(guarded, scope):
    caller = await guarded.caller("acme", scopes=[scope])
    for method in METHODS:
        if scope_of(method) not in {"", "tenant:admin", scope}:
            found = await refused(caller, method, request_for(method, ALLOWED))
            assert found is not None, method.full_name
            assert found.reason == "SCOPE_MISSING", method.full_name


async def test_every_field_that_names_a_session_is_held_against_the_rules(guarded):
    caller = await guarded.caller("acme", sessions=["user-7.*", "chat"])
    owner = await guarded.caller("acme")
    checked = 0
    for exists in (False, True):
        if exists:
            store = memory_pb2.StoreMemoryRequest(session_id=FORBIDDEN, content="is there")
            await owner.memory("StoreMemory", store)
        for method in METHODS:
            for place, path in enumerate(session_fields(method.input_type)):
                request = request_for(method, FORBIDDEN, place=place)
                if method.client_streaming:
                    answers = await stream_results(caller, method, request)
                    assert {status.code for status in answers} == {DENIED.value[0]}
                    checked += 1
                    continue
                found = await refused(caller, method, request)
                assert found is not None, (method.full_name, path)
                assert (found.code, found.reason) == (DENIED, "SESSION_NOT_ALLOWED"), (
                    method.full_name,
                    path,
                    found,
                )
                checked += 1
            allowed = await refused(caller, method, request_for(method, ALLOWED))
            assert allowed is None or allowed.reason != "SESSION_NOT_ALLOWED", method.full_name
    assert checked >= 2 * 14
    assert await outcome(
        caller.memory("PurgeMemories", memory_pb2.PurgeMemoriesRequest(session_id=FORBIDDEN))
    )


async def stream_results(caller: Caller, method: MethodDescriptor, request: Message) -> list[Any]:
    call = caller.memory(method.name, iter([request]))
    return [result.status async for answer in call for result in answer.results]


async def test_another_tenants_things_do_not_exist(guarded):
    acme, other = await guarded.caller("acme"), await guarded.caller("other")
    stored = await acme.memory(
        "StoreMemory", memory_pb2.StoreMemoryRequest(session_id=ALLOWED, content="acme's own")
    )
    name = {"session_id": ALLOWED, "memory_id": stored.memory.memory_id}
    for method, request in (
        ("GetMemory", memory_pb2.GetMemoryRequest(**name)),
        ("DeleteMemory", memory_pb2.DeleteMemoryRequest(**name)),
        ("UndeleteMemory", memory_pb2.UndeleteMemoryRequest(**name)),
    ):
        found = await outcome(other.memory(method, request))
        assert found is not None
        assert found.code is grpc.StatusCode.NOT_FOUND
    named = session_pb2.GetSessionRequest(session_id=ALLOWED)
    found = await outcome(other.sessions("GetSession", named))
    assert found is not None
    assert found.code is grpc.StatusCode.NOT_FOUND
    assert await sessions_of(other) == []
    listed = await other.memory("ListMemories", memory_pb2.ListMemoriesRequest(session_id=ALLOWED))
    assert not listed.memories
    exported = other.memory("ExportMemories", memory_pb2.ExportMemoriesRequest(session_id=ALLOWED))
    assert [memory async for memory in exported] == []
    erased = await other.memory("EraseSession", memory_pb2.EraseSessionRequest(session_id=ALLOWED))
    assert erased.erased_memories == 0
    assert await acme.memory("GetMemory", memory_pb2.GetMemoryRequest(**name)) == stored.memory


async def test_another_tenants_page_token_is_no_page_token(guarded):
    acme, other = await guarded.caller("acme"), await guarded.caller("other")
    for caller in (acme, other):
        for number in range(2):
            request = memory_pb2.StoreMemoryRequest(session_id=ALLOWED, content=f"fact {number}")
            await caller.memory("StoreMemory", request)
    listing = memory_pb2.ListMemoriesRequest(session_id=ALLOWED, page_size=1)
    listing.page_token = (await acme.memory("ListMemories", listing)).next_page_token
    assert len((await acme.memory("ListMemories", listing)).memories) == 1
    found = await outcome(other.memory("ListMemories", listing))
    assert found is not None
    assert found.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "page_token" in found.message
    for caller in (acme, other):
        store = memory_pb2.StoreMemoryRequest(session_id="another", content="a fact")
        await caller.memory("StoreMemory", store)
    sessions = session_pb2.ListSessionsRequest(page_size=1)
    sessions.page_token = (await acme.sessions("ListSessions", sessions)).next_page_token
    found = await outcome(other.sessions("ListSessions", sessions))
    assert found is not None
    assert "page_token" in found.message


async def sessions_of(caller: Caller, **arguments: Any) -> list[str]:
    request = session_pb2.ListSessionsRequest(page_size=2, **arguments)
    found = []
    while True:
        page = await caller.sessions("ListSessions", request)
        found += [session.session_id for session in page.sessions]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def test_sessions_are_listed_as_the_credential_allows(guarded):
    names = ["a", "chat", "chat.1", "user-12", "user-7", "user-7.a", "user-7.b", "user-7.b.c"]
    owner = await guarded.caller("acme")
    for name in names:
        store = memory_pb2.StoreMemoryRequest(session_id=name, content="a fact")
        await owner.memory("StoreMemory", store)
        settings = session_pb2.Session(session_id=name, labels={"team": "x"})
        await owner.sessions("UpdateSession", session_pb2.UpdateSessionRequest(session=settings))
    assert await sessions_of(owner) == names
    rules = ["user-7.b", "user-7.*", "chat", "user-7.b.*", "zzz"]
    some = await guarded.caller("acme", sessions=rules)
    for arguments in ({}, {"labels": {"team": "x"}}):
        assert await sessions_of(some, **arguments) == ["chat", *names[5:]]
        for prefix, found in (("user-7.b", names[6:]), ("user-12", []), ("user-", names[5:])):
            assert await sessions_of(some, session_id_prefix=prefix, **arguments) == found
    nobody = await guarded.caller("other")
    assert await sessions_of(nobody) == []


async def test_purging_needs_more_than_counting(guarded):
    reader = await guarded.caller("acme", scopes=["memories:read", "memories:write"])
    counting = memory_pb2.PurgeMemoriesRequest(session_id=ALLOWED)
    assert await outcome(reader.memory("PurgeMemories", counting)) is None
    counting.force = True
    found = await outcome(reader.memory("PurgeMemories", counting))
    assert found is not None
    assert (found.reason, found.metadata) == ("SCOPE_MISSING", {"scope": "memories:erase"})


async def test_retrieval_by_a_reader_counts_no_access(guarded):
    writer = await guarded.caller("acme")
    reader = await guarded.caller("acme", scopes=["memories:read"])
    store = memory_pb2.StoreMemoryRequest(session_id=ALLOWED, content="a fact", importance=1)
    stored = await writer.memory("StoreMemory", store)
    retrieval = memory_pb2.RetrieveMemoriesRequest(session_id=ALLOWED)
    get = memory_pb2.GetMemoryRequest(session_id=ALLOWED, memory_id=stored.memory.memory_id)
    assert len((await reader.memory("RetrieveMemories", retrieval)).results) == 1
    await guarded.server.flush_accesses()
    assert (await reader.memory("GetMemory", get)).access_count == 0
    assert len((await writer.memory("RetrieveMemories", retrieval)).results) == 1
    await guarded.server.flush_accesses()
    assert (await reader.memory("GetMemory", get)).access_count == 1


async def test_health_is_checked_without_a_credential_and_watched_with_one(guarded):
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    request = health_pb2.HealthCheckRequest()
    stranger = guarded.with_key()
    answer = await stranger.call(health_pb2_grpc.HealthStub, "Check", request)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    wrong = guarded.with_key(new_key().text)
    assert await outcome(wrong.call(health_pb2_grpc.HealthStub, "Check", request)) is None
    found = await outcome(stranger.call(health_pb2_grpc.HealthStub, "Watch", request))
    assert found is not None
    assert found.reason == "CREDENTIAL_MISSING"
    watching = guarded.admin.call(health_pb2_grpc.HealthStub, "Watch", request)
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
    watching.cancel()


@pytest.mark.parametrize(
    ("setting", "stranger", "known"),
    [
        ("authenticated", "CREDENTIAL_MISSING", None),
        ("on", None, None),
        ("off", "CREDENTIAL_MISSING", "ERROR_REASON_NOT_IMPLEMENTED"),
    ],
)
async def test_reflection_is_for_those_whom_the_setting_names(guard, setting, stranger, known):
    guarded = await guard(MEMORYD_REFLECTION=setting)
    for caller, reason in ((guarded.with_key(), stranger), (guarded.admin, known)):
        for stub in (ReflectionStub, reflection_pb2_grpc.ServerReflectionStub):
            call = caller.call(stub, "ServerReflectionInfo", None)
            found = await conversation(
                call, reflection_pb2.ServerReflectionRequest(list_services="")
            )
            assert (found and found.reason) == reason


class ReflectionStub:
    """Of v1, whose messages have the form of v1alpha's."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.ServerReflectionInfo = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
