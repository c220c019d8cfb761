"""Flow control in a real browser: both schemes and widths, following what happens, asking before a pause."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dashboard_kit import Shop, shop
from flow_kit import fill, make_flow_app
from playwright.sync_api import expect
from test_browser import SCREENSHOTS, browser, opened, overflow, stayed

__all__ = ["browser", "opened"]
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with shop(tmp_path_factory.mktemp("store") / "shop.db", make_flow_app) as server:
        server.named = fill(server)
        server.call(server.app.set_limit("send-mail", "throttle", 2))
        yield server


def places(running: Shop) -> dict[str, str]:
    named = running.named
    return {
        "flow": "/flow", "queue": "/queue", "flow-functions": "/functions", "flow-function": "/functions/shop-import-catalogue", "flow-debounce": "/functions/shop-sync-contacts",
        "flow-report": "/functions/shop-weekly-report", "flow-paused": "/functions/shop-paused-one", "flow-mail": "/functions/shop-send-mail",
        "flow-events": "/events", "flow-event-waits": f"/events/{named['debounced']}", "flow-event-refused": f"/events/{named['rate-limited']}",
        "flow-event-batch": f"/events/{named['batched']}", "flow-event-nobody": f"/events/{named['nobody']}",
        "flow-run-waits": f"/runs/{named['in-line']}", "flow-run-timed": f"/runs/{named['timed']}", "flow-run-long": f"/runs/{named['long']}",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_each_page_in_both_schemes_and_widths(opened, running: Shop, scheme: str, width: int):
    SCREENSHOTS.mkdir(exist_ok=True)
    page = opened("/flow", width=width, scheme=scheme)
    wide = []
    for where, path in places(running).items():
        page.goto(running.url + path)
        expect(page.locator("#live")).to_have_attribute("data-state", "on")
        if overflow(page) > 0:
            wide.append(f"{where}: {overflow(page)} px too wide")
        page.screenshot(path=SCREENSHOTS / f"{where}-{scheme}-{width}.png", full_page=True)
    assert wide == []


def test_pausing_asks_first_and_the_page_follows(opened, running: Shop):
    page = opened("/functions/shop-plain")
    page.get_by_role("button", name="Pause").click()
    dialog = page.locator("dialog[open]")
    expect(dialog).to_contain_text("Its runs wait in their queue until it is resumed")
    dialog.get_by_role("button", name="Pause").click()
    expect(page.locator(".head .tag")).to_have_text("paused")
    run = running.send("flow/plain")
    expect(page.locator("#flow .card-head")).to_contain_text("1 in line")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".head .tag")).to_have_count(0)
    running.end(run)
    expect(page.locator("#flow .card-head")).to_contain_text("0 in line")
    assert stayed(page)


def test_a_limit_is_changed_where_it_stands(opened, running: Shop):
    page = opened("/flow")
    card = page.locator(".flow", has_text="Send mail")
    card.get_by_text("Change", exact=True).click()
    card.get_by_label("New limit of throttle").fill("9")
    running.call(running.app.send({"name": "flow/nobody-listens", "data": {}}))
    card.get_by_role("button", name="Set").click()
    expect(page.locator("#said")).to_contain_text("Throttle is 9 now.")
    expect(card).to_contain_text("9 starts in 1h")
    card.get_by_role("button", name="Back to 1").click()
    expect(card).to_contain_text("1 start in 1h")
    assert stayed(page)


def test_a_debounced_event_is_flushed_on_its_page(opened, running: Shop):
    async def send() -> str:
        return (await running.app.send({"name": "flow/sync", "data": {"who": "by-hand"}})).id

    page = opened(f"/events/{running.call(send())}")
    page.get_by_role("button", name="Flush").click()
    expect(page.locator("#said")).to_contain_text("Started 1 run.")
    expect(page.locator("main")).to_contain_text("Sync contacts")
    expect(page.locator("main")).not_to_contain_text("Waiting to start")


def test_the_page_of_a_run_follows_its_place_in_line(opened, running: Shop):
    waiting = [running.send("flow/work", {"who": "follows"}) for _ in range(2)]
    page = opened(f"/runs/{waiting[1]}")
    expect(page.locator(".standing")).to_contain_text("2nd in line")
    running.call(running.engine.cancel(waiting[0]))
    expect(page.locator(".standing")).to_contain_text("1st in line")
    assert stayed(page)


def test_keys_lead_to_it_and_without_scripts_it_works(opened, running: Shop):
    page = opened("/")
    page.keyboard.press("g")
    page.keyboard.press("l")
    expect(page.locator("h1")).to_have_text("Flow control")
    plain = opened("/flow", live=False, java_script_enabled=False)
    card = plain.locator(".flow", has_text="Write metrics")
    card.get_by_role("button", name="Flush").click()
    expect(plain.locator("#said")).to_contain_text("Started 1 run.")
    plain.locator(".flow", has_text="Paused one").get_by_role("button", name="Resume").click()
    expect(plain.locator("#said")).to_contain_text("Resumed.")
