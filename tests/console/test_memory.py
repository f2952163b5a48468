"""The page of one memory: how it fades, what is like it, what it was, and changes to it."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from urllib.parse import quote

import pytest
from playwright.async_api import APIRequestContext, Browser, Page, expect
from tests.console.conftest import Site, enter
from tests.console.test_access import press_until
from tests.console.test_security import HOSTILE, token_of

from memoryd.client import Memory, MemoryClient, ToolConfigClient
from memoryd.domain.importance import effective_importance

SCRIPT = "<script>hit=1</script><img src=x onerror=hit=2>\"'"


def path_of(memory: Memory, *more: str) -> str:
    return "/".join(("/sessions", memory.session_id, "memories", memory.memory_id, *more))


async def stored(site: Site, content: str = "prefers e-mail over phone", **given: object) -> Memory:
    async with site.memories() as memories:
        return (await memories.store("ada", content, **given)).memory


async def now(memories: MemoryClient, memory: Memory) -> Memory:
    return await memories.get(memory.session_id, memory.memory_id)


async def accessed(memories: MemoryClient, memory: Memory, count: int) -> None:
    """Return once this many accesses are written, which happens behind the reads."""
    async with asyncio.timeout(10):
        while (await now(memories, memory)).access_count < count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


# What it shows


async def test_a_memory_is_found_from_its_session(site: Site, page: Page):
    await stored(site, content_type="preference", tags=["contact"], metadata={"source": "chat"})
    await page.goto("/sessions/ada")
    await page.get_by_role("link", name="prefers e-mail").click()
    card = page.get_by_role("region", name="The memory")
    await expect(card).to_contain_text("prefers e-mail over phone")
    await expect(card).to_contain_text("preference")
    await expect(card).to_contain_text("contact")
    await expect(card).to_contain_text('"source": "chat"')


async def entered(browser: Browser, site: Site) -> Page:
    """A page of who signs in now: a cookie does not last for days."""
    page = await browser.new_page(viewport={"width": 1280, "height": 800}, base_url=site.origin)
    await enter(page, site)
    return page


async def test_the_curve_is_what_the_formula_gives(site: Site, browser: Browser, clock):
    async with site.memories() as memories:
        memory = await stored(site, importance=0.8, never_expires=True)
        for _ in range(3):
            await memories.retrieve("ada")
        await accessed(memories, memory, 3)
        clock.move(timedelta(days=12))
        page = await entered(browser, site)
        await page.goto(path_of(memory))
        read = await now(memories, memory)

    def at(days: float) -> float:
        return effective_importance(
            *(0.8, clock.now, 3), now=clock.now + timedelta(days=days), half_life_days=30.0
        )

    chart = page.locator(".chart.wide").first
    zero, one = [
        float(await chart.locator("line.axis").nth(index).get_attribute("y1")) for index in (0, 2)
    ]
    past, ahead = [
        [
            tuple(map(float, each.split(",")))
            for each in (await line.get_attribute("points")).split()
        ]
        for line in await chart.locator(".curve").all()
    ]
    a_day = (past[-1][0] - past[0][0]) / 12
    for x, y in [*past, *ahead]:
        assert (zero - y) / (zero - one) == pytest.approx(at((x - past[0][0]) / a_day), abs=0.005)
    assert read.effective_importance == pytest.approx(at(12))
    dot = chart.locator("circle.dot")
    assert (await dot.get_attribute("cx"), await dot.get_attribute("cy")) == (
        *(f"{past[-1][0]:.1f}", f"{past[-1][1]:.1f}"),
    )
    await expect(chart).to_contain_text(f"now {at(12):.2f}")
    await expect(page.locator("figcaption")).to_contain_text(f"= {at(12):.3f}")


async def test_the_page_says_when_retrieval_will_leave_it_out(site: Site, page: Page, clock):
    async with site.memories() as memories:
        memory = await stored(site, importance=0.6, never_expires=True)
        await page.goto(path_of(memory))
        caption = page.locator("figcaption")
        await expect(caption).to_contain_text("falls below the threshold of 0.30")
        await expect(caption).to_contain_text("It never expires")
        said = await caption.locator("time").get_attribute("datetime")
        clock.now = datetime.fromisoformat(said) - timedelta(seconds=2)
        assert (await memories.retrieve("ada", peek=True)).results
        clock.move(timedelta(seconds=4))
        assert not (await memories.retrieve("ada", peek=True)).results


async def test_the_page_says_that_retrieval_leaves_it_out(site: Site, browser: Browser, clock):
    memory = await stored(site, importance=0.6, never_expires=True)
    clock.move(timedelta(days=41))
    page = await entered(browser, site)
    await page.goto(path_of(memory))
    await expect(page.locator("figcaption")).to_contain_text(
        "It fell below the threshold of 0.30 10 days ago"
    )
    await page.get_by_role("link", name="ada").click()
    await page.get_by_role("link", name="Ask recall").click()
    await expect(page.get_by_label("Session", exact=True)).to_have_value("ada")


async def test_the_drawing_has_the_expiry(site: Site, page: Page):
    memory = await stored(site, ttl=timedelta(days=9))
    await page.goto(path_of(memory))
    await expect(page.locator(".chart.wide").first).to_contain_text("expires")
    expiry = page.locator("figcaption time").last
    assert datetime.fromisoformat(await expiry.get_attribute("datetime")) == memory.expire_time


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"importance": 0.0}, "It is below the threshold"),
        ({"importance": 1.0, "ttl": timedelta(days=20_000)}, "It expires in 54 years"),
        ({"importance": 1.0, "ttl": timedelta(seconds=1)}, "It expires in 1 min"),
    ],
)
async def test_every_memory_can_be_drawn(site: Site, signed_in, given: dict, says: str):
    memory = await stored(site, **given)
    answer = await signed_in.get(path_of(memory))
    assert says in re.sub(r"<[^>]+>", "", await answer.text())


async def test_neighbours_are_ordered_by_similarity_or_by_distance(site: Site, page: Page):
    memory = await stored(site, "Prefers e-mail over phone for all questions about her orders")
    await stored(site, "prefers e-mail over phone for all questions about her order")
    await stored(site, "has a question about her phone bill")
    await stored(site, "lives in Riga")
    await page.goto(path_of(memory))
    rows = page.get_by_role("region", name="Neighbours").locator("tbody tr")
    await expect(rows.first).to_contain_text("about her order")
    await expect(rows.first).to_contain_text("near duplicate")
    assert await page.locator(".chart.wide .neighbour").count() == await rows.count()
    await page.get_by_role("link", name="by distance").click()
    await expect(page.get_by_role("link", name="by distance")).to_have_attribute(
        "aria-current", "true"
    )
    bits = [
        int(re.match(r"\d+", text)[0])
        for text in await rows.locator("td:nth-child(4)").all_inner_texts()
    ]
    assert bits == sorted(bits)
    async with site.memories() as memories:
        found = await memories.find_similar("ada", memory_id=memory.memory_id)
    assert bits[0] == found.results[0].distance
    await rows.first.get_by_role("link").click()
    await expect(page.locator("#text")).to_have_text(found.results[0].memory.content)


async def test_a_lonely_memory_says_what_would_be_here(site: Site, page: Page):
    await page.goto(path_of(await stored(site)))
    await expect(page.get_by_text("Nothing is like it")).to_be_visible()


async def test_versions_say_what_has_changed(site: Site, page: Page):
    memory = await stored(site, tags=["a", "b"], importance=0.5)
    async with site.memories() as memories:
        change = {"content": "prefers letters over phone", "tags": ["b", "c"], "importance": 0.25}
        await memories.update("ada", memory.memory_id, **change)
        await memories.update("ada", memory.memory_id, metadata={"by": "Ben"}, never_expires=True)
    await page.goto(path_of(memory))
    newest, middle, first = await page.locator(".versions li").all()
    await expect(middle.locator(".difference del")).to_have_text("e-mail")
    await expect(middle.locator(".difference ins")).to_have_text("letters")
    await expect(middle.locator("del.badge")).to_have_text("− a")
    await expect(middle.locator("ins.badge")).to_have_text("+ c")
    await expect(middle).to_contain_text("0.5 → 0.25")
    await expect(newest).to_contain_text('"by": "Ben"')
    await expect(newest).to_contain_text("→ never")
    await expect(newest.get_by_role("button")).to_have_count(0)
    await expect(first).to_contain_text("prefers e-mail over phone")


async def test_a_memory_is_rolled_back(site: Site, page: Page):
    memory = await stored(site, importance=0.5)
    async with site.memories() as memories:
        await memories.update("ada", memory.memory_id, content="prefers letters", importance=0.9)
        await page.goto(path_of(memory))
        await page.get_by_role("button", name=f"Roll back to revision {memory.revision}").click()
        await expect(page.get_by_role("status")).to_contain_text("what it was in that version")
        await expect(page.locator("#text")).to_have_text("prefers e-mail over phone")
        await expect(page.locator(".versions li")).to_have_count(3)
        assert (await now(memories, memory)).importance == 0.5


async def test_a_roll_back_that_is_refused_says_why_in_its_place(site: Site, page: Page):
    memory = await stored(site, "the first")
    async with site.memories() as memories:
        await memories.update("ada", memory.memory_id, content="the second")
        await memories.store("ada", "the first")
        await page.goto(path_of(memory))
        await page.get_by_role("button", name="Roll back").click()
        await expect(page.get_by_role("alert")).to_contain_text("content")
        await expect(page.locator("#text")).to_have_text("the second")


async def test_many_versions_have_pages(site: Site, page: Page):
    memory = await stored(site, "number 0")
    async with site.memories() as memories:
        for number in range(1, 22):
            await memories.update("ada", memory.memory_id, content=f"number {number}")
    await page.goto(path_of(memory))
    await expect(page.locator(".versions li")).to_have_count(20)
    # The last one of the page is compared with the first one of the next.
    await expect(page.locator(".versions li").last.locator("del")).to_have_text("1")
    await page.get_by_role("link", name="Next page").click()
    await expect(page.locator(".versions li")).to_have_count(2)
    await expect(page.get_by_role("button", name="Roll back")).to_have_count(2)


# Changes


async def test_an_edit_changes_what_was_changed_and_nothing_else(site: Site, page: Page):
    memory = await stored(
        site, "two\nlines", tags=["a", "b"], metadata={"source": "chat"}, ttl=timedelta(hours=90)
    )
    await page.goto(path_of(memory))
    await page.get_by_role("link", name="Edit").click()
    await page.get_by_label("Importance").fill("0.9")
    await page.get_by_label("Tags").fill("b\nwith, a comma")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status")).to_have_text("Your change is saved.")
    async with site.memories() as memories:
        found = await now(memories, memory)
        assert (found.importance, found.tags) == (0.9, ("b", "with, a comma"))
        assert (found.content, found.expire_time) == ("two\nlines", memory.expire_time)
        assert found.metadata == {"source": "chat"}
        (made, _) = [each async for each in memories.revisions("ada", memory.memory_id)]
    assert made.memory.etag == found.etag


async def test_every_field_can_be_edited(site: Site, page: Page):
    memory = await stored(site)
    await page.goto(path_of(memory, "edit"))
    await page.get_by_label("Text").fill("prefers letters")
    await page.get_by_label("Type").select_option("preference")
    await page.get_by_label("Metadata").fill('{"by": "Ben"}')
    await page.get_by_label("Expires").fill("2026-05-01T10:00")
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator("#text")).to_have_text("prefers letters")
    async with site.memories() as memories:
        found = await now(memories, memory)
        assert (found.content_type, found.metadata) == ("preference", {"by": "Ben"})
        assert found.expire_time == datetime(2026, 5, 1, 10, tzinfo=UTC)
        await page.get_by_role("link", name="Edit").click()
        await page.get_by_label("Expires").fill("")
        await page.get_by_label("Metadata").fill("")
        await page.get_by_role("button", name="Save").click()
        await expect(page.locator("figcaption")).to_contain_text("It never expires.")
        assert (await now(memories, memory)).metadata == {}


async def test_an_edit_without_a_change_makes_no_version(site: Site, page: Page):
    memory = await stored(site, "  spaced \n\n text", ttl=timedelta(hours=1))
    await page.goto(path_of(memory, "edit"))
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status")).to_have_text("Nothing was changed.")
    async with site.memories() as memories:
        assert (await now(memories, memory)).etag == memory.etag


async def test_a_lost_race_shows_theirs_and_yours(site: Site, page: Page):
    memory = await stored(site, tags=["a"], importance=0.5)
    async with site.memories() as memories:
        await page.goto(path_of(memory, "edit"))
        await page.get_by_label("Text").fill("prefers letters over phone")
        await page.get_by_label("Importance").fill("0.9")
        await memories.update(
            "ada", memory.memory_id, content="prefers calls over phone", tags=["theirs"]
        )
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("Somebody else")
        text, importance, tags = await page.get_by_role("group").all()
        await expect(text).to_contain_text("both changed it")
        await expect(text.locator("ins")).to_have_text("calls")
        await expect(text.get_by_label("Your text")).to_have_value("prefers letters over phone")
        await expect(importance).to_contain_text("only you changed it")
        await expect(tags).to_contain_text("only they changed it")
        assert (await now(memories, memory)).content == "prefers calls over phone"
        await page.get_by_role("button", name="Save what is chosen").click()
        await expect(page.get_by_role("status")).to_have_text("Your change is saved.")
        found = await now(memories, memory)
        assert (found.content, found.importance) == ("prefers letters over phone", 0.9)
        assert found.tags == ("theirs",)


async def test_after_a_lost_race_theirs_may_be_kept(site: Site, page: Page):
    memory = await stored(site, importance=0.5)
    async with site.memories() as memories:
        await page.goto(path_of(memory, "edit"))
        await page.get_by_label("Text").fill("prefers letters")
        await page.get_by_label("Importance").fill("0.9")
        await memories.update("ada", memory.memory_id, content="prefers calls")
        await page.get_by_role("button", name="Save").click()
        await page.get_by_label("Keep theirs").check()
        await page.get_by_role("button", name="Save what is chosen").click()
        await expect(page.locator("#text")).to_have_text("prefers calls")
        assert (await now(memories, memory)).importance == 0.9


async def test_a_race_may_be_lost_twice(site: Site, page: Page):
    memory = await stored(site)
    async with site.memories() as memories:
        await page.goto(path_of(memory, "edit"))
        await page.get_by_label("Text").fill("mine")
        await memories.update("ada", memory.memory_id, content="theirs")
        await page.get_by_role("button", name="Save").click()
        await memories.update("ada", memory.memory_id, content="theirs again")
        await page.get_by_role("button", name="Save what is chosen").click()
        await expect(page.get_by_label("Your text")).to_have_value("mine")
        await expect(page.locator("ins")).to_have_text("again")
        await page.get_by_role("link", name="Keep all of theirs").click()
        await expect(page.locator("#text")).to_have_text("theirs again")


async def test_what_was_written_of_a_deleted_memory_is_shown(site: Site, page: Page):
    memory = await stored(site)
    async with site.memories() as memories:
        await page.goto(path_of(memory, "edit"))
        await page.get_by_label("Text").fill("a long thought")
        await memories.delete("ada", memory.memory_id)
        await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("alert")).to_contain_text("was deleted while you edited")
    await expect(page.get_by_role("region", name="What you wrote")).to_contain_text(
        "a long thought"
    )
    await expect(page.get_by_role("button", name="Undelete")).to_be_visible()


async def posted(caller: APIRequestContext, memory: Memory, **changed: str):
    """Post the form of an edit."""
    was = {
        "content": memory.content,
        "content_type": memory.content_type.value,
        "importance": f"{memory.importance:g}",
        "tags": "",
        "metadata": "",
        "expire_time": "2026-03-02T12:00:00",
    }
    form = {**was, **{f"was_{name}": value for name, value in was.items()}, **changed}
    return await caller.post(
        path_of(memory, "edit"),
        form={**form, "etag": memory.etag, "csrf_token": await token_of(caller)},
    )


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("importance", "2", "importance"),
        ("importance", "much", "Give a number from 0 to 1"),
        ("importance", "nan", "importance"),
        ("metadata", "{", "This is no JSON"),
        ("metadata", "[1]", "Metadata is a JSON object"),
        ("metadata", "[" * 100_000, "metadata"),
        ("expire_time", "tomorrow", "A time is written as"),
        ("expire_time", "2020-01-01T00:00", "future"),
        ("tags", "x" * 65, "64"),
        ("content", "", "content"),
        ("content_type", "rubbish", "Choose one of"),
        ("metadata", '{"a": NaN}', "metadata"),
        ("metadata", f'{{"a": {10**400}}}', "metadata"),
        ("metadata", '{"a":' * 60 + "1" + "}" * 60, "metadata"),
        ("metadata", '{"a": "\\ud800"}', "metadata"),
    ],
)
async def test_what_cannot_be_saved_stays_in_the_form(
    site: Site, signed_in: APIRequestContext, field: str, value: str, says: str
):
    memory = await stored(site)
    answer = await posted(signed_in, memory, **{field: value})
    assert answer.status == 400
    text = unescape(await answer.text())
    assert 'role="alert"' in text
    assert says in text
    if field not in {"content", "content_type"}:
        assert value in text
        assert 'aria-invalid="true"' in text
    async with site.memories() as memories:
        assert (await now(memories, memory)).etag == memory.etag


async def test_an_edit_to_what_another_memory_says_links_that_one(site: Site, page: Page):
    memory, other = await stored(site, "the first"), await stored(site, "the second")
    await page.goto(path_of(memory, "edit"))
    await page.get_by_label("Text").fill("the second")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    await expect(page.get_by_label("Text")).to_have_value("the second")
    await page.get_by_role("link", name="See the other memory").click()
    await expect(page).to_have_url(site.origin + path_of(other))


async def test_a_memory_is_deleted_and_undeleted(site: Site, page: Page):
    memory = await stored(site, importance=0.8)
    await page.goto(path_of(memory))
    await page.get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("status")).to_contain_text("It can be undeleted")
    await expect(page.locator("#text")).to_have_text("prefers e-mail over phone")
    await expect(page.get_by_role("link", name="Edit")).to_have_count(0)
    async with site.memories() as memories:
        assert [each async for each in memories.list("ada")] == []
        await page.get_by_role("link", name="ada").click()
        await page.get_by_role("link", name="Deleted").click()
        await page.get_by_role("link", name="prefers e-mail").click()
        await page.get_by_role("button", name="Undelete").click()
        await expect(page.get_by_role("status")).to_have_text("The memory is back.")
        await expect(page.get_by_role("link", name="Edit")).to_be_visible()
        assert (await now(memories, memory)).content == memory.content


async def test_a_deleted_memory_shows_what_took_its_place(site: Site, page: Page):
    memory = await stored(site)
    async with site.memories() as memories:
        await memories.delete("ada", memory.memory_id)
        await memories.store("ada", "prefers e-mail over phone!")
        await page.goto(path_of(memory))
        await expect(page.get_by_role("row").last).to_contain_text("near duplicate")
        await page.get_by_role("button", name="Undelete").click()
        await expect(page.get_by_role("alert")).to_contain_text("content")


async def test_what_has_changed_since_it_was_seen_is_not_deleted(site: Site, page: Page):
    memory = await stored(site)
    async with site.memories() as memories:
        await page.goto(path_of(memory))
        await memories.update("ada", memory.memory_id, content="prefers letters")
        await page.get_by_role("button", name="Delete").click()
        await expect(page.get_by_role("alert")).to_contain_text("changed")
        await expect(page.locator("#text")).to_have_text("prefers letters")
        assert (await now(memories, memory)).delete_time is None


# For whom


async def test_who_only_reads_looks_and_does_not_change(guard, browser: Browser, calling):
    site = await guard()
    memory = await stored(site)
    key = (await site.new_key("memories:read")).key
    page = await browser.new_page(base_url=site.origin)
    await enter(page, site, key)
    await page.goto(path_of(memory))
    await expect(page.locator("#text")).to_have_text("prefers e-mail over phone")
    await expect(page.locator("main form, main button")).to_have_count(0)
    await expect(page.get_by_role("link", name="Edit")).to_have_count(0)
    await expect(page.locator("figcaption")).to_contain_text("a setting that you may not read")
    assert (await page.goto(path_of(memory, "edit"))).status == 403
    caller = await calling(site)
    await caller.post("/sign-in", form={"key": key})
    token = await token_of(caller)
    for action in ("delete", "undelete", "roll-back"):
        form = {"csrf_token": token, "revision": "1"}
        answer = await caller.post(path_of(memory, action), form=form)
        assert answer.status == 403, action
        assert "memories:write" in await answer.text()
    assert (await posted(caller, memory, content="prefers letters")).status == 403
    async with site.memories() as memories:
        assert (await now(memories, memory)).etag == memory.etag


async def test_a_memory_outside_the_rules_is_not_there(guard, calling):
    site = await guard()
    memory = await stored(site)
    caller = await calling(site)
    key = await site.new_key("operator", sessions=("user-*",))
    await caller.post("/sign-in", form={"key": key.key})
    for path in (path_of(memory), path_of(memory, "edit")):
        answer = await caller.get(path)
        assert answer.status == 404
        text = await answer.text()
        assert "There is no such session, or you may not see it." in text
        assert memory.content not in text


@pytest.mark.parametrize("value", HOSTILE)
async def test_what_nobody_means_is_refused(site: Site, signed_in, value: str):
    memory = await stored(site)
    within = quote(value, safe="")
    paths = [f"/sessions/ada/memories/{within}", f"/sessions/ada/memories/{within}/edit"]
    paths += [f"{path_of(memory)}?{name}={within}" for name in ("page", "by", "done")]
    for name in ("session", "prefix", "query", "two", "b_limit", "limit", "importance_weight"):
        paths.append(f"/recall?session=ada&two=1&{name}={within}")
    for path in paths:
        assert (await signed_in.get(path)).status < 500, path
    token = await token_of(signed_in)
    for action, names in {
        "delete": ("etag",),
        "undelete": ("none",),
        "roll-back": ("revision",),
        "edit": (
            "etag",
            "content",
            "content_type",
            "importance",
            "tags",
            "metadata",
            "expire_time",
        ),
    }.items():
        for name in names:
            form = {name: value, "csrf_token": token}
            answer = await signed_in.post(path_of(memory, action), form=form)
            assert answer.status < 500, (action, name)


@pytest.mark.parametrize("memory_id", ["none", "0199c0de-0000-7000-8000-000000000000"])
async def test_what_is_no_memory_is_said_to_be_none(site: Site, signed_in, memory_id: str):
    await stored(site)
    answer = await signed_in.get(f"/sessions/ada/memories/{memory_id}")
    assert answer.status in {400, 404}
    assert 'role="alert"' in await answer.text()


async def test_tools_that_are_set_otherwise_move_the_threshold(site: Site, page: Page):
    await ToolConfigClient(channel=site.running.channel).update(
        "memory", {"importance_threshold": 0.45}
    )
    await page.goto(path_of(await stored(site, importance=0.9)))
    await expect(page.locator(".chart.wide").first).to_contain_text("threshold 0.45")


async def test_scripts_that_are_stored_stay_text_also_where_texts_are_compared(
    serve, browser: Browser
):
    running = await serve(MEMORYD_CONTENT_POLICY="verbatim")
    site = Site(running, f"http://{running.server.http_address}")
    memory = await stored(site, f"mine {SCRIPT}", tags=["a"])
    await stored(site, f"also {SCRIPT}")
    page = await browser.new_page(base_url=site.origin)
    await enter(page, site)
    async with site.memories() as memories:
        await page.goto(path_of(memory, "edit"))
        await expect(page.get_by_label("Text")).to_have_value(f"mine {SCRIPT}")
        await page.get_by_label("Text").fill(f"</textarea>{SCRIPT}")
        await memories.update(
            "ada", memory.memory_id, content=f"theirs {SCRIPT}", metadata={SCRIPT: SCRIPT}
        )
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_label("Your text")).to_have_value(f"</textarea>{SCRIPT}")
        await expect(page.locator(".side").first).to_contain_text("<script>hit=1</script>")
        await page.get_by_role("button", name="Save what is chosen").click()
        await expect(page.locator("#text")).to_contain_text("<script>hit=1</script>")
    await expect(page.locator(".versions")).to_contain_text("<img src=x onerror=hit=2>")
    assert await page.evaluate("window.hit") is None
    assert not await page.locator("main img, main script").count()


async def test_a_memory_is_edited_without_scripts(site: Site, browser: Browser):
    memory = await stored(site)
    page = await browser.new_page(base_url=site.origin, java_script_enabled=False)
    await enter(page, site)
    async with site.memories() as memories:
        await page.goto(path_of(memory))
        await expect(page.locator(".chart.wide").first).to_be_visible()
        await page.get_by_role("link", name="Edit").click()
        await page.get_by_label("Text").fill("prefers letters")
        await memories.update("ada", memory.memory_id, content="prefers calls")
        await page.get_by_role("button", name="Save").click()
        await page.get_by_label("Use mine").check()
        await page.get_by_role("button", name="Save what is chosen").click()
        await expect(page.locator("#text")).to_have_text("prefers letters")
        await page.get_by_role("button", name=f"Roll back to revision {memory.revision}").click()
        await expect(page.locator("#text")).to_have_text("prefers e-mail over phone")
        await page.get_by_role("button", name="Delete").click()
        await page.get_by_role("button", name="Undelete").click()
        assert await now(memories, memory)


async def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the focus is there; a field for a time takes several."""
    for _ in range(40):
        await page.keyboard.press("Tab")
        if await page.evaluate("(it) => document.activeElement.matches(it)", selector):
            return
    raise AssertionError(f"{selector} is not reached")


async def test_a_memory_is_edited_with_the_keyboard(site: Site, page: Page):
    memory = await stored(site)
    await page.goto(path_of(memory))
    await press_until(page, "Edit")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/edit")
    await tab_to(page, "#content")
    await page.keyboard.press("Control+A")
    await page.keyboard.type("prefers letters")
    await tab_to(page, "form.card button")
    await page.keyboard.press("Enter")
    await expect(page.locator("#text")).to_have_text("prefers letters")


async def test_a_phone_gets_a_drawing_of_its_own(site: Site, page: Page):
    memory = await stored(site, "a-long-word-that-nothing-breaks-" * 20)
    await stored(site, "a-long-word-that-nothing-breaks-" * 20 + "at all")
    await page.set_viewport_size({"width": 390, "height": 844})
    for path in (path_of(memory), path_of(memory, "edit")):
        await page.goto(path)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    await page.goto(path_of(memory))
    await expect(page.locator(".chart.slim").first).to_be_visible()
    await expect(page.locator(".chart.wide").first).to_be_hidden()
