"""What somebody without a mouse does."""

from __future__ import annotations

from playwright.async_api import Locator, Page

IS_FOCUSED = "(element) => element === document.activeElement"


async def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until the focus is there."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        if await target.evaluate(IS_FOCUSED):
            return
    raise AssertionError(f"{target} is not reached")
