"""DocumentService: putting, reading and deleting documents, from outside."""

from __future__ import annotations

from memoryd.v1 import document_pb2 as pb


def put(key="k", namespace=(), session_id="s", **body):
    given = {name: body.pop(name) for name in ("if_absent", "search_texts", "request_id") if name in body}
    document = pb.Document(session_id=session_id, namespace=namespace, key=key, **(body or {"json": "{}"}))
    return pb.PutDocumentRequest(document=document, **given)


def name(key="k", namespace=(), session_id="s", **others):
    return pb.GetDocumentRequest(session_id=session_id, namespace=namespace, key=key, **others)


async def test_what_was_put_is_read(documents):
    made = await documents.PutDocument(put(namespace=["a", "b"], json='{"n": 9007199254740993}', labels={"x": "y"}))
    assert await documents.GetDocument(name(namespace=["a", "b"])) == made
    again = await documents.PutDocument(put(namespace=["a", "b"], text="two", request_id="0197d3e2-7a44-7e2a-b2f0-3c1d5e6f7a8b"))
    assert again.revision == 2
    await documents.DeleteDocument(pb.DeleteDocumentRequest(session_id="s", namespace=["a", "b"], key="k"))
