"""How long a browser takes to paint a session of 1,000 memories in the console.

python benchmarks/console.py [--loads 10]

In Debian's chromium: the first byte of the page and the first contentful paint, in milliseconds
since the load began, as the browser has them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from playwright.async_api import async_playwright

from memoryd.client import MemoryClient

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORIES, SESSION = 1_000, "bench"
TIMES = """() => {
    const [page] = performance.getEntriesByType('navigation')
    const paint = performance.getEntriesByName('first-contentful-paint')[0]
    return paint ? [page.responseStart, paint.startTime] : null
}"""


@contextmanager
def served() -> Iterator[tuple[str, str]]:
    """The address of a new server, and the link to its console."""
    with tempfile.TemporaryDirectory() as folder:
        environ = os.environ | {
            "MEMORYD_PORT": "0",
            "MEMORYD_HTTP_PORT": "0",
            "MEMORYD_LOG_LEVEL": "warning",
        }
        environ |= {"MEMORY_MAX_ENTRIES": str(MEMORIES)}
        with subprocess.Popen(
            [sys.executable, "-m", "memoryd", "serve"],
            cwd=folder,
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            ready, _, console = [next(server.stdout or iter(())).split()[-1] for _ in range(3)]
            yield ready, console
            server.terminate()


async def measured(address: str, link: str, loads: int) -> list[tuple[float, float]]:
    async with MemoryClient(address) as memories:
        for first in range(0, MEMORIES, 100):
            await asyncio.gather(
                *(memories.store(SESSION, f"fact {n} " * 12) for n in range(first, first + 100))
            )
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = await browser.new_page()
        await page.goto(link)
        await page.get_by_role("button").first.click()
        found = []
        for _ in range(loads):
            await page.goto(f"{link.partition('/sign-in')[0]}/sessions/{SESSION}")
            while (times := await page.evaluate(TIMES)) is None:  # noqa: ASYNC110  no event tells
                await asyncio.sleep(0.05)
            found.append((times[0], times[1]))
        await browser.close()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loads", type=int, default=10)
    given = parser.parse_args()
    with served() as (address, link):
        found = asyncio.run(measured(address, link, given.loads))
    for name, times in zip(("first byte", "first paint"), zip(*found, strict=True), strict=True):
        print(
            f"{name}: first load {times[0]:.0f} ms, median {statistics.median(times):.0f},"
            f" longest {max(times):.0f}"
        )


if __name__ == "__main__":
    main()
