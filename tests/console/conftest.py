"""A server with its console, a browser that looks at it, and a plain caller of its pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

import pytest
from playwright.async_api import APIRequestContext, Browser, Page, Playwright, async_playwright
from tests.browsers import launched
from tests.conftest import Running

from memoryd.access.api_key import new_key
from memoryd.client import AccessClient, MemoryClient
from memoryd.client.answers import CreateApiKeyResponse


@pytest.fixture
def database_kind() -> str:
    """SQLite only: what differs here are the pages."""
    return "sqlite"


@dataclass
class Site:
    """A server, and where its console is."""

    running: Running
    origin: str
    key: str = ""
    """What signs in, and may do all but administer; empty where the link does."""
    admin: str = ""
    """What makes keys."""

    @property
    def link(self) -> str:
        """Where the console is entered."""
        return f"{self.origin}{self.running.server.console_path}"

    def memories(self, key: str | None = None) -> MemoryClient:
        """A client, to store what pages show."""
        key = self.key if key is None else key
        metadata = {"authorization": f"Bearer {key}"} if key else None
        return MemoryClient(channel=self.running.channel, metadata=metadata)

    def access(self) -> AccessClient:
        return AccessClient(
            channel=self.running.channel, metadata={"authorization": f"Bearer {self.admin}"}
        )

    async def new_key(self, *scopes: str, sessions: tuple[str, ...] = ()) -> CreateApiKeyResponse:
        """A key of the same tenant."""
        return await self.access().create_key("another", scopes, sessions=sessions)


@pytest.fixture
async def site(serve: Callable[..., Awaitable[Running]]) -> Site:
    """A server that asks for no key."""
    running = await serve()
    return Site(running, f"http://{running.server.http_address}")


@pytest.fixture
def guard(serve: Callable[..., Awaitable[Running]]) -> Callable[..., Awaitable[Site]]:
    """Start a server that asks for a key; keyword arguments are variables."""

    async def start(**variables: str) -> Site:
        key = new_key().text
        required = {"MEMORYD_AUTH": "required", "MEMORYD_BOOTSTRAP_KEY": "env://BOOTSTRAP"}
        running = await serve(**{**required, "BOOTSTRAP": key, **variables})
        site = Site(running, f"http://{running.server.http_address}", admin=key)
        return replace(site, key=(await site.new_key("operator")).key)

    return start


@pytest.fixture
async def playwright() -> AsyncIterator[Playwright]:
    async with async_playwright() as playwright:
        yield playwright


@pytest.fixture
async def browser(playwright: Playwright) -> AsyncIterator[Browser]:
    async with launched(playwright) as browser:
        yield browser


@pytest.fixture
async def page(browser: Browser, site: Site) -> Page:
    """A page of the console, by somebody who has signed in."""
    page = await browser.new_page(viewport={"width": 1280, "height": 800}, base_url=site.origin)
    await enter(page, site)
    return page


async def enter(page: Page, site: Site, key: str = "") -> None:
    """Sign in, with the key of the site unless another is given."""
    await page.goto(site.link)
    if site.key:
        await page.get_by_label("API key").fill(key or site.key)
        await page.get_by_role("button", name="Sign in").click()
    else:
        await page.get_by_role("button", name="Open the console").click()
    await page.wait_for_url(f"{site.origin}/")


Call = Callable[[Site | str], Awaitable[APIRequestContext]]


@pytest.fixture
async def calling(playwright: Playwright) -> AsyncIterator[Call]:
    """Make callers who ask for pages of a site or an origin without a browser, and keep cookies."""
    contexts: list[APIRequestContext] = []

    async def call(site: Site | str) -> APIRequestContext:
        origin = site if isinstance(site, str) else site.origin
        context = await playwright.request.new_context(
            base_url=origin, extra_http_headers={"origin": origin}
        )
        contexts.append(context)
        return context

    yield call
    for context in contexts:
        await context.dispose()


@pytest.fixture
async def caller(calling: Call, site: Site) -> APIRequestContext:
    """One who has not signed in."""
    return await calling(site)


@pytest.fixture
async def signed_in(caller: APIRequestContext, site: Site) -> APIRequestContext:
    """The same, signed in."""
    answer = await caller.post("/sign-in", form={"once": site.link.partition("once=")[2]})
    assert answer.ok, await answer.text()
    return caller
