"""P6: the dashboard in a real browser: every page in both schemes and at both widths, live updating, keys, and without scripts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dashboard_kit import EVIL, LONG_EVENT, LONG_ID, LONG_STEP, Shop, shop
from holdfast.base.ids import ulid_bytes
from holdfast.dashboard import humanize
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

pytestmark = pytest.mark.browser

expect.set_options(timeout=60_000)  # the machine may be busy with other tests
SCREENSHOTS = Path(__file__).parents[2] / "screenshots"
CHROMIUM = os.environ.get("HOLDFAST_TEST_CHROMIUM", "/usr/bin/chromium")
ARGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop in which everything has happened at least once."""
    with shop(tmp_path_factory.mktemp("store") / "shop.db") as server:
        for order in ("o1", "o2", "flaky", "declined", "later"):
            server.send("shop/order.paid", {"order_id": order}, event_id=f"payment-{order}")
        server.send("shop/order.paid", {"order_id": "o1"}, event_id="payment-o1")
        server.named = {
            "many": server.send("test/many"), "long": server.send(LONG_EVENT, {"value": "v" * 3000}), "evil": server.send(EVIL),
            "sleeper": server.send("test/sleep"), "held": server.send("test/hold", {"gate": "always"}), "telling": server.send("test/tell", {"gate": "always"}),
            "waits": server.send("shop/order.paid", {"order_id": "waits"}), "later": server.send("shop/order.paid", {"order_id": "later"}),
            "done": server.send("shop/order.paid", {"order_id": "done"}), "hello": server.send("test/hello", {"n": 1}),
            "flaky": server.send("shop/order.paid", {"order_id": "flaky-again"}), "dead": server.send("shop/order.paid", {"order_id": "declined"}),
        }
        for name in ("many", "long", "evil", "dead"):
            server.end(server.named[name])
        server.until(server.named["done"], lambda d: any(s.kind == "wait_event" for s in d.steps))
        server.send("shop/order.shipped", {"order_id": "done"})
        server.end(server.named["done"])
        server.until(server.named["later"], lambda d: any(s.attempts for s in d.steps))
        letter = server.call(server.engine.reader.dead_letter(server.named["dead"]))
        server.named["fingerprint"] = letter.fingerprint
        bulk = server.engine.bulk
        server.named["bulk-done"] = server.call(bulk("redrive", {"ids": [server.named["done"]]}))
        # of an hour it is half done, whatever the test does meanwhile
        naps = [server.send("test/sleep") for _ in range(4)]
        server.named["bulk-running"] = server.call(bulk("cancel", {"ids": naps}, rate="1/h"))
        yield server


@pytest.fixture
def opened(browser: Browser, running: Shop) -> Iterator[Callable[..., Page]]:
    """Opens pages, and fails the test in the end if one of them complained."""
    complaints: list[str] = []
    contexts: list[BrowserContext] = []

    def open_page(path: str, *, width: int = 1280, scheme: str = "light", live: bool = True, **options: object) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"{path}: {message.text}") if message.type in {"error", "warning"} and not re.search(r"400 \(Bad Request\)|ERR_FAILED", message.text) else None)
        page.on("pageerror", lambda error: complaints.append(f"{path}: {error}"))
        page.on("dialog", lambda dialog: complaints.append(f"{path}: alert {dialog.message}"))
        page.goto(running.url + path)
        if live:
            expect(page.locator("#live")).to_have_attribute("data-state", "on")
            page.evaluate("window.notReloaded = true")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def stayed(page: Page) -> bool:
    """Whether the document is the one that was opened."""
    return page.evaluate("window.notReloaded === true")


def overflow(page: Page) -> int:
    return page.evaluate("document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth")


def places(running: Shop) -> dict[str, str]:
    named = running.named
    return {
        "home": "/", "home-hour": "/?period=1h", "runs": "/runs", "runs-failed": "/runs?status=FAILED", "runs-nothing": "/runs?function=nothing",
        "events": "/events", "event": "/events?name=shop/order.paid", "send": "/events/send?name=shop/order.paid", "functions": "/functions",
        "function": "/functions/shop-fulfil", "function-long": f"/functions/shop-{LONG_ID}", "dead-letters": "/dead-letters",
        "crons": "/crons", "apps": "/apps", "audit": "/audit", "not-found": "/runs/nothing",
        "run-done": f"/runs/{named['done']}", "run-dead": f"/runs/{named['dead']}?step=charge", "run-waits": f"/runs/{named['waits']}",
        "run-later": f"/runs/{named['later']}?step=charge", "run-many": f"/runs/{named['many']}", "run-long": f"/runs/{named['long']}?step={LONG_STEP}",
        "run-long-whole": f"/runs/{named['long']}", "run-evil": f"/runs/{named['evil']}", "run-flaky": f"/runs/{named['flaky']}?step=charge",
        "bulks": "/bulk", "bulk-running": f"/bulk/{named['bulk-running']}", "bulk-done": f"/bulk/{named['bulk-done']}",
        "edit": f"/runs/{named['dead']}/edit?step=charge", "redrive": f"/runs/{named['dead']}/edit?redrive=yes",
        "edit-long": f"/runs/{named['long']}/edit?step={LONG_STEP}", "edit-many": f"/runs/{named['many']}/edit?step=step-0500",
        "letters-group": f"/dead-letters?fingerprint={named['fingerprint']}",
        "run-telling": f"/runs/{named['telling']}", "run-held": f"/runs/{named['held']}?step=held%20step", "run-sleeper": f"/runs/{named['sleeper']}", "run-many-all": f"/runs/{named['many']}?show=all&history=all",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_each_page_in_both_schemes_and_widths(browser: Browser, running: Shop, scheme: str, width: int):
    SCREENSHOTS.mkdir(exist_ok=True)
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    complaints: list[str] = []
    where = ""
    page.on("console", lambda m: complaints.append(f"{where}: {m.text}") if m.type in {"error", "warning"} and not ("404" in m.text and where == "not-found") else None)
    page.on("pageerror", lambda error: complaints.append(f"{where}: {error}"))
    wide: list[str] = []
    for where, path in places(running).items():
        page.goto(running.url + path)
        expect(page.locator("#live")).to_have_attribute("data-state", "on")
        if overflow(page) > 0:
            wide.append(f"{where}: {overflow(page)} px too wide")
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", dark)[:3])) < 200) == (scheme == "dark"), f"{where} is not {scheme}: {dark}"
        if where != "run-many-all":
            page.screenshot(path=SCREENSHOTS / f"{where}-{scheme}-{width}.png", full_page=width < 600 and where not in {"run-many"})
    context.close()
    assert wide == []
    assert complaints == []


def test_a_run_appears_and_completes_without_a_reload(opened, running: Shop):
    page = opened("/runs")
    run = running.send("test/hold", {"gate": "live"})
    row = page.locator(f"#run-{run}")
    expect(row).to_contain_text("Running")
    running.let_go("live")
    expect(row).to_contain_text("Completed")
    assert stayed(page)


def test_the_page_of_a_run_follows_it(opened, running: Shop):
    run = running.send("shop/order.paid", {"order_id": "followed"})
    page = opened(f"/runs/{run}")
    expect(page.locator(".standing")).to_contain_text("Waits in 'shipped' for event shop/order.shipped")
    page.locator("#history summary").click()
    running.send("shop/order.shipped", {"order_id": "followed"})
    expect(page.locator(".head .badge")).to_have_text("Completed")
    expect(page.locator(".wf-row", has_text="receipt")).to_be_visible()
    expect(page.locator("#panel")).to_contain_text("receipt for followed")
    expect(page.locator("#history")).to_have_attribute("open", "")
    assert stayed(page)


def test_what_a_run_says_of_its_progress_comes_by_itself(opened, running: Shop):
    run_id = running.send("test/hold", {"gate": "quiet"})
    page = opened(f"/runs/{run_id}")
    running.call(_say(running, run_id, 0.75, "three quarters"))
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "75")
    expect(page.locator(".said-progress")).to_contain_text("three quarters")
    assert stayed(page)
    running.let_go("quiet")
    expect(page.get_by_role("progressbar")).to_have_count(0)


async def _say(running: Shop, run_id: str, fraction: float, text: str) -> None:
    running.engine.live[ulid_bytes(run_id)].show_progress(fraction, text)


def test_counters_and_badge_follow(opened, running: Shop):
    page = opened("/")
    badge = page.locator("#nav .count")
    before = int(badge.inner_text())
    tile = page.locator(".tile", has_text="Running").locator(".tile-value")
    busy = int(tile.inner_text())
    running.send("test/hold", {"gate": "counted"})
    expect(tile).to_have_text(str(busy + 1))
    running.send("shop/order.paid", {"order_id": "declined"})
    expect(badge).to_have_text(str(before + 1))
    expect(page.locator(".feed").first).to_contain_text("card declined")
    running.let_go("counted")
    expect(tile).to_have_text(str(busy))
    assert stayed(page)
    assert page.locator(".uplot canvas").count() == 1, "the chart is drawn, once"


def test_rows_do_not_move_under_the_pointer(opened, running: Shop):
    page = opened("/runs?function=greet")
    first = page.locator("#runs-body tr").first
    first.hover()
    top = first.get_attribute("id")
    run = running.send("test/hello")
    pill = page.locator(".pill")
    expect(pill).to_have_text("1 new")
    assert page.locator("#runs-body tr").first.get_attribute("id") == top
    pill.click()
    expect(page.locator("#runs-body tr").first).to_have_attribute("id", f"run-{run}")
    expect(pill).to_have_count(0)
    assert stayed(page)


def test_keys(opened, running: Shop):
    page = opened("/")
    for letter, heading in (("r", "Runs"), ("e", "Events"), ("f", "Functions"), ("d", "Dead letters"), ("c", "Crons"), ("h", "Overview")):
        page.keyboard.press("g")
        page.keyboard.press(letter)
        expect(page.locator("h1")).to_have_text(heading)
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    page.keyboard.press("/")
    page.keyboard.type(running.named["done"])
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Fulfil order")
    page.keyboard.press("g")
    page.keyboard.press("r")
    expect(page.locator("h1")).to_have_text("Runs")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    at = page.locator("tr.at")
    expect(at).to_have_count(1)
    page.keyboard.press("x")
    expect(page.locator("[data-bulk-count]")).to_have_text("1 selected")
    page.keyboard.press("x")
    run = at.get_attribute("id").removeprefix("run-")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/runs/{run}")
    assert stayed(page), "pages of one tab share a document"
    assert len(running.engine.notices._subscriptions) == 1, "and one stream"


def test_the_theme_is_chosen_and_kept(opened):
    page = opened("/", scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.keyboard.press("t")
    assert page.evaluate(background) == light, "from the system's light to light"
    page.keyboard.press("t")
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    assert page.evaluate(background) == dark
    expect(page.locator("[data-theme-label]")).to_have_text("Dark")


def test_an_event_is_sent_by_hand(opened, running: Shop):
    page = opened("/events/send?name=shop/order.paid")
    page.locator("#data").fill('{"order_id": ')
    page.locator("#data").press("Control+Enter")
    expect(page.locator("#problem")).to_contain_text("is not JSON")
    expect(page.locator("#data")).to_have_value('{"order_id": ')
    page.locator("#data").fill('{"order_id": "typed", "amount": 1}')
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#said")).to_contain_text("is on disk")
    page.get_by_role("link", name="Fulfil order").first.click()
    expect(page.locator(".standing")).to_contain_text('where order_id is "typed"')
    assert stayed(page)


def test_what_is_typed_survives_live_updates(opened, running: Shop):
    page = opened("/functions/shop-make-receipt")
    page.locator("#data").fill('{"order_id": "half-typed')
    runs = page.locator(".table-runs tbody tr")
    before = runs.count()
    page.locator("h1").click()
    run = running.send("shop/receipt.wanted", {"order_id": "meanwhile"})
    expect(page.locator(f"#run-{run}")).to_be_visible()
    assert runs.count() == min(before + 1, 8)
    expect(page.locator("#data")).to_have_value('{"order_id": "half-typed')


def test_cancelling_asks_first(opened, running: Shop):
    run = running.send("shop/order.paid", {"order_id": "to-cancel"})
    page = opened(f"/runs/{run}")
    expect(page.locator(".standing")).to_contain_text("Waits in")
    page.get_by_role("button", name="Cancel").click()
    dialog = page.locator("dialog[open]")
    dialog.get_by_role("button", name="Back").click()
    expect(page.locator(".head .badge")).to_have_text("Waiting")
    page.get_by_role("button", name="Cancel").click()
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .badge")).to_have_text("Cancelled")
    expect(page.locator("#said")).to_contain_text("its result is dropped")
    assert stayed(page)


def test_bulk_redrive(opened, running: Shop):
    runs = [running.send("shop/order.paid", {"order_id": "declined"}) for _ in range(2)]
    for run in runs:
        running.end(run)
    page = opened("/runs?status=FAILED&function=shop-fulfil")
    for run in runs:
        page.locator(f"#run-{run} input").check()
    page.get_by_role("button", name="Redrive").click()
    expect(page.locator("h1")).to_have_text("Redrive 2 dead letters?")
    page.get_by_role("button", name="Redrive 2 dead letters").click()
    page.wait_for_url("**/bulk/*")
    expect(page.locator(".head .badge")).to_have_text("Done")
    expect(page.locator("#bulk-done")).to_have_text("2")
    assert stayed(page)


def test_all_that_match_are_cancelled_and_the_progress_follows(opened, running: Shop):
    runs = [running.send("test/hold", {"gate": "never"}) for _ in range(30)]
    page = opened("/runs?function=hold-on&status=QUEUED,RUNNING,WAITING")
    page.locator(f"#run-{runs[-1]} input").check()
    page.locator("[data-all-matching]").check()
    expect(page.locator(".bulk-all")).to_contain_text(re.compile(r"or all 3\d that match"))
    page.locator("[data-bulk-bar]").get_by_role("button", name="Cancel").click()
    expect(page.locator("h1")).to_have_text(re.compile(r"Cancel 3\d runs\?"))
    page.locator("#rate").fill("soon")
    page.locator(".form-bulk .button-strong").click()
    expect(page.locator("#problem")).to_contain_text("'soon' is not a rate")
    expect(page.locator("#rate")).to_have_value("soon")
    page.locator("#rate").fill("20/s")
    page.locator(".form-bulk .button-strong").click()
    page.wait_for_url("**/bulk/*")
    expect(page.locator(".head .badge")).to_have_text("Running")
    expect(page.locator(".head .badge")).to_have_text("Done")
    expect(page.locator(".progress span")).to_have_text(re.compile(r"(3\d) of \1"))
    assert stayed(page)


def test_one_is_stopped_from_the_banner(opened, running: Shop):
    naps = [running.send("test/sleep") for _ in range(3)]
    bulk = running.call(running.engine.bulk("cancel", {"ids": naps}, rate="1/h"))
    page = opened("/crons")
    page.locator(f'.banner a[href="/bulk/{bulk}"]').click()
    expect(page.locator("h1")).to_have_text("Cancel 3 runs")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".head .badge")).to_have_text("Stopped")
    expect(page.locator("#said")).to_contain_text("What it has done stays done")
    assert stayed(page)


def test_a_step_is_run_again_with_other_input(opened, running: Shop):
    page = opened(f"/runs/{running.named['dead']}?step=charge")
    page.get_by_role("link", name="Edit its input").click()
    expect(page.locator("#input")).to_have_value('[\n  "declined"\n]')
    page.locator("#input").fill('["typed"')
    page.locator("#input").press("Control+Enter")
    expect(page.locator("#problem")).to_contain_text("at line 1, column")
    expect(page.locator("#input")).to_have_value('["typed"')
    page.locator("#input").fill('["typed"]')
    page.locator("#input").press("Control+Enter")
    expect(page.locator("#said")).to_contain_text("with what you changed")
    expect(page.locator(".standing")).to_contain_text("Waits in 'shipped'")
    page.locator(".wf-row", has_text="charge").locator(".wf-name").click()
    expect(page.locator("#panel")).to_contain_text("charge-typed")
    assert stayed(page)


def test_a_group_of_dead_letters_is_redriven_without_scripts(browser: Browser, running: Shop):
    runs = [running.send("shop/order.paid", {"order_id": "declined"}) for _ in range(2)]
    for run in runs:
        running.end(run)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(running.url + "/dead-letters")
    page.locator(f"#group-{running.named['fingerprint']}").get_by_role("button", name="Redrive all").click()
    expect(page.locator("h1")).to_have_text(re.compile(r"Redrive \d+ dead letters\?"))
    page.locator(".form-bulk .button-strong").click()
    page.wait_for_url("**/bulk/*")
    while page.locator(".head .badge").inner_text() == "Running":
        page.get_by_role("link", name="Refresh").click()
    expect(page.locator(".head .badge")).to_have_text("Done")
    context.close()


def test_a_step_is_chosen_and_the_waterfall_zoomed(opened, running: Shop):
    page = opened(f"/runs/{running.named['done']}")
    page.locator(".wf-row", has_text="charge").locator(".wf-name").click()
    expect(page.locator("#step-title")).to_have_text("charge")
    expect(page.locator("#panel")).to_contain_text("charge-done")
    box = page.locator(".wf-run .wf-bar").bounding_box()
    width = page.locator(".wf-run .seg").last.bounding_box()["width"]
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 10, steps=4)
    page.mouse.up()
    expect(page.locator(".wf-reset")).to_be_visible()
    assert float(page.locator(".wf-run .seg").last.get_attribute("width").rstrip("%")) > 150
    expect(page.locator("#step-title")).to_have_text("charge")
    page.locator(".wf-reset").click()
    assert abs(page.locator(".wf-run .seg").last.bounding_box()["width"] - width) < 1


def test_a_hidden_tab_lets_its_stream_go(opened, running: Shop):
    page = opened("/runs?function=greet")
    assert len(running.engine.notices._subscriptions) == 1
    hide = "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true }); document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    expect(page.locator("#live")).to_have_text("paused")
    run = running.send("test/hello")
    running.end(run)
    page.evaluate(hide, False)
    expect(page.locator(f"#run-{run}")).to_contain_text("Completed")
    expect(page.locator("#live")).to_have_text("live")


def test_without_a_stream_the_page_asks_by_itself_and_recovers_from_a_lost_server(opened, running: Shop):
    page = opened("/runs?function=greet", live=False)
    page.route("**/stream", lambda route: route.abort())
    page.reload()
    expect(page.locator("#live")).to_have_text("polling")
    run = running.send("test/hello")
    expect(page.locator(f"#run-{run}")).to_be_visible()
    page.route("**/runs?*", lambda route: route.abort())
    expect(page.locator("#live")).to_have_text("no connection")
    page.unroute("**/runs?*")
    page.unroute("**/stream")
    expect(page.locator("#live")).to_have_text("live")


def test_everything_is_readable_and_usable_without_scripts(opened, running: Shop):
    page = opened("/", java_script_enabled=False, live=False)
    assert page.locator(".chart-plain rect").count() > 0
    page.locator("#nav").get_by_role("link", name="Runs").click()
    page.locator("[data-page-search]").fill("fn:greet status:completed")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**/runs?status=COMPLETED&function=greet")
    page.goto(running.url + "/events/send")
    page.locator("#name").fill("shop/order.paid")
    page.locator("#data").fill('{"order_id": "no-script"}')
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#said")).to_contain_text("is on disk")
    page.get_by_role("link", name="Fulfil order").first.click()
    expect(page.locator("h1")).to_have_text("Fulfil order")
    page.locator(".wf-row", has_text="reserve").click()
    expect(page.locator("#step-title")).to_have_text("reserve")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .badge")).to_have_text("Cancelled")


@contextmanager
def first_start(path: Path) -> Iterator[Shop]:
    with shop(path) as server:
        yield server


def test_the_first_start_teaches_the_next_command(browser: Browser, tmp_path: Path):
    with first_start(tmp_path / "empty.db") as server:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        for path, said in (("/", "holdfast send"), ("/runs", "holdfast send"), ("/events", "holdfast send"), ("/dead-letters", "holdfast redrive"), ("/audit", "Nothing has been changed")):
            page.goto(server.url + path)
            expect(page.locator(".empty")).to_contain_text(said)
            page.screenshot(path=SCREENSHOTS / f"empty-{path.strip('/') or 'home'}.png")
        context.close()


def test_behind_a_login(browser: Browser, tmp_path: Path):
    keys = {"mode": "start", "event_keys": ("event-key",), "signing_key": "signkey-test-" + "ab" * 32, "dashboard_password": "open sesame"}
    with shop(tmp_path / "guarded.db", **keys) as server:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.goto(server.url + "/runs")
        page.locator("input[type=password]").fill("open sesame")
        page.locator("input[type=password]").press("Enter")
        expect(page.locator("h1")).to_have_text("Runs")
        expect(page.locator("#live")).to_have_attribute("data-state", "on")
        run = server.send("test/hello")
        expect(page.locator(f"#run-{run}")).to_contain_text("Completed")
        page.locator(f"#run-{run} a").first.click()
        page.get_by_role("button", name="Rerun").click()
        expect(page.locator("#said")).to_contain_text("Started again")
        page.goto(server.url + "/audit")
        expect(page.locator("tbody")).to_contain_text("run.rerun")
        # the session ends while the page is open: the next update leads to the login, not to a broken page
        page.goto(server.url + "/runs")
        expect(page.locator("#live")).to_have_attribute("data-state", "on")
        context.clear_cookies()
        server.send("test/hello")
        expect(page.locator("input[type=password]")).to_be_visible()
        page.locator("input[type=password]").fill("open sesame")
        page.locator("input[type=password]").press("Enter")
        page.get_by_role("link", name="Log out").click()
        page.get_by_role("button").first.click()
        page.goto(server.url + "/runs")
        expect(page.locator("input[type=password]")).to_be_visible()
        context.close()


def test_the_browser_says_times_as_the_server_does(opened, running: Shop):
    page = opened("/")
    module = page.locator("script[type=module]").get_attribute("src").replace("main.js", "times.js")
    now = 1_700_000_000_000
    moments = [now + sign * distance for sign in (1, -1) for distance in (0, 1500, 2000, 59_999, 60_000, 3_599_000, 3_600_000, 86_400_000, 29 * 86_400_000, 31 * 86_400_000)]
    said = page.evaluate("async ([module, moments, now]) => { const times = await import(module); return moments.map((m) => times.ago(m, now)); }", [module, moments, now])
    assert said == [humanize.ago(m, now) for m in moments]


def test_a_stretch_of_the_chart_leads_to_its_runs(opened, running: Shop):
    page = opened("/?period=1h")
    plot = page.locator("#runs-chart .u-over")
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.99, box["y"] + 60)
    expect(page.locator(".chart-tip")).to_contain_text("Completed")
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 60, steps=4)
    page.mouse.up()
    page.wait_for_url(re.compile(r"/runs\?since=\d+&until=\d+"))
    expect(page.locator("[data-page-search]")).to_have_value(re.compile(r"since:\d+ until:\d+"))
    expect(page.locator("#runs-body tr").first, page.url).to_be_visible()
