"""B2, B4 and B5 on the real engine, a real database, a shop and services over real HTTP; time is the test's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text, update

from catalogue_kit import MERCHANT, OTHER, SALLA_ID, Catalogue, running_catalogue
from examples.catalogue.client import app
from examples.catalogue.functions import enhance_product, find_expiring_tokens, process_webhook, refresh_token, scrape_product
from examples.catalogue.models import Product
from examples.catalogue.webhook import HIDDEN
from holdfast.testing import assert_durable

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
async def catalogue(tmp_path, monkeypatch) -> AsyncIterator[Catalogue]:
    async with running_catalogue(tmp_path, monkeypatch) as made:
        yield made


async def only_run(catalogue: Catalogue, function):
    (run,) = await catalogue.h.runs(function)
    return run


# -- B4 --------------------------------------------------------------------------------------------------------------


async def test_b4_a_product_is_imported(catalogue):
    product = await catalogue.import_page("/oud")
    assert (product.status, product.title, product.price, product.currency) == ("IMPORTED", "Royal Oud, 12 ml", "349.00", "SAR")
    assert product.details["provider"] == "structured-data"
    assert product.details["providersTried"] == ["structured-data"]
    assert product.details["durationMs"] >= 0
    run = await only_run(catalogue, scrape_product)
    assert [step.id for step in run.steps] == ["load-product", "scrape-product", "save-product", "announce"]
    assert await catalogue.sent("product/scrape.completed") == [{"productId": product.id, "success": True}]
    assert (await only_run(catalogue, enhance_product)).output == "nothing is missing"


async def test_b4_three_tries_within_the_presets_bounds_and_importing_between_them(catalogue):
    catalogue.outside.shop.failures["/shaky"] = 99
    product_id = await catalogue.start_import("/shaky")
    seen = set()
    while (await only_run(catalogue, scrape_product)).status not in {"FAILED", "COMPLETED"}:
        seen.add((await catalogue.product(product_id)).status)
        await catalogue.h.advance("1s")
    await catalogue.h.settle(within="1m")
    assert seen == {"IMPORTING"}
    run = await only_run(catalogue, scrape_product)
    attempts = run.step("scrape-product").failed_attempts
    assert catalogue.outside.shop.requests["/shaky"] == len(attempts) == 3
    first, second = [(attempt.retry_at - attempt.started_at).total_seconds() for attempt in attempts[:2]]
    assert (0 <= first <= 5, 0 <= second <= 10, attempts[2].retry_at) == (True, True, None)
    assert run.error.message == "the shop answered 500"
    product = await catalogue.product(product_id)
    assert (product.status, product.details) == ("FAILED", {"scrapeError": "the shop answered 500"})
    assert await catalogue.sent("product/scrape.failed") == [{"productId": product_id, "error": "the shop answered 500"}]
    assert await catalogue.sent("product/scrape.completed") == []


@pytest.mark.parametrize(
    ("path", "error", "requests"),
    [
        ("/nowhere", "the page does not exist (the shop answered 404)", 1),
        ("/about", "the page shows no product; asked were structured-data and markup", 1),
        ("/brochure", "this is not a web page but application/pdf", 1),
        ("/huge-empty", "the page shows no product in the part of it that was read; asked were structured-data and markup", 1),
    ],
)
async def test_b4_b8_what_fails_at_once(catalogue, path, error, requests):
    product = await catalogue.import_page(path, within="0s")
    assert (product.status, product.details["scrapeError"]) == ("FAILED", error)
    assert catalogue.outside.shop.requests[path] == requests


@pytest.mark.parametrize(("path", "requests"), [("/shaky", 3), ("/busy", 2), ("/dropped", 2), ("/moved", 1), ("/huge", 1)])
async def test_b8_what_recovers(catalogue, path, requests):
    product = await catalogue.import_page(path)
    assert (product.status, product.title) == ("IMPORTED", "Royal Oud, 12 ml")
    assert catalogue.outside.shop.requests[path] == requests
    assert product.details.get("truncated", False) == (path == "/huge")


async def test_b8_429_is_waited_for_as_long_as_the_shop_asks(catalogue):
    catalogue.outside.shop.retry_after = 45
    product_id = await catalogue.start_import("/busy")
    await catalogue.h.advance("44s")
    assert (await catalogue.product(product_id)).status == "IMPORTING"
    await catalogue.h.advance("2s")
    assert (await catalogue.product(product_id)).status == "IMPORTED"


async def test_b8_a_page_that_is_slow_is_imported_within_the_limit(catalogue):
    catalogue.outside.shop.slow_seconds = 1.5
    assert (await catalogue.import_page("/slow")).status == "IMPORTED"


async def test_b4_an_import_of_nothing_and_of_a_product_that_has_been_imported(catalogue):
    product = await catalogue.import_page("/oud")
    wanted = {"productId": product.id, "sourceUrl": f"{catalogue.url}/oud", "merchantId": MERCHANT}
    for data in (wanted, wanted | {"productId": "product_unknown"}, wanted | {"merchantId": OTHER}):
        await catalogue.h.send({"name": "product/scrape.requested", "data": data})
        newest = max(await catalogue.h.runs(scrape_product), key=lambda run: run.id)
        assert newest.status == "FAILED"
        assert "with status IMPORTING" in newest.error.message
        assert newest.step("load-product").failed_attempts[0].retry_at is None
    assert (await catalogue.product(product.id)).status == "IMPORTED"
    assert catalogue.outside.shop.requests["/oud"] == 1


async def test_b7_a_redriven_dead_letter_finishes_the_import(catalogue):
    catalogue.outside.shop.gone.add("/oud")
    product = await catalogue.import_page("/oud")
    assert product.status == "FAILED"
    catalogue.outside.shop.gone.clear()
    await catalogue.h.redrive(await only_run(catalogue, scrape_product))
    await catalogue.h.settle(within="1m")
    product = await catalogue.product(product.id)
    assert (product.status, product.details.get("scrapeError")) == ("IMPORTED", None)


async def test_b7_the_result_of_an_older_import_is_dropped(catalogue):
    catalogue.outside.shop.gone.add("/oud")
    product = await catalogue.import_page("/oud")
    old = await only_run(catalogue, scrape_product)
    assert await catalogue.products.retry_import(product.id, MERCHANT)
    catalogue.outside.shop.gone.clear()
    redriven = await catalogue.h.redrive(old)
    await catalogue.h.settle(within="1m")
    late = await catalogue.h.read(redriven)
    assert late.error is not None
    assert "another import of product" in late.error.message
    assert (await catalogue.product(product.id)).status == "IMPORTED"


async def test_b7_a_redriven_dead_letter_begins_an_import_that_had_not_come_to_its_first_step(catalogue):
    async with catalogue.sessions.begin() as session:
        await session.execute(text("CREATE TRIGGER broken BEFORE UPDATE OF import_id ON products BEGIN SELECT RAISE(ABORT, 'out of order'); END"))
    product = await catalogue.import_page("/oud")
    assert (product.status, "out of order" in product.details["scrapeError"]) == ("FAILED", True)
    async with catalogue.sessions.begin() as session:
        await session.execute(text("DROP TRIGGER broken"))
    await catalogue.h.redrive(await only_run(catalogue, scrape_product))
    await catalogue.h.settle(within="1m")
    product = await catalogue.product(product.id)
    assert (product.status, product.details.get("scrapeError")) == ("IMPORTED", None)


# -- B2: deliveries that are repeated, and reports that come late ------------------------------------------------------


async def test_b2_a_webhook_that_is_delivered_again_is_processed_once(catalogue):
    product = {"id": 7, "name": "Oud"}
    first = await catalogue.report("product.created", product)
    assert await catalogue.report("product.created", product) == first
    assert len(await catalogue.webhooks.of(SALLA_ID)) == 1
    assert len(await catalogue.h.runs(process_webhook)) == 1
    # another moment is another report
    assert await catalogue.report("product.created", product, created_at="2026-08-01T11:00:00+00:00") != first


async def test_b2_a_report_from_before_a_deletion_does_not_bring_the_product_back(catalogue):
    await catalogue.report("product.deleted", {"id": 7}, created_at="2026-08-01T12:00:00+00:00")
    await catalogue.report("product.updated", {"id": 7, "name": "Oud"}, created_at="2026-08-01T11:00:00+00:00")
    assert await catalogue.salla_products() == []
    await catalogue.report("product.created", {"id": 7, "name": "Oud again"}, created_at="2026-08-01T13:00:00+00:00")
    assert [found.title for found in await catalogue.salla_products()] == ["Oud again"]


# -- B3 and B7: the outbox -------------------------------------------------------------------------------------------


async def test_b3_product_and_event_are_written_together_and_sent_once(catalogue):
    product_id = await catalogue.products.start_import(MERCHANT, f"{catalogue.url}/oud")
    assert await catalogue.sent("product/scrape.requested") == []
    await catalogue.h.settle(within="1m")
    assert len(await catalogue.h.runs(scrape_product)) == 1
    assert await waiting(catalogue) == []
    assert (await catalogue.product(product_id)).status == "IMPORTED"


async def test_b3_neither_product_nor_event_when_the_transaction_fails(catalogue):
    async with catalogue.sessions.begin() as session:
        await session.execute(text("CREATE TRIGGER full BEFORE INSERT ON holdfast_outbox BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"))
    with pytest.raises(Exception, match="the disk is full"):
        await catalogue.products.start_import(MERCHANT, f"{catalogue.url}/oud")
    assert await catalogue.products.of(MERCHANT) == []
    assert await waiting(catalogue) == []


async def waiting(catalogue):
    async with catalogue.sessions() as session:
        return (await session.execute(text("SELECT id FROM holdfast_outbox"))).all()


async def test_b7_fifty_retries_at_once_start_one_import(catalogue):
    catalogue.outside.shop.gone.add("/oud")
    product = await catalogue.import_page("/oud")
    catalogue.outside.shop.gone.clear()
    before = catalogue.outside.shop.requests["/oud"]
    answers = await asyncio.gather(*(catalogue.products.retry_import(product.id, MERCHANT) for _ in range(50)))
    assert answers.count(True) == 1
    assert not await catalogue.products.retry_import(product.id, OTHER)
    again = await catalogue.product(product.id)
    assert (again.status, again.details) == ("IMPORTING", {})
    assert again.import_id != product.import_id
    await catalogue.deliver()
    await catalogue.h.settle(within="1m")
    assert (await catalogue.product(product.id)).status == "IMPORTED"
    assert catalogue.outside.shop.requests["/oud"] == before + 1


# -- B5 --------------------------------------------------------------------------------------------------------------


async def test_b5_text_is_written_for_pictures(catalogue):
    product_id = await catalogue.start_import("/photo")
    await catalogue.h.settle(within="1m")
    product = await catalogue.product(product_id)
    assert (product.status, product.title) == ("ENHANCED", "Handmade piece")
    assert "Made with care." in product.description
    assert product.details["partial"] is True
    (request,) = catalogue.outside.model.requests
    assert f"{catalogue.url}/images/photo.svg" in request["messages"][1]["content"]


async def test_b5_three_tries_and_the_product_stays_imported(catalogue):
    catalogue.outside.model.failures = [503, 500, 429]
    product = await catalogue.import_page("/photo")
    run = await only_run(catalogue, enhance_product)
    assert run.status == "FAILED"
    assert len(run.step("write-text").failed_attempts) == 3
    assert (product.status, product.description, product.details["partial"]) == ("IMPORTED", None, True)


async def test_b5_an_unusable_answer_is_asked_for_again(catalogue):
    catalogue.outside.model.answers = ["I'd rather not", '{"title": 5}']
    assert (await catalogue.import_page("/photo")).status == "ENHANCED"
    assert len(catalogue.outside.model.requests) == 3


async def test_b5_a_wrong_key_fails_at_once_and_is_nowhere_to_be_read(catalogue, monkeypatch):
    monkeypatch.setenv("TEXT_MODEL_KEY", "canary-key")
    await catalogue.h.restart()
    assert (await catalogue.import_page("/photo")).status == "IMPORTED"
    run = await only_run(catalogue, enhance_product)
    assert len(run.step("write-text").failed_attempts) == 1
    assert "the text model answered 401" in run.error.message
    assert "canary-key" not in repr(run)


# -- B2 --------------------------------------------------------------------------------------------------------------

OUD = {"id": 7, "name": "Oud", "description": "Aged", "price": {"amount": 349.5, "currency": "SAR"}, "images": [{"url": "https://x/1.jpg"}]}


async def test_b2_products_follow_salla(catalogue):
    created = await catalogue.report("product.created", OUD)
    (product,) = await catalogue.salla_products()
    assert (product.title, product.price, product.currency, product.images) == ("Oud", "349.5", "SAR", ["https://x/1.jpg"])
    await catalogue.report("product.updated", OUD | {"name": "Old oud", "price": {"amount": 400, "currency": "SAR"}})
    (updated,) = await catalogue.salla_products()
    assert (updated.id, updated.title, updated.price) == (product.id, "Old oud", "400")
    row = await catalogue.history(created)
    assert (row.status, row.attempts, row.error) == ("processed", 1, None)
    assert row.processed_at is not None
    await catalogue.report("product.deleted", {"id": 7})
    assert await catalogue.salla_products() == []


async def test_b2_an_older_report_does_not_overwrite_a_newer_one(catalogue):
    await catalogue.report("product.updated", OUD, created_at="2026-08-02T10:00:00+00:00")
    await catalogue.report("product.updated", OUD | {"name": "Stale"}, created_at="2026-08-01T10:00:00+00:00")
    assert (await catalogue.salla_products())[0].title == "Oud"


async def test_b2_a_webhook_that_can_not_be_processed(catalogue):
    history_id = await catalogue.report("product.created", {"name": "no id"})
    row = await catalogue.history(history_id)
    assert (row.status, row.attempts) == ("failed", 1)
    assert "has no data.id" in row.error
    unknown = await catalogue.report("product.created", OUD, salla_id=999)
    assert (await only_of(catalogue, unknown)).error.message == "there is no merchant with Salla's id 999"
    ignored = await catalogue.report("order.created", {"id": 1})
    assert (await catalogue.history(ignored)).status == "processed"


async def only_of(catalogue: Catalogue, history_id: str):
    (run,) = [run for run in await catalogue.h.runs(process_webhook) if run.event.data["webhookHistoryId"] == history_id]
    return run


async def test_b2_a_database_in_trouble_is_tried_again(catalogue):
    async with catalogue.sessions.begin() as session:
        await session.execute(text("CREATE TRIGGER broken BEFORE INSERT ON products BEGIN SELECT RAISE(ABORT, 'out of order'); END"))
    history_id = await catalogue.report("product.created", OUD)
    row = await catalogue.history(history_id)
    assert (row.status, row.attempts) == ("received", 1)
    assert "out of order" in row.error
    async with catalogue.sessions.begin() as session:
        await session.execute(text("DROP TRIGGER broken"))
    await catalogue.h.settle(within="1m")
    row = await catalogue.history(history_id)
    assert (row.status, row.attempts) == ("processed", 2)
    assert len(await catalogue.salla_products()) == 1


async def test_b2_tokens_are_stored_and_hidden_and_deleted(catalogue):
    tokens = catalogue.outside.salla.issue(3600)
    await catalogue.report("app.store.authorize", tokens)
    stored = await catalogue.token()
    assert stored is not None
    assert (stored.access_token, stored.refresh_token) == (tokens["access_token"], tokens["refresh_token"])
    (event,) = await catalogue.sent("app/webhook.received")
    assert event["payload"]["data"]["access_token"] == HIDDEN
    assert tokens["refresh_token"] not in repr([await catalogue.h.events(), await catalogue.h.runs()])
    await catalogue.report("app.uninstalled", {})
    assert await catalogue.token() is None


async def test_b2_the_cron_refreshes_what_expires_within_the_margin(catalogue):
    first = catalogue.outside.salla.issue(3600)
    await catalogue.report("app.store.authorize", first)
    run = await catalogue.h.run(find_expiring_tokens)
    assert run.output == 1
    await catalogue.h.settle(within="1m")
    stored = await catalogue.token()
    assert stored is not None
    assert stored.refresh_token != first["refresh_token"]
    assert stored.expires_at > datetime.now(UTC) + timedelta(days=13)
    assert await catalogue.sent("app/token.refresh-needed") == [{"merchantId": MERCHANT}]
    assert (await catalogue.h.run(find_expiring_tokens)).output == 0
    assert stored.access_token not in repr([await catalogue.h.events(), await catalogue.h.runs()])


async def test_b2_one_refresh_at_a_time(catalogue):
    await catalogue.report("app.store.authorize", catalogue.outside.salla.issue(3600))
    await asyncio.gather(*(catalogue.h.send({"name": "app/token.refresh-needed", "data": {"merchantId": MERCHANT}}) for _ in range(10)))
    await catalogue.h.settle(within="5m")
    runs = await catalogue.h.runs(refresh_token)
    assert [run.output for run in runs if run.status == "COMPLETED"] == ["refreshed"]
    assert [run.status for run in runs].count("SKIPPED") == 9
    assert (catalogue.outside.salla.refreshed, catalogue.outside.salla.spent_twice) == (1, 0)


async def test_b2_a_token_service_in_trouble_and_one_that_refuses(catalogue):
    await catalogue.report("app.store.authorize", catalogue.outside.salla.issue(3600))
    catalogue.outside.salla.failures = [503, 500]
    await catalogue.h.send({"name": "app/token.refresh-needed", "data": {"merchantId": MERCHANT}})
    await catalogue.h.settle(within="5m")
    run = await only_run(catalogue, refresh_token)
    assert (run.status, len(run.failed_attempts or run.step("refresh").failed_attempts)) == ("COMPLETED", 2)

    spent = catalogue.outside.salla.issue(60)
    catalogue.outside.salla.valid.clear()
    await catalogue.report("app.store.authorize", spent)
    await catalogue.h.send({"name": "app/token.refresh-needed", "data": {"merchantId": MERCHANT}})
    refused = max(await catalogue.h.runs(refresh_token), key=lambda run: run.id)
    assert refused.status == "FAILED"
    assert "has to install the app again" in refused.error.message
    assert spent["refresh_token"] not in repr(refused)


# -- crashes ---------------------------------------------------------------------------------------------------------


async def test_b4_an_import_survives_a_crash_at_every_moment(tmp_path, monkeypatch):
    async with running_catalogue(tmp_path, monkeypatch, harness=False) as catalogue:
        product_id = await catalogue.products.start_import(MERCHANT, f"{catalogue.url}/oud")

        async def begin() -> None:
            async with catalogue.sessions.begin() as session:
                await session.execute(update(Product).values(status="IMPORTING", details={}, title=None))

        async def check(_h) -> None:
            product = await catalogue.product(product_id)
            assert (product.status, product.title) == ("IMPORTED", "Royal Oud, 12 ml")

        event = {"name": "product/scrape.requested", "data": {"productId": product_id, "sourceUrl": f"{catalogue.url}/oud", "merchantId": MERCHANT}}
        await assert_durable(app, event, setup=begin, check=check, varies=["duration_ms"])
