"""The studio over HTTP. Each request for work answers as soon as it is on disk, with where to look for what comes of it."""

from __future__ import annotations

import hmac
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import FileResponse, Response

from holdfast import Event, Function
from holdfast.serve.fastapi import public_status

from .client import app
from .events import EmailSend, ExportPdf, HelloWorld, StrategyGenerate, WebhookDeliver
from .functions import deliver_webhook, export_pdf, generate_strategy, hello_world, send_email
from .jobs import SUCCEEDED, exported, find, function_of
from .settings import Settings


async def check_key(request: Request) -> None:
    """Refuse whoever doesn't show the studio's key.

    Raises:
        HTTPException: 401.
    """
    settings: Settings = request.app.state.settings
    if settings.api_key is None:
        return
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode(), settings.api_key.encode()):
        raise HTTPException(401, "show the studio's key: Authorization: Bearer ...", {"WWW-Authenticate": "Bearer"})


router = APIRouter(dependencies=[Depends(check_key)])
health_router = APIRouter()


@router.post("/api/hello", status_code=202)
async def hello(event: HelloWorld) -> dict[str, str]:
    """Say hello."""
    return await _begin(hello_world, event)


@router.post("/api/emails", status_code=202)
async def email(event: EmailSend) -> dict[str, str]:
    """Send an e-mail."""
    return await _begin(send_email, event)


@router.post("/api/strategies", status_code=202)
async def strategy(event: StrategyGenerate) -> dict[str, str]:
    """Have a strategy written."""
    return await _begin(generate_strategy, event)


@router.post("/api/exports", status_code=202)
async def export(event: ExportPdf) -> dict[str, str]:
    """Export a document; `GET /api/exports/{jobId}.pdf` has it once the job has completed."""
    return await _begin(export_pdf, event)


@router.post("/api/deliveries", status_code=202)
async def delivery(event: WebhookDeliver) -> dict[str, str]:
    """Report something to another system."""
    return await _begin(deliver_webhook, event)


@router.get("/api/jobs/{job_id}")
async def job(job_id: str) -> dict[str, Any]:
    """Where a job stands, and what came of it."""
    run = await find(job_id)
    output = await app.handle(run.id, function_of(run)).result(timeout=5) if run.status == SUCCEEDED else None
    progress = public_status(run)["progress"]
    return {"jobId": run.id, "status": run.status, "progress": progress, "output": output, "error": run.error}


@router.get("/api/exports/{job_id}.pdf")
async def download(job_id: str) -> Response:
    """The file that an export has written."""
    path = exported(await find(job_id))
    return FileResponse(path, media_type="application/pdf", filename=path.name)


@health_router.get("/health")
async def health() -> dict[str, str]:
    """That the studio answers."""
    return {"status": "ok"}


async def _begin(function: Function[Any, Any], event: Event) -> dict[str, str]:
    handle = await app.start(function, event)
    return {"jobId": handle.id, "status": f"/api/jobs/{handle.id}"}
