"""P2: the page of applications: what is registered, why a sync failed and what to do, adding, syncing again and removing."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from dashboard_kit import Shop
from playwright.sync_api import Browser, expect, sync_playwright

from holdfast.base.findings import wrong
from holdfast.dashboard.pages.apps import AppLine, lines, sdk_words
from holdfast.store.sqlite.registry import AppRecord

CHROMIUM = os.environ.get("HOLDFAST_TEST_CHROMIUM", "/usr/bin/chromium")
expect.set_options(timeout=60_000)  # the machine may be busy with other tests
SCREENSHOTS = Path(__file__).parents[2] / "screenshots"
SDK = {"x-inngest-sdk": "inngest-js:v4.24.0", "content-type": "application/json"}


class Remote:
    """An application over HTTP whose answers to a sync the test decides."""

    def __init__(self) -> None:
        self.url = ""
        self.server = ""
        self.status, self.headers, self.body = 200, SDK, b'{"ok":true}'
        self.registers = True
        self.name = "billing"

    def document(self) -> dict[str, Any]:
        functions = [
            {
                "id": f"{self.name}-{name}", "name": label, "triggers": [{"event": f"{self.name}/{name}"}],
                "steps": {"step": {"id": "step", "name": "step", "runtime": {"type": "http", "url": f"{self.url}?fnId={self.name}-{name}"}}},
            }
            for name, label in (("charge", "Charge the card"), ("remind", "Send reminders"))
        ]  # fmt: skip
        return {"url": self.url, "deployType": "ping", "sdk": "js:v4.24.0", "framework": "nextjs", "appName": self.name, "functions": functions}


@contextmanager
def remote() -> Iterator[Remote]:
    told = Remote()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            if told.registers and told.headers is SDK:
                httpx.post(f"{told.server}/fn/register", json=told.document(), trust_env=False).raise_for_status()
            self.answer(told.status, told.headers, told.body)

        def do_POST(self) -> None:
            call = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
            key = "a" * 40
            known = call["steps"]
            ops = {"op": "StepRun", "id": key, "displayName": "Charge the card", "name": "Charge the card", "data": 7}
            self.answer(206 if key not in known else 200, SDK, json.dumps([ops] if key not in known else "paid").encode())

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told.url = f"http://127.0.0.1:{server.server_port}/api/inngest"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def billing(running: Shop) -> Iterator[Remote]:
    with remote() as told:
        told.server = running.url
        yield told
        running.call(running.engine.applications.remove(told.url))
        running.engine.applications.findings.clear()


def asked(running: Shop, what: str, url: str) -> str:
    """Post a form of the page without JavaScript; the page that it leads to."""
    answer = running.post(f"/apps/{what}", url=url)
    assert answer.status_code == 303, answer.text
    return running.http.get(answer.headers["location"]).text


class TestForms:
    def test_an_app_is_added_synced_and_removed(self, running: Shop, billing: Remote):
        shown = asked(running, "sync", billing.url)
        for words in ("Added.", "billing", billing.url, "TypeScript 4.24.0", "nextjs", "Charge the card", "Send reminders", "synced"):
            assert words in shown, words
        assert "Synced." in asked(running, "sync", billing.url)
        gone = asked(running, "remove", billing.url)
        assert "Removed." in gone
        assert billing.url not in gone
        actions = [(entry.action, entry.target) for entry in running.call(running.engine.reader.audit(limit=3))]
        assert actions == [("app.remove", billing.url), ("app.sync", billing.url), ("app.sync", billing.url)]

    @pytest.mark.parametrize(
        ("status", "headers", "body", "said"),
        [
            (404, {}, b"", ["no route", "Mount the SDK&#39;s serve route"]),
            (401, {}, b"", ["access wall", "Exempt /api/inngest"]),
            (200, {"content-type": "text/html"}, b"<!doctype html>", ["HTML", "a web page"]),
            (200, {"content-type": "application/json"}, b'{"x":1}', ["not an SDK", "JSON of something else"]),
            (500, {}, b"", ["error", "see its log"]),
        ],
    )
    def test_a_failure_is_named_with_its_remedy(self, running: Shop, billing: Remote, status, headers, body, said):
        billing.status, billing.headers, billing.body = status, headers, body
        shown = asked(running, "sync", billing.url)
        assert "Not registered" in shown
        assert all(words in shown for words in said), said
        assert billing.url not in asked(running, "remove", billing.url)

    def test_an_app_that_was_synced_and_now_fails_keeps_its_functions(self, running: Shop, billing: Remote):
        asked(running, "sync", billing.url)
        billing.status, billing.headers = 404, {}
        shown = asked(running, "sync", billing.url)
        assert "no route" in shown
        assert "Charge the card" in shown
        assert "Not registered" not in shown
        billing.status, billing.headers = 200, SDK
        assert "no route" not in asked(running, "sync", billing.url)

    def test_one_that_answers_but_registers_elsewhere(self, running: Shop, billing: Remote):
        billing.registers = False
        assert "registered nothing here" in asked(running, "sync", billing.url)

    @pytest.mark.parametrize("url", ["", "ftp://x/y", "localhost:3000", "http://", "javascript:alert(1)", "http://x/" + "y" * 2000])
    def test_what_is_no_address(self, running: Shop, url):
        assert running.post("/apps/sync", url=url).status_code == 400
        assert running.post("/apps/remove", url=url).status_code == 400

    def test_without_the_sessions_token_nothing_happens(self, running: Shop, billing: Remote):
        for what in ("sync", "remove"):
            assert running.http.post(f"/apps/{what}", data={"url": billing.url}).status_code == 403
        assert running.post("/apps/remove", url="http://nobody/api/inngest").status_code == 404
        assert billing.url not in running.http.get("/apps").text

    def test_a_remote_function_is_invoked_and_its_run_looks_like_any_other(self, running: Shop, billing: Remote):
        asked(running, "sync", billing.url)
        assert 'action="/functions/billing-charge/invoke"' in running.http.get("/functions/billing-charge").text
        answer = running.post("/functions/billing-charge/invoke", data='{"card": 1}')
        assert answer.status_code == 303, answer.text
        run_id = answer.headers["location"].rpartition("/")[2]
        running.end(run_id)
        shown = running.http.get(f"/runs/{run_id}").text
        assert "Charge the card" in shown
        assert "a" * 40 not in shown.replace(f"step={'a' * 40}", "").replace(f'data-step="{"a" * 40}"', "")


class TestLines:
    RECORD = AppRecord("billing", "http://a/api", "py:v0.5.18", "flask", "v7", "c", "ping", None, 5)

    def test_problems_come_first_and_apps_of_this_process_last(self):
        failing = AppRecord("crm", "http://c/api", "go:v0.15", "", None, "c", "ping", "old words", 5)
        finding = wrong("no route", "it has none", "Mount it")
        found = lines({"billing": self.RECORD, "crm": failing}, {"http://new/api": finding}, [], ["shop"])
        assert [line.name for line in found] == [None, "crm", "billing", "shop"]
        assert [line.problem and line.problem.text for line in found] == ["it has none", "old words", None, None]
        assert found[3] == AppLine(name="shop", url=None, local=True)

    @pytest.mark.parametrize(
        ("sdk", "words"), [("py:v0.5.18", "Python 0.5.18"), ("js:v4.24.0", "TypeScript 4.24.0"), ("elixir:v1", "elixir 1"), ("", "")]
    )
    def test_sdks_in_words(self, sdk, words):
        assert sdk_words(sdk) == words


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.browser
class TestBrowser:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [1280, 390])
    def test_both_schemes_and_widths(self, browser: Browser, running: Shop, billing: Remote, scheme: str, width: int):
        asked(running, "sync", billing.url)
        finding = wrong(
            "no route", "the application answers, but has no route /api/inngest (404)", "Mount the SDK's serve route there, or give the address where it is."
        )
        running.engine.applications.findings["http://localhost:3001/some/quite/long/path/to/the/serve/route/of/it/api/inngest"] = finding
        SCREENSHOTS.mkdir(exist_ok=True)
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce")
        page.goto(running.url + "/apps")
        expect(page.locator("#live")).to_have_attribute("data-state", "on")
        page.screenshot(path=SCREENSHOTS / f"apps-{scheme}-{width}.png", full_page=True)
        assert page.evaluate("document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth") <= 0
        page.close()

    def test_an_app_appears_without_a_reload(self, browser: Browser, running: Shop, billing: Remote):
        page = browser.new_page()
        page.goto(running.url + "/apps")
        expect(page.locator("#live")).to_have_attribute("data-state", "on")
        page.evaluate("window.notReloaded = true")
        running.http.post("/fn/register", json=billing.document()).raise_for_status()
        expect(page.locator("#app-billing")).to_contain_text("Charge the card")
        assert page.evaluate("window.notReloaded === true")
        page.close()
