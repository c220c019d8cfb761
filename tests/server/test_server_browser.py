"""The server's own pages in a real browser, under their content security policy."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, async_playwright
from server_kit import PRODUCTION, SIGNING_KEY, Start

pytestmark = [pytest.mark.anyio, pytest.mark.browser]

ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGS)
        yield browser
        await browser.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
async def test_logging_in_and_out(start: Start, browser: Browser, width, scheme):
    async with start(**PRODUCTION) as server:
        context = await browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = await context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))

        async def fits() -> bool:
            widths = await page.evaluate(
                "[document.scrollingElement.scrollWidth, document.scrollingElement.clientWidth]"
            )
            return widths[0] <= widths[1]

        await page.goto(f"{server.http.base_url}/docs")
        assert page.url.endswith("/login?next=/docs")
        assert await fits()
        background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(19, 20, 22)") == (scheme == "dark")
        await page.get_by_label("Signing key").fill("wrong")
        await page.get_by_role("button", name="Log in").click()
        assert "not the signing key of this server" in await page.get_by_role("alert").inner_text()
        await page.get_by_label("Signing key").fill(SIGNING_KEY)
        await page.get_by_role("button", name="Log in").click()
        await page.wait_for_url("**/docs")
        assert await page.get_by_role("heading", name="HTTP API").is_visible()
        assert await fits()
        await page.goto(f"{server.http.base_url}/runs")
        assert page.url.endswith("/runs")
        await page.goto(f"{server.http.base_url}/logout")
        await page.get_by_role("button", name="Log out").click()
        await page.wait_for_url("**/login")
        await page.goto(f"{server.http.base_url}/runs")
        assert page.url.endswith("/login?next=/runs")
        # Chromium reports the refused login itself; nothing else may be reported
        assert [text for text in complaints if "401" not in text] == []
        await context.close()
