"""A server to call, and a browser with pages to call it from."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.async_api import Browser, Page, async_playwright
from tests.browsers import launched

from .programs import built


@pytest.fixture
def database_kind() -> str:
    """SQLite only: what differs here are the callers."""
    return "sqlite"


class _Page(BaseHTTPRequestHandler):
    """A page with the bundle of the clients."""

    def do_GET(self) -> None:
        files = {
            "/": (
                "text/html",
                b"<!doctype html><title>a page</title><script src=page.js></script>",
            ),
            "/page.js": ("text/javascript", built("page.js").read_bytes()),
        }
        kind, content = files.get(self.path, ("text/plain", b""))
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
        pass


@pytest.fixture
def origin() -> Iterator[str]:
    """The origin of a page that has the clients, and nothing to do with memoryd."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright, launched(playwright) as browser:
        yield browser


@pytest.fixture
async def page(browser: Browser, origin: str) -> Page:
    """A page of `origin`, with the clients."""
    page = await browser.new_page()
    await page.goto(origin)
    return page
