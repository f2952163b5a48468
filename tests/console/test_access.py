"""For whom the pages are: also without scripts, without a mouse, and on a phone."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, Page, expect
from tests.console.conftest import Site, enter
from tests.console.crawl import crawl, fill
from tests.languages.programs import ROOT

AXE = ROOT / "clients" / "node_modules" / "axe-core" / "axe.min.js"
"""Deque's rules for accessible pages; `make clients` installs them."""


async def test_everything_but_what_is_live_works_without_scripts(site: Site, browser: Browser):
    async with site.memories() as memories:
        await memories.store("bob", "likes tea")
        stored = await memories.store("ada", "prefers e-mail")
        await memories.delete("ada", stored.memory.memory_id)
    page = await browser.new_page(base_url=site.origin, java_script_enabled=False)
    await enter(page, site)
    await page.get_by_label("Begins with").fill("ad")
    await page.get_by_role("button", name="Search").click()
    await expect(page.locator("tbody tr")).to_have_count(1)
    await page.get_by_role("link", name="ada").click()
    await page.get_by_role("link", name="Deleted").click()
    await page.get_by_role("button", name="Undelete").click()
    await page.get_by_role("link", name="Memories", exact=True).click()
    await expect(page.locator("tbody tr")).to_contain_text("prefers e-mail")
    await page.get_by_role("link", name="Purge memories").click()
    await page.get_by_role("button", name="Preview").click()
    await page.get_by_role("button", name="Purge 1 for good").click()
    await expect(page.get_by_role("status")).to_contain_text("1 memory was purged")
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


async def press_until(page: Page, name: str) -> None:
    """Press Tab until the focus is on what has this name."""
    for _ in range(40):
        await page.keyboard.press("Tab")
        focus = page.locator(":focus")
        if name in (await focus.inner_text(), await focus.get_attribute("aria-label")):
            return
    raise AssertionError(f"{name} is not reached")


async def test_a_keyboard_is_enough(site: Site, page: Page):
    async with site.memories() as memories:
        stored = await memories.store("ada", "prefers e-mail")
        await memories.delete("ada", stored.memory.memory_id)
        await page.goto("/")
        await page.keyboard.press("Tab")
        skip = page.get_by_role("link", name="Skip to the contents")
        await expect(skip).to_be_focused()
        await expect(skip).to_be_in_viewport()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await expect(page.get_by_label("Begins with")).to_be_focused()
        await press_until(page, "ada")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/sessions/ada")
        await press_until(page, "Deleted")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**show=deleted")
        await press_until(page, "Undelete: prefers e-mail")
        outline = "(element) => getComputedStyle(element).outlineStyle"
        assert await page.locator(":focus").evaluate(outline) == "solid"
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("Nothing is deleted")).to_be_visible()
        assert await memories.get("ada", stored.memory.memory_id)


async def test_nothing_is_wider_than_a_phone(site: Site, page: Page):
    await fill(site, "a-long-word-that-nothing-breaks-" * 2)
    await page.set_viewport_size({"width": 390, "height": 844})
    async for path in crawl(page, site.origin):
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, path


async def test_the_focus_stays_where_it_is_while_what_is_shown_changes(site: Site, page: Page):
    async with site.memories() as memories:
        await memories.store("ada", "the first")
        await page.goto("/sessions/ada")
        await page.get_by_role("link", name="the first").focus()
        await memories.store("ada", "the second")
        await expect(page.get_by_role("link", name="the second")).to_be_visible()
        await expect(page.get_by_role("link", name="the first")).to_be_focused()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
async def test_axe_finds_nothing(site: Site, page: Page, scheme: str, width: int):
    await fill(site, "prefers e-mail")
    await page.emulate_media(color_scheme=scheme)
    await page.set_viewport_size({"width": width, "height": 844})
    found = []

    async def look(path: str) -> None:
        await page.evaluate(AXE.read_text())
        result = await page.evaluate("axe.run()")
        assert "color-contrast" in {each["id"] for each in result["passes"]}
        found.extend(
            (path, each["id"], [node["html"] for node in each["nodes"]])
            for each in result["violations"]
        )

    async for path in crawl(page, site.origin):
        await look(path)
    # What nothing links to.
    for path in ("/sign-in", "/sessions/none", "/?prefix=none", "/sessions/ada/purge?preview=1"):
        await page.goto(path)
        await look(path)
    assert found == []
