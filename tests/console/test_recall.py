"""The bench: what recall finds, why, and how to ask the same oneself."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from urllib.parse import urlencode

import pytest
from playwright.async_api import Browser, Page, expect
from tests.console.conftest import Site, enter
from tests.console.test_access import press_until

from memoryd.client import RetrievedMemory

SCRIPT = "<script>hit=1</script><img src=x onerror=hit=2>\"'"
QUERY = "how to reach her: mail or phone?"


async def fill(site: Site, session_id: str = "ada") -> None:
    async with site.memories() as memories:
        for content, kind, importance, tags in (
            ("prefers e-mail over phone", "preference", 0.4, ["contact"]),
            ("asked how to reach support by phone", "context", 0.5, []),
            ("lives in Riga", "user_info", 0.9, ["place"]),
        ):
            await memories.store(
                session_id, content, content_type=kind, importance=importance, tags=tags
            )


def bench(**query: object) -> str:
    return f"/recall?{urlencode({'session': 'ada', **query}, doseq=True)}"


async def found(site: Site, query: str = QUERY, **given: object) -> list[RetrievedMemory]:
    async with site.memories() as memories:
        return list((await memories.retrieve("ada", query, peek=True, **given)).results)


async def texts(page: Page) -> list[str]:
    """The contents of the cards, in their order."""
    return await page.locator(".result .prose").all_inner_texts()


async def test_memories_are_ranked_as_for_an_agent(site: Site, page: Page):
    await fill(site)
    await page.goto("/recall")
    await expect(page.get_by_text("Whose memories?")).to_be_visible()
    await page.get_by_label("Session", exact=True).fill("ada")
    await page.get_by_label("Query").fill(QUERY)
    await page.get_by_role("button", name="Ask").click()
    await expect(page.get_by_role("status")).to_have_text("3 memories")
    results = await found(site)
    assert await texts(page) == [each.memory.content for each in results]
    for card, each in zip(await page.locator(".result").all(), results, strict=True):
        said = (await card.inner_text()).replace("\u2212", "-")
        assert f"{each.score:.3f}" in said
        assert f"{each.relevance:.2f}" in said
    await expect(page).to_have_url(re.compile(r"/recall\?session=ada&query="))
    await page.locator(".result a").first.click()
    await expect(page.locator("#text")).to_have_text(results[0].memory.content)


async def test_looking_counts_no_access(site: Site, page: Page):
    await fill(site)
    await page.goto(bench(query=QUERY))
    await expect(page.locator(".result")).to_have_count(3)
    assert {each.memory.access_count for each in await found(site)} == {0}


async def test_the_bar_is_the_breakdown_of_the_score(site: Site, page: Page):
    await fill(site)
    await page.goto(bench(query=QUERY))
    scales = set()
    for card, each in zip(await page.locator(".result").all(), await found(site), strict=True):
        parts = await card.locator(".legend li").all_inner_texts()
        said = {
            label: float(value.replace("\u2212", "-"))
            for label, value in (part.rsplit(maxsplit=1) for part in parts)
        }
        breakdown = {
            "words": each.breakdown.lexical,
            "meaning": each.breakdown.semantic,
            "importance": each.breakdown.importance,
        }
        assert said == pytest.approx({k: v for k, v in breakdown.items() if v}, abs=0.0006)
        assert sum(said.values()) == pytest.approx(each.score, abs=0.003)
        for label, value in said.items():
            series = {"words": 1, "meaning": 2, "importance": 3}[label]
            segment = card.locator(f".stacked .fill-{series}")
            width = float((await segment.get_attribute("width")).rstrip("%"))
            if abs(value) > 0.1:
                scales.add(round(width / abs(value)))
    assert len(scales) == 1  # one for the whole answer
    # Told apart without colour, too.
    fills = (
        await page.locator(".result")
        .first.locator(".stacked .segment")
        .evaluate_all("(found) => found.map((one) => one.getAttribute('fill'))")
    )
    assert len(set(fills)) == len(fills) > 1


async def test_filters_and_limits_hold(site: Site, page: Page):
    await fill(site)
    await page.goto(bench(query=QUERY))
    await page.get_by_text("Settings", exact=True).click()
    await page.get_by_label("preference").check()
    await page.get_by_role("button", name="Ask").click()
    await expect(page.locator(".result")).to_have_count(1)
    assert await texts(page) == ["prefers e-mail over phone"]
    await page.get_by_label("preference").uncheck()
    await page.get_by_label("With one of the tags").fill("place, none")
    await page.get_by_role("button", name="Ask").click()
    await expect(page.locator(".result .prose")).to_have_text(["lives in Riga"])
    await page.get_by_label("With one of the tags").fill("")
    await page.get_by_label("Results, at most").fill("2")
    await page.get_by_role("button", name="Ask").click()
    await expect(page.locator(".result")).to_have_count(2)
    await page.get_by_label("Relevance, at least").fill("1")
    await page.get_by_role("button", name="Ask").click()
    await expect(page.get_by_text("Nothing is recalled")).to_be_visible()


async def test_two_settings_stand_side_by_side(site: Site, page: Page):
    await fill(site)
    await page.goto(bench(query=QUERY))
    await page.get_by_role("button", name="Compare two settings").click()
    second = page.get_by_role("group", name="Setting B")
    await second.get_by_label("Weight of importance").fill("1")
    await second.get_by_label("user info").check()
    await page.get_by_role("button", name="Ask").click()
    a = page.get_by_role("region", name="Setting A")
    b = page.get_by_role("region", name="Setting B")
    await expect(b.locator(".result .prose")).to_have_text(["lives in Riga"])
    expected = [each.memory.content for each in await found(site)]
    await expect(a.locator(".result .prose")).to_have_text(expected)
    await expect(a.locator(".result").first).to_contain_text("only here")
    rank = expected.index("lives in Riga") + 1
    await expect(b.locator(".result")).to_contain_text(f"rank {rank} in the other")
    boxes = [await each.bounding_box() for each in (a, b)]
    assert boxes[0]["y"] == boxes[1]["y"]
    await page.get_by_role("button", name="Only one setting").click()
    await expect(page.get_by_role("region", name="Results").locator(".result")).to_have_count(3)
    await expect(page.get_by_label("Query")).to_have_value(QUERY)


async def test_one_setting_may_be_refused_and_the_other_answered(site: Site, signed_in):
    await fill(site)
    answer = await signed_in.get(bench(two=1, query=QUERY, b_min_relevance=2))
    assert answer.status == 400
    text = await answer.text()
    assert text.count('class="card result"') == 3
    assert "min_relevance" in text


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"limit": "many"}, "The limit is a number"),
        ({"limit": "9" * 30}, "not so large"),
        ({"min_relevance": "high"}, "The least relevance is a number"),
        ({"min_relevance": "nan", "query": "x"}, "min_relevance"),
        ({"min_relevance": "0.5"}, "min_relevance"),
        ({"importance_weight": "inf"}, "not so large"),
        ({"tags": "x" * 65}, "tags_any"),
        ({"session": "../ada"}, "session_id"),
        ({"session": "é", "prefix": "1"}, "session_id_prefix"),
    ],
)
async def test_what_cannot_be_asked_is_said_in_its_place(site: Site, signed_in, query, says):
    await fill(site)
    answer = await signed_in.get(bench(**query))
    text = await answer.text()
    assert answer.status == 400, text
    assert 'role="alert"' in text
    assert says in text
    assert "<h1>Recall</h1>" in text


async def test_sessions_that_begin_alike_are_ranked_together(site: Site, page: Page):
    await fill(site, "user-1")
    await fill(site, "user-2")
    await fill(site, "other")
    await page.goto(bench(session="user-", query=QUERY, prefix=1, limit=100))
    await expect(page.get_by_role("status")).to_have_text("6 memories of 2 sessions")
    await expect(page.locator(".result .badge.accent").first).to_contain_text("user-")
    await page.goto(bench(session="none", prefix=1))
    await expect(page.get_by_text("No session begins so")).to_be_visible()


async def test_as_many_sessions_are_asked_as_can_be(site: Site, page: Page):
    async with site.memories() as memories:
        for number in range(19):
            await memories.store(f"user-{number}", "prefers e-mail")
    await page.goto(bench(session="user-", prefix=1, query="mail", limit=100))
    await expect(page.get_by_role("status")).to_have_text(
        "17 memories of 17 sessions, the first that begin so"
    )


async def test_without_a_query_importance_alone_counts(site: Site, page: Page):
    await fill(site)
    await page.goto(bench())
    assert await texts(page) == [each.memory.content for each in await found(site, "")]
    await expect(page.locator(".result").first).not_to_contain_text("relevance")


SETTING = {
    "query": "how's “her” phone & mail?",
    "type": ["preference", "context"],
    "tags": "contact, it's",
    "min_relevance": "0.01",
    "importance_weight": "0.5",
    "limit": "2",
    "repeats": "1",
}


async def shown_calls(page: Page) -> list[str]:
    await page.get_by_text("Make this call yourself").click()
    return [
        await page.get_by_label(f"As {name}").inner_text() for name in ("grpcurl", "curl", "Python")
    ]


async def test_the_calls_that_are_shown_are_the_one_that_was_made(
    site: Site, page: Page, command_line, tmp_path
):
    await fill(site)
    await page.goto(bench(**SETTING))
    contents = await texts(page)
    assert contents == ["prefers e-mail over phone"]
    grpcurl, curl, python = await shown_calls(page)
    for call in (grpcurl, curl):
        answer = json.loads(await asyncio.to_thread(command_line.shell, call))
        assert [each["memory"]["content"] for each in answer["results"]] == contents
    file = tmp_path / "call.py"
    file.write_text(python)
    printed = await asyncio.to_thread(command_line.shell, f"'{sys.executable}' '{file}'")
    assert [line.split(maxsplit=1)[1] for line in printed.splitlines()] == contents
    assert {each.memory.access_count for each in await found(site)} == {0}
    assert all("Bearer" not in call for call in (grpcurl, curl, python))


async def test_calls_with_a_key_name_its_variable_and_not_the_key(
    guard, browser: Browser, command_line, tmp_path
):
    site = await guard()
    await fill(site)
    page = await browser.new_page(base_url=site.origin)
    await enter(page, site)
    await page.goto(bench(query=QUERY))
    contents = await texts(page)
    grpcurl, curl, python = await shown_calls(page)
    assert site.key not in await page.content()
    for call in (grpcurl, curl):
        given = f"export MEMORYD_API_KEY={site.key}; {call}"
        answer = json.loads(await asyncio.to_thread(command_line.shell, given))
        assert [each["memory"]["content"] for each in answer["results"]] == contents
    file = tmp_path / "call.py"
    file.write_text(python)
    given = f"MEMORYD_API_KEY={site.key} '{sys.executable}' '{file}'"
    printed = await asyncio.to_thread(command_line.shell, given)
    assert len(printed.splitlines()) == len(contents)


async def test_a_button_copies_the_call(site: Site, page: Page):
    await fill(site)
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.goto(bench(query="none yet"))
    await page.get_by_label("Query").fill(QUERY)
    await page.get_by_role("button", name="Ask").click()  # htmx puts in another call
    await expect(page.get_by_label("As curl")).to_contain_text(QUERY)
    _, curl, _ = await shown_calls(page)
    await page.get_by_role("button", name="Copy as curl", exact=True).click()
    await expect(page.get_by_role("button", name="Copied as curl", exact=True)).to_be_visible()
    assert await page.evaluate("navigator.clipboard.readText()") == curl


async def test_who_may_not_see_a_session_is_told_that_there_is_none(guard, calling):
    site = await guard()
    await fill(site)
    await fill(site, "user-1")
    caller = await calling(site)
    key = await site.new_key("memories:read", sessions=("user-*",))
    await caller.post("/sign-in", form={"key": key.key})
    answer = await caller.get(bench(query=QUERY))
    text = await answer.text()
    assert answer.status == 404
    assert "There is no such session, or you may not see it." in text
    assert "Riga" not in text
    every = await caller.get(bench(session="", prefix=1, query=QUERY))
    assert every.ok
    text = await every.text()
    assert "user-1" in text
    assert "ada" not in re.sub(r"<[^>]*>", "", text)


async def test_scripts_that_are_stored_or_asked_for_stay_text(serve, browser: Browser):
    running = await serve(MEMORYD_CONTENT_POLICY="verbatim")
    site = Site(running, f"http://{running.server.http_address}")
    async with site.memories() as memories:
        await memories.store("ada", SCRIPT, tags=[SCRIPT])
    page = await browser.new_page(base_url=site.origin)
    await enter(page, site)
    await page.goto(bench(query=SCRIPT, two=1, b_tags=SCRIPT))
    await expect(page.locator(".result .prose").first).to_have_text(SCRIPT)
    await expect(page.get_by_label("Query")).to_have_value(SCRIPT)
    assert await page.evaluate("window.hit") is None
    assert not await page.locator("main img, main script").count()


async def test_the_bench_works_without_scripts(site: Site, browser: Browser):
    await fill(site)
    page = await browser.new_page(base_url=site.origin, java_script_enabled=False)
    await enter(page, site)
    await page.get_by_role("link", name="Recall").click()
    await page.get_by_label("Session", exact=True).fill("ada")
    await page.get_by_label("Query").fill(QUERY)
    await page.get_by_role("button", name="Compare two settings").click()
    await page.get_by_role("group", name="Setting B").get_by_label("Results, at most").fill("1")
    await page.get_by_role("button", name="Ask").click()
    await expect(page.locator(".result")).to_have_count(4)
    await page.get_by_text("Make this call yourself").first.click()
    await expect(page.get_by_label("As curl").first).to_contain_text("RetrieveMemories")
    await expect(page.get_by_role("button", name="Copy")).to_have_count(0)


async def test_the_bench_works_with_the_keyboard(site: Site, page: Page):
    await fill(site)
    await page.goto("/recall")
    await press_until(page, "Sign out")
    await page.keyboard.press("Tab")
    await page.keyboard.type("ada")
    await page.keyboard.press("Tab")
    await page.keyboard.type(QUERY)
    await page.keyboard.press("Enter")
    await expect(page.locator(".result")).to_have_count(3)
    await expect(page.get_by_label("Query")).to_be_focused()
    await press_until(page, (await texts(page))[0])
    await page.keyboard.press("Enter")
    await expect(page.locator("#text")).to_be_visible()


async def test_two_settings_fit_a_phone(site: Site, page: Page):
    await fill(site)
    await page.set_viewport_size({"width": 390, "height": 844})
    await page.goto(bench(query=QUERY, two=1, type="preference"))
    await expect(page.locator(".result")).to_have_count(4)
    await page.get_by_text("Make this call yourself").first.click()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390
