"""The page of all sessions, and that a server shows it once somebody has signed in."""

from __future__ import annotations

from playwright.async_api import APIRequestContext, Page, expect


async def test_who_has_not_signed_in_is_asked_to(caller: APIRequestContext):
    answer = await caller.get("/", max_redirects=0)
    assert answer.status == 303
    assert answer.headers["location"] == "/sign-in?after=/"


async def test_sessions_are_listed_with_what_they_hold(site, page: Page):
    async with site.memories() as memories:
        for number in range(3):
            await memories.store("ada", f"fact {number}")
        await memories.store("bob", "likes tea")
    await page.goto("/")
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text("ada")
    await expect(rows.first.locator("td").first).to_have_text("3")


async def test_sessions_are_found_by_how_they_begin(site, page: Page):
    async with site.memories() as memories:
        await memories.store("ada", "fact")
        await memories.store("bob", "fact")
    await page.goto("/")
    await page.get_by_label("Begins with").fill("bo")
    await expect(page.locator("tbody tr")).to_have_count(1)
    await expect(page).to_have_url(f"{site.origin}/?prefix=bo")


async def test_a_server_without_sessions_says_how_to_begin(page: Page):
    await expect(page.get_by_text("There is no session yet")).to_be_visible()


async def test_what_begins_no_id_is_said_in_its_place(site, page: Page):
    async with site.memories() as memories:
        await memories.store("ada", "fact")
    await page.goto("/")
    await page.get_by_label("Begins with").fill("é")
    await expect(page.get_by_role("alert")).to_be_visible()
    await page.get_by_label("Begins with").fill("a")
    await expect(page.locator("tbody tr")).to_have_count(1)


async def test_sessions_have_pages(site, page: Page):
    async with site.memories() as memories:
        for number in range(51):
            await memories.store(f"user-{number:02}", "fact")
    await page.goto("/?prefix=user")
    await expect(page.locator("tbody tr")).to_have_count(50)
    await page.get_by_role("link", name="Next page").click()
    await expect(page.locator("tbody tr")).to_have_count(1)
    await expect(page.get_by_label("Begins with")).to_have_value("user")
