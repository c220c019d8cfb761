"""B3, B6 and B7 as a merchant sees them, in a real browser."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

from running_catalogue import NOORA, RunningCatalogue, running_catalogue_process

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.browser]
expect.set_options(timeout=60_000)  # the machine may be busy with other tests


@pytest.fixture
async def catalogue(tmp_path) -> AsyncIterator[RunningCatalogue]:
    async with running_catalogue_process(tmp_path) as made:
        yield made


@pytest.fixture(params=[1280, 390])
async def page(request, catalogue) -> AsyncIterator[Page]:
    """A page of somebody who is logged in."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.fail("the browser tests need Chromium: `make test` installs it, or apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        made = await browser.new_page(viewport={"width": request.param, "height": 800})
        made.set_default_timeout(60_000)
        problems: list[str] = []
        made.on("pageerror", lambda error: problems.append(str(error)))
        made.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
        await made.goto(f"{catalogue.process.url}/import")
        await made.get_by_label("E-mail address").fill(NOORA[0])
        await made.get_by_label("Password").fill(NOORA[1])
        await made.get_by_role("button", name="Log in").click()
        await expect(made.get_by_role("heading", name="Import a product")).to_be_visible()
        yield made
        assert problems == []
        await browser.close()


async def submit(page: Page, text: str) -> None:
    field = page.get_by_label("Address of the product's page")
    await field.fill(text)
    await page.get_by_role("button", name="Import").click()


async def scraping(page: Page) -> None:
    """The status page is there with its script, which a kill right after the heading would leave unloaded."""
    await expect(page.get_by_role("heading", name="Scraping product...")).to_be_visible()
    await page.wait_for_load_state("load")


async def fits(page: Page, name: str, tmp_path: Path) -> None:
    """Nothing sticks out to the side; the picture is kept beside the test's other files."""
    await page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
    assert await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


async def test_b3_b7_from_the_form_over_the_status_to_the_product(page, catalogue, tmp_path):
    answered = catalogue.outside.shop.holding = asyncio.Event()
    await fits(page, "import", tmp_path)
    await submit(page, "https://example.com/oud")
    await expect(page.get_by_role("alert")).to_contain_text("Products from example.com can't be imported.")
    await expect(page.get_by_label("Address of the product's page")).to_have_value("https://example.com/oud")
    await fits(page, "refused", tmp_path)

    await submit(page, f"{catalogue.shop_url}/slow")
    await expect(page.get_by_role("heading", name="Scraping product...")).to_be_visible()
    await expect(page.get_by_role("progressbar")).to_be_visible()
    await expect(page.get_by_text("Asking the shop for its page")).to_be_visible()  # pushed, not polled
    await expect(page.get_by_role("progressbar")).to_have_js_property("value", 0.1)
    assert "/import/status/product_" in page.url
    await fits(page, "scraping", tmp_path)
    answered.set()
    await page.wait_for_url("**/products/product_*")
    await expect(page.get_by_role("heading", name="Royal Oud, 12 ml")).to_be_visible()
    picture = page.get_by_role("img", name="Royal Oud, 12 ml, 1 of 1")
    await expect(picture).to_be_visible()
    assert await picture.evaluate("image => image.complete && image.naturalWidth > 0")
    await fits(page, "product", tmp_path)

    for path in ("/lamp", "/vase", "/rug", "/photo", "/about"):
        await page.goto(f"{catalogue.process.url}/import")
        await submit(page, catalogue.shop_url + path)
        await expect(page.get_by_text("Imported from").or_(page.get_by_text("The import failed"))).to_be_visible(timeout=60_000)
    await page.goto(catalogue.process.url)
    await expect(page.get_by_role("listitem")).to_have_count(6)
    await fits(page, "products", tmp_path)


async def test_b7_failure_retry_success_with_a_double_click(page, catalogue, tmp_path):
    catalogue.outside.shop.gone.add("/oud")
    await submit(page, f"{catalogue.shop_url}/oud")
    await expect(page.get_by_role("heading", name="The import failed")).to_be_visible(timeout=60_000)
    await expect(page.get_by_role("alert")).to_have_text("the page does not exist (the shop answered 404)")
    await fits(page, "failed", tmp_path)
    assert "/import/status/" in page.url
    catalogue.outside.shop.gone.clear()
    catalogue.outside.shop.requests.clear()
    await page.get_by_role("button", name="Try again").dblclick()
    await page.wait_for_url("**/products/product_*")
    await expect(page.get_by_role("heading", name="Royal Oud, 12 ml")).to_be_visible()
    assert catalogue.outside.shop.requests["/oud"] == 1
    assert len(await catalogue.api.events("product/scrape.requested")) == 2


async def test_b7_a_lost_connection_is_said_and_overcome(page, catalogue):
    answered = catalogue.outside.shop.holding = asyncio.Event()
    await submit(page, f"{catalogue.shop_url}/slow")
    await scraping(page)
    await catalogue.process.kill()
    await expect(page.get_by_text("The connection is lost. Trying again...")).to_be_visible(timeout=60_000)
    answered.set()
    await catalogue.process.start()
    await page.wait_for_url("**/products/product_*")


async def test_b7_a_server_that_says_nothing_is_a_lost_connection(page, catalogue):
    answered = catalogue.outside.shop.holding = asyncio.Event()
    await submit(page, f"{catalogue.shop_url}/slow")
    await scraping(page)
    os.kill(catalogue.process.pid, signal.SIGSTOP)
    try:
        await expect(page.get_by_text("The connection is lost. Trying again...")).to_be_visible(timeout=60_000)
    finally:
        os.kill(catalogue.process.pid, signal.SIGCONT)
    answered.set()
    await page.wait_for_url("**/products/product_*")
