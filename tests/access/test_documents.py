"""Who may do what with documents, and how many a tenant may have."""

from __future__ import annotations

import grpc
from google.protobuf.duration_pb2 import Duration
from tests.access.guarded import outcome
from tests.rpc.test_documents import batch, delete, get, put

from memoryd.v1 import access_pb2
from memoryd.v1 import document_pb2 as pb
from memoryd.v1.document_pb2_grpc import DocumentServiceStub


def call(caller, method, request):
    return caller.call(DocumentServiceStub, method, request)


async def test_a_prefix_stays_within_the_rules_of_the_credential(guarded):
    owner = await guarded.caller("acme", scopes=["agent"])
    caller = await guarded.caller("acme", scopes=["agent"], sessions=["user-7.*", "chat"])
    for session_id in ("user-7.a", "user-7.b", "user-8", "chat", "chatter"):
        request = put(namespace=[session_id], session_id=session_id)
        await call(owner, "PutDocument", request)
    for prefix, expected in (
        ("", ["chat", "user-7.a", "user-7.b"]),
        ("user", ["user-7.a", "user-7.b"]),
        ("user-7.b", ["user-7.b"]),
        ("user-8", []),
        ("cha", ["chat"]),
    ):
        request = pb.ListNamespacesRequest(session_id_prefix=prefix)
        answer = await call(caller, "ListNamespaces", request)
        assert [one.labels[0] for one in answer.namespaces] == expected


async def test_another_tenants_documents_do_not_exist(guarded):
    acme, other = await guarded.caller("acme"), await guarded.caller("other")
    made = await call(acme, "PutDocument", put())
    for method, request in (("GetDocument", get()), ("DeleteDocument", delete())):
        found = await outcome(call(other, method, request))
        assert found is not None
        assert found.code is grpc.StatusCode.NOT_FOUND
    every = pb.ListNamespacesRequest(session_id_prefix="")
    assert not (await call(other, "ListNamespaces", every)).namespaces
    assert not (
        await call(other, "ListDocuments", pb.ListDocumentsRequest(session_id="s"))
    ).documents
    assert await call(acme, "GetDocument", get()) == made


async def test_a_reader_refreshes_nothing(guarded):
    writer = await guarded.caller("acme")
    reader = await guarded.caller("acme", scopes=["documents:read"])
    made = await call(writer, "PutDocument", put(ttl=Duration(seconds=60)))
    assert await call(reader, "GetDocument", get(refresh_ttl=True)) == made


async def test_documents_and_their_bytes_have_quotas(guarded):
    caller = await guarded.caller("acme")
    limits = access_pb2.Quotas(documents=3, bytes=10)
    update = access_pb2.UpdateTenantRequest(tenant="acme", quotas=limits)
    await guarded.admin.access("UpdateTenant", update)

    async def refusal(method, request):
        found = await outcome(call(caller, method, request))
        assert found is not None
        assert found.reason == "QUOTA_EXCEEDED"
        return found.message

    await call(caller, "PutDocument", put("a", text="12345"))
    assert "quota bytes" in await refusal("PutDocument", put("b", text="123456"))
    await call(caller, "PutDocument", put("a", text="1234567890"))
    too_many = batch(*(put(f"k{n}", text="") for n in range(3)))
    assert "quota documents" in await refusal("BatchWriteDocuments", too_many)
    await call(caller, "BatchWriteDocuments", batch(put("b", text=""), put("c", text="")))
    usage = access_pb2.GetUsageRequest(tenant="acme")
    found = (await guarded.admin.access("GetUsage", usage)).usage
    assert (found.documents, found.bytes, found.sessions) == (3, 10, 1)
    await call(caller, "DeleteDocument", delete("a"))
    found = (await guarded.admin.access("GetUsage", usage)).usage
    assert (found.documents, found.bytes, found.sessions) == (2, 0, 1)
    # What is counted on is what a count finds.
    await guarded.admin.access("UpdateTenant", update)
    assert (await guarded.admin.access("GetUsage", usage)).usage == found
