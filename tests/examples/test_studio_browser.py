"""C1 and C2 on the studio's pages, in a real browser: every kind of job, its progress, what came of it, and failures."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from playwright.async_api import Page, expect

from examples.demo.waiting import until
from team_pages import browsing, fits
from test_studio_process import RunningStudio, studio  # noqa: F401 - a fixture

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.browser]


@pytest.fixture
async def page(studio: RunningStudio, tmp_path) -> AsyncIterator[Page]:  # noqa: F811
    """A page of somebody who has signed in."""
    async with browsing() as made:
        await made.goto(studio.process.url)
        await made.get_by_label("The key of Studio").fill("no such key")
        await made.get_by_role("button", name="Sign in").click()
        await expect(made.get_by_role("alert")).to_have_text("That is not the key.")
        await fits(made, "sign-in", tmp_path)
        await made.get_by_label("The key of Studio").fill("canary-api")
        await made.get_by_role("button", name="Sign in").click()
        await expect(made.get_by_role("heading", name="What is to be done?")).to_be_visible()
        yield made


async def test_c1_c2_each_kind_of_job_from_its_form_to_what_came_of_it(page: Page, studio: RunningStudio, tmp_path):  # noqa: F811
    await fits(page, "studio", tmp_path)
    await page.get_by_label("Whom to greet").fill("Ada")
    await page.get_by_role("button", name="Say hello").click()
    await expect(page.get_by_text("Hello, Ada!")).to_be_visible()

    await page.get_by_role("link", name="Something else").click()
    await page.get_by_label("Product").fill("Cold brew")
    await page.get_by_role("button", name="Write a strategy").click()
    await expect(page.get_by_text("Written by stand-in.")).to_be_visible()
    await fits(page, "strategy", tmp_path)

    await page.goto(studio.process.url)
    await page.get_by_label("To", exact=True).fill("ada@studio.test")
    await page.get_by_label("Subject").fill("Draft")
    await page.locator("[action='/jobs/email'] textarea").fill("Ready.")
    await page.get_by_role("button", name="Send an e-mail").click()
    await expect(page.get_by_text("Sent to ada@studio.test.")).to_be_visible()

    await page.goto(studio.process.url)
    await page.get_by_label("Title").fill("Autumn campaign")
    await page.get_by_label("Heading").fill("Why")
    await page.get_by_role("button", name="Export a PDF").click()
    await expect(page.get_by_text(re.compile(r"1 page, [\d.]+ KiB\."))).to_be_visible()
    await fits(page, "pdf", tmp_path)
    async with page.expect_download() as started:
        await page.get_by_role("link", name="Download").click()
    assert (await (await started.value).path()).read_bytes().startswith(b"%PDF")

    await page.goto(studio.process.url)
    await expect(page.get_by_role("row")).to_have_count(5)


async def test_c2_what_does_not_fit_comes_back_with_the_reason_and_what_was_typed(page: Page, tmp_path):
    await page.get_by_label("Address of the receiver").fill("https://user@example.com")
    await page.get_by_label("What has happened").fill("ready")
    await page.get_by_label("Details, as a JSON object").fill("[1]")
    await page.get_by_role("button", name="Deliver a webhook").click()
    await expect(page.get_by_role("alert")).to_have_text(
        ["That is no address; one begins with http:// or https://.", 'That is no JSON object; one looks like {"n": 1}.']
    )
    await expect(page.get_by_label("What has happened")).to_have_value("ready")
    await fits(page, "refused", tmp_path)


async def test_c2_a_failure_is_shown_and_tried_again(page: Page, studio: RunningStudio, tmp_path):  # noqa: F811
    studio.receiver.failures = [410]
    await page.get_by_label("Address of the receiver").fill(studio.hooks)
    await page.get_by_label("What has happened").fill("ready")
    await page.get_by_role("button", name="Deliver a webhook").click()
    await expect(page.get_by_role("alert")).to_contain_text("410")
    await fits(page, "failed", tmp_path)
    await page.get_by_role("button", name="Try again").dblclick()
    await expect(page.get_by_text("has taken it")).to_be_visible()
    assert await until(lambda: len(studio.receiver.arrived) == 2, 30)


async def test_p8_a_job_is_followed_live_and_over_a_lost_connection(page: Page, studio: RunningStudio, tmp_path):  # noqa: F811
    studio.receiver.seconds = 8
    await page.get_by_label("Address of the receiver").fill(studio.hooks)
    await page.get_by_label("What has happened").fill("ready")
    await page.get_by_role("button", name="Deliver a webhook").click()
    await expect(page.get_by_text("Waiting for the receiver to take it")).to_be_visible()
    await expect(page.get_by_role("progressbar")).to_be_visible()
    await page.wait_for_load_state("load")
    await fits(page, "working", tmp_path)
    await studio.process.kill()
    await expect(page.get_by_text("The connection is lost. Trying again...")).to_be_visible()
    studio.receiver.seconds = 0
    await studio.process.start()
    await expect(page.get_by_text("has taken it")).to_be_visible()


async def test_p8_nobody_sees_a_job_without_signing_in_and_no_page_has_a_key(studio: RunningStudio):  # noqa: F811
    job_id = await studio.begin("/api/hello", {"name": "Ada"})
    await studio.ended(job_id)
    async with httpx.AsyncClient(base_url=studio.process.url, timeout=30) as stranger:
        html = {"accept": "text/html"}
        away = await stranger.get(f"/jobs/{job_id}", headers=html)
        assert (away.status_code, away.headers["location"]) == (303, f"/sign-in?next=%2Fjobs%2F{job_id}")
        for path in ("live", "state", "document.pdf"):
            assert (await stranger.get(f"/jobs/{job_id}/{path}")).status_code == 401
        form = (await stranger.get("/sign-in")).text.partition('name="form" value="')[2].partition('"')[0]
        answer = await stranger.post("/sign-in", data={"key": "canary-api", "form": form, "next": "//evil.test"})
        assert answer.headers["location"] == "/"
        assert "canary" not in str(answer.headers)
        for path in ("/", f"/jobs/{job_id}", "/static/job.js"):
            page = await stranger.get(path)
            assert page.status_code == 200
            assert "canary" not in page.text
            assert "script-src 'self'" in page.headers["content-security-policy"]
        assert (await stranger.post("/jobs/hello", data={"name": "x", "form": "forged"})).status_code == 403
        assert (await stranger.get("/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV")).status_code == 404
