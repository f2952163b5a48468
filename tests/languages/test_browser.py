"""A page in Chromium calls the service with the client of `clients/typescript`."""

from __future__ import annotations

import pytest
from playwright.async_api import Error, Page

OTHER = "https://app.example"


async def address(serve, allowed: str) -> str:
    """Start a server that pages of these origins may call, and give where."""
    return (await serve(MEMORYD_HTTP_ALLOWED_ORIGINS=allowed)).server.http_address


async def call(page: Page, http: str, script: str) -> object:
    """Run the body of an async function with a client `memoryd`."""
    body = f"""async (url) => {{
        const {{ connect, Code, MemorydError }} = clients.memoryd;
        const memoryd = connect(url);
        {script}
    }}"""
    return await page.evaluate(body, f"http://{http}")


async def test_a_page_of_an_origin_that_is_allowed_stores_and_retrieves(serve, origin, page):
    http = await address(serve, f"{OTHER},{origin}")
    found = await call(
        page,
        http,
        """
        await memoryd.memories.storeMemory({ sessionId: "ada", content: "prefers e-mail" });
        const { results } = await memoryd.memories.retrieveMemories({
            sessionId: "ada", query: "how to reach them: e-mail or phone?" });
        return results.map(({ memory }) => memory.content);
        """,
    )
    assert found == ["prefers e-mail"]


async def test_a_page_sees_changes_as_they_come(serve, origin, page):
    http = await address(serve, origin)
    await call(
        page,
        http,
        """
        globalThis.seen = [];
        (async () => {
            for await (const { memory } of memoryd.watchMemories({ sessionId: "ada" })) {
                seen.push(memory.content);
            }
        })();
        """,
    )
    for number in range(3):
        # The next is stored once the page has seen the one before: nothing waits for the end.
        await call(
            page,
            http,
            f'await memoryd.memories.storeMemory({{ sessionId: "ada", content: "fact {number}" }})',
        )
        await page.wait_for_function(f"seen.length === {number + 1}")
    assert await page.evaluate("seen") == ["fact 0", "fact 1", "fact 2"]


async def test_a_page_is_told_what_is_wrong(serve, origin, page):
    http = await address(serve, origin)
    found = await call(
        page,
        http,
        """
        const { code, reason, violations, requestId } = await memoryd.memories.storeMemory({})
            .catch((error) => error);
        const fields = violations.map(({ field }) => field);
        return { code: Code[code], reason, fields, requestId };
        """,
    )
    assert found.pop("requestId")
    assert found == {
        "code": "InvalidArgument",
        "reason": "ERROR_REASON_INVALID_REQUEST",
        "fields": ["session_id", "content"],
    }


async def test_a_key_of_another_machine_does_not_leave_a_page_in_plaintext(page):
    with pytest.raises(Error, match="readable by everyone"):
        await page.evaluate("clients.memoryd.connect('http://memoryd.example', { apiKey: 'key' })")


@pytest.mark.parametrize("allowed", ["", OTHER])
async def test_a_page_of_an_origin_that_is_not_allowed_is_refused_by_its_browser(
    serve, page, allowed
):
    http = await address(serve, allowed)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    script = """
        return await memoryd.memories.storeMemory({ sessionId: "ada", content: "fact" })
            .then(() => "stored", ({ message, requestId }) => [message, requestId]);
        """
    assert await call(page, http, script) == ["Failed to fetch", ""]
    assert any("blocked by CORS policy" in line for line in said)
    # Nothing was stored either: the browser asks first.
    listed = await page.context.request.post(
        f"http://{http}/memoryd.v1.MemoryService/ListMemories", data={"sessionId": "ada"}
    )
    assert "memories" not in await listed.json()
