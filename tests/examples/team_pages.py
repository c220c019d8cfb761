"""What the browser tests of pages for a team share."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

PATIENCE_MS = 60_000
_WIDE, _NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 800}


@asynccontextmanager
async def browsing() -> AsyncIterator[Page]:
    """A page; in the end nothing may have complained."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.fail("the browser tests need Chromium: `make test` installs it, or apt-get install chromium")
    expect.set_options(timeout=PATIENCE_MS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page(viewport=_WIDE)
        page.set_default_timeout(PATIENCE_MS)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
        yield page
        assert problems == []
        await browser.close()


async def fits(page: Page, name: str, folder: Path) -> None:
    """On a wide and a narrow screen nothing sticks out to the side, and everything to fill in has a name.

    The pictures are kept beside the test's other files.
    """
    for size in (_NARROW, _WIDE):
        await page.set_viewport_size(size)
        await page.screenshot(path=folder / f"{name}-{size['width']}.png", full_page=True)
        assert await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    unnamed = "[...document.querySelectorAll('input:not([type=hidden]), textarea, select')].filter(one => !one.labels.length).length"
    assert await page.evaluate(unnamed) == 0
