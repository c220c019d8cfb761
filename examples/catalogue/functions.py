"""The durable functions. A finished step is on disk and is not run again, whatever happens to the steps after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from holdfast import (
    Concurrency,
    Context,
    Cron,
    CronTick,
    Function,
    FunctionFailed,
    NonRetriableError,
    RetryPresets,
    Singleton,
)

from .client import app
from .enhancing import ProductText, write_text
from .events import ScrapeCompleted, ScrapeFailed, ScrapeRequested, TokenRefreshNeeded, WebhookReceived
from .products import Gap, Source
from .resources import Catalogue
from .scraping import Scraped, extract

AT_ONCE = Concurrency(4)
"""Imports whose steps execute at once, and so many texts that are written: whoever asks for one more is answered all the same."""

# -- webhooks and tokens ---------------------------------------------------------------------------------------------


async def webhook_failed(ctx: Context[FunctionFailed]) -> None:
    """Note in the history that a webhook will not be processed."""
    failed = ctx.event.data
    catalogue: Catalogue = ctx.resources
    history_id = failed.event["data"]["webhookHistoryId"]
    await ctx.step.run("note", catalogue.webhooks.give_up, history_id, failed.error["message"])


@app.function(WebhookReceived, retries=4, backoff=RetryPresets.salla_api, on_failure=webhook_failed)
async def process_webhook(ctx: Context[WebhookReceived]) -> str:
    """Do what a webhook of Salla's asks for. The history row has it whole; the event only without its secrets."""
    catalogue: Catalogue = ctx.resources
    return await ctx.step.run("process", catalogue.webhooks.process, ctx.event.data.webhook_history_id)


@app.function(Cron("*/10 * * * *"))
async def find_expiring_tokens(ctx: Context[CronTick]) -> int:
    """Ask for the refresh of each token that expires within the margin; how many there are."""
    catalogue: Catalogue = ctx.resources
    now = await ctx.now()
    merchants = await ctx.step.run("find", catalogue.tokens.expiring, now)
    if merchants:
        # one request an hour: a refresh that is being tried again doesn't need company
        events = [
            {
                "name": TokenRefreshNeeded.__holdfast_event__,
                "data": {"merchantId": merchant},
                "id": f"token-refresh:{merchant}:{now:%Y-%m-%dT%H}",
            }
            for merchant in merchants
        ]
        await ctx.step.send("request-refresh", events)
    return len(merchants)


@app.function(
    TokenRefreshNeeded,
    retries=RetryPresets.salla_api,
    singleton=Singleton("skip", key="event.data.merchantId"),
)
async def refresh_token(ctx: Context[TokenRefreshNeeded]) -> str:
    """Obtain and store a new token, one refresh per merchant at a time. No token leaves the step."""
    catalogue: Catalogue = ctx.resources
    return await ctx.step.run("refresh", catalogue.tokens.refresh, ctx.event.data.merchant_id)


# -- imports ---------------------------------------------------------------------------------------------------------


async def scrape_failed(ctx: Context[FunctionFailed]) -> None:
    """After the last try: the product says why, and so does an event."""
    failed = ctx.event.data
    catalogue: Catalogue = ctx.resources
    product_id, error = failed.event["data"]["productId"], failed.error["message"]
    marked = await ctx.step.run("mark-failed", catalogue.products.fail_import, product_id, failed.event["id"], error)
    if marked:
        await ctx.step.send("announce", ScrapeFailed(product_id=product_id, error=error))


@app.function(ScrapeRequested, retries=2, backoff=RetryPresets.scraper, concurrency=AT_ONCE, on_failure=scrape_failed)
async def scrape_product(ctx: Context[ScrapeRequested]) -> str:
    """Import a product from its page. What it says of its progress is on the import's status page."""
    wanted = ctx.event.data
    catalogue: Catalogue = ctx.resources
    source = await ctx.step.run(
        "load-product", load_product, catalogue, wanted.product_id, wanted.merchant_id, ctx.event.id
    )
    ctx.progress(0.1, "Asking the shop for its page")
    remote = ctx.step.options(retries=RetryPresets.scraper, timeout=timedelta(minutes=5))
    scraped = await remote.run("scrape-product", scrape, catalogue, source, ctx.progress)
    ctx.progress(0.9, "Saving the product")
    await ctx.step.run("save-product", save_product, catalogue, source.product_id, ctx.event.id, scraped)
    # the same announcement, whichever run of the import makes it
    completed = ScrapeCompleted(product_id=source.product_id, success=True)
    await ctx.step.send("announce", completed, id=f"scrape-completed:{ctx.event.id}")
    return f"imported by {scraped.provider}"


async def load_product(catalogue: Catalogue, product_id: str, merchant_id: str, import_id: str) -> Source:
    source = await catalogue.products.begin_import(product_id, merchant_id, import_id)
    if source is None:
        raise NonRetriableError(f"there is no product {product_id} of {merchant_id} with status IMPORTING")
    return source


async def scrape(catalogue: Catalogue, source: Source, progress: Callable[[float, str], None]) -> Scraped:
    started = time.monotonic()
    page = await catalogue.fetcher.fetch(source.url)
    progress(0.6, "Looking for the product on it")
    # parsing megabytes would hold up everybody else on the event loop
    return await asyncio.to_thread(extract, page, started)


async def save_product(catalogue: Catalogue, product_id: str, import_id: str, scraped: Scraped) -> None:
    if not await catalogue.products.finish_import(product_id, import_id, scraped):
        raise NonRetriableError(f"another import of product {product_id} has taken over; this one's result is dropped")


@app.function(ScrapeCompleted, retries=2, backoff=RetryPresets.ai_api, concurrency=AT_ONCE)
async def enhance_product(ctx: Context[ScrapeCompleted]) -> str:
    """Have a text written for a product whose page has pictures only. If that fails, it stays as it is."""
    catalogue: Catalogue = ctx.resources
    product_id = ctx.event.data.product_id
    gap = await ctx.step.run("load-product", load_gap, catalogue, product_id)
    if gap is None:
        return "nothing is missing"
    text = await ctx.step.options(retries=RetryPresets.ai_api).run("write-text", write, catalogue, gap)
    saved = await ctx.step.run("save-text", catalogue.products.enhance, product_id, text.title, text.description)
    return "enhanced" if saved else "the product has changed meanwhile"


async def load_gap(catalogue: Catalogue, product_id: str) -> Gap | None:
    return await catalogue.products.gap(product_id)


async def write(catalogue: Catalogue, gap: Gap) -> ProductText:
    return await write_text(catalogue.model, gap)


functions: list[Function[Any, Any]] = [
    process_webhook,
    find_expiring_tokens,
    refresh_token,
    scrape_product,
    enhance_product,
]
