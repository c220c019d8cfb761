"""The inbox of the demo in a real browser."""

from __future__ import annotations

import shutil
import threading

import pytest
import uvicorn
from aiosmtpd.smtp import Envelope
from playwright.sync_api import sync_playwright

from examples.demo.inbox import Inbox
from examples.demo.inbox_page import inbox_app
from examples.storefront import rendering
from examples.storefront.mail import SmtpMailer
from examples.storefront.orders import PlacedItem, PlacedOrder
from examples.storefront.settings import Settings

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.fail("the browser tests need Chromium: `make test` installs it, or apt-get install chromium")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def served():
    inbox = Inbox()
    config = uvicorn.Config(inbox_app(inbox), port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield inbox, f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listener.close()


def receive(inbox: Inbox, recipient: str, product: str) -> None:
    """Put a confirmation into the inbox, the way it comes over SMTP."""
    order = PlacedOrder("order_" + "x" * 190, "EUR", [PlacedItem(product, 1, 1450)])
    envelope = Envelope()
    envelope.rcpt_tos = [recipient]
    envelope.content = SmtpMailer(Settings()).compose(rendering.purchase_confirmation(order, recipient, "riqle.example")).as_bytes()
    inbox.take(envelope)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_mails_show_up_by_themselves_and_can_be_read(browser, served, width, scheme):
    inbox, url = served
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    assert page.get_by_text("Nothing yet").is_visible()

    receive(inbox, "a" * 180 + "@example.test", "Mug <script>document.title='owned'</script>")
    page.get_by_role("heading", name="Inbox: 1 e-mail").wait_for(timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.get_by_role("link", name="Your order").click()

    mail = page.frame_locator("iframe")
    assert mail.get_by_text("We have your payment").is_visible()
    assert mail.get_by_text("Mug <script>").is_visible()
    assert page.locator("pre").get_by_text("14.50 EUR").first.is_visible()
    assert page.title().startswith("Your order")
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 23, 26)"
    assert dark == (scheme == "dark")
    assert problems == []
    page.close()
