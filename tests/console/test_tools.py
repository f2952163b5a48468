"""The pages of the tools: how each is set, changing it after a look, its history."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import APIRequestContext, Browser, Page, expect
from tests.console.conftest import enter
from tests.console.keyboard import tab_to

from memoryd.client import ToolConfigClient

EVIL = "<script>document.title = 'taken'</script>"
TOOLS = ("rag", "memory", "escalation", "attachment", "crm", "billing", "inventory")


@pytest.fixture
def tools(site) -> ToolConfigClient:
    return ToolConfigClient(channel=site.running.channel)


async def preview(page: Page) -> None:
    await page.get_by_role("button", name="Preview").click()


async def apply(page: Page) -> None:
    await page.get_by_role("button", name="Apply").click()


def field(page: Page, name: str):
    return page.get_by_role("textbox", name=name, exact=True)


def change(page: Page):
    """What would change, as the preview says it."""
    return page.get_by_role("region", name="What would change")


async def test_the_seven_tools_are_shown_with_what_is_set_otherwise(page: Page, tools):
    await tools.update("rag", {"search_k": 9})
    await tools.update("crm", enabled=True)
    await page.get_by_role("link", name="Tools").click()
    cards = page.locator("#tools > section")
    await expect(cards).to_have_count(7)
    assert [await card.get_by_role("heading").inner_text() for card in await cards.all()] == [
        *TOOLS
    ]
    rag = page.get_by_role("region", name="rag")
    await expect(rag).to_contain_text("9 override")
    await expect(rag).to_contain_text("on")
    await expect(page.get_by_role("region", name="billing")).to_contain_text("off")
    await expect(page.get_by_role("region", name="crm")).to_contain_text(
        "crm is enabled without api_key"
    )


@pytest.mark.parametrize("tool", TOOLS)
async def test_each_setting_says_its_value_bounds_and_where_it_comes_from(tool, page: Page, tools):
    config = await tools.get(tool)
    await page.goto(f"/tools/{tool}")
    shown = page.locator(".setting")
    await expect(shown).to_have_count(len(config.provenance))
    for setting in await shown.all():
        is_switch = await setting.get_by_role("switch").count()
        await expect(setting).to_contain_text("Default:" if is_switch else "Accepts")
        await expect(setting).to_contain_text("default")


async def test_bounds_are_those_of_the_service(page: Page):
    await page.goto("/tools/rag")
    await expect(field(page, "search_k")).to_have_accessible_description(
        "Chunks a search returns. Accepts a whole number from 1 to 20. Default: 5."
    )


async def test_a_setting_is_changed_after_a_preview_and_keeps_the_reason(page: Page, tools):
    await page.goto("/tools/rag")
    await field(page, "search_k").fill("8")
    await page.get_by_label("Reason, kept").fill("answers were thin")
    await preview(page)
    await expect(change(page)).to_contain_text("rag.search_k")
    await expect(change(page).locator("del")).to_contain_text("5")
    await expect(change(page).locator("ins")).to_contain_text("8")
    await expect(change(page)).to_contain_text("default → override")
    assert (await tools.get("rag")).rag.search_k == 5
    await apply(page)
    await expect(page.get_by_text("The change holds")).to_be_visible()
    config = await tools.get("rag")
    assert config.rag.search_k == 8
    assert {path for path, of in config.provenance.items() if of == "override"} == {"rag.search_k"}
    history = page.get_by_role("region", name="History")
    await expect(history).to_contain_text("answers were thin")
    await expect(history).to_contain_text("by default")


async def test_every_kind_of_setting_is_changed(page: Page, tools):
    await page.goto("/tools/escalation")
    await page.get_by_label("enabled", exact=True).uncheck()
    await field(page, "confidence_threshold").fill("0.65")
    await field(page, "keywords").fill("urgent=1\nrefund=0.9\nlegal")
    await page.get_by_label("notification_enabled").check()
    await field(page, "notification_email").fill("help@example.org")
    await preview(page)
    await expect(change(page).locator("ins").filter(has_text="refund 0.9")).to_be_visible()
    await expect(change(page).locator("del").filter(has_text="lawsuit 1")).to_be_visible()
    await expect(change(page).locator("del").filter(has_text="urgent")).to_have_count(0)
    await apply(page)
    config = await tools.get("escalation")
    assert config.enabled is False
    assert config.escalation.confidence_threshold == 0.65
    assert config.escalation.keywords == {"urgent": 1.0, "refund": 0.9, "legal": 0.8}
    assert config.escalation.notification_enabled is True
    assert config.escalation.notification_email == "help@example.org"
    await field(page, "notification_email").fill("")
    await field(page, "keywords").fill("")
    await preview(page)
    await apply(page)
    config = await tools.get("escalation")
    assert not config.escalation.keywords
    assert not config.escalation.notification_email


async def test_a_list_is_changed_line_by_line(page: Page, tools):
    await page.goto("/tools/attachment")
    await field(page, "allowed_extensions").fill(".pdf\nMD\n")
    await field(page, "max_file_size").fill("2048")
    await preview(page)
    await apply(page)
    config = await tools.get("attachment")
    assert config.attachment.allowed_extensions == (".pdf", ".md")
    assert config.attachment.max_file_size == 2048


async def test_words_with_commas_survive(page: Page, tools):
    await tools.update("escalation", {"keywords": {"no, thanks": 0.5, "a=b": 0.4}})
    await page.goto("/tools/escalation")
    words = field(page, "keywords")
    await words.fill((await words.input_value()).replace("0.5", "0.6"))
    await preview(page)
    await apply(page)
    assert (await tools.get("escalation")).escalation.keywords == {"no, thanks": 0.6, "a=b": 0.4}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("search_k", "99", "from 1 to 20"),
        ("search_k", "many", "whole number"),
        ("chunk_overlap", "500", "below chunk_size"),
        ("similarity_threshold", "1.5", "from 0 to 1"),
    ],
)
async def test_what_is_refused_is_said_beside_the_field(name, value, said, page: Page, tools):
    await page.goto("/tools/rag")
    await field(page, name).fill(value)
    await preview(page)
    refused = field(page, name)
    await expect(refused).to_have_value(value)
    await expect(refused).to_have_attribute("aria-invalid", "true")
    await expect(refused).to_have_accessible_description(re.compile(f"Default: .*{said}"))
    await expect(page.get_by_role("alert")).to_be_visible()
    assert (await tools.get("rag")).revision == 0


async def test_nothing_changed_says_so(page: Page):
    await page.goto("/tools/rag")
    await preview(page)
    await expect(page.get_by_role("alert")).to_contain_text("change a setting first")


async def test_what_is_questionable_is_said_before_it_holds(page: Page):
    await page.goto("/tools/billing")
    await page.get_by_label("enabled", exact=True).check()
    await preview(page)
    await expect(change(page)).to_contain_text("billing is enabled without api_endpoint")


async def test_who_loses_a_race_sees_what_has_changed_and_loses_nothing(page: Page, tools):
    await page.goto("/tools/rag")
    await field(page, "chunk_size").fill("600")
    await field(page, "cache_ttl").fill("120")
    await tools.update("rag", {"chunk_size": 700, "search_k": 7}, reason="by night")
    await preview(page)
    await expect(page.get_by_role("alert")).to_contain_text("changed")
    await expect(page.get_by_text("changed this from 500 to 700 meanwhile")).to_be_visible()
    await expect(page.get_by_text("changed this from 5 to 7 meanwhile")).to_be_visible()
    await expect(page.get_by_role("region", name="History")).to_contain_text("by night")
    await expect(field(page, "chunk_size")).to_have_value("600")
    await expect(field(page, "search_k")).to_have_value("7")
    assert (await tools.get("rag")).rag.chunk_size == 700
    await preview(page)
    await expect(change(page).locator("del")).to_have_count(2)
    await apply(page)
    rag = (await tools.get("rag")).rag
    assert (rag.chunk_size, rag.search_k, rag.cache_ttl) == (600, 7, 120)


async def test_a_race_lost_between_preview_and_apply_is_lost_too(page: Page, tools):
    await page.goto("/tools/rag")
    await field(page, "chunk_size").fill("600")
    await preview(page)
    await tools.update("rag", {"chunk_size": 700})
    await apply(page)
    await expect(page.get_by_role("alert")).to_contain_text("changed")
    assert (await tools.get("rag")).rag.chunk_size == 700


async def test_overrides_are_dropped(page: Page, tools):
    await tools.update("rag", {"chunk_size": 700, "search_k": 7})
    await page.goto("/tools/rag")
    await page.get_by_role("checkbox", name="chunk_size").check()
    await page.get_by_label("Reason for the reset").fill("was a trial")
    await page.get_by_role("button", name="Drop overrides").click()
    await expect(page.get_by_text("The overrides are dropped.")).to_be_visible()
    config = await tools.get("rag")
    assert (config.rag.chunk_size, config.rag.search_k) == (500, 7)
    await expect(page.get_by_role("region", name="History")).to_contain_text("was a trial")


async def test_a_reset_of_another_configuration_than_was_seen_is_not_done(page: Page, tools):
    await tools.update("rag", {"chunk_size": 700})
    await page.goto("/tools/rag")
    await page.get_by_role("checkbox", name="chunk_size").check()
    await tools.update("rag", {"chunk_size": 900})
    await page.get_by_role("button", name="Drop overrides").click()
    await expect(page.get_by_role("alert")).to_contain_text("has changed since you looked")
    assert (await tools.get("rag")).rag.chunk_size == 900


async def test_a_reset_without_a_choice_says_so(page: Page, tools):
    await tools.update("rag", {"chunk_size": 700})
    await page.goto("/tools/rag")
    await page.get_by_role("button", name="Drop overrides").click()
    await expect(page.get_by_role("alert")).to_contain_text("Choose")


async def test_a_revision_is_gone_back_to_after_a_look(page: Page, tools):
    first = await tools.update("rag", {"search_k": 7}, reason="better")
    await tools.update("rag", {"search_k": 9, "chunk_size": 700}, reason="too much")
    await page.goto("/tools/rag")
    await page.get_by_role("link", name=f"Roll back to revision {first.revision}").click()
    would = page.get_by_role("region", name="What going back")
    await expect(would).to_contain_text("rag.chunk_size")
    await expect(would.locator("ins")).to_contain_text(["500", "7"])
    await page.get_by_label("Reason").fill("thin again")
    await page.get_by_role("button", name="Roll back").click()
    await expect(page.get_by_text("as they were after that revision")).to_be_visible()
    rag = (await tools.get("rag")).rag
    assert (rag.search_k, rag.chunk_size) == (7, 500)
    await expect(page.get_by_role("region", name="History")).to_contain_text("thin again")


async def test_going_back_from_another_configuration_than_was_seen_is_not_done(page: Page, tools):
    first = await tools.update("rag", {"search_k": 7})
    await tools.update("rag", {"search_k": 9})
    await page.goto(f"/tools/rag/revisions/{first.revision}")
    await tools.update("rag", {"search_k": 11})
    await page.get_by_role("button", name="Roll back").click()
    await expect(page.get_by_role("alert")).to_contain_text("has changed since you looked")
    assert (await tools.get("rag")).rag.search_k == 11


async def test_a_long_history_has_pages(page: Page, tools):
    for number in range(21):
        await tools.update("rag", {"search_k": 1 + number % 2})
    await page.goto("/tools/rag")
    await expect(page.locator("#revisions > ol > li")).to_have_count(20)
    await page.get_by_role("link", name="Next page").click()
    await expect(page.locator("#revisions > ol > li")).to_have_count(1)


async def test_a_change_by_others_appears_while_the_page_is_open(page: Page, tools):
    await page.goto("/tools/rag")
    await field(page, "chunk_size").fill("600")
    await tools.update("memory", {"ttl_hours": 48})
    await tools.update("rag", {"search_k": 7}, reason="from elsewhere")
    await expect(page.get_by_role("region", name="History")).to_contain_text("from elsewhere")
    await expect(field(page, "chunk_size")).to_have_value("600")
    await page.goto("/tools")
    await tools.update("rag", {"search_k": 17})
    await expect(page.get_by_role("region", name="rag")).to_contain_text("17 override")


async def test_of_a_secret_only_its_reference_is_shown(page: Page, tools):
    await tools.update("crm", {"api_key": "hunter2-literal"})
    await page.goto("/tools/crm")
    await expect(page.get_by_text("set, from literal", exact=True)).to_be_visible()
    assert "hunter2" not in await page.content()
    await field(page, "api_key").fill("env://CRM_KEY")
    await preview(page)
    await expect(change(page)).to_contain_text("set, from env://CRM_KEY")
    await apply(page)
    assert (await tools.get("crm")).crm.api_key_source == "env://CRM_KEY"
    await page.goto("/tools")
    await expect(page.get_by_role("region", name="crm")).to_contain_text("set, from env://CRM_KEY")
    assert "hunter2" not in await page.content()


@pytest.mark.parametrize("secret", ["hunter2-literal", "env://hunter2 with spaces"])
async def test_a_secret_itself_is_not_taken_and_not_repeated(secret, page: Page, tools):
    await page.goto("/tools/crm")
    await field(page, "api_key").fill(secret)
    await preview(page)
    await expect(field(page, "api_key")).to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_text("references to secrets only")).to_be_visible()
    assert "hunter2" not in await page.content()
    assert not (await tools.get("crm")).crm.has_api_key


async def test_markup_in_reasons_and_values_stays_text(page: Page, tools):
    await tools.update("escalation", {"keywords": {EVIL: 0.5}}, reason=EVIL)
    await tools.update("escalation", {"keywords": {"urgent": 0.5}})
    for path in ("/tools", "/tools/escalation", "/tools/escalation/revisions/1"):
        await page.goto(path)
        assert "taken" not in await page.title()
        assert await page.locator("main script").count() == 0
    await expect(page.get_by_text(EVIL).first).to_be_visible()
    await page.goto("/tools/escalation")
    await page.get_by_label("Reason, kept").fill(f'"{EVIL}')
    await field(page, "keywords").fill(f"{EVIL}=0.5")
    await preview(page)
    assert await page.locator("main script").count() == 0
    await apply(page)
    assert (await tools.get("escalation")).escalation.keywords == {EVIL: 0.5}


async def test_it_works_without_scripts_and_by_keyboard_on_a_phone(browser: Browser, site, tools):
    page = await browser.new_page(
        java_script_enabled=False, viewport={"width": 390, "height": 844}, base_url=site.origin
    )
    await enter(page, site)
    await tab_to(page, page.get_by_role("link", name="Tools"))
    await page.keyboard.press("Enter")
    await tab_to(page, page.get_by_role("region", name="rag").get_by_role("link"))
    await page.keyboard.press("Enter")
    await tab_to(page, page.get_by_label("enabled", exact=True))
    await page.keyboard.press("Space")
    await tab_to(page, field(page, "search_k"))
    await page.keyboard.press("Control+A")
    await page.keyboard.type("8")
    await page.keyboard.press("Enter")  # the form's first button, which shows what would change
    await expect(change(page).locator("ins")).to_contain_text(["off", "8"])
    await tab_to(page, page.get_by_role("button", name="Apply"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("The change holds")).to_be_visible()
    config = await tools.get("rag")
    assert (config.enabled, config.rag.search_k) == (False, 8)


@pytest.mark.parametrize(
    "path", ["/tools/none", "/tools/rag/revisions/7", "/tools/rag/revisions/x"]
)
async def test_what_there_is_not_is_not_found(path, signed_in: APIRequestContext):
    answer = await signed_in.get(path)
    assert answer.status == 404


async def test_who_may_not_change_tools_sees_them_and_is_refused(guard, browser: Browser):
    site = await guard()
    page = await browser.new_page(base_url=site.origin)
    await enter(page, site, (await site.new_key("reader")).key)
    await page.goto("/tools/rag")
    await expect(page.locator(".setting").filter(has_text="search_k")).to_contain_text("5")
    assert await page.locator("main input, main button").count() == 0
    token = await page.locator("[name=csrf_token]").first.get_attribute("value")
    form = {"rag.search_k": "8", "was:rag.search_k": "5", "csrf_token": token, "action": "apply"}
    answer = await page.context.request.post(
        f"{site.origin}/tools/rag/change", form=form, headers={"origin": site.origin}
    )
    assert answer.status == 403
    assert "tools:write" in await answer.text()
    await page.goto("/tools/rag")
    await expect(page.get_by_text("Nothing has been changed yet")).to_be_visible()


async def test_who_may_not_see_tools_is_told_what_it_takes(guard, browser: Browser):
    site = await guard()
    page = await browser.new_page(base_url=site.origin)
    await enter(page, site, (await site.new_key("memories:read")).key)
    for path in ("/tools", "/tools/rag", "/tools/events"):
        answer = await page.goto(path)
        assert answer is not None
        assert answer.status == 403
        await expect(page.get_by_role("alert")).to_contain_text("tools:read")


async def test_a_page_loads_again_where_changes_are_no_longer_kept(signed_in: APIRequestContext):
    text = await (await signed_in.get("/tools/events?after=1000000")).text()
    assert "data: Not live: " in text
    assert text.rstrip().endswith("event: changed\ndata: \nid: 0")


@pytest.mark.parametrize("action", ["preview", "apply"])
@pytest.mark.parametrize("value", ["\0", "é" * 300, "x" * 5000, "9" * 5000, "-1", "{", "[[", "nan"])
async def test_what_nobody_means_is_refused(value, action, signed_in: APIRequestContext, tools):
    text = await (await signed_in.get("/tools")).text()
    token = re.search(r'name="csrf_token" value="([^"]+)"', text)[1]
    for tool in TOOLS:
        before = await tools.get(tool)
        for path in before.provenance:
            for reason in ("", value):
                form = {path: value, f"was:{path}": "on", "etag": before.etag, "reason": reason}
                form |= {"csrf_token": token, "action": action}
                answer = await signed_in.post(f"/tools/{tool}/change", form=form)
                assert answer.status < 500, (path, answer.status)
