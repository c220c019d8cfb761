"""D2, D4, D5, D7 on the inbox's page, in a real browser: counts that follow, marks, the cron, and a canary under way."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest
from playwright.async_api import Page, expect

from examples.demo.waiting import until
from team_pages import browsing, fits
from test_inbox_process import RunningInbox, start  # noqa: F401 - a fixture

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.browser]
KEYS = {"INBOX_API_KEY": "secret-of-the-api", "CRON_SECRET": "secret-of-the-cron"}


@pytest.fixture
async def inbox(start) -> RunningInbox:  # noqa: F811
    return await start(RECOMPUTE_BUCKET_SECONDS="1", ANALYTICS_ENABLED="true", **KEYS)


@pytest.fixture
async def page(inbox: RunningInbox) -> AsyncIterator[Page]:
    async with browsing() as made:
        await made.goto(inbox.process.url)
        await made.get_by_label("The key of Inbox").fill("secret-of-the-api")
        await made.get_by_role("button", name="Sign in").click()
        await expect(made.get_by_role("heading", name="Inbox counts")).to_be_visible()
        yield made


async def test_d2_d4_d5_from_a_message_to_its_count(page: Page, inbox: RunningInbox, tmp_path):
    await fits(page, "empty", tmp_path)
    await page.get_by_label("Client").fill("not a client")
    await page.get_by_label("From").fill("ada@example.test")
    await page.get_by_label("Subject").fill("Hello")
    await page.get_by_role("button", name="Receive it").click()
    await expect(page.get_by_role("alert")).to_contain_text("A client has letters, digits, dots and dashes only")
    await expect(page.get_by_label("Subject")).to_have_value("Hello")
    await fits(page, "refused", tmp_path)

    await page.get_by_label("Client").fill("acme")
    await page.get_by_role("button", name="Receive it").click()
    await expect(page.get_by_text("A message for acme is in.")).to_be_visible()
    row = page.locator("#client-acme")
    await expect(row.get_by_role("rowheader")).to_contain_text("acme")
    await expect(row).to_contain_text("completed")
    await expect(row.locator("[data-label=Unread]")).to_have_text("1")
    await expect(row.locator("[data-label=Version]")).to_have_text(re.compile(r"[1-9]"))
    await expect(row.locator("[data-label=Analytics]")).to_have_text("never")

    before = int(inbox.store.get("inbox:v1:ver:acme"))
    await page.get_by_role("button", name="Mark acme dirty").click()
    await expect(page.get_by_text("The counts of acme are marked dirty")).to_be_visible()
    assert await until(lambda: int(inbox.store.get("inbox:v1:ver:acme")) > before, 60)
    await expect(row.locator("[data-label=Version]")).not_to_have_text(str(before))

    await page.get_by_role("button", name="Run the cron now").click()
    await expect(page.get_by_text(re.compile(r"The cron has run \(inline\)\. \d+ recomputes were requested\."))).to_be_visible()


async def test_d7_a_canary_is_begun_and_watched(page: Page, tmp_path):
    await page.get_by_role("button", name="Small: 20/s for 10 s").click()
    await expect(page.get_by_text("200 events are on their way.")).to_be_visible()
    await page.get_by_role("button", name="Large: 200/s for 5 s").click()
    await expect(page.get_by_text("One is under way already")).to_be_visible()
    await expect(page.locator("#canary")).to_contain_text("of 200 events sent")
    await fits(page, "inbox", tmp_path)


async def test_d5_a_failing_job_is_seen_on_the_page(page: Page, inbox: RunningInbox, tmp_path):
    await page.get_by_label("Client").fill("acme")
    await page.get_by_label("From").fill("ada@example.test")
    await page.get_by_label("Subject").fill("Hello")
    await page.get_by_role("button", name="Receive it").click()
    await expect(page.locator("#client-acme")).to_contain_text("completed")
    blob = {**inbox.status("acme"), "status": "retrying", "attempt": 3, "lastError": "the database is away"}
    inbox.store.set("job:v1:acme:inbox-counts-recompute", json.dumps(blob))
    await expect(page.locator("#client-acme")).to_contain_text("retrying try 3")
    await expect(page.locator("#client-acme")).to_contain_text("the database is away")
    await fits(page, "retrying", tmp_path)


async def test_nobody_is_let_in_without_the_key_and_no_page_has_it(inbox: RunningInbox):
    async with httpx.AsyncClient(base_url=inbox.process.url, timeout=30) as stranger:
        assert (await stranger.get("/", headers={"accept": "text/html"})).status_code == 303
        assert (await stranger.get("/now")).status_code == 401
        assert (await stranger.post("/cron")).status_code == 401
        form = (await stranger.get("/sign-in")).text.partition('name="form" value="')[2].partition('"')[0]
        await stranger.post("/sign-in", data={"key": "secret-of-the-api", "form": form})
        for path in ("/", "/now", "/static/inbox.js"):
            answer = await stranger.get(path)
            assert answer.status_code == 200
            assert "secret-of-" not in answer.text
            assert "script-src 'self'" in answer.headers["content-security-policy"]
        for path in ("/cron", "/dirty", "/messages"):
            assert (await stranger.post(path, data={"form": "forged", "client": "acme"})).status_code == 403
