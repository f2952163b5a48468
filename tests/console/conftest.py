"""A server with its console, a browser that looks at it, and a plain caller of its pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
from playwright.async_api import APIRequestContext, Browser, Page, Playwright, async_playwright
from tests.browsers import launched
from tests.conftest import Running

from memoryd.client import AccessClient, MemoryClient


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
    """What signs in; empty where the link does."""

    @property
    def link(self) -> str:
        """Where the console is entered."""
        return f"{self.origin}{self.running.server.console_path}"

    def memories(self, key: str | None = None) -> MemoryClient:
        """A client, to store what pages show."""
        key = self.key if key is None else key
        metadata = {"authorization": f"Bearer {key}"} if key else None
        return MemoryClient(channel=self.running.channel, metadata=metadata)

    async def new_key(self, *scopes: str, sessions: tuple[str, ...] = ()) -> str:
        """A key of the same tenant."""
        metadata = {"authorization": f"Bearer {self.key}"}
        access = AccessClient(channel=self.running.channel, metadata=metadata)
        return (await access.create_key("another", scopes, sessions=sessions)).key


@pytest.fixture
async def site(serve: Callable[..., Awaitable[Running]]) -> Site:
    """A server that asks for no key."""
    running = await serve()
    return Site(running, f"http://{running.server.http_address}")


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
    await page.goto(site.link)
    await page.get_by_role("button", name="Open the console").click()
    await page.wait_for_url(f"{site.origin}/")
    return page


@pytest.fixture
async def caller(playwright: Playwright, site: Site) -> AsyncIterator[APIRequestContext]:
    """Who asks for pages without a browser, and keeps cookies: not signed in."""
    context = await playwright.request.new_context(
        base_url=site.origin, extra_http_headers={"origin": site.origin}
    )
    yield context
    await context.dispose()


@pytest.fixture
async def signed_in(caller: APIRequestContext, site: Site) -> APIRequestContext:
    """The same, signed in."""
    once = site.link.partition("once=")[2]
    answer = await caller.post("/sign-in", form={"once": once})
    assert answer.ok, await answer.text()
    return caller
