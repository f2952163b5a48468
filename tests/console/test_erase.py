"""The page that erases a session: a look, a name typed, a receipt to keep."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect
from tests.console.conftest import Site, enter
from tests.console.keyboard import tab_to

from memoryd.client import ConversationClient, DocumentClient, Put

EVIL = "<script>document.title = 'taken'</script>"


@pytest.fixture
async def ada(site: Site) -> Site:
    """A site with a session that holds something of each kind, and another session."""
    await fill(site)
    return site


async def fill(site: Site) -> None:
    metadata = {"authorization": f"Bearer {site.key}"} if site.key else None
    given = {"channel": site.running.channel, "metadata": metadata}
    async with site.memories() as memories:
        for content in ("prefers e-mail", "lives in Riga"):
            await memories.store("ada", content)
        gone = await memories.store("ada", "likes tea")
        await memories.delete("ada", gone.memory.memory_id)
        await memories.store("bob", "stays")
    await DocumentClient(**given).put("ada", Put("profile", text="a document"))
    await ConversationClient(**given).append("ada", "talk", user="hello")


async def contents(site: Site, session_id: str) -> list[str]:
    async with site.memories() as memories:
        return [each.content async for each in memories.list(session_id)]


async def preview(page: Page, session_id: str = "ada") -> None:
    await page.get_by_role("link", name="Erase").click()
    await page.get_by_label("Session", exact=True).fill(session_id)
    await page.get_by_role("button", name="Preview").click()


async def confirm(page: Page, typed: str) -> None:
    await page.get_by_label("To confirm").fill(typed)
    await page.get_by_role("button", name="Erase for good").click()


async def test_a_session_is_erased_after_a_look_and_its_name(ada: Site, page: Page):
    await preview(page)
    would = page.get_by_role("region", name="What would go")
    counts = await would.locator("dl > div").all_inner_texts()
    assert [count.split("\n") for count in counts[:4]] == [
        ["Memories", "2"],
        ["Deleted or expired memories", "1"],
        ["Documents", "1"],
        ["Conversations", "1"],
    ]
    assert len(await contents(ada, "ada")) == 2
    await confirm(page, "ada")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Erased")
    rows = page.get_by_role("row")
    await expect(rows.filter(has_text="memories").first).to_contain_text("3")
    await expect(rows.filter(has_text="documents").first).to_contain_text("1")
    assert not await contents(ada, "ada")
    assert await contents(ada, "bob") == ["stays"]
    await page.goto("/erase?session_id=ada")
    await expect(page.get_by_role("alert")).to_contain_text("no such session")


async def test_it_is_found_by_way_of_the_session(ada: Site, page: Page):
    await page.goto("/sessions/ada")
    await page.get_by_role("link", name="Erase session").click()
    await expect(page.get_by_role("region", name="What would go")).to_be_visible()
    await confirm(page, "ada")
    assert not await contents(ada, "ada")


@pytest.mark.parametrize("typed", ["", "Ada", "ada2", "bob"])
async def test_another_name_erases_nothing(ada: Site, page: Page, typed: str):
    await preview(page)
    form = page.locator("form").filter(has_text="To confirm")
    await form.evaluate("(form) => { form.noValidate = true; }")
    await confirm(page, typed)
    field = page.get_by_label("To confirm")
    await expect(field).to_have_accessible_description(
        "This is not the session's name. Nothing was erased."
    )
    assert len(await contents(ada, "ada")) == 2
    await confirm(page, "ada")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Erased")


async def test_the_receipt_is_kept_and_the_audit_has_it(guard, browser: Browser, tmp_path: Path):
    site = await guard()
    await fill(site)
    page = await browser.new_page(base_url=site.origin)
    await enter(page, site)
    await preview(page)
    await confirm(page, "ada")
    shown = await page.get_by_label("The receipt as text").inner_text()
    async with page.expect_download() as downloading:
        await page.get_by_role("link", name="Download as JSON").click()
    download = await downloading.value
    await download.save_as(tmp_path / "receipt.json")
    text = (tmp_path / "receipt.json").read_text()
    assert text.strip() == shown.strip()
    assert hashlib.sha256(text.encode()).hexdigest() in await page.inner_text("main")
    receipt = json.loads(text)
    assert download.suggested_filename == f"erased-{receipt['receipt_id']}.json"
    assert (receipt["session_id"], receipt["erased_memories"]) == ("ada", 3)
    assert receipt["erased_rows"]["documents"] == 1
    lines = [
        line
        async for line in site.access().audit_events(tenant=receipt["tenant"])
        if line.receipt_id == receipt["receipt_id"]
    ]
    assert [line.counts.get("erased_memories") for line in lines if line.counts] == [3]
    await expect(page.get_by_role("region", name="How it is verified")).to_contain_text(
        receipt["receipt_id"]
    )


@pytest.mark.usefixtures("ada")
async def test_a_server_without_an_audit_says_so(page: Page):
    await preview(page)
    await confirm(page, "ada")
    await expect(page.get_by_text("This server writes no audit, so only")).to_be_visible()


async def test_without_the_scope_there_is_no_form_and_the_service_refuses(guard, browser: Browser):
    site = await guard()
    await fill(site)
    page = await browser.new_page(base_url=site.origin)
    await enter(page, site, (await site.new_key("agent")).key)
    await page.get_by_role("link", name="Erase").click()
    await expect(page.get_by_text("needs the scope memories:erase")).to_be_visible()
    assert await page.locator("main form").count() == 0
    answer = await page.goto("/erase?session_id=ada")
    assert answer is not None
    assert answer.status == 403
    await expect(page.get_by_role("region", name="What would go")).to_have_count(0)
    token = await page.locator("[name=csrf_token]").first.get_attribute("value")
    form = {"session_id": "ada", "typed": "ada", "csrf_token": token}
    refused = await page.context.request.post(
        f"{site.origin}/erase", form=form, headers={"origin": site.origin}
    )
    assert refused.status == 403
    assert "memories:erase" in await refused.text()
    assert len(await contents(site, "ada")) == 2


async def test_a_session_outside_the_rules_is_neither_shown_nor_erased(guard, browser: Browser):
    site = await guard()
    await fill(site)
    page = await browser.new_page(base_url=site.origin)
    await enter(page, site, (await site.new_key("operator", sessions=("bob",))).key)
    await preview(page, "ada")
    await expect(page.get_by_role("alert")).to_contain_text("no such session")
    token = await page.locator("[name=csrf_token]").first.get_attribute("value")
    form = {"session_id": "ada", "typed": "ada", "csrf_token": token}
    refused = await page.context.request.post(
        f"{site.origin}/erase", form=form, headers={"origin": site.origin}
    )
    assert refused.status in {403, 404}
    assert len(await contents(site, "ada")) == 2


async def test_a_console_that_only_reads_erases_nothing(serve, browser: Browser):
    running = await serve(MEMORYD_CONSOLE="read-only")
    site = Site(running, f"http://{running.server.http_address}")
    page = await browser.new_page(base_url=site.origin)
    await enter(page, site)
    await page.get_by_role("link", name="Erase").click()
    await expect(page.get_by_text("This console only reads")).to_be_visible()
    assert await page.locator("main form").count() == 0


async def test_markup_in_a_name_stays_text(page: Page):
    await page.goto("/erase")
    await page.get_by_label("Session", exact=True).fill(EVIL)
    await page.get_by_role("button", name="Preview").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    await expect(page.get_by_label("Session", exact=True)).to_have_value(EVIL)
    assert "taken" not in await page.title()
    assert await page.locator("main script").count() == 0


async def test_it_works_without_scripts_and_by_keyboard(
    ada: Site, browser: Browser, tmp_path: Path
):
    page = await browser.new_page(
        java_script_enabled=False,
        viewport={"width": 390, "height": 844},
        base_url=ada.origin,
    )
    await enter(page, ada)
    await tab_to(page, page.get_by_role("link", name="Erase"))
    await page.keyboard.press("Enter")
    await tab_to(page, page.get_by_label("Session", exact=True))
    await page.keyboard.type("ada")
    await page.keyboard.press("Enter")
    await tab_to(page, page.get_by_label("To confirm"))
    await page.keyboard.type("ada")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Erased")
    async with page.expect_download() as downloading:
        await tab_to(page, page.get_by_role("link", name="Download as JSON"))
        await page.keyboard.press("Enter")
    await (await downloading.value).save_as(tmp_path / "receipt.json")
    assert json.loads((tmp_path / "receipt.json").read_text())["session_id"] == "ada"
    assert not await contents(ada, "ada")
