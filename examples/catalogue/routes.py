"""The catalogue over HTTP, for programs: Salla's webhooks and the state of an import."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from holdfast.serve.fastapi import stream_run

from . import webhook
from .client import app
from .functions import scrape_product
from .models import FAILED, Merchant
from .sessions import api_merchant
from .web import web_of

MAX_WEBHOOK_BYTES = 1_000_000

router = APIRouter()


@router.post("/api/webhooks/salla")
async def salla_webhook(request: Request) -> dict[str, str]:
    """Salla reports. The answer comes once the report is in the history; it is processed in the background."""
    web = web_of(request)
    payload = await _read_body(request)
    try:
        webhook.verify(payload, request.headers.get(webhook.SIGNATURE_HEADER), web.settings.webhook_secret)
        report = webhook.read_report(payload)
    except webhook.SignatureError as error:
        raise HTTPException(401, str(error)) from error
    except webhook.WebhookContentError as error:
        raise HTTPException(422, str(error)) from error
    history_id = await web.webhooks.receive(report)
    return {"webhookHistoryId": history_id}


@router.get("/api/scrape-status/{job_id}")
async def scrape_status(
    request: Request, job_id: str, merchant: Annotated[Merchant, Depends(api_merchant)]
) -> dict[str, str | None]:
    """Where an import stands. The job's id is the product's."""
    product = await web_of(request).products.one(job_id, merchant.id)
    if product is None:
        raise HTTPException(404, "there is no such import")
    error = product.details.get("scrapeError") if product.status == FAILED else None
    return {"status": product.status, "productId": product.id, "error": error}


@router.get("/api/scrape-status/{job_id}/live")
async def scrape_live(
    request: Request, job_id: str, merchant: Annotated[Merchant, Depends(api_merchant)]
) -> Response:
    """The same as it changes, with how far the import is. What is asked for again is checked again."""
    product = await web_of(request).products.one(job_id, merchant.id)
    if product is None or product.import_id is None:
        raise HTTPException(404, "there is no such import")
    runs = [run for run in await app.runs.of_event(product.import_id) if (await run.info()).function == scrape_product.slug]
    if not runs:
        # the outbox has not handed it over yet: the page polls meanwhile, and asks again
        return Response(status_code=503, headers={"Retry-After": "1"})
    return stream_run(runs[-1].watch())


@router.get("/health")
async def health() -> dict[str, str]:
    """That the catalogue answers."""
    return {"status": "ok"}


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_WEBHOOK_BYTES:
            raise HTTPException(413, f"a webhook may have {MAX_WEBHOOK_BYTES} bytes")
    return bytes(body)
