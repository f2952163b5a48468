"""Make the pictures of `docs/console.md`, of a server with made-up data.

python docs/screenshots.py FOLDER
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.async_api import Page, async_playwright, expect

from memoryd.client import (
    ConversationClient,
    DocumentClient,
    MemoryClient,
    Put,
    ToolConfigClient,
    open_channel,
)
from memoryd.server import Server
from memoryd.tools.secrets import Secrets
from memoryd.tools.settings import load_configuration

if TYPE_CHECKING:
    from collections.abc import Iterator

ADA = "customer:ada"

PAGES = {
    "sessions": "/",
    "session": f"/sessions/{ADA}",
    "deleted": f"/sessions/{ADA}?show=deleted",
    "conversation": f"/sessions/{ADA}/conversations/order-4711",
    "recall": f"/recall?session={ADA}&query=E-mail+or+phone+calls%3F",
    "purge": f"/sessions/{ADA}/purge?type=context&preview=1",
    "tools": "/tools",
    "tool": "/tools/rag",
    "revision": "/tools/rag/revisions/1",
    "erase": f"/erase?session_id={ADA}",
}
"""What is shown, by the names of the pictures."""

LOOKS = {"": (1280, 800, "light"), "-phone": (390, 844, "dark")}
"""Width, height and colours, by the ends of the names."""

MEMORIES = (
    (
        "Prefers e-mail to phone calls, since she is in meetings until late",
        "preference",
        0.8,
        "contact",
    ),
    ("Lives in Riga, Latvia", "user_info", 0.9, "home"),
    ("Order 4711 is on its way and arrives on Thursday", "fact", 0.6, "order"),
    ("Has a cat that is called Minka", "user_info", 0.4, ""),
    ("Asked how long returns are free of charge", "context", 0.3, "order"),
)


class Clock:
    """One that is moved."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC) - timedelta(days=12)

    def __call__(self) -> datetime:
        return self.now


async def fill_earlier(folder: str) -> str:
    """Store what has a past, and give the path of its page."""
    environ = {
        "MEMORYD_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/memoryd.db",
        "MEMORYD_PORT": "0",
        "MEMORYD_HTTP_PORT": "off",
    }
    settings, tools = load_configuration(environ=environ, dotenv=None, flags={})
    clock = Clock()
    server = Server(settings, tools, Secrets.built_in(environ), clock=clock)
    target = await server.start()
    async with MemoryClient(target, timeout=60) as memories:
        given = {"content_type": "preference", "ttl": timedelta(days=45)}
        first = "Prefers e-mail to phone calls, since she is in meetings"
        stored = await memories.store(ADA, first, importance=0.9, tags=["phone"], **given)
        alike = "Prefers e-mails to phone calls, since she is in meetings until late"
        await memories.store(ADA, alike, importance=0.5, **given)
        clock.now += timedelta(days=5)
        for _ in range(4):
            await memories.retrieve(ADA, "How do I reach her?")
        change = {"content": MEMORIES[0][0], "importance": 0.7, "tags": ["contact"]}
        await memories.update(ADA, stored.memory.memory_id, **change)
    await server.stop()
    return f"/sessions/{ADA}/memories/{stored.memory.memory_id}"


@contextmanager
def served(folder: str) -> Iterator[tuple[str, str]]:
    """Where a new server is, and the link to its console."""
    environ = os.environ | {
        "MEMORYD_PORT": "0",
        "MEMORYD_HTTP_PORT": "0",
        "MEMORYD_AUDIT": "changes",
    }
    command = [Path(sys.executable).parent / "memoryd", "serve"]
    with subprocess.Popen(  # noqa: S603  our own command
        command, cwd=folder, env=environ, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        ready, _, console = [next(server.stdout or iter(())).split()[-1] for _ in range(3)]
        yield ready, console
        server.terminate()


async def fill(target: str) -> None:
    async with open_channel(target) as channel:
        memories = MemoryClient(channel=channel)
        for content, kind, importance, tag in MEMORIES:
            await memories.store(
                ADA, content, content_type=kind, importance=importance, tags=[tag] if tag else ()
            )
        gone = await memories.store(ADA, "Wants a refund for order 4711", content_type="context")
        await memories.delete(ADA, gone.memory.memory_id)
        for name, content in (("bob", "Speaks Finnish"), ("chen", "Pays by invoice")):
            await memories.store(f"customer:{name}", content, content_type="fact")
        conversations = ConversationClient(channel=channel)
        await conversations.create(ADA, "order-4711", display_name="Where is my order?")
        await conversations.append(
            ADA,
            "order-4711",
            user="Where is my order 4711?",
            assistant="It has left our warehouse, and arrives on Thursday.",
        )
        await conversations.append(ADA, "order-4711", user="Please tell me by e-mail when it has.")
        tools = ToolConfigClient(channel=channel)
        await tools.update("rag", {"search_k": 8}, reason="Answers were thin")
        wider = {"search_k": 12, "similarity_threshold": 0.6}
        await tools.update("rag", wider, reason="A trial until the end of March")
        await tools.update("escalation", {"keywords": {"refund": 0.9, "urgent": 1.0}})
        documents = DocumentClient(channel=channel)
        await documents.put(ADA, Put("profile", ["crm"], json='{"tier": "gold"}'))


async def shoot(page: Page, folder: Path) -> None:
    for name, path in PAGES.items():
        await page.goto(path)
        await take(page, folder, name)
    await page.goto("/tools/rag")
    await page.get_by_role("textbox", name="search_k", exact=True).fill("10")
    await page.get_by_label("Reason, kept").fill("The trial is over")
    await page.get_by_role("button", name="Preview").click()
    await take(page, folder, "preview")
    await page.goto(PAGES["erase"])
    await page.get_by_label("To confirm").fill(ADA)
    await page.get_by_role("button", name="Erase for good").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Erased")
    await take(page, folder, "receipt")


async def take(page: Page, folder: Path, name: str) -> None:
    """Take the pictures of what a page shows."""
    for end, (width, height, scheme) in LOOKS.items():
        await page.set_viewport_size({"width": width, "height": height})
        await page.emulate_media(color_scheme=scheme)
        if await page.locator(".live").count():  # which it says a moment later
            await expect(page.locator(".live")).to_have_text("Live")
        await page.screenshot(path=folder / f"{name}{end}.png")


async def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as database:
        PAGES["memory"] = await fill_earlier(database)
        with served(database) as (target, link):
            await fill(target)
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                page = await browser.new_page(base_url=link.partition("/sign-in")[0])
                await page.goto(link)
                await page.get_by_role("button", name="Open the console").click()
                await page.wait_for_url("**/")
                await shoot(page, folder)
                await browser.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
