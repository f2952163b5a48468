"""Harmless content stays and active content is removed, as each policy says."""

from __future__ import annotations

import grpc
import pytest

from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

SESSION = "user-123"

HARMLESS = {
    "comparisons": "x < 5 && y > 3",
    "a heart": "I <3 cats, and </3 dogs",
    "generics": "List<int>, Map<String, List<int>> and std::vector<std::string>",
    "a book": "JavaScript: The Good Parts",
    "arrows": "a <- b -> c => d <=> e",
    "placeholders": "cp <file> <path>",
    "an e-mail address": "Ann <ann@example.org>",
    "a URL": "<https://example.org/x?y=1&z=2>",
    "entities": "R&D, &amp;, &lt;b&gt; and &#60;script&#62;",
    "Markdown": "# Title\n\n- *item* `code`\n> quote\n\n[link](https://example.org)",
    "code": "if (a < b && b > c) { return d[0] << 2; }",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈",
    "right to left": "مرحبا \u202eשלג\u202c",
    "combining marks": "e\u0301 and é, नमस्ते",
    "other blanks": "漢字\u3000かな x\u00a0y",
    "words about handlers": "onclick=alert(1) is text, and so is it in javascript:",
    "SQL": "'; DROP TABLE memories; --",
    "a template": "{{ user }} ${HOME} %s :name ?",
    "a path": "../../etc/passwd C:\\Windows",
}

ACTIVE = {
    "a script": "<script>alert(1)</script>",
    "mixed case": "<ScRiPt>alert(1)</sCrIpT>",
    "nested": "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "a tag inside": "<scr<b>ipt>alert(1)</scr</b>ipt>",
    "a comment inside": "<scr<!-- x -->ipt>alert(1)</script>",
    "split by NUL": "<scr\0ipt>alert(1)</scr\0ipt>",
    "split by control characters": "<\x01script>alert(1)</\x7fscript>",
    "blanks in the end tag": "<script>alert(1)</script\t\n >",
    "a style": "<style>@import 'javascript:alert(1)'</style>",
    "an event handler": "<img src=x onerror=alert(1)>",
    "a handler in capitals": "<IMG SRC=x OnErRoR\n=\nalert(1)>",
    "a handler of an unknown element": "<file onclick=alert(1)>",
    "SVG": "<svg><set onbegin=alert(1) attributeName=x></svg>",
    "SVG with a script": "<svg><script>alert(1)</script></svg>",
    "MathML": '<math><mtext><a xlink:href="javascript:alert(1)"></a></math>',
    "srcdoc": '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
    "srcdoc in references": '<iframe srcdoc="&lt;script&gt;alert(1)&lt;/script&gt;"></iframe>',
    "an object": "<object data='data:text/html,<script>alert(1)</script>'></object>",
    "a link": '<a href="javascript:alert(1)"></a>',
    "a URI": "javascript:alert(1)",
    "a URI in mixed case": "JaVaScRiPt:alert(1)",
    "a URI split by tabs": "java\tscr\nipt:alert(1)",
    "a URI split by NUL": "java\0script:alert(1)",
    "a URI split by a tag": "java<b></b>script:alert(1)",
    "a URI in references": "&#106;ava&#x73;cript&colon;alert(1)",
    "a URI in references twice": "&amp;#106;avascript&amp;colon;alert(1)",
    "another script": "vbscript:alert(1)",
    "data": "data:text/html,<script>alert(1)</script>",
    "data in base64": "data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==alert",
}
"""Each is removed as a whole; the text around it stays."""

TO_THE_END = {
    "a cut-off name": "<img",
    "a cut-off script": "<script",
    "a cut-off link": '<a href="javascript',
    "a start tag without end": "<img src=x onerror=alert(1)",
    "a handler in an open quote": "<img src='x' onerror='alert(1)",
}
"""Tags cut off by the end of the content; the text after it in a page would complete them."""

WORDS_STAY = {
    "a note about a script": (
        "User asked how to load a `<script>` tag late; they prefer the defer attribute.",
        "User asked how to load a `` tag late; they prefer the defer attribute.",
    ),
    "another": (
        "User asked how to load a `<script>` tag from a CDN; wants integrity hashes.",
        "User asked how to load a `` tag from a CDN; wants integrity hashes.",
    ),
    "two mentions": ("a `<script>` or `<script defer></script>`", "a `` or ``"),
    "a style": ("put `<style>` into the head", "put `` into the head"),
    "a template": (
        "Greeting: <template>Dear {{name}}, your order has shipped.</template> for e-mails",
        "Greeting: Dear {{name}}, your order has shipped. for e-mails",
    ),
    "an object": (
        "Reply schema: <object><name>Ada</name><age>36</age></object> was accepted",
        "Reply schema: <name>Ada</name><age>36</age> was accepted",
    ),
    "a frame": ("<iframe src=x>shown instead</iframe> of it", "shown instead of it"),
    "an applet": ("<applet code=x>run instead</applet> of it", "run instead of it"),
    "a formula": ("<math><mi>x</mi><mo>=</mo><mn>1</mn></math> holds", "x=1 holds"),
    "a drawing": ("<svg><title>A house</title><path d='M0'/></svg> drawn", "A house drawn"),
}
"""Contents and what is stored of them: tags are removed; only code goes with its element."""


def store(content: str) -> pb.StoreMemoryRequest:
    return pb.StoreMemoryRequest(session_id=SESSION, content=content)


async def every_reading(memory: MemoryServiceStub, stored: pb.Memory) -> set[str]:
    """Yield the content as each way of reading returns it."""
    session = {"session_id": SESSION}
    got = await memory.GetMemory(pb.GetMemoryRequest(**session, memory_id=stored.memory_id))
    listed = await memory.ListMemories(pb.ListMemoriesRequest(**session, page_size=1000))
    exported = [m async for m in memory.ExportMemories(pb.ExportMemoriesRequest(**session))]
    found = [m for m in (got, *listed.memories, *exported) if m.memory_id == stored.memory_id]
    assert len(found) == 3
    return {stored.content, *(m.content for m in found)}


async def test_harmless_text_stays_unchanged(memory):
    for name, text in HARMLESS.items():
        answer = await memory.StoreMemory(store(text))
        assert await every_reading(memory, answer.memory) == {text}, name


async def test_active_content_is_removed_in_any_disguise(memory):
    for name, hostile in ACTIVE.items():
        answer = await memory.StoreMemory(store(f"{name}: {hostile} gone"))
        assert await every_reading(memory, answer.memory) == {f"{name}: gone"}, name
    for name, hostile in TO_THE_END.items():
        answer = await memory.StoreMemory(store(f"{name}: {hostile}"))
        assert await every_reading(memory, answer.memory) == {f"{name}:"}, name


async def test_words_in_elements_stay_so_that_notes_about_them_differ(memory):
    for name, (text, kept) in WORDS_STAY.items():
        answer = await memory.StoreMemory(store(text))
        assert answer.outcome == pb.STORE_OUTCOME_CREATED, name
        assert await every_reading(memory, answer.memory) == {kept}, name


async def test_sanitised_content_stored_again_is_the_same_memory(memory):
    for name, text in (HARMLESS | ACTIVE).items():
        first = await memory.StoreMemory(store(f"{name}: {text}"))
        again = await memory.StoreMemory(store(first.memory.content))
        assert again.outcome == pb.STORE_OUTCOME_MERGED, name
        assert again.memory.memory_id == first.memory.memory_id, name


async def test_an_update_and_a_batch_are_sanitised_alike(memory):
    batch = [store("first"), store("<b>second</b>\0 <script>x</script>")]
    answer = await memory.BatchStoreMemories(pb.BatchStoreMemoriesRequest(requests=batch))
    second = answer.responses[1].memory
    assert second.content == "second"
    changed = pb.Memory(session_id=SESSION, memory_id=second.memory_id, content="<i>third</i>")
    updated = await memory.UpdateMemory(pb.UpdateMemoryRequest(memory=changed))
    assert await every_reading(memory, updated) == {"third"}


async def test_strict_refuses_what_sanitize_would_change_with_a_remedy(serve, refused):
    memory = (await serve(MEMORYD_CONTENT_POLICY="strict")).memory
    for name, hostile in (ACTIVE | TO_THE_END | {"blanks": "a  b", "an end": "a "}).items():
        refusal = await refused(memory.StoreMemory(store(f"{name}: {hostile}")))
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
        assert list(refusal.violations) == ["content"], name
        assert "MEMORYD_CONTENT_POLICY=sanitize" in refusal.violations["content"]
    batch = pb.BatchStoreMemoriesRequest(requests=[store("fine"), store("<b>not</b>")])
    refusal = await refused(memory.BatchStoreMemories(batch))
    assert list(refusal.violations) == ["requests[1].content"]
    for name, text in HARMLESS.items():
        answer = await memory.StoreMemory(store(text))
        assert await every_reading(memory, answer.memory) == {text}, name
    changed = pb.Memory(
        session_id=SESSION, memory_id=answer.memory.memory_id, content="<i>third</i>"
    )
    refusal = await refused(memory.UpdateMemory(pb.UpdateMemoryRequest(memory=changed)))
    assert list(refusal.violations) == ["memory.content"]


async def test_verbatim_stores_everything_except_nul(serve, refused):
    memory = (await serve(MEMORYD_CONTENT_POLICY="verbatim")).memory
    odd = {"blanks": "  a \t b\r\n", "controls": "a\x01\x1b[31m\x7f\x85b", "a mark": "\ufeff\ufffe"}
    for name, hostile in (HARMLESS | ACTIVE | TO_THE_END | odd).items():
        text = f"{hostile} ({name})"  # so that none are merged
        if "\0" in text:
            refusal = await refused(memory.StoreMemory(store(text)))
            assert (refusal.reason, list(refusal.violations)) == ("INVALID_REQUEST", ["content"])
            assert "NUL" in refusal.violations["content"]
        else:
            answer = await memory.StoreMemory(store(text))
            assert await every_reading(memory, answer.memory) == {text}, name
    assert (await refused(memory.StoreMemory(store("")))).violations.keys() == {"content"}


@pytest.mark.parametrize("policy", ["sanitize", "strict", "verbatim"])
async def test_every_policy_has_the_same_limit_of_characters(serve, refused, policy):
    memory = (await serve(MEMORYD_CONTENT_POLICY=policy)).memory
    longest = "🐘" * 16_384
    answer = await memory.StoreMemory(store(longest))
    assert answer.memory.content == longest
    refusal = await refused(memory.StoreMemory(store(longest + "x")))
    assert "16,384" in refusal.violations["content"]
