"""The catalogue's pages."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from . import sessions
from .models import ENHANCED, FAILED, IMPORTED, Merchant, Product
from .platforms import UnsupportedAddressError, check_address
from .sessions import page_merchant
from .web import web_of

STALE = "This page was open for too long, or in another session. Nothing is lost: please send it again."
WRONG_LOGIN = "There is no account with this e-mail address and password."

router = APIRouter(include_in_schema=False)
_HERE = Path(__file__).parent
_environment = Environment(
    loader=FileSystemLoader(_HERE / "templates"), autoescape=select_autoescape(["html"]), undefined=StrictUndefined
)
_templates = Jinja2Templates(env=_environment)

SignedIn = Annotated[Merchant, Depends(page_merchant)]
Text = Annotated[str, Form()]


# -- logging in ------------------------------------------------------------------------------------------------------


@router.get("/login")
async def login_form(request: Request, target: Annotated[str, Query(alias="next")] = "/") -> Response:
    """Where one logs in."""
    return _page(request, "login.html", next=sessions.safe_next(target), email="", problem=None)


@router.post("/login")
async def log_in(
    request: Request,
    email: Text = "",
    password: Text = "",
    wanted: Annotated[str, Form(alias="next")] = "/",
    form: Text = "",
) -> Response:
    """Log in, and go where one wanted to go."""
    target = sessions.safe_next(wanted)
    if not sessions.form_fits(request, form):
        return _page(request, "login.html", 403, next=target, email=email, problem=STALE)
    merchant = await web_of(request).merchants.log_in(email, password)
    if merchant is None:
        return _page(request, "login.html", 401, next=target, email=email, problem=WRONG_LOGIN)
    sessions.begin(request, merchant)
    return RedirectResponse(target, 303)


@router.post("/logout")
async def log_out(request: Request, form: Text = "") -> Response:
    """Log out."""
    if sessions.form_fits(request, form):
        request.session.clear()
    return RedirectResponse("/login", 303)


# -- products --------------------------------------------------------------------------------------------------------


@router.get("/")
async def products(request: Request, merchant: SignedIn) -> Response:
    """All products of the merchant."""
    found = await web_of(request).products.of(merchant.id)
    return _page(request, "products.html", merchant=merchant, products=found)


@router.get("/products/{product_id}")
async def product(request: Request, product_id: str, merchant: SignedIn) -> Response:
    """One product."""
    found = await _product(request, product_id, merchant)
    if found.status not in {IMPORTED, ENHANCED}:
        return RedirectResponse(f"/import/status/{found.id}", 303)
    return _page(request, "product.html", merchant=merchant, product=found)


@router.get("/webhooks")
async def webhooks(request: Request, merchant: SignedIn) -> Response:
    """What Salla reported about the merchant's shop."""
    found = await web_of(request).webhooks.of(merchant.salla_id)
    return _page(request, "webhooks.html", merchant=merchant, webhooks=found)


# -- imports ---------------------------------------------------------------------------------------------------------


@router.get("/import")
async def import_form(request: Request, merchant: SignedIn, url: Annotated[str, Query()] = "") -> Response:
    """Where one asks for an import."""
    return _import_form(request, merchant, url, None, 200)


@router.post("/import")
async def start_import(request: Request, url: Text = "", form: Text = "") -> Response:
    """Start an import, and show where it stands."""
    merchant = await sessions.current_merchant(request)
    if merchant is None:
        # the address survives the login
        return RedirectResponse(f"/login?next={quote(f'/import?url={quote(url)}', safe='')}", 303)
    if not sessions.form_fits(request, form):
        return _import_form(request, merchant, url, STALE, 403)
    web = web_of(request)
    try:
        address = check_address(url, web.settings.platforms)
    except UnsupportedAddressError as error:
        return _import_form(request, merchant, url, str(error), 400)
    product_id = await web.products.start_import(merchant.id, address)
    return RedirectResponse(f"/import/status/{product_id}", 303)


@router.get("/import/status/{product_id}")
async def import_status(request: Request, product_id: str, merchant: SignedIn) -> Response:
    """Where an import stands."""
    found = await _product(request, product_id, merchant)
    if found.status in {IMPORTED, ENHANCED}:
        return RedirectResponse(f"/products/{found.id}", 303)
    return _status_page(request, merchant, found, None, 200)


@router.post("/import/{product_id}/retry")
async def retry_import(request: Request, product_id: str, merchant: SignedIn, form: Text = "") -> Response:
    """Try an import again that has failed. Asked twice, it starts once."""
    found = await _product(request, product_id, merchant)
    if not sessions.form_fits(request, form):
        return _status_page(request, merchant, found, STALE, 403)
    web = web_of(request)
    await web.products.retry_import(product_id, merchant.id)
    return RedirectResponse(f"/import/status/{product_id}", 303)


def _import_form(request: Request, merchant: Merchant, url: str, problem: str | None, status: int) -> Response:
    platforms = web_of(request).settings.platforms
    return _page(request, "import.html", status, merchant=merchant, url=url, problem=problem, platforms=platforms)


def _status_page(request: Request, merchant: Merchant, found: Product, problem: str | None, status: int) -> Response:
    error = found.details.get("scrapeError") if found.status == FAILED else None
    return _page(request, "status.html", status, merchant=merchant, product=found, error=error, problem=problem)


# -- errors ----------------------------------------------------------------------------------------------------------


async def to_login(request: Request, _error: Exception) -> Response:
    """For pages that are only for merchants who are logged in."""
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if request.method != "GET":
        target = "/"
    return RedirectResponse(f"/login?next={quote(target, safe='')}", 303)


def error_page(request: Request, status: int, text: str) -> Response:
    """A page that says what went wrong."""
    titles = {403: "Not allowed", 404: "Not found", 405: "Not possible here"}
    return _page(request, "error.html", status, title=titles.get(status, "This didn't work"), text=text)


async def _product(request: Request, product_id: str, merchant: Merchant) -> Product:
    found = await web_of(request).products.one(product_id, merchant.id)
    if found is None:
        raise HTTPException(404, "There is no such product in your catalogue.")
    return found


def _page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    context = {"form_token": sessions.form_token(request), "merchant": None, **values}
    return _templates.TemplateResponse(request, template, context, status_code=status)


def _ago(moment: datetime) -> str:
    seconds = max(0, int((datetime.now(UTC) - moment).total_seconds()))
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


_environment.filters["ago"] = _ago
