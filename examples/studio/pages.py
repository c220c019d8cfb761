"""The studio for its team: a form for each kind of job, and a page for each job that shows it live."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response
from pydantic import ValidationError

from examples.common.pages import Pages, own_form, pages_of, team
from holdfast import ConfigurationError, Event, Function, RunInfo
from holdfast.serve.fastapi import public_status, stream_run

from .client import app
from .events import EmailSend, ExportPdf, HelloWorld, StrategyGenerate, WebhookDeliver
from .functions import deliver_webhook, export_pdf, generate_strategy, hello_world, send_email
from .jobs import SUCCEEDED, exported, find, function_of, recent
from .settings import Settings

FOLDER = Path(__file__).parent
_SHOWN = 12


@dataclass(frozen=True)
class Kind:
    """A kind of job that the page offers."""

    name: str
    title: str
    about: str
    function: Function[Any, Any]
    event: type[Event]

    def event_of(self, form: Mapping[str, str]) -> Event:
        """What was typed, as an event. An empty field is as if it were not there.

        Raises:
            ValidationError: it does not fit.
        """
        given: dict[str, Any] = {name: text for name, text in form.items() if text.strip()}
        if self.event is ExportPdf:
            given["sections"] = [{"heading": given.pop("heading", ""), "text": given.pop("text", "")}]
        if self.event is WebhookDeliver:
            given["payload"] = _object(given.get("payload", "{}"))
        return self.event.model_validate(given)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("hello", "Say hello", "The shortest way to see that everything works.", hello_world, HelloWorld),
        Kind(
            "email", "Send an e-mail", "Tried again for minutes while the mail server is away.", send_email, EmailSend
        ),
        Kind(
            "strategy", "Write a strategy", "A text model writes it, three tries.", generate_strategy, StrategyGenerate
        ),
        Kind("pdf", "Export a PDF", "A document with a title and a section.", export_pdf, ExportPdf),
        Kind(
            "webhook",
            "Deliver a webhook",
            "Signed, and repeated for hours if need be.",
            deliver_webhook,
            WebhookDeliver,
        ),
    )
}
_BY_FUNCTION = {kind.function.slug: kind for kind in KINDS.values()}
WORDS = {
    "QUEUED": ("Queued", ""), "RUNNING": ("Working", "busy"), "WAITING": ("Trying again soon", "warm"),
    "COMPLETED": ("Done", "good"), "FAILED": ("Failed", "bad"), "CANCELLED": ("Cancelled", ""),
}  # fmt: skip

router = APIRouter(include_in_schema=False, dependencies=[Depends(team)])


def make_pages(settings: Settings) -> Pages:
    """The studio's pages, before they are put into its web application."""
    pages = Pages("Studio", FOLDER, settings.api_key, production=settings.production)
    pages.templates.env.globals.update(kinds=KINDS, words=WORDS, kind_of=lambda run: _BY_FUNCTION[run.function])
    return pages


@router.get("/")
async def overview(request: Request) -> Response:
    """The forms, and the jobs of late."""
    return await _overview(request)


@router.post("/jobs/{name}", dependencies=[Depends(own_form)])
async def begin(request: Request, name: str) -> Response:
    """Begin a job, and show it; what does not fit comes back with the reason, and with what was typed."""
    kind = KINDS.get(name)
    if kind is None:
        raise HTTPException(404, "there is no such kind of job")
    form = {field: str(text) for field, text in (await request.form()).items() if field != "form"}
    try:
        event = kind.event_of(form)
    except ValidationError as error:
        problems = {str(one["loc"][-1]): _said(one) for one in error.errors(include_url=False)}
        return await _overview(request, 422, failed=kind.name, typed=form, problems=problems)
    handle = await app.start(kind.function, event)
    return RedirectResponse(f"/jobs/{handle.id}", 303)


@router.get("/jobs/{job_id}")
async def job(request: Request, job_id: str) -> Response:
    """Where a job stands, or what came of it."""
    return await _job(request, await find(job_id), 200)


@router.get("/jobs/{job_id}/state")
async def state(job_id: str) -> Response:
    """The same for a script that asks again and again."""
    return JSONResponse(public_status(await find(job_id)))


@router.get("/jobs/{job_id}/live")
async def live(job_id: str) -> Response:
    """The same as it changes. Each connection is checked, like each request."""
    run = await find(job_id)
    return stream_run(app.runs.watch(run.id))


@router.get("/jobs/{job_id}/document.pdf")
async def document(job_id: str, download: bool = False) -> Response:
    """The document of an export, to look at or to save."""
    path = exported(await find(job_id))
    how = "attachment" if download else "inline"
    return FileResponse(path, media_type="application/pdf", filename=f"{path.stem}.pdf", content_disposition_type=how)


@router.post("/jobs/{job_id}/again", dependencies=[Depends(own_form)])
async def again(request: Request, job_id: str) -> Response:
    """Go on with a job that has failed. Asked twice, it goes on once."""
    run = await find(job_id)
    try:
        new = await app.redrive(run.id)
    except ConfigurationError as error:
        return await _job(request, run, 409, problem=f"It can't be tried again: {error}.")
    return RedirectResponse(f"/jobs/{new}", 303)


async def _overview(request: Request, status: int = 200, **values: Any) -> Response:
    shown = {"failed": None, "typed": {}, "problems": {}, **values}
    return pages_of(request).show(request, "studio.html", status, jobs=await recent(_SHOWN), **shown)


async def _job(request: Request, run: RunInfo, status: int, problem: str | None = None) -> Response:
    output = None
    if run.status == SUCCEEDED:
        output = await app.handle(run.id, function_of(run)).result(timeout=5)
    return pages_of(request).show(
        request, "job.html", status, job=run, kind=_BY_FUNCTION[run.function], output=output, problem=problem
    )


_SAID = {
    ("to", "string_pattern_mismatch"): "That is no e-mail address; one looks like ada@example.com.",
    ("url", "string_pattern_mismatch"): "That is no address; one begins with http:// or https://.",
    ("payload", "dict_type"): 'That is no JSON object; one looks like {"n": 1}.',
}


def _said(problem: Mapping[str, Any]) -> str:
    """What is wrong with a field, for the person who filled it in."""
    if problem["type"] in {"missing", "string_too_short"}:
        return "Please fill this in."
    message: str = _SAID.get((problem["loc"][-1], problem["type"]), problem["msg"])
    return message


def _object(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # which the event refuses, naming the field
