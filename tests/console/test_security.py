"""Who may see and change what, and that nobody else does by way of a browser."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from datetime import timedelta
from urllib.parse import quote

import pytest
from playwright.async_api import APIRequestContext, Browser, Page
from tests.console.conftest import Site, enter
from tests.console.crawl import crawl, fill
from tests.locks import writes_blocked
from tests.patience import PATIENT

from memoryd.client import ResourceExhausted
from memoryd.console.cookies import COOKIE
from memoryd.console.once import OnceLink, code_of

SCRIPT = "<script>hit=1</script><img src=x onerror=hit=2>\"'"
FORM = {"content-type": "application/x-www-form-urlencoded"}


async def token_of(caller: APIRequestContext) -> str:
    """What forms of a signed-in caller carry."""
    text = await (await caller.get("/")).text()
    return re.search(r'name="csrf_token" value="([^"]+)"', text)[1]


async def a_deleted(site: Site) -> str:
    """The id of a memory that somebody could undelete."""
    async with site.memories() as memories:
        stored = await memories.store("ada", "prefers e-mail")
        await memories.delete("ada", stored.memory.memory_id)
    return stored.memory.memory_id


async def is_deleted(site: Site) -> bool:
    async with site.memories() as memories:
        return not [each async for each in memories.list("ada")]


# Signing in


async def test_the_link_signs_in_once(site: Site, calling):
    one, other = await calling(site), await calling(site)
    path = site.link.removeprefix(site.origin)
    for _ in range(2):  # to look at it uses nothing up
        assert "Open the console" in await (await one.get(path)).text()
    once = {"once": path.partition("once=")[2]}
    assert (await one.post("/sign-in", form=once)).ok
    assert (await one.get("/", max_redirects=0)).status == 200
    refused = await other.post("/sign-in", form=once)
    assert refused.status == 403
    assert (await other.get("/", max_redirects=0)).status == 303
    assert "has been used" in await (await other.get(path)).text()


async def test_a_link_that_could_not_sign_in_is_not_used_up(
    serve, calling, database_url, eventually
):
    running = await serve(MEMORYD_MAX_CALLS="1", **PATIENT)
    site = Site(running, f"http://{running.server.http_address}")
    once = site.link.partition("once=")[2]
    one = await calling(site)
    async with site.memories() as memories:
        memory_id = (await memories.store("ada", "prefers e-mail")).memory.memory_id

        async def is_refused() -> bool:
            try:
                await memories.get("ada", memory_id)
            except ResourceExhausted:
                return True
            return False

        async with writes_blocked(database_url):
            waiting = asyncio.create_task(memories.store("ada", "lives in Bremen"))
            await asyncio.sleep(0)  # it is sent first
            await eventually(is_refused)
            refused = await one.post("/sign-in", form={"once": once}, max_redirects=0)
        await waiting
    assert refused.status == 429
    assert "set-cookie" not in refused.headers
    assert f'value="{once}"' in await refused.text()  # to press the button again
    assert (await one.post("/sign-in", form={"once": once}, max_redirects=0)).status == 303


@pytest.mark.parametrize("once", ["", "0", "é", "x" * 64])
async def test_another_link_does_not(caller: APIRequestContext, once: str):
    assert (await caller.post("/sign-in", form={"once": once})).status == 403
    assert (await caller.get("/", max_redirects=0)).status == 303


def test_workers_take_the_link_once_among_them(tmp_path):
    code = code_of("a secret", tmp_path)
    workers = [OnceLink(code_of("a secret", tmp_path), tmp_path) for _ in range(3)]
    assert [worker.use(code) for worker in workers] == [True, False, False]
    assert not workers[2].is_right(code)
    assert code != code_of("a secret", tmp_path / "another start")


async def test_the_ready_lines_have_the_link(command_line, calling):
    server = command_line.serve()
    server.address()
    (link,) = re.findall("^memoryd console on (.*)$", server.output, re.MULTILINE)
    origin, _, once = link.partition("/sign-in?once=")
    answer = await (await calling(origin)).post("/sign-in", form={"once": once})
    assert "There is no session yet" in await answer.text()


async def test_a_key_signs_in(guard, calling):
    site = await guard()
    caller = await calling(site)
    assert "API key" in await (await caller.get("/")).text()
    answer = await caller.post("/sign-in", form={"key": site.key, "after": "/?prefix=a"})
    assert answer.url == f"{site.origin}/?prefix=a"
    await caller.post("/sign-out", form={"csrf_token": await token_of(caller)})
    assert (await caller.get("/", max_redirects=0)).status == 303


@pytest.mark.parametrize("key", ["", "rubbish", "é", "mk_" + "x" * 60, "a\r\nb"])
async def test_no_other_key_does(guard, calling, key: str):
    caller = await calling(await guard())
    answer = await caller.post("/sign-in", form={"key": key})
    assert answer.status in {400, 401}
    assert 'role="alert"' in await answer.text()
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("after", ["//evil.example", "https://evil.example", "/\\evil.example"])
async def test_who_signs_in_stays_here(guard, calling, after: str):
    site = await guard()
    caller = await calling(site)
    form = {"key": site.key, "after": after}
    answer = await caller.post("/sign-in", form=form, max_redirects=0)
    assert answer.headers["location"] == "/"


async def test_the_cookie_is_for_this_site_and_not_for_scripts(guard, calling):
    site = await guard()
    caller = await calling(site)
    answer = await caller.post("/sign-in", form={"key": site.key}, max_redirects=0)
    cookie, *flags = answer.headers["set-cookie"].split("; ")
    assert cookie.startswith(f"{COOKIE}=")
    assert {flag.lower() for flag in flags} == {
        *("httponly", "samesite=strict", "path=/", "max-age=43200")
    }
    assert site.key not in cookie


async def test_over_tls_the_cookie_never_goes_in_the_clear(serve, tls_folder, playwright):
    running = await serve(**tls_folder.variables)
    origin = f"https://{running.server.http_address}"
    once = running.server.console_path.partition("once=")[2]
    context = await playwright.request.new_context(
        base_url=origin, extra_http_headers={"origin": origin}, ignore_https_errors=True
    )
    answer = await context.post("/sign-in", form={"once": once}, max_redirects=0)
    assert answer.status == 303, await answer.text()
    assert "; secure" in answer.headers["set-cookie"].lower()
    assert (await context.get("/", max_redirects=0)).status == 200
    await context.dispose()


async def test_behind_a_proxy_that_speaks_tls_neither(guard, calling):
    site = await guard()
    caller = await calling(site)
    headers = {"origin": site.origin.replace("http:", "https:")}
    form = {"key": site.key}
    answer = await caller.post("/sign-in", form=form, headers=headers, max_redirects=0)
    assert "; secure" in answer.headers["set-cookie"].lower()


async def cookie_of(caller: APIRequestContext) -> str:
    (cookie,) = (await caller.storage_state())["cookies"]
    return cookie["value"]


@pytest.mark.parametrize("damage", ["", "rubbish", "A" * 40, "=", "é", "{0}A", "A{0}", "{1}"])
async def test_a_cookie_that_is_not_ours_is_none(signed_in, site: Site, calling, damage: str):
    whole = await cookie_of(signed_in)
    cookie = damage.format(whole, whole[:-8])
    caller = await calling(site)
    headers = {"cookie": f"{COOKIE}={cookie}".encode().decode("latin-1")}
    answer = await caller.get("/", headers=headers, max_redirects=0)
    assert answer.status == 303
    headers = {"cookie": f"{COOKIE}={whole}"}
    assert (await caller.get("/", headers=headers, max_redirects=0)).status == 200


async def test_a_cookie_ends(signed_in, clock):
    clock.move(timedelta(hours=12) - timedelta(seconds=1))
    assert (await signed_in.get("/", max_redirects=0)).status == 200
    clock.move(timedelta(seconds=1))
    assert (await signed_in.get("/", max_redirects=0)).status == 303


async def test_servers_with_one_secret_take_each_others_cookies(serve, calling):
    secret = {"MEMORYD_CONSOLE_SECRET": "s" * 32}
    sites = [
        Site(running, f"http://{running.server.http_address}")
        for running in [await serve(**secret), await serve(**secret), await serve()]
    ]
    first = await calling(sites[0])
    await first.post("/sign-in", form={"once": sites[0].link.partition("once=")[2]})
    headers = {"cookie": f"{COOKIE}={await cookie_of(first)}"}
    answers = [
        await (await calling(site)).get("/", headers=headers, max_redirects=0) for site in sites
    ]
    assert [answer.status for answer in answers] == [200, 200, 303]


async def test_a_revoked_key_is_signed_out(guard, browser: Browser, eventually):
    site = await guard()
    key = await site.new_key("reader")
    page = await browser.new_page(base_url=site.origin)
    await enter(page, site, key.key)
    await site.access().revoke_key(key.api_key.key_id)

    async def is_signed_out() -> bool:
        await page.goto("/")
        return page.url.startswith(f"{site.origin}/sign-in")

    await eventually(is_signed_out)
    assert not await page.context.cookies()


# Posts


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", "http://localhost", "{}.evil.example"]
)
async def test_what_another_site_posts_is_refused(signed_in, site: Site, origin: str):
    memory_id = await a_deleted(site)
    form = {"memory_id": memory_id, "csrf_token": await token_of(signed_in)}
    headers = {"origin": origin.format(site.origin)}
    for path in ("/sessions/ada/undelete", "/sign-out", "/sign-in"):
        answer = await signed_in.post(path, form=form, headers=headers)
        assert answer.status == 403
    assert await is_deleted(site)
    assert (await signed_in.post("/sessions/ada/undelete", form=form)).ok
    assert not await is_deleted(site)


@pytest.mark.parametrize("token", [None, "", "x", "é"])
async def test_a_post_without_its_token_is_refused(signed_in, site: Site, token: str | None):
    form = {"memory_id": await a_deleted(site)}
    form |= {} if token is None else {"csrf_token": token}
    for path in ("/sessions/ada/undelete", "/sign-out"):
        assert (await signed_in.post(path, form=form)).status == 403
    assert await is_deleted(site)
    assert (await signed_in.get("/", max_redirects=0)).status == 200


async def test_a_token_may_be_a_header(signed_in, site: Site):
    form = {"memory_id": await a_deleted(site)}
    headers = {"x-csrf-token": await token_of(signed_in)}
    assert (await signed_in.post("/sessions/ada/undelete", form=form, headers=headers)).ok
    assert not await is_deleted(site)


async def test_a_token_of_another_is_refused(site: Site, guard, calling):
    site = await guard()
    callers = [await calling(site) for _ in range(2)]
    for caller in callers:
        await caller.post("/sign-in", form={"key": site.key})
    token = await token_of(callers[0])
    answer = await callers[1].post("/sign-out", form={"csrf_token": token})
    assert answer.status == 403


async def test_no_get_changes_anything(signed_in, site: Site):
    memory_id = await a_deleted(site)
    query = f"?memory_id={memory_id}&csrf_token={await token_of(signed_in)}"
    answer = await signed_in.get(f"/sessions/ada/undelete{query}")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert (await signed_in.get(f"/sign-out{query}")).status == 405
    assert await is_deleted(site)


async def test_forms_have_a_size_and_a_type(signed_in):
    large = await signed_in.post("/sessions/ada/undelete", form={"memory_id": "x" * 2**20})
    assert large.status == 413
    other = await signed_in.post("/sessions/ada/undelete", multipart={"memory_id": "x"})
    assert other.status == 415
    many = await signed_in.post("/sign-in", headers=FORM, data="a=1&" * 1000)
    assert many.status == 400
    unreadable = await signed_in.post("/sign-in", headers=FORM, data=b"\xff=1")
    assert unreadable.status == 400


# What is shown


async def test_what_is_stored_stays_text_on_every_page(serve, browser: Browser):
    running = await serve(MEMORYD_CONTENT_POLICY="verbatim")
    site = Site(running, f"http://{running.server.http_address}")
    await fill(site, SCRIPT)
    page = await browser.new_page(base_url=site.origin)
    await enter(page, site)
    shown = 0
    async for path in crawl(page, site.origin):
        assert await page.evaluate("window.hit") is None, path
        assert not await page.locator("main img, main script").count(), path
        shown += "hit=1" in await page.locator("body").inner_text()
    assert shown >= 5


async def test_an_inline_script_does_not_run(page: Page):
    await page.evaluate(
        """() => {
            window.blocked = new Promise((resolve) =>
                addEventListener("securitypolicyviolation", (e) => resolve(e.effectiveDirective)));
            const script = document.createElement("script");
            script.textContent = "window.hit = 1";
            document.body.append(script);
        }"""
    )
    assert await page.evaluate("window.blocked") == "script-src-elem"
    assert await page.evaluate("window.hit") is None


async def test_no_request_leaves_the_host_and_no_page_breaks_the_policy(site: Site, page: Page):
    await fill(site, "prefers e-mail")
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    pages = [path async for path in crawl(page, site.origin)]
    assert len(pages) >= 8
    assert {url for url in asked if not url.startswith(f"{site.origin}/")} == set()
    assert said == []


async def test_every_answer_has_the_headers(signed_in, site: Site):
    await fill(site, "prefers e-mail")
    paths = ("/", "/sessions/ada", "/sign-in", "/sessions/none", "/sessions/ada/none")
    for path in (*paths, "/static/console.css", "/static/none"):
        headers = (await signed_in.get(path)).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert path.endswith(".css") or headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/vendor"]
)
async def test_only_static_files_are_served_as_such(signed_in, path: str):
    assert (await signed_in.get(path)).status == 404


async def test_a_session_outside_the_rules_is_not_there(guard, calling):
    site = await guard()
    async with site.memories() as memories:
        await memories.store("user-1", "fact")
        await memories.store("other-1", "fact")
    key = await site.new_key("operator", sessions=("user-*",))
    caller = await calling(site)
    await caller.post("/sign-in", form={"key": key.key})
    assert (await caller.get("/sessions/user-1")).ok
    assert "other-1" not in await (await caller.get("/")).text()
    there = await caller.get("/sessions/other-1")
    absent = await caller.get("/sessions/other-2")
    assert there.status == absent.status == 404
    texts = [
        re.sub(r"<code>.*?</code>|_token.*|x-csrf.*", "", await a.text()) for a in (there, absent)
    ]
    assert texts[0].replace("other-1", "other-2") == texts[1]
    events = await caller.get("/sessions/other-1/events?after=0")
    assert events.status == 404


async def controls(page: Page, origin: str, begin: str = "/") -> set[str]:
    """The paths that forms of any page post to."""
    found: set[str] = set()
    async for _ in crawl(page, origin, begin):
        found |= set(
            await page.eval_on_selector_all(
                "form[method=post]", "(forms) => forms.map((f) => f.getAttribute('action'))"
            )
        )
    return found


async def test_who_only_reads_sees_no_control(guard, browser: Browser):
    site = await guard()
    await fill(site, "prefers e-mail")
    key = await site.new_key("reader")
    page = await browser.new_page(base_url=site.origin)
    await enter(page, site, key.key)
    assert await controls(page, site.origin) == {"/sign-out"}
    assert await controls(page, site.origin, "/sessions/ada/purge?preview=1") == {"/sign-out"}


async def test_a_console_that_only_reads_has_no_control(serve, browser: Browser, calling):
    running = await serve(MEMORYD_CONSOLE="read-only")
    site = Site(running, f"http://{running.server.http_address}")
    await fill(site, "prefers e-mail")
    page = await browser.new_page(base_url=site.origin)
    await enter(page, site)
    assert await controls(page, site.origin) == {"/sign-out"}
    cookies = await page.context.cookies()
    caller = await calling(site)
    headers = {"cookie": f"{COOKIE}={cookies[0]['value']}"}
    text = await (await caller.get("/", headers=headers)).text()
    token = re.search(r'name="csrf_token" value="([^"]+)"', text)[1]
    form = {"memory_id": "x", "csrf_token": token}
    answer = await caller.post("/sessions/ada/undelete", form=form, headers=headers)
    assert answer.status == 403
    assert "only reads" in await answer.text()


async def test_a_page_is_counted_and_refused_as_calls_are(guard, calling):
    site = await guard()
    await fill(site, "prefers e-mail")
    key = await site.new_key("documents:read")
    caller = await calling(site)
    await caller.post("/sign-in", form={"key": key.key})
    answer = await caller.get("/")
    assert answer.status == 403
    assert "memories:read" in await answer.text()


# Where it is


HOSTILE = ("", "\0", "é" * 300, "x" * 5000, "../..", "9" * 30, "9" * 5000, "-1", "<script>", "%ff")


@pytest.mark.parametrize("value", HOSTILE)
async def test_what_nobody_means_is_refused(signed_in, site: Site, value: str):
    await fill(site, "prefers e-mail")
    within = quote(value, safe="")
    found = [
        *(f"/sessions/{within}", f"/sessions/{within}/purge?preview=1"),
        f"/sessions/ada/conversations/{within}",
        f"/sessions/{within}/events",
        *(f"/tools/{within}", f"/tools/escalation/revisions/{within}"),
    ]
    for path, names in {
        "/": ("prefix", "page"),
        "/sign-in": ("once", "after"),
        "/sessions/ada": ("show", "page"),
        "/sessions/ada/purge": ("preview", "type", "tags", "key_prefix", "before"),
        "/sessions/ada/document": ("key", "namespace"),
        "/sessions/ada/conversations/talk": ("page",),
        "/tools/escalation": ("page", "done"),
        "/erase": ("session_id",),
    }.items():
        found += [f"{path}?preview=1&{name}={within}" for name in names]
    for path in found:
        answer = await signed_in.get(path)
        assert answer.status < 500, path
    token = await token_of(signed_in)
    for path, names in {
        "/sessions/ada/undelete": ("memory_id",),
        "/sessions/ada/purge": ("type", "tags", "key_prefix", "before", "count"),
        "/tools/escalation/change": ("was:enabled", "etag", "reason"),
        "/tools/escalation/reset": ("path", "etag", "reason"),
        "/tools/escalation/revisions/1": ("etag", "reason"),
        "/erase": ("session_id", "typed"),
    }.items():
        for name in names:
            answer = await signed_in.post(path, form={name: value, "csrf_token": token})
            assert answer.status < 500, (path, name)


async def test_there_may_be_no_console(serve, calling):
    running = await serve(MEMORYD_CONSOLE="off")
    caller = await calling(Site(running, f"http://{running.server.http_address}"))
    for path in ("/", "/sign-in", "/static/console.css"):
        answer = await caller.get(path)
        assert (answer.status, answer.headers["content-type"]) == (404, "application/json")


async def test_what_is_no_page_is_answered_as_before(signed_in):
    for path in ("/none", "/livez/none", "/memoryd.v1.None/Of"):
        answer = await signed_in.get(path)
        assert (answer.status, answer.headers["content-type"]) == (404, "application/json")
    assert (await signed_in.get("/livez")).ok
    assert (await signed_in.get("/metrics")).ok


async def test_a_page_by_another_name_of_the_host_is_refused(signed_in):
    answer = await signed_in.get("/", headers={"host": "evil.example"})
    assert answer.status == 421


def test_nothing_is_loaded_until_a_page_is_asked_for():
    code = (
        "import sys, memoryd.server, memoryd.http.app, memoryd.cli.serve\n"
        "print([name for name in sys.modules if name.startswith('jinja2')"
        " or name == 'memoryd.console.app'])"
    )
    done = subprocess.run(  # noqa: S603  our own command
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
