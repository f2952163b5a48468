"""Goes to every page that others link to, as somebody would who clicks on everything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from playwright.async_api import Page

from memoryd.client import ConversationClient, DocumentClient, Put, SessionClient, ToolConfigClient

from .conftest import Site


async def fill(site: Site, content: str) -> None:
    """Store a text wherever a page may show it."""
    metadata = {"authorization": f"Bearer {site.key}"} if site.key else None
    given = {"channel": site.running.channel, "metadata": metadata}
    async with site.memories() as memories:
        await memories.store("ada", content, tags=[content], metadata={content: content})
        gone = await memories.store("ada", f"gone {content}")
        await memories.delete("ada", gone.memory.memory_id)
    await SessionClient(**given).update("ada", display_name=content, labels={"label": content})
    await DocumentClient(**given).put(
        "ada", Put(content, [content], text=content, labels={"label": content})
    )
    await ToolConfigClient(**given).update(
        "escalation", {"keywords": {content: 0.5}}, reason=content
    )
    conversations = ConversationClient(**given)
    await conversations.create("ada", "talk", display_name=content)
    await conversations.append("ada", "talk", user=content)


async def crawl(page: Page, origin: str, begin: str = "/") -> AsyncIterator[str]:
    """Give the paths, each once `page` shows it."""
    seen: list[str] = []
    waiting = [begin]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.append(path)
        answer = await page.goto(path)
        assert answer is not None
        assert answer.ok, f"{path}: {answer.status}"
        yield path
        links = await page.eval_on_selector_all("a[href]", "(links) => links.map((a) => a.href)")
        for link in links:
            parts = urlsplit(link)
            assert f"{parts.scheme}://{parts.netloc}" == origin, link
            waiting.append(parts._replace(scheme="", netloc="", fragment="").geturl())
