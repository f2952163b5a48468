"""The page of one session: what it holds, live, and what was deleted."""

from __future__ import annotations

import pytest
from playwright.async_api import APIRequestContext, Page, expect

from memoryd.client import ConversationClient, DocumentClient, Put


async def test_a_session_shows_its_memories(site, page: Page):
    async with site.memories() as memories:
        await memories.store("ada", "prefers e-mail", content_type="preference", importance=0.7)
        await memories.store("ada", "lives in Riga", key="home", tags=["place"])
    await page.goto("/")
    await page.get_by_role("link", name="ada").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("ada")
    row = page.get_by_role("row").filter(has_text="prefers e-mail")
    await expect(row).to_contain_text("0.70")
    await expect(row).to_contain_text("preference")
    await expect(page.get_by_role("row").filter(has_text="lives in Riga")).to_contain_text("place")


async def test_a_memory_arrives_while_the_page_is_open(site, page: Page):
    async with site.memories() as memories:
        await memories.store("ada", "the first")
        await page.goto("/sessions/ada")
        await memories.store("ada", "the second")
        await expect(page.get_by_role("row").filter(has_text="the second")).to_be_visible()
        await expect(page.get_by_role("status")).to_have_text("A memory was created")
        await expect(page.locator("#stats dd").first).to_have_text("2")
        await memories.store("ada", "the third")
        await expect(page.get_by_role("row").filter(has_text="the third")).to_be_visible()


async def test_a_deleted_memory_is_undeleted(site, page: Page):
    async with site.memories() as memories:
        stored = await memories.store("ada", "prefers e-mail")
        await memories.delete("ada", stored.memory.memory_id)
        await page.goto("/sessions/ada")
        await expect(page.get_by_text("Nothing is remembered here")).to_be_visible()
        await page.get_by_role("link", name="Deleted").click()
        await page.get_by_role("button", name="Undelete: prefers e-mail").click()
        await expect(page.get_by_text("Nothing is deleted")).to_be_visible()
        assert (await memories.get("ada", stored.memory.memory_id)).content == "prefers e-mail"


async def test_what_cannot_be_undeleted_says_why_in_its_place(site, page: Page):
    async with site.memories() as memories:
        stored = await memories.store("ada", "prefers e-mail")
        await memories.delete("ada", stored.memory.memory_id)
        await page.goto("/sessions/ada?show=deleted")
        await memories.store("ada", "prefers e-mail")
        await page.get_by_role("button", name="Undelete").click()
        await expect(page.get_by_role("alert")).to_contain_text("content")
        await expect(page.get_by_role("heading", level=1)).to_have_text("ada")


async def test_conversations_are_read(site, page: Page):
    conversations = ConversationClient(channel=site.running.channel)
    await conversations.create("ada", "support", display_name="A question")
    await conversations.append("ada", "support", user="Where is it?", assistant="On its way.")
    await page.goto("/sessions/ada?show=conversations")
    await page.get_by_role("link", name="A question").click()
    messages = page.locator(".message")
    await expect(messages).to_have_count(2)
    await expect(messages.first).to_contain_text("Where is it?")
    await expect(messages.last).to_contain_text("assistant")


async def test_documents_are_read(site, page: Page):
    documents = DocumentClient(channel=site.running.channel)
    put = Put("profile/é", ["users", "a/b"], json='{"name": "Ada"}')
    await documents.put("ada", put)
    await page.goto("/sessions/ada?show=documents")
    await expect(page.get_by_role("row").last).to_contain_text("users / a/b")
    await page.get_by_role("link", name="profile/é").click()
    await expect(page.locator("pre")).to_contain_text('"name": "Ada"')


@pytest.mark.parametrize(
    "text", ['{"n":1.50}', '{"n": 1, "n": 2}', "[" * 30 + "]" * 30, '{"a": 1e400}', '"é\\u00e9"']
)
async def test_json_is_shown_as_it_is(site, page: Page, text: str):
    documents = DocumentClient(channel=site.running.channel)
    await documents.put("ada", Put("odd", json=text))
    await page.goto("/sessions/ada/document?key=odd")
    shown = await page.locator("pre").inner_text()
    assert "".join(shown.split()) == "".join(text.split())


async def test_a_long_session_has_pages(site, page: Page):
    async with site.memories() as memories:
        for number in range(51):
            await memories.store("ada", f"fact number {number}")
        await page.goto("/sessions/ada")
        await expect(page.locator("tbody tr")).to_have_count(50)
        await page.get_by_role("link", name="Next page").click()
        await expect(page.locator("tbody tr")).to_have_count(1)
        await expect(page.locator("tbody tr")).to_contain_text("fact number 50")


async def test_memories_are_purged_after_a_look_at_which(site, page: Page):
    async with site.memories() as memories:
        await memories.store("ada", "prefers e-mail", content_type="preference")
        await memories.store("ada", "lives in Riga", content_type="user_info")
        await page.goto("/sessions/ada")
        await page.get_by_role("link", name="Purge memories").click()
        await page.get_by_label("preference").check()
        await page.get_by_role("button", name="Preview").click()
        await expect(page.get_by_role("heading", name="1 memory matches")).to_be_visible()
        await expect(page.get_by_role("listitem")).to_contain_text("prefers e-mail")
        assert len([each async for each in memories.list("ada")]) == 2
        await page.get_by_role("button", name="Purge 1 for good").click()
        await expect(page.get_by_role("status")).to_contain_text("1 memory was purged")
        assert [each.content async for each in memories.list("ada")] == ["lives in Riga"]


async def test_a_purge_of_others_than_were_shown_is_not_done(site, page: Page):
    async with site.memories() as memories:
        await memories.store("ada", "the first")
        await page.goto("/sessions/ada/purge?preview=1")
        await memories.store("ada", "the second")
        await page.get_by_role("button", name="Purge 1 for good").click()
        await expect(page.get_by_role("alert")).to_contain_text("look again")
        await expect(page.get_by_role("button", name="Purge 2 for good")).to_be_visible()
        assert len([each async for each in memories.list("ada")]) == 2


async def test_what_is_no_date_is_said_in_its_place(site, signed_in: APIRequestContext):
    async with site.memories() as memories:
        await memories.store("ada", "the first")
    answer = await signed_in.get("/sessions/ada/purge?preview=1&before=yesterday")
    assert answer.status == 400
    assert "A date is written as 2026-03-01." in await answer.text()


async def test_a_session_that_is_erased_while_it_is_shown_is_gone(site, page: Page):
    async with site.memories() as memories:
        await memories.store("ada", "the first")
        await page.goto("/sessions/ada")
        await expect(page.get_by_role("status")).to_have_text("Live")
        await memories.erase("ada")
        await expect(page.get_by_role("alert")).to_contain_text("There is no such session")


LISTEN = """(address) => new Promise((resolve) => {
    const seen = [];
    const source = new EventSource(address);
    source.addEventListener("changed", (event) => {
        seen.push(event.lastEventId);
        if (seen.length === 2) { source.close(); resolve(seen); }
    });
})"""


async def test_events_begin_after_the_revision_that_the_page_shows(site, page: Page):
    async with site.memories() as memories:
        revisions = [(await memories.store("ada", f"{n}")).memory.revision for n in range(3)]
    seen = await page.evaluate(LISTEN, f"/sessions/ada/events?after={revisions[0]}")
    assert seen == [str(revision) for revision in revisions[1:]]
